"""What there is to build on after a run: its trials, its networks, and how its commands were typed."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ...cache.errors import HumerisError
from ...cache.formatting import safe
from ...cache.spec import Spec
from ...extract.backbones.backbone_spec import Request
from ...extract.backbones.graph import Layer
from ...extract.backbones.taps import Tap
from ..evaluate.significance import Comparison
from ..evaluate.trial import Score, Trial
from ..finetune import cut_points as cut
from ..runs.finetuned_weights import can_start
from .scenario import Figures

_AFFORDABLE = 20e9  # bytes of maps
_OPTIONS = {"run": ("--limit", "--select"), "sweep": ("--limit", "--select"), "extract": ("--limit",)}


@dataclass(frozen=True)
class Situation:
    """What the next steps depend on.

    run, data, typed: the run's folder, the data and the command as they were written. cache: the options that name it.
    images: that are learnt from. from_images: whether the data is images, not a file of features. ranked: the trials, best
    first. layers: of each network, by its extraction.
    """

    figures: Figures
    run: Path
    data: str
    typed: str
    cache: tuple[str, ...]
    images: int
    views: Mapping[str, Any]
    seed: int
    from_images: bool
    ranked: Sequence[Trial]
    scores: Mapping[Trial, Score]
    layers: Mapping[str, Sequence[Layer]]
    specs: Mapping[str, Spec]
    runner_up: Comparison | None

    @property
    def best(self) -> Trial:
        """The winner."""
        return self.ranked[0]

    @property
    def taps(self) -> str:
        """The winner's taps as `-l` of a sweep over what is cached takes them; "" where two networks have one name."""
        if any(source.backbone.endswith(")") for source in self.best.sources):  # a digest tells them apart
            return ""
        return "+".join(map(str, self.best.sources))

    @cached_property
    def network(self) -> Request | None:
        """The network of the winner's taps; None where they are of several, it is gone, or there are no images for it."""
        names = {source.extraction for source in self.best.sources}
        if len(names) > 1 or not self.from_images:
            return None
        try:
            return request(self.specs[names.pop()])
        except HumerisError:
            return None

    def command(self, *words: object) -> str:
        """A command of humeris's on the run, as one types it."""
        return shlex.join(["humeris", *(safe(word) for word in (*words, *self.cache))])

    def again(self, verb: str, *words: object) -> str:
        """A command on the same images, chosen among in the same way, and in the same views but for `extract`."""
        kept: list[object] = []
        typed = _words(self.typed)
        for option in _OPTIONS[verb]:
            kept += [option, typed[typed.index(option) + 1]] if option in typed[:-1] else []
            kept += [word for word in typed if word.startswith(f"{option}=")]
        if verb != "extract":
            kept += ["--seed", self.seed] if self.seed else []
            if self.views["count"]:
                kept += ["--views", self.views["count"], "--augment", self.views["policy"]]
                kept += ["--average-views"] if self.views["average"] else []
        return self.command(verb, self.data, *words, *kept)

    @cached_property
    def start(self) -> Trial | None:
        """The trial that a network can be trained on from: the best whose head can, on taps of one network."""
        for trial in self.ranked if self.from_images else ():
            names = {layer.name for layer in self.layers.get(trial.sources[0].extraction, ())}
            on_one = len({source.extraction for source in trial.sources}) == 1
            if on_one and names.issuperset(source.layer for source in trial.sources) and can_start(trial):
                return trial
        return None

    def cut(self, trial: Trial, share: float) -> tuple[Layer, float] | None:
        """The layer nearest to a share of the cost of a trial's taps at which the network can be cut, and its share.

        After a finished step if it can be; None where the maps of all such layers are too large.
        """
        layers = self.layers[trial.sources[0].extraction]
        wanted = [Tap(source.layer, source.pool) for source in trial.sources]
        top = min(layer.cost for layer in layers if layer.name in {tap.layer for tap in wanted})
        maps = [layer for layer in cut.cuts(layers, wanted) if len(layer.shape) > 1 and layer.cost < top]
        maps = [layer for layer in maps if layer.finished] or maps
        affordable = [layer for layer in maps if self.bytes(layer) <= _AFFORDABLE]
        chosen = min(affordable, key=lambda layer: (abs(layer.cost - share * top), self.bytes(layer)), default=None)
        return None if chosen is None else (chosen, chosen.cost / top)

    def bytes(self, layer: Layer) -> int:
        """Bytes of the whole maps of the images learnt from, in half precision."""
        return 2 * self.images * math.prod(layer.shape)

    def cost(self, trial: Trial) -> int:
        """Multiply-adds of all that a trial needs of its networks; 0 where they are not known."""
        deepest: dict[str, int] = {}
        for source in trial.sources:
            costs = {layer.name: layer.cost for layer in self.layers.get(source.extraction, ())}
            if source.layer not in costs:
                return 0
            deepest[source.extraction] = max(deepest.get(source.extraction, 0), costs[source.layer])
        return sum(deepest.values())


def request(spec: Spec) -> Request:
    """The request for the network of a spec, as short as can be; raises `HumerisError` where its file is gone."""
    exact = Request.of(spec)
    known = exact.application
    if known is None:
        return exact
    return replace(
        exact,
        image_size=None if exact.image_size == (known.size, known.size) else exact.image_size,
        preprocessing=None if exact.preprocessing == known.preprocessing else exact.preprocessing,
    )


def options(name: str, values: Iterable[object]) -> list[str]:
    """The option `name` once for each value."""
    return [word for value in values for word in (name, str(value))]


def _words(typed: str) -> list[str]:
    """The words of a command; [] of what is none."""
    try:
        return shlex.split(typed)
    except ValueError:
        return []
