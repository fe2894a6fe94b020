"""Everything at once: images -> features -> run -> model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache.store import Store
from ..extract.extraction import Extracted, extract_all
from ..extract.images import Images, Progress
from ..extract.request import Request
from .export import Exported, export
from .family import Family
from .run import Run
from .splits import split
from .sweep import sweep


@dataclass(frozen=True)
class Outcome:
    """What became of the images, what each backbone cost, the run, and the model."""

    images: Images
    extracted: list[Extracted]
    run: Run
    exported: Exported

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "data": self.images.summary(),
            "extracted": [each.to_dict() for each in self.extracted],
            **self.run.summary(),
            "exported": self.exported.to_dict(),
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
    select: str | None = None,
    out: Path | None = None,
    model: Path | None = None,
    seed: int = 0,
    jobs: int | None = None,
    command: str = "",
    progress: Callable[[str], Progress] | None = None,
) -> Outcome:
    """Extract the taps of every backbone, sweep the heads over them, and export the winner.

    `progress` gives the callback of a named stage. The labels are checked before anything is computed. The model is
    written into the run's folder unless `model` says where. Raises what the three stages raise.
    """

    def stage(name: str) -> Progress | None:
        return progress(name) if progress else None

    split(images, select)
    extracted = extract_all(
        images, requests, patterns, store, pools=pools, batch_size=batch_size, jobs=jobs, progress=progress
    )
    images = extracted[-1].images
    finished = sweep(
        images,
        store,
        families,
        only={(result.card.spec.digest, tap) for result in extracted for tap in result.taps},
        select=select,
        out=out,
        seed=seed,
        jobs=jobs,
        command=command,
        progress=stage("heads"),
    )
    exported = export(finished, store, model or finished.path / "model.keras", requests=requests)
    return Outcome(images, extracted, finished, exported)
