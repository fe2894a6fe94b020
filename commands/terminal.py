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
from ..cache.formatting import quoted, safe

if TYPE_CHECKING:
    from ..cache.store import Store
    from ..extract.images.load import Progress
_Command = TypeVar("_Command", bound=Callable[..., Any])


def reported(function: _Command) -> _Command:
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
            refuse(str(error) if isinstance(error, HumerisError) else _of_system(error), bool(options.get("as_json")))
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            print(f"humeris: interrupted; what was done is kept. Go on with: {safe(command())}", file=sys.stderr)
            raise typer.Exit(130) from None
        if code:
            raise typer.Exit(code)

    return call  # type: ignore[return-value]


def refuse(words: str, as_json: bool) -> None:
    """Print why nothing was done: a line on standard error, with --json a document on standard output as well."""
    if as_json:
        print(json.dumps({"error": words}))
    print(f"humeris: {safe(words)}", file=sys.stderr)


def damage(store: Store) -> dict[str, Any]:
    """What every result that was read from a cache says of damaged files."""
    return {"damaged": [damage.to_dict() for damage in store.damaged]}


def command() -> str:
    """The command as it was typed, to type it again."""
    return shlex.join([program(), *sys.argv[1:]])


def program() -> str:
    """What to type for this command: its name where that is found, else the path it was started by."""
    found, started = shutil.which("humeris"), Path(sys.argv[0])
    if started.name != "humeris" or (found and (not started.exists() or started.samefile(found))):
        return "humeris"
    return os.path.relpath(started)


def at(cache: Path | None) -> list[object]:
    """The option that names the cache, where the environment does not."""
    return [] if cache is None or os.environ.get("HUMERIS_CACHE") == str(cache) else ["--cache", cache]


def render(
    found: dict[str, Any],
    as_json: bool,
    quiet: bool,
    show: Callable[[dict[str, Any]], str],
    then: Sequence[object] = (),
) -> int:
    """Print the result and the command to type next; 1 when something was refused, left out or damaged."""
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=True))
    elif not quiet:
        print(show(found))
        if then:
            print("next:", " ".join(quoted(word) for word in [program(), *then]))
    left_out = (found.get("data") or {}).get("refused") or found.get("left_out") or found.get("damaged")
    unstored = any(each.get("not_finite") for each in found.get("extracted", []))
    return 1 if left_out or unstored else 0


@contextmanager
def stages(silent: bool) -> Iterator[Callable[[str], Progress]]:
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

        def stage(name: str) -> Progress:
            for before in bars.tasks:
                if not before.total:  # there was nothing to do
                    bars.remove_task(before.id)
            task = bars.add_task(name, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield stage


def _of_system(error: OSError) -> str:
    """An error of the operating system's that nothing was known to do about."""
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "a file"
    return f"{where}: {error.strerror or error}; put that right and run the command again: what was stored is kept"
