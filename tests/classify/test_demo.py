"""The demo: the whole job offline, and the commands that it prints work."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from humeris.classify import demo as module
from humeris.classify.demo import write_digits


def fewer_digits(folder: Path) -> Path:
    """The first fifty of each digit, so that the tests take seconds; everything else is the demo's own."""
    write_digits(folder)
    for label in folder.iterdir():
        for path in sorted(label.iterdir())[50:]:
            path.unlink()
    return folder


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "write_digits", fewer_digits)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of a demo, and what its command printed."""
    from typer.testing import CliRunner

    from humeris.cli import app

    folder = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "write_digits", fewer_digits)
        return folder, CliRunner().invoke(app, ["demo", "-o", str(folder), "-j", "1"], catch_exceptions=False)


def accuracies(text: str) -> tuple[float, float]:
    trained = re.search(r"^nano, pretrained on synthetic images: +test accuracy ([0-9.]+) % \(95 % CI", text, re.MULTILINE)
    random = re.search(r"^nano, random weights: +test accuracy ([0-9.]+) % \(95 % CI", text, re.MULTILINE)
    assert trained
    assert random
    return float(trained[1]) / 100, float(random[1]) / 100


def test_the_demo_shows_trained_nano_above_random_nano(shown: tuple[Path, Any]) -> None:
    _, result = shown
    assert result.exit_code == 0, result.stderr
    trained, random = accuracies(result.stdout)
    assert trained > random
    assert trained > 0.85


def test_the_demo_ends_with_accuracy_model_and_next_command(shown: tuple[Path, Any]) -> None:
    folder, result = shown
    lines = result.stdout.rstrip().splitlines()
    assert lines[-2] == f"model: {folder}/run-synthetic/model.keras"
    assert lines[-1].startswith(f"next: humeris predict {folder}/run-synthetic/model.keras ")
    assert (folder / "run-synthetic/model.keras").is_file()
    assert (folder / "run-random/model.keras").is_file()


def test_the_next_command_works_as_it_is_printed(shown: tuple[Path, Any], humeris: Callable[..., Any]) -> None:
    _, result = shown
    command = shlex.split(result.stdout.rstrip().splitlines()[-1].removeprefix("next: "))
    assert command[0] == "humeris"
    done = humeris(*command[1:])
    assert done.code == 0, done.err
    predicted = [line.split("  ")[1].split()[0] for line in done.out.splitlines()]
    assert len(predicted) == 50
    assert np.mean([name == "7" for name in predicted]) > 0.95


def test_a_second_demo_makes_no_forward_pass_and_says_the_same(
    shown: tuple[Path, Any], humeris: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from humeris.classify.export import parity
    from humeris.classify.export.predict import Predictor
    from humeris.extract.backbones import forward

    def reached(*_: object) -> None:
        raise AssertionError("a forward pass was made")

    folder, result = shown
    monkeypatch.setattr(forward.ForwardPass, "__call__", reached)
    monkeypatch.setattr(
        parity, "predict_in_subprocess", lambda _, model, images: (Predictor(model).predict_proba(images), 1.0)
    )
    again = humeris("demo", "-o", folder, "-j", 1)
    assert again.code == 0
    assert accuracies(again.out) == accuracies(result.stdout)
    assert "0 computed" in again.out


def test_the_run_says_the_command_that_repeats_it(shown: tuple[Path, Any]) -> None:
    from humeris.classify.runs.run import Run

    folder, _ = shown
    run = Run.load(folder / "run-synthetic")
    command = shlex.split(run.metadata.command)
    assert command[:3] == ["humeris", "run", str(folder / "digits")]
    assert command[command.index("-b") + 1] == "nano"
    assert command[command.index("-l") + 1] == "block*_out"


def test_the_digits_are_written_as_they_are(tmp_path: Path) -> None:
    tmp_path = write_digits(tmp_path / "digits")
    digits = load_digits()
    assert len(list(tmp_path.rglob("*.png"))) == 1797
    for number in (0, 1234, 1796):
        with Image.open(tmp_path / str(digits.target[number]) / f"{number:04}.png") as image:
            assert np.abs(np.asarray(image) / (255 / 16) - digits.images[number]).max() < 0.04
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    write_digits(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before
