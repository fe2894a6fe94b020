"""Files that pass for photographs, and features of them drawn at random into a cache: no network runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.classify.data.views import Views
from humeris.extract.images.images import Images

PNG = b"\x89PNG\r\n\x1a\n"  # a sweep opens no image: the first bytes say PNG, the rest says which one


def write_photos(root: Path, counts: dict[str, int], classes: Sequence[str] = ("cat", "dog")) -> Path:
    """`root` filled with files for each split and class: counts={"train": 20, "test": 10}, or {"": 30} without splits."""
    for split, count in counts.items():
        for label in classes:
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number:03}.png").write_bytes(PNG + f"{split} {label} {number}".encode())
    return root


def numbers(images: Images) -> np.ndarray:
    classes = images.dataset.classes
    return np.array([classes.index(label) for label in images.labels])


def some_spec(backbone: str = "made_up", seed: int = 0) -> ExtractionSpec:
    return ExtractionSpec(backbone, "test", "none", f"{seed:064}", (8, 8), "none", "1")


def fill(store: Store, images: Images, layers: dict[str, float], columns: int = 6, backbone: str = "made_up") -> None:
    """Cache a tap per layer whose features tell the classes apart as far as the number says (0: not at all)."""
    random = np.random.default_rng(len(backbone))
    for layer, strength in layers.items():
        means = np.eye(columns)[numbers(images)] * strength
        rows = (random.normal(size=(len(images.used), columns)) + means).astype(np.float32)
        store.get_extraction(some_spec(backbone)).add(layer, "avg", images.keys, rows)


def view_options(views: Views | None) -> dict[str, Any]:
    """The settings of a `SweepConfig` that ask for these views."""
    return {} if views is None else {"views": views.count, "augment": views.policy, "average_views": views.average}
