"""What is known of a backbone without loading it: remembered in the cache from the last time it was built."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...cache.key_value_store import Memo
from ...cache.spec import Spec
from ..pixels import decode
from . import precision, weights
from .backbone_spec import Request
from .build import Backbone, build, described
from .graph import Layer, default_taps


@dataclass(frozen=True)
class Card:
    """A backbone's spec, its layers in the order of computation, and the layers tapped by default."""

    spec: Spec
    layers: tuple[Layer, ...]
    defaults: tuple[str, ...]

    @classmethod
    def of(cls, backbone: Backbone) -> Card:
        """The card of a built backbone."""
        return cls(backbone.spec, tuple(backbone.graph.layers), tuple(default_taps(backbone.graph.layers)))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Output shape of each layer, without the batch axis."""
        return {layer.name: layer.shape for layer in self.layers}

    def to_dict(self) -> dict[str, Any]:
        """The card as JSON values."""
        return {
            "spec": self.spec.to_dict(),
            "layers": [asdict(layer) for layer in self.layers],
            "defaults": list(self.defaults),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Card:
        """The card that `to_dict` wrote."""
        layers = tuple(Layer(**{**layer, "shape": tuple(layer["shape"])}) for layer in value["layers"])
        return cls(Spec.from_dict(value["spec"]), layers, tuple(value["defaults"]))


def look_up(request: Request, memo: Memo) -> tuple[Card, Backbone | None]:
    """The card of a backbone, and the backbone itself if it had to be built (which imports Keras).

    The memory holds for the same request, versions and weights files: a file given by path is compared by digest,
    Keras's own downloads by name, size and mtime.
    """
    if (card := recall(request, memo)) is not None:
        return card, None
    backbone = build(request)
    card = Card.of(backbone)
    memo.put_json("backbone", _key(request), card.to_dict())  # the key anew: building may have downloaded the weights
    return card, backbone


def recall(request: Request, memo: Memo) -> Card | None:
    """The card of a backbone as it was built before, under the names that `request` gives it; never imports Keras."""
    if (stored := memo.get_json("backbone", _key(request))) is None:
        return None
    try:
        card = Card.from_dict(stored)
    except (KeyError, TypeError, ValueError, AttributeError):  # one that an older humeris left
        return None
    return replace(card, spec=replace(card.spec, **described(request)))


def _key(request: Request) -> str:
    given = [path for path in (request.file, Path(request.weights)) if path is not None and path.is_file()]
    facts = {
        "request": [
            request.application.name if request.application else "",
            request.weights if request.weights in {"imagenet", "drawings", "file", "random"} else "path",
            dict(request.arguments),
            request.image_size,
            request.preprocessing,
            request.seed,
            *precision.facts(request.precision),
        ],
        "versions": [importlib.metadata.version(name) for name in ("humeris", "keras", "tensorflow")],
        "pixels": decode.version(),
        "files": [weights.file_digest(path) for path in given],
        "downloaded": weights.downloaded() if request.weights == "imagenet" else [],
    }
    return json.dumps(facts, sort_keys=True)
