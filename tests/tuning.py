"""A small run to fine-tune, whose images are partly in the wrong folder, so that no head is right about all of them."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from humeris.cache.store import Store
from humeris.classify.finetune.finetune_config import FinetuneConfig
from humeris.classify.finetune.prepare import FinetuneSetup, prepare
from humeris.classify.runs.run import Run
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.engine.extract import extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images

HEADS = ["logreg,C=1", "mlp,hidden=8,epochs=3,patience=0"]
TAPS = ["block4_out", "block5_out"]
CLASSES = ("blob", "noise", "stripes")


def draw_picture(path: Path, kind: int, seed: int) -> None:
    """48 x 40 pixels of a blob, of noise, or of stripes."""
    random = np.random.default_rng([kind, seed])
    y, x = np.mgrid[0:40, 0:48]
    if kind == 0:
        center = random.uniform(0.3, 0.7, 2) * (48, 40)
        gray = 230 * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / random.uniform(60, 160))
    elif kind == 1:
        gray = random.uniform(0, 255, (40, 48))
    else:
        gray = 127 + 100 * np.sin(x / random.uniform(1.5, 2.5) + random.uniform(0, 6))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(gray[..., None] * random.uniform(0.6, 1, 3), 0, 255).astype(np.uint8)).save(path)


class SweepRun:
    """A finished run at `path`, made of the images at `photos` with the cache at `cache`. Copy what you change."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.photos, self.cache, self.path = folder, folder / "photos", folder / "cache", folder / "run"

    @property
    def run(self) -> Run:
        return Run.load(self.path)

    def find_trial(self, head: str) -> str:
        """The id of the best trial of a head."""
        from humeris.classify.evaluate.trial import rank_trials

        return next(trial.id for trial in rank_trials(self.run.load_trials()) if trial.head == head)

    def prepare(self, store: Store, config: FinetuneConfig) -> FinetuneSetup:
        return prepare(self.run, store, replace(config, jobs=1))

    def copy(self, folder: Path) -> SweepRun:
        """The same with a cache and a run of its own; the images stay where they are."""
        for name in ("cache", "run"):
            shutil.copytree(self.folder / name, folder / name)
        other = SweepRun(folder)
        other.photos = self.photos
        return other


@functools.cache
def make_sweep_run(base: Path) -> SweepRun:
    """The run below `base`, made once."""
    sweep_run = SweepRun(base / "swept")
    for kind, label in enumerate(CLASSES):
        for seed in range(20):
            split, is_mislabeled = ("train", seed % 5 == 0) if seed < 14 else ("test", False)
            draw_picture(
                sweep_run.photos / split / (CLASSES[kind - 1] if is_mislabeled else label) / f"{kind}{seed:02}.png",
                kind,
                seed,
            )
    with Store(sweep_run.cache, write=True) as store:
        images = load_images(sweep_run.photos, store, jobs=1)
        extract_features(images, store, ExtractConfig([BackboneSpec.parse("nano")], layers=TAPS, jobs=1))
        sweep(
            images,
            store,
            SweepConfig(HEADS, layers=TAPS, out=sweep_run.path, jobs=1),
            command=f"humeris sweep {sweep_run.photos}",
        )
    return sweep_run


def read_files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def interrupt_after(epochs: list[tuple[str, int]], after: int) -> Callable[[Any], None]:
    """A callback of epochs: it notes each in `epochs`, and interrupts after so many."""

    def on_epoch(epoch: Any) -> None:
        if epoch.number:
            epochs.append((epoch.stage, epoch.number))
            nonlocal after
            after -= 1
            if not after:
                raise KeyboardInterrupt

    return on_epoch


def tune(sweep_run: SweepRun, out: Path, from_layer: str = "block4_out", **options: Any) -> Run:
    """The run that a fine-tuning leaves, with the fields of `FinetuneConfig` and the options of `finetune`."""
    run: Run = run_finetune(sweep_run, out, from_layer, **options).run
    return run


def run_finetune(sweep_run: SweepRun, out: Path, from_layer: str = "block4_out", **options: Any) -> Any:
    """All that it leaves; an epoch of everything at a constant rate, unless said otherwise."""
    from humeris.classify.finetune.finetune import finetune

    finetune_options = {name: options.pop(name) for name in ("on_epoch", "command") if name in options}
    defaults = {"epochs": 1, "head_epochs": 0, "batch_size": 8, "learning_rate": 1e-3, "schedule": "constant"}
    config = FinetuneConfig(from_layer, out=out, **{**defaults, **options})
    with Store(sweep_run.cache, write=True) as store:
        return finetune(sweep_run.prepare(store, config), store, **finetune_options)
