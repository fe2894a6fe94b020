"""Paired comparison of the winner with the runner-up, on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .confidence_intervals import grouped_difference_ci, paired_difference_ci
from .trial import Score, Trial, rank_trials


@dataclass(frozen=True)
class Comparison:
    """Two trials compared on the same images, each predicted by a head not trained on it.

    only_winner, only_runner_up: number of images for which only the one, or only the other, is correct. difference: of
    the accuracies, winner minus runner-up, with its 95 % interval. groups: number of groups of the images, None without
    groups. p_value: of McNemar's exact test, or of `sign_flip_test`, two-sided.
    """

    winner: str
    runner_up: str
    images: int
    only_winner: int
    only_runner_up: int
    difference: float
    difference_95: tuple[float, float]
    p_value: float
    groups: int | None


def find_runner_up(scores: Mapping[Trial, Score]) -> Trial | None:
    """Return the best trial with another head or other taps than the winner; None if there is none."""
    winner, *others = rank_trials(scores)
    return next((trial for trial in others if (trial.tap_refs, trial.head) != (winner.tap_refs, winner.head)), None)


def compare_with_runner_up(
    scores: Mapping[Trial, Score], images: int, groups: np.ndarray | None = None
) -> Comparison | None:
    """Compare the winner with the runner-up on the held-out images; None if there is no runner-up.

    The test asks for how many images the two predictions differ in correctness, and whether so lopsided a count would be
    rare if either were equally likely to be the correct one. A large p-value is reliable: these images do not distinguish
    the two, so take the cheaper. A small one is optimiztic, for two reasons. The winner is the best of many, selected on
    these very images, which favors it (a fresh test split, scored once, does not). And the predictions for different
    folds come from heads whose training images overlap, so they are less independent than the test assumes: it is about
    these trained heads, not about the two ways of training them (Dietterich, Neural Computation 10 (1998)).

    The difference is that of the two accuracies, so that the winner of scores from `TrainingData.score` is never behind;
    for scores that weigh images otherwise, a negative difference means that the runner-up did better on these images.

    Parameters
    ----------
    scores : mapping of Trial to Score
        All trials.
    images : int
        Number of images that trials were scored on.
    groups : ndarray of shape (rows,), optional
        Group number of each image in the scores, -1 for images that were not scored. Images of a group are not
        independent, so groups are counted instead; None if images are independent.

    Returns
    -------
    Comparison or None
        The comparison.

    References
    ----------
    McNemar, Psychometrika 12 (1947), in the exact binomial form, which is conservative (Fagerland, Lydersen, Laake, BMC
    Medical Research Methodology 13 (2013) 91); the interval is `confidence_intervals.paired_difference_ci`.
    """
    other = find_runner_up(scores)
    if other is None:
        return None
    winner = rank_trials(scores)[0]
    return compare_predictions(
        winner.id, other.id, unpack_correct(scores[winner]), unpack_correct(scores[other]), images, groups
    )


def compare_predictions(
    winner: str,
    runner_up: str,
    winner_correct: np.ndarray,
    runner_up_correct: np.ndarray,
    images: int,
    groups: np.ndarray | None = None,
) -> Comparison:
    """Compare two trials by which images they predict correctly; see `compare_with_runner_up`.

    Parameters
    ----------
    winner, runner_up : str
        Ids of the trials.
    winner_correct, runner_up_correct : ndarray of shape (rows,), bool
        Whether each prediction is correct.
    images : int
        Number of images.
    groups : ndarray of shape (rows,), optional
        As in `compare_with_runner_up`.

    Returns
    -------
    Comparison
        The comparison.
    """
    from scipy.stats import binomtest

    only_first, only_second = (
        int((winner_correct & ~runner_up_correct).sum()),
        int((runner_up_correct & ~winner_correct).sum()),
    )
    n_discordant = only_first + only_second
    if groups is None:
        difference_95 = paired_difference_ci(only_first, only_second, images)
        p_value = float(binomtest(only_first, n_discordant).pvalue) if n_discordant else 1.0
    else:
        scored = groups >= 0
        group_ids = np.unique(groups[scored], return_inverse=True)[1]
        advantage = (winner_correct.astype(int) - runner_up_correct)[: len(groups)][scored]
        sums = np.bincount(group_ids, weights=advantage).round().astype(int)
        difference_95 = grouped_difference_ci(sums, np.bincount(group_ids))
        p_value = sign_flip_test(sums)
    return Comparison(
        winner=winner,
        runner_up=runner_up,
        images=images,
        only_winner=only_first,
        only_runner_up=only_second,
        difference=(only_first - only_second) / images,
        difference_95=difference_95,
        p_value=p_value,
        groups=None if groups is None else len(sums),
    )


def sign_flip_test(sums: np.ndarray) -> float:
    """Return the exact two-sided p-value of integers (groups,), if each were equally likely to have the other sign.

    The proportion of all 2 ** groups sign assignments whose total is as far from 0 (Fisher, The design of experiments
    (1935), section 21). They are not enumerated: the distribution of the total is the Fourier transform of the product of
    cos(t s) over the groups' sums s. If each s is 1 or -1 this is McNemar's exact test.
    """
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    max_total, total = int((sizes * counts).sum()), abs(int(sums.sum()))
    angles = 2 * np.pi * np.arange(2 * max_total + 1) / (2 * max_total + 1)
    transform = np.ones(len(angles))
    for size, count in zip(sizes, counts, strict=True):
        transform *= np.cos(size * angles) ** count
    total_probabilities = np.fft.fft(transform).real / len(angles)  # of the totals 0, 1 ... reach, -reach ... -1
    tail = 2 * float(total_probabilities[total : max_total + 1].sum()) if total else 1.0
    return min(1.0, max(tail, 2.0 ** (1 - int(counts.sum()))))


def unpack_correct(score: Score) -> np.ndarray:
    """Return which images were predicted correctly (rows, and up to seven more), from `Score.correct`."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(score.correct), np.uint8)).astype(bool)
