"""Phrases that the sections of a report share, and the terminal text of `humeris report`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...cache.formatting import format_size, join_paragraphs, to_printable
from ...cache.store import get_default_folder
from ...extract.backbones.tap_ref import TapRef
from ..evaluate.trial import Trial
from ..heads.registry import find_head_family
from ..runs.result import NearDuplicateSummary
from .run_snapshot import RunSnapshot

_COARSE_SPAN = 0.08  # range of an axis above which its labels are whole percents
_MAX_NAMED_TAPS = 3  # taps listed by name; more are only counted


def format_report(result: Mapping[str, Any]) -> str:
    """Format the result of `humeris report` for the terminal."""
    lines = [f"missing: {to_printable(omission)}" for omission in result["left_out"]]
    return join_paragraphs(*lines, f"report: {to_printable(result['report'])} ({format_size(result['bytes'])})")


def format_percent(share: float, digits: int = 1) -> str:
    """Format a proportion as a percentage: 91.5 %."""
    return f"{100 * share:.{digits}f} %"


def build_share_axis(values: Iterable[float]) -> dict[str, Any]:
    """Build the Vega-Lite axis of proportions, with enough digits to keep its labels distinct."""
    share_values = list(values)
    span = max(share_values, default=1.0) - min(share_values, default=0.0)
    return {"format": ".0%" if span > _COARSE_SPAN else ".1%", "tickCount": 7}


def format_interval(bounds: Sequence[float] | None) -> str:
    """Format an interval of proportions in percent: 86.0–95.0; "unknown" if there is none."""
    return "unknown" if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}"


def format_head(name: str) -> str:
    """Return the title of a head family, for use within a sentence."""
    family = find_head_family(name)
    return name if family is None else family.title


def format_tap(tap_ref: TapRef) -> str:
    """Format a tap without its backbone: mixed5:avg."""
    return f"{tap_ref.layer}:{tap_ref.pool}"


def format_taps(tap_refs: Sequence[TapRef], include_backbone: bool = True) -> str:
    """Format taps as `mixed5:avg of inception_v3`; without the backbone unless `include_backbone`; many are only counted."""
    if not include_backbone:
        tap_names = " + ".join(format_tap(tap_ref) for tap_ref in tap_refs)
        return tap_names if len(tap_refs) <= _MAX_NAMED_TAPS else f"{len(tap_refs)} taps"
    backbones = list(dict.fromkeys(tap_ref.backbone for tap_ref in tap_refs))
    backbone_names = " and ".join(backbones)
    if len(tap_refs) > _MAX_NAMED_TAPS:
        return f"{len(tap_refs)} concatenated taps of {backbone_names}"
    if len(backbones) == 1:
        return f"{' + '.join(format_tap(tap_ref) for tap_ref in tap_refs)} of {backbone_names}"
    return " + ".join(f"{format_tap(tap_ref)} of {tap_ref.backbone}" for tap_ref in tap_refs)


def format_hyperparameters(trial: Trial, varied_options: Sequence[str] = ()) -> str:
    """Format the hyperparameters of a trial, only those in `varied_options` if any; "" if there are none."""
    return ", ".join(
        f"{name}={value}" for name, value in trial.hyperparameters.items() if not varied_options or name in varied_options
    )


def list_varied_options(snapshot: RunSnapshot, name: str) -> list[str]:
    """Return the hyperparameters in which the trials of a head family differ, or its first if none do."""
    hyperparameter_sets = [trial.hyperparameters for trial in snapshot.scores if trial.head == name]
    options = list(hyperparameter_sets[0]) if hyperparameter_sets else []
    return [
        option
        for option in options
        if len({str(hyperparameters.get(option)) for hyperparameters in hyperparameter_sets}) > 1
    ] or options[:1]


def format_command(snapshot: RunSnapshot, *words: object) -> str:
    """Format a humeris command line, with --cache unless the cache is the default one."""
    store = snapshot.store
    cache_options = [] if store is None or store.path == get_default_folder() else ["--cache", store.path]
    return " ".join(["humeris", *(shlex.quote(to_printable(word)) for word in (*words, *cache_options))])


def format_selection(snapshot: RunSnapshot) -> str:
    """Return "by cross-validation" or "on the validation split", whichever the winner was selected by."""
    is_by_split = snapshot.splits is not None and snapshot.splits.select == "val"
    return "on the validation split" if is_by_split else "by cross-validation"


def describe_near_duplicates(near_duplicates: NearDuplicateSummary) -> str:
    """Say how many test images are near-duplicates of training images, and the accuracy without them if known."""
    accuracy_without = near_duplicates.accuracy_without
    accuracy_note = "" if accuracy_without is None else f"; without them the accuracy is {format_percent(accuracy_without)}"
    return f"Test images that are near-duplicates of training images: {near_duplicates.test_images}{accuracy_note}."
