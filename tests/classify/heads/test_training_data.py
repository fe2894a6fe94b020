"""How heads are scored: every image held out counts once, whatever fold it is in and whatever a head answers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from humeris.classify.data.feature_matrix import FeatureMatrix
from humeris.classify.evaluate.significance import compare_with_runner_up
from humeris.classify.evaluate.trial import Trial, rank_trials
from humeris.classify.heads.registry import get_head_family
from humeris.classify.heads.training_data import TrainingData
from humeris.extract.backbones.tap_ref import TapRef

head2toe = get_head_family("head2toe")

SIZES = (2, 30, 8)  # images held out


def uneven(seed: int = 0, classes: int = 3) -> tuple[TrainingData, list[np.ndarray], list[np.ndarray]]:
    """Folds of very different size, with probabilities for each and its rows."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, sum(SIZES))
    held = np.split(random.permutation(sum(SIZES)), np.cumsum(SIZES)[:-1])
    folds = [(np.setdiff1d(np.arange(sum(SIZES)), rows), rows) for rows in held]
    answers = [random.dirichlet(np.ones(classes), len(rows)) for rows in held]
    return TrainingData.from_arrays(random.normal(size=(sum(SIZES), 6)), labels, folds), answers, held


def test_a_score_is_of_all_images_held_out_however_uneven_the_folds() -> None:
    problem, answers, held = uneven()
    score, rows, all_answers = problem.score(answers), np.concatenate(held), np.concatenate(answers)
    assert score.accuracy == accuracy_score(problem.labels[rows], all_answers.argmax(axis=1))
    assert score.log_loss == pytest.approx(log_loss(problem.labels[rows], all_answers, labels=range(3)), rel=1e-6)
    for right, numbers, each in zip(score.folds, held, answers, strict=True):
        assert right == pytest.approx(accuracy_score(problem.labels[numbers], each.argmax(axis=1)))
    assert score.accuracy != pytest.approx(np.mean(score.folds))


def test_views_and_folds_count_each_image_once() -> None:
    problem, answers, held = uneven()
    views = np.where(np.arange(sum(SIZES)) % 2, 3, 1)  # rows of each image
    shown = np.repeat(np.arange(sum(SIZES)), views)
    folds = tuple((np.nonzero(~np.isin(shown, rows))[0], np.nonzero(np.isin(shown, rows))[0]) for rows in held)
    again = TrainingData(
        FeatureMatrix.from_array(problem.features.to_array()[shown]), problem.labels[shown], problem.target, folds, shown
    )
    by_image = np.zeros((sum(SIZES), 3))
    by_image[np.concatenate(held)] = np.concatenate(answers)
    score, seen = problem.score(answers), again.score([by_image[shown[rows]] for _, rows in folds])
    assert (seen.accuracy, seen.correct, seen.folds) == (score.accuracy, score.correct, score.folds)
    assert seen.log_loss == pytest.approx(score.log_loss)


def test_the_winner_is_right_on_no_fewer_images_than_the_runner_up() -> None:
    """One is right on the two images of the small fold, the other on many more of the large ones."""
    problem, _, held = uneven(classes=2)
    sure = np.array([[0.9, 0.1], [0.1, 0.9]])
    few, many = (
        problem.score(
            [sure[problem.labels[rows] ^ (np.arange(len(rows)) >= count)] for rows, count in zip(held, counts, strict=True)]
        )
        for counts in ((2, 15, 5), (0, 26, 5))
    )
    assert np.mean(few.folds) > np.mean(many.folds)
    trials = {
        Trial((TapRef("nano", "nano-1", name, "avg"),), "logreg", {}): score for name, score in (("a", few), ("b", many))
    }
    assert rank_trials(trials)[0].tap_refs[0].layer == "b"
    found = compare_with_runner_up(trials, sum(SIZES))
    assert found is not None
    assert found.difference > 0


def test_head2toe_joins_its_folds_as_a_problem_scores_them() -> None:
    problem, _, _ = uneven()
    (score,) = head2toe.cross_validate(problem, head2toe.expand_grid({"fraction": 0.5, "C": 1, "penalty": 0.2}), 0)
    right = np.unpackbits(np.frombuffer(bytes.fromhex(score.correct), np.uint8)).sum()
    assert score.accuracy == right / sum(SIZES) != pytest.approx(np.mean(score.folds))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answers_that_are_not_finite_count_as_knowing_nothing(value: float) -> None:
    problem, answers, _ = uneven()
    expected = [each.copy() for each in answers]
    answers[1][4, 1] = answers[1][6] = value
    expected[1][[4, 6]] = 1 / 3
    found = problem.score(answers)
    assert found == problem.score(expected)
    assert np.isfinite([found.accuracy, found.log_loss, *found.folds]).all()
    nothing = problem.score([np.full_like(each, value) for each in answers])
    assert nothing.log_loss == pytest.approx(np.log(3))
