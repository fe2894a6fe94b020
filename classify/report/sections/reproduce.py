"""Everything that is needed to reproduce a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ....cache.spec import ExtractionSpec
from ...runs.data_summary import DataSummary
from ...runs.metadata import RunMetadata
from ...runs.result import RunResult
from ..blocks import Command, Part, Section, Table, Text
from ..run_snapshot import RunSnapshot

_MAX_LISTED = 50  # rejected images
_SPEC_LABELS = {
    "backbone": "backbone",
    "architecture": "architecture",
    "weights": "weights",
    "weights_sha256": "SHA-256 of the weights",
    "image_size": "image size",
    "preprocessing": "preprocessing",
    "pixels": "version of decoding and resizing",
    "precision": "precision",
    "forward": "version of the forward pass",
    "views": "views",
    "arguments": "arguments",
    "file": "file",
}


def build_section(snapshot: RunSnapshot) -> Section:
    """Build the section: command, versions, seed, splits, data digest, extraction specs, heads, and rejected images."""
    return Section("reproduce", "Reproduce", list(_build_parts(snapshot)))


def _build_parts(snapshot: RunSnapshot) -> Iterator[Part]:
    metadata = snapshot.metadata
    if metadata is not None and metadata.command:
        yield Command(metadata.command)
    facts: list[tuple[str, Any]] = [("folder", str(snapshot.path.resolve()))]
    if metadata is not None:
        facts += _list_facts(metadata)
    facts += [("trials", len(snapshot.scores)), ("winner", snapshot.best.id if snapshot.best else None)]
    if snapshot.result is not None:
        facts += _list_result_facts(snapshot.result)
    yield Table("The run", ["field", "value"], [[name, str(value)] for name, value in facts if value not in (None, "")])
    if metadata is None:
        return
    yield from _build_spec_table(metadata.specs)
    heads = [
        [entry.head, len(entry.hyperparameter_sets), _format_values(entry.hyperparameter_sets)] for entry in metadata.heads
    ]
    if heads:
        yield Table("Heads and hyperparameters tried", ["head", "trials per tap", "values"], heads)
    left_out_taps = [[tap.backbone, f"{tap.layer}:{tap.pool}", tap.images_missing] for tap in metadata.left_out]
    if left_out_taps:
        yield Table("Taps skipped because cached rows are missing", ["backbone", "tap", "images missing"], left_out_taps)
    yield from _build_image_parts(metadata.data)


def _list_facts(metadata: RunMetadata) -> Iterator[tuple[str, Any]]:
    splits, data, views = metadata.splits, metadata.data, metadata.views
    yield "humeris", metadata.humeris
    yield "data", data.location
    yield "data folder", data.root
    yield "images", data.used
    yield "SHA-256 of image names and digests", data.listing
    yield "classes", len(splits.classes)
    n_groups = None if metadata.result is None else metadata.result.groups
    groups = f", in {n_groups} groups" if n_groups else ""
    yield "splits", f"{splits.train} train, {splits.val} val, {splits.test} test{groups}"
    yield "split method", splits.note
    yield "selected by", "the validation split" if splits.select == "val" else "cross-validation"
    yield "seed", metadata.seed
    yield "config hash", metadata.config_hash
    if views.count:
        average_note = ", predictions averaged" if views.average else ""
        yield "views", f"{views.count} of each image ({views.policy}){average_note}"


def _list_result_facts(result: RunResult) -> Iterator[tuple[str, Any]]:
    yield "elapsed (s)", result.seconds
    for name, label in _SCORE_LABELS.items():
        if (value := getattr(result.test, name)) is not None:
            yield f"test {label}", f"{value:.4f}"


_SCORE_LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "top_5_accuracy": "top-5 accuracy",
    "log_loss": "log-loss",
    "brier_score": "Brier score",
}


def _build_spec_table(specs: Mapping[str, ExtractionSpec]) -> Iterator[Table]:
    if not specs:
        return
    rows = [
        [label, *(_format_value(getattr(spec, name)) for spec in specs.values())] for name, label in _SPEC_LABELS.items()
    ]
    yield Table("Feature extraction", ["field", *specs], [row for row in rows if any(row[1:])])


def _format_value(value: Any) -> str:
    if isinstance(value, tuple):
        return " x ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items())
    return "" if value is None else str(value)


def _format_values(hyperparameter_sets: Sequence[Mapping[str, Any]]) -> str:
    """Format the values of each hyperparameter, as in C=0.1/1."""
    names = list(hyperparameter_sets[0]) if hyperparameter_sets else []
    values_by_name = {
        name: list(dict.fromkeys(_format_value(hyperparameters.get(name)) for hyperparameters in hyperparameter_sets))
        for name in names
    }
    shown_values = {
        name: values if len(values) <= 12 else [values[0], "…", values[-1]] for name, values in values_by_name.items()
    }
    return ", ".join(f"{name}={'/'.join(values)}" for name, values in shown_values.items())


def _build_image_parts(data: DataSummary) -> Iterator[Part]:
    formats = ", ".join(f"{count} {name}" for name, count in data.formats.items())
    if formats or data.duplicates:
        n_across = sum(duplicate.across for duplicate in data.duplicates)
        duplicates_note = (
            f"{len(data.duplicates)} duplicates (identical bytes) were skipped, {n_across} of them across splits. "
            if data.duplicates
            else ""
        )
        yield Text(f"{duplicates_note}Image formats: {formats or 'unknown'}.")
    if data.refused:
        rows = [[rejection.name, rejection.reason, rejection.detail] for rejection in data.refused[:_MAX_LISTED]]
        yield Table(f"{len(data.refused)} rejected images", ["image", "reason", "detail"], rows, folded=True)
        if len(data.refused) > _MAX_LISTED:
            yield Text(f"{len(data.refused) - _MAX_LISTED} more rejected images are in images.csv.")
