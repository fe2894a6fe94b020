"""Fine-tuning from end to end: plain Keras is the oracle of training, the run's own files of what comes of it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from tuning import CLASSES, TAPS, SweepRun, make_sweep_run, read_files, run_finetune, tune

from humeris.cache.errors import HeadError
from humeris.cache.store import Store
from humeris.classify.data import select_features
from humeris.classify.data.splits import split
from humeris.classify.export.rebuild_backbone import rebuild_backbone
from humeris.classify.export.stack_model import stack_model
from humeris.classify.finetune import finetune as finetuning
from humeris.classify.finetune import trainable_tail
from humeris.classify.finetune.batch_options import BatchOptions
from humeris.classify.finetune.map_batches import MapBatches
from humeris.classify.finetune.train_loop import Epoch
from humeris.classify.heads.fit import build_training_data, train
from humeris.classify.heads.head import Head
from humeris.classify.heads.layers import Dense
from humeris.classify.runs.finetuned_weights import FinetunedWeights
from humeris.classify.runs.run import Run
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.commands.render import finetune
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.backbones.nano_network import WEIGHTS, build_nano
from humeris.extract.backbones.taps import Tap
from humeris.extract.images.images import Images
from humeris.extract.images.load import load_images
from humeris.extract.pixels import decode

Humeris = Callable[..., Any]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> SweepRun:
    return make_sweep_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained is neither exported nor reported, which takes longer than to train it."""
    monkeypatch.setattr(finetuning, "finish_run", lambda *_, **__: (None, None, ()))


@dataclass
class Made:
    """A fine-tuning that was exported and reported: what it left, what was told meanwhile, and what RUN held before."""

    path: Path
    before: dict[str, bytes]
    told: list[Epoch] = field(default_factory=list)
    done: Any = None

    @property
    def run(self) -> Run:
        return Run.load(self.path)


OPTIONS: dict[str, Any] = {"epochs": 3, "head_epochs": 1, "batch_size": 8, "learning_rate": 1e-3}


@pytest.fixture(scope="session")
def tuned(made: SweepRun, tmp_path_factory: pytest.TempPathFactory) -> Made:
    found = Made(tmp_path_factory.mktemp("tuned") / "new", read_files(made.path))
    found.done = run_finetune(made, found.path, on_epoch=found.told.append, command="humeris finetune", **OPTIONS)
    return found


def learnt(made: SweepRun) -> tuple[Images, Any]:
    """The images in the order of their digests, and their splits."""
    images = load_images(made.photos, Store(made.cache), jobs=1).sort_by_digest()
    return images, split(images, "cv")


def pixels_of(images: Images, rows: np.ndarray) -> np.ndarray:
    return np.stack([decode.decode(Path(images.used[row].item.location).read_bytes(), (64, 64)) for row in rows])


def frozen(
    made: SweepRun, images: Images, splits: Any, rows: np.ndarray, trial: str | None = None
) -> tuple[Head, np.ndarray]:
    """The head of a trial trained on some images, and the features of all of them."""
    chosen, score = made.run.find_trial(trial)
    stored = select_features.open_readers(Store(made.cache), chosen.tap_refs)
    of_rows = build_training_data(stored, images.keys[rows], splits.labels[rows], splits.target)
    return train(chosen, score, of_rows, 0), stored[0].read(images.keys)


def order_of(keys: np.ndarray, size: int) -> np.ndarray:
    """In which order an epoch's batches take images: asked of the batches themselves, with maps that are numbers."""
    places = {key.tobytes(): place for place, key in enumerate(keys)}

    class Numbers:
        def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
            assert view == 0
            assert columns is None
            return np.array([places[key.tobytes()] for key in keys], np.float32)[:, None, None, None]

    given = MapBatches(
        Numbers(), keys, np.eye(3, dtype=np.float32)[np.zeros(len(keys), int)], BatchOptions(size, training=True)
    )
    return np.concatenate([given[number][0].ravel() for number in range(len(given))]).astype(int)


