"""Everything that is needed to do it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ....cache.spec import ExtractionSpec
from ...runs.data_summary import DataSummary
from ...runs.metadata import RunMetadata
from ...runs.result import RunResult
from ..blocks import Command, Part, Section, Table, Text
from ..run_snapshot import RunSnapshot

_MAX_LISTED = 50  # refused images
_SPEC_LABELS = {
    "backbone": "backbone",
    "architecture": "architecture",
    "weights": "weights",
    "weights_sha256": "SHA-256 of the weights",
    "image_size": "pixels",
    "preprocessing": "preprocessing",
    "pixels": "decoding and resizing, version",
    "precision": "precision",
    "forward": "forward pass, version",
    "views": "views",
    "arguments": "arguments",
    "file": "file",
}


def build_section(snapshot: RunSnapshot) -> Section:
    """The command, versions, seed, splits, the data's digest, how features were made, and what was left out."""
    return Section("repeat", "To repeat it", list(_build_parts(snapshot)))


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
    yield Table("The run", ["", "what"], [[name, str(value)] for name, value in facts if value not in (None, "")])
    if metadata is None:
        return
    yield from _build_spec_table(metadata.specs)
    heads = [
        [entry.head, len(entry.hyperparameter_sets), _format_values(entry.hyperparameter_sets)] for entry in metadata.heads
    ]
    if heads:
        yield Table("What was tried", ["head", "settings", "values"], heads)
    left_out_taps = [[tap.backbone, f"{tap.layer}:{tap.pool}", tap.images_missing] for tap in metadata.left_out]
    if left_out_taps:
        yield Table("Taps that were left out, since they lack images", ["backbone", "tap", "images"], left_out_taps)
    yield from _build_image_parts(metadata.data)


def _list_facts(metadata: RunMetadata) -> Iterator[tuple[str, Any]]:
    splits, data, views = metadata.splits, metadata.data, metadata.views
    yield "humeris", metadata.humeris
    yield "data", data.location
    yield "where it was", data.root
    yield "images", data.used
    yield "SHA-256 of the names and digests of all images", data.listing
    yield "classes", len(splits.classes)
    n_groups = None if metadata.result is None else metadata.result.groups
    groups = f", in {n_groups} groups" if n_groups else ""
    yield "splits", f"{splits.train} train, {splits.val} val, {splits.test} test{groups}"
    yield "how they were made", splits.note
    yield "chosen by", "the validation split" if splits.select == "val" else "cross-validation"
    yield "seed", metadata.seed
    yield "plan (images, features and heads, as one digest)", metadata.config_hash
    if views.count:
        average_note = ", answers averaged over them" if views.average else ""
        yield "views", f"{views.count} of each image ({views.policy}){average_note}"


def _list_result_facts(result: RunResult) -> Iterator[tuple[str, Any]]:
    yield "seconds", result.seconds
    for name, words in _SCORE_LABELS.items():
        if (value := getattr(result.test, name)) is not None:
            yield f"test {words}", f"{value:.4f}"


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
        [words, *(_format_value(getattr(spec, name)) for spec in specs.values())] for name, words in _SPEC_LABELS.items()
    ]
    yield Table("How the features were made", ["", *specs], [row for row in rows if any(row[1:])])


def _format_value(value: Any) -> str:
    if isinstance(value, tuple):
        return " x ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items())
    return "" if value is None else str(value)


def _format_values(hyperparameter_sets: Sequence[Mapping[str, Any]]) -> str:
    """The values of each option: C=0.1/1, ..."""
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
        words = (
            f"{len(data.duplicates)} byte-for-byte copies were left out, {n_across} of them of an image in another split. "
            if data.duplicates
            else ""
        )
        yield Text(f"{words}Formats of the images: {formats or 'not known'}.")
    if data.refused:
        rows = [[rejection.name, rejection.reason, rejection.detail] for rejection in data.refused[:_MAX_LISTED]]
        yield Table(f"{len(data.refused)} images were refused", ["image", "reason", "detail"], rows, folded=True)
        if len(data.refused) > _MAX_LISTED:
            yield Text(f"{len(data.refused) - _MAX_LISTED} more refused images are in images.csv.")
