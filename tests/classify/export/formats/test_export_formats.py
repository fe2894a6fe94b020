"""`humeris export` in every format: checked in the format's own runtime, whole or not there."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.cache.errors import ModelError, ParityError
from humeris.cache.store import Store
from humeris.classify.export import export_source, parity
from humeris.classify.export.export import export
from humeris.classify.export.formats.format import METADATA_FILE
from humeris.classify.export.formats.registry import FORMATS, choose_format, detect_format
from humeris.classify.export.model_metadata import encode_metadata
from humeris.classify.export.predict import Predictor
from humeris.extract.pixels.decode import decode

NAMES = {"keras": "model.keras", "savedmodel": "model", "onnx": "model.onnx", "litert": "model.tflite"}


@pytest.fixture(scope="module")
def cache(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(finished.cache, tmp_path_factory.mktemp("formats") / "cache"))


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is where commands run; other libraries leave folders of their own beside it."""
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    return tmp_path / "out"


def pixels_of(finished: Any) -> np.ndarray:
    records = [record for record in finished.run.load_image_records() if record.split == "test"]
    return np.stack([decode((finished.photos / record.name).read_bytes(), (64, 64)) for record in records])


@pytest.mark.parametrize("name", ["savedmodel", "onnx", "litert"])
def test_the_command_leaves_a_model_that_answers_as_the_run_and_its_card(
    name: str, finished: Any, cache: Path, out: Path, humeris: Callable[..., Any]
) -> None:
    """The other process of the check is real here, and so is the runtime of the prediction."""
    result = humeris("export", finished.path, "-f", name, "-o", out / NAMES[name], "--cache", cache, "--json")
    assert result.code == 0, result.err
    found = result.json["exported"]
    assert (found["format"], found["precision"]) == (name, "float32")
    assert found["parity"] | {"max_difference": 0} == {"images": 18, "top1_agree": 18, "max_difference": 0, "ties": 0}
    assert 0 < found["parity"]["max_difference"] <= 1e-4
    assert found["milliseconds"] > 0
    assert sorted(path.name for path in out.iterdir()) == sorted([NAMES[name], f"{NAMES[name]}.md"])
    assert f"exported in {name} format with float32 weights" in (out / f"{NAMES[name]}.md").read_text()
    predictor = Predictor(out / NAMES[name], cache=cache)
    assert predictor.classes == ["blob", "noise", "stripes"]
    assert np.abs(predictor.predict_proba(pixels_of(finished)) - finished.run.load_probabilities()).max() <= 1e-4
    told = humeris("predict", out / NAMES[name], finished.photos / "test/noise", "--cache", cache, "-f", "csv")
    assert told.code == 0
    assert len(told.out.splitlines()) == 7


@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_smaller_weights_are_checked_too(name: str, precision: str, finished: Any, cache: Path, out: Path) -> None:
    with Store(cache, write=True) as store:
        whole = export(finished.run, store, out / f"whole{FORMATS[name].suffix}")
        small = export(finished.run, store, out / f"small{FORMATS[name].suffix}", precision=precision)
    assert small.bytes < {"float16": 0.7, "int8": 0.6}[precision] * whole.bytes
    assert small.parity.images == small.parity.top1_agree == 18
    assert small.parity.max_difference <= (1e-2 if precision == "float16" else 0.2)
    metadata = FORMATS[name].read_metadata(small.path)
    assert metadata is not None
    assert metadata.precision == precision


