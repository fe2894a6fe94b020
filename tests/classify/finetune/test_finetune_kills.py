"""A fine-tuning that is interrupted goes on after its last epoch and ends as one that nobody disturbed."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tuning import SweepRun, interrupt_after, make_sweep_run, read_files, tune
from warm_python import WarmPython

from humeris.cache.errors import RunError
from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.finetune import finetune as finetuning
from humeris.classify.finetune import train_loop
from humeris.classify.finetune.checkpoint import Checkpoint
from humeris.classify.finetune.finetune_config import FinetuneConfig
from humeris.classify.finetune.train_loop import EvalBatches
from humeris.classify.heads.neural.schedules import compute_factors
from humeris.classify.runs.finetuned_weights import FinetunedWeights
from humeris.classify.runs.run import Run

STEPS = 4


class Batches:
    """Four batches, of which the epoch is all that counts."""

    epoch = 0

    def __len__(self) -> int:
        return STEPS


class Noting:
    """A network that does not learn but notes with what it was trained; its loss after so many epochs is given."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses
        self.trained: list[tuple[float, ...]] = []  # epoch, whether the head alone, epochs since it was compiled, rates
        self.since, self.head_only = 0, False

    def compile(self, recipe: FinetuneConfig, *, head_only: bool) -> None:
        assert isinstance(recipe, FinetuneConfig)
        self.since, self.head_only = 0, head_only

    def train_epoch(self, batches: Any, rates: np.ndarray | None, progress: Any) -> None:
        assert progress is None
        given = [np.nan] * STEPS if rates is None else rates.tolist()
        self.trained.append((batches.epoch, self.head_only, self.since, *given))
        self.since += 1

    def predict_proba(self, batches: Any) -> np.ndarray:
        assert batches in {"held", "seen"}
        right = np.exp(-self.losses[len(self.trained)])
        return np.array([[right, 1 - right]] * 3, np.float32)

    def get_state(self) -> list[np.ndarray]:
        return [np.array(self.trained), np.array([self.since, self.head_only])]

    def restore(self, state: list[np.ndarray]) -> None:
        assert self.head_only == state[1][1], "the state is of an optimizer of other variables"
        self.trained = [tuple(row) for row in state[0]]
        self.since = int(state[1][0])


@dataclasses.dataclass
class Trained:
    """What two trainings came to."""

    course: Any
    start: dict[str, float]
    network: Noting


WATCHED = EvalBatches("held", np.zeros(3, int), "seen", np.zeros(3, int), SingleLabel.from_n_classes(2))


def train(run: Run, recipe: FinetuneConfig, losses: list[float], on_epoch: Any = lambda _: None) -> Trained:
    """Both trainings, as far as `on_epoch` lets them."""
    kept = Checkpoint.load(run)
    course, start, network = train_loop.find_best_epoch(
        lambda: Noting(losses),
        Batches(),
        WATCHED,
        recipe,
        kept,
        on_epoch,
        None,  # type: ignore[arg-type, return-value]
    )
    found: Any = network
    if recipe.refit:
        found = Noting(losses)
        train_loop.refit(found, Batches(), course.best_epoch + 1, recipe, kept, on_epoch, None)
    return Trained(course, start, found)


