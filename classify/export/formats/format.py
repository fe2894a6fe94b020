"""The door for file formats of exported models."""

from __future__ import annotations

import contextlib
import importlib.util
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ....cache.errors import HumerisError, ModelError
from ..model_metadata import ModelMetadata, decode_metadata

METADATA_FILE = "humeris.json"  # name of the metadata inside a file
LABELS_FILE = "labels.txt"
_MAX_METADATA_BYTES = 1 << 24  # the names of many classes
PredictFn = Callable[[np.ndarray], np.ndarray]


class Format(ABC):
    """A file format of exported models.

    To add one, write a file with a subclass, and add a line to `registry`; a program that uses humeris calls
    `register_format` instead. An instance holds no state.

    Attributes
    ----------
    name : str
        What ``--format`` takes.
    suffix : str
        Of file names, in lower case; "" for a folder.
    precisions : tuple of str
        Of the weights, see `weight_precision.PRECISIONS`; ``float32`` first.
    modules : tuple of str
        What must be importable to run a model.
    writer_modules : tuple of str
        What else must be importable to write one.
    extra : str
        The extra of humeris that installs these; "" where they always are.
    runtime : str
        The name of the program that runs a model.
    runs_code : bool
        Whether running a model can do anything but arithmetic. Such a model is run only where it was exported.
    computes_in_float32 : bool
        Whether a model computes in float32 whatever its features were computed in.
    tolerance : float
        How far a probability of a model with float32 weights may lie from the cached one.
    encoded_signature : str
        The signature of a model that takes the bytes of image files; "" where there is none.
    predict_code : str
        Python code for a process of its own, which has the runtime and nothing of ours. It defines ``predict``, a function
        from images (n, height, width, 3) uint8 to probabilities (n, classes), for the model at ``sys.argv[1]``.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    modules: ClassVar[tuple[str, ...]]
    writer_modules: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    runtime: ClassVar[str]
    runs_code: ClassVar[bool]
    computes_in_float32: ClassVar[bool] = False
    tolerance: ClassVar[float] = 1e-3
    encoded_signature: ClassVar[str] = ""
    predict_code: ClassVar[str]

    @abstractmethod
    def write(self, model: Any, path: Path, metadata: ModelMetadata, precision: str, calibration: np.ndarray | None) -> None:
        """Write a model with its metadata inside.

        Parameters
        ----------
        model : keras.Model
            From ``image``, uint8 (batch, height, width, 3), to ``probabilities``, float32 (batch, classes).
        path : Path
            Where nothing is yet.
        metadata : ModelMetadata
            What `read_metadata` returns; the format may fill in ``activations``.
        precision : str
            Of the weights, one of `precisions`.
        calibration : ndarray or None
            Images (n, height, width, 3) uint8 that ranges of activations are learned from; for ``int8`` only.

        Raises
        ------
        ModelError
            Where the format cannot hold the model. There is no file then.
        """

    @abstractmethod
    def read_metadata(self, path: Path) -> ModelMetadata | None:
        """The metadata inside a model, without running anything of it.

        Returns
        -------
        ModelMetadata or None
            None where there is no model, or none of ours.

        Raises
        ------
        ModelError
            Where the metadata are damaged or of another version.
        """

    @abstractmethod
    def load(self, path: Path) -> PredictFn:
        """Load a model into its runtime.

        Returns
        -------
        callable
            From images (n, height, width, 3) uint8 to probabilities (n, classes).

        Raises
        ------
        ModelError
            Where it cannot be loaded.
        """

    @property
    def is_folder(self) -> bool:
        """Whether a model is a folder."""
        return not self.suffix

    def check_installed(self, *, write: bool = False) -> None:
        """Raise `ModelError` if a package needed to run (or write) a model is missing; imports nothing."""
        for module in self.modules + (self.writer_modules if write else ()):
            if importlib.util.find_spec(module) is None:
                raise ModelError(
                    f"format {self.name}: the package {module} is not installed; run pip install 'humeris[{self.extra}]'"
                )


@contextlib.contextmanager
def explain_load_errors(path: Path) -> Iterator[None]:
    """Convert any error of a runtime that loads a file to `ModelError`."""
    try:
        yield
    except Exception as error:
        raise ModelError(f"{path}: cannot be loaded: {to_one_line(error)}") from error


@contextlib.contextmanager
def explain_write_errors(path: Path, title: str) -> Iterator[None]:
    """Convert any error of a converter to `ModelError`; `title` is what cannot be written."""
    try:
        yield
    except HumerisError:
        raise
    except Exception as error:
        raise ModelError(f"{path}: cannot be written as {title}: {to_one_line(error)}") from error


def parse_metadata(path: Path, text: str | bytes) -> ModelMetadata | None:
    """Return the metadata in a JSON text inside a file; None if it is not of humeris. Raises `ModelError`."""
    try:
        return decode_metadata(text)
    except ValueError as error:
        raise ModelError(f"{path}: {to_one_line(error)}; export it again") from error


def read_zip_metadata(path: Path) -> ModelMetadata | None:
    """Return the metadata in a zip archive, or in one appended to a file; see `Format.read_metadata`."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(METADATA_FILE).file_size > _MAX_METADATA_BYTES:
                return None
            text = archive.read(METADATA_FILE)
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile):  # anybody's bytes
        return None
    return parse_metadata(path, text)


def encode_labels(metadata: ModelMetadata) -> bytes:
    """Return the class names, one per line, as other tools read them; invalid UTF-8 becomes a question mark."""
    lines = [" ".join(name.splitlines()) for name in metadata.classes]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def to_one_line(text: object) -> str:
    """Return the message of another library's error on one line, shortened."""
    return " ".join(str(text).split())[:300]
