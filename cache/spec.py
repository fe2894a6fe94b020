"""Specification of an extraction: the readable key of a set of features."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# Fields that name things for people. Two extractions that differ in these alone are the same extraction.
DESCRIPTIVE_FIELDS = ("backbone", "arguments", "weights", "file")


@dataclass(frozen=True)
class ExtractionSpec:
    """Everything that determines the value of a feature, apart from the image and the tap.

    Parameters
    ----------
    backbone, arguments, weights, file : str, mapping, str, str
        The backbone as the user names it, and the path of its file; not part of the identity.
    architecture : str
        The network's structure: a constructor call, or the digest of a file's configuration.
    weights_sha256 : str
        Digest of the weight values.
    image_size : tuple of int
        (height, width) in pixels.
    preprocessing : str
        How pixels 0..255 are scaled for the network.
    pixels : str
        Version of the image decoding, and of its decoders.
    precision : str
        Dtype of the computation.
    forward : str
        Version of the forward pass.
    views : str
        Augmentation policy of the views other than the plain one.
    """

    backbone: str
    architecture: str
    weights: str
    weights_sha256: str
    image_size: tuple[int, int]
    preprocessing: str
    pixels: str
    precision: str = "float32"
    forward: str = ""
    views: str = "plain"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the identity fields, in hexadecimal."""
        identity = {name: value for name, value in self.to_dict().items() if name not in DESCRIPTIVE_FIELDS}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """Name of the extraction's folder: backbone, image size and digest."""
        name = re.sub(r"[^A-Za-z0-9_.]+", "_", self.backbone).strip("._")[:60] or "backbone"
        return f"{name}-{self.image_size[0]}-{self.digest[:16]}"

    @property
    def address(self) -> str:
        """The backbone's name, or the path of its file."""
        return self.file or self.backbone

    @property
    def has_random_weights(self) -> bool:
        """Whether the weights are random, not trained."""
        return self.weights.startswith("random")

    @property
    def title(self) -> str:
        """The backbone's display name, with its arguments."""
        parts = [self.backbone, *(f"{name}={json.dumps(value)}" for name, value in self.arguments.items())]
        if self.precision not in {"float32", ""}:
            parts.append(f"precision={self.precision}")
        if self.has_random_weights:
            parts.append("weights=random")
        return ",".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "image_size": list(self.image_size), "arguments": dict(self.arguments)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ExtractionSpec:
        """Return the spec that `to_dict` wrote; raises `TypeError`, `KeyError` or `ValueError` for anything else."""
        height, width = value["image_size"]
        spec = cls(**{**value, "image_size": (height, width)})
        texts = [text for name, text in vars(spec).items() if name not in {"image_size", "arguments"}]
        if not (all(isinstance(text, str) for text in texts) and isinstance(spec.arguments, Mapping)):
            raise TypeError("a field other than image_size and arguments is not text")
        if not (type(height) is int and type(width) is int):
            raise TypeError(f"image_size is not two integers: {height!r} and {width!r}")
        return spec
