"""The network that features were made with, built again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...cache.errors import ModelError
from ...cache.spec import ExtractionSpec
from ...extract.backbones.backbone_spec import BackboneSpec
from ...extract.backbones.build import Backbone, build


def is_same_backbone(backbone_spec: BackboneSpec, spec: ExtractionSpec) -> bool:
    """Whether a request is for the network of a spec: for a file any file, as it may have been renamed."""
    return (backbone_spec.file is None) == (not spec.file) and (
        backbone_spec.file is not None or backbone_spec.name == spec.backbone
    )


def find_backbone_specs(spec: ExtractionSpec, backbone_specs: Sequence[BackboneSpec] = ()) -> list[BackboneSpec]:
    """The requests that may be for the network of a spec: those that say where it is now, else where it was."""
    matches = [backbone_spec for backbone_spec in backbone_specs if is_same_backbone(backbone_spec, spec)] or [
        BackboneSpec.from_spec(spec)
    ]
    return [
        replace(candidate, precision=spec.precision, image_size=candidate.image_size or spec.image_size)
        for candidate in matches
    ]


def rebuild_backbone(
    spec: ExtractionSpec,
    backbone_specs: Sequence[BackboneSpec] = (),
    *,
    tuned_weights: Mapping[str, Sequence[np.ndarray]] | None = None,
    fold_batch_norm: bool = True,
    precision: str | None = None,
) -> Backbone:
    """The very network that features were made with; raises `ModelError` when it is another one by now.

    tuned: other weights for some of its layers, and `fold`, as in `backbone.build`. precision: to compute in, where it is to
    be another than the features were computed in.
    """
    for backbone_spec in find_backbone_specs(spec, backbone_specs):
        backbone = build(backbone_spec, finetuned_weights=tuned_weights, fold_batch_norm=fold_batch_norm)
        if backbone.spec.digest == spec.digest:
            is_other_precision = precision not in {None, spec.precision}
            return (
                build(
                    replace(backbone_spec, precision=precision),
                    finetuned_weights=tuned_weights,
                    fold_batch_norm=fold_batch_norm,
                )
                if is_other_precision and precision
                else backbone
            )
    current, expected = backbone.spec.to_dict(), spec.to_dict()
    compared_fields = [
        "weights_sha256",
        *(name for name in expected if name not in {"backbone", "arguments", "weights", "file"}),
    ]
    changed_field = next(name for name in compared_fields if current[name] != expected[name])
    raise ModelError(
        f"backbone {spec.title}: expected {changed_field} {expected[changed_field]}, as the features were made with, found "
        f"{current[changed_field]}; put the old one back (or name it with -b), or extract, sweep and export anew"
    )
