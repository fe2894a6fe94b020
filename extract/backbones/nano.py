"""The source of nano, the small backbone that comes with humeris."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...cache.spec import ExtractionSpec
from . import weights
from .backbone_source import BackboneInfo, BackboneSource
from .nano_network import WEIGHTS, build_nano

if TYPE_CHECKING:
    from .backbone_spec import BackboneSpec

_NANO = BackboneInfo("nano", "nano", 64, "tf", pretrained_weights="synthetic")


class Nano(BackboneSource):
    """The network `nano_network.build_nano`, which needs no download."""

    name = "nano"

    def list_backbones(self) -> Sequence[BackboneInfo]:
        """Return nano."""
        return [_NANO]

    def build(self, spec: BackboneSpec) -> Any:
        """Build nano for the requested image size, with its pretrained or random weights."""
        model = build_nano(spec.input_shape)
        if spec.has_pretrained_weights:
            weights.load(model, WEIGHTS)
        return model

    def get_license(self, spec: ExtractionSpec) -> str:  # noqa: ARG002  # one network, one license
        """Return the license of this package."""
        return "Apache-2.0, with humeris"

    def compute_architecture(self, spec: BackboneSpec) -> str:  # noqa: ARG002
        """Return a constant, because the layers are fixed."""
        return "humeris.nano()"
