"""The experiments in `examples`: every command is one that humeris takes, and every row runs to its end, in little.

The networks, the layers and the commands are the scripts' own; the images are drawn, the weights random, the epochs one or
two. To be done in this process, an exported model is loaded again here and not in a fresh one, as tests/test_export.py has.
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
    from humeris.classify.model import parity

    def answers(form: Any, model: Path, images: np.ndarray) -> tuple[np.ndarray, float]:
        import keras

        loaded = keras.saving.load_model(model, compile=False, safe_mode=True)
        return np.asarray(loaded(images)), 1.0

    monkeypatch.setattr(parity, "answers", answers)


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
    from humeris.classify.family import parse
    from humeris.classify.finetune.augmentation import Augmentation
    from humeris.extract.augment import Policy
    from humeris.extract.request import Request

    for row in script(name).ROWS:
        for text in row.commands:
            words = shlex.split(text)
            for option, value in pairwise(words):
                if option == "--head":
                    assert parse(value).settings
                elif option == "-b":
                    assert Request.parse(value).application is not None
                elif option == "--augment":
                    assert Augmentation.parse(value) if words[0] == "finetune" else Policy.parse(value)


def test_every_experiment_of_the_five_has_a_row(script: Callable[[str], ModuleType]) -> None:
    found = {row.name.split("-")[0] for name in SCRIPTS for row in script(name).ROWS}
    numbered = {"A": 9, "B": 4, "C": 7, "D": 4, "E": 9}
    assert found == {f"{letter}{number}" for letter, last in numbered.items() for number in range(1, last + 1)} | {"B", "E0"}


@pytest.mark.usefixtures("_parity_here")
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_row_runs_to_its_end_in_little(
    name: str,
    typed: Callable[..., int],
    script: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "runs"
    code = typed(name, "--smoke", "--out", str(out))
    said = capsys.readouterr().out
    print(said)
    assert code == 0
    table = said[said.rindex("\nrow ") :]
    for row in script(name).ROWS:
        (figure,) = re.findall(rf"^{re.escape(row.name)} .*?(\d\.\d{{4}}) \(\d\.\d{{3}} to \d\.\d{{3}}\)", table, re.M)
        assert 0 <= float(figure) <= 1
    assert "failed" not in table
    assert all((run / "run.json").exists() for run in out.iterdir())
