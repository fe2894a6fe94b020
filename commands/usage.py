"""A command line that cannot be carried out as it was typed: one line that says so, in place of Typer's box."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import typer
from typer.core import TyperGroup

from ..cache.errors import HumerisError
from .terminal import program, refuse

_YES = {"1", "on", "t", "true", "y", "yes"}  # what Typer takes a variable of the environment for


class Commands(TyperGroup):
    """A group of commands whose errors of usage are what `reported` makes of other errors, exit code included."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and leave with its exit code; `args` are what was typed, by default `sys.argv`."""
        run = partial(super().main, args, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        typed = list(sys.argv[1:] if args is None else args)
        try:
            code = run()
        except typer.TyperException as error:
            if type(error).__name__ == "NoArgsIsHelpError":  # it is called so by Typer too, which has shown the help
                if error.message:
                    print(error.message, file=sys.stderr)
            else:
                refuse(f"{_described(error)} `{self._helpful(typed)}`", _as_json(typed))
            sys.exit(error.exit_code)
        except typer.Abort:
            refuse("the input ended before the command did; what was done is kept, run it again", _as_json(typed))
            sys.exit(1)
        sys.exit(code)

    def _helpful(self, typed: Sequence[str]) -> str:
        """The command that shows what could have been typed."""
        names: list[str] = []
        group: Any = self
        for word in typed:
            group = getattr(group, "commands", {}).get(word)
            if group is None:
                break
            names.append(word)
        return " ".join([program(), *names, "--help"])


def refuse_typed(context: typer.Context, names: Sequence[str], needed: str, why: str) -> None:
    """Raise `HumerisError` for an option of `names` on the command line; in the environment it is for other commands too."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise HumerisError(f"{option} needs {needed}: {why}; give {needed} as well, or leave {option} out")


def _described(error: typer.TyperException) -> str:
    """Typer's words, what was expected where something is missing, what was found where it is wrong, and where to look."""
    words = error.format_message().rstrip(".")
    words = words[:1].lower() + words[1:]
    if isinstance(error, typer.BadParameter):
        told = getattr(error.param, "help", None)
        if told and not error.message:
            words += f": expected {told[:1].lower()}{told[1:].rstrip('.')}"
        for problem in getattr(error.__cause__, "errors", list)()[:1]:
            words += f", found {problem['input']!r}"
    return f"{words} See" if words.endswith("?") else f"{words}; see"


def _as_json(typed: Sequence[str]) -> bool:
    asked = "--json" in takewhile(lambda word: word != "--", typed)
    return asked or os.environ.get("HUMERIS_JSON", "").lower() in _YES
