"""What a run is concluded with: which case the data is in, why, how sure that is, and what to try next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...cache.spec import Spec
from ...cache.store import Store, default_folder
from ...extract.backbones.graph import Layer
from ...extract.images.load import Images
from ..data import select_features
from ..data.cached_taps import Shelf
from ..data.feature_matrix import Stored
from ..data.splits import Splits
from ..diagnose import random_baseline
from ..diagnose.depth_peak import peaks
from ..diagnose.random_baseline import Gap
from ..evaluate import significance
from ..evaluate.confidence_intervals import design_effect, of_share
from ..evaluate.trial import Score, Source, Trial, ranked
from ..runs.run import Run
from ..sweep.finalize import scored_groups
from .context import Situation
from .next_steps import steps
from .scenario import Figures, Size

_OF_A_LAYER = ("name", "kind", "cost", "elements", "cut", "finished")


def advise(run: Run, images: Images, splits: Splits, store: Store, shelf: Shelf, jobs: int) -> dict[str, Any]:
    """The advice that a run whose trials have ended is concluded with, as JSON values.

    What `Figures.to_dict` says; next: commands, each with its reason; peaks, random: the figures of `Peak`, and of `Gap` or
    None. It takes milliseconds, and where features of random weights are cached a few seconds for heads that are trained on
    those. shelf: where the features are, the store or the user's file.
    """
    scores = run.trials()
    order = ranked(scores)
    best = order[0]
    depth = _depth(run.description["sources"])
    scored = splits.development if splits.select == "cv" else splits.val
    groups = scored_groups(splits)
    specs = {name: Spec.from_dict(each) for name, each in run.description["specs"].items()}
    found = peaks(depth, scores, len(scored), groups)
    mine = {source.extraction for source in best.sources}
    gap, lacks = (None, "features") if images.given else _gap(images, splits, store, specs, order, jobs)
    right, apart = _right(scores[best], splits, scored, groups)
    commonest = float(np.bincount(splits.labels[scored]).max() / len(scored))
    figures = Figures(
        size=_size(splits, groups),
        peak=next((found[source.extraction] for source in best.sources if source.extraction in found), None),
        others=[peak for name, peak in found.items() if name not in mine],
        gap=gap,
        gap_lacks=lacks,
        accuracy_95=of_share(right, apart),
        commonest=commonest,
        chance=_chance(right, apart, commonest, len({(trial.sources, trial.head) for trial in order})),
    )
    given = store.path == default_folder() or images.given is not None
    situation = Situation(
        figures=figures,
        run=run.path,
        data=str(images.dataset.source),
        typed=run.description.get("command") or "",
        cache=() if given else ("--cache", str(store.path)),
        images=len(splits.development),
        views=run.description["views"],
        seed=run.description["seed"],
        from_images=images.given is None,
        ranked=order,
        scores=scores,
        layers={} if images.given else _layers(shelf, specs),
        specs=specs,
        runner_up=significance.compare(scores, len(scored), groups),
    )
    return {
        **figures.to_dict(),
        "next": [step.to_dict() for step in steps(situation)],
        "peaks": [peak.to_dict() for peak in found.values()],
        "random": None if gap is None else gap.to_dict(),
    }


def renewable(run: Run, images: Images, splits: Splits, store: Store) -> bool:
    """Whether a finished run has no advice, or one to which features of random weights, cached since, would add."""
    known = run.description.get("advice")
    if known is None:
        return True
    if known.get("random") is not None or images.given is not None:
        return False
    specs = {name: Spec.from_dict(each) for name, each in run.description["specs"].items()}
    best = ranked(run.trials())[0]
    return _twins(images, splits, store, specs, best) is not None


def _depth(given: Sequence[Mapping[str, Any]]) -> dict[Source, float | None]:
    names = ("backbone", "extraction", "layer", "pool")
    return {Source(*(each[name] for name in names)): each["depth"] for each in given}


def _size(splits: Splits, groups: np.ndarray | None) -> Size:
    labels = splits.labels[splits.development]
    counted = None if groups is None else len(np.unique(groups[groups >= 0]))
    count = len(splits.classes)
    return Size(len(labels), counted, count, int(np.bincount(labels, minlength=count).min()))


def _right(
    score: Score, splits: Splits, scored: np.ndarray, groups: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Which of the images that a trial was scored on it answered rightly, and their group numbers."""
    places = np.searchsorted(splits.development, scored)
    return significance.right(score)[places], None if groups is None else groups[places]


def _chance(right: np.ndarray, groups: np.ndarray | None, commonest: float, tried: int) -> float:
    """How often, at most, the best of so many heads that always name the commonest class would answer as many rightly."""
    from scipy.stats import binomtest

    effect = design_effect(right, groups)
    total = max(1, round(len(right) / effect))
    found = binomtest(min(total, round(float(right.sum()) / effect)), total, commonest, alternative="greater")
    return min(1.0, tried * float(found.pvalue))


def _layers(shelf: Shelf, specs: Mapping[str, Spec]) -> dict[str, list[Layer]]:
    """The layers of each network, where they are written down whole."""
    found = {}
    for extraction in shelf.extractions():
        if extraction.name in specs and all(map(_is_whole, extraction.layers)):
            found[extraction.name] = [
                Layer(
                    **{name: each[name] for name in _OF_A_LAYER},
                    shape=tuple(each["shape"]),
                    parameters=each.get("parameters"),
                )
                for each in extraction.layers
            ]
    return found


def _is_whole(layer: Mapping[str, Any]) -> bool:
    """Whether a layer of `layers.json` says all that a cut is decided by; those of a file or an older humeris may not."""
    shape = layer.get("shape")
    return {*_OF_A_LAYER} <= set(layer) and isinstance(shape, list) and all(isinstance(side, int) for side in shape)


def _twins(images: Images, splits: Splits, store: Store, specs: Mapping[str, Spec], best: Trial) -> Sequence[Stored] | None:
    return random_baseline.features(store, specs, best.sources, images.keys[splits.development])


def _gap(
    images: Images, splits: Splits, store: Store, specs: Mapping[str, Spec], order: Sequence[Trial], jobs: int
) -> tuple[Gap | None, str]:
    """The gap, or None and why: `random`, `file`, `cached` or `few`."""
    best = order[0]
    mine = [specs[source.extraction] for source in best.sources]
    if all(spec.weights.startswith("random") for spec in mine):
        return None, "random"
    random = _twins(images, splits, store, specs, best)
    if random is None:
        return None, "file" if any(spec.file for spec in mine) else "cached"
    rows = splits.development
    groups = np.arange(len(rows)) if splits.groups is None else np.unique(splits.groups[rows], return_inverse=True)[1]
    head, setting = random_baseline.quick(order, best)
    tried = [trial.setting for trial in order if (trial.sources, trial.head) == (best.sources, head)] or [setting]
    learnt = random_baseline.Learnt(images.keys[rows], splits.labels[rows], groups, len(splits.classes))
    gap = random_baseline.gap(select_features.stored(store, best.sources), random, learnt, head, tried, jobs)
    return gap, "" if gap else "few"
