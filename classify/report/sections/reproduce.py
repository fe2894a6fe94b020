"""Everything that is needed to do it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
    if metadata.get("command"):
        yield Command(str(metadata["command"]))
    yield Table(
        "The run", ["", "what"], [[name, str(value)] for name, value in _list_run_facts(snapshot) if value not in (None, "")]
    )
    yield from _build_spec_table(metadata.get("specs") or {})
    heads = [
        [entry["head"], len(entry["settings"]), _format_values(entry["settings"])] for entry in metadata.get("heads") or ()
    ]
    if heads:
        yield Table("What was tried", ["head", "settings", "values"], heads)
    left_out_taps = [
        [entry["backbone"], f"{entry['layer']}:{entry['pool']}", entry["images_missing"]]
        for entry in metadata.get("left_out") or ()
    ]
    if left_out_taps:
        yield Table("Taps that were left out, since they lack images", ["backbone", "tap", "images"], left_out_taps)
    yield from _build_image_parts(snapshot.data)


def _list_run_facts(snapshot: RunSnapshot) -> Iterator[tuple[str, Any]]:
    metadata, splits, data, test = snapshot.metadata, snapshot.splits, snapshot.data, snapshot.test
    yield "folder", str(snapshot.path.resolve())
    yield "humeris", metadata.get("humeris")
    yield "data", data.get("source")
    yield "where it was", data.get("root")
    yield "images", data.get("used")
    yield "SHA-256 of the names and digests of all images", data.get("listing")
    yield "classes", len(snapshot.class_names) or None
    if splits:
        groups = f", in {metadata['groups']} groups" if metadata.get("groups") else ""
        yield "splits", f"{splits.get('train')} train, {splits.get('val')} val, {splits.get('test')} test{groups}"
        yield "how they were made", splits.get("note")
        yield "chosen by", "the validation split" if splits.get("select") == "val" else "cross-validation"
    yield "seed", metadata.get("seed")
    yield "plan (images, features and heads, as one digest)", metadata.get("plan")
    views = metadata.get("views") or {}
    if views.get("count"):
        average_note = ", answers averaged over them" if views.get("average") else ""
        yield "views", f"{views['count']} of each image ({views.get('policy')}){average_note}"
    yield "trials", len(snapshot.scores)
    yield "winner", snapshot.best.id if snapshot.best else None
    yield "seconds", metadata.get("seconds")
    for name, words in _SCORE_LABELS.items():
        if name in test:
            yield f"test {words}", f"{test[name]:.4f}"


_SCORE_LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "top_5_accuracy": "top-5 accuracy",
    "log_loss": "log-loss",
    "brier_score": "Brier score",
}


def _build_spec_table(specs: Mapping[str, Mapping[str, Any]]) -> Iterator[Table]:
    if not specs:
        return
    rows = [[words, *(_format_value(spec.get(name)) for spec in specs.values())] for name, words in _SPEC_LABELS.items()]
    yield Table("How the features were made", ["", *specs], [row for row in rows if any(row[1:])])


def _format_value(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items())
    return "" if value is None else str(value)


def _format_values(hyperparameter_sets: list[Mapping[str, Any]]) -> str:
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


def _build_image_parts(data: Mapping[str, Any]) -> Iterator[Part]:
    formats = ", ".join(f"{count} {name}" for name, count in (data.get("formats") or {}).items())
    duplicates = data.get("duplicates") or ()
    if formats or duplicates:
        n_across = sum(bool(entry.get("across")) for entry in duplicates)
        words = (
            f"{len(duplicates)} byte-for-byte copies were left out, {n_across} of them of an image in another split. "
            if duplicates
            else ""
        )
        yield Text(f"{words}Formats of the images: {formats or 'not known'}.")
    rejected_images = data.get("refused") or ()
    if rejected_images:
        rows = [[entry["name"], entry["reason"], entry["detail"]] for entry in rejected_images[:_MAX_LISTED]]
        yield Table(f"{len(rejected_images)} images were refused", ["image", "reason", "detail"], rows, folded=True)
        if len(rejected_images) > _MAX_LISTED:
            yield Text(f"{len(rejected_images) - _MAX_LISTED} more refused images are in images.csv.")
