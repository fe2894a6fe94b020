"""A run is read as far as it can be, whatever state it is in, and what cannot be read is said."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import change_origin, copy_run

from humeris.cache.errors import RunError
from humeris.cache.typed_json import to_json
from humeris.classify.report.run_snapshot import RunSnapshot
from humeris.classify.runs.run import Run


def test_of_a_whole_run_everything_is_there_and_nothing_is_missing(finished: Any) -> None:
    found = RunSnapshot.read(finished.path, finished.cache)
    assert found.omissions == ()
    assert found.complete
    assert found.scores == finished.run.load_trials()
    assert found.best is not None
    assert found.best.id == finished.run.result.best.id
    assert list(found.images) == finished.run.load_image_records()
    assert found.class_names == ("blob", "noise", "stripes")
    assert len(found.predictions) == len(found.select_images("test")) == 18
    assert found.probabilities is not None
    assert found.probabilities.tolist() == finished.run.load_probabilities().tolist()
    for answer, row in zip(found.predictions, found.probabilities, strict=True):
        assert found.class_names[int(row.argmax())] == answer.predicted
        assert answer.probability == pytest.approx(row.max(), abs=1e-6)


def test_depths_are_in_the_order_of_the_run_and_rows_are_found_in_the_cache(finished: Any) -> None:
    found = RunSnapshot.read(finished.path, finished.cache)
    assert [source.layer for source in found.tap_depths] == ["block4_out", "block5_out"]
    assert [depth for depth in found.tap_depths.values() if depth is not None] == sorted(found.tap_depths.values())  # type: ignore[type-var]
    assert found.best is not None
    stored = found.open_features(found.best.tap_refs)
    assert stored is not None
    keys = np.array([image.digest for image in found.images], dtype="S32")
    assert len(stored[0].read(keys)) == len(found.images)


def test_images_are_read_only_while_they_are_what_the_run_saw(finished: Any, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(finished.photos, photos)
    data = to_json(change_origin(finished.run.metadata.data, root=str(photos)))
    found = RunSnapshot.read(copy_run(finished.path, tmp_path / "run", data=data), finished.cache)
    first, second, third, *_ = [image.name for image in found.images]
    (photos / second).write_bytes(b"another image")
    (photos / third).unlink()
    assert found.read_image(first) == (finished.photos / first).read_bytes()
    assert found.read_image(second) is None
    assert found.read_image(third) is None
    assert found.read_image("never/was.png") is None


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run folder \(no run\.json in it\)"):
        RunSnapshot.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"text"', "\udcff\x00", "[" * 100_000])
def test_an_unreadable_description_leaves_the_trials(text: str, finished: Any, tmp_path: Path) -> None:
    run = copy_run(finished.path, tmp_path / "run")
    (run / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    found = RunSnapshot.read(run, finished.cache)
    assert found.omissions[0].startswith("run.json cannot be read")
    assert found.scores == finished.run.load_trials()
    assert (found.metadata, found.class_names, found.test) == (None, (), None)


def test_a_run_in_another_format_says_which(finished: Any, tmp_path: Path) -> None:
    found = RunSnapshot.read(copy_run(finished.path, tmp_path / "run", format=77), finished.cache)
    assert found.omissions == (
        "run.json has format 77, but this version of humeris reads format 3: the configuration and the test scores are not "
        "shown",
    )
    assert found.best is not None


def test_an_interrupted_run_says_how_to_finish_it(finished: Any, tmp_path: Path) -> None:
    run = copy_run(finished.path, tmp_path / "run", result=None)
    for name in ("images.csv", "predictions.csv", "probabilities.npy", "leaderboard.csv"):
        (run / name).unlink()
    found = RunSnapshot.read(run, finished.cache)
    (line,) = found.omissions
    assert line.endswith(f"resume it with: humeris run {finished.photos}")
    assert found.best == found.ranked_trials[0]
    assert not found.complete


@pytest.mark.parametrize("name", ["trials.jsonl", "images.csv", "predictions.csv", "probabilities.npy"])
@pytest.mark.parametrize("how", ["gone", "empty", "torn", "noise", "folder"])
def test_every_file_of_a_run_may_be_gone_or_damaged(name: str, how: str, finished: Any, tmp_path: Path) -> None:
    run = copy_run(finished.path, tmp_path / "run")
    whole = (run / name).read_bytes()
    (run / name).unlink()
    if how == "folder":
        (run / name).mkdir()
    elif how != "gone":
        noise = np.random.default_rng(0).bytes(2000)
        (run / name).write_bytes({"empty": b"", "torn": whole[: len(whole) * 2 // 3], "noise": noise}[how])
    found = RunSnapshot.read(run, finished.cache)
    assert len(found.omissions) == 1
    assert name in found.omissions[0]
    assert found.class_names == ("blob", "noise", "stripes")


def test_a_torn_line_of_trials_is_counted_and_the_others_are_kept(finished: Any, tmp_path: Path) -> None:
    run = copy_run(finished.path, tmp_path / "run")
    lines = (run / "trials.jsonl").read_text().splitlines()
    broken = json.loads(lines[1])
    broken["score"]["accuracy"] = "high"
    (run / "trials.jsonl").write_text("\n".join([lines[0], json.dumps(broken), lines[2][:40], "", lines[3]]) + "\n")
    found = RunSnapshot.read(run, finished.cache)
    assert len(found.scores) == 2
    assert found.omissions == (
        "2 of the 4 lines of trials.jsonl are corrupt or from another version: their trials are not shown",
    )


def test_images_that_were_moved_or_are_partly_gone_are_counted(finished: Any, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(finished.photos, photos)
    data = to_json(change_origin(finished.run.metadata.data, root=str(photos)))
    run = copy_run(finished.path, tmp_path / "run", data=data)
    for path in sorted(photos.rglob("*.png"))[:3]:
        path.unlink()
    (line,) = RunSnapshot.read(run, finished.cache).omissions
    assert line == f"3 of the 42 images are no longer under {photos}: their thumbnails are not shown"
    photos.rename(tmp_path / "elsewhere")
    (line,) = RunSnapshot.read(run, finished.cache).omissions
    assert line.startswith(f"the images are no longer at {photos}: ")


def test_a_cache_that_is_none_is_said_and_one_that_is_gone_is_empty(finished: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    found = RunSnapshot.read(finished.path, tmp_path / "other")
    assert found.store is None
    assert found.omissions[0].startswith("the cache cannot be read")
    assert found.best is not None
    assert found.open_features(found.best.tap_refs) is None
    assert RunSnapshot.read(finished.path, tmp_path / "gone").open_features(found.best.tap_refs) is None


@pytest.mark.parametrize("value", [None, 3, "text", [1], [[]], {"a": 1}, {"root": 3, "kind": [1]}])
def test_a_description_of_other_types_is_no_reason_to_fail(value: Any, finished: Any, tmp_path: Path) -> None:
    for number, name in enumerate(finished.run.metadata.to_dict()):
        run = copy_run(finished.path, tmp_path / str(number), **{name: value})
        found = RunSnapshot.read(run, finished.cache)
        assert found.title == str(number)
        assert found.scores == finished.run.load_trials()
        readable = found.metadata is not None
        assert readable == (found.omissions == () or found.omissions[0].startswith("the run is not finished"))
        assert readable or found.omissions[0].startswith("run.json ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test": {}}, "result.test.images: expected a whole number, found nothing"),
        ({"seconds": "long"}, "result.seconds: expected a number, found 'long'"),
        ({"notes": [3]}, r"result.notes\[0\]: expected text, found 3"),
        ({"plan": "x"}, "result: expected the keys best, .*, found also 'plan'"),
    ],
)
def test_what_cannot_be_read_of_a_description_is_said(
    change: dict[str, Any], words: str, finished: Any, tmp_path: Path
) -> None:
    result = json.loads((finished.path / "run.json").read_bytes())["result"]
    found = RunSnapshot.read(copy_run(finished.path, tmp_path / "run", result={**result, **change}), finished.cache)
    assert re.search(words, found.omissions[0])
    with pytest.raises(RunError, match=rf"run\.json: cannot read the run: {words}"):
        Run.load(tmp_path / "run")
