"""What the backbone's own weights bring: the same head on the same taps of the same network with random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ...cache.errors import HumerisError
from ...cache.spec import DESCRIPTION, Spec
from ...cache.store import Store
from ..data import select_features
from ..data.feature_matrix import Stored
from ..data.group_sampling import parts, sample
from ..data.splits import FOLDS
from ..evaluate import significance
from ..evaluate.trial import Score, Source, Trial, ranked
from ..heads.fit import problem
from ..heads.registry import FAMILIES, Family, module
from ..heads.training_data import Folds

_TOO_WIDE = 100_000_000  # numbers that are read, at most, but for the fewest images
_MOST, _FEWEST = 5000, 200  # images
_SLOW = 2e8  # rows times columns times classes, with which other heads take longer


@dataclass(frozen=True)
class Learnt:
    """Images that may be learnt from: keys (n,), class numbers (n,), group numbers (n,), and how many classes there are."""

    keys: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    classes: int


@dataclass(frozen=True)
class Gap:
    """The accuracy of a head on the backbone's own features and on those of random weights, on the same images.

    difference_95: the paired interval of own less random. Each is the best, by log-loss, of the settings tried.
    """

    own: float
    random: float
    difference_95: tuple[float, float]
    images: int
    head: str

    @property
    def avoided(self) -> float:
        """The share of the errors made on random weights that the own weights avoid; negative where they make more.

        A difference in accuracy alone would call every gap small where both are nearly always right.
        """
        return (self.own - self.random) / max(1 - self.random, 1 / self.images)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "difference_95": list(self.difference_95), "avoided": self.avoided}


def twin(store: Store, spec: Spec) -> str | None:
    """The folder of the extraction that differs from `spec` in its weights alone, which are random; None without one."""
    named = {*DESCRIPTION, "weights_sha256"}
    same = {name: value for name, value in spec.to_dict().items() if name not in named}
    for each in store.extractions():
        other = {name: value for name, value in each.spec.to_dict().items() if name not in named}
        if each.spec.weights.startswith("random") and other == same:
            return each.name
    return None


def features(store: Store, specs: Mapping[str, Spec], taps: Sequence[Source], keys: np.ndarray) -> list[Stored] | None:
    """The rows of the images `keys` (n,) at the same taps of the networks with random weights; None unless all are cached.

    specs: of the taps' extractions, by folder.
    """
    twins = {name: twin(store, specs[name]) for name in {tap.extraction for tap in taps}}
    if not all(twins.values()):
        return None
    try:
        found = select_features.stored(store, [replace(tap, extraction=twins[tap.extraction] or "") for tap in taps])
    except HumerisError:  # another process removed them
        return None
    there: list[Any] = list(found)
    return None if any(each.missing(keys).any() for each in there) else found


def is_quick(head: str) -> bool:
    """Whether a head of this name is trained in seconds, on any tap by itself."""
    try:
        family = Family(head, ())
        return not family.uses_keras and not family.over_all_taps
    except KeyError:  # a head of another version
        return False


def quick(tried: Sequence[Trial], best: Trial) -> tuple[str, Mapping[str, Any]]:
    """The head to compare with and its setting: that of `best`, the first on its taps that `is_quick`, or a plain one.

    tried: trials, best first.
    """
    if is_quick(best.head):
        return best.head, best.setting
    for trial in tried:
        if trial.sources == best.sources and is_quick(trial.head):
            return trial.head, trial.setting
    (setting,) = module("logreg").settings({"C": "0.01"})
    return "logreg", setting


def gap(
    own: Sequence[Stored],
    random: Sequence[Stored],
    learnt: Learnt,
    head: str,
    settings: Sequence[Mapping[str, Any]],
    jobs: int,
) -> Gap | None:
    """How far a head is ahead on the backbone's own rows; None where some class has too few images for that.

    By cross-validation, in the same folds on both; groups stay whole. So that it takes seconds, of many images, or very wide
    rows, a sample is learnt from, and with many classes the head is ridge regression, which one decomposition solves.
    """
    width = sum(each.read(learnt.keys[:1]).size for each in own)
    rows = sample(learnt.labels, learnt.groups, min(_MOST, max(_FEWEST, _TOO_WIDE // width)), 0)
    if len(rows) * width * learnt.classes > _SLOW:
        head, settings = "ridge", module("ridge").settings({})
    labels, groups = learnt.labels[rows], np.unique(learnt.groups[rows], return_inverse=True)[1]
    folds = _folds(labels, groups, learnt.classes)
    if not folds:
        return None
    scores: dict[Trial, Score] = {}
    for which, stored in (("own", own), ("random", random)):
        task = problem(stored, learnt.keys[rows], labels, learnt.classes, folds, threads=jobs)
        tap = (Source(which, which, which, which),)
        found = FAMILIES[head].cross_validate(task, settings, 0)
        tried = {Trial(tap, head, setting): score for setting, score in zip(settings, found, strict=True)}
        best = ranked(tried)[0]
        scores[best] = tried[best]
    mine, other = scores
    alone = len(np.unique(groups)) == len(groups)
    compared = significance.compare(scores, len(rows), None if alone else groups)
    assert compared is not None  # there are two
    low, high = compared.difference_95
    ahead = (low, high) if compared.winner == mine.id else (-high, -low)
    return Gap(scores[mine].accuracy, scores[other].accuracy, ahead, len(rows), head)


def _folds(labels: np.ndarray, groups: np.ndarray, classes: int) -> Folds:
    """(fit, score) rows, up to `FOLDS` of them; () where a class would have nothing to be learnt from in one."""
    known = np.unique(np.stack([labels, groups]), axis=1)[0]
    count = min(FOLDS, int(np.bincount(known, minlength=classes).min()))
    part = parts(labels, groups, max(1, count), 0)
    folds = tuple((np.nonzero(part != number)[0], np.nonzero(part == number)[0]) for number in range(count))
    return folds if all(len(np.unique(labels[fit])) == classes and len(held) for fit, held in folds) else ()
