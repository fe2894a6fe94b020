"""One model out: stack, save, load again elsewhere, compare, and only then give it its name."""

from __future__ import annotations

import json
import os
import secrets
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..cache.errors import DataError, ModelError
from ..cache.files import make_folder, write_errors
from ..cache.shard import as_keys
from ..cache.spec import Spec
from ..cache.store import Store
from ..extract import pixels, source
from ..extract.backbone import Backbone, build
from ..extract.detect import reader
from ..extract.feature_file import FeatureFile
from ..extract.request import Request
from ..extract.source import cores
from ..extract.taps import Tap
from . import parity, sources
from .candidates import Shelf
from .head import Head
from .run import Record, Run
from .stack import stack
from .training import problem, train
from .trial import Score, Trial
from .views import Views

MEMBER = "humeris.json"
CHECKED = 64


@dataclass(frozen=True)
class Exported:
    """An exported model: where it is, and how it was checked."""

    path: Path
    trial: Trial
    parity: parity.Parity
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "model": str(self.path),
            "trial": self.trial.id,
            "parity": self.parity.to_dict(),
            "bytes": self.bytes,
        }


def export(
    run: Run,
    store: Store,
    out: Path | str,
    *,
    trial: str | None = None,
    requests: Sequence[Request] = (),
) -> Exported:
    """Write the head of a trial (the best one by default) stacked on its backbone, as a `.keras` file at `out`.

    The file is loaded in a fresh process and must answer as the cached features do on up to 64 of the run's test
    images; otherwise `ParityError` is raised and no file is left. Class names and the image size are kept in the
    archive's `humeris.json`. `requests` say where backbones are now; without them they are where they were.
    """
    out = Path(out)
    if out.suffix != ".keras":
        raise ModelError(f"{out}: expected a name that ends in .keras")
    chosen, score = run.trial(trial)
    records = run.images()
    spec = run.spec(chosen.sources[0])
    if not spec.architecture:
        raise ModelError(
            f"{run.path}: expected to know the network that made the features, found a file that does not say: there is "
            "no backbone to stack the head on; extract with humeris, or use the head's arrays in heads/"
        )
    if len({item.extraction for item in chosen.sources}) > 1:
        raise ModelError(
            f"{run.path}: expected a head on the taps of one backbone, found {chosen}; a model has one network inside: "
            "export another trial of leaderboard.csv with --trial"
        )
    data = run.description["data"]
    shelf = FeatureFile(data["root"]) if data["kind"] == "features" else store
    head = run.head(chosen) or _train(run, shelf, chosen, score, records)
    backbone = _build(spec, requests)
    model = stack(backbone, [Tap(item.layer, item.pool) for item in chosen.sources], head)
    make_folder(out.absolute().parent, "another place with -o")
    draft = out.with_name(f".{out.stem}-{secrets.token_hex(4)}.keras")
    try:
        with write_errors(out, "another place with -o"):
            model.save(draft)
            _describe(draft, run, chosen, spec, head)
        checked = _check(draft, run, shelf, chosen, records, head, spec.image_size)
        os.replace(draft, out)
    finally:
        draft.unlink(missing_ok=True)
    return Exported(out, chosen, checked, out.stat().st_size)


def _train(run: Run, store: Shelf, trial: Trial, score: Score, records: Sequence[Record]) -> Head:
    """The head of a trial that was not the winner, trained as the winner was: on everything but the test split."""
    learnt = sorted((record for record in records if record.split != "test"), key=lambda record: record.digest)
    classes = run.description["splits"]["classes"]
    keys = as_keys([record.digest for record in learnt])
    labels = np.array([classes.index(record.label) for record in learnt])
    views = Views.from_dict(run.description["views"])
    rows = problem(sources.stored(store, trial.sources, views), keys, labels, len(classes), views=views, threads=cores())
    head = train(trial, score, rows, classes, run.description["seed"])
    run.save_head(trial, head)
    return head


def _build(spec: Spec, requests: Sequence[Request]) -> Backbone:
    """The very network that the features were made with; raises `ModelError` when it is another one by now."""
    named = [
        request
        for request in requests
        if (request.file is None) == (not spec.file) and (request.file is not None or request.name == spec.backbone)
    ]
    for request in named or [Request.of(spec)]:
        built = build(replace(request, precision=spec.precision, image_size=request.image_size or spec.image_size))
        if built.spec.digest == spec.digest:
            return built
    now, then = built.spec.to_dict(), spec.to_dict()
    decisive = ["weights_sha256", *(name for name in then if name not in {"backbone", "arguments", "weights", "file"})]
    changed = next(name for name in decisive if now[name] != then[name])
    raise ModelError(
        f"backbone {spec.title}: expected {changed} {then[changed]}, as the features were made with, found {now[changed]}; "
        "put the old one back (or name it with -b), or extract, sweep and export anew"
    )


def _check(
    draft: Path,
    run: Run,
    store: Shelf,
    trial: Trial,
    records: Sequence[Record],
    head: Head,
    size: tuple[int, int],
) -> parity.Parity:
    """Compare the file at `draft` with the cached answers on test images, evenly chosen.

    Rows of whole maps are cached in float16, which alone moves a probability by some 1e-4.
    """
    test = [record for record in records if record.split == "test"]
    chosen = [test[row] for row in np.unique(np.linspace(0, len(test) - 1, CHECKED).astype(int))]
    features = sources.load(store, trial.sources, as_keys([record.digest for record in chosen]))
    data = run.description["data"]
    read, root = reader(data), Path((data.get("images") or data)["root"])
    shown = np.stack([_pixels(read, record, root, size) for record in chosen])
    bound = parity.BOUND_HALF if any(item.pool == "map" for item in trial.sources) else parity.BOUND
    ties = head.ties(features, bound * parity.ROUNDING, bound)
    return parity.compare(head.predict_proba(features), parity.keras_answers(draft, shown), bound, ties)


def _pixels(read: Callable[[str], bytes], record: Record, root: Path, size: tuple[int, int]) -> np.ndarray:
    try:
        data = read(record.name)
        if source.digest(data) != record.digest:
            raise pixels.Refused("changed", "the file is not the one the run was made from")
        return pixels.decode(data, size)
    except pixels.Refused as refused:
        raise DataError(
            f"{root / record.name}: expected the image that the export is checked on, found: {refused}; put it back, or, if "
            "the images were moved, run `humeris sweep` where they are now (it trains nothing again)"
        ) from refused


def _describe(path: Path, run: Run, trial: Trial, spec: Spec, head: Head) -> None:
    """Add `humeris.json` to the archive; Keras passes over members that it does not know.

    The test scores there are of plain views, which is what the model sees.
    """
    tested = run.description.get("test_plain") or run.description["test"]
    description = {
        "format": 1,
        "humeris": __version__,
        "classes": list(head.classes),
        "image_size": list(spec.image_size),
        "pixels": spec.pixels,
        "spec": spec.to_dict(),
        "trial": trial.to_dict(),
        "test": {name: tested[name] for name in ("images", "accuracy", "accuracy_95")}
        if trial.id == run.description["best"]["id"]
        else None,
    }
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, json.dumps(description, indent=2))
