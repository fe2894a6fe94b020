"""The gate of every export: fresh process, equal classes, bounded difference, answers that vary."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.cache.errors import ParityError
from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.export.formats.keras_format import KerasFormat
from humeris.classify.export.parity import MIN_AGREEMENT, TOLERANCE, compare, compare_classes
from humeris.classify.export.parity import predict_in_subprocess as answers_of

TARGET = SingleLabel(("a", "b", "c"))


def answers(rows: int = 10, seed: int = 0) -> np.ndarray:
    powers = np.exp(np.random.default_rng(seed).normal(size=(rows, 3)) * 2)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def test_equal_answers_agree() -> None:
    found = compare(TARGET, answers(), answers())
    assert found.to_dict() == {"images": 10, "top1_agree": 10, "max_difference": 0.0, "ties": 0}


def test_a_difference_within_the_bound_is_measured() -> None:
    exported = answers()
    exported[3, 1] += 5e-5
    assert compare(TARGET, answers(), exported).max_difference == pytest.approx(5e-5, rel=1e-3)


def test_a_difference_beyond_the_bound_is_refused() -> None:
    exported = answers()
    exported[3, 1] += 2 * TOLERANCE
    with pytest.raises(
        ParityError, match=r"differs on 0 of 10 images, and probabilities by up to 0.0002 \(tolerance 0.0001\); nothing was"
    ):
        compare(TARGET, answers(), exported)


def test_another_class_is_refused_however_small_the_difference() -> None:
    cached = np.array([[0.5003, 0.4997, 0.0], [0.9, 0.1, 0.0]])
    exported = np.array([[0.4997, 0.5003, 0.0], [0.9, 0.1, 0.0]])
    with pytest.raises(ParityError, match=r"differs on 1 of 2 images, and probabilities by up to 0.0006"):
        compare(TARGET, cached, exported, tolerance=1e-3)


def test_of_two_classes_that_are_equal_to_rounding_either_may_come_first() -> None:
    cached = np.array([[0.50001, 0.49999, 0.0], [0.9, 0.1, 0.0]])
    exported = np.array([[0.49999, 0.50001, 0.0], [0.9, 0.1, 0.0]])
    assert compare(TARGET, cached, exported).top1_agree == 1


def test_images_near_a_tie_may_differ_and_are_counted_and_the_others_must_agree() -> None:
    exported, ties = answers(), np.zeros(10, bool)
    exported[[3, 5]] = exported[[3, 5]][:, ::-1]
    exported[7, 1] += 5e-5
    ties[[2, 3, 5]] = True
    found = compare(TARGET, answers(), exported, ties=ties)
    assert (found.images, found.ties, found.top1_agree) == (10, 2, 8)
    assert found.max_difference == pytest.approx(5e-5, rel=1e-3)
    ties[5] = False
    with pytest.raises(
        ParityError, match=r"differs on 1 of 10 images.*export another trial of leaderboard.csv with --trial ID"
    ):
        compare(TARGET, answers(), exported, ties=ties)


def test_a_model_that_differs_on_every_image_is_refused_even_if_all_are_ties() -> None:
    with pytest.raises(ParityError, match="on all 10 images they differ and neighbors of several classes are equally near"):
        compare(TARGET, answers(), answers(seed=1), ties=np.ones(10, bool))


def test_ties_that_are_answered_alike_are_no_difference() -> None:
    assert compare(TARGET, answers(), answers(), ties=np.ones(10, bool)).to_dict()["ties"] == 0


def test_nan_is_no_tie() -> None:
    exported = answers()
    exported[3] = np.nan
    with pytest.raises(ParityError):
        compare(TARGET, answers(), exported, ties=np.ones(10, bool))


def test_classes_in_another_order_are_refused() -> None:
    with pytest.raises(ParityError):
        compare(TARGET, answers(), answers()[:, ::-1])


def test_images_in_another_order_are_refused() -> None:
    with pytest.raises(ParityError):
        compare(TARGET, answers(), answers()[::-1])


def test_answers_that_do_not_vary_are_refused_even_if_equal() -> None:
    constant = np.tile(np.float32([0.7, 0.2, 0.1]), (10, 1))
    with pytest.raises(ParityError, match="probabilities are not finite, or equal for all images"):
        compare(TARGET, constant, constant)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_not_finite_are_refused(value: float) -> None:
    exported = answers()
    exported[2, 0] = value
    with pytest.raises(ParityError):
        compare(TARGET, answers(), exported)


def test_cached_answers_that_are_not_finite_are_refused() -> None:
    cached = answers()
    cached[2, 0] = np.nan
    with pytest.raises(ParityError):
        compare(TARGET, cached, answers())


def test_answers_of_another_shape_are_refused() -> None:
    with pytest.raises(ParityError, match=r"probabilities of shape \(10, 2\), not \(10, 3\)"):
        compare(TARGET, answers(), answers()[:, :2])


def test_one_image_is_compared_without_asking_it_to_vary() -> None:
    assert compare(TARGET, answers(1), answers(1)).images == 1


def test_a_tampered_file_is_refused_by_the_process_that_loads_it(finished: Any, tmp_path: Path) -> None:
    path = tmp_path / "tampered.keras"
    with zipfile.ZipFile(finished.model) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data[: len(data) // 2] if name.endswith(".weights.h5") else data)
    with pytest.raises(ParityError, match=r"tampered.keras: Keras cannot load or run the model in a fresh process: \S"):
        answers_of(KerasFormat(), path, np.zeros((2, 64, 64, 3), np.uint8))


def test_in_eight_bits_probabilities_may_differ_and_the_classes_may_not() -> None:
    cached = answers(100)
    exported = cached**0.7
    exported /= exported.sum(axis=1, keepdims=True)
    found = compare_classes(TARGET, cached, exported)
    assert (found.images, found.top1_agree) == (100, 100)
    assert found.max_difference > 0.05
    exported[:2] = exported[:2, ::-1] + np.float32([0.5, 0, 0.5]) * (cached[:2].argmax(axis=1) == 1)[:, None]
    assert compare_classes(TARGET, cached, exported).top1_agree == 98 == MIN_AGREEMENT * 100
    exported[2] = np.roll(exported[2], 1)
    with pytest.raises(
        ParityError, match=r"the same class on 97.0% of 100 images \(required: 98%\); nothing was written; use"
    ):
        compare_classes(TARGET, cached, exported)


@pytest.mark.parametrize("value", [np.nan, 0.5])
def test_in_eight_bits_answers_must_be_numbers_that_vary(value: float) -> None:
    with pytest.raises(ParityError, match="probabilities are not finite, or equal for all images"):
        compare_classes(TARGET, answers(), np.full((10, 3), value, np.float32))
