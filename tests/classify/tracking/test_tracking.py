"""Finished runs in MLflow and TensorBoard: everything is there, once, and nothing of it is in the way."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from run_values import make_data, make_metadata, make_result

from humeris.cache.errors import RunError, TrackingError
from humeris.classify.evaluate.trial import Score, Trial
from humeris.classify.runs.run import Run
from humeris.classify.tracking import mlflow as mlflow_tracker
from humeris.classify.tracking import run_summary, tracker
from humeris.classify.tracking.registry import TRACKERS, get_trackers, track
from humeris.extract.backbones.tap_ref import TapRef

NANO = TapRef("nano", "nano-64-0123456789abcdef", "block3_out", "avg")
OTHER = TapRef("mobilenet_v2,alpha=0.35", "mobilenet_v2-224-f6d8490f74df1377", "out_relu", "max")
CURVES = {
    "loss": [0.5, 0.25, 0.125],
    "accuracy": [0.75, 0.875, 1.0],
    "val_loss": [0.75, 0.5, 0.625],
    "val_accuracy": [0.5, 0.75, 0.625],
}
LOGREG = Trial((NANO,), "logreg", {"C": 0.1})
MLP = Trial((NANO, OTHER), "mlp", {"hidden": "64x32", "dropout": 0.5, "batch_norm": True})
SCORES = {
    LOGREG: Score(0.75, 0.5, (0.5, 1.0), 0.25),
    MLP: Score(0.875, 0.375, (0.75, 1.0), 3.0, fit_info={"epochs": 2, "curves": CURVES}),
}
HOSTILE = ["=cmd|' /C calc'!A0", "<script>alert(1)</script>", "two\nlines", "not\udcffutf8", "\u202egnp.exe", "é" * 127]


def made(
    path: Path,
    scores: dict[Trial, Score] | None = None,
    data: str = "/data/photos",
    config_hash: str = "a",
    command: str = "",
) -> Run:
    """A complete run of made-up scores."""
    run = Run(path)
    data_summary = make_data(root=data)
    run.begin(make_metadata(config_hash=config_hash * 64, command=command or "humeris sweep photos", data=data_summary))
    run.append(scores or SCORES, 5.0)
    run.write_csv("leaderboard.csv", ["rank"], [["1"]])
    run.finish(make_result(MLP, SCORES[MLP]))
    return run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return made(tmp_path / "runs" / "photos-1")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow makes it, which takes it seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    made(folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_EXPERIMENT_ID", "no such experiment")
        with pytest.raises(TrackingError):
            track(Run.load(folder / "run"), ["mlflow"])
    return folder / "mlflow.db"


@pytest.fixture
def client(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's own client of its default store, the database in the current folder."""
    for name in list(os.environ):
        if name.startswith("MLFLOW_"):
            monkeypatch.delenv(name)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    from mlflow import MlflowClient

    return MlflowClient()


def logged(client: Any, experiment: str = "photos") -> tuple[list[Any], list[Any]]:
    """The sweeps of an experiment, and the trials of them all in order of their ids."""
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    inner = [each for each in found if "mlflow.parentRunId" in each.data.tags]
    return [each for each in found if each not in inner], sorted(inner, key=lambda each: each.data.tags["humeris.trial"])


def test_a_sweep_is_a_run_of_an_experiment_called_after_the_data(client: Any, run: Run, tmp_path: Path) -> None:
    (found,) = track(run, ["mlflow"])
    address = f"sqlite:///{tmp_path}/mlflow.db"
    assert found.to_dict() == {
        "name": "mlflow",
        "destination": f"{address}, experiment photos",
        "view_command": f"mlflow ui --backend-store-uri {address}",
        "note": "",
    }
    (sweep,), trials = logged(client)
    assert len(trials) == 2
    assert sweep.info.status == "FINISHED"
    assert sweep.info.run_name == "photos-1"
    assert sweep.info.end_time - sweep.info.start_time == 5000
    assert sweep.data.tags["humeris.config_hash"] == "a" * 64
    assert sweep.data.tags["humeris.run"] == str(run.path)
    assert sweep.data.params == {
        "config_hash": "a" * 64, "seed": "7", "command": "humeris sweep photos", "humeris": "0.1.0", "best": MLP.id,
        "train": "40", "val": "0", "test": "20", "select": "cv",
    }  # fmt: skip
    assert sweep.data.metrics == {
        "test_images": 20, "test_accuracy": 0.75, "test_accuracy_95_low": 0.5, "test_accuracy_95_high": 0.875,
        "test_balanced_accuracy": 0.625, "test_balanced_accuracy_95_low": 0.25, "test_balanced_accuracy_95_high": 0.75,
        "test_macro_f1": 0.5, "test_macro_f1_95_low": 0.125, "test_macro_f1_95_high": 0.625, "test_log_loss": 0.25,
        "test_brier_score": 0.375, "test_calibration_error": 0.125, "test_calibration_error_by_chance": 0.0625,
        "trials": 2, "seconds": 5,
    }  # fmt: skip


