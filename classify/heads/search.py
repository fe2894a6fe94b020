"""Search over hyperparameters: a whole grid, a random sample, or successive halving."""

from __future__ import annotations

import math
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.errors import HeadError
from .head_family import HeadFamily
from .head_grid import HeadGrid
from .registry import get_head_family

DEFAULT_TRIALS = 30
HALVING_FACTOR = 3
_RANGE = re.compile(r"(?P<low>[^/]+?)\.\.(?P<high>[^/]+)")
_MAX_ATTEMPTS = 100  # draws per set of hyperparameters, to find one that differs from the others


class Search(ABC):
    """How hyperparameters are selected to be tried."""

    @abstractmethod
    def build_grid(self, name: str, options: Mapping[str, str]) -> HeadGrid:
        """Select the hyperparameters of a head family to try.

        Parameters
        ----------
        name
            Name of the family.
        options
            Option to a value, a list ``a/b/c``, or a range ``low..high``, sampled uniformly on a logarithmic scale, or on
            a linear one if it starts at 0; a range between integers gives integers.

        Raises
        ------
        HeadError
            If there is no such family, option or value.
        """


class GridSearch(Search):
    """Every combination of the values."""

    def build_grid(self, name: str, options: Mapping[str, str]) -> HeadGrid:
        """See `Search.build_grid`; ranges are not allowed."""
        for key, text in options.items():
            if ".." in text:
                raise HeadError(
                    f"head {name}: {key}={text} is a range, but --search grid needs a list; give --search "
                    "random or halving, or a list a/b/c"
                )
        return HeadGrid.from_options(name, options)


@dataclass(frozen=True)
class RandomSearch(Search):
    """A random sample of the combinations; a grid of at most `trials` combinations is tried completely.

    If neither a list nor a range is given, the family's `search_space` is sampled.

    Parameters
    ----------
    trials
        Number of sets of hyperparameters of each family.
    seed
        Seed of the random sample.
    """

    trials: int = DEFAULT_TRIALS
    seed: int = 0

    def build_grid(self, name: str, options: Mapping[str, str]) -> HeadGrid:
        """See `Search.build_grid`."""
        family = get_head_family(name)
        if not any(".." in text or "/" in text for text in options.values()):
            options = {**family.search_space, **options}
        if any(".." in text for text in options.values()):
            return HeadGrid(family, self._draw(family, options))
        full_grid = family.expand_grid(options)
        indices = np.sort(self._build_rng(name).permutation(len(full_grid))[: self.trials])
        return HeadGrid(family, tuple(full_grid[index] for index in indices))

    def _build_rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def _draw(self, family: HeadFamily, options: Mapping[str, str]) -> tuple[Mapping[str, Any], ...]:
        """Return up to `trials` sets of hyperparameters, all different."""
        rng, hyperparameter_sets = self._build_rng(family.name), []
        choices = {key: _parse_choice(f"head {family.name}: {key}", text) for key, text in options.items()}
        for _ in range(_MAX_ATTEMPTS * self.trials):
            drawn_sets = family.expand_grid({key: choice.draw(rng) for key, choice in choices.items()})
            hyperparameters = drawn_sets[int(rng.integers(len(drawn_sets)))]
            if hyperparameters not in hyperparameter_sets:
                hyperparameter_sets.append(hyperparameters)
            if len(hyperparameter_sets) == self.trials:
                break
        return tuple(hyperparameter_sets)


class HalvingSearch(RandomSearch):
    """A random sample by successive halving.

    The sets of a family that has epochs are tried for a few epochs, the best third of them for three times as many, until
    few are left; families without epochs are sampled at random.
    """

    def build_grid(self, name: str, options: Mapping[str, str]) -> HeadGrid:
        """See `Search.build_grid`."""
        grid = super().build_grid(name, options)
        if "epochs" not in grid.hyperparameter_sets[0]:
            return grid
        return _build_halving_grid(grid.family, grid.hyperparameter_sets)


def parse_search(name: str, trials: int | None, seed: int) -> Search:
    """Parse `--search NAME --trials N`; raises `HeadError`."""
    if name == "grid":
        if trials is not None:
            raise HeadError(
                "--trials does not apply to --search grid, which tries every combination; give --search random or halving"
            )
        return GridSearch()
    if name not in _RANDOM_SEARCHES:
        raise HeadError(f"--search {name}: unknown; use one of {', '.join(SEARCHES)}")
    if trials is not None and trials < 1:
        raise HeadError(f"--trials {trials}: too few; give at least 1")
    return _RANDOM_SEARCHES[name](trials or DEFAULT_TRIALS, seed)


def _build_halving_grid(family: HeadFamily, hyperparameter_sets: tuple[Mapping[str, Any], ...]) -> HeadGrid:
    epochs = {hyperparameters["epochs"] for hyperparameters in hyperparameter_sets}
    if len(epochs) > 1:
        raise HeadError(
            f"head {family.name}: several numbers of epochs, but --search halving divides one number over "
            "its rounds; give one"
        )
    return HeadGrid(family, hyperparameter_sets, plan_halving_rounds(len(hyperparameter_sets), epochs.pop()))


def plan_halving_rounds(n_candidates: int, epochs: int) -> tuple[tuple[int, int], ...]:
    """Plan the rounds of successive halving, by thirds.

    The number of rounds and of candidates is that of scikit-learn's `HalvingRandomSearchCV(min_resources="exhaust")`;
    epochs are counted back from the last round, which has all of them. Jamieson and Talwalkar: Non-stochastic best arm
    identification and hyperparameter optimization, AISTATS 2016.

    Returns
    -------
    tuple of (int, int)
        Candidates and epochs of each round.
    """
    n_rounds = 1 + min(_floor_log(n_candidates), _floor_log(epochs))
    counts = [n_candidates]
    while len(counts) < n_rounds:
        counts.append(math.ceil(counts[-1] / HALVING_FACTOR))
    return tuple((count, epochs // HALVING_FACTOR ** (n_rounds - 1 - index)) for index, count in enumerate(counts))


def _floor_log(value: int) -> int:
    """Return the integer part of the logarithm to the base `HALVING_FACTOR`."""
    power = 0
    while HALVING_FACTOR ** (power + 1) <= value:
        power += 1
    return power


@dataclass(frozen=True)
class _Choice:
    """Values to sample from: a list, or the numbers from `low` to `high`."""

    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_integer: bool = False

    def draw(self, rng: np.random.Generator) -> str:
        """Return a random value, as a user would write it."""
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
        raise HeadError(f"{location}: invalid range {text!r}; give low..high, numbers with 0 <= low < high")
    return _Choice(low=low, high=high, is_integer=bool(re.fullmatch(r"\d+\.\.\d+", text)))


_RANDOM_SEARCHES: Mapping[str, type[RandomSearch]] = {"random": RandomSearch, "halving": HalvingSearch}
SEARCHES = ("grid", *_RANDOM_SEARCHES)
