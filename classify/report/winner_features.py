"""The winner's features of a run's images; if unavailable, the reason and the command that extracts them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import HumerisError
from ...cache.shard import to_keys
from ...extract.backbones.backbone_spec import BackboneSpec
from ...extract.backbones.tap_ref import TapRef
from ..data import select_features
from ..data.feature_matrix import FeatureMatrix
from ..runs.image_records import ImageRecord
from .blocks import Command, Part, Text
from .run_snapshot import RunSnapshot


class FeaturesUnavailable(Exception):
    """Features are not available; `parts` is what the page shows instead."""

    def __init__(self, reason: str, command_line: str = "") -> None:
        super().__init__(reason)
        self.parts: list[Part] = [Text(reason, "missing"), *([Command(command_line)] if command_line else [])]


def load_features(
    snapshot: RunSnapshot, records: Sequence[ImageRecord], tap_refs: tuple[TapRef, ...] | None = None
) -> FeatureMatrix:
    """Load the rows of `records` at `tap_refs` (the winner's by default); raise `FeaturesUnavailable` if any is missing."""
    tap_refs = tap_refs or (snapshot.best.tap_refs if snapshot.best else ())
    if not tap_refs or not records:
        raise FeaturesUnavailable("No features to show: the run has no winner or no images yet; finish the run first.")
    keys = to_keys([record.digest for record in records])
    readers = snapshot.open_features(tap_refs)
    command_line = format_extract_command(snapshot, tap_refs)
    if readers is None:
        raise FeaturesUnavailable(
            f"The features at {_format_taps(tap_refs)} are not in the cache.{_describe_remedy(snapshot, command_line)}",
            command_line,
        )
    missing_mask = np.zeros(len(keys), bool)
    for reader in readers:
        untyped_reader: Any = reader
        missing_mask |= untyped_reader.find_missing(keys)
    if missing_mask.any():
        message = f"{int(missing_mask.sum())} of {len(keys)} images have no cached row at {_format_taps(tap_refs)}."
        raise FeaturesUnavailable(f"{message}{_describe_remedy(snapshot, command_line)}", command_line)
    try:
        return select_features.build_matrix(readers, keys).to_streaming()
    except HumerisError as error:
        raise FeaturesUnavailable(f"{error}", command_line) from error


def format_extract_command(snapshot: RunSnapshot, tap_refs: Sequence[TapRef], weights: str | None = None) -> str:
    """Format the command that extracts the rows of `tap_refs`, with other `weights` if given; "" if there is none.

    For several networks the commands are joined by &&. There is none for a file of features, nor for random weights of a
    network from a file.
    """
    metadata, source, lines = snapshot.metadata, snapshot.source, []
    if metadata is None or source is None or source.holds_features:
        return ""
    for name in dict.fromkeys(tap.extraction for tap in tap_refs):
        try:
            backbone_spec = BackboneSpec.from_spec(metadata.specs[name])
        except (HumerisError, KeyError, TypeError, ValueError):
            return ""
        if weights is not None and not backbone_spec.source.allows_random_weights:
            return ""
        parts = [
            "humeris",
            "extract",
            *source.arguments,
            "-b",
            (replace(backbone_spec, weights=weights) if weights else backbone_spec).title,
        ]
        tap_names = dict.fromkeys(f"{tap.layer}:{tap.pool}" for tap in tap_refs if tap.extraction == name)
        parts += [part for tap in tap_names for part in ("-l", tap)]
        parts += [] if snapshot.store is None else ["--cache", str(Path(snapshot.store.path).absolute())]
        lines.append(shlex.join(parts))
    return " && ".join(lines)


def _format_taps(tap_refs: Sequence[TapRef]) -> str:
    return " + ".join(map(str, tap_refs))


def _describe_remedy(snapshot: RunSnapshot, command_line: str) -> str:
    if command_line:
        return " To extract them:"
    if snapshot.holds_features:
        return " Move the file of features back to its place."
    return " Move the file of the network back to its place, and extract again."
