"""Terminal output shared by all commands: results, errors, progress bars and the next command."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from ..cache.errors import HumerisError
from ..cache.formatting import quote_argument, to_printable, to_utf8

if TYPE_CHECKING:
    from ..cache.store import Store
    from ..extract.images.load import Progress
_Command = TypeVar("_Command", bound=Callable[..., Any])


def handle_errors(function: _Command) -> _Command:
    """Wrap a command so that errors become one line and an exit code: 2 for bad input, 130 for an interruption."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> None:
        try:
            code = function(*args, **options)
            print(end="", flush=True)  # flush here: at exit, the interpreter would complain about a closed pipe
        except (HumerisError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(0) from None
            print_error(
                str(error) if isinstance(error, HumerisError) else _format_os_error(error), bool(options.get("as_json"))
            )
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            print(
                f"humeris: interrupted; completed work is kept. Resume with: {to_printable(get_command_line())}",
                file=sys.stderr,
            )
            raise typer.Exit(130) from None
        if code:
            raise typer.Exit(code)

    return call  # type: ignore[return-value]


def print_error(message: str, as_json: bool) -> None:
    """Print an error as one line on standard error and, with --json, as a document on standard output."""
    if as_json:
        print(json.dumps(to_utf8({"error": message})))
    print(f"humeris: {to_printable(message)}", file=sys.stderr)


def describe_corrupt_files(store: Store) -> dict[str, Any]:
    """Return the entry on corrupt files that every result read from a cache has."""
    return {"damaged": [record.to_dict() for record in store.corrupt_files]}


def get_command_line() -> str:
    """Return the command line as it was typed."""
    return shlex.join([get_program(), *sys.argv[1:]])


def get_program() -> str:
    """Return how to call humeris: by its name if that is on the PATH, else by the path it was started with."""
    invoked_path = Path(sys.argv[0])
    if shutil.which("humeris") or invoked_path.name != "humeris":
        return "humeris"
    relative_path = os.path.relpath(invoked_path)
    return os.path.abspath(invoked_path) if relative_path.startswith("..") else relative_path


def build_cache_options(cache: Path | str | None) -> list[object]:
    """Return the --cache option, or nothing if the default or the environment names this cache."""
    return [] if cache is None or os.environ.get("HUMERIS_CACHE") == str(cache) else ["--cache", cache]


def render(
    output: dict[str, Any],
    as_json: bool,
    quiet: bool,
    show: Callable[[dict[str, Any]], str],
    next_command: Sequence[object] = (),
) -> int:
    """Print a result and the next command; return 1 if something was rejected, left out or corrupt, else 0."""
    if as_json:
        print(json.dumps(to_utf8(output), indent=2, ensure_ascii=True))
    elif not quiet:
        print(show(output))
        if next_command:
            print("next:", " ".join(quote_argument(word) for word in [get_program(), *next_command]))
    for step in output.get("failed", []):
        print(f"humeris: {step['step']} failed: {to_printable(step['error'])}; then: {step['command']}", file=sys.stderr)
    omissions = (output.get("data") or {}).get("refused") or output.get("left_out") or output.get("damaged")
    omissions = omissions or output.get("failed")
    has_not_finite = any(extraction.get("not_finite") for extraction in output.get("extracted", []))
    return 1 if omissions or has_not_finite else 0


@contextmanager
def show_progress(silent: bool) -> Iterator[Callable[[str], Progress]]:
    """Show progress bars on standard error if it is a terminal, one per stage, with rate and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn()]
    with Bars(*columns, console=console, disable=silent or not console.is_terminal, transient=True) as bars:

        def start_stage(name: str) -> Progress:
            for previous_task in bars.tasks:
                if not previous_task.total:  # there was nothing to do
                    bars.remove_task(previous_task.id)
            task = bars.add_task(name, total=None)
            return lambda completed, total: bars.update(task, completed=completed, total=total)

        yield start_stage


def _format_os_error(error: OSError) -> str:
    """Return the message of an operating system error that no other code handled."""
    file_name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "a file"
    return f"{file_name}: {error.strerror or error}; fix this and run the command again; completed work is kept"
