"""A report: one HTML file that holds everything it shows, fetches nothing, and is read without a script as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from ... import __version__
from ...cache.atomic_files import publish
from ...cache.errors import HumerisError
from ...extract.images.load import Progress
from ..runs.run import Run
from . import html
from .blocks import Part, Section, Text
from .html import RenderedPart
from .run_snapshot import RunSnapshot
from .sections import (
    answer,
    comparison,
    confusion,
    cost,
    depth,
    feature_map,
    gallery,
    label_issues,
    leaderboard,
    pretraining_gain,
    reproduce,
    training_curves,
)

MAX_BYTES = 2_000_000  # bytes of a page
_MAX_NAME_LENGTH = 100  # letters of the name of what is left out
_SECTIONS: tuple[tuple[str, str, Callable[[RunSnapshot], Section]], ...] = (
    ("answer", "The answer", answer.build_section),
    ("depth", "Accuracy along the depth", depth.build_section),
    ("curves", "Settings and training", training_curves.build_section),
    ("confusion", "What is taken for what", confusion.build_section),
    ("gallery", "Mistakes and close calls", gallery.build_section),
    ("suspects", "Suspected label errors and near-duplicates", label_issues.build_section),
    ("features", "A map of the features", feature_map.build_section),
    ("random", "What the backbone brings", pretraining_gain.build_section),
    ("cost", "What it costs", cost.build_section),
    ("leaderboard", "Leaderboard", leaderboard.build_section),
    ("repeat", "To repeat it", reproduce.build_section),
)
_SECTION_ERRORS = (HumerisError, OSError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class ReportResult:
    """A report that was written: where, how many bytes, and in words what it lacks."""

    path: Path
    n_bytes: int
    omissions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"path": str(self.path), "bytes": self.n_bytes, "missing": list(self.omissions)}


@dataclass(frozen=True)
class _Block:
    """What stands under one heading: HTML of parts, or sections under headings of their own."""

    id: str
    kind: str
    title: str
    parts: Sequence[RenderedPart] = ()
    sections: Sequence[_Block] = ()


def write_report(
    runs: Sequence[Run | Path],
    out: Path | str | None = None,
    cache: Path | str | None = None,
    *,
    latency: bool = False,
    progress: Progress | None = None,
) -> ReportResult:
    """Write the report of one or more runs to `out`, by default `report.html` in the first; whole, or not at all.

    A run that is not whole is reported as far as it goes, and what is missing is said. cache: the cache's folder, by default
    the user's. With `latency` the networks are timed first, and `progress` is told; the page comes also where that fails.
    Raises `RunError` where there is no run, and `CacheError` where the file cannot be written.
    """
    opened_runs = [run if isinstance(run, Run) else Run(run) for run in runs]
    omissions = _measure_latency(opened_runs, progress) if latency else []
    snapshots = [RunSnapshot.read(run, None if cache is None else Path(cache)) for run in opened_runs]
    out = Path(out) if out else snapshots[0].path / "report.html"
    run_names, counter = comparison.name_runs(snapshots), count(1)
    if len(snapshots) == 1:
        omissions += snapshots[0].omissions
        blocks = list(_build_blocks(snapshots[0], "", counter, omissions))
    else:
        placeholder = Section("comparison", "Side by side", ())
        blocks = [_build_block(partial(comparison.build_section, snapshots), placeholder, "", counter, omissions)]
        for index, (name, snapshot) in enumerate(zip(run_names, snapshots, strict=True), start=1):
            omissions += [f"{name}: {omission}" for omission in snapshot.omissions]
            sections = list(_build_blocks(snapshot, f"run{index}-", counter, omissions))
            blocks.append(_Block(f"run{index}", "run", name, sections=sections))
    content = _render_within_limit(
        blocks, " and ".join(run_names), "; ".join(dict.fromkeys(map(_describe_data, snapshots))), omissions
    )
    publish(content, out, out.absolute().parent, 0o644, "another file with -o")
    return ReportResult(out, len(content), tuple(dict.fromkeys(omissions)))


def _measure_latency(runs: Sequence[Run], progress: Progress | None) -> list[str]:
    """Time the networks of the runs; why that was not possible, if it was not."""
    from ..diagnose.latency import measure_all

    try:
        measure_all(runs, progress)
    except HumerisError as error:
        return [str(error)]
    return []


def _build_blocks(snapshot: RunSnapshot, prefix: str, counter: Iterator[int], omissions: list[str]) -> Iterator[_Block]:
    for name, title, builder in _SECTIONS:
        yield _build_block(partial(builder, snapshot), Section(name, title, ()), prefix, counter, omissions)


def _build_block(
    builder: Callable[[], Section], placeholder: Section, prefix: str, counter: Iterator[int], omissions: list[str]
) -> _Block:
    """The section as HTML; one that says why there is none where the run does not hold what it is made of."""
    try:
        section = builder()
        parts = [html.render_part(part, f"c{next(counter)}") for part in section.parts]
    except _SECTION_ERRORS as error:
        fault_parts: list[Part] = [
            Text(f"{placeholder.title}: cannot be shown ({type(error).__name__}: {error})", "missing")
        ]
        section = Section(placeholder.id, placeholder.title, fault_parts)
        parts = [html.render_part(part, "") for part in fault_parts]
    omissions += [part.text for part in section.parts if isinstance(part, Text) and part.kind == "missing"]
    return _Block(prefix + section.id, section.id, section.title, parts)


def _describe_data(snapshot: RunSnapshot) -> str:
    """What images the run is about, in a few words; "" where that is not known."""
    data = snapshot.data
    if data is None or not data.location:
        return ""
    unit, name = "rows" if snapshot.holds_features else "images", data.location.rstrip("/").rpartition("/")[2]
    return f"{data.used} {unit} of {name} in {len(snapshot.class_names)} classes"


def _render_within_limit(blocks: list[_Block], title: str, subtitle: str, omissions: list[str]) -> bytes:
    """The page, at most `MAX_BYTES` bytes: drawings for narrow screens give way first, then the largest of its parts."""
    part_lists: list[Any] = [section.parts for block in blocks for section in (block, *block.sections) if section.parts]
    positions = [(parts, index) for parts in part_lists for index in range(len(parts))]
    while len(content := html.render_page(blocks, title, subtitle, omissions, __version__)) > MAX_BYTES and positions:
        parts, index = max(positions, key=lambda position: position[0][position[1]].savings)
        if not parts[index].savings:
            parts, index = max(positions, key=lambda position: len(position[0][position[1]].html))
            positions.remove((parts, index))  # what is left out is left out once
            omission = (
                f"{parts[index].summary[:_MAX_NAME_LENGTH]}: left out, since the page would be larger than "
                f"{MAX_BYTES / 1e6:.0f} MB"
            )
            omissions.append(omission)
            parts[index] = html.render_part(Text(omission, "missing"), "")
        else:
            parts[index] = RenderedPart(parts[index].compact_html, parts[index].summary)
    return content
