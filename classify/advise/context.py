"""The context of advice: the trials and networks of a run, and the options of its command."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ...cache.errors import HumerisError
from ...cache.formatting import to_printable
from ...cache.spec import ExtractionSpec
from ...extract.backbones import cut_points
from ...extract.backbones.backbone_spec import BackboneSpec
from ...extract.backbones.graph import Layer
from ...extract.backbones.taps import Tap
from ..data.views import Views
from ..evaluate.significance import Comparison
from ..evaluate.trial import Score, Trial
from ..runs.finetuned_weights import can_finetune
from .scenario import ScenarioEvidence

_MAX_MAP_BYTES = 20e9  # of the maps to cache for fine-tuning
_LIST_OPTIONS = ("--path-column", "--label-column", "--label-columns", "--split-column", "--group-column", "--images")
_SHARED_OPTIONS = {
    "run": ("--limit", "--select", *_LIST_OPTIONS),
    "sweep": ("--limit", "--select", *_LIST_OPTIONS),
    "extract": ("--limit", *_LIST_OPTIONS),
}


@dataclass(frozen=True)
class AdviceContext:
    """What the next steps depend on.

    Parameters
    ----------
    evidence : ScenarioEvidence
        The evidence for the scenario.
    run, data, command_line : Path or str
        The run folder, the data and the command, as typed.
    cache_options : tuple of str
        Options that name the cache, if it is not the default one.
    n_images : int
        Images outside the test split.
    views : Views
        Of the run.
    seed : int
        Of the run.
    from_images : bool
        Whether the data is images, not a file of features.
    ranked_trials : sequence of Trial
        Best first.
    scores : mapping of Trial to Score
        Of these trials.
    layers : mapping of str to sequence of Layer
        Of each network, by extraction.
    specs : mapping of str to ExtractionSpec
        By extraction.
    runner_up : Comparison or None
        Of the winner with the runner-up.
    """

    evidence: ScenarioEvidence
    run: Path
    data: str
    command_line: str
    cache_options: tuple[str, ...]
    n_images: int
    views: Views
    seed: int
    from_images: bool
    ranked_trials: Sequence[Trial]
    scores: Mapping[Trial, Score]
    layers: Mapping[str, Sequence[Layer]]
    specs: Mapping[str, ExtractionSpec]
    runner_up: Comparison | None

    @property
    def best(self) -> Trial:
        """The winner."""
        return self.ranked_trials[0]

    @property
    def taps(self) -> str:
        """The winner's taps for the option `-l` of a sweep; "" if two networks have the same name."""
        if any(tap_ref.backbone.endswith(")") for tap_ref in self.best.tap_refs):  # a digest distinguishes them
            return ""
        return "+".join(map(str, self.best.tap_refs))

    @cached_property
    def backbone_spec(self) -> BackboneSpec | None:
        """The network of the winner's taps; None if there are several, its file is missing, or the data has no images."""
        names = {tap_ref.extraction for tap_ref in self.best.tap_refs}
        if len(names) > 1 or not self.from_images:
            return None
        try:
            return to_backbone_spec(self.specs[names.pop()])
        except HumerisError:
            return None

    def build_command(self, *words: object) -> str:
        """Format a humeris command line with the run's cache."""
        return shlex.join(["humeris", *(to_printable(word) for word in (*words, *self.cache_options))])

    def build_repeat_command(self, verb: str, *words: object) -> str:
        """Format a command on the same data, with the run's limit and selection, and its views except for `extract`."""
        shared_words: list[object] = []
        typed_words = _split_words(self.command_line)
        for option in _SHARED_OPTIONS[verb]:
            shared_words += [option, typed_words[typed_words.index(option) + 1]] if option in typed_words[:-1] else []
            shared_words += [word for word in typed_words if word.startswith(f"{option}=")]
        if verb != "extract":
            shared_words += ["--seed", self.seed] if self.seed else []
            if self.views.count:
                shared_words += ["--views", self.views.count, "--augment", self.views.policy]
                shared_words += ["--average-views"] if self.views.average else []
        return self.build_command(verb, self.data, *words, *shared_words)

    @cached_property
    def start_trial(self) -> Trial | None:
        """The trial to fine-tune from: the best one with a trainable head on taps of one network."""
        for trial in self.ranked_trials if self.from_images else ():
            names = {layer.name for layer in self.layers.get(trial.tap_refs[0].extraction, ())}
            is_on_one_network = len({tap_ref.extraction for tap_ref in trial.tap_refs}) == 1
            if is_on_one_network and names.issuperset(tap_ref.layer for tap_ref in trial.tap_refs) and can_finetune(trial):
                return trial
        return None

    def find_cut(self, trial: Trial, share: float) -> tuple[Layer, float] | None:
        """Find the layer to fine-tune from.

        Parameters
        ----------
        trial : Trial
            On taps of one network.
        share : float
            The wanted position of the layer, as a fraction of the forward cost of the trial's taps.

        Returns
        -------
        cut : tuple of (Layer, float) or None
            The cut point nearest to `share`, at the end of a block if possible, and its position; None if there is none or
            the maps are too large to cache.
        """
        layers = self.layers[trial.tap_refs[0].extraction]
        trial_taps = [Tap(tap_ref.layer, tap_ref.pool) for tap_ref in trial.tap_refs]
        top_cost = min(layer.cost for layer in layers if layer.name in {tap.layer for tap in trial_taps})
        map_layers = [
            layer for layer in cut_points.list_cuts(layers, trial_taps) if len(layer.shape) > 1 and layer.cost < top_cost
        ]
        map_layers = [layer for layer in map_layers if layer.is_block_end] or map_layers
        affordable = [layer for layer in map_layers if self.count_map_bytes(layer) <= _MAX_MAP_BYTES]
        nearest_layer = min(
            affordable, key=lambda layer: (abs(layer.cost - share * top_cost), self.count_map_bytes(layer)), default=None
        )
        return None if nearest_layer is None else (nearest_layer, nearest_layer.cost / top_cost)

    def count_map_bytes(self, layer: Layer) -> int:
        """Return the size in bytes of the maps of all training images, in half precision."""
        return 2 * self.n_images * math.prod(layer.shape)

    def compute_cost(self, trial: Trial) -> int:
        """Return the multiply-adds of a trial's networks up to its taps; 0 if unknown."""
        cost_by_extraction: dict[str, int] = {}
        for tap_ref in trial.tap_refs:
            costs = {layer.name: layer.cost for layer in self.layers.get(tap_ref.extraction, ())}
            if tap_ref.layer not in costs:
                return 0
            cost_by_extraction[tap_ref.extraction] = max(cost_by_extraction.get(tap_ref.extraction, 0), costs[tap_ref.layer])
        return sum(cost_by_extraction.values())


def to_backbone_spec(spec: ExtractionSpec) -> BackboneSpec:
    """Return the shortest backbone spec of an extraction's network; raise `HumerisError` if its file is missing."""
    full_spec = BackboneSpec.from_spec(spec)
    info = full_spec.info
    return replace(
        full_spec,
        image_size=None if full_spec.image_size == info.image_size else full_spec.image_size,
        preprocessing=None if full_spec.preprocessing == info.preprocessing else full_spec.preprocessing,
    )


def repeat_option(name: str, values: Iterable[object]) -> list[str]:
    """Return the option `name` once for each value."""
    return [word for value in values for word in (name, str(value))]


def _split_words(command_line: str) -> list[str]:
    """Split a command line into words; [] if it is malformed."""
    try:
        return shlex.split(command_line)
    except ValueError:
        return []
