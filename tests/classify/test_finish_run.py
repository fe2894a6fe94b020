"""A late failure hides no finished work: the run is shown and named, the other steps are done, and a command is given."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from humeris.cache.errors import TrackingError
from humeris.classify.runs.failed_step import FailedStep, collect_failure
from humeris.classify.tracking import registry as trackers


@pytest.fixture
def typed(finished: Any, tmp_path: Path) -> list[object]:
    """The words of a command that finds the finished run again, in a copy."""
    shutil.copytree(finished.path, tmp_path / "run")
    shutil.copytree(finished.cache, tmp_path / "cache")
    taps = ["-b", "nano", "-l", "block4_out", "-l", "block5_out", "--head", "logreg,C=0.1/1"]
    return [finished.photos, *taps, "-o", tmp_path / "run", "--cache", tmp_path / "cache", "-j", "1"]


def test_an_export_that_fails_leaves_the_result_the_report_and_a_command(
    typed: list[object], tmp_path: Path, humeris: Callable[..., Any]
) -> None:
    (tmp_path / "taken.keras").mkdir()
    (tmp_path / "run" / "report.html").unlink(missing_ok=True)
    result = humeris("run", *typed, "--model", tmp_path / "taken.keras")
    assert result.code == 1
    assert "Test accuracy" in result.out
    assert f"run: {tmp_path / 'run'}" in result.out
    assert "report: " in result.out
    assert (tmp_path / "run" / "report.html").exists()
    assert "model: " not in result.out
    (line,) = result.err.splitlines()
    assert line.startswith(f"humeris: export failed: {tmp_path}/taken.keras: ")
    assert line.endswith(f"; then: humeris export {tmp_path}/run -o {tmp_path}/taken.onnx --cache {tmp_path}/cache")
    document = humeris("run", *typed, "--model", tmp_path / "taken.keras", "--json").json
    assert document["exported"] is None
    assert document["reported"]["path"].endswith("report.html")
    assert [step["step"] for step in document["failed"]] == ["export"]
    assert document["test"]["accuracy"] > 0.8


@pytest.mark.parametrize("command", ["sweep", "run"])
def test_a_tracker_that_fails_leaves_the_result_and_exit_code_1(
    command: str, typed: list[object], monkeypatch: pytest.MonkeyPatch, humeris: Callable[..., Any]
) -> None:
    def fail(*_: object) -> None:
        raise TrackingError("mlflow: the store does not answer")

    monkeypatch.setattr(trackers, "track", fail)
    result = humeris(command, *typed, "--track", "mlflow")
    assert result.code == 1
    assert "Test accuracy" in result.out
    assert "humeris: tracking failed: mlflow: the store does not answer; then: " in result.err


def test_any_error_is_collected_but_an_interrupt() -> None:
    failed_steps: list[FailedStep] = []
    for error in (ValueError("two\nlines"), OSError(28, "No space left on device", "model.keras")):
        with collect_failure("export", ["humeris", "export", "a run"], failed_steps):
            raise error
    assert [step.error for step in failed_steps] == ["ValueError: two lines", "model.keras: No space left on device"]
    assert failed_steps[0].command == "humeris export 'a run'"
    with pytest.raises(KeyboardInterrupt), collect_failure("export", [], failed_steps):
        raise KeyboardInterrupt
