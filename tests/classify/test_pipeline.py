"""`humeris run`: images in, one model out, and nothing done twice."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.cache.errors import DataError
from humeris.cache.store import Store
from humeris.classify import finish_run, pipeline
from humeris.classify.export import parity
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images


def test_one_command_leaves_a_run_and_a_model_that_is_good(finished: Any) -> None:
    found = finished.outcome.to_dict()
    assert found["test"]["accuracy"] > 0.8
    assert found["exported"]["model"] == str(finished.path / "model.keras")
    assert [each["backbone"] for each in found["extracted"]] == ["nano"]
    assert found["extracted"][0]["computed"] == 42
    assert found["extracted"][0]["taps"] == ["block4_out:avg", "block5_out:avg"]
    assert found["extracted"][0]["forward_passes"] == 2
    assert found["data"]["used"] == 42


def test_the_depth_curve_has_every_tap_with_its_best_trial(finished: Any) -> None:
    curve = finished.run.compute_depth_curve()
    scores = finished.run.load_trials()
    assert [each.layer for each in curve] == ["block4_out", "block5_out"]
    assert [each.depth for each in curve] == sorted(each.depth or 0.0 for each in curve)
    for each in curve:
        assert each.accuracy == max(
            score.accuracy for trial, score in scores.items() if trial.tap_refs[0].layer == each.layer
        )


def answers_of_the_cache(monkeypatch: pytest.MonkeyPatch, finished: Any) -> None:
    """Spare a process: the check of this very model is made in tests/test_export.py."""
    monkeypatch.setattr(parity, "predict_in_subprocess", lambda *_: (finished.run.load_probabilities(), 1.0))


@pytest.fixture
def no_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    from humeris.extract.backbones import forward

    def reached(*_: object) -> None:
        raise AssertionError("a forward pass was made")

    monkeypatch.setattr(forward.ForwardPass, "__call__", reached)


EXTRACT = ExtractConfig("nano", layers=["block4_out", "block5_out"], jobs=1)


def run_again(finished: Any, photos: Path, cache: Path, out: Path) -> pipeline.PipelineResult:
    with Store(cache, write=True) as store:
        return pipeline.run(
            load_images(photos, store, jobs=1), store, EXTRACT, SweepConfig("logreg,C=0.1/1", out=out, jobs=1)
        )


@pytest.mark.usefixtures("no_forward")
def test_a_second_run_makes_no_forward_pass_and_gives_the_same_answer(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_of_the_cache(monkeypatch, finished)
    shutil.copytree(finished.cache, tmp_path / "cache2")
    again = run_again(finished, finished.photos, tmp_path / "cache2", tmp_path / "run")
    assert again.extract_results[0].computed == 0
    assert again.run.result.best.id == finished.run.result.best.id
    assert again.run.result.test == finished.run.result.test
    assert np.array_equal(again.run.load_probabilities(), finished.run.load_probabilities())


@pytest.mark.usefixtures("no_forward")
def test_renaming_and_moving_the_images_computes_nothing(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_of_the_cache(monkeypatch, finished)
    shutil.copytree(finished.cache, tmp_path / "cache2")
    shutil.copytree(finished.photos, tmp_path / "elsewhere")
    for path in sorted((tmp_path / "elsewhere").rglob("*.png")):
        path.rename(path.with_name(f"renamed-{path.name}"))
    again = run_again(finished, tmp_path / "elsewhere", tmp_path / "cache2", tmp_path / "run")
    assert again.run.result.test == finished.run.result.test


def test_labels_are_checked_before_anything_is_computed(
    tmp_path: Path, draw_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: object, **__: object) -> None:
        raise AssertionError("extraction was reached")

    monkeypatch.setattr(pipeline, "extract_on_devices", reached)
    for seed in range(4):
        draw_image(tmp_path / "photos/only" / f"{seed}.png", 0, seed)
    store = Store(tmp_path / "cache", write=True)
    with pytest.raises(DataError, match="only one class, 'only'; add a folder per class"):
        pipeline.run(load_images(tmp_path / "photos", store), store, ExtractConfig("nano"), SweepConfig("logreg"))


def test_an_image_that_cannot_be_decoded_costs_that_image_alone(
    finished: Any, tmp_path: Path, humeris: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(_: Any, model: Path, images: np.ndarray) -> tuple[np.ndarray, float]:
        from humeris.classify.export.predict import Predictor

        return Predictor(model).predict_proba(images), 1.0  # in this process: the fresh one is shown elsewhere

    monkeypatch.setattr(parity, "predict_in_subprocess", answers)
    shutil.copytree(finished.photos, tmp_path / "photos")
    whole = (tmp_path / "photos/train/blob/00.png").read_bytes()
    (tmp_path / "photos/train/blob/half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos/train/blob/text.gif").write_text("<html>not found</html>")
    result = humeris(
        "run", tmp_path / "photos", "-b", "nano", "-l", "block5_out", "--head", "logreg,C=1", "-j", 1, "-o", "out",
    )  # fmt: skip
    assert result.code == 1
    assert "42 images used" in result.out
    assert "2 images rejected: " in result.out
    assert "train/blob/half.png: damaged: " in result.out
    assert "train/blob/text.gif: not_an_image: " in result.out
    assert re.search(r"^Test accuracy [0-9.]+ % \(95 % CI [0-9.]+–[0-9.]+\), ", result.out, re.MULTILINE)
    assert "next: humeris predict out/model.keras IMAGES" in result.out
    with Path("out/images.csv").open(newline="") as file:
        outcomes = {row["path"]: row["outcome"] for row in csv.DictReader(file)}
    assert [name for name, outcome in outcomes.items() if outcome == "refused"] == [
        "train/blob/text.gif", "train/blob/half.png",
    ]  # fmt: skip


def test_two_backbones_are_extracted_and_compared_in_one_run(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    monkeypatch.setattr(finish_run, "export", lambda run, *_, **__: built.append(run.find_trial()[0].tap_refs[0].backbone))
    shutil.copytree(finished.cache, tmp_path / "cache2")
    requests = [BackboneSpec.parse("nano"), BackboneSpec.parse("nano", weights="random")]
    with Store(tmp_path / "cache2", write=True) as store:
        outcome = pipeline.run(
            load_images(finished.photos, store, jobs=1),
            store,
            ExtractConfig(requests, layers="block5_out", jobs=1),
            SweepConfig("logreg,C=0.1", out=tmp_path / "run", jobs=1),
        )
    assert [each.computed for each in outcome.extract_results] == [0, 42]
    assert {trial.tap_refs[0].backbone for trial in outcome.run.load_trials()} == {"nano", "nano,weights=random"}
    assert built == ["nano"]


def test_the_progress_of_each_stage_is_reported(finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_of_the_cache(monkeypatch, finished)
    shutil.copytree(finished.cache, tmp_path / "cache2")
    seen: dict[str, list[Sequence[int]]] = {}

    def stage(name: str) -> Callable[[int, int], None]:
        return lambda done, total: seen.setdefault(name, []).append((done, total))

    with Store(tmp_path / "cache2", write=True) as store:
        sweep_config = SweepConfig("logreg,C=0.1/1", out=tmp_path / "run", jobs=1)
        pipeline.run(load_images(finished.photos, store, jobs=1), store, EXTRACT, sweep_config, progress=stage)
    assert seen == {"heads": [(2, 4), (4, 4)]}
