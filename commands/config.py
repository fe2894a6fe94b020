"""The commands `humeris config …`: show settings and where they come from; print a settings file."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from ..cache.errors import ConfigError
from . import options
from .settings import COMMAND_TABLES, TABLES, Setting, Settings, list_settings
from .terminal import handle_errors, render

app = typer.Typer(no_args_is_help=True, help="Show the settings of a command, or write a file of settings.")
_SOURCES = {
    "COMMANDLINE": "command line",
    "ENVIRONMENT": "environment",
    "DEFAULT_MAP": "file",
    "DEFAULT": "default",
}
_INTRODUCTION = """\
# Settings of humeris, as its defaults are. Take the # away before those you change, and give the file as
#     humeris run DATA --config plan.toml
# The command line stands above the environment, that above this file, that above the defaults.
# `humeris config show run --config plan.toml` says which value holds, and why.
"""
_SWEEP_NOTE = """\
# A sweep and a run also take what [extract] says of:
#     {shared}
# What stands here stands above that, for them alone.
"""


@app.command("show", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@handle_errors
def config_show(
    context: typer.Context,
    command: Annotated[
        str, typer.Argument(metavar="COMMAND", help=f"{', '.join(COMMAND_TABLES)}; followed by its options.")
    ] = "run",
    config: Annotated[
        Path | None,
        typer.Option("--config", envvar="HUMERIS_CONFIG", metavar="FILE.toml", readable=False, help="A file of settings."),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Print the settings of a command and where each value comes from."""
    from .render import config as text

    if command not in COMMAND_TABLES:
        raise ConfigError(f"config show {command}: unknown command; use one of {', '.join(COMMAND_TABLES)}")
    arguments = [*(["--config", str(config)] if config else []), *context.args]
    output = {"command": command, "config": None if config is None else str(config)}
    return render({**output, "settings": trace_settings(context, command, arguments)}, as_json, False, text.format_settings)


@app.command("init")
@handle_errors
def config_init() -> int:
    """Print a settings file for --config, with all defaults and help texts as comments."""
    print("\n".join(write_template()))
    return 0


def trace_settings(context: typer.Context, command: str, arguments: list[str]) -> list[dict[str, Any]]:
    """Return each setting of a command with these arguments: name, option, value, and where the value comes from.

    Raises `HumerisError` where the command would refuse them.
    """
    root: Any = context.find_root()
    parser = root.command.commands[command]
    for parameter in parser.params:  # DATA need not be given to see settings
        parameter.required = False
    parsed = parser.make_context(command, arguments, parent=root)
    names = list(list_settings(command))
    settings = Settings.from_options({name: parsed.params[name] for name in names})
    defaults: dict[str, Any] = {}
    for table in COMMAND_TABLES[command]:
        config_class = load_config_class(table)
        settings.build(config_class, **({"path": "DATA"} if table == "list" else {}))  # is refused here as it would be there
        defaults |= {name: value for name, value in config_class.list_settings().items() if not defaults.get(name)}
    options_by_name = {parameter.name: max(parameter.opts, key=len) for parameter in parser.params}
    return [
        {
            "name": name,
            "option": options_by_name[name],
            "value": _to_plain(settings.values.get(name, defaults[name])),
            "from": _SOURCES[parsed.get_parameter_source(name).name],
        }
        for name in names
    ]


def load_config_class(table: str) -> Any:
    """Return the config that a table of settings makes."""
    if table == "extract":
        from ..extract.engine.extract_config import ExtractConfig

        return ExtractConfig
    if table == "sweep":
        from ..classify.sweep.sweep_config import SweepConfig

        return SweepConfig
    if table == "finetune":
        from ..classify.finetune.finetune_config import FinetuneConfig

        return FinetuneConfig
    if table == "list":
        from ..extract.images.image_list import ImageList

        return ImageList
    from ..classify.report.report_config import ReportConfig

    return ReportConfig


def write_template() -> list[str]:
    """Return the lines of a TOML file of all settings, as comments."""
    lines = _INTRODUCTION.splitlines()
    for table, settings in TABLES.items():
        defaults = load_config_class(table).list_settings()
        lines += ["", f"[{table}]"]
        if table == "sweep":
            shared = [name for name in settings if name in TABLES["extract"]]
            lines += _SWEEP_NOTE.format(shared=", ".join(shared)).splitlines()
            settings = {name: each for name, each in settings.items() if name not in shared}
        for name, setting in settings.items():
            lines += ["", *_write_setting(name, setting, defaults[name])]
    return lines


def _write_setting(name: str, setting: Setting, default: Any) -> list[str]:
    info = setting.info
    shown_default = info.show_default if isinstance(info.show_default, str) else ""
    remark = f" Unset: {shown_default}." if default is None and shown_default else ""
    if setting.kind is list and isinstance(default, str):
        default = [default]
    value = '""' if default is None else json.dumps(_to_plain(default))
    text = f"{info.help}{remark}"
    return [*textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="# "), f"# {name} = {value}"]


def _to_plain(value: Any) -> Any:
    """Return a value as JSON."""
    if isinstance(value, list | tuple):
        return [_to_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
