"""The command that does what a call from Python does: what a run records to be repeated, resumed and advised on."""

from __future__ import annotations

import shlex
from pathlib import Path

from ...cache.store import Store, get_default_folder
from ...extract.api import Data
from ...extract.config import Config
from ...extract.images.images import Images


def format_command(verb: str, argument: Data, store: Store, *configs: Config | None, words: tuple[str, ...] = ()) -> str:
    """Return the command line of a call; "" if there is none, because two configs differ in an option that they share.

    Parameters
    ----------
    verb : str
        The command.
    argument : Images, Path or str
        Its argument: the data, or a run.
    store : Store
        The cache.
    *configs : Config or None
        Their settings become options, but for the layer that fine-tuning is from and the page of a report.
    words : tuple of str
        Further options.
    """
    options: dict[str, list[str]] = {}
    for config in configs:
        for name, option in (config.to_options() if config else {}).items():
            if options.setdefault(name, option) != option:
                return ""
    for name in ("cache", "from_layer", "page"):  # written apart, or no option of `run`
        options.pop(name, None)
    if store.path != get_default_folder():
        options["cache"] = ["--cache", str(store.path)]
    subject = argument.source.data if isinstance(argument, Images) else str(Path(argument))
    return shlex.join(["humeris", verb, subject, *words, *(word for option in options.values() for word in option)])