@pytest.mark.parametrize("refit", [False, True])
def test_an_epoch_on_cached_maps_is_one_of_plain_keras_through_the_whole_network(
    made: SweepRun, tmp_path: Path, unexported: None, refit: bool
) -> None:
    """In the same order of images, with all below the cut frozen: on the images to learn from, and then on all but test."""
    run = tune(made, tmp_path / "new", optimizer="sgd", learning_rate=0.01, schedule="constant", refit=refit)
    trial, _ = run.find_trial()
    ours = FinetunedWeights.load(run, trial)

    keras = load_keras()
    images, splits = learnt(made)
    rows = splits.development if refit else next(splits.iter_folds(0))[0]
    head, features = frozen(made, images, splits, rows)
    start = head.layers[0]
    assert isinstance(start, Dense)
    scaler = StandardScaler().fit(features[rows])
    body = build_nano()
    body.load_weights(WEIGHTS)
    for layer in body.layers:
        layer.trainable = layer.name.startswith("block5") and "_bn" not in layer.name
    first = {layer.name: layer.get_weights() for layer in body.layers if layer.name.startswith("block5") and layer.weights}
    image = keras.Input((64, 64, 3))
    values = keras.layers.GlobalAveragePooling2D()(body(image / 127.5 - 1.0))
    values = keras.layers.Normalization(mean=scaler.mean_, variance=scaler.var_)(values)
    dense = keras.layers.Dense(3)
    model = keras.Model(image, dense(values))
    dense.set_weights([start.weights * scaler.scale_[:, None], start.bias + scaler.mean_ @ start.weights])
    model.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    order = rows[order_of(images.keys[rows], 8)]
    assert sorted(order) == sorted(rows)
    model.fit(
        pixels_of(images, order).astype(np.float32),
        np.eye(3, dtype=np.float32)[splits.labels[order]],
        batch_size=8,
        shuffle=False,
        verbose=0,
    )

    assert ours.weights.keys() == first.keys()
    for name, before in first.items():
        for mine, its, was in zip(ours.weights[name], body.get_layer(name).get_weights(), before, strict=True):
            if "_bn" in name:
                assert np.array_equal(mine, was)
            else:
                moved = np.linalg.norm(its - was)
                assert moved > 1e-3 * np.linalg.norm(was), name
                assert np.linalg.norm(mine - its) < 0.01 * moved, name
    last = ours.head.layers[0]
    assert isinstance(last, Dense)
    kernel = last.weights * scaler.scale_[:, None]
    moved = dense.get_weights()[0] - start.weights * scaler.scale_[:, None]
    assert np.linalg.norm(kernel - dense.get_weights()[0]) < 0.01 * np.linalg.norm(moved)


def test_before_anything_is_trained_the_network_answers_as_the_frozen_head_on_its_first_fold(
    made: SweepRun, tuned: Made
) -> None:
    images, splits = learnt(made)
    fit, held = next(splits.iter_folds(0))
    head, features = frozen(made, images, splits, fit)
    before, *after = tuned.told
    assert (before.number, before.part, before.seconds) == (0, "", 0.0)
    assert before.metrics["val_accuracy"] == made.run.find_trial()[1].folds[0] < 1
    expected = log_loss(splits.labels[held], head.predict_proba(features[held]), labels=[0, 1, 2])
    assert before.metrics["val_loss"] == pytest.approx(expected, rel=2e-3)
    assert tuned.run.result.finetune.initial_metrics == before.metrics
    assert after[0].metrics != before.metrics


def test_first_the_head_is_trained_and_then_all_and_then_all_again_on_every_image_but_the_tested(tuned: Made) -> None:
    best = tuned.run.find_trial()[1].fit_info["epochs"]
    assert [(each.stage, each.number, each.total, each.part) for each in tuned.told[1:]] == [
        *(("choose", number, 4, "head" if number == 1 else "all") for number in range(1, 5)),
        *(("refit", number, best, "head" if number == 1 else "all") for number in range(1, best + 1)),
    ]


