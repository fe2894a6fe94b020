"""The main job on images that are already here: scikit-learn's handwritten digits, on nano."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.files import make_folder
from ..cache.store import Store
from ..extract.images import Progress, load_images
from ..extract.request import Request
from . import heads
from .pipeline import Outcome, run


@dataclass(frozen=True)
class Demo:
    """The same job with nano's weights and with random ones."""

    trained: Outcome
    random: Outcome
    cache: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        cache = {"cache": self.cache}
        return {"trained": {**self.trained.to_dict(), **cache}, "random": {**self.random.to_dict(), **cache}}


def write_digits(folder: Path) -> Path:
    """`folder`, filled with the 1,797 digits as 8 x 8 grey PNG files in a folder per class."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{number:04}.png"
        if not path.exists():
            make_folder(path.parent.absolute())
            Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8)).save(path)
    return folder


def demo(folder: Path, *, jobs: int | None = None, progress: Callable[[str], Progress] | None = None) -> Demo:
    """Write the digits, then extract, sweep and export, once on nano and once on the same network with random weights."""
    data = write_digits(folder / "digits")
    with Store(folder / "cache", write=True) as store:
        images = load_images(data, store, jobs=jobs)
        outcomes = {}
        for weights in ("drawings", "random"):
            outcomes[weights] = run(
                images,
                [Request.parse("nano", weights=weights)],
                ["block*_out"],
                [heads.parse("logreg")],
                store,
                out=folder / f"run-{weights}",
                jobs=jobs,
                command=f"humeris run {data} -b nano --weights {weights} -l 'block*_out' --cache {folder / 'cache'} "
                f"-o {folder / f'run-{weights}'}",
                progress=progress,
            )
    return Demo(outcomes["drawings"], outcomes["random"], str(folder / "cache"))
