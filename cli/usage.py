"""A command line that cannot be carried out as it was typed."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from ..cache.errors import HumerisError


def refuse_typed(context: typer.Context, names: Sequence[str], needed: str, why: str) -> None:
    """Raise `HumerisError` for an option of `names` on the command line; in the environment it is for other commands too."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise HumerisError(f"{option} needs {needed}: {why}; give {needed} as well, or leave {option} out")
