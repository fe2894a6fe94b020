"""The base of the configs: frozen values that check themselves, have a plain form, and know which fields decide a result."""

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

NO_EFFECT: Mapping[str, Any] = {"affects_results": False}  # a field that changes how fast or where, and no figure
RESOLVED: Mapping[str, Any] = {"resolved": True}  # a field of which only what it comes to is hashed, by who resolves it


@dataclass(frozen=True)
class Config:
    """What was asked for. A subclass is a frozen dataclass whose fields have defaults and plain values, or texts of them."""

    @classmethod
    def list_settings(cls) -> dict[str, Any]:
        """The name of every setting, with its default; those that are taken up by other fields too."""
        parameters = inspect.signature(cls).parameters.values()
        return {each.name: None if each.default is inspect.Parameter.empty else each.default for each in parameters}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The config of these settings, as `to_dict` gives them; the others have their defaults.

        Raises
        ------
        ConfigError
            For a name that is no setting; it names the closest.
        """
        check_names(cls.__name__, value, cls.list_settings())
        return cls(**value)

    def to_dict(self) -> dict[str, Any]:
        """Every field by its name, as JSON and TOML write it."""
        return {each.name: _to_plain(getattr(self, each.name)) for each in fields(self)}

    def get_result_settings(self) -> dict[str, Any]:
        """The fields that decide a result by themselves, as `to_dict` gives them: all but those that are marked.

        A field is marked by its metadata, `NO_EFFECT` or `RESOLVED`; one that nobody thought of is in.
        """
        settings = self.to_dict()
        return {
            each.name: settings[each.name]
            for each in fields(self)
            if each.metadata.get("affects_results", True) and not each.metadata.get("resolved", False)
        }

    def _set(self, name: str, value: object) -> None:
        """Put the checked form of a field in its place; for `__post_init__` alone."""
        object.__setattr__(self, name, value)

    def _set_tuples(self, *names: str) -> None:
        """Make tuples of these fields; one text alone is a tuple of it."""
        for name in names:
            self._set(name, to_tuple(getattr(self, name)))

    def _set_paths(self, *names: str) -> None:
        """Make paths of these fields, where they are not None."""
        for name in names:
            value = getattr(self, name)
            self._set(name, None if value is None else Path(value))

    def _check_numbers(self, kind: type[int] | type[float], minimum: float, *names: str) -> None:
        """Raise `ConfigError` where one of these fields is neither None nor such a number of at least `minimum`."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, kind) and not isinstance(value, bool) and value >= minimum):
                expected = "a whole number" if kind is int else "a number"
                raise ConfigError(f"{format_option(name)} {value!r}: expected {expected} of at least {minimum:g}; give one")


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
    """A sequence as a tuple, and anything else as the only item of one; None as the empty one."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)


def check_names(location: str, names: Iterable[str], valid_names: Collection[str], kind: str = "setting") -> None:
    """Raise `ConfigError` for the first of `names` that is not valid, with the one that is closest."""
    for name in names:
        if name not in valid_names:
            closest = difflib.get_close_matches(name, valid_names, n=1, cutoff=0.0)[0]
            raise ConfigError(f"{location}: expected a {kind} of humeris, found {name!r}; the closest is {closest}")


def format_option(name: str) -> str:
    """The option that sets a field of this name."""
    return "--" + name.replace("_", "-")


def compute_hash(value: Any) -> str:
    """sha-256 of JSON values, in hexadecimal digits; the order of keys does not count."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _to_plain(value: Any) -> Any:
    """A field's value as JSON has it: objects by their text, which makes them again."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_to_plain(each) for each in value]
    return str(value)