def test_every_trial_is_a_run_inside_the_sweep(client: Any, run: Run) -> None:
    track(run, ["mlflow"])
    (sweep,), trials = logged(client)
    assert {each.data.tags["mlflow.parentRunId"] for each in trials} == {sweep.info.run_id}
    assert {each.info.status for each in trials} == {"FINISHED"}
    found = {each.data.tags["humeris.trial"]: each for each in trials}
    assert found[LOGREG.id].info.run_name == f"logreg {LOGREG.id}"
    assert found[LOGREG.id].data.params == {
        "head": "logreg", "C": "0.1", "backbone": "nano", "layer": "block3_out", "pool": "avg",
    }  # fmt: skip
    assert found[LOGREG.id].data.metrics == {"accuracy": 0.75, "log_loss": 0.5, "accuracy_std": 0.25, "seconds": 0.25}
    assert found[MLP.id].data.params == {
        "head": "mlp", "hidden": "64x32", "dropout": "0.5", "batch_norm": "True",
        "backbone": "nano + mobilenet_v2,alpha=0.35", "layer": "block3_out + out_relu", "pool": "avg + max",
    }  # fmt: skip
    assert found[MLP.id].data.metrics == {
        "accuracy": 0.875, "log_loss": 0.375, "accuracy_std": 0.125, "seconds": 3, "best_epoch": 2,
        "epoch_loss": 0.125, "epoch_accuracy": 1, "epoch_val_loss": 0.625, "epoch_val_accuracy": 0.625,
    }  # fmt: skip


def test_curves_are_metrics_by_epoch(client: Any, run: Run) -> None:
    track(run, ["mlflow"])
    _, trials = logged(client)
    (mlp,) = [each for each in trials if each.data.params["head"] == "mlp"]
    for name, curve in CURVES.items():
        history = sorted(client.get_metric_history(mlp.info.run_id, f"epoch_{name}"), key=lambda each: each.step)
        assert [(each.step, each.value) for each in history] == list(enumerate(curve))
        apart = [after.timestamp - before.timestamp for before, after in pairwise(history)]
        assert apart == [1000, 1000]
        assert history[-1].timestamp == mlp.info.end_time


def test_curves_of_any_length_are_there_in_whole(client: Any, tmp_path: Path) -> None:
    long = {name: [epoch / 1024 for epoch in range(450)] for name in CURVES}
    score = Score(0.5, 0.5, (0.5,), 1.0, fit_info={"epochs": 1, "curves": long})
    track(made(tmp_path / "long", {MLP: score}), ["mlflow"])
    _, (trial,) = logged(client)
    assert trial.data.params["hidden"] == "64x32"
    for name, curve in long.items():
        history = sorted(client.get_metric_history(trial.info.run_id, f"epoch_{name}"), key=lambda each: each.step)
        assert [each.value for each in history] == curve


def test_the_description_and_the_leaderboard_are_kept_beside_a_sweep(client: Any, run: Run) -> None:
    track(run, ["mlflow"])
    (sweep,), _ = logged(client)
    assert sorted(each.path for each in client.list_artifacts(sweep.info.run_id)) == ["leaderboard.csv", "run.json"]
    folder = Path(sweep.info.artifact_uri.removeprefix("file://"))
    for name in ("run.json", "leaderboard.csv"):
        assert (folder / name).read_bytes() == (run.path / name).read_bytes()


def test_a_sweep_that_is_logged_again_is_there_once(client: Any, run: Run, tmp_path: Path) -> None:
    assert track(run, ["mlflow"])[0].note == ""
    assert track(Run.load(run.path), ["mlflow", "mlflow"])[0].note == "already logged"
    assert [len(each) for each in logged(client)] == [1, 2]
    track(made(tmp_path / "another", config_hash="b"), ["mlflow"])
    assert [len(each) for each in logged(client)] == [2, 4]


