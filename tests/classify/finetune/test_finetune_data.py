"""Fine-tuning keeps to the images, the roles and the network of the run that it starts from."""

from __future__ import annotations

import csv
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached_features import view_options
from tuning import TAPS, SweepRun, draw_picture, make_sweep_run, tune

from humeris.cache import leases
from humeris.cache.errors import DataError, HeadError
from humeris.cache.store import Store
from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.finetune import finetune as finetuning
from humeris.classify.finetune import trainable_tail
from humeris.classify.finetune.finetune_config import FinetuneConfig
from humeris.classify.finetune.prepare import prepare
from humeris.classify.heads.head import Head
from humeris.classify.heads.layers import Dense
from humeris.classify.runs.run import Run
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import build
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.backbones.taps import Tap
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SweepRun:
    return make_sweep_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "finish_run", lambda *_, **__: (None, None, ()))


def listed(made: SweepRun, folder: Path, moved: int = 0) -> Path:
    """A list of the run's pictures in splits and groups that their folders do not say; one of them `moved`."""
    if not folder.exists():
        shutil.copytree(made.photos, folder)
    paths = sorted(folder.rglob("*.png"))
    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "group"])
        for number, path in enumerate(paths):
            role = ("train", "train", "val", "test", "train")[number % 5 if not moved or number else 3]
            writer.writerow([path.relative_to(folder), path.parent.name, role, f"group {number // 10}-{role}"])
    return folder / "list.csv"


def roles(run: Run) -> dict[bytes, tuple[str, str, str]]:
    return {record.digest: (record.label, record.split, record.group) for record in run.load_image_records()}


def test_the_splits_and_groups_of_a_list_are_those_of_the_run(made: SweepRun, tmp_path: Path, unexported: None) -> None:
    mine = made.copy(tmp_path / "mine")
    with Store(mine.cache, write=True) as store:
        images = load_images(listed(made, tmp_path / "lists"), store, jobs=1)
        frozen = sweep(images, store, SweepConfig(["logreg,C=1"], layers=["block5_out"], out=tmp_path / "listed", jobs=1))
    assert {role for _, role, _ in roles(frozen).values()} == {"train", "val", "test"}
    mine.path = frozen.path
    tuned = tune(mine, tmp_path / "tuned")
    assert roles(tuned) == roles(frozen)
    assert tuned.result.finetune.held_out == tuned.metadata.splits.val == 12
    listed(made, tmp_path / "lists", moved=1)
    with pytest.raises(DataError, match=r"the splits or groups of .* have changed"):
        tune(mine, tmp_path / "other")


def test_a_complete_run_is_written_again_for_images_that_were_moved(made: SweepRun, tmp_path: Path) -> None:
    mine = made.copy(tmp_path / "mine")
    mine.photos = tmp_path / "here"
    for kind, label in enumerate(("blob", "noise")):
        for seed in range(16):
            draw_picture(mine.photos / ("train" if seed < 10 else "test") / label / f"{seed:02}.png", kind, seed)

    def swept_there(photos: Path) -> None:
        with Store(mine.cache, write=True) as store:
            images = load_images(photos, store, jobs=1)
            from humeris.extract.engine.extract import extract_features

            extract_features(images, store, ExtractConfig([BackboneSpec.parse("nano")], layers=TAPS, jobs=1))
            sweep(images, store, SweepConfig(["logreg,C=1"], layers=["block5_out"], out=tmp_path / "frozen", jobs=1))

    swept_there(mine.photos)
    mine.path = tmp_path / "frozen"
    before = tune(mine, tmp_path / "new").load_probabilities()
    mine.photos.rename(tmp_path / "there")
    swept_there(tmp_path / "there")
    after = tune(mine, tmp_path / "new")
    assert after.metadata.data.root == str(tmp_path / "there")
    assert np.array_equal(after.load_probabilities(), before)
    assert (tmp_path / "new" / "model.keras").exists()


