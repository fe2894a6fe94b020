"""The metadata of an exported model, stored in its file as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ... import __version__
from ...cache.spec import ExtractionSpec
from ..evaluate.single_label import SingleLabel
from ..evaluate.target import Target
from ..evaluate.target_registry import restore_target
from ..evaluate.trial import Trial

FORMAT = 3
MAX_IMAGE_SIDE = 1 << 14
_REQUIRED_KEYS = {"classes", "image_size", "pixels"}


@dataclass(frozen=True)
class ModelMetadata:
    """Metadata needed to use an exported model, and its provenance.

    Parameters
    ----------
    classes : tuple of str
        Class names, in the order of the columns of the probabilities.
    image_size : tuple of int
        (height, width) of the input, in pixels.
    pixels : str
        Version of image decoding that the model was built for, see `extract.pixels.decode.get_version`.
    precision : str
        Precision of the weights: ``float32``, ``float16`` or ``int8``.
    activations : str
        Data type that an ``int8`` model computes its activations in, ``int8`` or ``float32``; "" for other models.
    specs : mapping of str to ExtractionSpec
        Specs of the extractions that the head was trained on, by name.
    trial : Trial or None
        The head family, its hyperparameters and its taps.
    test : mapping or None
        Accuracy on the test split, on single views; None for a trial that was not selected.
    target_name : str
        Name of the kind of label that the model predicts, see `get_target`.
    humeris : str
        Version of humeris that wrote the model.
    """

    classes: tuple[str, ...]
    image_size: tuple[int, int]
    pixels: str
    precision: str = "float32"
    activations: str = ""
    specs: Mapping[str, ExtractionSpec] = field(default_factory=dict)
    trial: Trial | None = None
    test: Mapping[str, Any] | None = None
    target_name: str = SingleLabel.name
    humeris: str = __version__

    def get_target(self) -> Target:
        """Return the kind of label that the model predicts; raises `DataError` if it is not registered."""
        return restore_target(self.target_name, self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "format": FORMAT,
            "humeris": self.humeris,
            "target": self.target_name,
            "classes": list(self.classes),
            "image_size": list(self.image_size),
            "pixels": self.pixels,
            "precision": self.precision,
            "specs": {name: spec.to_dict() for name, spec in self.specs.items()},
            "trial": self.trial.to_dict() if self.trial else None,
            "test": dict(self.test) if self.test is not None else None,
            **({"activations": self.activations} if self.activations else {}),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ModelMetadata:
        """Return the metadata that `to_dict` wrote.

        Parameters
        ----------
        value : mapping
            JSON values from an untrusted file.

        Returns
        -------
        ModelMetadata

        Raises
        ------
        ValueError
            If `to_dict` cannot have written them, or wrote them in another version.
        """
        classes, image_size = _check_classes(value["classes"]), _check_image_size(value["image_size"])
        if value.get("format") != FORMAT:
            raise ValueError(f"metadata version {str(value.get('format'))[:80]} is not supported (supported: {FORMAT})")
        try:
            return cls(
                classes=classes,
                image_size=image_size,
                pixels=str(value["pixels"]),
                precision=str(value["precision"]),
                activations=str(value.get("activations", "")),
                specs={name: ExtractionSpec.from_dict(spec) for name, spec in value["specs"].items()},
                trial=Trial.from_dict(value["trial"]) if value["trial"] is not None else None,
                test=dict(value["test"]) if value["test"] is not None else None,
                target_name=str(value["target"]),
                humeris=str(value["humeris"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"metadata cannot be parsed: {str(error)[:80]}") from error


def encode_metadata(metadata: ModelMetadata) -> str:
    """Return the metadata as JSON."""
    return json.dumps(metadata.to_dict(), indent=2)


def decode_metadata(text: str | bytes) -> ModelMetadata | None:
    """Return the metadata in a JSON text, or None if they are not those of an exported model.

    Raises
    ------
    ValueError
        If they are, but damaged or of another version, see `ModelMetadata.from_dict`.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not set(value) >= _REQUIRED_KEYS:
        return None
    return ModelMetadata.from_dict(value)


def _check_classes(classes: Any) -> tuple[str, ...]:
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"metadata are damaged: classes {str(classes)[:80]!r} are not a list of names")
    return tuple(classes)


def _check_image_size(image_size: Any) -> tuple[int, int]:
    is_valid = (
        isinstance(image_size, list)
        and len(image_size) == 2
        and all(type(side) is int and 0 < side <= MAX_IMAGE_SIDE for side in image_size)
    )
    if not is_valid:
        raise ValueError(f"metadata are damaged: image size {str(image_size)[:80]!r} is not [height, width] in pixels")
    return image_size[0], image_size[1]
