"""The fields of the configs as command-line options, and the values of a settings file.

The command line stands above the environment, that above the file of `--config`, that above the defaults.
"""

from __future__ import annotations

import functools
import inspect
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, get_args

import typer

from ..cache.errors import ConfigError
from . import options

if TYPE_CHECKING:
    from ..extract.config import Config
    from ..extract.images.image_list import ImageList

_ConfigType = TypeVar("_ConfigType", bound="Config")
_Command = TypeVar("_Command", bound=Callable[..., Any])
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    list: "a list of texts",
}


class Setting(NamedTuple):
    """An option that sets a field of a config: its Typer annotation and its default, which is that of the config."""

    annotation: Any
    default: Any = None

    @property
    def info(self) -> Any:
        """The Typer option, with its names and its help text."""
        return get_args(self.annotation)[1]

    @property
    def kind(self) -> type:
        """bool, int, float, str, Path, or list for a list of str."""
        types = (self.annotation.__origin__, *get_args(self.annotation.__origin__))
        return next(kind for kind in _KINDS if kind in types or (kind is list and list[str] in types))


_BACKBONE = {
    "layers": Setting(options.Layers),
    "pools": Setting(options.Pools),
    "weights": Setting(options.Weights),
    "image_size": Setting(options.Size),
    "precision": Setting(options.Precision, "float32"),
}
_VIEWS = {"views": Setting(options.ViewCount, 0), "augment": Setting(options.Augment)}
_SHARED = {"seed": Setting(options.Seed, 0), "limit": Setting(options.Limit)}
_MACHINE = {"jobs": Setting(options.Jobs), "cache": Setting(options.CacheFolder)}
TABLES: dict[str, dict[str, Setting]] = {
    "extract": {
        "backbones": Setting(options.Backbones),
        **_BACKBONE,
        **_VIEWS,
        "compression": Setting(options.Compression, "none"),
        "batch_size": Setting(options.BatchSize, 32),
        **_SHARED,
        "devices": Setting(options.Devices),
        **_MACHINE,
    },
    "sweep": {
        "backbones": Setting(options.Backbones),
        **_BACKBONE,
        "heads": Setting(options.Heads),
        "grid": Setting(options.Grid),
        "search": Setting(options.SearchKind, "grid"),
        "trials": Setting(options.Trials),
        "concatenate": Setting(options.Concatenate, False),
        **_VIEWS,
        "average_views": Setting(options.AverageViews, False),
        "select": Setting(options.Select),
        **_SHARED,
        "out": Setting(options.NewRun),
        **_MACHINE,
    },
    "finetune": {
        "from_layer": Setting(options.FromLayer, inspect.Parameter.empty),
        "trial": Setting(options.StartTrial),
        "weights": Setting(options.FinetuneWeights),
        "epochs": Setting(options.Epochs, 10),
        "head_epochs": Setting(options.HeadEpochs),
        "patience": Setting(options.Patience, 5),
        "batch_size": Setting(options.BatchSize, 32),
        "optimizer": Setting(options.Optimizer, "adam"),
        "learning_rate": Setting(options.LearningRate),
        "head_learning_rate": Setting(options.HeadLearningRate, 1e-3),
        "schedule": Setting(options.Schedule, "cosine"),
        "weight_decay": Setting(options.WeightDecay),
        "label_smoothing": Setting(options.LabelSmoothing, 0.0),
        "mixup": Setting(options.Mixup, 0.0),
        "cutmix": Setting(options.Cutmix, 0.0),
        "augment": Setting(options.FinetuneAugment),
        "views": Setting(options.MapViewCount, 0),
        "train_batch_norm": Setting(options.TrainBatchNorm, False),
        "precision": Setting(options.Precision, "float32"),
        "refit": Setting(options.Refit, True),
        "compression": Setting(options.MapCompression, "none"),
        "backbones": Setting(options.MovedBackbones),
        "out": Setting(options.TunedRun),
        "devices": Setting(options.Devices),
        **_MACHINE,
    },
    "list": {
        "path_column": Setting(options.PathColumn),
        "label_column": Setting(options.LabelColumn),
        "label_columns": Setting(options.LabelColumns),
        "split_column": Setting(options.SplitColumn),
        "group_column": Setting(options.GroupColumn),
        "images": Setting(options.ImageFolder),
    },
    "report": {
        "latency": Setting(options.Latency, False),
        "page": Setting(options.Page),
        "cache": Setting(options.CacheFolder),
    },
}
# The tables that a command takes settings of; where two have the same one, the earlier stands above the later.
COMMAND_TABLES = {
    "run": ("sweep", "extract", "list", "report"),
    "extract": ("extract", "list"),
    "sweep": ("sweep", "extract", "list"),
    "finetune": ("finetune",),
    "report": ("report",),
}
_LIST_COMMANDS = {"rank": ("list",), "cache export": ("list",)}  # they take DATA, but no settings file
_NOT_TAKEN = {"run": {"page"}}  # of the tables, because the command has another option of this kind


