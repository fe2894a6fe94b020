"""Settings: the command line above the environment, above a file, above defaults; a file that is wrong is refused."""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from humeris.cli import app
from humeris.commands.config import load_config_class, write_template
from humeris.commands.settings import COMMAND_TABLES, TABLES, list_settings, read_config, read_settings
from humeris.extract.config import format_option

Humeris = Callable[..., Any]
PLAN = """\
[extract]
backbones = "nano"
layers = ["block4_out", "block5_out"]
image_size = 32
batch_size = 16
seed = 3

[sweep]
heads = ["logreg,C=0.1"]
layers = ["block5_out"]
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "plan.toml").write_text(PLAN)
    return tmp_path / "plan.toml"


def shown(result: Any) -> dict[str, tuple[Any, str]]:
    assert result.code == 0, result.err
    return {each["name"]: (each["value"], each["from"]) for each in result.json["settings"]}


@pytest.mark.parametrize("table", TABLES)
def test_every_field_of_a_config_is_an_option_with_the_same_default(table: str) -> None:
    defaults = load_config_class(table).list_settings()
    assert set(TABLES[table]) == set(defaults) - {"path"}  # the path of a list is DATA, an argument
    for name, setting in TABLES[table].items():
        assert setting.info.help, name
        if setting.default not in (None, inspect.Parameter.empty):
            assert setting.default == defaults[name], name


def test_a_value_comes_from_the_command_line_the_environment_the_file_or_the_default(
    plan: Path, humeris: Humeris, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HUMERIS_CACHE")
    before = shown(humeris("config", "show", "run", "--json"))
    assert {source for _, source in before.values()} == {"default"}
    assert before["backbones"] == ("mobilenet_v2", "default")
    assert before["batch_size"] == (32, "default")
    assert before["jobs"] == (None, "default")
    monkeypatch.setenv("HUMERIS_SEED", "4")
    monkeypatch.setenv("HUMERIS_BATCH_SIZE", "5")
    monkeypatch.setenv("HUMERIS_LIMIT", "9")
    after = shown(humeris("config", "show", "run", "--config", plan, "--limit", 7, "--head", "ridge", "--json"))
    assert {name: value for name, value in after.items() if value != before[name]} == {
        "backbones": (["nano"], "file"),
        "layers": (["block5_out"], "file"),
        "image_size": ("32", "file"),
        "heads": (["ridge"], "command line"),
        "seed": (4, "environment"),
        "batch_size": (5, "environment"),
        "limit": (7, "command line"),
    }


def test_settings_are_shown_as_words_too(plan: Path, humeris: Humeris) -> None:
    lines = humeris("config", "show", "extract", "--config", plan).out.splitlines()
    assert [line.split() for line in lines if line.startswith(("--layer", "--batch"))] == [
        ["--layer", '["block4_out",', '"block5_out"]', "file"],
        ["--batch-size", "16", "file"],
    ]


def test_the_table_of_a_command_stands_above_the_others(plan: Path) -> None:
    assert read_settings(plan, "extract")["layers"] == ["block4_out", "block5_out"]
    for command in ("run", "sweep"):
        assert read_settings(plan, command)["layers"] == ["block5_out"]
        assert read_settings(plan, command)["backbones"] == ["nano"]
    assert read_settings(plan, "finetune") == {}


def test_a_run_and_a_sweep_do_what_a_file_says(plan: Path, photos: Path, humeris: Humeris, tmp_path: Path) -> None:
    extracted = humeris("extract", photos, "--config", plan, "--json").json["extracted"]
    assert [each["taps"] for each in extracted] == [["block4_out:avg", "block5_out:avg"]]
    assert extracted[0]["extraction"].startswith("nano-32-")
    done = humeris("sweep", photos, "--config", plan, "-o", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    metadata = json.loads((tmp_path / "run" / "run.json").read_text())
    assert metadata["seed"] == 3
    assert done.json["trials"] == 1
    assert done.json["best"]["tap_refs"][0]["layer"] == "block5_out"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[extract]\nbatchsize = 3",
            "[extract]: no setting named 'batchsize'; did you mean batch_size?",
        ),
        ("[extact]\n", "plan.toml: no table named 'extact'; did you mean extract?"),
        ("sweep = 3", "plan.toml: sweep must be a table [sweep], not 3"),
        ('[sweep]\nseed = "x"', '[sweep]: seed must be a whole number, not "x"'),
        ("[sweep]\nseed = true", "[sweep]: seed must be a whole number, not true"),
        ("[sweep]\nheads = [1]", "[sweep]: heads must be a list of texts, not [1]"),
        ("[sweep]\nconcatenate = 1", "[sweep]: concatenate must be true or false, not 1"),
        ("[sweep]\nout = 1", "[sweep]: out must be a path, not 1"),
        ('[finetune]\nlearning_rate = "x"', '[finetune]: learning_rate must be a number, not "x"'),
        ("[sweep", "plan.toml: not a valid TOML file: "),
        (None, "plan.toml: no such settings file; check the path"),
        ("[extract]\nbatch_size = 0", "Input should be greater than or equal to 1, got 0"),
        ('[sweep]\nheads = "forest"', "head 'forest': unknown head family; use one of logreg"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_line(
    text: str | None, words: str, photos: Path, humeris: Humeris, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "plan.toml").write_text(text)
    result = humeris("run", photos, "--config", tmp_path / "plan.toml")
    assert result.code == 2
    assert words in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_the_template_has_every_setting_with_its_default(tmp_path: Path, humeris: Humeris) -> None:
    lines = humeris("config", "init").out.splitlines()
    assert lines == write_template()
    assert tomllib.loads("\n".join(lines)) == {table: {} for table in TABLES}
    assignments = [line[2:] for line in lines if line.startswith("# ") and " = " in line and line[2:].split(" = ")[0] in ALL]
    tables: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("["):
            tables[line] = []
        elif line[2:] in assignments and not line.endswith('= ""'):
            tables[next(reversed(tables))].append(line[2:])
    file = tmp_path / "all.toml"
    file.write_text("\n".join(text for table, settings in tables.items() for text in (table, *settings)))
    for table, settings in read_config(file).items():
        config_class = load_config_class(table)
        positional = ["DATA"] if table == "list" else []
        assert config_class(*positional, **settings) == config_class(*positional)
    assert {line.split(" = ")[0] for line in assignments} == ALL


ALL = {name for settings in TABLES.values() for name in settings}


def test_a_setting_out_of_reach_of_a_command_is_left_alone(plan: Path, humeris: Humeris) -> None:
    assert "page" not in list_settings("run")
    assert shown(humeris("config", "show", "finetune", "--from", "x", "--config", plan, "--json"))["from_layer"] == (
        "x", "command line",
    )  # fmt: skip
    assert set(COMMAND_TABLES) == {"run", "extract", "sweep", "finetune", "report"}


def test_an_unknown_command_or_option_is_refused(humeris: Humeris) -> None:
    assert (
        "config show predict: unknown command; use one of run, extract, sweep, finetune, report"
        in humeris("config", "show", "predict").err
    )
    result = humeris("config", "show", "run", "--bach", 3)
    assert result.code == 2
    assert "no such option: --bach" in result.err


@pytest.mark.parametrize("command", COMMAND_TABLES)
def test_errors_and_recorded_commands_name_the_options_there_are(command: str) -> None:
    parser = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    options = {parameter.name: {*parameter.opts, *parameter.secondary_opts} for parameter in parser.params}
    for name, setting in list_settings(command).items():
        assert format_option(name) in options[name]
        if setting.default is True:
            assert format_option(name).replace("--", "--no-", 1) in options[name]
