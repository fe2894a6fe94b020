"""The network that features were made with, built again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...cache.errors import ModelError
from ...cache.spec import Spec
from ...extract.backbones.backbone_spec import Request
from ...extract.backbones.build import Backbone, build


def is_of(request: Request, spec: Spec) -> bool:
    """Whether a request is for the network of a spec: for a file any file, as it may have been renamed."""
    return (request.file is None) == (not spec.file) and (request.file is not None or request.name == spec.backbone)


def candidates(spec: Spec, requests: Sequence[Request] = ()) -> list[Request]:
    """The requests that may be for the network of a spec: those that say where it is now, else where it was."""
    named = [request for request in requests if is_of(request, spec)] or [Request.of(spec)]
    return [replace(each, precision=spec.precision, image_size=each.image_size or spec.image_size) for each in named]


def rebuilt(
    spec: Spec,
    requests: Sequence[Request] = (),
    *,
    tuned: Mapping[str, Sequence[np.ndarray]] | None = None,
    fold: bool = True,
    precision: str | None = None,
) -> Backbone:
    """The very network that features were made with; raises `ModelError` when it is another one by now.

    tuned: other weights for some of its layers, and `fold`, as in `backbone.build`. precision: to compute in, where it is to
    be another than the features were computed in.
    """
    for request in candidates(spec, requests):
        built = build(request, tuned=tuned, fold=fold)
        if built.spec.digest == spec.digest:
            other = precision not in {None, spec.precision}
            return build(replace(request, precision=precision), tuned=tuned, fold=fold) if other and precision else built
    now, then = built.spec.to_dict(), spec.to_dict()
    decisive = ["weights_sha256", *(name for name in then if name not in {"backbone", "arguments", "weights", "file"})]
    changed = next(name for name in decisive if now[name] != then[name])
    raise ModelError(
        f"backbone {spec.title}: expected {changed} {then[changed]}, as the features were made with, found {now[changed]}; "
        "put the old one back (or name it with -b), or extract, sweep and export anew"
    )
