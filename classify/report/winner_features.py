"""The winner's features of a run's images, or in words why they are not there and which command brings them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import HumerisError
from ...cache.shard import as_keys
from ...cache.spec import Spec
from ...extract.backbones.backbone_spec import Request
from ..data import select_features
from ..data.feature_matrix import Matrix
from ..evaluate.trial import Source
from ..runs.run import Record
from .blocks import Command, Part, Text
from .run_snapshot import Evidence


class Lacking(Exception):
    """Features that are not there; `parts` say so on the page."""

    def __init__(self, why: str, command: str = "") -> None:
        super().__init__(why)
        self.parts: list[Part] = [Text(why, "missing"), *([Command(command)] if command else [])]


def matrix(evidence: Evidence, records: Sequence[Record], taps: tuple[Source, ...] | None = None) -> Matrix:
    """The rows of the images `records`, in their order, at the winner's taps side by side; raises `Lacking`."""
    taps = taps or (evidence.best.sources if evidence.best else ())
    if not taps or not records:
        raise Lacking("There are no features to show, because the run names no winner or no images: finish the run first.")
    keys = as_keys([record.digest for record in records])
    stored = evidence.features(taps)
    again = command(evidence, taps)
    if stored is None:
        raise Lacking(f"The features at {_names(taps)} are not in the cache (any more).{_how(evidence, again)}", again)
    lacking = np.zeros(len(keys), bool)
    for each in stored:
        there: Any = each
        lacking |= there.missing(keys)
    if lacking.any():
        what = f"{int(lacking.sum())} of {len(keys)} images have no row at {_names(taps)} in the cache (any more)."
        raise Lacking(f"{what}{_how(evidence, again)}", again)
    try:
        return select_features.matrix(stored, keys).streamed()
    except HumerisError as error:
        raise Lacking(f"{error}", again) from error


def command(evidence: Evidence, taps: Sequence[Source], weights: str | None = None) -> str:
    """The command that fills the cache with the rows of `taps`, or with those of other weights; "" where none can.

    Of several networks it is several commands with && between them. None can where the taps are of a file of features, nor
    with random weights where a network is a file.
    """
    data, lines = evidence.data, []
    if data.get("kind") == "features" or not data.get("root"):
        return ""
    for name in dict.fromkeys(tap.extraction for tap in taps):
        try:
            request = Request.of(Spec.from_dict(evidence.description["specs"][name]))
        except (HumerisError, KeyError, TypeError, ValueError):
            return ""
        if weights is not None and request.file is not None:
            return ""
        where = data.get("source") if data.get("kind") in {"keras", "manifest"} else data["root"]
        parts = ["humeris", "extract", str(where), "-b", (replace(request, weights=weights) if weights else request).title]
        mine = dict.fromkeys(f"{tap.layer}:{tap.pool}" for tap in taps if tap.extraction == name)
        parts += [part for tap in mine for part in ("-l", tap)]
        parts += [] if evidence.store is None else ["--cache", str(Path(evidence.store.path).absolute())]
        lines.append(shlex.join(parts))
    return " && ".join(lines)


def _names(taps: Sequence[Source]) -> str:
    return " + ".join(map(str, taps))


def _how(evidence: Evidence, again: str) -> str:
    if again:
        return " This brings them:"
    if evidence.data.get("kind") == "features":
        return " Put the file of features back where it was."
    return " Put the file of the network, or of how it was asked for in run.json, back where it was, and extract again."
