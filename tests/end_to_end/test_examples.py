"""The experiments in `examples`: every command is one that humeris takes, and every row runs to its end, in little.

The commands are the scripts' own, and most networks; the images are drawn, the weights random, the epochs one or
two. To be done in this process, an exported model is loaded again here and not in a fresh one, as tests/test_export.py has;
and networks run operation by operation, since to compile one takes longer than its one or two batches.
"""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.main import get_command

import humeris

ROOT = Path(humeris.__file__).parent
SCRIPTS = ("small_data_set", "four_cases", "convolutional_codes", "cifar10_vgg16", "stanford_cars")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """A script of `examples`, imported as Python does when it is run."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if (
            getattr(sys.modules[name], "__file__", None)
            and Path(str(sys.modules[name].__file__)).parent == ROOT / "examples"
        ):
            del sys.modules[name]


@pytest.fixture
def typed(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a script as its command line says; its exit code."""

    def run(name: str, *arguments: str, rows: Any = None) -> int:
        module = script(name)
        monkeypatch.setattr(sys, "argv", [f"examples/{name}.py", *arguments])
        experiment = script("experiment")
        code: int = experiment.main(module.__doc__, rows or module.ROWS, module.SMOKE)
        return code

    return run


@pytest.fixture
def _parity_here(monkeypatch: pytest.MonkeyPatch) -> None:
    from humeris.classify.export import parity

    def answers(form: Any, model: Path, images: np.ndarray) -> tuple[np.ndarray, float]:
        import keras

        loaded = keras.saving.load_model(model, compile=False, safe_mode=True)
        return np.asarray(loaded(images)), 1.0

    monkeypatch.setattr(parity, "predict_in_subprocess", answers)


