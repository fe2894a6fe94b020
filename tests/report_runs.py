"""Runs that reports are made of, each made once in a session by the code itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from humeris.cache.store import Store
from humeris.classify.report.run_snapshot import RunSnapshot
from humeris.classify.runs.data_summary import DataSummary
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.images.load import load_images

HOSTILE = [
    "<script>window.hit=1</script>",
    '"><img src=x onerror="window.hit=1">',
    "=cmd()|'/C calc'!A0",
    "right\u202eto\u2066left",
    "w" * 255,
    "line\nfeed\ttab\x1b[31m\x07",
    "not \udcff utf-8",
    "مرحبا",
    "' onmouseover='window.hit=1",
    "</title></style></script><svg onload=window.hit=1>",
    "{{ 7*7 }} {% raw %}",
    "&lt;b&gt; &amp; &#x202e;",
]


def _make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    if not folder.exists():
        make(folder)
    return folder


def make_varied_run(finished: Any, base: Path) -> Path:
    """The images of `finished` at two taps, with settings that vary, neighbours, and a network with learning curves."""

    def make(folder: Path) -> None:
        store = Store(finished.cache)
        heads = ["logreg,C=0.001/0.1/10", "knn,n_neighbors=1/3/5", "mlp,hidden=16,epochs=6"]
        images = load_images(finished.photos, store, jobs=1)
        sweep(images, store, SweepConfig(heads, out=folder, jobs=1), command=f"humeris sweep {finished.photos}")

    return _make_once(base / "varied", make)


def make_wide_run(base: Path) -> Path:
    """Rows of features of 196 classes, some with hostile names, a few of which are taken for each other."""

    def make(folder: Path) -> None:
        random = np.random.default_rng(0)
        names = HOSTILE + [f"class {number}" for number in range(196 - len(HOSTILE))]
        centers = np.repeat(random.normal(size=(28, 24)) * 2, 7, axis=0) + random.normal(size=(196, 24))
        rows = np.repeat(centers, 8, axis=0) + random.normal(size=(1568, 24)) * 1.5
        text = h5py.string_dtype()
        with h5py.File(folder.with_suffix(".h5"), "w") as file:
            file["features"] = rows.astype(np.float32)
            labels = [name.encode("utf-8", "surrogateescape") for name in names for _ in range(8)]
            file.create_dataset("labels", data=labels, dtype=text)
            file.create_dataset("split", data=([b"train"] * 5 + [b"test"] * 3) * 196, dtype=text)
        store = Store(base / "no-cache")
        images = load_images(folder.with_suffix(".h5"), store, features=True, jobs=1)
        sweep(
            images,
            store,
            SweepConfig(["logreg,C=0.01/1", "knn,n_neighbors=3"], out=folder, jobs=1),
            command="humeris sweep",
        )

    return _make_once(base / "wide", make)


def copy_run(run: Path, folder: Path, **changes: Any) -> Path:
    """The run again, with keys of run.json changed, or taken out where the value is None."""
    shutil.copytree(run, folder)
    metadata = json.loads((folder / "run.json").read_bytes()) | changes
    (folder / "run.json").write_text(json.dumps({name: value for name, value in metadata.items() if value is not None}))
    return folder


def change_metadata(snapshot: RunSnapshot, **changes: Any) -> RunSnapshot:
    """The same run, whose run.json has other values."""
    assert snapshot.metadata is not None
    return replace(snapshot, metadata=replace(snapshot.metadata, **changes))


def change_result(snapshot: RunSnapshot, **changes: Any) -> RunSnapshot:
    """The same run, which ended with other values."""
    assert snapshot.result is not None
    return change_metadata(snapshot, result=replace(snapshot.result, **changes))


def change_origin(data: DataSummary, **changes: Any) -> DataSummary:
    """The same data, which lies somewhere else, or is of another kind."""
    return replace(data, origin={**data.origin, **changes})
