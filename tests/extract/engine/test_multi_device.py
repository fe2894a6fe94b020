"""One worker per device: workers share the work, the rows equal those of one process, and a killed worker is an error."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from humeris.cache.errors import DeviceError
from humeris.cache.store import Store
from humeris.classify.pipeline import extract_taps
from humeris.extract.engine import multi_device
from humeris.extract.engine.extract import ExtractResult, extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.engine.multi_device import ExtractJob, run_extract_job
from humeris.extract.images.class_folders import ClassFolders
from humeris.extract.images.images import Images
from humeris.extract.images.load import load_images

Run = Callable[..., object]
CONFIG = ExtractConfig("nano", layers="block4_out", batch_size=4)


def test_two_workers_share_the_work_and_the_cache_merges_it(photos: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    apart = run_extract_job(
        ["cpu", "cpu"],
        ExtractJob(ClassFolders(photos).describe(), tmp_path / "cache", CONFIG),
        lambda done, total: seen.append((done, total)),
    )
    computed = [done.computed for (done,) in apart]
    assert sum(computed) == 36, computed
    assert seen
    assert max(done for done, _ in seen) <= 36
    with Store(tmp_path / "cache", write=True) as store, Store(tmp_path / "alone", write=True) as alone:
        images = load_images(photos, store)
        (total,) = extract_features(images, store, replace(CONFIG, batch_size=32))
        assert total.computed == 0
        for (part,) in apart:
            total = multi_device.combine_results(total, part)
        assert (total.computed, total.rows) == (36, {"block4_out:avg": 36})
        (one,) = extract_features(images, alone, CONFIG)
        rows = [
            each.get_extraction(one.metadata.spec).get_features("block4_out", "avg").read(images.keys)
            for each in (store, alone)
        ]
    assert np.array_equal(*rows)


def test_the_command_adds_up_what_its_workers_did(photos: Path, humeris: Run) -> None:
    result = humeris("extract", photos, "-b", "nano", "-l", "block4_out", "--device", "cpu,cpu", "--json")
    assert result.code == 0, result.err  # type: ignore[attr-defined]
    (done,) = result.json["extracted"]  # type: ignore[attr-defined]
    assert (done["computed"], done["rows"]) == (36, {"block4_out:avg": 36})


def test_a_sweep_adds_up_what_its_workers_did(photos: Path, humeris: Run) -> None:
    words = ["-b", "nano", "-l", "block4_out", "--extract", "--device", "cpu,cpu", "--head", "logreg,C=1"]
    result = humeris("sweep", photos, *words, "--json")
    assert result.code == 0, result.err  # type: ignore[attr-defined]
    (done,) = result.json["extracted"]  # type: ignore[attr-defined]
    assert (done["computed"], done["rows"]) == (36, {"block4_out:avg": 36})


def test_what_workers_did_of_several_groups_of_backbones_is_counted_with_each(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[str], list[str], int | None]] = []

    def answer(devices: list[str], order: ExtractJob, *_: object) -> list[list[ExtractResult]]:
        specs = order.config.backbone_specs
        asked.append((devices, [f"{spec} {order.config.layers[0]}" for spec in specs], order.config.limit))
        parts = [ExtractResult(None, [], None, computed=len(device), rows={"tap": 1}) for device in devices]  # type: ignore[arg-type]
        return [[part] * len(specs) for part in parts]

    def extract_nothing(images: Images, _: object, config: ExtractConfig, **__: object) -> list[ExtractResult]:
        return [ExtractResult(None, [], images, computed=0) for _ in config.backbone_specs]  # type: ignore[arg-type]

    monkeypatch.setattr(multi_device, "run_extract_job", answer)
    monkeypatch.setattr(multi_device, "extract_features", extract_nothing)
    config = ExtractConfig(["nano", "nano,weights=random"], layers=["nano/x", "nano,weights=random/y"], limit=9)
    with Store(tmp_path / "cache", write=True) as store:
        images = load_images(photos, store)
        done = extract_taps(images, store, replace(config, devices=["cpu,gpu:1"]))
        assert [(part.computed, part.rows) for part in done] == [(8, {"tap": 2}), (8, {"tap": 2})]
        assert asked == [
            (["cpu", "gpu:1"], ["nano x"], 9),
            (["cpu", "gpu:1"], ["nano,weights=random y"], 9),
        ]
        assert [part.computed for part in extract_taps(images, store, config)] == [0, 0]
        assert len(asked) == 2


def test_an_error_in_a_worker_is_the_commands_own(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    order = ExtractJob(ClassFolders(photos).describe(), tmp_path / "cache", replace(CONFIG, layers="nowhere", jobs=1))
    with pytest.raises(LookupError, match="layer 'nowhere'"):
        run_extract_job(["cpu", "cpu"], order, None)
    assert "Traceback" not in capfd.readouterr().err  # of the worker that is told to end


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_told_of(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi_device, "_run_worker", _die)
    order = ExtractJob(ClassFolders(photos).describe(), tmp_path / "cache", replace(CONFIG, jobs=1))
    with pytest.raises(DeviceError, match="a worker process was killed; the rows stored so far are kept, run"):
        run_extract_job(["cpu", "cpu"], order, None)
