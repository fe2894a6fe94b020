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


def of_name(path: Path, name: str | None) -> Format:
    """The format to write `path` in: the one called `name`, or what the path's suffix says; raises `ModelError`."""
    by_suffix = next((each for each in FORMATS.values() if each.suffix and each.suffix == path.suffix.lower()), None)
    if name is None:
        if by_suffix is None:
            raise ModelError(f"{path}: expected a name that says the format, or -f with one of {_NAMES}")
        return by_suffix
    if name not in FORMATS:
        raise ModelError(f"format {name!r}: expected one of {_NAMES}")
    found = FORMATS[name]
    if (found.suffix and found is not by_suffix) or (not found.suffix and by_suffix is not None):
        raise ModelError(f"{path}: expected a name that ends in {found.suffix or 'no suffix of a format'} for -f {name}")
    return found


def of_file(path: Path) -> Format:
    """The format that a file or folder has by its name; raises `ModelError`."""
    if not path.exists():
        raise ModelError(f"{path}: expected a model that `humeris export` wrote, found no file there; check the path")
    folder = next((each for each in FORMATS.values() if not each.suffix), None)
    if path.is_dir() and folder is not None:
        return folder
    found = next((each for each in FORMATS.values() if each.suffix and each.suffix == path.suffix.lower()), None)
    if found is None:
        raise ModelError(f"{path}: expected a model that `humeris export` wrote ({_NAMES}), found something else")
    return found