LOSSES = [1.0, 0.9, 0.8, 0.6, 0.7, 0.65, 0.75, 0.5, 0.4, 0.3]
RECIPES = {
    "refit": FinetuneConfig(epochs=6, head_epochs=2, patience=2, learning_rate=0.1, schedule="cosine"),
    "no refit": FinetuneConfig(epochs=6, head_epochs=2, patience=2, learning_rate=0.1, refit=False),
    "best of the head": FinetuneConfig(epochs=2, head_epochs=4, patience=0, learning_rate=0.1, refit=False),
    "no head": FinetuneConfig(epochs=4, head_epochs=0, patience=0, learning_rate=0.1, schedule="one_cycle"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_wherever_it_is_interrupted_it_trains_the_same_and_nothing_twice(tmp_path: Path, name: str) -> None:
    recipe = RECIPES[name]
    epochs: list[tuple[str, int]] = []
    whole = train(Run(tmp_path / "whole"), recipe, LOSSES, interrupt_after(epochs, 0))
    assert len(set(epochs)) == len(epochs) > 3
    for every in range(1, len(epochs) + 1):
        run, again, sessions = Run(tmp_path / f"run{every}"), list[tuple[str, int]](), 0
        while sessions < 20:
            sessions += 1
            try:
                found = train(run, recipe, LOSSES, interrupt_after(again, every))
                break
            except KeyboardInterrupt:
                continue
        assert sessions == 1 + len(epochs) // every
        assert again == epochs
        np.testing.assert_equal(found.network.get_state(), whole.network.get_state())
        assert (found.course.curves, found.course.best_epoch, found.start) == (
            whole.course.curves,
            whole.course.best_epoch,
            whole.start,
        )
        np.testing.assert_array_equal(found.course.predictions, whole.course.predictions)


def test_it_stops_after_patience_epochs_without_a_lower_loss(tmp_path: Path) -> None:
    found = train(Run(tmp_path), RECIPES["refit"], LOSSES)
    assert len(found.course.curves["val_loss"]) == 5  # the third was best
    assert found.course.best_epoch == 2
    assert [row[0] for row in found.network.trained] == [0, 1, 2]


def test_patience_counts_after_the_epochs_of_the_head(tmp_path: Path) -> None:
    """However good the head's own epochs were, all is trained for an epoch, and for as many more as patience says."""
    losses = [1.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    recipe = FinetuneConfig(epochs=6, head_epochs=3, patience=2, learning_rate=0.1)
    found = train(Run(tmp_path), recipe, losses)
    assert len(found.course.curves["val_loss"]) == 3 + 1 + 2
    assert found.course.best_epoch == 0
    assert [row[:2] for row in found.network.trained] == [(0, True)]


def test_without_patience_it_never_stops_early(tmp_path: Path) -> None:
    losses = [1.0 + number for number in range(10)]
    found = train(Run(tmp_path), FinetuneConfig(epochs=6, head_epochs=3, patience=0, learning_rate=0.1), losses)
    assert len(found.course.curves["val_loss"]) == 9


@pytest.mark.parametrize("name", ["no refit", "best of the head"])
def test_without_refit_the_network_is_as_after_its_best_epoch(tmp_path: Path, name: str) -> None:
    found = train(Run(tmp_path), RECIPES[name], LOSSES)
    assert len(found.network.trained) == found.course.best_epoch + 1 < len(found.course.curves["val_loss"])
    assert found.network.head_only == (found.course.best_epoch < RECIPES[name].head_epochs)


def test_a_schedule_goes_over_the_epochs_after_those_of_the_head(tmp_path: Path) -> None:
    recipe = FinetuneConfig(epochs=3, head_epochs=2, patience=0, learning_rate=0.1, schedule="cosine", refit=False)
    found = train(Run(tmp_path), recipe, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    rates = np.array([row[3:] for row in found.network.trained])
    assert np.isnan(rates[:2]).all()
    np.testing.assert_allclose(rates[2:].ravel(), 0.1 * compute_factors("cosine", 3 * STEPS))
    assert [row[1:3] for row in found.network.trained] == [(True, 0), (True, 1), (False, 0), (False, 1), (False, 2)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SweepRun:
    return make_sweep_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module", autouse=True)
def _unexported() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "finish_run", lambda *_, **__: (None, None, ()))
        yield


OPTIONS: dict[str, Any] = {"epochs": 2, "head_epochs": 1, "mixup": 0.2}


@dataclasses.dataclass
class Whole:
    """The run that nobody disturbed, and its epochs."""

    run: Run
    epochs: list[tuple[str, int]]


@pytest.fixture(scope="module")
def whole(made: SweepRun, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    epochs: list[tuple[str, int]] = []
    out = tmp_path_factory.mktemp("whole") / "new"
    return Whole(tune(made, out, on_epoch=interrupt_after(epochs, 0), **OPTIONS), epochs)


def same(run: Run, whole: Run) -> None:
    """The same answers, weights, curves and choice."""
    np.testing.assert_allclose(run.load_probabilities(), whole.load_probabilities(), atol=1e-5)
    (trial, score), (its, expected) = run.find_trial(), whole.find_trial()
    assert trial == its
    assert score.fit_info["epochs"] == expected.fit_info["epochs"]
    for name, curve in expected.fit_info["curves"].items():
        assert score.fit_info["curves"][name] == pytest.approx(curve, abs=2e-5)
    found, wanted = (FinetunedWeights.load(each, trial).weights for each in (run, whole))
    for name, arrays in wanted.items():
        for mine, theirs in zip(found[name], arrays, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_interrupted_in_both_trainings_it_ends_with_the_same_answers(made: SweepRun, whole: Whole, tmp_path: Path) -> None:
    out, epochs = tmp_path / "new", list[tuple[str, int]]()
    assert [stage for stage, _ in whole.epochs] == ["choose"] * 3 + ["refit"] * (len(whole.epochs) - 3)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            tune(made, out, on_epoch=interrupt_after(epochs, 2), **OPTIONS)
        assert (out / "checkpoint.npz").exists()
        with pytest.raises(RunError, match="the run was interrupted; resume it with: "):
            Run.load(out)
    assert epochs[-1] == ("refit", 1)
    run = tune(made, out, on_epoch=interrupt_after(epochs, 0), **OPTIONS)
    assert epochs == whole.epochs
    same(run, whole.run)
    assert not (out / "checkpoint.npz").exists()
    assert read_files(out).keys() == read_files(whole.run.path).keys()


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tuning import SweepRun, tune

def on_epoch(epoch):
    print(epoch.stage, epoch.number, flush=True)
    if epoch.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)

tune(SweepRun(Path(sys.argv[2])), Path(sys.argv[3]), on_epoch=on_epoch, epochs=2, head_epochs=1, mixup=0.2)
"""


def test_killed_between_two_epochs_it_goes_on_after_the_last(
    made: SweepRun, whole: Whole, tmp_path: Path, warm_python: WarmPython
) -> None:
    out, tests = tmp_path / "new", str(Path(inspect.getfile(tune)).parent)
    command = [sys.executable, "-c", KILLED, tests, str(made.folder), str(out)]
    killed = warm_python.run(command)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed.stdout.split("\n") == ["choose 0", "choose 1", "choose 2", ""]
    epochs: list[tuple[str, int]] = []
    run = tune(made, out, on_epoch=interrupt_after(epochs, 0), **OPTIONS)
    assert epochs == whole.epochs[2:]
    same(run, whole.run)
    assert read_files(out).keys() == read_files(whole.run.path).keys()


def test_a_checkpoint_that_a_kill_left_in_a_complete_run_goes_with_the_next_command(
    made: SweepRun, whole: Whole, tmp_path: Path
) -> None:
    out = tmp_path / "new"
    shutil.copytree(whole.run.path, out)
    (out / "checkpoint.npz").write_bytes(b"left")
    tune(made, out, **OPTIONS)
    assert read_files(out) == read_files(whole.run.path)


def damaged(path: Path, kind: str) -> None:
    """Damage a checkpoint."""
    data = path.read_bytes()
    if kind == "of something else":
        np.savez(path, a=np.zeros(3))
    else:
        middle = len(data) // 2
        changed = {"empty": b"", "cut short": data[:middle], "flipped": data[:middle] + b"\xff" * 9 + data[middle + 9 :]}
        path.write_bytes(changed[kind])


@pytest.mark.parametrize("kind", ["empty", "cut short", "flipped", "of something else"])
def test_a_damaged_checkpoint_is_one_line_that_says_what_to_do(tmp_path: Path, kind: str) -> None:
    run = Run(tmp_path)
    weights = np.random.default_rng(0).normal(size=400)
    Checkpoint.load(run).write({"stage": "choose"}, {"state": [weights, weights[:5]], "answers": []})
    kept = Checkpoint.load(run)
    assert kept.metadata == {"stage": "choose"}
    np.testing.assert_equal(kept.arrays, {"state": [weights, weights[:5]], "answers": []})
    damaged(tmp_path / "checkpoint.npz", kind)
    with pytest.raises(RunError) as caught:
        Checkpoint.load(run)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'checkpoint.npz'}: the checkpoint cannot be read: ")
    assert said.endswith("; delete this file to train from the start")
    assert "\n" not in said
    (tmp_path / "checkpoint.npz").unlink()
    assert Checkpoint.load(run).metadata == {}
