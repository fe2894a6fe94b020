"""The main job on images that are already here: scikit-learn's handwritten digits, on nano."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.atomic_files import make_folder, write_errors
from ..cache.store import Store
from ..extract.backbones.backbone_spec import Request
from ..extract.images.load import Progress, load_images
from .heads import registry
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
    """`folder`, filled with the 1,797 digits as 8 x 8 grey PNG files in a folder per class, unless it is there."""
    if folder.exists():
        return folder
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    make_folder(folder.parent.absolute(), "another folder with -o")
    with write_errors(folder, "another folder with -o"), tempfile.TemporaryDirectory(dir=folder.parent) as draft:
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            path = Path(draft, "digits", str(label), f"{number:04}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8)).save(path)
        Path(draft, "digits").rename(folder)  # whole, or not there
    return folder


def demo(folder: Path, *, jobs: int | None = None, progress: Callable[[str], Progress] | None = None) -> Demo:
    """Write the digits, then extract, sweep and export, once on nano and once on the same network with random weights."""
    data = write_digits(folder / "digits")
    with Store(folder / "cache", write=True) as store:
        images = load_images(data, store, jobs=jobs)
        outcomes = {}
        for weights in ("drawings", "random"):
            out = folder / f"run-{weights}"
            words = ["-b", "nano", "--weights", weights, "-l", "block*_out", "--cache", folder / "cache", "-o", out]
            outcomes[weights] = run(
                images,
                [Request.parse("nano", weights=weights)],
                ["block*_out"],
                [registry.parse("logreg")],
                store,
                out=out,
                jobs=jobs,
                command=shlex.join(map(str, ["humeris", "run", data, *words])),
                progress=progress,
            )
    return Demo(outcomes["drawings"], outcomes["random"], str(folder / "cache"))
