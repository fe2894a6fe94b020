"""The run folder: plain files, resumable, never a formula for a spreadsheet."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from run_values import make_data, make_metadata, make_result

from humeris.cache.errors import RunError
from humeris.classify.evaluate.trial import Score, Trial, rank_trials
from humeris.classify.heads.head import Head
from humeris.classify.heads.layers import Dense
from humeris.classify.runs.image_records import ImageRecord
from humeris.classify.runs.metadata import FORMAT_VERSION
from humeris.classify.runs.run import Run
from humeris.extract.backbones.tap_ref import TapRef

SOURCE = TapRef("nano", "nano-64-0123456789abcdef", "block3_out", "avg")
TRIALS = [Trial((SOURCE,), "logreg", {"C": value}) for value in (0.01, 0.1, 1.0)]
SCORES = {trial: Score(accuracy, 0.5, (accuracy, accuracy)) for trial, accuracy in zip(TRIALS, (0.7, 0.9, 0.8), strict=True)}
HEADER = ["path", "outcome", "detail", "label", "split", "format", "sha256", "group"]
HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "'quoted",
    "''twice",
    "\ttab",
    "\rreturn",
    'com,ma "quote"',
    "two\nlines",
    "crlf\r\nname",
    "not\udcffutf8",
    "\u202egnp.exe",
    "ünï/çødé 猫.png",
    " spaces ",
]


def begun(path: Path) -> Run:
    run = Run(path)
    run.begin(make_metadata())
    return run


def test_a_run_is_described_before_anything_else_and_complete_only_at_the_end(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    assert not Run(run.path).complete
    with pytest.raises(RunError, match=r"the run was interrupted; resume it with: humeris sweep photos"):
        Run.load(run.path)
    result = make_result(TRIALS[1], SCORES[TRIALS[1]])
    run.finish(result)
    with pytest.raises(RunError, match=r"incomplete run: trials.jsonl is missing or has no readable trials"):
        Run.load(run.path)
    again = Run(run.path)
    assert again.complete
    assert again.result == result
    assert again.metadata == make_metadata(result=result)
    assert json.loads((run.path / "run.json").read_bytes())["format"] == FORMAT_VERSION


def test_another_place_of_the_images_replaces_the_first_when_a_run_is_finished(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    run.finish(make_result(TRIALS[1], SCORES[TRIALS[1]]), make_data(root="/elsewhere"))
    assert Run(run.path).metadata.data == make_data(root="/elsewhere")


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    run.append({TRIALS[0]: SCORES[TRIALS[0]]})
    run.append({trial: SCORES[trial] for trial in TRIALS[1:]})
    assert Run(run.path).load_trials() == SCORES
    lines = [json.loads(line) for line in (run.path / "trials.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [trial.id for trial in TRIALS]


def test_a_torn_line_is_passed_over_and_the_next_one_is_whole(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    run.append(SCORES)
    path = run.path / "trials.jsonl"
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in (last + 1, last + 40, len(whole) - 1):
        path.write_bytes(whole[:cut])
        torn = cut < len(whole) - 1  # the last line without its line end is still whole
        resumed = Run(run.path)
        assert set(resumed.load_trials()) == set(TRIALS[:2] if torn else TRIALS)
        resumed.append({TRIALS[2]: SCORES[TRIALS[2]]})
        assert resumed.load_trials() == Run(run.path).load_trials() == SCORES


@pytest.mark.parametrize("line", [b"\xff\xfe\x00garbage", b"[]", b"null", b"7", b'{"trial": 1}', b"[" * 100_000])
def test_lines_that_are_no_trials_lose_no_other_line(tmp_path: Path, line: bytes) -> None:
    run = begun(tmp_path / "run")
    run.append({TRIALS[0]: SCORES[TRIALS[0]]})
    with (run.path / "trials.jsonl").open("ab") as file:
        file.write(line + b"\n")
    run.append({TRIALS[1]: SCORES[TRIALS[1]]})
    assert set(run.load_trials()) == set(Run(run.path).load_trials()) == set(TRIALS[:2])


def test_trials_are_read_and_ranked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path / "run").append(SCORES)
    run = Run(tmp_path / "run")
    first = run.load_trials()
    (run.path / "trials.jsonl").unlink()
    assert run.load_trials() is first
    assert first.ranked is first.ranked
    assert rank_trials(first) == list(first.ranked) == rank_trials(SCORES)


def test_a_run_of_something_else_in_the_folder_is_refused(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    with pytest.raises(RunError, match=r"the folder holds a run of other images, features or options"):
        Run(run.path).begin(make_metadata(config_hash="b" * 64, command="humeris sweep others"))
    Run(run.path).begin(make_metadata(command="anything"))


def test_a_folder_of_other_files_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match=r"not empty, and not a run folder; give another folder with -o"):
        begun(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    assert begun(tmp_path).metadata == make_metadata()


@pytest.mark.parametrize("content", ["", "[1, 2]", "{", "null", "3", '"text"', '{"format": 99}', '{"complete": true}'])
def test_a_damaged_description_is_one_line_that_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"run\.json") as caught:
        Run.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_no_run_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(RunError, match=r"not a run folder \(no run.json in it\); `humeris sweep` creates one"):
            Run.load(path)


def test_a_trial_is_found_by_the_beginning_of_its_id_and_the_best_without_one(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    run.append(SCORES)
    best = rank_trials(SCORES)[0]
    assert run.find_trial() == (best, SCORES[best])
    assert run.find_trial(TRIALS[0].id) == (TRIALS[0], SCORES[TRIALS[0]])
    assert run.find_trial(TRIALS[2].id[:5])[0] == TRIALS[2]
    with pytest.raises(RunError, match=r"no trials have an id that begins with 'zz'; give an id listed in leaderboard.csv"):
        run.find_trial("zz")
    with pytest.raises(RunError, match=r"3 trials have an id that begins with ''"):
        run.find_trial("")


def test_a_saved_head_is_read_back_and_others_are_not_there(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    head = Head((Dense(np.ones((2, 3), np.float32), np.zeros(3, np.float32), "softmax"),), ("a", "b", "c"))
    run.save_head(TRIALS[0], head)
    again = run.load_head(TRIALS[0])
    assert again is not None
    assert again.class_names == head.class_names
    assert (again.layers[0].weights == head.layers[0].weights).all()
    assert run.load_head(TRIALS[1]) is None
    assert {path.suffix for path in (run.path / "heads").iterdir()} == {".npz", ".json"}


def test_names_that_a_spreadsheet_would_run_are_guarded_and_come_back_as_they_were(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    rows = [[name, "used", "", name, "train", "PNG", f"{number:064x}", ""] for number, name in enumerate(HOSTILE)]
    run.write_csv("images.csv", HEADER, rows)
    assert run.load_image_records() == [
        ImageRecord(name, name, "train", bytes.fromhex(f"{number:064x}")) for number, name in enumerate(HOSTILE)
    ]
    with (run.path / "images.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        for row in csv.reader(file):
            assert all(cell[:1] not in {"=", "+", "-", "@", "\t", "\r"} for cell in row)


def test_only_used_images_are_records(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    rows = [
        ["a.png", "used", "", "x", "test", "PNG", "00" * 32, ""],
        ["b.png", "refused", "empty: it is", "", "", "", "", ""],
    ]
    run.write_csv("images.csv", HEADER, rows)
    assert [record.name for record in run.load_image_records()] == ["a.png"]


@pytest.mark.parametrize("content", [None, "path,label\na,b\n", "path,outcome,label,split,sha256\na,used,b,test,zz\n"])
def test_a_damaged_table_of_images_is_one_line_that_names_the_file(tmp_path: Path, content: str | None) -> None:
    run = begun(tmp_path / "run")
    if content is not None:
        (run.path / "images.csv").write_text(content)
    with pytest.raises(RunError, match=r"images\.csv: cannot read the run's table of images: "):
        run.load_image_records()


def test_an_array_in_the_probabilities_that_needs_pickle_is_not_loaded(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    np.save(run.path / "probabilities.npy", np.array([{"any": "object"}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        run.load_probabilities()