def test_a_layer_that_is_also_used_below_the_cut_stays_as_it_is(tmp_path: Path) -> None:
    keras = load_keras()
    image = keras.Input((32, 32, 3))
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    middle = keras.layers.ReLU(name="middle")(shared(image))
    top = keras.layers.Conv2D(4, 3, name="top")(shared(middle))
    keras.Model(image, keras.layers.ReLU(name="out")(top)).save(tmp_path / "net.keras")
    backbone = build(BackboneSpec.parse(f"{tmp_path / 'net.keras'},preprocessing=tf"), fold_batch_norm=False)
    head = Head((Dense(np.ones((4, 2), np.float32), np.zeros(2, np.float32), "softmax"),), ("a", "b"))
    tail = trainable_tail.Network(backbone, [Tap("out", "avg")], "middle", head, SingleLabel(head.class_names))
    assert set(tail.tail) == {"top"}
    tail.compile(FinetuneConfig("block4_out").resolve(), head_only=False)
    before = shared_weights = backbone.graph.operations["shared"].get_weights()
    maps = np.random.default_rng(0).random((8, 32, 32, 3), np.float32)
    tail.model.train_on_batch(maps, np.eye(2, dtype=np.float32)[[0, 1] * 4])
    assert all(map(np.array_equal, before, backbone.graph.operations["shared"].get_weights()))
    assert len(shared_weights) == 2


def test_a_training_that_diverged_is_told_and_not_gone_on_with(made: SweepRun, tmp_path: Path, unexported: None) -> None:
    stages: list[Any] = []
    with pytest.raises(HeadError, match="lower --learning-rate"):
        tune(made, tmp_path / "new", optimizer="sgd", learning_rate=1e30, on_epoch=lambda epoch: stages.append(epoch.stage))
    assert "refit" not in stages


@pytest.mark.parametrize("head", ["triplet,epochs=1,embedding=4", "knn,n_neighbors=3"])
def test_a_vote_of_neighbours_is_refused_before_anything_is_cached(made: SweepRun, tmp_path: Path, head: str) -> None:
    mine = made.copy(tmp_path / "mine")
    with Store(mine.cache, write=True) as store:
        images = load_images(made.photos, store, jobs=1)
        run = sweep(images, store, SweepConfig([head, "ridge,alpha=1"], layers=["block5_out"], out=tmp_path / "run", jobs=1))
        near = next(trial for trial in run.load_trials() if trial.head == head.split(",")[0])
        with pytest.raises(HeadError, match="gradient descent; give another, such as --trial") as refusal:
            prepare(run, store, FinetuneConfig("block4_out", trial=near.id, jobs=1))
        other = next(trial for trial in run.load_trials() if trial.head == "ridge")
        assert f"--trial {other.id}" in str(refusal.value)


def test_the_claim_of_a_long_training_is_renewed(
    made: SweepRun, tmp_path: Path, unexported: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_RENEWAL_SECONDS", -1.0)
    ages: list[float] = []

    def on_epoch(_: Any) -> None:
        (claim,) = (path for path in (tmp_path / "new" / ".drafts").iterdir() if "sweep" in path.name)
        ages.append(time.time() - claim.stat().st_mtime)
        os.utime(claim, (0, 0))

    tune(made, tmp_path / "new", epochs=2, on_epoch=on_epoch)
    assert len(ages) > 3
    assert max(ages[1:]) < 1000


def test_answers_averaged_over_views_are_not_compared_with_plain_ones(
    made: SweepRun, tmp_path: Path, unexported: None
) -> None:
    from humeris.classify.data.views import Views
    from humeris.extract.engine.extract import extract_features
    from humeris.extract.pixels.augment import Policy

    mine, policy = made.copy(tmp_path / "mine"), Policy.parse("flip")
    with Store(mine.cache, write=True) as store:
        images = load_images(made.photos, store, jobs=1)
        extract_features(
            images,
            store,
            ExtractConfig([BackboneSpec.parse("nano")], layers=["block5_out"], views=1, augment=policy, jobs=1),
        )
        frozen = sweep(
            images,
            store,
            SweepConfig(
                ["logreg,C=1"], layers=["block5_out"], **view_options(Views(1, policy, True)), out=tmp_path / "run", jobs=1
            ),
        )
    mine.path = frozen.path
    tuned = tune(mine, tmp_path / "new")
    assert tuned.metadata.views.average is False
    assert tuned.result.runner_up is None
    assert tuned.result.finetune is not None
    baseline = tuned.result.finetune.frozen
    assert baseline is not None
    assert baseline.comparison is None
    assert frozen.result.test_plain is not None
    assert baseline.test.accuracy == frozen.result.test_plain.accuracy