@pytest.fixture
def _untraced() -> Iterator[None]:
    """Networks run operation by operation: to compile each for its one or two batches takes much longer than these do."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_command_of_every_row_is_one_that_humeris_takes(name: str, script: Callable[[str], ModuleType]) -> None:
    from humeris.cli import app

    module, group = script(name), get_command(app)
    assert len({row.name for row in module.ROWS}) == len(module.ROWS) > 4
    for row in module.ROWS:
        assert 1 <= len(row.commands) <= 2, row.name
        for text in row.commands:
            words = shlex.split(text.format(data="photos", out="runs"))
            command = group.commands[words[0]]  # type: ignore[attr-defined]
            command.make_context(words[0], words[1:])


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_heads_and_augmentations_of_every_row_are_ones_that_there_are(
    name: str, script: Callable[[str], ModuleType]
) -> None:
    from humeris.classify.finetune.augmentation import Augmentation
    from humeris.classify.heads.head_grid import HeadGrid
    from humeris.extract.backbones.backbone_spec import BackboneSpec
    from humeris.extract.backbones.registry import list_backbones
    from humeris.extract.pixels.augment import Policy

    for row in script(name).ROWS:
        for text in row.commands:
            words = shlex.split(text)
            for option, value in pairwise(words):
                if option == "--head":
                    assert HeadGrid.parse(value).hyperparameter_sets
                elif option == "-b":
                    assert BackboneSpec.parse(value).info in list_backbones()
                elif option == "--augment":
                    assert Augmentation.parse(value) if words[0] == "finetune" else Policy.parse(value)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_layers_of_every_row_are_the_networks_own_and_it_can_be_cut_there(
    name: str, script: Callable[[str], ModuleType], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from humeris.cache.store import Store
    from humeris.extract.backbones import cut_points
    from humeris.extract.backbones.backbone_spec import BackboneSpec
    from humeris.extract.backbones.metadata import get_or_build
    from humeris.extract.backbones.tap_patterns import resolve_taps

    memo = Store(tmp_path_factory.getbasetemp() / "networks", write=True).kv_store
    cards: dict[tuple[str, str | None], Any] = {}
    runs: dict[str, tuple[Any, list[Any]]] = {}
    for row in script(name).ROWS:
        for words in map(shlex.split, row.commands):
            said = {option: [value for before, value in pairwise(words) if before == option] for option in words}
            if words[0] == "finetune":
                card, taps = runs[words[1]]
                assert (cut_points.find_cut(said["--from"][0], card.layers, taps) is None) == (said["--from"] == ["input"])
                continue
            for network in said.get("-b", []):
                asked = network, (said.get("--image-size") or [None])[0]
                if asked not in cards:
                    cards[asked] = get_or_build(BackboneSpec.parse(network, weights="random", image_size=asked[1]), memo)[0]
                card = cards[asked]
                patterns = [side for text in said.get("-l", []) for side in text.split("+")]
                taps = resolve_taps(patterns, card.layers, card.default_layers, said.get("--pool", []))
                runs[(said.get("-o") or [""])[0]] = card, taps
    assert len(cards) >= 1


def test_every_experiment_of_the_five_has_a_row(script: Callable[[str], ModuleType]) -> None:
    found = {row.name.split("-")[0] for name in SCRIPTS for row in script(name).ROWS}
    numbered = {"A": 9, "B": 4, "C": 7, "D": 4, "E": 9}
    assert found == {f"{letter}{number}" for letter, last in numbered.items() for number in range(1, last + 1)} | {"B", "E0"}


def test_listed_are_the_commands_with_the_networks_and_layers_that_were_asked_for(
    typed: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    swapped = ("--replace", "vgg16=mobilenet_v2,alpha=0.35", "--replace", "block5_pool=out_relu")
    assert typed("small_data_set", "my photos", "--list", "--rows", "A2", "--out", "o", *swapped) == 0
    assert [line.strip() for line in capsys.readouterr().out.splitlines() if "humeris" in line] == [
        "humeris sweep 'my photos' --extract -b mobilenet_v2,alpha=0.35 -l out_relu --head mlp,patience=0 "
        "-o o/mobilenet_v2,alpha=0.35",
        "humeris finetune o/mobilenet_v2,alpha=0.35 --from block2_pool --head-epochs 5 -o o/A2",
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("photos", "--rows", "A3,A30"), "--rows A30: no such row; use some of A1, A2, "),
        (("photos", "--replace", "vgg16"), "--replace 'vgg16': not OLD=NEW"),
        ((), "no DATA; give a folder of images, or --smoke"),
    ],
)
def test_a_wrong_command_line_is_refused_in_a_line(
    arguments: tuple[str, ...], expected: str, typed: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        typed("small_data_set", *arguments)
    assert left.value.code == 2
    assert re.search(expected, capsys.readouterr().err)


def test_a_command_is_run_once_a_row_that_fails_is_said_to_have_and_the_others_are_run(
    typed: Callable[..., int], script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    experiment = script("experiment")
    late = "sweep {data} --extract -b nano -l block5_out --head logreg,C=0.1/1 -o {out}/late"
    rows = (
        experiment.Row("X1", "a late layer", ".9", (late,), ("C",)),
        experiment.Row("X2", "no such layer", ".8", (late.replace("block5", "block9"), "report {out}/late")),
        experiment.Row("X3", "a late layer, told about", ".7", (late, "report {out}/late")),
    )
    data = script("four_cases").SMOKE.draw(tmp_path / "photos")
    assert typed("four_cases", str(data), "--out", str(tmp_path / "runs"), rows=rows) == 1
    said, table = capsys.readouterr().out.split("\nrow ")
    assert said.count("(done above)") == said.count("$ humeris report") == 1
    assert (tmp_path / "runs/late/report.html").exists()
    run = humeris.Run.load(tmp_path / "runs/late")
    low, high = run.result.test.accuracy_95
    figure = f"{run.result.test.accuracy:.4f} ({low:.3f} to {high:.3f})"
    assert re.search(rf"^X1 +\.9 +{re.escape(figure)} +logreg on nano/block5_out:avg; held out 0\.\d+", table, re.M)
    assert re.search(rf"^X3 +\.7 +{re.escape(figure)} ", table, re.M)
    assert re.search(r"^X2 +\.8 +failed +humeris sweep ", table, re.M)
    by_c = {trial.hyperparameters["C"]: score.accuracy for trial, score in run.load_trials().items()}
    assert f"X1: logreg C: 0.1 {by_c[0.1]:.3f}, 1.0 {by_c[1.0]:.3f}" in table


@pytest.mark.usefixtures("_parity_here", "_untraced")
@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.many)])
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_row_runs_to_its_end_in_little(
    name: str,
    every: int,
    typed: Callable[..., int],
    script: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "runs"
    rows = script(name).ROWS[::every]
    code = typed(name, "--smoke", "--out", str(out), rows=rows)
    said = capsys.readouterr().out
    print(said)
    assert code == 0
    table = said[said.rindex("\nrow ") :]
    for row in rows:
        (figure,) = re.findall(rf"^{re.escape(row.name)} .*?(\d\.\d{{4}}) \(\d\.\d{{3}} to \d\.\d{{3}}\)", table, re.M)
        assert 0 <= float(figure) <= 1
        tuned = re.search(rf"^{re.escape(row.name)} .*finetune from", table, re.M)
        assert bool(tuned) == any(command.startswith("finetune ") for command in row.commands), row.name
    assert "failed" not in table
    assert all((run / "run.json").exists() for run in out.iterdir())
