"""The advice recorded in a run: the scenario of transfer learning, its reasons and caveats, and what to try next."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Peak:
    """The best tap of one backbone, each layer with its best head and pool, and the layers that are as good.

    depth: fraction of the forward cost up to the layer. n_layers: number of layers tried, from depth `shallowest` to depth
    `deepest`. tied_range: depths of the shallowest and deepest layer not distinguishable from the best: their paired 95 %
    interval contains 0, or they are less than a point behind. gap_to_rival: how far the best layer on the other side of
    `LATE_DEPTH` is behind, with its 95 % interval; None if none was tried.
    position: `end` if all tied layers are in the last quarter of the forward cost and a layer before it was tried, `early`
    if
    all are before it and a layer in it was tried, `unsure` if they are on both sides, `unknown` if layers were tried on one
    side only. Like every comparison with the best of many it is slightly optimiztic, see
    `significance.compare_with_runner_up`.
    """

    backbone: str
    extraction: str
    layer: str
    depth: float
    accuracy: float
    n_layers: int
    shallowest: float
    deepest: float
    tied_range: tuple[float, float]
    gap_to_rival: tuple[float, float, float] | None
    position: str


@dataclass(frozen=True)
class PretrainingGain:
    """Accuracy of a head on pretrained features and on those of a random initialization, on the same images.

    difference_95: paired 95 % interval of pretrained minus random. Both use the hyperparameters with the lowest log-loss.
    errors_avoided: fraction of the errors with random weights that pretraining avoids, negative if it adds errors. Accuracy
    alone would make every gain look small when both accuracies are high.
    """

    pretrained_accuracy: float
    random_init_accuracy: float
    difference_95: tuple[float, float]
    images: int
    head: str
    errors_avoided: float = field(init=False)

    def __post_init__(self) -> None:
        errors = max(1 - self.random_init_accuracy, 1 / self.images)
        object.__setattr__(self, "errors_avoided", (self.pretrained_accuracy - self.random_init_accuracy) / errors)


@dataclass(frozen=True)
class Step:
    """A command to run, and the reason."""

    command: str
    reason: str


@dataclass(frozen=True)
class ScenarioSummary:
    """The scenario (B1 to B4, or None), its strategy, reasons and caveats.

    size: `small`, `large` or `between`. similarity: `similar` or `different` to the data the network was pretrained on, or
    None.
    """

    scenario: str | None
    size: str
    similarity: str | None
    strategy: str | None
    reasons: tuple[str, ...]
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class Advice(ScenarioSummary):
    """A scenario with the commands to try next, and the evidence for it."""

    next: tuple[Step, ...]
    peaks: tuple[Peak, ...]
    pretraining_gain: PretrainingGain | None
