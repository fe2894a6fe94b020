"""Which settings of a head family to try: all on a grid, some at random, or many for a few epochs and the best for more."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.errors import HeadError
from .registry import HeadFamily, expand_grid, get_module

SEARCH_KINDS = ("grid", "random", "halving")
DEFAULT_TRIALS = 30
HALVING_FACTOR = 3
_RANGE = re.compile(r"(?P<low>[^/]+?)\.\.(?P<high>[^/]+)")
_MAX_ATTEMPTS = 100  # attempts for each setting that is to be another one


@dataclass(frozen=True)
class Search:
    """How settings are chosen: `grid`, `random` or `halving`, and for the last two how many of each family."""

    kind: str = "grid"
    trials: int = DEFAULT_TRIALS
    seed: int = 0

    @classmethod
    def parse(cls, kind: str, trials: int | None, seed: int) -> Search:
        """The search of `--search KIND --trials N`; raises `HeadError`."""
        if kind not in SEARCH_KINDS:
            raise HeadError(f"--search: expected one of {', '.join(SEARCH_KINDS)}, found {kind!r}")
        if trials is not None and kind == "grid":
            raise HeadError("--trials: a grid is tried whole; give --search random or halving as well")
        if trials is not None and trials < 1:
            raise HeadError(f"--trials: expected at least 1, found {trials}")
        return cls(kind, trials or DEFAULT_TRIALS, seed)

    def build_family(self, name: str, options: Mapping[str, str]) -> HeadFamily:
        """The family with the settings to try; raises `HeadError`.

        An option is a value, a list `a/b/c`, or a range `low..high`: drawn evenly on a logarithmic scale, or on a linear one
        from 0. A range with whole ends gives whole numbers. Where nothing is to be drawn, its `SPACE` is.
        A list of settings no longer than `trials` is tried whole. With `halving` the settings of a family that has epochs
        are tried for a few, and the best third of them for three times as many, until few are left.
        """
        ranges = {key: text for key, text in options.items() if ".." in text}
        if self.kind == "grid":
            if ranges:
                key, text = next(iter(ranges.items()))
                raise HeadError(f"head {name}: {key}={text} is a range; give --search random or halving, or a list a/b/c")
            return expand_grid(name, options)
        lists = {key for key, text in options.items() if "/" in text}
        if not ranges and not lists:
            options = {**getattr(get_module(name), "SPACE", {}), **options}
        if any(".." in text for text in options.values()):
            hyperparameter_sets = self._draw(name, options)
        else:
            full_grid = expand_grid(name, options).hyperparameter_sets
            indices = np.sort(self._build_rng(name).permutation(len(full_grid))[: self.trials])
            hyperparameter_sets = tuple(full_grid[index] for index in indices)
        return (
            self._build_halving_family(name, hyperparameter_sets)
            if self.kind == "halving" and "epochs" in hyperparameter_sets[0]
            else HeadFamily(name, hyperparameter_sets)
        )

    def _build_rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def _draw(self, name: str, options: Mapping[str, str]) -> tuple[Mapping[str, Any], ...]:
        """Up to `trials` settings, all different."""
        rng, hyperparameter_sets = self._build_rng(name), []
        choices = {key: _parse_choice(f"head {name}: {key}", text) for key, text in options.items()}
        for _ in range(_MAX_ATTEMPTS * self.trials):
            drawn_sets = get_module(name).settings({key: choice.draw(rng) for key, choice in choices.items()})
            hyperparameters = drawn_sets[int(rng.integers(len(drawn_sets)))]
            if hyperparameters not in hyperparameter_sets:
                hyperparameter_sets.append(hyperparameters)
            if len(hyperparameter_sets) == self.trials:
                break
        return tuple(hyperparameter_sets)

    def _build_halving_family(self, name: str, hyperparameter_sets: tuple[Mapping[str, Any], ...]) -> HeadFamily:
        epochs = {hyperparameters["epochs"] for hyperparameters in hyperparameter_sets}
        if len(epochs) > 1:
            raise HeadError(f"head {name}: with --search halving the epochs are what is shared out; give one number of them")
        return HeadFamily(name, hyperparameter_sets, plan_halving_rounds(len(hyperparameter_sets), epochs.pop()))


def plan_halving_rounds(n_settings: int, epochs: int) -> tuple[tuple[int, int], ...]:
    """(settings, epochs) of each round of successive halving, by thirds; the last one has all the epochs.

    As many rounds, of as many settings, as scikit-learn's `HalvingRandomSearchCV(min_resources="exhaust")` has; the epochs
    are counted back from the last round instead of forth from the first, so that none of those asked for is unused. Jamieson
    and Talwalkar: Non-stochastic best arm identification and hyperparameter optimization, AISTATS 2016.
    """
    n_rounds = 1 + min(_floor_log(n_settings), _floor_log(epochs))
    counts = [n_settings]
    while len(counts) < n_rounds:
        counts.append(math.ceil(counts[-1] / HALVING_FACTOR))
    return tuple((count, epochs // HALVING_FACTOR ** (n_rounds - 1 - index)) for index, count in enumerate(counts))


def _floor_log(value: int) -> int:
    """The whole part of the logarithm to the base FACTOR."""
    power = 0
    while HALVING_FACTOR ** (power + 1) <= value:
        power += 1
    return power


@dataclass(frozen=True)
class _Choice:
    """Values to draw from: a list, or the numbers from `low` to `high`."""

    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_integer: bool = False

    def draw(self, rng: np.random.Generator) -> str:
        """One of them, as a user would write it."""
        if self.values:
            return self.values[int(rng.integers(len(self.values)))]
        if self.low > 0:
            value = float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        else:
            value = float(rng.uniform(self.low, self.high))
        value = min(max(float(f"{value:.3g}"), self.low), self.high)
        return str(round(value)) if self.is_integer else repr(value)


def _parse_choice(location: str, text: str) -> _Choice:
    if ".." not in text:
        return _Choice(values=tuple(part.strip() for part in text.split("/")))
    match = _RANGE.fullmatch(text)
    try:
        low, high = (float(match[name]) for name in ("low", "high")) if match else (1.0, 0.0)
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low < high < math.inf:
        raise HeadError(f"{location}: expected a range low..high of numbers, 0 <= low < high, found {text!r}")
    return _Choice(low=low, high=high, is_integer=bool(re.fullmatch(r"\d+\.\.\d+", text)))
