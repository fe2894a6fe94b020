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
from .registry import Family, module, settled

KINDS = ("grid", "random", "halving")
TRIALS = 30
FACTOR = 3
_RANGE = re.compile(r"(?P<low>[^/]+?)\.\.(?P<high>[^/]+)")
_DRAWS = 100  # attempts for each setting that is to be another one


@dataclass(frozen=True)
class Search:
    """How settings are chosen: `grid`, `random` or `halving`, and for the last two how many of each family."""

    kind: str = "grid"
    trials: int = TRIALS
    seed: int = 0

    @classmethod
    def parse(cls, kind: str, trials: int | None, seed: int) -> Search:
        """The search of `--search KIND --trials N`; raises `HeadError`."""
        if kind not in KINDS:
            raise HeadError(f"--search: expected one of {', '.join(KINDS)}, found {kind!r}")
        if trials is not None and kind == "grid":
            raise HeadError("--trials: a grid is tried whole; give --search random or halving as well")
        if trials is not None and trials < 1:
            raise HeadError(f"--trials: expected at least 1, found {trials}")
        return cls(kind, trials or TRIALS, seed)

    def family(self, name: str, options: Mapping[str, str]) -> Family:
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
            return settled(name, options)
        lists = {key for key, text in options.items() if "/" in text}
        if not ranges and not lists:
            options = {**getattr(module(name), "SPACE", {}), **options}
        if any(".." in text for text in options.values()):
            found = self._draw(name, options)
        else:
            whole = settled(name, options).settings
            rows = np.sort(self._random(name).permutation(len(whole))[: self.trials])
            found = tuple(whole[row] for row in rows)
        return self._halved(name, found) if self.kind == "halving" and "epochs" in found[0] else Family(name, found)

    def _random(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def _draw(self, name: str, options: Mapping[str, str]) -> tuple[Mapping[str, Any], ...]:
        """Up to `trials` settings, all different."""
        random, found = self._random(name), []
        choices = {key: _choice(f"head {name}: {key}", text) for key, text in options.items()}
        for _ in range(_DRAWS * self.trials):
            several = module(name).settings({key: choice.draw(random) for key, choice in choices.items()})
            setting = several[int(random.integers(len(several)))]
            if setting not in found:
                found.append(setting)
            if len(found) == self.trials:
                break
        return tuple(found)

    def _halved(self, name: str, found: tuple[Mapping[str, Any], ...]) -> Family:
        epochs = {setting["epochs"] for setting in found}
        if len(epochs) > 1:
            raise HeadError(f"head {name}: with --search halving the epochs are what is shared out; give one number of them")
        return Family(name, found, rungs(len(found), epochs.pop()))


def rungs(candidates: int, epochs: int) -> tuple[tuple[int, int], ...]:
    """(settings, epochs) of each round of successive halving, by thirds; the last one has all the epochs.

    As many rounds, of as many settings, as scikit-learn's `HalvingRandomSearchCV(min_resources="exhaust")` has; the epochs
    are counted back from the last round instead of forth from the first, so that none of those asked for is unused. Jamieson
    and Talwalkar: Non-stochastic best arm identification and hyperparameter optimization, AISTATS 2016.
    """
    rounds = 1 + min(_log(candidates), _log(epochs))
    counts = [candidates]
    while len(counts) < rounds:
        counts.append(math.ceil(counts[-1] / FACTOR))
    return tuple((count, epochs // FACTOR ** (rounds - 1 - number)) for number, count in enumerate(counts))


def _log(number: int) -> int:
    """The whole part of the logarithm to the base FACTOR."""
    power = 0
    while FACTOR ** (power + 1) <= number:
        power += 1
    return power


@dataclass(frozen=True)
class _Choice:
    """Values to draw from: a list, or the numbers from `low` to `high`."""

    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False

    def draw(self, random: np.random.Generator) -> str:
        """One of them, as a user would write it."""
        if self.values:
            return self.values[int(random.integers(len(self.values)))]
        if self.low > 0:
            value = float(np.exp(random.uniform(np.log(self.low), np.log(self.high))))
        else:
            value = float(random.uniform(self.low, self.high))
        value = min(max(float(f"{value:.3g}"), self.low), self.high)
        return str(round(value)) if self.whole else repr(value)


def _choice(where: str, text: str) -> _Choice:
    if ".." not in text:
        return _Choice(values=tuple(part.strip() for part in text.split("/")))
    match = _RANGE.fullmatch(text)
    try:
        low, high = (float(match[name]) for name in ("low", "high")) if match else (1.0, 0.0)
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low < high < math.inf:
        raise HeadError(f"{where}: expected a range low..high of numbers, 0 <= low < high, found {text!r}")
    return _Choice(low=low, high=high, whole=bool(re.fullmatch(r"\d+\.\.\d+", text)))
