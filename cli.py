"""The command line: parse, one library call, render.

A command lies in `commands`, in the file of its stage: `extract`, `classify`, `finetune`, `model`, `report`, `cache`,
`config`. The options they share are in `options`, those that make configs in `settings`, what they say on the terminal in
`terminal`, and what is said of a wrong command line in `usage`.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import __version__
from .commands import cache, classify, config, extract, finetune, model, report
from .commands.usage import CommandGroup

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Train an image classifier in minutes: cache the features of frozen networks, sweep light heads, export one model."""
    if version:
        print(f"humeris {__version__}")
        raise typer.Exit


for _command in (
    classify.demo,
    classify.run,
    extract.extract,
    classify.sweep,
    classify.rank,
    finetune.finetune,
    model.export,
    model.predict,
    report.report,
    extract.backbones,
    extract.layers,
    extract.doctor,
):
    app.command()(_command)
app.add_typer(cache.app, name="cache")
app.add_typer(config.app, name="config")


def main() -> None:
    """Run the `humeris` command; file names that are not valid UTF-8 are written unchanged."""
    is_utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")  # type: ignore[union-attr]
    try:
        app()
    except KeyboardInterrupt:  # before a command began
        sys.exit(130)


if __name__ == "__main__":
    main()
