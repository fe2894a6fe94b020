"""What a file format of exported models is."""

from __future__ import annotations

import importlib.util
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ....cache.errors import ModelError

DESCRIPTION_FILE = "humeris.json"  # what the description is called inside a file
PRECISIONS = ("float32", "float16", "int8")
LABELS_FILE = "labels.txt"
_MAX_DESCRIPTION_BYTES = 1 << 24  # bytes of a description: names of many classes
PredictFn = Callable[[np.ndarray], np.ndarray]


class WriteFn(Protocol):
    """How a model is written."""

    def __call__(
        self, model: Any, path: Path, description: Mapping[str, Any], precision: str, calibration: np.ndarray | None
    ) -> None:
        """Write the Keras model (`image` uint8 (batch, height, width, 3) -> `probabilities`) with its description inside.

        calibration: images (n, height, width, 3) uint8 to learn the ranges of activations from, given where precision is
        int8. Raises `ModelError` where the format cannot hold the model.
        """


@dataclass(frozen=True)
class Format:
    """A file format.

    name: as `--format` has it. suffix: of its file names ("" for a folder). precisions: of weights, float32 first.
    modules: what must be importable to run it, and writers what else to write it; extra: what is installed to have them.
    describe: the description inside a file, or None where the file is none of ours; runs nothing of it.
    load: a function from images (n, height, width, 3) uint8 to probabilities (n, classes), in the format's own runtime.
    answer: Python that defines such a function, `answer`, for the file `sys.argv[1]`, with the runtime and nothing of ours.
    runs_code: whether running a file can do anything but arithmetic. runtime: what it is called. bound: how far
    probabilities in float32 may lie from the cached ones.
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    modules: tuple[str, ...]
    extra: str
    write: WriteFn
    describe: Callable[[Path], dict[str, Any] | None]
    load: Callable[[Path], PredictFn]
    predict_code: str
    runs_code: bool
    runtime: str = ""
    tolerance: float = 1e-3
    writer_modules: tuple[str, ...] = ()

    def check_installed(self, *, write: bool = False) -> None:
        """Raise `ModelError` where a package is missing that running it needs, or writing it; imports nothing."""
        for module in self.modules + (self.writer_modules if write else ()):
            if importlib.util.find_spec(module) is None:
                raise ModelError(
                    f"format {self.name}: expected {module}, found it not installed; pip install 'humeris[{self.extra}]'"
                )


def read_zip_description(path: Path) -> dict[str, Any] | None:
    """The description that is a member of the zip archive at `path`, or at its end; None where there is none to be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return (
                decode_description(archive.read(DESCRIPTION_FILE))
                if archive.getinfo(DESCRIPTION_FILE).file_size <= _MAX_DESCRIPTION_BYTES
                else None
            )
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile):  # anybody's bytes
        return None


def format_labels(description: Mapping[str, Any]) -> bytes:
    """The names of the classes, one a line, as other tools read them; what is no UTF-8 is a question mark."""
    lines = [" ".join(name.splitlines()) for name in description["classes"]]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def encode_description(description: Mapping[str, Any]) -> str:
    """The text of a description."""
    return json.dumps(description, indent=2)


def decode_description(text: str | bytes) -> dict[str, Any] | None:
    """The description of a text, None where it is none."""
    try:
        description = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return description if isinstance(description, dict) and {"classes", "image_size", "pixels"} <= set(description) else None


def to_one_line(text: object) -> str:
    """A message of a library's as part of one of ours: on one line, and no longer than people read."""
    return " ".join(str(text).split())[:300]
