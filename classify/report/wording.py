"""Words that the sections of a report share, and what `humeris report` says. Nothing here prints."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...cache.formatting import format_size, join_paragraphs, to_printable
from ...cache.store import get_default_folder
from ...extract.backbones.tap_ref import TapRef
from ..evaluate.trial import Trial
from ..heads.registry import find_head_family
from .run_snapshot import RunSnapshot

_COARSE_SPAN = 0.08  # span of an axis from which whole percents tell its labels apart
_MAX_NAMED_TAPS = 3  # taps that are named one by one


def format_report(result: Mapping[str, Any]) -> str:
    """`humeris report`."""
    lines = [f"missing: {to_printable(words)}" for words in result["left_out"]]
    return join_paragraphs(*lines, f"report: {to_printable(result['report'])} ({format_size(result['bytes'])})")


def format_percent(share: float, digits: int = 1) -> str:
    """A share as people read it: 91.5 %."""
    return f"{100 * share:.{digits}f} %"


def build_share_axis(values: Iterable[float]) -> dict[str, Any]:
    """Vega-Lite: an axis for such shares, with as many digits as tell its labels apart."""
    share_values = list(values)
    span = max(share_values, default=1.0) - min(share_values, default=0.0)
    return {"format": ".0%" if span > _COARSE_SPAN else ".1%", "tickCount": 7}


def format_interval(bounds: Sequence[float] | None) -> str:
    """A 95 % interval as people read it: 86.0 to 95.0 %; "not known" where there is none."""
    return "not known" if bounds is None else f"{100 * bounds[0]:.1f} to {format_percent(bounds[1])}"


def format_head(name: str) -> str:
    """The family of heads in words, as they stand within a sentence."""
    family = find_head_family(name)
    return name if family is None else family.title


def format_tap(tap_ref: TapRef) -> str:
    """A tap without its backbone: mixed5:avg."""
    return f"{tap_ref.layer}:{tap_ref.pool}"


def format_taps(tap_refs: Sequence[TapRef], include_backbone: bool = True) -> str:
    """Where a head sits, in words: `mixed5:avg of inception_v3`, or several; the backbone if `include_backbone`."""
    if not include_backbone:
        tap_names = " + ".join(format_tap(tap_ref) for tap_ref in tap_refs)
        return tap_names if len(tap_refs) <= _MAX_NAMED_TAPS else f"{len(tap_refs)} taps"
    backbones = list(dict.fromkeys(tap_ref.backbone for tap_ref in tap_refs))
    backbone_names = " and ".join(backbones)
    if len(tap_refs) > _MAX_NAMED_TAPS:
        return f"{len(tap_refs)} taps of {backbone_names} side by side"
    if len(backbones) == 1:
        return f"{' + '.join(format_tap(tap_ref) for tap_ref in tap_refs)} of {backbone_names}"
    return " + ".join(f"{format_tap(tap_ref)} of {tap_ref.backbone}" for tap_ref in tap_refs)


def format_hyperparameters(trial: Trial, varied_options: Sequence[str] = ()) -> str:
    """The options of a trial: those in `varied_options`, else all of them; "" where there are none."""
    return ", ".join(
        f"{name}={value}" for name, value in trial.hyperparameters.items() if not varied_options or name in varied_options
    )


def list_varied_options(snapshot: RunSnapshot, name: str) -> list[str]:
    """The options in which the trials of a family of heads differ, else its first."""
    hyperparameter_sets = [trial.hyperparameters for trial in snapshot.scores if trial.head == name]
    options = list(hyperparameter_sets[0]) if hyperparameter_sets else []
    return [
        option
        for option in options
        if len({str(hyperparameters.get(option)) for hyperparameters in hyperparameter_sets}) > 1
    ] or options[:1]


def format_command(snapshot: RunSnapshot, *words: object) -> str:
    """A command of humeris's on the run, with the cache that was given."""
    store = snapshot.store
    cache_options = [] if store is None or store.path == get_default_folder() else ["--cache", store.path]
    return " ".join(["humeris", *(shlex.quote(to_printable(word)) for word in (*words, *cache_options))])
