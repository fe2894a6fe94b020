"""Usage errors as one line, in place of Typer's box."""

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
from .terminal import get_program, print_error

_TRUE_VALUES = {"1", "on", "t", "true", "y", "yes"}  # what Typer takes a variable of the environment for


class CommandGroup(TyperGroup):
    """A group of commands whose usage errors look like those of `handle_errors`, with the same exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit with its code; `args` are the arguments, by default those of `sys.argv`."""
        run = partial(super().main, args, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        arguments = list(sys.argv[1:] if args is None else args)
        try:
            code = run()
        except typer.TyperException as error:
            if type(error).__name__ == "NoArgsIsHelpError":  # it is called so by Typer too, which has shown the help
                if error.message:
                    print(error.message, file=sys.stderr)
            else:
                print_error(
                    f"{_format_usage_error(error)} `{self._format_help_command(arguments)}`", _is_json_requested(arguments)
                )
            sys.exit(error.exit_code)
        except HumerisError as error:  # of a file of settings
            print_error(str(error), _is_json_requested(arguments))
            sys.exit(2)
        except typer.Abort:
            print_error(
                "the input ended before the command did; what was done is kept, run it again", _is_json_requested(arguments)
            )
            sys.exit(1)
        sys.exit(code)

    def _format_help_command(self, arguments: Sequence[str]) -> str:
        """Return the command that shows the help."""
        names: list[str] = []
        group: Any = self
        for word in arguments:
            group = getattr(group, "commands", {}).get(word)
            if group is None:
                break
            names.append(word)
        return " ".join([get_program(), *names, "--help"])


def reject_options(context: typer.Context, names: Sequence[str], required_option: str, reason: str) -> None:
    """Raise `HumerisError` for an option on the command line that has no effect; environment variables are allowed."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = next(parameter.opts[0] for parameter in context.command.params if parameter.name == name)
            raise HumerisError(
                f"{option} needs {required_option}: {reason}; give {required_option} as well, or leave {option} out"
            )


def _format_usage_error(error: typer.TyperException) -> str:
    """Return Typer's message with what is missing or wrong, and where to find help."""
    message = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    if isinstance(error, typer.BadParameter):
        option_help = getattr(error.param, "help", None)
        if option_help and not error.message:
            message += f" ({option_help[:1].lower()}{option_help[1:].rstrip('.')})"
        for problem in getattr(error.__cause__, "errors", list)()[:1]:
            message += f", got {problem['input']!r}"
    return f"{message} See" if message.endswith("?") else f"{message}; see"


def _is_json_requested(arguments: Sequence[str]) -> bool:
    has_flag = "--json" in takewhile(lambda word: word != "--", arguments)
    return has_flag or os.environ.get("HUMERIS_JSON", "").lower() in _TRUE_VALUES
