"""The report: one self-contained HTML file that makes no network requests and is readable without scripts."""

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
    summary,
    training_curves,
)

MAX_BYTES = 2_000_000  # bytes of a page
_MAX_NAME_LENGTH = 100  # characters of the name of an omitted part
_SECTIONS: tuple[tuple[str, str, Callable[[RunSnapshot], Section]], ...] = (
    ("summary", "Summary", summary.build_section),
    ("depth", "Accuracy by depth", depth.build_section),
    ("curves", "Training curves", training_curves.build_section),
    ("confusion", "Confusion matrix", confusion.build_section),
    ("gallery", "Errors and uncertain predictions", gallery.build_section),
    ("label-issues", "Label issues", label_issues.build_section),
    ("features", "t-SNE of the features", feature_map.build_section),
    ("pretraining", "Gain from pretraining", pretraining_gain.build_section),
    ("cost", "Cost", cost.build_section),
    ("leaderboard", "Leaderboard", leaderboard.build_section),
    ("reproduce", "Reproduce", reproduce.build_section),
)
_SECTION_ERRORS = (HumerisError, OSError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class ReportResult:
    """A written report: its path, its size in bytes, and a line for each omission."""

    path: Path
    n_bytes: int
    omissions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {"path": str(self.path), "bytes": self.n_bytes, "missing": list(self.omissions)}


@dataclass(frozen=True)
class _Block:
    """The contents of one heading: rendered parts, or sections with headings of their own."""

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
    """Write the report of one or more runs, atomically.

    An incomplete or damaged run is reported as far as it can be read, with a list of what is missing.

    Parameters
    ----------
    runs : sequence of Run or Path
        Several are compared, and each reported in full.
    out : Path or str, optional
        The file; `report.html` in the first run by default.
    cache : Path or str, optional
        The cache folder; the user's by default.
    latency : bool
        Measure the latency of the networks first. If that fails, the report says so.
    progress : Progress, optional
        Called during the measurement.

    Returns
    -------
    ReportResult

    Raises
    ------
    RunError
        If there is no run.
    CacheError
        If the file cannot be written.
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
        placeholder = Section("comparison", "Comparison", ())
        blocks = [_build_block(partial(comparison.build_section, snapshots), placeholder, "", counter, omissions)]
        for index, (name, snapshot) in enumerate(zip(run_names, snapshots, strict=True), start=1):
            omissions += [f"{name}: {omission}" for omission in snapshot.omissions]
            sections = list(_build_blocks(snapshot, f"run{index}-", counter, omissions))
            blocks.append(_Block(f"run{index}", "run", name, sections=sections))
    content = _render_within_limit(
        blocks, " and ".join(run_names), "; ".join(dict.fromkeys(filter(None, map(_describe_data, snapshots)))), omissions
    )
    publish(content, out, out.absolute().parent, 0o644, "another file with -o")
    return ReportResult(out, len(content), tuple(dict.fromkeys(omissions)))


def _measure_latency(runs: Sequence[Run], progress: Progress | None) -> list[str]:
    """Measure the latency of the networks; return the reason if that fails."""
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
    """Build and render a section; if that fails, one that says why."""
    try:
        section = builder()
        parts = [html.render_part(part, f"c{next(counter)}") for part in section.parts]
    except _SECTION_ERRORS as error:
        fault_parts: list[Part] = [Text(f"{placeholder.title} cannot be shown ({type(error).__name__}: {error})", "missing")]
        section = Section(placeholder.id, placeholder.title, fault_parts)
        parts = [html.render_part(part, "") for part in fault_parts]
    omissions += [part.text for part in section.parts if isinstance(part, Text) and part.kind == "missing"]
    return _Block(prefix + section.id, section.id, section.title, parts)


def _describe_data(snapshot: RunSnapshot) -> str:
    """Describe the data of a run briefly; "" if unknown."""
    data = snapshot.data
    if data is None or not data.location:
        return ""
    unit, name = "rows" if snapshot.holds_features else "images", data.location.rstrip("/").rpartition("/")[2]
    return f"{data.used} {unit} of {name} in {len(snapshot.class_names)} classes"


def _render_within_limit(blocks: list[_Block], title: str, subtitle: str, omissions: list[str]) -> bytes:
    """Render the page in at most `MAX_BYTES`: omit drawings for narrow screens first, then the largest parts."""
    part_lists: list[Any] = [section.parts for block in blocks for section in (block, *block.sections) if section.parts]
    positions = [(parts, index) for parts in part_lists for index in range(len(parts))]
    while len(content := html.render_page(blocks, title, subtitle, omissions, __version__)) > MAX_BYTES and positions:
        parts, index = max(positions, key=lambda position: position[0][position[1]].savings)
        if not parts[index].savings:
            parts, index = max(positions, key=lambda position: len(position[0][position[1]].html))
            positions.remove((parts, index))  # omit each part once
            omission = (
                f"{parts[index].summary[:_MAX_NAME_LENGTH]} omitted: the page would be larger than {MAX_BYTES / 1e6:.0f} MB"
            )
            omissions.append(omission)
            parts[index] = html.render_part(Text(omission, "missing"), "")
        else:
            parts[index] = RenderedPart(parts[index].compact_html, parts[index].summary)
    return content