def test_int8_learns_the_ranges_from_images_that_are_not_of_the_test_split(
    finished: Any, cache: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []

    class Reached(Exception):
        pass

    def write(*arguments: Any) -> None:
        seen.append(arguments[4])
        raise Reached("no space,\nsays the converter")

    monkeypatch.setitem(FORMATS, "onnx", _with(FORMATS["onnx"], write=write))
    with pytest.raises(ModelError, match=r"m\.onnx: cannot be written as onnx: no space, says the converter"):
        export(finished.run, Store(cache), out / "m.onnx", precision="int8")
    learnt = {image.tobytes() for image in seen[0]}
    assert len(learnt) == 24
    assert not learnt & {image.tobytes() for image in pixels_of(finished)}


def _with(form: Any, **changes: Any) -> Any:
    changed = copy.copy(form)
    vars(changed).update(changes)
    return changed


@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_a_model_that_disagrees_leaves_nothing_and_what_was_there_stays(
    name: str, finished: Any, cache: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "predict_in_subprocess", lambda *_: (finished.run.load_probabilities()[::-1], 1.0))
    with pytest.raises(ParityError, match="disagrees with the cached features"):
        export(finished.run, Store(cache), out / NAMES[name], format=name)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(("name", "damage"), [("onnx", b"ONNX"), ("litert", b"TFL3"), ("savedmodel", b"saved")])
def test_a_file_that_its_runtime_cannot_load_is_refused(
    name: str, damage: bytes, finished: Any, cache: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is made to write half a model: the other process finds that out."""

    def write(_: Any, path: Path, *__: Any) -> None:
        if path.suffix:
            path.write_bytes(damage)
        else:
            path.mkdir()
            (path / "saved_model.pb").write_bytes(damage)

    monkeypatch.setitem(FORMATS, name, _with(FORMATS[name], write=write))
    with pytest.raises(ParityError, match="cannot load or run the model in a fresh process: ") as caught:
        export(finished.run, Store(cache), out / NAMES[name], format=name)
    assert "\n" not in str(caught.value)
    assert list(out.iterdir()) == []


def test_a_savedmodel_takes_the_place_of_an_older_one_and_of_nothing_else(
    finished: Any, cache: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is replaced by one that writes what `read_metadata` reads, and a file that says which turn it was."""
    turns = iter("12")

    def write(_: Any, path: Path, metadata: Any, *__: Any) -> None:
        (path / "assets.extra").mkdir(parents=True)
        (path / "assets.extra" / METADATA_FILE).write_text(encode_metadata(metadata))
        (path / next(turns)).touch()

    monkeypatch.setitem(FORMATS, "savedmodel", _with(FORMATS["savedmodel"], write=write))
    monkeypatch.setattr(parity, "predict_in_subprocess", lambda *_: (finished.run.load_probabilities(), 1.0))
    for turn in "12":
        done = export(finished.run, Store(cache), out / "model", format="savedmodel")
        assert sorted(path.name for path in out.iterdir()) == ["model", "model.md"]
        assert sorted(path.name for path in done.path.iterdir()) == [turn, "assets.extra"]
    (out / "mine").mkdir()
    (out / "mine/thesis.txt").write_text("years")
    with pytest.raises(ModelError, match=r"mine: exists and is a folder that is not an exported model; give another path"):
        export(finished.run, Store(cache), out / "mine", format="savedmodel")
    assert (out / "mine/thesis.txt").read_text() == "years"
    assert detect_format(done.path).name == "savedmodel"


WRONG: dict[tuple[str, ...], str] = {
    (
        "-o",
        "m.h5",
    ): "m.h5: no format has this suffix; use the suffix of one, or give -f: keras (NAME.keras), savedmodel (a folder)",
    ("-o", "m"): "m: no format has this suffix; use the suffix of one, or give -f",
    ("-o", "m.onnx", "-f", "keras"): "m.onnx: does not go with -f keras; give a name that ends in .keras",
    (
        "-o",
        "m.onnx",
        "-f",
        "savedmodel",
    ): "m.onnx: does not go with -f savedmodel; give a name that has no suffix of another format",
    ("-o", "m", "-f", "coreml"): "format 'coreml': unknown; use one of keras",
    ("-o", "m.keras", "--precision", "int8"): "format keras does not support precision int8; choose float32",
    ("-o", "m.onnx", "--precision", "int4"): "unknown precision 'int4'; choose one of float32, float16, int8",
}


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_what_no_format_can_do_is_one_line_before_anything_is_computed(
    words: tuple[str, ...], finished: Any, cache: Path, humeris: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
    out: Path,
) -> None:  # fmt: skip
    def reached(*_: object) -> None:
        raise AssertionError("the network was built")

    monkeypatch.setattr(export_source, "rebuild_backbone", reached)
    result = humeris("export", finished.path, *words, "--cache", cache, "--json")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert WRONG[words] in result.err
    assert json.loads(result.out)["error"]
    assert list(out.iterdir()) == []


def test_another_network_with_b_is_refused(finished: Any, cache: Path, out: Path, humeris: Callable[..., Any]) -> None:
    result = humeris("export", finished.path, "-o", "m.keras", "-b", "resnet50", "--cache", cache)
    assert result.code == 2
    assert "-b resnet50: not the backbone of this trial (nano); leave -b out" in result.err


@pytest.mark.parametrize(
    ("name", "taken", "message"),
    [
        ("m", "m", "exists and is a file, but a savedmodel model is a folder"),
        ("m", "m.md", "exists and is not a model card"),
        ("m.onnx", "m.onnx.md", "exists and is not a model card"),
    ],
)
def test_what_is_no_model_and_no_card_of_ours_is_not_written_over(
    name: str, taken: str, message: str, finished: Any, cache: Path, out: Path
) -> None:
    (out / taken).write_text("# My notes\n")
    with pytest.raises(ModelError, match=message):
        export(finished.run, Store(cache), out / name, format="savedmodel" if name == "m" else None)
    assert [path.name for path in out.iterdir()] == [taken]
    assert (out / taken).read_text() == "# My notes\n"


def test_drafts_that_a_kill_left_are_cleared_a_day_later_and_nothing_else(
    finished: Any, cache: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import time

    monkeypatch.setattr(parity, "predict_in_subprocess", lambda *_: (finished.run.load_probabilities(), 1.0))
    names = [".m-0123abcd.onnx", ".m-89abcdef.onnx", ".other-0123abcd.onnx", "m-0123abcd.onnx", ".m-0123abcd.keras"]
    for name in names:
        (out / name).touch()
        if "89ab" not in name:
            os.utime(out / name, (time.time() - 2 * 24 * 3600,) * 2)
    export(finished.run, Store(cache), out / "m.onnx")
    assert sorted(path.name for path in out.iterdir()) == sorted([*names[1:], "m.onnx", "m.onnx.md"])


def test_the_card_has_the_command_that_makes_this_very_model(finished: Any, cache: Path, out: Path) -> None:
    with Store(cache, write=True) as store:
        done = export(finished.run, store, out / "a b.onnx", precision="float16")
    line = next(line for line in done.card.read_text().splitlines() if "humeris export" in line)
    words = ["-f onnx", "--precision float16", f"--trial {done.trial.id}", f"--cache {cache}", f"-o '{out}/a b.onnx'"]
    assert all(word in line for word in words), line


def test_a_missing_package_names_what_to_install(
    finished: Any, cache: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "onnx", _with(FORMATS["onnx"], modules=("no_such_package",)))
    message = r"format onnx: the package no_such_package is not installed; run pip install 'humeris\[onnx\]'"
    with pytest.raises(ModelError, match=message):
        export(finished.run, Store(cache), out / "m.onnx")


def test_a_name_says_its_format_in_any_case() -> None:
    assert choose_format(Path("A.ONNX"), None).name == "onnx"
    assert choose_format(Path("a.b.tflite"), None).name == "litert"
    assert choose_format(Path("folder.v2"), "savedmodel").name == "savedmodel"
