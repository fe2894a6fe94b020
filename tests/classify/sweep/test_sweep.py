"""Sweeps: honest, resumable, repeatable, and without TensorFlow for linear heads."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached_features import PNG, fill, numbers, some_spec, write_photos

from humeris.cache.errors import DataError, HeadError, RunError
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.classify.evaluate.confidence_intervals import wilson_ci
from humeris.classify.heads.families.logreg import LogisticRegression
from humeris.classify.heads.training_data import TrainingData
from humeris.classify.runs.run import Run
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.images.images import Images
from humeris.extract.images.load import load_images

logreg = LogisticRegression()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", write=True)


@pytest.fixture
def photos_of(tmp_path: Path, store: Store) -> Callable[..., Images]:
    def make(counts: dict[str, int], classes: Sequence[str] = ("cat", "dog"), name: str = "photos") -> Images:
        return load_images(write_photos(tmp_path / name, counts, classes), store, jobs=1)

    return make


def rows_of(run: Run, name: str) -> list[dict[str, str]]:
    with (run.path / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_seconds(run: Run) -> list[dict[str, str]]:
    return [{name: cell for name, cell in row.items() if name != "seconds"} for row in rows_of(run, "leaderboard.csv")]


def test_the_informative_layer_wins_and_scores_on_the_test_split(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path
) -> None:
    images = photos_of({"train": 30, "test": 20})
    fill(store, images, {"noise": 0, "good": 4})
    run = sweep(images, store, SweepConfig(["logreg,C=0.1/1"], out=tmp_path / "run", jobs=1))
    best = run.result.best
    assert best.tap_refs[0].layer == "good"
    assert run.result.test.accuracy > 0.9
    assert run.result.test.images == 40
    assert run.complete


def test_labels_at_random_score_at_chance(store: Store, photos_of: Callable[..., Images], tmp_path: Path) -> None:
    images = photos_of({"train": 100, "test": 150})
    fill(store, images, {f"layer{number}": 0 for number in range(6)}, columns=20)
    run = sweep(images, store, SweepConfig(["logreg"], out=tmp_path / "run", jobs=1))
    low, high = run.result.test.accuracy_95
    assert low <= 0.5 <= high
    assert high - low < 0.12
    accuracies = [score.accuracy for score in run.load_trials().values()]
    assert max(accuracies) < 0.62  # a leak raises it; cross-validation of noise itself errs downwards
    assert abs(np.mean(accuracies) - 0.5) < 0.06


def test_three_classes_at_random_score_at_chance_when_chosen_on_val(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path
) -> None:
    images = photos_of({"train": 60, "val": 20, "test": 100}, ("a", "b", "c"))
    fill(store, images, {f"layer{number}": 0 for number in range(6)}, columns=10)
    run = sweep(images, store, SweepConfig(["logreg"], out=tmp_path / "run", jobs=1))
    low, high = run.result.test.accuracy_95
    assert run.metadata.splits.select == "val"
    assert low <= 1 / 3 <= high


def test_the_labels_of_test_images_change_neither_the_leaderboard_nor_the_choice(store: Store, tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", {"train": 30, "test": 20})
    runs = []
    for name, swap in (("true", False), ("swapped", True)):
        lines = ["path,label,split"]
        for path in sorted(root.glob("*/*/*.png")):
            split, label = path.parts[-3:-1]
            if swap and split == "test":
                label = {"cat": "dog", "dog": "cat"}[label]
            lines.append(f"{path.relative_to(root)},{label},{split}")
        (root / f"{name}.csv").write_text("\n".join(lines))
        images = load_images(root / f"{name}.csv", store, jobs=1)
        if not swap:
            fill(store, images, {"weak": 1.2, "good": 2.5, "noise": 0})
        runs.append(sweep(images, store, SweepConfig(["logreg"], out=tmp_path / name, jobs=1)))
    true, swapped = runs
    assert without_seconds(true) == without_seconds(swapped)
    assert true.result.best.id == swapped.result.best.id
    assert true.result.test.accuracy == pytest.approx(1 - swapped.result.test.accuracy)
    assert true.result.test.accuracy != 0.5


def test_features_of_test_images_change_neither_the_leaderboard_nor_the_head(
    photos_of: Callable[..., Images], tmp_path: Path
) -> None:
    runs = []
    for number in range(2):
        store = Store(tmp_path / f"cache{number}", write=True)
        images = photos_of({"train": 20, "test": 10}, name=f"photos{number}")
        rows = np.random.default_rng(0).normal(size=(len(images.used), 5)) + 2 * np.eye(5)[numbers(images)]
        test = np.array([image.item.split == "test" for image in images.used])
        rows[test] += number * 1e4
        store.get_extraction(some_spec()).add("layer", "avg", images.keys, rows.astype(np.float32))
        runs.append(sweep(images, store, SweepConfig(["logreg,C=0.1/1"], out=tmp_path / f"run{number}", jobs=1)))
    assert without_seconds(runs[0]) == without_seconds(runs[1])
    heads = [run.load_head(run.find_trial()[0]) for run in runs]
    assert heads[0] is not None
    assert heads[1] is not None
    assert (heads[0].layers[0].weights == heads[1].layers[0].weights).all()


def test_the_winner_is_trained_again_on_train_and_val(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path
) -> None:
    images = photos_of({"train": 20, "val": 20, "test": 10}).sort_by_digest()
    fill(store, images, {"layer": 1.5})
    run = sweep(images, store, SweepConfig(["logreg,C=0.1"], out=tmp_path / "run", jobs=1))
    rows = store.get_extraction(some_spec()).get_features("layer", "avg").read(images.keys)
    learnt = np.array([image.item.split != "test" for image in images.used])
    expected = logreg.fit(TrainingData.from_arrays(rows[learnt], numbers(images)[learnt], []), {"C": 0.1}, {}, 0)
    head = run.load_head(run.find_trial()[0])
    assert head is not None
    assert (head.layers[0].weights == expected.layers[0].weights).all()
    by_name = np.argsort([image.name for image in images.used if image.item.split == "test"])
    assert np.allclose(run.load_probabilities(), expected.predict_proba(rows[~learnt])[by_name], rtol=0, atol=1e-6)


def test_the_leaderboard_has_every_trial_the_best_setting_of_the_best_source_first(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path
) -> None:
    images = photos_of({"train": 30, "test": 10})
    fill(store, images, {"noise": 0, "weak": 1, "good": 4})
    run = sweep(images, store, SweepConfig(["logreg"], out=tmp_path / "run", jobs=1))
    rows = rows_of(run, "leaderboard.csv")
    assert [int(row["rank"]) for row in rows] == list(range(1, 19))
    assert {(row["layer"], row["hyperparameters"]) for row in rows} == {
        (layer, f"C={value}") for layer in ("noise", "weak", "good") for value in logreg.options["C"].default
    }
    assert [row["layer"] for row in rows[::6]] == ["good", "weak", "noise"]
    for start in (0, 6, 12):
        losses = [float(row["log_loss"]) for row in rows[start : start + 6]]
        assert losses == sorted(losses)
    assert rows[0]["trial"] == run.result.best.id
    assert {row["trial"] for row in rows} == {trial.id for trial in run.load_trials()}


def test_the_table_of_images_has_every_path_once_with_its_outcome(store: Store, tmp_path: Path) -> None:
    root = write_photos(tmp_path / "photos", {"train": 12, "test": 6})
    (root / "train/cat/copy.png").write_bytes((root / "train/cat/000.png").read_bytes())
    (root / "train/cat/empty.png").write_bytes(b"")
    (root / "train/cat/page.jpg").write_text("<html>")
    (root / "train/dog/=cmd().png").write_bytes(PNG + b"a formula")
    images = load_images(root, store, jobs=1)
    fill(store, images, {"layer": 3})
    run = sweep(images, store, SweepConfig(["logreg,C=1"], out=tmp_path / "run", jobs=1))
    outcomes = {row["path"]: row["outcome"] for row in rows_of(run, "images.csv")}
    assert len(outcomes) == len(rows_of(run, "images.csv"))
    assert set(outcomes) == {str(path.relative_to(root)) for path in root.rglob("*.*")}
    assert {name for name, outcome in outcomes.items() if outcome != "used"} == {
        "train/cat/copy.png", "train/cat/empty.png", "train/cat/page.jpg",
    }  # fmt: skip
    assert [record.name for record in run.load_image_records()] == [image.name for image in images.used]
    assert [record.digest for record in run.load_image_records()] == [image.digest for image in images.used]
    assert {record.split for record in run.load_image_records()} == {"train", "test"}


def test_predictions_are_those_of_the_probabilities_row_for_row(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path
) -> None:
    images = photos_of({"train": 12, "test": 6})
    fill(store, images, {"layer": 2})
    run = sweep(images, store, SweepConfig(["logreg,C=1"], out=tmp_path / "run", jobs=1))
    rows, probabilities = rows_of(run, "predictions.csv"), run.load_probabilities()
    assert [row["path"] for row in rows] == [record.name for record in run.load_image_records() if record.split == "test"]
    assert [row["predicted"] for row in rows] == [["cat", "dog"][number] for number in probabilities.argmax(axis=1)]
    assert [float(row["probability"]) for row in rows] == pytest.approx(probabilities.max(axis=1).tolist(), abs=1e-6)
    right = np.mean([row["label"] == row["predicted"] for row in rows])
    assert run.result.test.accuracy == pytest.approx(right)


def test_a_run_describes_everything_that_repeats_it(store: Store, photos_of: Callable[..., Images], tmp_path: Path) -> None:
    images = photos_of({"train": 12, "test": 6})
    fill(store, images, {"layer": 2})
    run = sweep(
        images, store, SweepConfig(["logreg,C=1"], out=tmp_path / "run", jobs=1, seed=5), command="humeris sweep photos"
    )
    found = json.loads((run.path / "run.json").read_text())
    assert found["command"] == "humeris sweep photos"
    assert found["seed"] == 5
    assert found["heads"] == [{"head": "logreg", "hyperparameter_sets": [{"C": 1.0}]}]
    assert found["specs"] == {some_spec().folder_name: some_spec().to_dict()}
    assert found["splits"]["train"] == 24
    assert found["data"]["origin"]["root"] == str(tmp_path / "photos")
    assert found["left_out"] == []


def count_solved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the number of settings each time logistic regression is cross-validated."""
    solved: list[int] = []
    solve = LogisticRegression.cross_validate

    def counted(*arguments: Any) -> Any:
        solved.append(len(arguments[2]))
        return solve(*arguments)

    monkeypatch.setattr(LogisticRegression, "cross_validate", counted)
    return solved


