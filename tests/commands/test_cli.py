"""The command line: light help, one document of JSON, one line per error, exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

import humeris as package
from humeris.cli import app

ROOT = Path(package.__file__).parent


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """(words, command) of every command, those of `cache` included."""
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from (((name, inner), each) for inner, each in command.commands.items())
        else:
            yield (name,), command


COMMANDS = dict(commands())
NAMES = [" ".join(words) for words in COMMANDS]


def test_the_commands_are_these() -> None:
    assert set(NAMES) == {
        "demo", "run", "extract", "sweep", "rank", "finetune", "export", "predict", "report", "backbones", "layers",
        "doctor",
        "cache list", "cache info", "cache verify", "cache export", "cache prune", "config show", "config init",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_command_and_its_options_have_help(name: str, humeris: Callable[..., Any]) -> None:
    command = COMMANDS[tuple(name.split())]
    assert command.help
    assert command.help.strip().endswith(".")
    obvious = {"--batch-size", "--help"}
    for parameter in command.params:
        assert parameter.help or obvious & set(parameter.opts), parameter.opts
    result = humeris(*name.split(), "--help")
    assert result.code == 0
    assert "Usage: " in result.out


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_in_the_readme(name: str) -> None:
    readme = (ROOT / "README.md").read_text()
    if "humeris" not in readme:
        pytest.skip("the README is not written yet")
    assert f"humeris {name}" in readme or f"| `{name}" in readme or f"`{name}`" in readme


def python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh process; its own environment variables are added."""
    import os

    command = [sys.executable, "-c", code, *map(str, arguments)]
    variables = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables)


MAIN = """
import sys
sys.argv[0] = "humeris"
from humeris.cli import main
main()
"""

HELP = """
import sys
from typer.testing import CliRunner
from humeris.cli import app
for words in sys.argv[1].split(";"):
    result = CliRunner().invoke(app, [*words.split(), "--help"])
    assert result.exit_code == 0 and "Usage" in result.output, result.output
heavy = ("tensorflow", "keras", "h5py", "sklearn", "joblib", "PIL", "numpy", "scipy", "rich.progress", "jinja2")
print(*(name for name in heavy if name in sys.modules))
"""


def test_help_imports_nothing_heavy() -> None:
    done = python(HELP, ";".join(["", *NAMES, "cache"]))
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_errors_of_usage_and_the_version_import_nothing_heavy() -> None:
    code = MAIN.replace("main()", "try: main()\nexcept SystemExit: print(sorted({'tensorflow', 'h5py'} & set(sys.modules)))")
    assert python(code, "--version").stdout == f"humeris {package.__version__}\n[]\n"
    assert python(code, "extract").stdout == "[]\n"


LIGHT = [
    ("extract", "DATA", "-b", "nano", "-l", "block5_out"),
    ("extract", "DATA", "-b", "nano", "-l", "block5_out", "--dry-run"),
    ("cache", "list"),
    ("cache", "info", "nano"),
    ("cache", "verify"),
    ("cache", "export", "DATA", "-b", "nano", "-o", "OUT"),
    ("rank", "DATA"),
    ("report", "RUN", "-o", "OUT"),
    ("layers", "nano"),
    ("backbones",),
]


@pytest.fixture
def at_hand(finished: Any, tmp_path: Path) -> dict[str, str]:
    """What the words DATA, RUN, MODEL and OUT stand for."""
    return {
        "DATA": str(finished.photos), "RUN": str(finished.path), "MODEL": str(finished.model), "OUT": str(tmp_path / "out"),
    }  # fmt: skip


def test_what_is_cached_is_looked_at_without_tensorflow(finished: Any, at_hand: dict[str, str], tmp_path: Path) -> None:
    lines = [[at_hand.get(word, word) for word in words] for words in LIGHT]
    code = f"""
import sys
from typer.testing import CliRunner
from humeris.cli import app
for words in {lines}:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, (words, result.output)
print(*(name for name in ("tensorflow", "keras") if name in sys.modules))
"""
    done = python(code, HUMERIS_CACHE=str(finished.cache))
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