def test_the_tuned_trial_is_the_best_of_a_run_that_holds_the_frozen_ones(made: SweepRun, tuned: Made) -> None:
    run, frozen_run = tuned.run, made.run
    trial, score = run.find_trial()
    start, _ = frozen_run.find_trial()
    assert (trial.head, trial.hyperparameters["from"], trial.hyperparameters["start"]) == (
        "finetune",
        "block4_out",
        start.id,
    )
    assert trial.tap_refs == start.tap_refs
    assert run.result.best.id == trial.id
    others = {each: its for each, its in run.load_trials().items() if each != trial}
    assert others == frozen_run.load_trials()
    with (run.path / "leaderboard.csv").open(newline="") as file:
        assert {row["trial"] for row in csv.DictReader(file)} == {each.id for each in run.load_trials()}
    curves = score.fit_info["curves"]
    assert set(curves) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    told = [each.metrics for each in tuned.told if each.stage == "choose" and each.number]
    assert {name: [pytest.approx(each[name], abs=1e-5) for each in told] for name in curves} == curves
    assert score.fit_info["epochs"] == 1 + int(np.argmin(curves["val_loss"]))
    assert score.folds == (pytest.approx(curves["val_accuracy"][score.fit_info["epochs"] - 1], abs=1e-5),)


def test_the_run_that_was_fine_tuned_is_unchanged_byte_for_byte(made: SweepRun, tuned: Made) -> None:
    assert read_files(made.path) == tuned.before


def test_nothing_is_left_of_the_training_but_its_result(tuned: Made) -> None:
    names = set(read_files(tuned.path))
    assert "checkpoint.npz" not in names
    assert not [name for name in names if name.startswith(".")]
    assert {"model.keras", "model.keras.md", "report.html", "run.json", "trials.jsonl", "leaderboard.csv"} <= names


