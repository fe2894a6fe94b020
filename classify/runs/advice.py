"""The advice that a run records: which scenario the data is in, why, how sure that is, and what to try next."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Peak:
    """The best of the taps of one network, each with its best head and pool, and which others are as good.

    depth: share of the forward cost up to it. n_layers: how many were tried, from `shallowest` to `deepest` of the forward
    cost. tied_range: the depths between which layers lie that are not told apart from the best one: their paired 95 %
    interval holds 0, or they are less than a point behind. gap_to_rival: how far the best layer on the other side of
    `LATE_DEPTH` is behind, with that interval; None where none was tried.
    position: `end` where the tied layers all lie in the last quarter of the forward cost and some layer before it was tried,
    `early` where they all lie before it and some layer in it was tried, `unsure` where they lie on both sides, and
    `unknown` where layers were tried on one side only. As every paired comparison with the best of many it is a little
    optimistic, see `significance.compare_with_runner_up`.
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
    """The accuracy of a head on the backbone's own features and on those of random weights, on the same images.

    difference_95: the paired interval of own less random. Each is the best, by log-loss, of the hyperparameters tried.
    errors_avoided: the share of the errors made on random weights that the own weights avoid; negative where they make more.
    A difference in accuracy alone would call every gain small where both are nearly always right.
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
    """A command to paste, and why."""

    command: str
    reason: str


@dataclass(frozen=True)
class ScenarioSummary:
    """The scenario (B1 to B4, or None), the strategy that goes with it, what speaks for it, and what makes that unsure.

    size: `small`, `large` or `between`. similarity: `similar` or `different` to what the network learnt from, or None.
    """

    scenario: str | None
    size: str
    similarity: str | None
    strategy: str | None
    reasons: tuple[str, ...]
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class Advice(ScenarioSummary):
    """A scenario with commands to try next, and the figures it was judged by."""

    next: tuple[Step, ...]
    peaks: tuple[Peak, ...]
    pretraining_gain: PretrainingGain | None