WORDS = [
    *LIGHT,
    ("sweep", "DATA", "-j", "1", "--head", "logreg,C=1", "-o", "OUT"),
    ("predict", "MODEL", "DATA"),
    ("doctor",),
]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_json_is_one_document_and_nothing_else(
    words: tuple[str, ...], finished: Any, at_hand: dict[str, str], humeris: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HUMERIS_CACHE", str(finished.cache))
    result = humeris(*(at_hand.get(word, word) for word in words), "--json")
    assert result.code == 0, result.err
    assert isinstance(result.json, dict)
    assert result.out.isascii()
    assert result.err == ""


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_text_is_for_people_and_quiet_says_nothing(
    words: tuple[str, ...], finished: Any, at_hand: dict[str, str], humeris: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HUMERIS_CACHE", str(finished.cache))
    line = [at_hand.get(word, word) for word in words]
    shown = humeris(*line)
    assert shown.code == 0
    assert shown.out.strip()
    assert "Traceback" not in shown.out + shown.err
    assert shown.err == ""
    if any("--quiet" in parameter.opts for parameter in COMMANDS.get(words[:1], COMMANDS.get(words[:2])).params):
        assert humeris(*line, "-q").out == ""


FAILING = [
    ("extract", "nowhere", "-b", "nano"),
    ("run", "nowhere", "-b", "nano"),
    ("sweep", "nowhere"),
    ("export", "nowhere", "-o", "m.keras"),
    ("predict", "nowhere.keras", "."),
    ("layers", "resnet5000"),
    ("cache", "info", "nothing"),
    ("cache", "export", "nowhere", "-o", "out.h5"),
    ("cache", "list", "--cache", "file"),
    ("cache", "verify", "--cache", "file"),
    ("demo", "-o", "file"),
]


@pytest.mark.parametrize("words", FAILING, ids=" ".join)
def test_an_error_is_one_line_on_stderr_and_exit_code_2(
    words: tuple[str, ...], humeris: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "image.png").touch()
    result = humeris(*words)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("humeris: ")
    assert result.err.count("\n") == 1
    as_json = humeris(*words, "--json")
    assert as_json.code == 2
    assert list(as_json.json) == ["error"]
    assert as_json.json["error"]
    assert as_json.err == result.err


WRONG = {
    ("extract",): "missing argument 'DATA' (folder of class or split folders; .csv, ",
    ("predict", "m.keras"): "missing argument 'IMAGES…' (image files or folders); ",
    ("export", "run"): "missing option '--out' / '-o' (env var: 'HUMERIS_OUT') (the model file: NAME.keras, ",
    ("fly",): "no such command 'fly'; ",
    ("extrct",): "no such command 'extrct'. Did you mean 'extract', 'export'? ",
    ("cache", "lst"): "no such command 'lst'. Did you mean 'list'? ",
    ("extract", ".", "--unknown"): "no such option: --unknown; ",
    ("sweep", ".", "--haed", "logreg"): "no such option: --haed (Possible options: --head",
    ("--hepl",): "no such option: --hepl (Possible options: --help)",
    ("extract", ".", "-b"): "option '-b' requires an argument; ",
    ("extract", ".", "--dry-run=3"): "option '--dry-run' does not take a value; ",
    ("cache", "list", "more"): "got unexpected extra argument(s) (more); ",
    ("extract", ".", "--batch-size", "0"): "greater than or equal to 1, got '0'; ",
    ("extract", ".", "--batch-size", "many"): "valid integer, unable to parse string as an integer, got 'many'; ",
    ("extract", ".", "-j", "0"): "greater than or equal to 1, got '0'; ",
    ("extract", ".", "--limit", "0"): "invalid value for '--limit' (env var: 'HUMERIS_LIMIT'): ",
    ("predict", "m.keras", ".", "--top", "0"): "greater than or equal to 1, got '0'; ",
    (
        "predict",
        "m.keras",
        ".",
        "--format",
        "xml",
    ): "value for --format: must be table, csv or jsonl, not 'xml'; ",
    ("cache", "prune"): "no age or size is given; give --older-than, --max-size or both; ",
    ("cache", "export", ".", "-b", "nano", "-b", "nano", "-o", "f.h5"): "2 backbones given, a file holds one; give one; ",
}


def helpful(words: tuple[str, ...]) -> str:
    """The command that lists what could have been typed."""
    known = [count for count in (1, 2) if words[:count] in COMMANDS or words[:count] == ("cache",)]
    return " ".join(["humeris", *words[: max(known, default=0)], "--help"])


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_wrong_usage_is_one_line_that_says_what_is_wrong_and_where_to_look(
    words: tuple[str, ...], humeris: Callable[..., Any]
) -> None:
    result = humeris(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("humeris: ")
    assert WRONG[words] in result.err
    assert result.err.endswith(f"ee `{helpful(words)}`\n")
    assert result.err.count("\n") == 1


JSON_LAST = [words for words in WRONG if words[-1] not in {"-b", "xml"}]  # -b would take it, and a format goes without


@pytest.mark.parametrize("words", JSON_LAST, ids=" ".join)
def test_a_wrong_usage_with_json_is_a_document_of_the_same_words(
    words: tuple[str, ...], humeris: Callable[..., Any]
) -> None:
    line = humeris(*words).err
    result = humeris(*words, "--json")
    assert (result.code, result.err) == (2, line)
    assert result.json == {"error": line.removeprefix("humeris: ").rstrip("\n")}


def test_json_from_the_environment_is_for_wrong_usage_too(
    humeris: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUMERIS_JSON", "true")
    assert list(humeris("extract").json) == ["error"]
    monkeypatch.setenv("HUMERIS_JSON", "0")
    assert humeris("extract").out == ""


def test_a_word_after_two_dashes_asks_for_no_json(humeris: Callable[..., Any]) -> None:
    result = humeris("predict", "m.keras", "--unknown", "--", "--json")
    assert (result.code, result.out) == (2, "")


def test_the_command_itself_says_the_same_of_a_wrong_usage(humeris: Callable[..., Any]) -> None:
    words = ("sweep", ".", "--haed", "logreg", "--json")
    done, here = python(MAIN, *words), humeris(*words)
    assert (done.returncode, done.stdout, done.stderr) == (2, here.out, here.err)


def test_an_end_of_the_input_is_one_line_and_exit_code_1(
    humeris: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from humeris.cache import inventory

    def ended(*_: object) -> None:
        raise EOFError

    monkeypatch.setattr(inventory, "build_inventory", ended)
    result = humeris("cache", "list")
    assert (result.code, result.out, len(result.err.split("\n"))) == (1, "", 3)


def test_errors_of_usage_reach_a_program_that_asks_for_them() -> None:
    with pytest.raises(typer.BadParameter) as error:
        get_command(app).main(["extract"], standalone_mode=False)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("typed", "completed"), [("humeris swe", "sweep"), ("humeris cache pr", "prune"), ("humeris run --hea", "--head")]
)
def test_the_shell_completes_commands_and_options(typed: str, completed: str) -> None:
    asked = {"_HUMERIS_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = python(MAIN, **asked)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [completed], "")


def test_the_version_is_printed(humeris: Callable[..., Any]) -> None:
    assert humeris("--version").out == f"humeris {package.__version__}\n"


HOSTILE = "\x1b[31mred\x1b]0;title\x07\nhumeris: forged\r\u202egnp"


def assert_harmless(text: str) -> None:
    assert [line for line in text.split("\n") if not line.isprintable()] == []
    assert not any(line.startswith("humeris: forged") for line in text.splitlines())


def test_names_cannot_move_the_cursor_or_forge_lines(
    tmp_path: Path, draw_image: Callable[..., Path], humeris: Callable[..., Any]
) -> None:
    """Class folders, files, refused files, a duplicate: everything that is named in text."""
    photos = tmp_path / f"photos{HOSTILE}"
    for kind in range(2):
        for seed in range(8):
            split = "train" if seed < 5 else "test"
            draw_image(photos / split / f"{kind}{HOSTILE}" / f"{seed}{HOSTILE}.png", kind, seed, (40, 40))
    one = next((photos / "train").glob("0*/*.png"))
    (photos / "test" / one.parent.name / f"copy{HOSTILE}.png").write_bytes(one.read_bytes())
    (photos / "train" / one.parent.name / f"bad{HOSTILE}.gif").write_text(HOSTILE)
    (photos / f"loose{HOSTILE}.txt").write_text("x")
    (photos / f"beside{HOSTILE}").mkdir()
    cache = tmp_path / f"cache{HOSTILE}"
    lines: list[tuple[object, ...]] = [
        ("extract", photos, "-b", "nano,image_size=32", "-l", "block5_out", "--cache", cache),
        ("extract", photos, "-b", "nano,image_size=32", "-l", "block5_out", "--cache", cache, "--dry-run"),
        ("sweep", photos, "--cache", cache, "-j", 1, "--head", "logreg,C=1", "-o", tmp_path / f"run{HOSTILE}"),
        ("cache", "export", photos, "-b", "nano,image_size=32", "--cache", cache, "-o", tmp_path / f"out{HOSTILE}.h5"),
        ("cache", "list", "--cache", cache),
        ("cache", "info", "nano", "--cache", cache),
        ("cache", "verify", "--cache", cache),
        ("doctor", "--cache", cache),
        ("extract", tmp_path / f"nowhere{HOSTILE}", "-b", "nano"),
        ("extract", photos, "-b", f"{HOSTILE}.keras,preprocessing=tf"),
        ("extract", photos, "-b", HOSTILE),
        ("extract", photos, "-b", "nano", "-l", HOSTILE),
        ("extract", photos, "-b", "nano", "--weights", HOSTILE),
        ("sweep", photos, "--cache", cache, "--head", HOSTILE),
        ("export", tmp_path / HOSTILE, "-o", "m.keras"),
        ("predict", tmp_path / f"{HOSTILE}.keras", "."),
        ("cache", "info", HOSTILE, "--cache", cache),
        (HOSTILE,),
        ("cache", "list", HOSTILE),
        ("extract", photos, f"--{HOSTILE}"),
        ("extract", photos, "--limit", HOSTILE),
        ("predict", "m.keras", photos, "--format", HOSTILE),
    ]
    codes = []
    for line in lines:
        result = humeris(*line)
        codes.append(result.code)
        assert_harmless(result.out)
        assert_harmless(result.err)
        assert "Traceback" not in result.err
    assert codes == [1, 1, 1, 1, 0, 0, 0, 0, *[2] * 14]


def test_predictions_of_hostile_names_are_harmless_in_the_table(
    finished: Any, tmp_path: Path, humeris: Callable[..., Any]
) -> None:
    folder = tmp_path / f"in{HOSTILE}"
    folder.mkdir()
    (folder / f"good{HOSTILE}.png").write_bytes((finished.photos / "test/blob/09.png").read_bytes())
    (folder / f"bad{HOSTILE}.png").write_text(HOSTILE)
    result = humeris("predict", finished.model, folder)
    assert result.code == 1
    assert len(result.out.splitlines()) == 2
    assert_harmless(result.out)


def test_environment_variables_stand_for_options(
    finished: Any, tmp_path: Path, humeris: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUMERIS_CACHE", str(finished.cache))
    monkeypatch.setenv("HUMERIS_JSON", "1")
    monkeypatch.setenv("HUMERIS_BACKBONE", "nano")
    monkeypatch.setenv("HUMERIS_HEAD", "logreg,C=0.5")
    monkeypatch.setenv("HUMERIS_SEED", "3")
    monkeypatch.setenv("HUMERIS_JOBS", "1")
    assert humeris("cache", "list").json["cache"] == str(finished.cache)
    assert humeris("extract", finished.photos, "-l", "block5_out").json["extracted"][0]["backbone"] == "nano"
    humeris("sweep", finished.photos, "-o", tmp_path / "run")
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert run["seed"] == 3
    assert run["heads"] == [{"head": "logreg", "hyperparameter_sets": [{"C": 0.5}]}]
    monkeypatch.setenv("HUMERIS_BATCH_SIZE", "0")
    assert humeris("extract", finished.photos).code == 2
    monkeypatch.setenv("HUMERIS_BATCH_SIZE", "8")
    monkeypatch.setenv("HUMERIS_IMAGE_SIZE", "huge")
    assert "image size 'huge'" in humeris("extract", finished.photos).err


def test_several_backbones_in_the_environment_are_several(
    finished: Any, humeris: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUMERIS_BACKBONE", "nano nano,image_size=32")
    result = humeris("extract", finished.photos, "-l", "block5_out", "--dry-run", "--json", "--cache", finished.cache)
    assert len(result.json["planned"]) == 2


@pytest.mark.parametrize("before", ["", "import sys; sys.stdout = open(1, 'w', buffering=1 << 20, closefd=False)\n"])
def test_a_pipe_that_closes_early_is_no_error(finished: Any, before: str) -> None:
    """Noticed when the first of it is written, or when all of it is, at the end."""
    code = (
        "import subprocess, sys\n"
        + f"""
command = [sys.executable, "-c", {before + MAIN!r}, "backbones"]
process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
process.stdout.close()
print(process.wait(), process.stderr.read())
"""
    )
    assert python(code).stdout == "0 b''\n"


INTERRUPT = """
import os, signal, sys
from humeris.extract.images import load as images
def interrupted(*arguments, **options):
    os.kill(os.getpid(), signal.SIGINT)
images.load_images = interrupted
"""


def test_an_interruption_says_how_to_go_on_and_exits_with_130(tmp_path: Path) -> None:
    done = python(INTERRUPT + MAIN, "extract", "my photos", "-b", "nano", "--cache", tmp_path / "c")
    assert done.returncode == 128 + signal.SIGINT
    assert done.stdout == ""
    command = f"humeris extract 'my photos' -b nano --cache {tmp_path}/c"
    assert done.stderr.splitlines() == [f"humeris: interrupted; completed work is kept. Resume with: {command}"]


@pytest.mark.parametrize(("words", "named"), [((), "extract"), (("cache",), "prune")], ids=["humeris", "humeris cache"])
def test_no_arguments_show_the_help_and_nothing_else(
    words: tuple[str, ...], named: str, humeris: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUMERIS_JSON", "1")
    result = humeris(*words)
    assert (result.code, result.err) == (2, "")
    assert result.out.strip().startswith("Usage: ")
    assert named in result.out


def test_without_rich_help_is_plain_and_errors_are_the_same() -> None:
    done = python(MAIN, TYPER_USE_RICH="0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: humeris ")
    assert python(MAIN, "extract", TYPER_USE_RICH="0").stderr == python(MAIN, "extract").stderr != ""