def test_a_complete_run_is_returned_without_training(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = photos_of({"train": 12, "test": 6})
    fill(store, images, {"layer": 2})
    first = sweep(images, store, SweepConfig(["logreg"], out=tmp_path / "run", jobs=1))
    before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
    solved = count_solved(monkeypatch)
    again = sweep(images, store, SweepConfig(["logreg"], out=tmp_path / "run", jobs=1))
    assert solved == []
    assert again.summarize() == first.summarize()
    assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*")} == before


INTERRUPTED = """
import sys
from pathlib import Path
from humeris.cache.store import Store
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.images.load import load_images

def wait(done, total):
    print(done, total, flush=True)
    sys.stdin.readline()

store = Store(sys.argv[1])
config = SweepConfig("logreg,C=0.1/1", out=sys.argv[3], jobs=1)
sweep(load_images(sys.argv[2], store, jobs=1), store, config, progress=wait)
"""


def test_a_killed_sweep_goes_on_without_losing_or_repeating_a_trial(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = photos_of({"train": 12, "test": 6})
    fill(store, images, {f"layer{number}": number for number in range(5)})
    undisturbed = sweep(images, store, SweepConfig(["logreg,C=0.1/1"], out=tmp_path / "undisturbed", jobs=1))

    out = tmp_path / "run"
    command = [sys.executable, "-c", INTERRUPTED, str(store.path), str(tmp_path / "photos"), str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "2 10\n"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "4 10\n"
        process.kill()
    assert len(Run(out).load_trials()) == 4
    with pytest.raises(RunError, match="the run was interrupted; resume it with: "):
        Run.load(out)

    solved = count_solved(monkeypatch)
    resumed = sweep(images, store, SweepConfig(["logreg,C=0.1/1"], out=out, jobs=1))
    assert solved == [2, 2, 2]
    lines = [json.loads(line)["id"] for line in (out / "trials.jsonl").read_text().splitlines()]
    assert len(lines) == len(set(lines)) == 10
    assert without_seconds(resumed) == without_seconds(undisturbed)
    assert resumed.result.test == undisturbed.result.test


def forget_result(run: Run) -> None:
    """Make a run one that was killed after its last trial."""
    (run.path / "run.json").write_text(json.dumps(replace(run.metadata, result=None).to_dict()))


def test_a_sweep_whose_last_line_is_torn_repeats_that_trial_alone(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = photos_of({"train": 12, "test": 6})
    fill(store, images, {"one": 1, "two": 2})
    run = sweep(images, store, SweepConfig(["logreg,C=1"], out=tmp_path / "run", jobs=1))
    whole = without_seconds(run)
    forget_result(run)
    lines = (run.path / "trials.jsonl").read_bytes()
    (run.path / "trials.jsonl").write_bytes(lines[:-30])
    solved = count_solved(monkeypatch)
    assert without_seconds(sweep(images, store, SweepConfig(["logreg,C=1"], out=run.path, jobs=1))) == whole
    assert solved == [1]


def test_the_seconds_of_a_run_are_those_of_all_its_sessions(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path
) -> None:
    images = photos_of({"train": 12, "test": 6})
    fill(store, images, {"one": 1, "two": 2})
    run = sweep(images, store, SweepConfig(["logreg,C=1"], out=tmp_path / "run", jobs=1))
    seconds = run.result.seconds
    run.finish(replace(run.result, seconds=40.0))
    photos_of({"train": 12, "test": 6}, name="elsewhere")  # the same images: swept again, without training
    (tmp_path / "elsewhere/train/cat/000.png").rename(tmp_path / "elsewhere/train/cat/renamed.png")
    moved = load_images(tmp_path / "elsewhere", store, jobs=1)
    again = sweep(moved, store, SweepConfig(["logreg,C=1"], out=run.path, jobs=1))
    assert again.metadata.data.listing != run.metadata.data.listing
    assert 40 <= again.result.seconds < 400

    lines = [json.loads(line) for line in (run.path / "trials.jsonl").read_text().splitlines()]
    assert 0 < lines[0]["elapsed"] <= lines[1]["elapsed"] <= seconds
    (run.path / "trials.jsonl").write_text(json.dumps({**lines[0], "elapsed": 70.0}) + "\n")  # killed after one trial
    forget_result(again)
    resumed = sweep(moved, store, SweepConfig(["logreg,C=1"], out=run.path, jobs=1))
    assert 70 < resumed.result.seconds < 700
    assert 70 < json.loads((run.path / "trials.jsonl").read_text().splitlines()[-1])["elapsed"] < 700


@pytest.mark.parametrize("change", ["seed", "heads", "features", "select", "images"])
def test_another_question_does_not_go_on_in_the_same_folder(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path, change: str
) -> None:
    images = photos_of({"train": 12, "val": 6, "test": 6})
    fill(store, images, {"one": 1, "two": 2})
    sweep(images, store, SweepConfig(["logreg,C=1"], out=tmp_path / "run", jobs=1))
    options: dict[str, Any] = {"out": tmp_path / "run", "jobs": 1}
    heads = ["logreg,C=1"]
    if change == "seed":
        options["seed"] = 1
    elif change == "heads":
        heads = ["logreg,C=2"]
    elif change == "features":
        options["layers"] = ["one"]
    elif change == "select":
        options["select"] = "cv"
    else:
        (tmp_path / "photos/train/cat/000.png").unlink()
        images = load_images(tmp_path / "photos", store, jobs=1)
    with pytest.raises(
        RunError, match=r"the folder holds a run of other images, features or options; give another folder with -o"
    ):
        sweep(images, store, SweepConfig(heads, **options))


def test_without_a_folder_the_same_question_finds_its_own_run_and_another_one_another(
    store: Store, photos_of: Callable[..., Images]
) -> None:
    images = photos_of({"train": 12, "test": 6})
    fill(store, images, {"layer": 2})
    first = sweep(images, store, SweepConfig(["logreg,C=1"], jobs=1))
    assert first.path.parent == Path("runs")
    assert first.path.name.startswith("photos-")
    assert sweep(images, store, SweepConfig(["logreg,C=1"], jobs=1)).path == first.path
    assert sweep(images, store, SweepConfig(["logreg,C=2"], jobs=1)).path != first.path


def test_two_processes_give_the_same_run_as_one(store: Store, photos_of: Callable[..., Images], tmp_path: Path) -> None:
    images = photos_of({"train": 12, "test": 6})
    fill(store, images, {"one": 1, "two": 2, "three": 0})
    alone = sweep(images, store, SweepConfig(["logreg,C=0.1/1"], out=tmp_path / "alone", jobs=1))
    together = sweep(images, store, SweepConfig(["logreg,C=0.1/1"], out=tmp_path / "together", jobs=2))
    assert [row["trial"] for row in rows_of(alone, "leaderboard.csv")] == [
        row["trial"] for row in rows_of(together, "leaderboard.csv")
    ]
    for trial, score in alone.load_trials().items():
        assert together.load_trials()[trial].correct == score.correct
        assert together.load_trials()[trial].log_loss == pytest.approx(score.log_loss, rel=1e-5)
    assert alone.result.test.confusion == together.result.test.confusion
    assert alone.result.test.log_loss == pytest.approx(together.result.test.log_loss, rel=1e-5)


LINEAR = """
import sys
sys.argv = ["humeris", "sweep", sys.argv[1], "--cache", sys.argv[2], "-o", sys.argv[3], "-j", "1", "-q"]
from humeris.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(sorted(name for name in ("tensorflow", "keras", "jax", "torch") if name in sys.modules))
"""


def test_a_linear_sweep_imports_no_tensorflow(store: Store, photos_of: Callable[..., Images], tmp_path: Path) -> None:
    fill(store, photos_of({"train": 12, "test": 6}), {"layer": 2})
    command = [sys.executable, "-c", LINEAR, str(tmp_path / "photos"), str(store.path), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert Run.load(tmp_path / "run").complete


def test_taps_that_lack_images_are_left_out_and_listed(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path, humeris: Any
) -> None:
    images = photos_of({"train": 12, "test": 6})
    fill(store, images, {"whole": 2})
    keys = images.keys[:-5]
    store.get_extraction(some_spec()).add("partial", "avg", keys, np.zeros((len(keys), 3), np.float32))
    result = humeris("sweep", tmp_path / "photos", "--cache", store.path, "-j", 1, "-o", tmp_path / "run")
    assert result.code == 1
    assert "left out: made_up/partial:avg lacks rows of 5 images" in result.out
    run = Run.load(tmp_path / "run")
    assert [(each.layer, each.images_missing) for each in run.metadata.left_out] == [("partial", 5)]
    assert {trial.tap_refs[0].layer for trial in run.load_trials()} == {"whole"}


def test_features_of_other_images_are_not_mentioned(store: Store, photos_of: Callable[..., Images], tmp_path: Path) -> None:
    others = photos_of({"train": 3}, ("x", "y"), name="others")
    fill(store, others, {"theirs": 1})
    images = photos_of({"train": 12, "test": 6})
    fill(store, images, {"ours": 2})
    run = sweep(images, store, SweepConfig(["logreg,C=1"], out=tmp_path / "run", jobs=1))
    assert run.metadata.left_out == ()
    assert {trial.tap_refs[0].layer for trial in run.load_trials()} == {"ours"}


def test_with_nothing_cached_the_next_command_is_named(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path
) -> None:
    images = photos_of({"train": 12, "test": 6})
    with pytest.raises(DataError, match=r"no features of all 36 images are cached; run `humeris extract`"):
        sweep(images, store, SweepConfig(["logreg"], out=tmp_path / "run", jobs=1))
    assert not (tmp_path / "run").exists()


def test_layers_pools_and_backbones_choose_what_is_swept(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path
) -> None:
    images = photos_of({"train": 12, "test": 6})
    fill(store, images, {"mixed4": 1, "mixed5": 1, "top": 1})
    store.get_extraction(some_spec()).add("mixed5", "max", images.keys, np.ones((36, 2), np.float32))

    def swept(name: str, **options: Any) -> set[str]:
        run = sweep(images, store, SweepConfig(["logreg,C=1"], out=tmp_path / name, jobs=1, **options))
        return {str(trial.tap_refs[0]).partition("/")[2] for trial in run.load_trials()}

    assert swept("a", layers=["mixed_5"]) == {"mixed5:avg", "mixed5:max"}
    assert swept("b", layers=["mixed*:avg"]) == {"mixed4:avg", "mixed5:avg"}
    assert swept("c", pools=["max"]) == {"mixed5:max"}
    with pytest.raises(DataError, match=r"no features are cached for -b nano; run `humeris extract`"):
        swept("d", backbones=[BackboneSpec.parse("nano")], layers=["mixed5"])


def test_backbones_compete_in_one_sweep(store: Store, photos_of: Callable[..., Images], tmp_path: Path) -> None:
    images = photos_of({"train": 30, "test": 10})
    fill(store, images, {"layer": 0}, backbone="poor")
    spec = ExtractionSpec("rich", "other", "none", "1" * 64, (8, 8), "none", "1")
    rows = np.random.default_rng(9).normal(size=(80, 4)) + 5 * np.eye(4)[numbers(images)]
    store.get_extraction(spec).add("layer", "avg", images.keys, rows.astype(np.float32))
    run = sweep(images, store, SweepConfig(["logreg,C=1"], out=tmp_path / "run", jobs=1))
    assert len(run.load_trials()) == 2
    assert run.result.best.tap_refs[0].backbone == "rich"
    assert set(run.metadata.specs) == {spec.folder_name, some_spec("poor").folder_name}


def test_a_wrong_head_is_refused_before_anything_is_written(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path
) -> None:
    images = photos_of({"train": 12, "test": 6})
    fill(store, images, {"layer": 2})
    with pytest.raises(HeadError, match="head 'forest': unknown head family; use one of logreg, "):
        sweep(images, store, SweepConfig(["logreg", "forest"], out=tmp_path / "run", jobs=1))
    assert not (tmp_path / "run").exists()


def test_a_damaged_shard_is_a_miss_that_is_listed(store: Store, photos_of: Callable[..., Images], tmp_path: Path) -> None:
    images = photos_of({"train": 12, "test": 6})
    fill(store, images, {"sound": 2, "broken": 2})
    (path,) = (store.path / "features").glob("*/broken.avg/*.h5")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    reader = Store(store.path)
    run = sweep(images, reader, SweepConfig(["logreg,C=1"], out=tmp_path / "run", jobs=1))
    assert {trial.tap_refs[0].layer for trial in run.load_trials()} == {"sound"}
    assert [damage.path for damage in reader.corrupt_files] == [path]


def test_mlp_and_linear_heads_compete_in_one_sweep(store: Store, photos_of: Callable[..., Images], tmp_path: Path) -> None:
    images = photos_of({"train": 20, "val": 10, "test": 6})
    fill(store, images, {"layer": 3})
    heads = ["logreg,C=1", "mlp,hidden=4,epochs=3,batch_size=8"]
    run = sweep(images, store, SweepConfig(heads, out=tmp_path / "run", jobs=1))
    assert sorted(trial.head for trial in run.load_trials()) == ["logreg", "mlp"]
    curve = run.compute_depth_curve()
    assert {each.head for each in curve} == {"logreg", "mlp"}
    (mlp,) = [score for trial, score in run.load_trials().items() if trial.head == "mlp"]
    assert 1 <= mlp.fit_info["epochs"] <= 3


def test_the_text_ranks_what_was_tried_and_says_how_sure_that_is(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path, humeris: Any
) -> None:
    images = photos_of({"train": 30, "test": 20})
    fill(store, images, {"noise": 0, "weak": 1, "good": 4})
    result = humeris(
        "sweep", tmp_path / "photos", "--cache", store.path, "-j", 1, "-o", tmp_path / "run", "--head", "logreg"
    )
    assert result.code == 0, result.err
    run = Run.load(tmp_path / "run")
    curve = run.compute_depth_curve()
    assert [each.layer for each in sorted(curve, key=lambda each: each.rank)] == ["good", "weak", "noise"]
    lines = result.out.splitlines()
    assert "made_up: cross-validated accuracy, 60 images" in lines
    assert any(line.split()[:2] == ["1", "good:avg"] and line.endswith("<") for line in lines)
    runner_up = run.result.runner_up
    assert runner_up is not None
    assert runner_up.id == next(each.trial for each in curve if each.rank == 2)
    assert f"runner-up: logreg on made_up/weak:avg (trial {runner_up.id})" in result.out
    compared = runner_up.comparison
    assert (compared.winner, compared.images) == (run.result.best.id, 60)
    assert f"correct only by the winner: {compared.only_winner} images, " in result.out
    assert ": the difference is significant" in result.out
    assert "near-duplicates between test and training images: none found" in result.out
    assert "note: only 40 test images" in result.out
    assert f"selected from {len(run.load_trials())} trials in" in result.out


@pytest.mark.parametrize("select", ["cv", "val"])
def test_groups_are_what_is_counted_in_tests_and_intervals(store: Store, tmp_path: Path, humeris: Any, select: str) -> None:
    write_photos(tmp_path / "photos", {"train": 60, "val": 60, "test": 60})
    lines = ["path,label,split,group"]
    for split in ("train", "val", "test"):
        for label in ("cat", "dog"):
            lines += [f"photos/{split}/{label}/{n:03}.png,{label},{split},{split} {label} {n // 6}" for n in range(60)]
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    images = load_images(tmp_path / "data.csv", store, jobs=1)
    random, rows = np.random.default_rng(0), np.eye(6)[numbers(images)]
    names, group = np.unique([image.item.group for image in images.used], return_inverse=True)
    for layer in ("one", "two"):  # images of a group are nearly equal
        features = rows + random.normal(size=(len(names), 6))[group] + 0.05 * random.normal(size=rows.shape)
        store.get_extraction(some_spec()).add(layer, "avg", images.keys, features.astype(np.float32))
    options = ("--cache", store.path, "-j", 1, "-o", tmp_path / "run", "--head", "logreg,C=1", "--select", select)
    result = humeris("sweep", tmp_path / "data.csv", *options)
    assert result.code == 0, result.err
    run = Run.load(tmp_path / "run")
    groups = 20 if select == "val" else 40
    found = run.result
    assert found.runner_up is not None
    compared = found.runner_up.comparison
    assert (found.groups, compared.groups, found.test.groups) == (groups, groups, 20)
    assert compared.images == 6 * groups
    assert f"sign-flip test on {groups} groups, p = " in result.out
    assert f"{6 * groups} images in {groups} groups (CI by groups)" in result.out
    assert "), 120 images in 20 groups (CI by groups)" in result.out
    for each in run.compute_depth_curve():
        low, high = found.accuracy_95[each.trial]
        by_image = np.diff(wilson_ci(round(each.accuracy * 6 * groups), 6 * groups))
        assert low < each.accuracy < high
        assert high - low > 1.4 * by_image
        assert f"{100 * low:.1f}–{100 * high:.1f}" in result.out


def test_copies_of_training_images_in_the_test_split_are_counted_and_named(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path, humeris: Any
) -> None:
    images = photos_of({"train": 60, "test": 20})
    rows = np.random.default_rng(3).normal(size=(len(images.used), 12)).astype(np.float32)
    names = [image.name for image in images.used]
    copied = {"test/cat/003.png": "train/cat/011.png", "test/dog/007.png": "train/cat/020.png"}
    for copy, original in copied.items():
        rows[names.index(copy)] = rows[names.index(original)] + np.float32(1e-4)
    store.get_extraction(some_spec()).add("layer", "avg", images.keys, rows)
    result = humeris(
        "sweep", tmp_path / "photos", "--cache", store.path, "-j", 1, "-o", tmp_path / "run", "--head", "logreg"
    )
    found = Run.load(tmp_path / "run").result.near_duplicates
    assert {(each.test, each.development) for each in found.pairs} == set(copied.items())
    assert (found.test_images, found.cannot_tell) == (2, False)
    assert "near-duplicates between test and training images: 2 test images; test accuracy without them " in result.out
    assert "test/cat/003.png ~ train/cat/011.png" in result.out


def test_no_option_can_be_forgotten_in_the_digest_of_a_run(
    store: Store, photos_of: Callable[..., Images], tmp_path: Path
) -> None:
    @dataclass(frozen=True)
    class Wider(SweepConfig):
        threshold: float = 0.5

    images = photos_of({"train": 12, "test": 6})
    fill(store, images, {"layer": 2})

    def digest(config: SweepConfig, name: str) -> str:
        return sweep(images, store, replace(config, out=tmp_path / name)).metadata.config_hash

    first = digest(Wider("logreg,C=1", jobs=1), "first")
    assert digest(Wider("logreg,C=1", threshold=0.7, jobs=1), "other") != first
    assert digest(Wider(["logreg,C=1"], layers=["lay*"], jobs=2, cache="elsewhere"), "same") == first
