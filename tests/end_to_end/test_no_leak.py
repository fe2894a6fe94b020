"""Labels at random: whatever is trained and however it is chosen, what is reported is chance.

Every image has near copies, its views or the members of its group, and there are more columns than images, so that a head
that had seen a copy of what it is scored on would be right almost always.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached_features import view_options
from scipy.stats import binomtest

from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.classify.data.views import ViewReader, ViewRows, Views
from humeris.classify.heads import fit
from humeris.classify.heads.registry import list_head_families
from humeris.classify.heads.training_data import TrainingData
from humeris.classify.runs.run import Run
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.images.images import Images
from humeris.extract.images.load import load_images
from humeris.extract.pixels.augment import Policy

PNG = b"\x89PNG\r\n\x1a\n"
COLUMNS, VIEWS, MEMBERS = 200, 2, 4
COUNTS = {"train": 96, "val": 48, "test": 240}
RARE = 1e-3  # how unlikely an outcome may be by chance: some hundred are looked at
SPEC = ExtractionSpec("made_up", "test", "none", "0" * 64, (8, 8), "none", "1")
AUGMENTED = Views(VIEWS, Policy.parse("flip=0.5"))
# Enough to learn two hundred columns by heart, and little enough to be quick.
QUICK = {
    "mlp": "mlp,hidden=16,epochs=6,learning_rate=0.01,batch_size=16,dropout=0",
    "triplet": "triplet,epochs=3",
    "supcon": "supcon,epochs=3",
}
SEARCHED = {"logreg": "logreg,C=1e-3..1e2", "mlp": "mlp,hidden=4..16,epochs=6,learning_rate=1e-3..3e-2,batch_size=16"}
MODES = ("cv", "val", "groups", "views", "averaged views", "concatenation", "random search", "halving")
ON_VAL = {"val", "random search", "halving"}
NAMES = sorted(family.name for family in list_head_families())


@dataclass(frozen=True)
class Data:
    """Images whose labels are at random, alone and in groups, and the cache with their features."""

    store: Store
    alone: Images
    grouped: Images


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("data")
    store = Store(folder / "cache", write=True)
    random = np.random.default_rng(7)
    listed = {"alone": ["path,label,split"], "grouped": ["path,label,split,group"]}
    places: dict[str, tuple[int, int]] = {}
    for role, count in COUNTS.items():
        labels = random.permutation(np.arange(count) % 2)
        of_groups = random.permutation(np.arange(count // MEMBERS) % 2)
        for number in range(count):
            name = f"{role}{number}.png"
            (folder / name).write_bytes(PNG + name.encode())
            places[name] = (list(COUNTS).index(role), number)
            listed["alone"].append(f"{name},{'ab'[labels[number]]},{role}")
            group = number // MEMBERS
            listed["grouped"].append(f"{name},{'ab'[of_groups[group]]},{role},{role}{group}")
    found = {}
    for name, lines in listed.items():
        (folder / f"{name}.csv").write_text("\n".join(lines))
        found[name] = load_images(folder / f"{name}.csv", store, jobs=1)
    for layer in range(2):
        for kind, images in found.items():
            _fill(store, images, f"{kind}{layer}", layer, [places[image.name] for image in images.used], kind == "grouped")
    return Data(store, found["alone"], found["grouped"])


def _fill(store: Store, images: Images, layer: str, seed: int, places: list[tuple[int, int]], grouped: bool) -> None:
    """Rows that know nothing of labels, those of one group all but the same; so are the views of one image."""
    noise = np.random.default_rng([seed, 1])
    rows = np.empty((len(places), COLUMNS), np.float32)
    for row, (role, number) in enumerate(places):
        identity = number // MEMBERS if grouped else number
        rows[row] = np.random.default_rng([seed, role, identity]).normal(size=COLUMNS)
    rows += 1e-2 * noise.normal(size=rows.shape).astype(np.float32)
    store.get_extraction(SPEC).add(layer, "avg", images.keys, rows)
    for view in range(1, VIEWS + 1):
        near = rows + 1e-2 * noise.normal(size=rows.shape).astype(np.float32)
        numbers = np.full(len(rows), view, np.uint16)
        store.get_extraction(replace(SPEC, views=AUGMENTED.version)).add(layer, "avg", images.keys, near, views=numbers)


def head_options(name: str, mode: str) -> dict[str, Any]:
    """The settings of a `SweepConfig` that try this head."""
    if mode in {"random search", "halving"}:
        search = "halving" if mode == "halving" else "random"
        return {"heads": SEARCHED.get(name, QUICK.get(name, name)), "search": search, "trials": 3}
    return {"heads": QUICK.get(name, name)}


def swept(data: Data, out: Path, name: str, mode: str) -> Run:
    images = data.grouped if mode == "groups" else data.alone
    kind = "grouped" if mode == "groups" else "alone"
    views = {"views": AUGMENTED, "averaged views": replace(AUGMENTED, average=True)}.get(mode)
    heads = head_options(name, mode)
    every = kind + ("0" if SweepConfig(**heads).head_grids[0].family.uses_keras else "*")
    taps = {"cv": every, "concatenation": f"{kind}0+{kind}1"}.get(mode, f"{kind}0")
    select = "val" if mode in ON_VAL else "cv"
    config = SweepConfig(**heads, layers=taps, **view_options(views), select=select, out=out, jobs=1)
    return sweep(images, data.store, config)


def by_chance(right: int, count: int, alternative: str = "two-sided") -> float:
    return float(binomtest(right, count, 0.5, alternative=alternative).pvalue)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_labels_at_random_are_told_by_chance(data: Data, tmp_path: Path, name: str, mode: str) -> None:
    run = swept(data, tmp_path / "run", name, mode)
    together = MEMBERS if mode == "groups" else 1  # images of a group are right or wrong together
    test = run.result.test
    assert test.images == COUNTS["test"]
    assert by_chance(round(test.accuracy * test.images / together), test.images // together) > RARE
    if (plain := run.result.test_plain) is not None:
        assert by_chance(round(plain.accuracy * plain.images), plain.images) > RARE
    scored = COUNTS["val"] if mode in ON_VAL else COUNTS["train"] + COUNTS["val"]
    for trial, score in run.load_trials().items():
        right = int(np.unpackbits(np.frombuffer(bytes.fromhex(score.correct), np.uint8)).sum())
        # Cross-validation of noise errs downwards: what a fold lacks of a class, the others have too much of.
        assert by_chance(right // together, scored // together, "greater") > RARE, (str(trial), score.folds)


@pytest.mark.parametrize(("mode", "average"), [("views", False), ("averaged views", True)])
def test_views_that_straddled_folds_would_be_seen(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, average: bool
) -> None:
    honest = fit.build_training_data

    def leaking(*arguments: Any, **options: Any) -> TrainingData:
        made = honest(*arguments, **options)
        plain = np.arange(len(made.labels))
        folds = [
            (np.setdiff1d(plain, score[:: VIEWS + 1] if average else score), score) for _, score in made.folds
        ]  # only the very rows that are scored are kept out
        return replace(made, folds=tuple(folds))

    monkeypatch.setattr(sys.modules["humeris.classify.sweep.sweep"], "build_training_data", leaking)
    run = swept(data, tmp_path / "run", "logreg", mode)
    assert max(score.accuracy for score in run.load_trials().values()) > 0.9


def test_groups_that_straddled_folds_would_be_seen(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from humeris.classify.data.splits import Splits

    honest: Callable[[Splits, int], Any] = Splits.iter_folds
    monkeypatch.setattr(Splits, "iter_folds", lambda self, seed: honest(replace(self, groups=None), seed))
    run = swept(data, tmp_path / "run", "logreg", "groups")
    assert max(score.accuracy for score in run.load_trials().values()) > 0.9


def test_views_in_the_features_are_all_but_the_same(data: Data) -> None:
    extractions = [data.store.get_extraction(replace(SPEC, views=views)) for views in ("plain", AUGMENTED.version)]
    stored = [each.get_features("alone0", "avg") for each in extractions]
    shown = ViewRows.from_readers([ViewReader(*stored)], data.alone.keys, VIEWS)
    rows = shown.features.to_array().reshape(-1, VIEWS + 1, COLUMNS)
    assert np.abs(rows - rows[:, :1]).max() < 0.1
    assert np.abs(rows[0, 0] - rows[1, 0]).max() > 1