@dataclass(frozen=True)
class Settings:
    """The settings of a command that were given, by name."""

    values: Mapping[str, Any]

    @classmethod
    def from_options(cls, values: Mapping[str, Any]) -> Settings:
        """Return the settings of the options that were given."""
        return cls({name: value for name, value in values.items() if value is not None and value not in ([], ())})

    def build(self, config: type[_ConfigType], **more: Any) -> _ConfigType:
        """Return the config with its fields among the settings, and `more`; raises `HumerisError` for an invalid setting."""
        names = config.list_settings()
        values = {name: value for name, value in self.values.items() if name in names}
        return config(**{**values, **more})

    def build_list_arguments(self) -> list[str]:
        """Return the command-line arguments of the settings of a list that are given."""
        from ..extract.config import format_option, to_tuple

        names = [name for name in TABLES["list"] if name in self.values]
        pairs = ((format_option(name), str(each)) for name in names for each in to_tuple(self.values[name]))
        return [word for pair in pairs for word in pair]

    def build_data(self, data: str) -> ImageList | str:
        """Return DATA, with the settings of a list if any is given."""
        if not TABLES["list"].keys() & self.values.keys():
            return data
        from ..extract.images.image_list import ImageList

        return self.build(ImageList, path=data)


def list_settings(command: str) -> dict[str, Setting]:
    """Return the settings that a command takes, by name."""
    settings: dict[str, Setting] = {}
    for table in (COMMAND_TABLES | _LIST_COMMANDS)[command]:
        settings = {**settings, **{name: each for name, each in TABLES[table].items() if name not in settings}}
    return {name: setting for name, setting in settings.items() if name not in _NOT_TAKEN.get(command, ())}


def take_settings(command: str) -> Callable[[_Command], _Command]:
    """Decorate a function that takes `settings` with the options of a command, and `--config`."""

    def decorate(function: _Command) -> _Command:
        signature = inspect.signature(function, eval_str=True)
        own = [parameter for parameter in signature.parameters.values() if parameter.name != "settings"]
        names = list_settings(command)
        added = [_make_parameter(name, setting.annotation, setting.default) for name, setting in names.items()]
        if command in COMMAND_TABLES and command != "report":
            added.append(_make_parameter("config", _make_config_option(command)))
        keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        # Arguments stand in the order of the signature; among options those of the configs come first.
        n_leading = next((index for index, each in enumerate(own) if each.default is not each.empty), len(own))
        parameters = [*keyword_only[:n_leading], *added, *keyword_only[n_leading:]]

        @functools.wraps(function)
        def call(**arguments: Any) -> Any:
            settings = Settings.from_options({name: arguments.pop(name) for name in names})
            arguments.pop("config", None)
            return function(settings=settings, **arguments)

        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in parameters}
        return call  # type: ignore[return-value]

    return decorate


def _make_parameter(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _make_config_option(command: str) -> Any:
    """Return the option `--config`, which makes the settings of a file the defaults of the other options."""

    def load(context: typer.Context, file: Path | None) -> Path | None:
        if file is not None:
            context.default_map = {**(context.default_map or {}), **read_settings(file, command)}
        return file

    return Annotated[
        Path | None,
        typer.Option(
            "--config", envvar="HUMERIS_CONFIG", metavar="FILE.toml", is_eager=True, callback=load, readable=False,
            help="Settings file; `humeris config init` prints one with all tables: [extract], [sweep], [list] …",
        ),
    ]  # fmt: skip


def read_settings(file: Path, command: str) -> dict[str, Any]:
    """Return the settings that a file has for a command, by name; raises `ConfigError` for unknown ones."""
    tables = read_config(file)
    names = list_settings(command)
    merged: dict[str, Any] = {}
    for table in COMMAND_TABLES[command]:
        merged = {**{name: value for name, value in tables.get(table, {}).items() if name in names}, **merged}
    return merged


def read_config(file: Path) -> dict[str, dict[str, Any]]:
    """Return the tables of a settings file, with names and types checked; raises `ConfigError`."""
    from ..extract.config import check_names

    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such settings file; check the path") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{file}: is a folder, not a settings file; give a TOML file") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{file}: not a valid TOML file: {reason}") from error
    check_names(f"{file}", document, TABLES, "table")
    for table, settings in document.items():
        if not isinstance(settings, dict):
            raise ConfigError(f"{file}: {table} must be a table [{table}], not {json.dumps(settings, default=str)}")
        check_names(f"{file}, [{table}]", settings, TABLES[table])
    return {
        table: {name: _convert(f"{file}, [{table}]", name, value) for name, value in settings.items()}
        for table, settings in document.items()
    }


def _convert(location: str, name: str, value: Any) -> Any:
    """Return a TOML value as Typer takes it; raises `ConfigError` for a wrong type."""
    kind = TABLES[location.rpartition("[")[2].rstrip("]")][name].kind
    if kind is list:
        value = [value] if isinstance(value, str) else value
        is_valid = isinstance(value, list) and all(isinstance(each, str) for each in value)
    elif kind is float:
        is_valid = isinstance(value, int | float) and not isinstance(value, bool)
    elif kind is str and name == "image_size" and isinstance(value, int):
        value, is_valid = str(value), not isinstance(value, bool)
    else:
        is_valid = type(value) is (str if kind is Path else kind)
    if not is_valid:
        raise ConfigError(f"{location}: {name} must be {_KINDS[kind]}, not {json.dumps(value, default=str)}")
    return value
