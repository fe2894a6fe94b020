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
from . import html
from .blocks import Part, Section, Text
from .html import Drawn
from .run_snapshot import Evidence
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

LIMIT = 2_000_000  # bytes of a page
_LONGEST = 100  # letters of the name of what is left out
_SECTIONS: tuple[tuple[str, str, Callable[[Evidence], Section]], ...] = (
    ("answer", "The answer", answer.section),
    ("depth", "Accuracy along the depth", depth.section),
    ("curves", "Settings and training", training_curves.section),
    ("confusion", "What is taken for what", confusion.section),
    ("gallery", "Mistakes and close calls", gallery.section),
    ("suspects", "Suspected label errors and near-duplicates", label_issues.section),
    ("features", "A map of the features", feature_map.section),
    ("random", "What the backbone brings", pretraining_gain.section),
    ("cost", "What it costs", cost.section),
    ("leaderboard", "Leaderboard", leaderboard.section),
    ("repeat", "To repeat it", reproduce.section),
)
_FAULTS = (HumerisError, OSError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class Reported:
    """A report that was written: where, how many bytes, and in words what it lacks."""

    path: Path
    bytes: int
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"path": str(self.path), "bytes": self.bytes, "missing": list(self.missing)}


@dataclass(frozen=True)
class _Block:
    """What stands under one heading: HTML of parts, or sections under headings of their own."""

    id: str
    kind: str
    title: str
    parts: Sequence[Drawn] = ()
    sections: Sequence[_Block] = ()


def report(paths: Sequence[Path], out: Path | None = None, cache: Path | None = None) -> Reported:
    """Write the report of one or more runs to `out`, by default `report.html` in the first; whole, or not at all.

    A run that is not whole is reported as far as it goes, and what is missing is said. cache: the cache's folder, by default
    the user's. Raises `RunError` where there is no run, and `CacheError` where the file cannot be written.
    """
    found = [Evidence.read(path, cache) for path in paths]
    out = out or found[0].path / "report.html"
    names, number = comparison.names(found), count(1)
    missing: list[str] = []
    if len(found) == 1:
        missing += found[0].missing
        blocks = list(_sections(found[0], "", number, missing))
    else:
        instead = Section("comparison", "Side by side", ())
        blocks = [_block(partial(comparison.section, found), instead, "", number, missing)]
        for place, (name, evidence) in enumerate(zip(names, found, strict=True), start=1):
            missing += [f"{name}: {words}" for words in evidence.missing]
            sections = list(_sections(evidence, f"run{place}-", number, missing))
            blocks.append(_Block(f"run{place}", "run", name, sections=sections))
    page = _fitting(blocks, " and ".join(names), "; ".join(dict.fromkeys(map(_about, found))), missing)
    publish(page, out, out.absolute().parent, 0o644, "another file with -o")
    return Reported(out, len(page), tuple(dict.fromkeys(missing)))


def _sections(evidence: Evidence, prefix: str, number: Iterator[int], missing: list[str]) -> Iterator[_Block]:
    for name, title, make in _SECTIONS:
        yield _block(partial(make, evidence), Section(name, title, ()), prefix, number, missing)


def _block(make: Callable[[], Section], instead: Section, prefix: str, number: Iterator[int], missing: list[str]) -> _Block:
    """The section as HTML; one that says why there is none where the run does not hold what it is made of."""
    try:
        made = make()
        parts = [html.drawn(part, f"c{next(number)}") for part in made.parts]
    except _FAULTS as error:
        why: list[Part] = [Text(f"{instead.title}: cannot be shown ({type(error).__name__}: {error})", "missing")]
        made = Section(instead.id, instead.title, why)
        parts = [html.drawn(part, "") for part in why]
    missing += [part.text for part in made.parts if isinstance(part, Text) and part.kind == "missing"]
    return _Block(prefix + made.id, made.id, made.title, parts)


def _about(evidence: Evidence) -> str:
    """What images the run is about, in a few words; "" where that is not known."""
    used, source = evidence.data.get("used"), str(evidence.data.get("source", "")).rstrip("/")
    what = "rows" if evidence.data.get("kind") == "features" else "images"
    return f"{used} {what} of {source.rpartition('/')[2]} in {len(evidence.classes)} classes" if used and source else ""


def _fitting(blocks: list[_Block], title: str, about: str, missing: list[str]) -> bytes:
    """The page, at most `LIMIT` bytes: drawings for narrow screens give way first, then the largest of its parts."""
    lists: list[Any] = [section.parts for block in blocks for section in (block, *block.sections) if section.parts]
    places = [(parts, place) for parts in lists for place in range(len(parts))]
    while len(page := html.page(blocks, title, about, missing, __version__)) > LIMIT and places:
        parts, place = max(places, key=lambda each: each[0][each[1]].spare)
        if not parts[place].spare:
            parts, place = max(places, key=lambda each: len(each[0][each[1]].html))
            places.remove((parts, place))  # what is left out is left out once
            words = f"{parts[place].what[:_LONGEST]}: left out, since the page would be larger than {LIMIT / 1e6:.0f} MB"
            missing.append(words)
            parts[place] = html.drawn(Text(words, "missing"), "")
        else:
            parts[place] = Drawn(parts[place].smaller, parts[place].what)
    return page
