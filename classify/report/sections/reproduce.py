"""Everything that is needed to do it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..blocks import Command, Part, Section, Table, Text
from ..run_snapshot import Evidence

_LISTED = 50  # refused images
_OF_SPEC = {
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


def section(evidence: Evidence) -> Section:
    """The command, versions, seed, splits, the data's digest, how features were made, and what was left out."""
    return Section("repeat", "To repeat it", list(_parts(evidence)))


def _parts(evidence: Evidence) -> Iterator[Part]:
    described = evidence.description
    if described.get("command"):
        yield Command(str(described["command"]))
    yield Table("The run", ["", "what"], [[name, str(value)] for name, value in _run(evidence) if value not in (None, "")])
    yield from _specs(described.get("specs") or {})
    heads = [[each["head"], len(each["settings"]), _values(each["settings"])] for each in described.get("heads") or ()]
    if heads:
        yield Table("What was tried", ["head", "settings", "values"], heads)
    lacking = [
        [each["backbone"], f"{each['layer']}:{each['pool']}", each["images_missing"]]
        for each in described.get("left_out") or ()
    ]
    if lacking:
        yield Table("Taps that were left out, since they lack images", ["backbone", "tap", "images"], lacking)
    yield from _images(evidence.data)


def _run(evidence: Evidence) -> Iterator[tuple[str, Any]]:
    described, splits, data, test = evidence.description, evidence.splits, evidence.data, evidence.test
    yield "folder", str(evidence.path.resolve())
    yield "humeris", described.get("humeris")
    yield "data", data.get("source")
    yield "where it was", data.get("root")
    yield "images", data.get("used")
    yield "SHA-256 of the names and digests of all images", data.get("listing")
    yield "classes", len(evidence.classes) or None
    if splits:
        groups = f", in {described['groups']} groups" if described.get("groups") else ""
        yield "splits", f"{splits.get('train')} train, {splits.get('val')} val, {splits.get('test')} test{groups}"
        yield "how they were made", splits.get("note")
        yield "chosen by", "the validation split" if splits.get("select") == "val" else "cross-validation"
    yield "seed", described.get("seed")
    yield "plan (images, features and heads, as one digest)", described.get("plan")
    views = described.get("views") or {}
    if views.get("count"):
        averaged = ", answers averaged over them" if views.get("average") else ""
        yield "views", f"{views['count']} of each image ({views.get('policy')}){averaged}"
    yield "trials", len(evidence.scores)
    yield "winner", evidence.best.id if evidence.best else None
    yield "seconds", described.get("seconds")
    for name, words in _SCORES.items():
        if name in test:
            yield f"test {words}", f"{test[name]:.4f}"


_SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "top_5_accuracy": "top-5 accuracy",
    "log_loss": "log-loss",
    "brier_score": "Brier score",
}


def _specs(specs: Mapping[str, Mapping[str, Any]]) -> Iterator[Table]:
    if not specs:
        return
    rows = [[words, *(_value(spec.get(name)) for spec in specs.values())] for name, words in _OF_SPEC.items()]
    yield Table("How the features were made", ["", *specs], [row for row in rows if any(row[1:])])


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    return "" if value is None else str(value)


def _values(settings: list[Mapping[str, Any]]) -> str:
    """The values of each option: C=0.1/1, ..."""
    names = list(settings[0]) if settings else []
    tried = {name: list(dict.fromkeys(_value(each.get(name)) for each in settings)) for name in names}
    shown = {name: values if len(values) <= 12 else [values[0], "…", values[-1]] for name, values in tried.items()}
    return ", ".join(f"{name}={'/'.join(values)}" for name, values in shown.items())


def _images(data: Mapping[str, Any]) -> Iterator[Part]:
    formats = ", ".join(f"{count} {name}" for name, count in (data.get("formats") or {}).items())
    copies = data.get("duplicates") or ()
    if formats or copies:
        across = sum(bool(each.get("across")) for each in copies)
        words = (
            f"{len(copies)} byte-for-byte copies were left out, {across} of them of an image in another split. "
            if copies
            else ""
        )
        yield Text(f"{words}Formats of the images: {formats or 'not known'}.")
    refused = data.get("refused") or ()
    if refused:
        rows = [[each["name"], each["reason"], each["detail"]] for each in refused[:_LISTED]]
        yield Table(f"{len(refused)} images were refused", ["image", "reason", "detail"], rows, folded=True)
        if len(refused) > _LISTED:
            yield Text(f"{len(refused) - _LISTED} more refused images are in images.csv.")
