"""The source of nano, the small backbone that ships with the package."""

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
    """One network, which needs no download: `nano_network.build_nano`."""

    name = "nano"

    def list_backbones(self) -> Sequence[BackboneInfo]:
        """Nano alone."""
        return [_NANO]

    def build(self, spec: BackboneSpec) -> Any:
        """Nano at the size asked for, with the weights that ship or random ones."""
        model = build_nano(spec.input_shape)
        if spec.has_pretrained_weights:
            weights.load(model, WEIGHTS)
        return model

    def get_license(self, spec: ExtractionSpec) -> str:  # noqa: ARG002  # one network, one licence
        """That of this package."""
        return "Apache-2.0, with humeris"

    def compute_architecture(self, spec: BackboneSpec) -> str:  # noqa: ARG002
        """One text: its layers are fixed, and its weights have a digest."""
        return "humeris.nano()"
