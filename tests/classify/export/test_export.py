"""Export: the file answers as the report did, or there is no file."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import change_origin

from humeris.cache.errors import BackboneError, DataError, HumerisError, ModelError, ParityError, RunError
from humeris.cache.store import Store
from humeris.cache.typed_json import to_json
from humeris.classify.export import parity
from humeris.classify.export.export import export
from humeris.classify.export.export_result import ExportResult
from humeris.classify.export.formats.format import METADATA_FILE
from humeris.classify.export.formats.keras_format import KerasFormat
from humeris.classify.export.formats.weight_precision import FLOAT32, PRECISIONS
from humeris.classify.heads.training_data import TrainingData
from humeris.classify.runs.run import Run
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.engine.extract import extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images
from humeris.extract.pixels.decode import decode


def pixels_of(run: Run, size: tuple[int, int]) -> np.ndarray:
    """The test images of a run, in the order of its probabilities."""
    root = Path(run.metadata.data.root)
    records = [record for record in run.load_image_records() if record.split == "test"]
    return np.stack([decode((root / record.name).read_bytes(), size) for record in records])


def copied(run: Run, folder: Path) -> Run:
    """A copy of a run, to be changed."""
    shutil.copytree(run.path, folder)
    return Run.load(folder)


def test_the_exported_file_answers_as_the_run_on_every_test_image(finished: Any) -> None:
    cached = finished.run.load_probabilities()
    answers = parity.predict_in_subprocess(KerasFormat(), finished.model, pixels_of(finished.run, (64, 64)))[0]
    assert cached.shape == answers.shape == (18, 3)
    assert np.ptp(cached, axis=0).max() > 0.3
    assert (cached.argmax(axis=1) == answers.argmax(axis=1)).all()
    assert np.abs(cached - answers).max() <= 1e-4


def test_the_check_is_reported(finished: Any) -> None:
    found = finished.outcome.export_result.to_dict()
    assert found["model"] == str(finished.path / "model.keras")
    assert found["bytes"] == finished.model.stat().st_size
    assert found["trial"] == finished.run.result.best.id
    assert found["parity"]["images"] == 18
    assert found["parity"]["top1_agree"] == 18
    assert 0 <= found["parity"]["max_difference"] <= 1e-4


def test_classes_size_and_origin_are_inside_the_file(finished: Any) -> None:
    with zipfile.ZipFile(finished.model) as archive:
        found = json.loads(archive.read(METADATA_FILE))
        assert archive.testzip() is None
    run = to_json(finished.run.metadata)
    assert found["classes"] == ["blob", "noise", "stripes"]
    assert found["image_size"] == [64, 64]
    assert found["specs"] == run["specs"]
    assert found["trial"]["tap_refs"] == run["result"]["best"]["tap_refs"]
    assert found["test"]["accuracy"] == run["result"]["test"]["accuracy"]


def test_a_run_leaves_the_model_its_card_and_the_report_and_no_draft(finished: Any) -> None:
    assert sorted(path.name for path in finished.path.iterdir()) == [
        "heads", "images.csv", "leaderboard.csv", "model.keras", "model.keras.md", "predictions.csv", "probabilities.npy",
        "report.html", "run.json", "trials.jsonl",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, finished: Any) -> tuple[Run, Store, Path]:
    """A run on a user's own file: a functional network with another one and a sequential one inside."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(4)
    folder = tmp_path_factory.mktemp("own")
    inside = keras.Input((16, 16, 8))
    body = keras.Model(inside, layers.Conv2D(6, 3, strides=2, activation="relu", name="squeeze")(inside), name="body")
    stem = keras.Sequential(
        [keras.Input((32, 32, 3)), layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")], name="stem"
    )
    image = keras.Input((32, 32, 3))
    keras.Model(image, layers.Dense(4, name="top")(layers.Flatten()(body(stem(image))))).save(folder / "mine.keras")
    store = Store(folder / "cache", write=True)
    images = load_images(finished.photos, store, jobs=1)
    extract_features(
        images, store, ExtractConfig(f"{folder / 'mine.keras'},preprocessing=tf", layers=["body/squeeze:grid2"], jobs=1)
    )[0]
    heads = ["logreg,C=0.1/1", "mlp,hidden=8,epochs=6,batch_size=8"]
    return sweep(images, store, SweepConfig(heads, out=folder / "run", jobs=1)), store, folder / "mine.keras"


@pytest.fixture(scope="module")
def not_the_winner(own: tuple[Run, Store, Path]) -> ExportResult:
    """An MLP on the user's own file that did not win, or the linear head where it did."""
    run, store, _ = own
    best = run.find_trial()[0]
    others = [trial for trial in run.load_trials() if trial != best]
    chosen = next((trial for trial in others if trial.head == "mlp"), others[0])
    return export(run, store, run.path / "other.keras", trial=chosen.id)


def test_a_trial_that_did_not_win_is_exported_by_its_id(own: tuple[Run, Store, Path], not_the_winner: ExportResult) -> None:
    run, _, _ = own
    assert not_the_winner.trial.id != run.result.best.id
    head = run.load_head(not_the_winner.trial)
    assert head is not None
    with zipfile.ZipFile(not_the_winner.path) as archive:
        assert (
            json.loads(archive.read(METADATA_FILE))["test"] is None
        )  # its test score is nobody's business: it was not chosen


def test_a_trial_that_did_not_win_is_trained_on_everything_but_the_test_split(
    own: tuple[Run, Store, Path], not_the_winner: ExportResult
) -> None:
    from humeris.classify.data import select_features
    from humeris.classify.heads.registry import get_head_family

    run, store, _ = own
    trial, score = run.find_trial(not_the_winner.trial.id)
    records = sorted(run.load_image_records(), key=lambda record: record.digest)
    keys = np.array([record.digest for record in records], dtype="S32")
    learnt = np.array([record.split != "test" for record in records])
    features = select_features.load_matrix(store, trial.tap_refs, keys).to_array()
    labels = np.array([["blob", "noise", "stripes"].index(record.label) for record in records])
    problem = TrainingData.from_arrays(features[learnt], labels[learnt], [])
    expected = get_head_family(trial.head).fit(problem, trial.hyperparameters, score.fit_info, 0)
    head = run.load_head(trial)
    assert head is not None
    assert np.abs(head.predict_proba(features) - expected.predict_proba(features)).max() < 1e-6
    assert not_the_winner.parity.images == not_the_winner.parity.top1_agree == 18
    assert not_the_winner.parity.max_difference <= 1e-4


def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if the check is reached: what it is about must be found out before."""

    def reached(*_: object) -> None:
        raise AssertionError("the parity check was reached")

    monkeypatch.setattr(parity, "predict_in_subprocess", reached)


def refused(run: Run, store: Store, out: Path, error: type[HumerisError], message: str) -> None:
    before = out.read_bytes() if out.exists() else None
    with pytest.raises(error, match=message) as caught:
        export(run, store, out)
    assert "\n" not in str(caught.value)
    assert (out.read_bytes() if out.exists() else None) == before
    assert not list(out.parent.glob(".*.keras"))


def test_a_model_that_disagrees_leaves_no_file(finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stacked model is given other weights than the head that the cache answers with."""
    from humeris.classify.export import export_source as module
    from humeris.classify.heads.head import Head

    build_stack = module.stack_model

    def wrong(backbone: Any, taps: Any, head: Head) -> Any:
        model = build_stack(backbone, taps, head)
        layer = model.get_layer("probabilities")
        weights, bias = layer.get_weights()
        layer.set_weights([weights[:, ::-1], bias])
        return model

    monkeypatch.setattr(module, "stack_model", wrong)
    refused(finished.run, Store(finished.cache), tmp_path / "m.keras", ParityError, r"disagrees with the cached features")


def test_a_model_that_was_there_before_outlives_an_export_that_fails(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "predict_in_subprocess", lambda *_: (finished.run.load_probabilities()[::-1], 1.0))
    (tmp_path / "m.keras").write_text("an older model")
    refused(finished.run, Store(finished.cache), tmp_path / "m.keras", ParityError, r"disagrees with the cached features")


def test_a_model_that_says_the_same_of_every_image_leaves_no_file(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides constant, as on a dead network: they agree, and the export fails all the same."""
    monkeypatch.setattr(parity, "predict_in_subprocess", lambda *_: (np.full((18, 3), 1 / 3, np.float32), 1.0))
    run = copied(finished.run, tmp_path / "run")
    trial = run.find_trial()[0]
    head = run.load_head(trial)
    assert head is not None
    dead = type(head)(tuple(type(layer)(layer.weights * 0, layer.bias * 0, layer.activation) for layer in head.layers),
                      head.class_names)  # fmt: skip
    run.save_head(trial, dead)
    refused(
        run,
        Store(finished.cache),
        tmp_path / "m.keras",
        ParityError,
        r"probabilities are not finite, or equal for all images",
    )


def test_an_image_that_changed_is_named(finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_process(monkeypatch)
    shutil.copytree(finished.photos, tmp_path / "photos")
    run = copied(finished.run, tmp_path / "run")
    run.finish(run.result, change_origin(run.metadata.data, root=str(tmp_path / "photos")))
    path = tmp_path / "photos/test/blob/09.png"
    path.write_bytes(path.read_bytes() + b"one byte more")
    message = r"test/blob/09.png: cannot read an image .*: the file has changed since the run; restore it"
    refused(Run.load(run.path), Store(finished.cache), tmp_path / "m.keras", DataError, message)
    path.unlink()
    refused(Run.load(run.path), Store(finished.cache), tmp_path / "m.keras", DataError, r"09.png: .*No such file")


def test_other_weights_than_the_features_were_made_with_are_refused(
    own: tuple[Run, Store, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    no_process(monkeypatch)
    run, store, file = own
    before = file.read_bytes()
    try:
        model = keras.saving.load_model(file)
        model.set_weights([weight * 1.01 for weight in model.get_weights()])
        model.save(file)
        refused(
            run,
            store,
            tmp_path / "m.keras",
            ModelError,
            r"backbone mine: weights_sha256 has changed since extraction .*extract, sweep and export",
        )
        file.unlink()
        refused(run, store, tmp_path / "m.keras", BackboneError, r"mine.keras: no such file; check the path")
    finally:
        file.write_bytes(before)


def test_a_cache_that_lost_the_features_names_the_command_that_brings_them_back(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_process(monkeypatch)
    refused(finished.run, Store(tmp_path / "empty"), tmp_path / "m.keras", RunError,
            r"extraction nano-64-\w+ is no longer cached; run `humeris extract` with -b nano -l block")  # fmt: skip


def test_a_name_that_is_no_keras_file_is_refused_first(finished: Any, tmp_path: Path) -> None:
    refused(
        finished.run,
        Store(finished.cache),
        tmp_path / "model.h5",
        ModelError,
        r"model.h5: no format has this suffix; use the suffix of one, or give -f: keras",
    )


def test_a_folder_in_the_place_of_the_file_is_refused_and_kept(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "predict_in_subprocess", lambda *_: (finished.run.load_probabilities(), 1.0))
    (tmp_path / "taken.keras").mkdir()
    with pytest.raises((HumerisError, OSError)):
        export(finished.run, Store(finished.cache), tmp_path / "taken.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.keras"]


def test_an_unknown_trial_is_refused(finished: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r": no trials have an id that begins with 'nothex'"):
        export(finished.run, Store(finished.cache), tmp_path / "m.keras", trial="nothex")


def test_more_than_sixty_four_test_images_are_checked_evenly(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which rows are compared, when the check is allowed five: the first, the last, and three between."""
    seen: list[np.ndarray] = []

    def answers(_: Any, __: Path, images: np.ndarray) -> tuple[np.ndarray, float]:
        seen.append(images)
        return finished.run.load_probabilities()[[0, 4, 8, 12, 17]], 1.0

    monkeypatch.setitem(PRECISIONS, "float32", replace(FLOAT32, n_parity_images=5))
    monkeypatch.setattr(parity, "predict_in_subprocess", answers)
    found = export(finished.run, Store(finished.cache), tmp_path / "m.keras")
    assert found.parity.images == 5
    assert (seen[0] == pixels_of(finished.run, (64, 64))[[0, 4, 8, 12, 17]]).all()


def test_the_winner_is_exported_as_it_was_swept(finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               humeris: Callable[..., Any]) -> None:  # fmt: skip
    monkeypatch.setattr(parity, "predict_in_subprocess", lambda *_: (finished.run.load_probabilities(), 1.0))
    result = humeris("export", finished.path, "-o", tmp_path / "new/model.keras", "--cache", finished.cache, "--json")
    assert result.code == 0
    assert result.json["exported"]["trial"] == finished.run.result.best.id
    assert (tmp_path / "new/model.keras").is_file()