def test_the_test_score_is_of_the_probabilities_that_are_kept(made: SweepRun, tuned: Made) -> None:
    images, splits = learnt(made)
    names = sorted(images.used[row].name for row in splits.test)
    labels = np.array([CLASSES.index(name.split("/")[1]) for name in names])
    found = tuned.run.load_probabilities()
    tested = tuned.run.result.test
    assert tested.images == len(labels) == 18
    assert tested.accuracy == (found.argmax(axis=1) == labels).mean()
    assert tested.log_loss == pytest.approx(log_loss(labels, found), rel=1e-5)
    with (tuned.path / "predictions.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == names


def test_the_model_answers_images_as_the_run_says_and_otherwise_than_the_frozen_one(made: SweepRun, tuned: Made) -> None:
    """Loaded with Keras alone, from the pixels of the test images."""
    images, splits = learnt(made)
    rows = sorted(splits.test, key=lambda row: images.used[row].name)
    model = load_keras().saving.load_model(tuned.path / "model.keras")
    answers = model.predict(pixels_of(images, np.array(rows)), verbose=0)
    np.testing.assert_allclose(answers, tuned.run.load_probabilities(), atol=1e-5)
    assert np.abs(answers - made.run.load_probabilities()).max() > 0.05


def test_the_tested_images_are_compared_with_the_frozen_network(made: SweepRun, tuned: Made) -> None:
    told = tuned.run.result.finetune.frozen
    images, splits = learnt(made)
    labels = np.array([CLASSES.index(images.used[row].name.split("/")[1]) for row in splits.test])
    labels = labels[np.argsort([images.used[row].name for row in splits.test])]
    now, then = (run.load_probabilities().argmax(axis=1) == labels for run in (tuned.run, made.run))
    assert told is not None
    assert told.comparison is not None
    assert told.test.accuracy == made.run.result.test.accuracy == then.mean()
    assert told.comparison.only_winner == (now & ~then).sum()
    assert told.comparison.only_runner_up == (then & ~now).sum()


def test_what_is_said_on_the_terminal_is_what_the_run_says(made: SweepRun, tuned: Made) -> None:
    curves = tuned.run.find_trial()[1].fit_info["curves"]
    epochs = [finetune.format_epoch(each) for each in tuned.told]
    assert epochs[0].startswith("before training: loss ")
    assert epochs[1].startswith(f"epoch 1/4 (head only): loss {curves['loss'][0]:.4f}, accuracy ")
    assert f"val_loss {curves['val_loss'][1]:.4f}, val_accuracy {curves['val_accuracy'][1]:.4f}, " in epochs[2]
    assert epochs[2].startswith("epoch 2/4: loss ")
    again = [line for line in epochs if line.startswith("refit on all images outside the test split: epoch 1/")]
    assert len(again) == 1
    assert "loss" not in again[0]
    said = finetune.format_finetune(tuned.done.to_dict(), tuned.run.summarize(), tuned.done.summary).splitlines()
    best = int(np.argmin(curves["val_loss"]))
    assert said[0] == f"{made.photos}: 60 images used (60 PNG)"
    assert said[1].startswith(f"best epoch: {best + 1} of 4, val_loss {curves['val_loss'][best]:.4f} (before training ")
    rows = [line.split() for line in said if line.startswith(("frozen ", "from block4_out "))]
    scores = [run.result.test.accuracy for run in (made.run, tuned.run)]
    assert [row[-4:-2] for row in rows] == [[f"{100 * score:.1f}", "%"] for score in scores]
    assert any(line.startswith("  correct only by the fine-tuned network: ") for line in said)
    assert any(line.startswith(f"model: {tuned.path / 'model.keras'} ") for line in said)
    assert said[-1].startswith(f"report: {tuned.path / 'report.html'} (")


def test_report_and_predict_take_the_new_run_as_any_other(
    made: SweepRun, tuned: Made, tmp_path: Path, humeris: Humeris
) -> None:
    cache = ("--cache", made.cache)
    done = humeris("report", tuned.path, *cache, "-o", tmp_path / "page.html", "--json")
    assert done.code == 0, done.err
    assert tuned.run.find_trial()[0].id in (tmp_path / "page.html").read_text()
    done = humeris("predict", tuned.path / "model.keras", made.photos / "test", *cache, "--json")
    assert done.code == 0, done.err
    said = {each["path"]: each["predicted"] for each in done.json["predictions"]}
    expected = tuned.run.load_probabilities().argmax(axis=1)
    with (tuned.path / "predictions.csv").open(newline="") as file:
        paths = [str(made.photos / row["path"]) for row in csv.DictReader(file)]
    assert said == {path: CLASSES[answer] for path, answer in zip(paths, expected, strict=True)}


def test_the_tuned_network_is_exported_as_onnx(made: SweepRun, tuned: Made, tmp_path: Path, humeris: Humeris) -> None:
    done = humeris("export", tuned.path, "-f", "onnx", "-o", tmp_path / "m.onnx", "--cache", made.cache, "--json")
    assert done.code == 0, done.err
    assert done.json["exported"]["parity"]["max_difference"] < 1e-3


def test_a_frozen_head_is_exported_from_the_new_run(made: SweepRun, tuned: Made, tmp_path: Path, humeris: Humeris) -> None:
    other = made.find_trial("mlp")
    out = tmp_path / "m.keras"
    done = humeris("export", tuned.path, "--trial", other, "-o", out, "--cache", made.cache, "--json")
    assert done.code == 0, done.err
    assert done.json["exported"]["trial"] == other


def test_the_same_command_again_trains_nothing(made: SweepRun, tuned: Made, unexported: None) -> None:
    before = read_files(tuned.path)
    told: list[Epoch] = []
    tune(made, tuned.path, on_epoch=told.append, command="humeris finetune", **OPTIONS)
    assert told == []
    assert read_files(tuned.path) == before


def answered(run: Run, rows: np.ndarray, images: Images) -> np.ndarray:
    """What the tuned network of a run answers images."""
    trial, _ = run.find_trial()
    tuned = FinetunedWeights.load(run, trial)
    built = rebuild_backbone(run.get_spec(trial.tap_refs[0]), tuned_weights=tuned.weights)
    model = stack_model(built, [Tap(source.layer, source.pool) for source in trial.tap_refs], tuned.head)
    return np.asarray(model.predict_on_batch(pixels_of(images, rows)))


def test_without_refit_the_network_is_as_after_its_best_epoch(made: SweepRun, tmp_path: Path, unexported: None) -> None:
    told: list[Epoch] = []
    run = tune(made, tmp_path / "new", epochs=3, head_epochs=1, learning_rate=3e-3, refit=False, on_epoch=told.append)
    images, splits = learnt(made)
    _, held = next(splits.iter_folds(0))
    answers = answered(run, held, images)
    score = run.find_trial()[1]
    losses = [each.metrics["val_loss"] for each in told[1:]]
    best = int(np.argmin(losses))
    assert best < len(losses) - 1  # or the test would show nothing
    assert log_loss(splits.labels[held], answers, labels=[0, 1, 2]) == pytest.approx(losses[best], rel=1e-2)
    assert score.log_loss == pytest.approx(losses[best], rel=1e-4)
    assert (answers.argmax(axis=1) == splits.labels[held]).mean() == score.accuracy == score.folds[0]
    assert {each.stage for each in told} == {"choose"}


def test_the_whole_network_is_trained_from_augmented_images_in_mixed_precision_and_exported_in_float32(
    made: SweepRun, tmp_path: Path, humeris: Humeris
) -> None:
    out = tmp_path / "new"
    words = ("--epochs", 1, "--head-epochs", 0, "--no-refit", "--batch-size", 8, "--precision", "bfloat16")
    words += ("--augment", "flip,cutout")
    words += ("--mixup", 0.2, "--cutmix", 0.5, "--optimizer", "adamw", "--label-smoothing", 0.1, "--schedule", "one_cycle")
    done = humeris("finetune", made.path, "--from", "input", *words, "-o", out, "--cache", made.cache, "-j", 1, "--json")
    assert done.code == 0, done.err
    assert done.err == ""
    said = done.json
    trial, score = Run.load(out).find_trial()
    assert trial.hyperparameters["from"] == "input"
    assert trial.hyperparameters["augment"] == "flip=0.5,cutout=0.5"
    assert (trial.hyperparameters["learning_rate"], trial.hyperparameters["weight_decay"]) == (1e-5, 0.004)
    assert not said["finetune"].get("cached")
    assert said["finetune"].get("max_map_difference") is None
    assert len(score.fit_info["curves"]["loss"]) == 1
    assert said["exported"]["parity"]["max_difference"] < 1e-4
    tuned = FinetunedWeights.load(Run.load(out), trial)
    assert {array.dtype for arrays in tuned.weights.values() for array in arrays} == {np.dtype("float32")}
    body = build_nano()
    body.load_weights(WEIGHTS)
    layers = [layer for layer in body.layers if layer.weights]
    assert list(tuned.weights) == [layer.name for layer in layers]
    for layer in layers:
        same = all(np.array_equal(*both) for both in zip(tuned.weights[layer.name], layer.get_weights(), strict=True))
        assert same == ("_bn" in layer.name), layer.name


def test_from_scratch_the_same_network_is_trained_from_random_weights(
    made: SweepRun, tmp_path: Path, unexported: None
) -> None:
    run = tune(made, tmp_path / "new", "input", weights="random", learning_rate=None, refit=False)
    trial, score = run.find_trial()
    assert trial.hyperparameters["weights"] == "random"
    chosen = {name: trial.hyperparameters[name] for name in ("head_epochs", "train_batch_norm", "learning_rate")}
    assert chosen == {"head_epochs": 0, "train_batch_norm": True, "learning_rate": 1e-3}
    assert len(score.fit_info["curves"]["loss"]) == 1  # nothing to train the head alone for
    (source,) = trial.tap_refs
    spec = run.get_spec(source)
    assert source.extraction != made.run.find_trial()[0].tap_refs[0].extraction
    assert "random" in spec.weights
    frozen = run.get_spec(made.run.find_trial()[0].tap_refs[0])
    assert (spec.architecture, spec.image_size) == (frozen.architecture, frozen.image_size)
    assert run.result.finetune.initial_metrics["val_loss"] == pytest.approx(np.log(3), abs=0.7)
    notes = [note for note in run.result.notes if "no epoch improved" in note]
    improved = score.fit_info["curves"]["val_loss"][0] < run.result.finetune.initial_metrics["val_loss"]
    assert improved or "no epoch improved on the random weights" in notes[0]
    assert len(notes) == (not improved)
    tuned = FinetunedWeights.load(run, trial)
    body = build_nano()
    body.load_weights(WEIGHTS)
    for name in ("stem_conv", "stem_bn", "block5_down_bn"):
        for mine, its in zip(tuned.weights[name], body.get_layer(name).get_weights(), strict=True):
            assert np.abs(mine - its).max() > 1e-3
    images, splits = learnt(made)
    rows = np.array(sorted(splits.test, key=lambda row: images.used[row].name))
    np.testing.assert_allclose(answered(run, rows, images), run.load_probabilities(), atol=1e-5)


def test_cached_views_are_learnt_from(made: SweepRun, tmp_path: Path, unexported: None) -> None:
    options: dict[str, Any] = {"views": 2, "augment": "flip,crop=0.5", "refit": False}
    viewed = tune(made, tmp_path / "viewed", **options)
    plain = tune(made, tmp_path / "plain", refit=False)
    trial, _ = viewed.find_trial()
    assert (trial.hyperparameters["views"], trial.hyperparameters["augment"]) == (2, "flip=0.5,crop=0.5")
    (cached,) = viewed.result.finetune.cached
    assert (cached["taps"], cached["views"]) == (["block4_out:map"], 2)
    assert cached["rows"]["block4_out:map"] in {2 * 42, 3 * 42}  # the plain ones may be there
    first, second = (
        FinetunedWeights.load(run, run.find_trial()[0]).weights["block5_down_conv"][0] for run in (viewed, plain)
    )
    assert np.abs(first - second).max() > 1e-5


def test_the_families_that_are_named_can_be_trained_further_and_neighbours_cannot(made: SweepRun, tmp_path: Path) -> None:
    heads = ["logreg,C=1", "svm,C=1", "ridge,alpha=1", "lda", "centroid", "knn,n_neighbors=3", "head2toe,fraction=0.1,C=1"]
    images, splits = learnt(made)
    store = Store(made.cache)
    run = sweep(images, store, SweepConfig([*heads, "mlp,hidden=4,epochs=1"], layers=TAPS, out=tmp_path / "all", jobs=1))
    rows = splits.development
    able = {}
    for trial, score in run.load_trials().items():
        stored = select_features.open_readers(store, trial.tap_refs)
        head = train(trial, score, build_training_data(stored, images.keys[rows], splits.labels[rows], splits.target), 0)
        able[trial.head] = True
        try:
            trainable_tail.check_trainable(head, splits.target, trial.head, "here")
        except HeadError:
            able[trial.head] = False
    assert {name for name in able if able[name]} >= {"logreg", "svm", "ridge", "lda", "mlp", "head2toe"}
    assert not able["knn"]
