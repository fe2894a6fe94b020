"""The main job on real photographs with real ImageNet weights."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from warm_python import WarmPython

from humeris.classify.runs.run import Run
from humeris.extract.pixels import decode

pytestmark = pytest.mark.assets

Command = Callable[..., subprocess.CompletedProcess[str]]
BACKBONE = "mobilenet_v2,alpha=0.35"
TAPS = ["block_6_expand_relu", "block_10_depthwise_relu", "block_13_expand_relu", "block_16_depthwise_relu", "out_relu"]

_ANSWERS = """
import sys, numpy, keras
assert not any(name.startswith("humeris") for name in sys.modules)
model = keras.saving.load_model(sys.argv[1])
numpy.save(sys.argv[3], model.predict(numpy.load(sys.argv[2]), verbose=0))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("photographs")


@pytest.fixture(scope="module")
def command(warm_python: WarmPython, assets: Path) -> Command:
    """Run a real command in a process of its own, so that each claim is about what a user would see."""

    def run(place: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KERAS_HOME": str(assets / "keras"), "HUMERIS_CACHE": str(place / "cache")}
        return warm_python.run([sys.executable, "-m", "humeris.cli", *arguments], env=environment, cwd=place)

    return run


@pytest.fixture(scope="module")
def whole(place: Path, assets: Path, command: Command) -> dict[str, Any]:
    """`humeris run` on the ants and bees."""
    layers = [word for tap in TAPS for word in ("-l", tap)]
    data = assets / "images" / "hymenoptera"
    done = command(place, "run", data, "-b", BACKBONE, *layers, "-o", "run", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_five_taps_in_one_pass_reach_89_percent(whole: dict[str, Any]) -> None:
    assert len(whole["extracted"][0]["taps"]) == 5
    assert whole["extracted"][0]["computed"] == 398
    assert whole["extracted"][0]["forward_passes"] == -(-398 // 32)
    assert whole["test"]["images"] == 153
    assert whole["test"]["accuracy"] >= 0.89


def test_the_choice_is_made_on_train_alone_and_val_is_scored_once(whole: dict[str, Any], place: Path) -> None:
    assert whole["splits"]["select"] == "cv"
    assert (whole["splits"]["train"], whole["splits"]["val"], whole["splits"]["test"]) == (245, 0, 153)
    assert whole["splits"]["note"] == (
        "no test split: the validation split is used as test, model selection is by cross-validation on train"
    )
    assert sum(1 for record in Run.load(place / "run").load_image_records() if record.split == "test") == 153


def test_the_report_says_what_became_of_the_picture_that_is_no_photograph(whole: dict[str, Any], place: Path) -> None:
    with (place / "run" / "images.csv").open(newline="") as file:
        outcomes = {row["path"]: row["outcome"] for row in csv.DictReader(file)}
    assert outcomes["train/ants/imageNotFound.gif"] == "used"
    assert len(outcomes) == 398
    assert {"name": "train/ants/imageNotFound.gif", "format": "GIF"} in whole["data"]["unusual"]


def test_the_exported_file_answers_as_the_report_does_with_keras_alone(
    whole: dict[str, Any], place: Path, assets: Path
) -> None:
    run = Run.load(place / "run")
    test = [record for record in run.load_image_records() if record.split == "test"]
    root = assets / "images" / "hymenoptera"
    images = np.stack([decode.decode((root / record.name).read_bytes(), (224, 224)) for record in test])
    np.save(place / "images.npy", images)
    words = [sys.executable, "-c", _ANSWERS, whole["exported"]["model"], "images.npy", "answers.npy"]
    subprocess.run(words, cwd=place, check=True, capture_output=True)
    answers = np.load(place / "answers.npy")
    reported = run.load_probabilities()
    assert answers.shape == reported.shape == (153, 2)
    assert (answers.argmax(axis=1) == reported.argmax(axis=1)).all()
    assert np.abs(answers - reported).max() <= 1e-4
    assert np.ptp(answers, axis=0).max() > 0.5


def test_predict_gives_the_answers_of_the_report(whole: dict[str, Any], place: Path, assets: Path, command: Command) -> None:
    root = assets / "images" / "hymenoptera"
    done = command(place, "predict", whole["exported"]["model"], root / "val", "-f", "jsonl")
    assert done.returncode == 0, done.stderr
    predicted = {row["path"]: row for row in map(json.loads, done.stdout.splitlines())}
    with (place / "run" / "predictions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            mine = predicted[str(root / row["path"])]
            assert mine["predicted"] == row["predicted"]
            assert abs(mine["probability"] - float(row["probability"])) <= 1e-4


def test_the_second_extract_runs_nothing_and_imports_no_tensorflow(whole: dict[str, Any], place: Path, assets: Path) -> None:
    layers = [word for tap in TAPS for word in ("-l", tap)]
    data = str(assets / "images" / "hymenoptera")
    script = (
        "import sys\nfrom humeris.cli import app\n"
        "try:\n    app()\nexcept SystemExit as end:\n    code = end.code\n"
        "print([name for name in ('tensorflow', 'keras', 'sklearn') if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)"
    )
    environment = {**os.environ, "KERAS_HOME": str(assets / "keras"), "HUMERIS_CACHE": str(place / "cache")}
    words = [sys.executable, "-c", script, "extract", data, "-b", BACKBONE, *layers, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=place, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    found = json.loads(done.stdout)["extracted"][0]
    assert (found["computed"], found["forward_passes"], found["bytes"]) == (0, 0, 0)


@pytest.fixture
def some(tmp_path: Path, assets: Path) -> Path:
    """Six photographs of each kind, as a folder of the user's own."""
    for name in ("ants", "bees"):
        for path in sorted((assets / "images" / "hymenoptera" / "train" / name).glob("*.jpg"))[:6]:
            target = tmp_path / "some" / name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path / "some"


def test_only_the_difference_is_computed(some: Path, tmp_path: Path, command: Command) -> None:
    def done(*layers: str) -> dict[str, Any]:
        words = [word for layer in layers for word in ("-l", layer)]
        result = command(tmp_path, "extract", some, "-b", BACKBONE, *words, "--json")
        assert result.returncode == 0, result.stderr
        found: dict[str, Any] = json.loads(result.stdout)["extracted"][0]
        return found

    assert done("out_relu")["computed"] == 12
    assert done("out_relu")["computed"] == 0
    Image.effect_noise((60, 40), 50).save(some / "ants" / "new.png")
    assert done("out_relu")["rows"] == {"out_relu:avg": 1}
    assert done("out_relu", "block_13_expand_relu")["rows"] == {"block_13_expand_relu:avg": 13}
    (some / "ants" / "new.png").rename(some / "bees" / "renamed and relabelled.png")
    (some / "ants").rename(some / "formicidae")
    assert done("out_relu", "block_13_expand_relu")["computed"] == 0


def test_a_file_of_the_users_own_reaches_89_percent(place: Path, assets: Path, command: Command) -> None:
    backbone = assets / "backbones" / "mobilenet_v1_conv_pw_12.keras"
    data = assets / "images" / "hymenoptera"
    layers = [word for number in (6, 9, 11, 12) for word in ("-l", f"conv_pw_{number}_relu")]
    done = command(place, "run", data, "-b", f"{backbone},preprocessing=tf", *layers, "-o", "own", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["test"]["accuracy"] >= 0.89
    assert found["exported"]["parity"]["max_difference"] <= 1e-4
    accuracy = [point["accuracy"] for point in found["depth"]]
    assert accuracy == sorted(accuracy)


def test_a_file_without_its_preprocessing_is_asked_for_it(place: Path, assets: Path, command: Command) -> None:
    backbone = assets / "backbones" / "mobilenet_v1_conv_pw_12.keras"
    done = command(place, "extract", assets / "images" / "hymenoptera", "-b", backbone)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "preprocessing=MODE" in done.stderr
