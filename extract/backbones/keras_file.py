"""The user's networks in `.keras` files."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...cache.errors import BackboneError, WeightsError
from ...cache.formatting import format_error
from ...cache.spec import ExtractionSpec
from ..pixels.file_kinds import describe_kind
from . import weights
from .backbone_source import BackboneInfo, BackboneSource
from .keras_runtime import load_keras

if TYPE_CHECKING:
    from .backbone_spec import BackboneSpec


_FUNCTIONAL = "load it in Keras, and save it as a functional model with model.save('net.keras')"
_OTHER_FORMATS = {
    ".h5": f"the .h5 format of Keras 2; {_FUNCTIONAL}",
    ".hdf5": f"the .h5 format of Keras 2; {_FUNCTIONAL}",
    ".pt": "a PyTorch file; give a network of Keras, or one converted to it",
    ".pth": "a PyTorch file; give a network of Keras, or one converted to it",
    ".safetensors": "weights without a network; build the network in Keras, load them, and save it as .keras",
    ".onnx": "an ONNX model; give the .keras file that it was made from",
    ".tflite": "a LiteRT model; give the .keras file that it was made from",
    ".pb": f"a TensorFlow graph; {_FUNCTIONAL}",
    ".ckpt": "a TensorFlow checkpoint; build the network in Keras, load the weights, and save it as .keras",
}


class KerasFile(BackboneSource):
    """Networks by the path of their file, named by its stem: `networks/mine.keras,preprocessing=tf` is `mine`."""

    name = "keras file"
    allows_random_weights = False

    def list_backbones(self) -> Sequence[BackboneInfo]:
        """Return [], because files are not addressed by name."""
        return []

    def matches(self, text: str) -> bool:
        """Return whether this is a model file, or the folder of a SavedModel; `check` explains what is not supported."""
        return text.endswith((".keras", *_OTHER_FORMATS)) or Path(text, "saved_model.pb").is_file()

    def describe(self, text: str) -> BackboneInfo:
        """Return the description of the file at a path, from its name alone."""
        file = Path(text)
        return BackboneInfo(file.stem, "", None, "", min_size=1, pretrained_weights="file", file=file)

    def check(self, spec: BackboneSpec) -> None:
        """Raise `BackboneError` or `WeightsError` if the file does not exist, or an option is not available for files."""
        file = _get_file(spec)
        if file.is_dir():
            raise BackboneError(f"backbone {file}: a SavedModel folder, which has no layers to tap; {_FUNCTIONAL}")
        if not file.is_file():
            raise BackboneError(f"backbone {file}: no such file; check the path")
        if file.suffix in _OTHER_FORMATS:
            raise BackboneError(f"backbone {file}: {_OTHER_FORMATS[file.suffix]}")
        with file.open("rb") as opened:
            head = opened.read(4096)
        if head and not head.startswith(b"PK") and not (kind := describe_kind(head)).name.startswith("unknown format"):
            raise BackboneError(f"backbone {file}: {kind.name}, not a .keras file; {kind.remedy}")
        if spec.arguments:
            raise BackboneError(
                f"backbone {file}: a .keras file takes no constructor arguments, got {', '.join(spec.arguments)}; "
                "leave them out (its options are preprocessing, image_size, precision and weights)"
            )
        if spec.has_random_weights:
            raise WeightsError(f"backbone {file}: --weights random is not available for a .keras file; leave it out")

    def build(self, spec: BackboneSpec) -> Any:
        """Load the network; a file with Python code in it is rejected, and the code is not run."""
        file = _get_file(spec)
        try:
            with weights.forbid_skipped_layers():
                return load_keras().saving.load_model(file, compile=False, safe_mode=True)
        except Exception as error:  # Keras raises many types for a corrupt or malicious file
            raise BackboneError(f"backbone {file}: cannot be loaded as a .keras file: {format_error(error)}") from error

    def get_license(self, spec: ExtractionSpec) -> str:  # noqa: ARG002  # a file does not state it
        """Return that the license is unknown."""
        return "your own file, whose license is unknown to humeris"

    def compute_architecture(self, spec: BackboneSpec) -> str:
        """Return the digest of the configuration in the file, since equal weights in another structure differ in features.

        Raises `BackboneError` for a file that is not a `.keras` file.
        """
        file = _get_file(spec)
        try:
            with zipfile.ZipFile(file) as archive:
                config = dict(json.loads(archive.read("config.json")))
        except (OSError, KeyError, ValueError, TypeError, RecursionError, zipfile.BadZipFile) as error:
            raise BackboneError(f"backbone {file}: cannot be read as a .keras file: {format_error(error)}") from error
        config.pop("compile_config", None)
        return f"sha256:{hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()}"

    def list_key_parts(self, spec: BackboneSpec) -> list[Any]:  # noqa: ARG002  # the digest of the file is in the key
        """Return the source alone, so that moving or renaming the file changes nothing."""
        return [self.name]

    def is_same(self, spec: BackboneSpec, extraction: ExtractionSpec) -> bool:  # noqa: ARG002
        """Return whether the network of `extraction` is a file; it may be any file, since files can be renamed."""
        return self.matches(extraction.address)


def _get_file(spec: BackboneSpec) -> Path:
    return Path(spec.info.address)
