"""The target of an export: path, format and precision."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import ModelError
from . import publish
from .formats.format import Format
from .formats.registry import choose_format
from .formats.weight_precision import PRECISIONS, WeightPrecision
from .model_card import is_model_card

ALTERNATIVE = "another path with -o"


@dataclass(frozen=True)
class ExportTarget:
    """The path, format and weight precision of a model to be written."""

    path: Path
    format: Format
    precision: WeightPrecision

    @classmethod
    def create(cls, path: Path, format_name: str | None, precision: str) -> ExportTarget:
        """Return the target that is asked for, after checking that it can be written.

        Parameters
        ----------
        path : Path
            Path of the model. An exported model that is already there will be replaced.
        format_name : str or None
            Name of the format; None to determine it by the suffix of `path`.
        precision : str
            Precision of the weights.

        Raises
        ------
        ModelError
            If there is no such format or precision, a package is missing, or the path of the model or of the model card is
            taken by something else.
        """
        model_format = choose_format(path, format_name)
        if precision not in PRECISIONS:
            raise ModelError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
        if precision not in model_format.precisions:
            raise ModelError(
                f"format {model_format.name} does not support precision {precision}; "
                f"choose {' or '.join(model_format.precisions)}"
            )
        model_format.check_installed(write=True)
        target = cls(path, model_format, PRECISIONS[precision])
        target._check_place()
        return target

    @property
    def card_path(self) -> Path:
        """The path of the model card."""
        return publish.get_card_path(self.path)

    def make_temp_path(self) -> Path:
        """Return a new path in the same folder, for the model until it is checked."""
        return self.path.with_name(f".{self.path.stem}-{secrets.token_hex(4)}{self.format.suffix}")

    def _check_place(self) -> None:
        path = self.path
        if not path.name:
            raise ModelError(f"{path}: not the name of a file; give {ALTERNATIVE}")
        if path.is_dir() and not (self.format.is_folder and self._is_exported_model()):
            raise ModelError(f"{path}: exists and is a folder that is not an exported model; give {ALTERNATIVE}")
        if path.exists() and not path.is_dir() and self.format.is_folder:
            raise ModelError(f"{path}: exists and is a file, but a {self.format.name} model is a folder; give {ALTERNATIVE}")
        if self.card_path.exists() and not (self.card_path.is_file() and is_model_card(self.card_path.read_bytes())):
            raise ModelError(f"{self.card_path}: exists and is not a model card; give {ALTERNATIVE}")

    def _is_exported_model(self) -> bool:
        try:
            return self.format.read_metadata(self.path) is not None
        except ModelError:  # an exported model, but damaged or of another version
            return True
