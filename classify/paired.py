"""Whether the runner-up is really worse: the same images, answered by both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .intervals import of_paired_difference
from .trial import Score, Trial, ranked


@dataclass(frozen=True)
class Comparison:
    """Two trials on the same images, each image answered by a head that had not seen it.

    only_winner, only_runner_up: images that only the one, or only the other, answered rightly. difference: of the shares
    answered rightly, winner less runner-up, with its 95 % interval. p_value: of McNemar's exact test, two-sided.
    """

    winner: str
    runner_up: str
    images: int
    only_winner: int
    only_runner_up: int
    difference: float
    difference_95: tuple[float, float]
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "difference_95": list(self.difference_95)}


def runner_up(scores: Mapping[Trial, Score]) -> Trial | None:
    """The best trial that is not the winner's head on the winner's sources; None where there is no other."""
    winner, *others = ranked(scores)
    return next((each for each in others if (each.sources, each.head) != (winner.sources, winner.head)), None)


def compare(scores: Mapping[Trial, Score], images: int) -> Comparison | None:
    """The winner against the runner-up on the `images` that were scored for choosing; None where there is no runner-up.

    What it says: how many images the two answer differently, and whether so lopsided a count would be rare if either were
    as likely to be the one that is right. A large p-value is the safe reading: these images do not tell the two apart, so
    take the cheaper. A small one is optimistic, for two reasons. The winner is the best of many, chosen on these very
    images, which favours it (a fresh test split, scored once, does not). And the answers on different folds come from heads
    whose training images overlap, so they are less independent than the test takes them for: it is about these trained
    heads, not about the two ways of training them (Dietterich, Neural Computation 10 (1998)).

    The difference is that of the two accuracies, so that the winner of scores as `Problem.score` gives them is never behind;
    where it is, as for scores that weigh images otherwise, the runner-up did better on these images.

    McNemar, Psychometrika 12 (1947), in the exact binomial form, which errs on the side of no difference (Fagerland,
    Lydersen, Laake, BMC Medical Research Methodology 13 (2013) 91); the interval is `intervals.of_paired_difference`.
    """
    from scipy.stats import binomtest

    other = runner_up(scores)
    if other is None:
        return None
    winner = ranked(scores)[0]
    first, second = _bits(scores[winner]), _bits(scores[other])
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differing = only_first + only_second
    return Comparison(
        winner=winner.id,
        runner_up=other.id,
        images=images,
        only_winner=only_first,
        only_runner_up=only_second,
        difference=(only_first - only_second) / images,
        difference_95=of_paired_difference(only_first, only_second, images),
        p_value=float(binomtest(only_first, differing).pvalue) if differing else 1.0,
    )


def _bits(score: Score) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(score.right), np.uint8)).astype(bool)
