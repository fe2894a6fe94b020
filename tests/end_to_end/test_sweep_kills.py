"""A sweep killed at any moment, again and again, ends as one that nobody disturbed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from humeris.cache.errors import RunError
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.cache.typed_json import to_json
from humeris.classify.runs.run import Run
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.images.load import load_images

PNG = b"\x89PNG\r\n\x1a\n"
HEADS = ["logreg,C=0.01/0.1", "logreg,C=1/10/100"]
TAPS = 4
SWEEP = """
import sys
from pathlib import Path
from humeris.cache.store import Store
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.images.load import load_images

def told(done, total):
    print(done, total, flush=True)

store = Store(sys.argv[1])
images = load_images(sys.argv[2], store, jobs=1)
config = SweepConfig(sys.argv[5:], concatenate=True, out=sys.argv[3], jobs=int(sys.argv[4]))
sweep(images, store, config, progress=told)
"""


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    for role, count in {"train": 20, "test": 10}.items():
        for label in ("cat", "dog"):
            folder = tmp_path / "photos" / role / label
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number:03}.png").write_bytes(PNG + f"{role} {label} {number}".encode())
    store = Store(tmp_path / "cache", write=True)
    images = load_images(tmp_path / "photos", store, jobs=1)
    cats = np.array([label == "cat" for label in images.labels])
    for tap in range(TAPS):
        rows = np.random.default_rng(tap).normal(size=(len(cats), 30)) + tap / 3 * cats[:, None]
        spec = ExtractionSpec("made_up", "test", "none", "0" * 64, (8, 8), "none", "1")
        store.get_extraction(spec).add(f"layer{tap}", "avg", images.keys, rows.astype(np.float32))
    return tmp_path


def ids(run: Path) -> list[str]:
    """The trials in the file, whole lines only."""
    path = run / "trials.jsonl"
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line)["id"])
        except ValueError:
            continue
    return found


@pytest.mark.parametrize("jobs", [1, 2])
def test_kills_at_any_moment_lose_no_trial_and_repeat_none(cached: Path, jobs: int) -> None:
    store = Store(cached / "cache")
    images = load_images(cached / "photos", store, jobs=1)
    whole = sweep(images, store, SweepConfig(HEADS, concatenate=True, out=cached / "whole", jobs=1))

    chance, out = random.Random(jobs), cached / "run"
    command = [sys.executable, "-c", SWEEP, str(store.path), str(cached / "photos"), str(out), str(jobs), *HEADS]
    kills, before = 0, []
    for _ in range(40):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(chance.randint(2, 4)):
                process.stdout.readline()
            if chance.random() < 0.9:
                process.kill()
            _, errors = process.communicate()
        now = ids(out)
        assert now[: len(before)] == before, "a trial was lost"
        assert len(set(now)) == len(now), "a trial was run twice"
        kills, before = kills + (process.returncode == -9), now
        if process.returncode == 0:
            break
        assert process.returncode == -9, errors
    assert kills >= 2
    run = Run.load(out)
    assert len(run.load_trials()) == 5 * (TAPS + 1)
    found, expected = ({trial.id: score for trial, score in each.load_trials().items()} for each in (run, whole))
    assert found.keys() == expected.keys()
    for name, score in expected.items():
        assert (found[name].accuracy, found[name].correct) == (score.accuracy, score.correct)
        # how many threads a product is shared by, and so float32's digits, depends on how many tasks are left
        assert found[name].log_loss == (score.log_loss if jobs == 1 else pytest.approx(score.log_loss, rel=1e-3))
    assert run.result.best.id == whole.result.best.id
    assert jobs > 1 or same_but_for_seconds(run, whole)


def same_but_for_seconds(run: Run, whole: Run) -> bool:
    """Whether two runs found the same."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {name: plain(each) for name, each in value.items() if name != "seconds"}
        return [plain(each) for each in value] if isinstance(value, list) else value

    first, second = to_json(run.result), to_json(whole.result)
    return all(plain(first[name]) == plain(second[name]) for name in ("best", "runner_up", "test"))


def test_each_matrix_is_loaded_once_for_all_its_heads(
    cached: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from humeris.classify.data.feature_matrix import FeatureMatrix

    read: list[tuple[int, ...]] = []
    honest: Callable[[FeatureMatrix, np.ndarray], np.ndarray] = FeatureMatrix._read_rows

    def counted(self: FeatureMatrix, rows: np.ndarray) -> np.ndarray:
        read.append(self.shape)
        return honest(self, rows)

    monkeypatch.setattr(FeatureMatrix, "_read_rows", counted)
    store = Store(cached / "cache")
    sweep(load_images(cached / "photos", store, jobs=1), store, SweepConfig(HEADS, out=tmp_path / "run2", jobs=1))
    assert read.count((40, 30)) == TAPS + 2  # and once for the winner's last training, and for its near-duplicates
    assert not capfd.readouterr().out


@pytest.mark.parametrize("head", ["ridge", "lda", "knn", "centroid"])
def test_features_larger_than_memory_are_never_held_whole(
    cached: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, head: str
) -> None:
    from humeris.classify.data import feature_matrix

    store = Store(cached / "cache")
    images = load_images(cached / "photos", store, jobs=1)
    whole = sweep(images, store, SweepConfig([head], layers=["layer3"], out=tmp_path / "held", jobs=1))

    def refuse(self: feature_matrix.FeatureMatrix) -> np.ndarray:
        if self._array is None:
            raise AssertionError(f"the whole of {self.shape} was asked for")
        return self._array

    monkeypatch.setattr(feature_matrix, "_get_total_memory", lambda: 4000)  # bytes; the rows to learn from take 4,800
    monkeypatch.setattr(feature_matrix, "_BLOCK", 1200)
    monkeypatch.setattr(feature_matrix.FeatureMatrix, "to_array", refuse)
    streamed = sweep(images, store, SweepConfig([head], layers=["layer3"], out=tmp_path / "streamed", jobs=1))
    assert {trial.id: score.accuracy for trial, score in streamed.load_trials().items()} == {
        trial.id: score.accuracy for trial, score in whole.load_trials().items()
    }
    assert streamed.result.best.id == whole.result.best.id


def test_two_sweeps_never_work_on_one_run(cached: Path) -> None:
    """The second is told so in one line, while the first is at work; the first loses nothing, and then the run is there."""
    store = Store(cached / "cache")
    images = load_images(cached / "photos", store, jobs=1)
    refused = []

    def meanwhile(done: int, total: int) -> None:
        if not refused and done:
            with pytest.raises(RunError, match=r"cannot lock run .*: another process is writing to it; wait") as caught:
                sweep(images, store, SweepConfig(HEADS, out=cached / "run", jobs=1))
            refused.append(caught.value)

    first = sweep(images, store, SweepConfig(HEADS, out=cached / "run", jobs=1), progress=meanwhile)
    assert len(refused) == 1
    lines = ids(cached / "run")
    assert len(lines) == len(set(lines)) == 5 * TAPS
    assert sweep(images, store, SweepConfig(HEADS, out=cached / "run", jobs=1)).metadata == first.metadata
    assert sorted(path.name for path in (cached / "run").iterdir() if path.name.startswith(".")) == []
