"""The whole pipeline on images that need no download: scikit-learn's handwritten digits, with the backbone nano."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.atomic_files import make_folder, translate_write_errors
from ..cache.store import Store
from ..extract.engine.extract_config import ExtractConfig
from ..extract.images.load import Progress, load_images
from .pipeline import PipelineResult, run
from .sweep.sweep_config import SweepConfig


@dataclass(frozen=True)
class DemoResult:
    """Results with nano's own weights and with random ones."""

    trained: PipelineResult
    random: PipelineResult
    cache: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        cache = {"cache": self.cache}
        return {"trained": {**self.trained.to_dict(), **cache}, "random": {**self.random.to_dict(), **cache}}


def write_digits(folder: Path) -> Path:
    """Write the 1,797 digits as 8×8 grayscale PNG files to `folder`, one folder per class; nothing is done if it exists."""
    if folder.exists():
        return folder
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    make_folder(folder.parent.absolute(), "another folder with -o")
    with (
        translate_write_errors(folder, "another folder with -o"),
        tempfile.TemporaryDirectory(dir=folder.parent) as temp_folder,
    ):
        for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            path = Path(temp_folder, "digits", str(label), f"{index:04}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8)).save(path)
        Path(temp_folder, "digits").rename(folder)  # appears complete or not at all
    return folder


def run_demo(folder: Path, *, jobs: int | None = None, progress: Callable[[str], Progress] | None = None) -> DemoResult:
    """Write the digits, then extract, sweep and export: once with nano's weights and once with random weights."""
    data = write_digits(folder / "digits")
    with Store(folder / "cache", write=True) as store:
        images = load_images(data, store, jobs=jobs)
        outcomes = {}
        for weights in ("synthetic", "random"):
            out = folder / f"run-{weights}"
            arguments = ["-b", "nano", "--weights", weights, "-l", "block*_out", "--cache", folder / "cache", "-o", out]
            outcomes[weights] = run(
                images,
                store,
                ExtractConfig("nano", weights=weights, layers="block*_out", jobs=jobs),
                SweepConfig("logreg", layers="block*_out", out=out, jobs=jobs),
                command=shlex.join(map(str, ["humeris", "run", data, *arguments])),
                progress=progress,
            )
    return DemoResult(outcomes["synthetic"], outcomes["random"], str(folder / "cache"))
