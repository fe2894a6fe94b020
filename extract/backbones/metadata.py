"""Metadata of a backbone, cached when it is built, so that most commands need not build it."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...cache.key_value_store import KeyValueStore
from ...cache.spec import ExtractionSpec
from ..pixels import decode
from . import precision, weights
from .backbone_spec import BackboneSpec
from .build import Backbone, build
from .graph import Layer, choose_default_layers


@dataclass(frozen=True)
class BackboneMetadata:
    """The spec and the layers of a backbone.

    Attributes
    ----------
    spec : ExtractionSpec
        The key of its features.
    layers : tuple of Layer
        Its layers, in the order of computation.
    default_layers : tuple of str
        Names of the layers that are tapped by default.
    """

    spec: ExtractionSpec
    layers: tuple[Layer, ...]
    default_layers: tuple[str, ...]

    @classmethod
    def from_backbone(cls, backbone: Backbone) -> BackboneMetadata:
        """Return the metadata of a built backbone."""
        return cls(backbone.spec, tuple(backbone.graph.layers), tuple(choose_default_layers(backbone.graph.layers)))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Layer name -> shape of its output, without the batch axis."""
        return {layer.name: layer.shape for layer in self.layers}

    def to_dict(self) -> dict[str, Any]:
        """Return the metadata as JSON values."""
        return {
            "spec": self.spec.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
            "default_layers": list(self.default_layers),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> BackboneMetadata:
        """Return the metadata that `to_dict` wrote."""
        layers = tuple(map(Layer.from_dict, value["layers"]))
        return cls(ExtractionSpec.from_dict(value["spec"]), layers, tuple(value["default_layers"]))


def get_or_build(backbone_spec: BackboneSpec, kv_store: KeyValueStore) -> tuple[BackboneMetadata, Backbone | None]:
    """Return the metadata of a backbone, which is built unless the cache has the metadata.

    Cached metadata is used while the options, the versions of the packages and the weights are unchanged: the user's files
    are compared by digest, the downloads of Keras by name, size and mtime.

    Parameters
    ----------
    backbone_spec : BackboneSpec
        The requested backbone.
    kv_store : KeyValueStore
        Stores the metadata.

    Returns
    -------
    metadata : BackboneMetadata
        The metadata.
    backbone : Backbone or None
        The backbone if it had to be built, which imports Keras.

    Raises
    ------
    BackboneError, WeightsError
        If the backbone cannot be built.
    """
    if (metadata := get_cached(backbone_spec, kv_store)) is not None:
        return metadata, None
    backbone = build(backbone_spec)
    metadata = BackboneMetadata.from_backbone(backbone)
    # The key is computed again, because building may have downloaded weights, which are part of it.
    kv_store.put_json("backbone", _compute_key(backbone_spec), metadata.to_dict())
    return metadata, backbone


def get_cached(backbone_spec: BackboneSpec, kv_store: KeyValueStore) -> BackboneMetadata | None:
    """Return the cached metadata of a backbone, with the names and paths of `backbone_spec`; does not import Keras."""
    if (cached := kv_store.get_json("backbone", _compute_key(backbone_spec))) is None:
        return None
    metadata = BackboneMetadata.from_dict(cached)
    return replace(metadata, spec=replace(metadata.spec, **backbone_spec.to_descriptive_fields()))


def _compute_key(backbone_spec: BackboneSpec) -> str:
    key_fields = {
        "source": backbone_spec.source.list_key_parts(backbone_spec),
        "options": [
            "path" if backbone_spec.weights_file is not None else backbone_spec.weights,
            dict(backbone_spec.arguments),
            backbone_spec.image_size,
            backbone_spec.preprocessing,
            backbone_spec.seed if backbone_spec.has_random_weights else 0,
            *precision.list_key_parts(backbone_spec.precision),
        ],
        "versions": [importlib.metadata.version(name) for name in ("humeris", "keras", "tensorflow")],
        "pixels": decode.get_version(),
        "files": [weights.compute_file_digest(path) for path in backbone_spec.list_files()],
    }
    return json.dumps(key_fields, sort_keys=True)
