"""Rebuild the backbone that features were extracted with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...cache.errors import ModelError
from ...cache.spec import DESCRIPTIVE_FIELDS, ExtractionSpec
from ...extract.backbones.backbone_spec import BackboneSpec
from ...extract.backbones.build import Backbone, build


def is_same_backbone(backbone_spec: BackboneSpec, spec: ExtractionSpec) -> bool:
    """Return whether a backbone may be the one that features were extracted with, according to its source."""
    return backbone_spec.source.is_same(backbone_spec, spec)


def find_backbone_specs(spec: ExtractionSpec, backbone_specs: Sequence[BackboneSpec] = ()) -> list[BackboneSpec]:
    """Return the given backbones that may be the one features were extracted with, or else the one named in `spec`."""
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
    """Rebuild the network that features were extracted with.

    Parameters
    ----------
    spec : ExtractionSpec
        Spec of the extraction.
    backbone_specs : sequence of BackboneSpec
        Backbones whose files were moved, with their new paths.
    tuned_weights : mapping, optional
        Fine-tuned weights of some of its layers, by layer name; see `build`.
    fold_batch_norm : bool
        Whether to fold batch normalizations into convolutions; see `build`.
    precision : str, optional
        Precision to compute in, if not that of the features.

    Returns
    -------
    Backbone

    Raises
    ------
    ModelError
        If the network has changed since the extraction.
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
        *(name for name in expected if name not in DESCRIPTIVE_FIELDS),
    ]
    changed_field = next(name for name in compared_fields if current[name] != expected[name])
    raise ModelError(
        f"backbone {spec.title}: {changed_field} has changed since extraction (was {expected[changed_field]}, is "
        f"{current[changed_field]}); restore the backbone, give its path with -b, or extract, sweep and export again"
    )
