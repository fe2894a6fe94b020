"""A worker process on each of several devices: the work is shared, the rows are those of one, and a death is told."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from humeris.cache.errors import DeviceError
from humeris.cache.store import Store
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.engine import multi_device
from humeris.extract.engine.extract import extract_all
from humeris.extract.engine.multi_device import ExtractJob, run_extract_job
from humeris.extract.images.load import load_images

Run = Callable[..., object]
OPTIONS = {"pools": (), "batch_size": 4}


def test_two_workers_share_the_work_and_the_cache_merges_it(photos: Path, tmp_path: Path) -> None:
    request, seen = BackboneSpec.parse("nano"), []
    order = ExtractJob(photos, None, [request], ["block4_out"], tmp_path / "cache", OPTIONS)
    apart = run_extract_job(["cpu", "cpu"], order, None, lambda done, total: seen.append((done, total)))
    computed = [done.computed for (done,) in apart]
    assert sum(computed) == 36, computed
    assert seen
    assert max(done for done, _ in seen) <= 36
    with Store(tmp_path / "cache", write=True) as store, Store(tmp_path / "alone", write=True) as alone:
        images = load_images(photos, store)
        (total,) = extract_all(images, [request], ["block4_out"], store)
        assert total.computed == 0
        for (part,) in apart:
            multi_device.add_result(total, part)
        assert (total.computed, total.rows) == (36, {"block4_out:avg": 36})
        (one,) = extract_all(images, [request], ["block4_out"], alone, batch_size=4)
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


def test_what_a_worker_did_of_several_orders_is_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(devices: list[str], order: ExtractJob, *_: object) -> list[list[str]]:
        return [[f"{device} {pattern}" for pattern in order.patterns] for device in devices]

    monkeypatch.setattr(multi_device, "run_extract_job", answer)
    orders = [ExtractJob(Path(), None, [], patterns, Path(), {}) for patterns in (["x", "y"], ["z"])]
    done = multi_device.extract_on_devices(["cpu", "gpu"], orders, None, lambda _: lambda *_: None)
    assert done == [["cpu x", "cpu y", "cpu z"], ["gpu x", "gpu y", "gpu z"]]
    assert multi_device.extract_on_devices([], orders, None, lambda _: lambda *_: None) == []


def test_an_error_in_a_worker_is_the_commands_own(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    order = ExtractJob(photos, None, [BackboneSpec.parse("nano")], ["nowhere"], tmp_path / "cache", OPTIONS)
    with pytest.raises(LookupError, match="layer 'nowhere'"):
        run_extract_job(["cpu", "cpu"], order, 1, None)
    assert "Traceback" not in capfd.readouterr().err  # of the worker that is told to end


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_told_of(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi_device, "_run_worker", _die)
    order = ExtractJob(photos, None, [BackboneSpec.parse("nano")], ["block4_out"], tmp_path / "cache", OPTIONS)
    with pytest.raises(DeviceError, match="found one that was killed; what was stored is kept"):
        run_extract_job(["cpu", "cpu"], order, 1, None)
