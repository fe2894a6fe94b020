"""The user's own networks, in `.keras` files."""

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
from . import weights
from .backbone_source import BackboneInfo, BackboneSource
from .keras_runtime import load_keras

if TYPE_CHECKING:
    from .backbone_spec import BackboneSpec


class KerasFile(BackboneSource):
    """Networks by the path of their file, called by its stem: `networks/mine.keras,preprocessing=tf` is `mine`."""

    name = "keras file"
    allows_random_weights = False

    def list_backbones(self) -> Sequence[BackboneInfo]:
        """None: they do not come by name."""
        return []

    def matches(self, text: str) -> bool:
        """Whether a path ends as Keras's files do; `.h5` is taken for one, so that `check` can say what to do with it."""
        return text.endswith((".keras", ".h5"))

    def describe(self, text: str) -> BackboneInfo:
        """The file at a path, of which nothing is known but its name."""
        file = Path(text)
        return BackboneInfo(file.stem, "", None, "", min_size=1, pretrained_weights="file", file=file)

    def check(self, spec: BackboneSpec) -> None:
        """Raise `BackboneError` or `WeightsError` where there is no such file, or it cannot have what is asked for."""
        file = _get_file(spec)
        if not file.is_file():
            raise BackboneError(f"backbone {file}: expected a .keras file, found no file there; check the path")
        if file.suffix == ".h5":
            raise BackboneError(
                f"backbone {file}: expected the .keras format, found .h5; load it in Keras and save it as .keras"
            )
        if spec.arguments:
            raise BackboneError(
                f"backbone {file}: a file has no constructor arguments, found {', '.join(spec.arguments)}; "
                "it takes preprocessing, image_size and weights"
            )
        if spec.has_random_weights:
            raise WeightsError(f"backbone {file}: a file comes with its weights, found --weights random; leave it out")

    def build(self, spec: BackboneSpec) -> Any:
        """The network as the file has it; code in the file is refused, not run."""
        file = _get_file(spec)
        try:
            with weights.forbid_skipped_layers():
                return load_keras().saving.load_model(file, compile=False, safe_mode=True)
        except Exception as error:  # a file of the user's: Keras raises almost anything on a damaged or hostile one
            raise BackboneError(f"backbone {file}: cannot be loaded as a .keras file: {format_error(error)}") from error

    def get_license(self, spec: ExtractionSpec) -> str:  # noqa: ARG002  # nothing in a file says so
        """That it is not known."""
        return "your own file: its licence is not known here"

    def compute_architecture(self, spec: BackboneSpec) -> str:
        """The digest of the file's own configuration: the same weights in another structure give other features.

        Raises `BackboneError`.
        """
        file = _get_file(spec)
        try:
            with zipfile.ZipFile(file) as archive:
                config = dict(json.loads(archive.read("config.json")))
        except (OSError, KeyError, ValueError, TypeError, RecursionError, zipfile.BadZipFile) as error:
            raise BackboneError(
                f"backbone {file}: expected a .keras file, found another one: {format_error(error)}"
            ) from error
        config.pop("compile_config", None)
        return f"sha256:{hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()}"

    def list_key_parts(self, spec: BackboneSpec) -> list[Any]:  # noqa: ARG002  # the file's digest decides
        """The source alone: a file is the same one wherever it lies."""
        return [self.name]

    def is_same(self, spec: BackboneSpec, extraction: ExtractionSpec) -> bool:  # noqa: ARG002
        """Whether the features were made with a file: any one may be it, as it may have been renamed."""
        return self.matches(extraction.address)


def _get_file(spec: BackboneSpec) -> Path:
    return Path(spec.info.address)
