"""Exported HDF5 files: readable with h5py alone, equal to the cache, and written completely or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from humeris.cache.errors import CacheFull, DataError, RowsMissing
from humeris.cache.store import Store
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.engine import export_hdf5
from humeris.extract.engine.extract import ExtractResult, extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images

NANO = "nano,image_size=32"


@pytest.fixture
def done(tmp_path: Path, draw_image: Callable[..., Path]) -> ExtractResult:
    for number in range(9):
        draw_image(tmp_path / "data" / ("train", "test")[number % 2] / "ab"[number % 3 % 2] / f"{number}.png", 2, number)
    with Store(write=True) as store:
        images = load_images(tmp_path / "data", store, jobs=1)
        return extract_features(
            images, store, ExtractConfig(NANO, layers=["block3_out", "block5_out:map"], batch_size=4, jobs=1)
        )[0]


def export(done: ExtractResult, out: Path, *patterns: str) -> dict[str, Any]:
    return export_hdf5.export_hdf5(done.images, BackboneSpec.parse(NANO), patterns, Store(), out).to_dict()


def test_the_file_can_be_read_with_h5py_alone_and_equals_the_cache(done: ExtractResult, tmp_path: Path) -> None:
    found = export(done, tmp_path / "out.h5")
    assert found["taps"] == ["block3_out:avg", "block5_out:map"]
    assert found["bytes"] == (tmp_path / "out.h5").stat().st_size
    stored = Store().get_extraction(done.metadata.spec)
    with h5py.File(tmp_path / "out.h5") as file:
        assert set(file) == {"block3_out.avg", "block5_out.map", "labels", "keys", "classes", "paths", "split"}
        for layer, pool in (("block3_out", "avg"), ("block5_out", "map")):
            assert np.array_equal(file[f"{layer}.{pool}"][:], stored.get_features(layer, pool).read(done.images.keys))
        classes = file["classes"].asstr()[:].tolist()
        assert classes == ["a", "b"]
        assert [classes[number] for number in file["labels"][:]] == done.images.labels
        assert file["paths"].asstr()[:].tolist() == [image.name for image in done.images.used]
        assert file["split"].asstr()[:].tolist() == [image.item.split for image in done.images.used]
        assert file["keys"][:].tobytes() == done.images.keys.tobytes()
        assert file.attrs["backbone"] == "nano"
        assert file.attrs["weights_sha256"] == done.metadata.spec.weights_sha256


def test_only_the_taps_asked_for_are_written(done: ExtractResult, tmp_path: Path) -> None:
    assert export(done, tmp_path / "out.h5", "block5_out:map")["taps"] == ["block5_out:map"]


def test_a_tap_that_is_not_stored_leaves_no_file(done: ExtractResult, tmp_path: Path) -> None:
    with pytest.raises(RowsMissing):
        export(done, tmp_path / "out.h5", "block1_out")
    assert not list(tmp_path.glob("*.h5"))
    assert not list(tmp_path.glob(".*"))


def test_nothing_cached_is_one_line(done: ExtractResult, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no tap of nano,image_size=40x40 is cached for all .* images; run `humeris extract`"
    ):
        export_hdf5.export_hdf5(done.images, BackboneSpec.parse("nano,image_size=40"), [], Store(), tmp_path / "out.h5")


def test_an_older_file_stays_when_the_new_one_fails(
    done: ExtractResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.h5").write_bytes(b"older")
    with monkeypatch.context() as patch:
        patch.setattr(export_hdf5, "get_free_bytes", lambda _: 10)
        with pytest.raises(CacheFull, match=r"not enough disk space \(.* bytes needed, 10 free\); free"):
            export(done, tmp_path / "out.h5")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(CacheFull):
            export(done, tmp_path / "out.h5")
    assert (tmp_path / "out.h5").read_bytes() == b"older"
    assert not list(tmp_path.glob(".*"))
    export(done, tmp_path / "out.h5")
    assert h5py.is_hdf5(tmp_path / "out.h5")


def test_names_that_are_not_utf_8_are_written_with_escapes(tmp_path: Path, draw_image: Callable[..., Path]) -> None:
    for number, name in enumerate(("caf\udce9.png", "new\nline.png", "=x.png")):
        draw_image(tmp_path / "data" / "k\udce4se" / name, 0, number)
        draw_image(tmp_path / "data" / "b" / f"{number}.png", 1, number)
    with Store(write=True) as store:
        images = load_images(tmp_path / "data", store, jobs=1)
        done = extract_features(images, store, ExtractConfig(NANO, layers=["block5_out"], batch_size=6, jobs=1))[0]
    export(done, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert set(file["classes"].asstr()[:]) == {"b", "k\\udce4se"}
        assert "k\\udce4se/caf\\udce9.png" in set(file["paths"].asstr()[:])
        assert sorted(np.bincount(file["labels"][:]).tolist()) == [3, 3]


def test_images_without_labels_have_label_minus_one(tmp_path: Path, draw_image: Callable[..., Path]) -> None:
    draw_image(tmp_path / "flat" / "1.png", 0, 1)
    with Store(write=True) as store:
        done = extract_features(
            load_images(tmp_path / "flat", store, jobs=1), store, ExtractConfig(NANO, layers=["block5_out"], batch_size=4)
        )[0]
    export(done, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["labels"][:].tolist() == [-1]
        assert len(file["classes"]) == 0


def test_the_command_imports_no_tensorflow(done: ExtractResult, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom humeris.cli import app\n"
        "done = CliRunner().invoke(app, sys.argv[1:])\n"
        "print(done.exit_code, *sorted({'tensorflow', 'keras'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, "cache", "export", tmp_path / "data", "-b", NANO, "-o", "out.h5"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "0\n", ran.stdout + ran.stderr
    assert h5py.is_hdf5("out.h5")


def test_the_command_names_what_it_wrote(done: ExtractResult, tmp_path: Path, humeris: Callable[..., Any]) -> None:
    result = humeris("cache", "export", tmp_path / "data", "-b", NANO, "-o", "out.h5", "--json")
    assert result.code == 0
    assert result.json["exported"]["images"] == 9
    json.dumps(result.json)
    assert humeris("cache", "export", tmp_path / "data", "-b", NANO, "-o", "no/such/folder/out.h5").code == 2
    assert humeris("cache", "export", tmp_path / "data", "-b", NANO, "-b", "nano", "-o", "out.h5").code == 2
