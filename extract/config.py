"""Base class of the configs: frozen dataclasses that validate themselves and convert to and from plain values."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from ..cache.errors import ConfigError

NO_EFFECT: Mapping[str, Any] = {"affects_results": False}  # a field that changes speed or location, but no result
RESOLVED: Mapping[str, Any] = {"resolved": True}  # a field that is hashed elsewhere, in its resolved form

_OPTION_NAMES = {  # field -> option, where the two names differ
    "backbones": "backbone",
    "compression": "compress",
    "devices": "device",
    "from_layer": "from",
    "heads": "head",
    "layers": "layer",
    "page": "out",
    "pools": "pool",
}


@dataclass(frozen=True)
class Config:
    """A validated set of settings.

    A subclass is a frozen dataclass. Its fields have defaults, and their values are plain or can be parsed from their text.
    """

    @classmethod
    def list_settings(cls) -> dict[str, Any]:
        """Return setting -> default, including the settings that become part of other fields."""
        parameters = inspect.signature(cls).parameters.values()
        return {each.name: None if each.default is inspect.Parameter.empty else each.default for each in parameters}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Return a config from settings.

        Parameters
        ----------
        value : mapping
            Setting -> value, as from `to_dict`; missing settings have their defaults.

        Raises
        ------
        ConfigError
            For an unknown setting; the message names the closest one.
        """
        check_names(cls.__name__, value, cls.list_settings())
        return cls(**value)

    def to_dict(self) -> dict[str, Any]:
        """Return field -> value, with values that JSON and TOML can represent."""
        return {each.name: _to_plain(getattr(self, each.name)) for each in fields(self)}

    def to_options(self) -> dict[str, list[str]]:
        """Return field -> command-line arguments that set it, for the fields that differ from their default."""
        default, options = self._get_default().to_dict(), {}
        for name, value in self.to_dict().items():
            if value == default[name]:
                continue
            option = format_option(name)
            if isinstance(value, bool):
                options[name] = [option if value else option.replace("--", "--no-", 1)]
            else:
                options[name] = [word for each in to_tuple(value) for word in (option, str(each))]
        return options

    def get_result_settings(self) -> dict[str, Any]:
        """Return the fields that affect results, as `to_dict` does.

        These are all fields except those whose metadata is `NO_EFFECT` or `RESOLVED`, so a new field counts by default.
        """
        settings = self.to_dict()
        return {
            each.name: settings[each.name]
            for each in fields(self)
            if each.metadata.get("affects_results", True) and not each.metadata.get("resolved", False)
        }

    def _get_default(self) -> Self:
        """Return a config of which every setting has its default."""
        return type(self)()

    def _set(self, name: str, value: object) -> None:
        """Set a field of the frozen instance; only for `__post_init__`."""
        object.__setattr__(self, name, value)

    def _set_tuples(self, *names: str) -> None:
        """Convert these fields to tuples; a single value becomes a tuple of one."""
        for name in names:
            self._set(name, to_tuple(getattr(self, name)))

    def _set_paths(self, *names: str) -> None:
        """Convert these fields to paths, unless they are None."""
        for name in names:
            value = getattr(self, name)
            self._set(name, None if value is None else Path(value))

    def _check_numbers(self, kind: type[int] | type[float], minimum: float, *names: str) -> None:
        """Raise `ConfigError` unless each of these fields is None, or a number of type `kind` and at least `minimum`."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, kind) and not isinstance(value, bool) and value >= minimum):
                kind_name = "a whole number" if kind is int else "a number"
                raise ConfigError(f"{format_option(name)} {value!r}: must be {kind_name} of at least {minimum:g}")


_ConfigType = TypeVar("_ConfigType", bound=Config)


def build_config(
    kind: type[_ConfigType], value: _ConfigType | Any | None, name: str, settings: Mapping[str, Any]
) -> _ConfigType:
    """Return the config of a call whose settings are given by keyword, but for one that may also be a whole config.

    Parameters
    ----------
    kind : type of Config
        The class of the config.
    value : Config or Any or None
        The config that `settings` change, or the value of the setting called `name`; the default if it is None.
    name : str
        A setting.
    settings : mapping of str to Any
        The others, by name; those that `kind` does not have are ignored (see `check_names`).

    Raises
    ------
    HumerisError
        For a setting that cannot be; `ConfigError` for one that the backbones of a given config have taken up already.
    """
    names = kind.list_settings()
    own_settings = {key: each for key, each in settings.items() if key in names}
    if not isinstance(value, kind):
        return kind(**own_settings if value is None else {name: value, **own_settings})
    taken_up = own_settings.keys() - {each.name for each in fields(kind)}
    if taken_up:
        raise ConfigError(
            f"{min(taken_up)}: the backbones of the {kind.__name__} are parsed, so it would change nothing; "
            "give it where the config is made"
        )
    return replace(value, **own_settings)


def to_tuple(value: Any) -> tuple[Any, ...]:
    """Return a sequence as a tuple, None as (), and any other value, including text, as a tuple of one."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def check_names(location: str, names: Iterable[str], valid_names: Collection[str], kind: str = "setting") -> None:
    """Raise `ConfigError` for the first unknown name; the message names the closest valid one."""
    for name in names:
        if name not in valid_names:
            closest = difflib.get_close_matches(name, valid_names, n=1, cutoff=0.0)[0]
            raise ConfigError(f"{location}: no {kind} named {name!r}; did you mean {closest}?")


def format_option(name: str) -> str:
    """Return the command-line option of a field."""
    return "--" + _OPTION_NAMES.get(name, name).replace("_", "-")


def compute_hash(value: Any) -> str:
    """Return the hexadecimal SHA-256 of JSON values, regardless of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _to_plain(value: Any) -> Any:
    """Return a field's value as JSON values; other objects as the text that they can be parsed from."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_to_plain(each) for each in value]
    return str(value)
