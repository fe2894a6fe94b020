"""Which model files are run: ours by digest, and others where the user says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from humeris.cache.errors import ModelError
from humeris.cache.store import Store
from humeris.classify.export import provenance
from humeris.classify.export.formats.registry import FORMATS
from humeris.classify.export.predict import Predictor


@pytest.fixture(scope="module")
def exported(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A LiteRT model of the finished run, and the cache it was exported with."""
    from humeris.classify.export.export import export

    folder = tmp_path_factory.mktemp("litert")
    shutil.copytree(finished.cache, folder / "cache")
    with Store(folder / "cache", write=True) as store:
        done = export(finished.run, store, folder / "model.tflite")
    assert (done.parity.images, done.parity.top1_agree) == (18, 18)
    return done.path, folder / "cache"


def test_a_model_that_may_run_code_is_run_where_it_was_exported(
    exported: tuple[Path, Path], finished: Any, humeris: Callable[..., Any], tmp_path: Path
) -> None:
    model, cache = exported
    images = finished.photos / "test/noise"
    assert humeris("predict", model, images, "--cache", cache).code == 0
    refused = humeris("predict", model, images)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "model.tflite: the litert model can run code and was not exported with the cache" in refused.err
    assert "give the cache it was exported with by --cache, or give --trust if you trust its source" in refused.err
    assert humeris("predict", model, images, "--trust").code == 0
    assert not (tmp_path / "cache").exists()


def test_one_changed_byte_makes_it_a_model_of_somebody_else(exported: tuple[Path, Path], tmp_path: Path) -> None:
    model, cache = exported
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "changed.tflite").write_bytes(data)
    with pytest.raises(ModelError, match="can run code and was not exported with the cache"):
        Predictor(tmp_path / "changed.tflite", cache=cache)
    (tmp_path / "renamed.tflite").write_bytes(model.read_bytes())
    assert Predictor(tmp_path / "renamed.tflite", cache=cache).classes == ["blob", "noise", "stripes"]


def test_formats_that_cannot_run_code_are_run_from_anywhere(finished: Any, tmp_path: Path) -> None:
    assert {name for name, form in FORMATS.items() if not form.runs_code} == {"keras", "onnx"}
    assert Predictor(finished.model, cache=tmp_path / "none").classes == ["blob", "noise", "stripes"]


def test_the_digest_of_a_folder_is_of_names_and_contents(tmp_path: Path) -> None:
    def folder(name: str, **files: str) -> str:
        for inside, text in files.items():
            path = tmp_path / name / inside.replace("_", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return provenance.compute_digest(tmp_path / name)

    first = folder("a", x="1", sub_y="2")
    assert first == folder("b", sub_y="2", x="1")
    assert len({first, folder("c", x="1", sub_y="3"), folder("d", x="1", sub_z="2"), folder("e", x="12", sub_y="")}) == 4


def test_a_cache_that_cannot_be_written_exports_all_the_same(finished: Any, tmp_path: Path) -> None:
    (tmp_path / "m.keras").write_text("another model")
    digest = provenance.compute_digest(tmp_path / "m.keras")
    assert not provenance.remember(Store(finished.cache), digest)
    assert Store(finished.cache).kv_store.get("exported", digest) is None
