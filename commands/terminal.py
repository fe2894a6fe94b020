"""What every command says on the terminal: its result, its errors, how far it is, what to type next."""

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
from ..cache.formatting import quote_argument, to_printable

if TYPE_CHECKING:
    from ..cache.store import Store
    from ..extract.images.load import Progress
_Command = TypeVar("_Command", bound=Callable[..., Any])


def handle_errors(function: _Command) -> _Command:
    """A command whose errors are one line and an exit code: 2 for bad input, 130 for an interruption."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> None:
        try:
            code = function(*args, **options)
            print(end="", flush=True)  # or the interpreter does, and complains of a pipe that was closed
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
                f"humeris: interrupted; what was done is kept. Go on with: {to_printable(get_command_line())}",
                file=sys.stderr,
            )
            raise typer.Exit(130) from None
        if code:
            raise typer.Exit(code)

    return call  # type: ignore[return-value]


def print_error(message: str, as_json: bool) -> None:
    """Print why nothing was done: a line on standard error, with --json a document on standard output as well."""
    if as_json:
        print(json.dumps({"error": message}))
    print(f"humeris: {to_printable(message)}", file=sys.stderr)


def describe_corrupt_files(store: Store) -> dict[str, Any]:
    """What every result that was read from a cache says of damaged files."""
    return {"damaged": [record.to_dict() for record in store.corrupt_files]}


def get_command_line() -> str:
    """The command as it was typed, to type it again."""
    return shlex.join([get_program(), *sys.argv[1:]])


def get_program() -> str:
    """What to type for this command: its name where that is found, else the path it was started by."""
    installed_path, invoked_path = shutil.which("humeris"), Path(sys.argv[0])
    if invoked_path.name != "humeris" or (
        installed_path and (not invoked_path.exists() or invoked_path.samefile(installed_path))
    ):
        return "humeris"
    return os.path.relpath(invoked_path)


def build_cache_options(cache: Path | str | None) -> list[object]:
    """The option that names the cache, where the environment does not."""
    return [] if cache is None or os.environ.get("HUMERIS_CACHE") == str(cache) else ["--cache", cache]


def render(
    output: dict[str, Any],
    as_json: bool,
    quiet: bool,
    show: Callable[[dict[str, Any]], str],
    next_command: Sequence[object] = (),
) -> int:
    """Print the result and the command to type next; 1 when something was refused, left out or damaged."""
    if as_json:
        print(json.dumps(output, indent=2, ensure_ascii=True))
    elif not quiet:
        print(show(output))
        if next_command:
            print("next:", " ".join(quote_argument(word) for word in [get_program(), *next_command]))
    omissions = (output.get("data") or {}).get("refused") or output.get("left_out") or output.get("damaged")
    has_not_finite = any(extraction.get("not_finite") for extraction in output.get("extracted", []))
    return 1 if omissions or has_not_finite else 0


@contextmanager
def show_progress(silent: bool) -> Iterator[Callable[[str], Progress]]:
    """Progress bars on a terminal's standard error, one per stage, with rate and time left."""
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
    """An error of the operating system's that nothing was known to do about."""
    file_name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "a file"
    return f"{file_name}: {error.strerror or error}; put that right and run the command again: what was stored is kept"
