"""Everything at once: images -> features -> run -> model and report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache.errors import DataError, LayerError, ModelError
from ..cache.store import Store
from ..extract.backbones.backbone_spec import Request
from ..extract.backbones.taps import Tap
from ..extract.engine.extract import Extracted, extract_all
from ..extract.engine.multi_device import Order, extract_apart
from ..extract.images.load import Images, Progress
from ..extract.pixels.augment import Policy
from .data.select_features import sides_of
from .data.splits import split
from .data.views import Views
from .export.export import export
from .export.export_result import Exported
from .heads.registry import Family
from .report.page import Reported, report
from .runs.run import Run
from .sweep.sweep import sweep

Stages = Callable[[str], Progress]


@dataclass(frozen=True)
class Outcome:
    """What became of the images, what each backbone cost, the run, the model, and the page about it."""

    images: Images
    extracted: list[Extracted]
    run: Run
    exported: Exported
    reported: Reported

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "data": self.images.summary(),
            "extracted": [each.to_dict() for each in self.extracted],
            **self.run.summary(),
            "exported": self.exported.to_dict(),
            "reported": self.reported.to_dict(),
        }


def run(
    images: Images,
    requests: Sequence[Request],
    patterns: Sequence[str],
    families: Sequence[Family],
    store: Store,
    *,
    pools: Sequence[str] = (),
    batch_size: int = 32,
    concatenate: bool = False,
    views: Views | None = None,
    select: str | None = None,
    out: Path | None = None,
    model: Path | None = None,
    seed: int = 0,
    jobs: int | None = None,
    command: str = "",
    progress: Stages | None = None,
) -> Outcome:
    """Extract the taps of every backbone, sweep the heads over them, export the winner, and write the report.

    `progress` gives the callback of a named stage. The labels are checked before anything is computed. The model is
    written into the run's folder unless `model` says where. Raises what the three stages raise.
    """
    split(images, select)
    _check_one_size(requests, patterns, families, concatenate)
    extracted = extract_taps(
        images, requests, patterns, store, pools=pools, batch_size=batch_size, views=views, jobs=jobs, progress=progress
    )
    images = extracted[-1].images
    finished = sweep(
        images,
        store,
        families,
        patterns=patterns,
        only=taps_of(extracted),
        concatenate=concatenate,
        views=views,
        select=select,
        out=out,
        seed=seed,
        jobs=jobs,
        command=command,
        progress=progress("heads") if progress else None,
    )
    exported = export(finished, store, model or finished.path / "model.keras", requests=requests, command=command)
    return Outcome(images, extracted, finished, exported, report([finished.path], cache=store.path))


def extract_taps(
    images: Images,
    requests: Sequence[Request],
    patterns: Sequence[str],
    store: Store,
    *,
    pools: Sequence[str] = (),
    batch_size: int = 32,
    views: Views | None = None,
    jobs: int | None = None,
    progress: Stages | None = None,
) -> list[Extracted]:
    """Fill the cache with every tap that a sweep's `patterns` name, in the order of `orders`; raises as `extract_all`."""
    if images.given is not None:
        raise DataError(f"{images.given.path}: expected images to extract features of, found a file of features")
    views = views or Views()
    done: list[Extracted] = []
    for together, taps in orders(requests, patterns):
        done += extract_all(
            images,
            together,
            taps,
            store,
            pools=pools,
            views=views.count,
            policy=views.parsed,
            batch_size=batch_size,
            jobs=jobs,
            progress=progress,
        )
        images = done[-1].images
    for each in done:
        each.images = images
    return done


def extract_taps_apart(
    devices: Sequence[str],
    data: Path,
    limit: int | None,
    requests: Sequence[Request],
    patterns: Sequence[str],
    cache: Path,
    *,
    pools: Sequence[str] = (),
    batch_size: int = 32,
    views: Views | None = None,
    jobs: int | None = None,
    progress: Stages,
) -> list[list[Extracted]]:
    """What a worker on each of `devices` did of `extract_taps`, in its order; [] without devices. Raises as `extract_on`."""
    if not devices:
        return []
    options: dict[str, Any] = {"pools": pools, "batch_size": batch_size}
    if views is not None:
        options |= {"views": views.count, "policy": Policy.parse(views.policy)}
    asked = [Order(data, limit, together, taps, cache, options) for together, taps in orders(requests, patterns)]
    return extract_apart(devices, asked, jobs, progress)


def orders(requests: Sequence[Request], patterns: Sequence[str]) -> list[tuple[list[Request], list[str]]]:
    """The backbones with the taps to extract of each, those of the same taps together.

    A pattern is as a sweep takes it: `LAYER[:POOL]`, or `A+B`, with `BACKBONE/` before what is of one backbone only. Raises
    `LayerError` where nothing is asked of a backbone.
    """
    sides = [side for pattern in patterns for side in sides_of(pattern)]
    found: dict[tuple[str, ...], list[Request]] = {}
    for request in requests:
        mine = []
        for side in sides:
            whose = _whose(side, requests)
            if not whose or request in whose:
                mine.append(side.removeprefix(f"{_title(request)}/") if whose else side)
        if sides and not mine:
            raise LayerError(f"-b {request.title}: expected a layer of it with -l, found none among {', '.join(patterns)}")
        found.setdefault(tuple(dict.fromkeys(mine)), []).append(request)
    return [(together, list(taps)) for taps, together in found.items()]


def _title(request: Request) -> str:
    """What a sweep calls the backbone: a file by its stem."""
    return request.name if request.file is not None else request.title


def _whose(side: str, requests: Sequence[Request]) -> list[Request]:
    """The backbones that a side names, [] where it names none and is of all."""
    return [request for request in requests if side.startswith(f"{_title(request)}/")]


def _check_one_size(
    requests: Sequence[Request], patterns: Sequence[str], families: Sequence[Family], concatenate: bool
) -> None:
    """Raise `ModelError` where heads over networks of several image sizes are asked for, before anything is computed.

    The size of a file's input is found out later; the export then says the same.
    """
    sizes = {each.image_size or (each.application and (each.application.size,) * 2) for each in requests} - {None}
    if len(sizes) < 2:
        return
    asked = ["--concatenate"] if concatenate else []
    asked += [f"--head {family.name}" for family in families if family.over_all_taps]
    for pattern in patterns:
        named = {request.title for side in sides_of(pattern) for request in _whose(side, requests)}
        asked += [f"-l {pattern}"] if len(named) > 1 else []
    if asked:
        raise ModelError(
            f"{asked[0]} with backbones of several image sizes: expected one, since the model that `run` ends with has one "
            "input; give --image-size, or use `humeris sweep --extract`"
        )


def taps_of(extracted: Sequence[Extracted]) -> set[tuple[str, Tap]]:
    """(spec digest, tap) of everything extracted."""
    return {(result.card.spec.digest, tap) for result in extracted for tap in result.taps}
