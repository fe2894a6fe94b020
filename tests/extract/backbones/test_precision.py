"""Half precision: how it is chosen, that it is part of the key, and that stored rows and exported models have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from humeris.cache.errors import BackboneError, DeviceError
from humeris.cache.store import Store
from humeris.extract.backbones import device, precision
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import build
from humeris.extract.backbones.forward import ForwardPass
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.backbones.metadata import get_cached
from humeris.extract.backbones.taps import Tap
from humeris.extract.engine.extract import extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images

Run = Callable[..., object]


def test_each_precision_has_a_key_of_its_own_and_the_same_weights() -> None:
    built = {name: build(BackboneSpec.parse("nano", precision=name)) for name in ("float32", "bfloat16", "float16")}
    assert len({each.spec.digest for each in built.values()}) == 3
    assert len({each.spec.weights_sha256 for each in built.values()}) == 1
    assert {name: each.spec.precision for name, each in built.items()} == {name: name for name in built}


@pytest.mark.parametrize(("name", "deviation"), [("bfloat16", 3e-2), ("float16", 4e-3)])
def test_features_in_half_precision_are_those_of_keras_and_near_those_in_float32(name: str, deviation: float) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8))
    taps = [Tap("block3_out", "map"), Tap("block3_out", "avg"), Tap("block5_out", "grid2")]
    whole = ForwardPass(build(BackboneSpec.parse("nano")).graph, taps, 8)(images)
    half = ForwardPass(build(BackboneSpec.parse("nano", precision=name)).graph, taps, 8)(images)
    assert half[0].dtype.name == name
    assert half[1].dtype == half[2].dtype == np.float32
    assert np.allclose(half[1], np.asarray(half[0], np.float32).mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    for near, exact in zip(half, whole, strict=True):
        assert 0 < np.abs(np.asarray(near, np.float32) - exact).max() < deviation * np.abs(exact).max()


def test_whole_maps_computed_in_bfloat16_are_stored_so_and_read_with_one_line_of_h5py(photos: Path) -> None:
    with Store(write=True) as store:
        images = load_images(photos, store)
        done = extract_features(
            images, store, ExtractConfig(BackboneSpec.parse("nano", precision="bfloat16"), layers=["block5_out:map"])
        )[0]
        features = store.get_extraction(done.metadata.spec).get_features("block5_out", "map")
        served = features.read(images.keys)
        (path,) = features.path.glob("*.h5")
    with h5py.File(path) as file:
        stored = file["features"][:]
        assert stored.dtype == np.uint16
        assert file["features"].attrs["dtype"] == "bfloat16"
        rows = (stored.astype(np.uint32) << 16).view(np.float32)
        keys = file["keys"][:]
    assert served.dtype == np.float32
    assert done.kept_float32 == {}
    order = [keys.tobytes().index(image.digest) // 32 for image in images.used]
    assert np.array_equal(served, rows[order])


def test_auto_takes_what_the_processor_is_good_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_list_visible_gpus", list)
    for has, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(precision, "has_bfloat16_instructions", lambda has=has: has)
        assert precision.choose("auto") == expected
        assert precision.choose("float16") == "float16"


def test_what_auto_chose_is_remembered_for_this_processor_only(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16_instructions", lambda: True)
    auto = BackboneSpec.parse("nano", precision="auto")
    with Store(write=True) as store:
        extract_features(load_images(photos, store), store, ExtractConfig(auto, layers=["block5_out"]))[0]
        card = get_cached(auto, store.kv_store)
        assert card is not None
        assert card.spec.precision == "bfloat16"
        monkeypatch.setattr(precision, "has_bfloat16_instructions", lambda: False)
        assert get_cached(auto, store.kv_store) is None


def test_a_precision_that_does_not_exist_is_one_line(photos: Path, humeris: Run) -> None:
    with pytest.raises(BackboneError, match="unknown precision 'float8'; choose one of auto, float32, bfloat16, float16"):
        BackboneSpec.parse("nano", precision="float8")
    result = humeris("extract", photos, "-b", "nano,precision=int8")
    assert result.code == 2  # type: ignore[attr-defined]
    assert len(result.err.splitlines()) == 1  # type: ignore[attr-defined]


def test_a_model_in_bfloat16_is_exported_as_it_was_computed(photos: Path, tmp_path: Path, humeris: Run) -> None:
    result = humeris(
        "run", photos, "-b", "nano", "--precision", "bfloat16", "-l", "block4_out", "-o", tmp_path / "run", "--json"
    )
    assert result.code == 0, result.err  # type: ignore[attr-defined]
    found = result.json  # type: ignore[attr-defined]
    assert found["extracted"][0]["precision"] == "bfloat16"
    parity = found["exported"]["parity"]
    assert parity["top1_agree"] == parity["images"] > 0


def test_devices_are_parsed_and_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.parse(["auto"]) == ["auto"]
    assert device.parse(["gpu:0,gpu:3", "CPU"]) == ["gpu:0", "gpu:3", "cpu"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert device.parse(["gpu"]) == ["gpu:0", "gpu:1"]
    assert device.format_visible_gpus() == "4,7"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert device.parse(["gpu"]) == ["gpu"]
    with pytest.raises(DeviceError, match="unknown device 'tpu'; give auto, cpu, gpu or gpu:N"):
        device.parse(["tpu"])


def test_a_gpu_that_keras_does_not_find_is_refused_and_never_replaced_by_the_processor(
    photos: Path, humeris: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device.list_gpus(load_keras()):
        pytest.skip("there is a GPU here")
    monkeypatch.setattr(device, "_requested", "auto")
    result = humeris("extract", photos, "-b", "nano", "--device", "gpu:0")
    assert result.code == 2  # type: ignore[attr-defined]
    assert "device gpu:0: Keras does not find a GPU; install" in result.err  # type: ignore[attr-defined]
    assert humeris("extract", photos, "-b", "nano", "--device", "cpu", "-q").code == 0  # type: ignore[attr-defined]
