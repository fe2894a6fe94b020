"""Words that the sections of a report share, and what `humeris report` says. Nothing here prints."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...cache.formatting import paragraphs, safe, size
from ...cache.store import default_folder
from ..evaluate.trial import Source, Trial
from .run_snapshot import Evidence

_HEADS = {
    "logreg": "logistic regression",
    "svm": "a linear support vector machine",
    "ridge": "ridge regression",
    "lda": "linear discriminant analysis",
    "knn": "voting of the nearest neighbours",
    "centroid": "the nearest class centroid",
    "mlp": "a multilayer perceptron",
    "triplet": "an embedding learnt by triplets",
    "supcon": "an embedding learnt by supervised contrast",
    "head2toe": "Head2Toe",
}
_COARSE = 0.08  # span of an axis from which whole percents tell its labels apart
_SIDES = 3  # taps that are named one by one


def reported(found: Mapping[str, Any]) -> str:
    """`humeris report`."""
    lines = [f"missing: {safe(words)}" for words in found["left_out"]]
    return paragraphs(*lines, f"report: {safe(found['report'])} ({size(found['bytes'])})")


def percent(share: float, digits: int = 1) -> str:
    """A share as people read it: 91.5 %."""
    return f"{100 * share:.{digits}f} %"


def shares(values: Iterable[float]) -> dict[str, Any]:
    """Vega-Lite: an axis for such shares, with as many digits as tell its labels apart."""
    found = list(values)
    span = max(found, default=1.0) - min(found, default=0.0)
    return {"format": ".0%" if span > _COARSE else ".1%", "tickCount": 7}


def interval(bounds: Sequence[float] | None) -> str:
    """A 95 % interval as people read it: 86.0 to 95.0 %; "not known" where there is none."""
    return "not known" if bounds is None else f"{100 * bounds[0]:.1f} to {percent(bounds[1])}"


def head(name: str) -> str:
    """The family of heads in words, as they stand within a sentence."""
    return _HEADS.get(name, name)


def tap(source: Source) -> str:
    """A tap without its backbone: mixed5:avg."""
    return f"{source.layer}:{source.pool}"


def taps(sources: Sequence[Source], whole: bool = True) -> str:
    """Where a head sits, in words: `mixed5:avg of inception_v3`, or several side by side; the backbone if `whole`."""
    if not whole:
        found = " + ".join(tap(source) for source in sources)
        return found if len(sources) <= _SIDES else f"{len(sources)} taps"
    backbones = list(dict.fromkeys(source.backbone for source in sources))
    named = " and ".join(backbones)
    if len(sources) > _SIDES:
        return f"{len(sources)} taps of {named} side by side"
    if len(backbones) == 1:
        return f"{' + '.join(tap(source) for source in sources)} of {named}"
    return " + ".join(f"{tap(source)} of {source.backbone}" for source in sources)


def setting(trial: Trial, varied: Sequence[str] = ()) -> str:
    """The options of a trial: those in `varied`, else all of them; "" where there are none."""
    return ", ".join(f"{name}={value}" for name, value in trial.setting.items() if not varied or name in varied)


def varied(evidence: Evidence, name: str) -> list[str]:
    """The options in which the trials of a family of heads differ, else its first."""
    settings = [trial.setting for trial in evidence.scores if trial.head == name]
    options = list(settings[0]) if settings else []
    return [option for option in options if len({str(each.get(option)) for each in settings}) > 1] or options[:1]


def command(evidence: Evidence, *words: object) -> str:
    """A command of humeris's on the run, with the cache that was given."""
    store = evidence.store
    at = [] if store is None or store.path == default_folder() else ["--cache", store.path]
    return " ".join(["humeris", *(shlex.quote(safe(word)) for word in (*words, *at))])
