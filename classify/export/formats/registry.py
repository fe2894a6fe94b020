"""The formats there are, and which one a file has."""

from __future__ import annotations

from pathlib import Path

from ....cache.errors import ModelError
from . import keras_format, litert_format, onnx_format, saved_model
from .format import Format

FORMATS: dict[str, Format] = {
    each.FORMAT.name: each.FORMAT for each in (keras_format, saved_model, onnx_format, litert_format)
}
_NAMES = "keras (NAME.keras), savedmodel (a folder), onnx (NAME.onnx), litert (NAME.tflite)"


def choose_format(path: Path, name: str | None) -> Format:
    """The format to write `path` in: the one called `name`, or what the path's suffix says; raises `ModelError`."""
    suffix_format = next(
        (candidate for candidate in FORMATS.values() if candidate.suffix and candidate.suffix == path.suffix.lower()), None
    )
    if name is None:
        if suffix_format is None:
            raise ModelError(f"{path}: expected a name that says the format, or -f with one of {_NAMES}")
        return suffix_format
    if name not in FORMATS:
        raise ModelError(f"format {name!r}: expected one of {_NAMES}")
    named_format = FORMATS[name]
    if (named_format.suffix and named_format is not suffix_format) or (
        not named_format.suffix and suffix_format is not None
    ):
        raise ModelError(
            f"{path}: expected a name that ends in {named_format.suffix or 'no suffix of a format'} for -f {name}"
        )
    return named_format


def detect_format(path: Path) -> Format:
    """The format that a file or folder has by its name; raises `ModelError`."""
    if not path.exists():
        raise ModelError(f"{path}: expected a model that `humeris export` wrote, found no file there; check the path")
    folder_format = next((candidate for candidate in FORMATS.values() if not candidate.suffix), None)
    if path.is_dir() and folder_format is not None:
        return folder_format
    suffix_format = next(
        (candidate for candidate in FORMATS.values() if candidate.suffix and candidate.suffix == path.suffix.lower()), None
    )
    if suffix_format is None:
        raise ModelError(f"{path}: expected a model that `humeris export` wrote ({_NAMES}), found something else")
    return suffix_format