def test_a_sweep_that_was_logged_in_part_is_completed(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    scores = {Trial((NANO,), "logreg", {"C": float(value)}): Score(0.5, value, (0.5,)) for value in range(12)}
    run = made(tmp_path / "run", scores)
    ended: list[str] = []
    whole = MlflowClient.set_terminated

    def fails(self: Any, run_id: str, *arguments: Any, **options: Any) -> None:
        if len(ended) == 2:
            raise MlflowException("the disk is full")
        ended.append(run_id)
        whole(self, run_id, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "set_terminated", fails)
    with pytest.raises(
        TrackingError, match=r": the disk is full; the run in .* is complete: fix this and repeat the command"
    ):
        track(run, ["mlflow"])
    _, before = logged(client)
    assert [each.info.status for each in before].count("FINISHED") == 2
    assert len(before) < 12  # what failed ends it
    monkeypatch.setattr(MlflowClient, "set_terminated", whole)
    assert track(run, ["mlflow"])[0].note == ""
    (sweep,), trials = logged(client)
    assert sweep.info.status == "FINISHED"
    assert [each.data.tags["humeris.trial"] for each in trials] == sorted(trial.id for trial in scores)
    assert {each.info.status for each in trials} == {"FINISHED"}
    assert set(ended) <= {each.info.run_id for each in trials}


def test_a_server_takes_several_trials_at_once(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as threads: here they write to a database, which makes them wait for each other."""
    from mlflow import MlflowClient

    whole, threads = MlflowClient.create_run, set()

    def noted(*arguments: Any, **options: Any) -> Any:
        threads.add(threading.get_ident())
        return whole(*arguments, **options)

    monkeypatch.setattr(MlflowClient, "create_run", noted)
    monkeypatch.setattr(mlflow_tracker, "_parse_scheme", lambda _: "http")
    scores = {Trial((NANO,), "logreg", {"C": float(value)}): Score(0.5, value, (0.5,)) for value in range(24)}
    found = track(made(tmp_path / "run", scores), ["mlflow"])
    assert found[0].view_command == f"sqlite:///{tmp_path}/mlflow.db"  # a server is looked at where it is
    assert len(threads) > 2
    _, trials = logged(client)
    assert [each.data.tags["humeris.trial"] for each in trials] == sorted(trial.id for trial in scores)
    assert {trial.id: score.log_loss for trial, score in scores.items()} == {
        each.data.tags["humeris.trial"]: each.data.metrics["log_loss"] for each in trials
    }


def test_a_server_is_not_waited_for_as_long_as_mlflow_would(client: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    seen: list[tuple[int, int]] = []
    whole = MlflowClient.get_experiment_by_name

    def noted(*arguments: Any) -> Any:
        from mlflow import environment_variables as said

        assert said.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get()
        seen.append((said.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(), said.MLFLOW_HTTP_REQUEST_TIMEOUT.get()))
        return whole(*arguments)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", noted)
    track(run, ["mlflow"])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    track(run, ["mlflow"])
    assert seen == [(2, 15), (5, 15)]


@pytest.mark.parametrize(
    ("data", "title"),
    [
        ({"kind": "keras", "source": "keras.datasets.mnist", "root": "/work"}, "keras.datasets.mnist"),
        ({"kind": "csv", "source": "lists/all.csv", "root": "/data/lists"}, "lists"),
        ({"kind": "folders", "source": "/", "root": "/"}, "humeris"),
        ({"kind": "folders", "source": ".", "root": "/data/two\nlines"}, "two\\nlines"),
    ],
)
def test_an_experiment_has_a_name_whatever_the_data_is(data: dict[str, str], title: str) -> None:
    assert run_summary.get_data_name(make_data(**data)) == title


def test_the_environment_says_where_to_and_is_as_it_was_afterwards(
    client: Any, run: Run, tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    address = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'elsewhere' / 'my.db')}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    before = dict(os.environ)
    assert track(run, ["mlflow"])[0].destination == f"{address}, experiment mine"
    assert dict(os.environ) == before
    from mlflow import MlflowClient

    elsewhere = MlflowClient(address)
    assert [len(each) for each in logged(elsewhere, "mine")] == [1, 2]
    assert client.get_experiment_by_name("mine") is None
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", elsewhere.create_experiment("by its number"))
    track(run, ["mlflow"])
    assert [len(each) for each in logged(elsewhere, "by its number")] == [1, 2]


def test_names_of_any_kind_are_text_in_mlflow(client: Any, tmp_path: Path) -> None:
    for number, name in enumerate(HOSTILE):
        source = TapRef(name, "nano-64-0123456789abcdef", name, "avg")
        trial = Trial((source,), "logreg", {"C": 1.0})
        run = made(tmp_path / f"run{number}", {trial: SCORES[LOGREG]}, f"/data/{name}", f"{number}", f"humeris sweep {name}")
        track(run, ["mlflow"])
        title = client.search_experiments()[0].name  # the last one made
        assert title.isprintable()
        (sweep,), (found,) = logged(client, title)
        for text in (sweep.data.params["command"], found.data.params["backbone"], found.data.params["layer"]):
            assert text.isprintable()
            assert text.isascii() or name.isprintable()
            assert name not in text if not name.isprintable() else name in text


def test_values_too_long_for_mlflow_are_cut(client: Any, tmp_path: Path) -> None:
    sources = tuple(TapRef("b", "b-64-0123456789abcdef", f"layer{number:05}", "avg") for number in range(1000))
    run = made(
        tmp_path / "run", {Trial(sources, "logreg", {"C": 1.0}): SCORES[LOGREG]}, f"/data/{'x' * 900}", command="y" * 7000
    )
    track(run, ["mlflow"])
    title = f"{'x' * 498} …"
    (sweep,), (trial,) = logged(client, title)
    assert sweep.data.params["command"] == f"{'y' * 5998} …"
    assert trial.data.params["layer"].startswith("layer00000 + layer00001")
    assert len(trial.data.params["layer"]) == 6000


@pytest.mark.parametrize("name", ["a folder", "no database"])
def test_a_database_that_cannot_be_opened_loses_no_run(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "broken.db"
    if name == "a folder":
        database.mkdir()
    else:
        database.write_bytes(b"something else " * 1000)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it is tried again and again, for minutes"))
    with pytest.raises(TrackingError) as found:
        track(run, ["mlflow"])
    assert str(found.value).startswith(f"--track mlflow: cannot log the run to sqlite:///{database}: ")
    assert str(found.value).endswith(
        f"the run in {run.path} is complete: fix this and repeat the command, which only logs the run"
    )
    assert "\n" not in str(found.value)
    assert Run.load(run.path).load_trials() == SCORES


@pytest.mark.parametrize("module", ["mlflow", "mlflow.exceptions", "sqlalchemy"])
def test_packages_that_cannot_be_imported_lose_no_run(module: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the versions that are installed do not go together."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TrackingError, match=rf"cannot log the run to .*: .*{module}.*; the run in .* is complete"):
        TRACKERS["mlflow"].log(run, None)


def test_passwords_in_addresses_are_not_shown(run: Run) -> None:
    error = OSError("no answer from https://me:secret@host:5000/api\nand more")
    said = str(tracker.build_error(run, "mlflow", "postgresql://me:secret@host/db", error))
    assert "cannot log the run to postgresql://***@host/db: no answer from https://***@host:5000/api; " in said
    assert tracker.mask_secrets("sqlite:////home/a@b/mlflow.db") == "sqlite:////home/a@b/mlflow.db"


def accumulated(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def events(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in accumulated(folder).Scalars(tag)]


def test_tensorboard_reads_the_curves_of_both_sides_under_one_name(run: Run) -> None:
    folder = run.path / "tensorboard"
    (found,) = track(run, ["tensorboard"])
    assert (found.destination, found.view_command, found.note) == (str(folder), f"tensorboard --logdir {folder}", "")
    assert [path.name for path in folder.iterdir()] == [MLP.id]
    for side, prefix in (("train", ""), ("validation", "val_")):
        assert accumulated(folder / MLP.id / side).Tags()["scalars"] == ["epoch_loss", "epoch_accuracy"]
        for name in ("loss", "accuracy"):
            assert events(folder / MLP.id / side, f"epoch_{name}") == list(enumerate(CURVES[f"{prefix}{name}"]))
    times = [each.wall_time for each in accumulated(folder / MLP.id / "train").Scalars("epoch_loss")]
    assert times == pytest.approx([times[0], times[0] + 1, times[0] + 2])


def test_tensorboard_reads_the_setting_and_the_scores_of_a_trial(run: Run) -> None:
    from tensorboard.plugins.hparams import metadata

    track(run, ["tensorboard"])
    found = accumulated(run.path / "tensorboard" / MLP.id)
    said = found.PluginTagToContent("hparams")
    begun = metadata.parse_session_start_info_plugin_data(said["_hparams_/session_start_info"])
    over = metadata.parse_session_end_info_plugin_data(said["_hparams_/session_end_info"])
    values = {name: getattr(value, str(value.WhichOneof("kind"))) for name, value in begun.hparams.items()}
    assert values == {
        "head": "mlp", "hidden": "64x32", "dropout": 0.5, "batch_norm": True,
        "backbone": "nano + mobilenet_v2,alpha=0.35", "layer": "block3_out + out_relu", "pool": "avg + max",
    }  # fmt: skip
    assert over.end_time_secs - begun.start_time_secs == pytest.approx(3)
    scores = {tag: found.Scalars(tag)[0].value for tag in found.Tags()["scalars"]}
    assert scores == {"accuracy": 0.875, "log_loss": 0.375, "accuracy_std": 0.125, "seconds": 3, "best_epoch": 2}


def test_event_files_are_written_anew_when_a_run_is_logged_again(run: Run) -> None:
    track(run, ["tensorboard"])
    before = {path: path.read_bytes() for path in run.path.glob("tensorboard/**/*events*")}
    assert len(before) == 3
    for path in before:
        path.write_bytes(b"torn")
    track(Run.load(run.path), ["tensorboard"])
    assert {path: path.read_bytes() for path in run.path.glob("tensorboard/**/*events*")} == before


def test_a_run_without_curves_leaves_nothing_for_tensorboard(tmp_path: Path) -> None:
    run = made(tmp_path / "run", {LOGREG: SCORES[LOGREG]})
    (found,) = track(run, ["tensorboard"])
    assert (found.destination, found.view_command) == ("", "")
    assert found.note == "no head of this run was trained by epochs, so there are no curves to log"
    assert not (run.path / "tensorboard").exists()


def test_names_of_any_kind_are_text_in_tensorboard(tmp_path: Path) -> None:
    for number, name in enumerate(HOSTILE):
        trial = Trial((TapRef(name, "nano-64-0123456789abcdef", name, "avg"),), "mlp", {"hidden": 8})
        run = made(tmp_path / f"run{number}", {trial: SCORES[MLP]}, f"/data/{name}", f"{number}")
        track(run, ["tensorboard"])
        assert events(run.path / "tensorboard" / trial.id / "train", "epoch_loss") == list(enumerate(CURVES["loss"]))


def test_nobody_logs_a_run_that_another_process_works_on(run: Run) -> None:
    with run.lock(), pytest.raises(RunError, match=r"cannot lock run .*: another process is writing to it"):
        track(run, ["tensorboard"])
    assert not (run.path / "tensorboard").exists()


def test_progress_counts_the_trials_of_each_tracker(client: Any, run: Run) -> None:
    seen: list[tuple[str, int, int]] = []
    track(run, ["tensorboard", "mlflow"], lambda name: lambda done, total: seen.append((name, done, total)))
    assert seen == [("tensorboard", 1, 1), ("mlflow", 1, 2), ("mlflow", 2, 2)]


def test_a_tracker_that_is_unknown_or_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrackingError, match=r"^--track wandb: unknown tracker; use mlflow or tensorboard$"):
        get_trackers(["tensorboard", "wandb"])
    there = importlib.util.find_spec
    for module in ("mlflow", "alembic", "tensorboard"):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, gone=module: None if name == gone else there(name))
        tracker_name = "mlflow" if module == "alembic" else module
        expected = (
            f"--track {tracker_name}: the package {module} is not installed; run `pip install 'humeris[{tracker_name}]'`"
        )
        with pytest.raises(TrackingError) as found:
            get_trackers([tracker_name])
        assert str(found.value) == expected
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "alembic" else there(name))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert get_trackers(["mlflow", "mlflow"]) == [TRACKERS["mlflow"]]  # a server has the database


@pytest.mark.parametrize("command", ["sweep", "run"])
def test_a_tracker_that_is_not_there_is_said_before_anything_is_read(command: str, humeris: Callable[..., Any]) -> None:
    result = humeris(command, "no such data", "--track", "wandb")
    assert (result.code, result.out) == (2, "")
    assert result.err == "humeris: --track wandb: unknown tracker; use mlflow or tensorboard\n"


@pytest.fixture
def typed(finished: Any, tmp_path: Path) -> list[object]:
    """The rest of a command that finds the finished run again, in a copy."""
    shutil.copytree(finished.path, tmp_path / "run")
    shutil.copytree(finished.cache, tmp_path / "cache")
    taps = ["-b", "nano", "-l", "block4_out", "-l", "block5_out", "--head", "logreg,C=0.1/1"]
    return [finished.photos, *taps, "-o", tmp_path / "run", "-j", "1"]


def test_a_complete_run_that_is_typed_again_is_logged(
    client: Any, typed: Sequence[object], tmp_path: Path, humeris: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = humeris("sweep", *typed, "--track", "mlflow", "--track", "tensorboard", "--json")
    assert (result.code, result.err) == (0, "")
    address = f"sqlite:///{tmp_path}/mlflow.db"
    assert [each["name"] for each in result.json["tracked"]] == ["mlflow", "tensorboard"]
    assert result.json["tracked"][0]["destination"] == f"{address}, experiment photos"
    (sweep,), trials = logged(client)
    assert len(trials) == result.json["trials"] == 4
    assert sweep.data.metrics["test_accuracy"] == result.json["test"]["accuracy"]
    monkeypatch.setenv("HUMERIS_TRACK", "mlflow tensorboard")
    again = humeris("sweep", *typed)
    assert (
        f"\nmlflow: {address}, experiment photos; already logged; "
        f"view with: mlflow ui --backend-store-uri {address}\n"
        "tensorboard: no head of this run was trained by epochs, so there are no curves to log\n"
    ) in again.out
    assert [len(each) for each in logged(client)] == [1, 4]
    monkeypatch.delenv("HUMERIS_TRACK")
    assert humeris("sweep", *typed, "--json").json["tracked"] == []


def test_run_logs_as_sweep_does(client: Any, typed: Sequence[object], humeris: Callable[..., Any]) -> None:
    result = humeris("run", *typed, "--track", "mlflow", "--json")
    assert (result.code, result.err) == (0, "")
    assert [each["name"] for each in result.json["tracked"]] == ["mlflow"]
    assert [len(each) for each in logged(client)] == [1, 4]


def in_a_fresh_process(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python that runs `code` as a user's would: not as a test, whose telemetry MLflow leaves out anyway."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTEST_", "CI", "GITHUB_"))
    }
    line = [sys.executable, "-W", "default", "-c", code, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, env={**kept, **environment})


def test_logging_says_nothing_calls_nobody_and_needs_no_tensorflow(run: Run, tmp_path: Path) -> None:
    """Also when MLflow makes its database, of which it says much."""
    code = """
import sys
called = []
sys.addaudithook(lambda event, found: called.append((event, found)) if event.startswith("socket.") else None)
from humeris.classify.runs.run import Run
from humeris.classify.tracking.registry import track
track(Run.load(sys.argv[1]), ["mlflow", "tensorboard"])
wrong = [name for name in ("tensorflow", "keras") if name in sys.modules]
wrong += [event for event in called if event[0] in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")]
assert wrong == [], wrong
"""
    done = in_a_fresh_process(code, run.path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "mlflow.db").exists()


def test_a_server_that_does_not_answer_loses_no_run(typed: Sequence[object], tmp_path: Path) -> None:
    code = "from humeris.cli import main; main()"
    address = "http://me:secret@127.0.0.1:9"  # the port of `discard`, where nobody listens
    done = in_a_fresh_process(code, "sweep", *typed, "--track", "mlflow", "--json", MLFLOW_TRACKING_URI=address)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("humeris: tracking failed: --track mlflow: cannot log the run to http://***@127.0.0.1:9: ")
    assert "Connection refused" in line
    assert f"the run in {tmp_path / 'run'} is complete: fix this and repeat the command" in line
    assert "secret" not in line
    document = json.loads(done.stdout)
    assert document["test"]["accuracy"] > 0.8
    (failure,) = document["failed"]
    assert line == f"humeris: tracking failed: {failure['error']}; then: {failure['command']}"
    assert Run.load(tmp_path / "run").complete
