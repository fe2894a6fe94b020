"""The Python face where it exports models and trains networks: the examples, and the same as the command line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_world import EXAMPLES_WITH_A_MODEL, make_world, run_examples

import humeris
from humeris.cache.store import Store
from humeris.classify.api.models import find_model
from humeris.classify.runs.run import Run


@pytest.fixture(scope="module")
def module_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("api"))


@pytest.fixture
def world(module_world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; what the examples leave is used by the tests below."""
    monkeypatch.chdir(module_world)
    monkeypatch.setenv("HUMERIS_CACHE", "features")
    return module_world


@pytest.fixture(name="command")
def _command(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The command line, as the fixture `humeris` runs it: that name is the package's here."""
    runner: Callable[..., Any] = request.getfixturevalue("humeris")
    return runner


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("name", EXAMPLES_WITH_A_MODEL)
def test_the_examples_of_functions_that_need_a_model_run(name: str) -> None:
    run_examples(name)


@pytest.mark.usefixtures("world")
def test_predictions_are_those_of_the_command_for_every_kind_of_model(command: Callable[..., Any]) -> None:
    lines = command("predict", "model.keras", "photos/blob", "photos/noise/00.png", "--format", "jsonl", "--top", 2).out
    images = [Path("photos/blob"), "photos/noise/00.png"]
    expected = [json.loads(line) for line in lines.splitlines()]
    predictor = humeris.Predictor("model.keras")
    for model in ("model.keras", Path("model.keras"), predictor):
        assert [each.to_dict() for each in humeris.predict(model, images, top=2)] == expected
    (alone,) = predictor.predict("photos/noise/00.png", top=2)  # in a batch of one, which may round otherwise
    assert [name for name, _ in alone.top] == [each["class"] for each in expected[-1]["top"]]
    assert [score for _, score in alone.top] == pytest.approx(
        [each["probability"] for each in expected[-1]["top"]], abs=2e-6
    )
    (by_run,) = humeris.predict("runs/b", "photos/noise/00.png")  # another head: its own model
    assert by_run.top == humeris.predict("runs/b/model.keras", "photos/noise/00.png")[0].top
    Path("broken.png").write_text("no image")
    (rejected,) = humeris.predict(predictor, "broken.png")
    assert (rejected.top, bool(rejected.rejection)) == ((), True)


@pytest.mark.usefixtures("world")
def test_a_model_is_looked_for_in_what_there_is() -> None:
    with pytest.raises(humeris.ModelError, match=r"runs/a: the run has no model\.keras"):
        humeris.predict("runs/a", "photos/blob/00.png")
    assert find_model(Run("runs/b")) == find_model("runs/b") == Path("runs/b/model.keras")
    assert find_model("other.onnx") == Path("other.onnx")
    with pytest.raises(humeris.DataError, match=r"nothing\.png"):
        humeris.predict("model.keras", "nothing.png")
    with pytest.raises(humeris.ModelError, match="photos"):
        humeris.predict("photos", "photos/blob/00.png")


@pytest.mark.usefixtures("world")
def test_results_are_taken_where_runs_are(command: Callable[..., Any]) -> None:
    with Store("features", write=True) as store:
        config = humeris.ExtractConfig("nano", layers="block5_out")
        result = humeris.run("photos", config, humeris.SweepConfig("logreg,C=1", out="runs/b"), cache=store)  # done already
        model = humeris.export(result, format="savedmodel", trial=result.run.result.best.id, cache=store)
        pages = humeris.report([result, "runs/a"], "page.html", cache=store)
    assert model.path == Path("runs/b/model")
    assert repr(model).startswith("<ExportResult runs/b/model: savedmodel, float32, ")
    assert find_model(result) == result.export_result.path
    assert find_model(model) == Path("runs/b/model")
    assert [repr(part) in repr(result) for part in (result.run, result.images, result.export_result)] == [True] * 3
    assert pages.path == Path("page.html")
    by_command = command("report", "runs/b", "runs/a", "-o", "page2.html", "-q")
    assert by_command.code in {0, 1}
    assert Path("page2.html").read_bytes() == Path("page.html").read_bytes()


@pytest.mark.usefixtures("world")
def test_the_command_finds_the_runs_of_python_to_be_its_own(command: Callable[..., Any]) -> None:
    arguments = ["-b", "nano", "--head", "logreg,C=1", "-l", "block5_out", "-o"]
    before = Run.load("runs/b").result
    assert command("run", "photos", *arguments, "runs/b", "-q").code == 0
    assert Run.load("runs/b").result == before
    refused = command("run", "photos", "--seed", 1, *arguments, "runs/b", "-q")
    assert (refused.code, "runs/b" in refused.err) == (2, True)


@pytest.mark.usefixtures("world")
def test_a_fine_tuning_is_the_same_however_it_is_asked_for(command: Callable[..., Any]) -> None:
    epochs: list[Any] = []
    config = humeris.FinetuneConfig("block4_out", out="runs/c", epochs=2)
    result = humeris.finetune(Run.load("runs/a"), config, epochs=1, on_epoch=epochs.append)
    assert (result.run.path, epochs) == (Path("runs/c"), [])  # complete already
    assert repr(result).splitlines()[:2] == ["<FinetuneResult>", f"  {Run.load('runs/c')!r}"]
    assert find_model(result) == Path("runs/c/model.keras")
    assert command("finetune", "runs/a", "--from", "block4_out", "--epochs", 1, "-o", "runs/c", "-q").code == 0
    assert command("finetune", "runs/a", "--from", "block4_out", "--epochs", 2, "-o", "runs/c", "-q").code == 2


def test_the_python_of_the_readme_runs(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUMERIS_CACHE", "cache")
    shutil.copytree(world / "photos", "photos")
    shutil.copytree("photos/blob", "folder")
    shutil.copy("photos/noise/00.png", "new.jpg")
    section = (Path(humeris.__file__).parent / "README.md").read_text().split("\n## Python\n")[1].split("\n## ")[0]
    code = "\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    stand_ins = {"mobilenet_v2,alpha=0.35": "nano", "block_13*": "block4_out", "out_relu": "block5_out"}
    for name, stand_in in stand_ins.items():
        assert name in code
        code = code.replace(name, stand_in)
    code = code.replace("hidden=64/256", "hidden=8,epochs=2")
    exec(compile(code, "README.md", "exec"), {})  # with networks that need no download
    assert Path("photos.keras").exists()
    assert Run.load("runs/a").result.test.accuracy == 1.0
