"""Triplet and supervised contrastive losses: loops written from the papers' formulas are the oracle."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from humeris.classify.heads.neural.metric_losses import supervised_contrastive_loss, triplet_loss
from humeris.extract.backbones.keras_runtime import load_keras


def unit(rows: int, columns: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, columns))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def every_triplet(labels: Sequence[int], rows: np.ndarray, margin: float) -> float:
    """The hinge of each pair with the negative that the paper's rule picks, found by walking through all of them."""
    rows = rows.astype(np.float64)
    losses = []
    for a, anchor in enumerate(rows):
        for p, positive in enumerate(rows):
            if p == a or labels[p] != labels[a]:
                continue
            near = float(((anchor - positive) ** 2).sum())
            others = [float(((anchor - rows[n]) ** 2).sum()) for n in range(len(rows)) if labels[n] != labels[a]]
            farther = [distance for distance in others if distance > near]
            if not others:
                losses.append(0.0)
            else:
                losses.append(max(0.0, near - (min(farther) if farther else max(others)) + margin))
    return sum(losses) / len(losses) if losses else 0.0


def both_sums(labels: Sequence[int], rows: np.ndarray, temperature: float) -> float:
    """Equation 2 of Khosla et al., term by term."""
    rows = rows.astype(np.float64)
    losses = []
    for i in range(len(rows)):
        positives = [p for p in range(len(rows)) if p != i and labels[p] == labels[i]]
        if not positives:
            continue
        below = sum(math.exp(float(rows[i] @ rows[a]) / temperature) for a in range(len(rows)) if a != i)
        terms = [math.log(math.exp(float(rows[i] @ rows[p]) / temperature) / below) for p in positives]
        losses.append(-sum(terms) / len(positives))
    return sum(losses) / len(losses) if losses else 0.0


BATCHES: dict[str, list[int]] = {
    "three classes": [0, 1, 2, 0, 1, 2, 0, 0, 1, 2, 2, 2],
    "two classes": [4, 4, 4, 7, 7, 7],
    "one class only": [3, 3, 3, 3],
    "a class with one row": [0, 0, 0, 1, 2, 2],
    "no two rows of a class": [0, 1, 2, 3],
    "one row": [0],
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("margin", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("columns", [1, 2, 8])
def test_the_triplet_loss_equals_a_walk_through_every_triplet(batch: str, margin: float, columns: int) -> None:
    labels = BATCHES[batch]
    rows = unit(len(labels), columns, seed=len(labels))
    found = float(triplet_loss(np.array(labels), rows, margin))
    assert found == pytest.approx(every_triplet(labels, rows, margin), abs=1e-5)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_the_contrastive_loss_equals_both_sums_written_out(batch: str, temperature: float) -> None:
    labels = BATCHES[batch]
    rows = unit(len(labels), 4, seed=len(labels))
    found = float(supervised_contrastive_loss(np.array(labels), rows, temperature))
    assert found == pytest.approx(both_sums(labels, rows, temperature), rel=1e-5, abs=1e-5)


def on_the_circle(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_farthest_negative_counts_where_none_is_farther_than_the_positive() -> None:
    labels, rows = np.array([0, 0, 1, 1]), on_the_circle(0, 170, 20, 40)
    positive, negative = (2 - 2 * math.cos(math.radians(degrees)) for degrees in (170, 40))
    expected_first = positive - negative + 0.2
    assert every_triplet(labels.tolist(), rows, 0.2) * 4 > expected_first > 3
    assert float(triplet_loss(labels, rows, 0.2)) == pytest.approx(every_triplet(labels.tolist(), rows, 0.2), abs=1e-5)


def test_negatives_beyond_the_margin_cost_nothing() -> None:
    assert float(triplet_loss(np.array([0, 0, 1, 1]), on_the_circle(0, 5, 180, 185), 0.2)) == 0


def test_a_hard_negative_is_passed_over_for_a_semi_hard_one() -> None:
    labels, rows = np.array([0, 0, 1, 2]), on_the_circle(0, 30, -10, -40)
    near, semi_hard = (2 - 2 * math.cos(math.radians(degrees)) for degrees in (30, 40))
    of_second = 2 - 2 * math.cos(math.radians(40))
    expected = (near - semi_hard + 0.9 + near - of_second + 0.9) / 2
    assert float(triplet_loss(labels, rows, 0.9)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("loss", ["triplet", "supervised_contrastive"])
def test_gradients_are_finite_even_for_rows_that_coincide(batch: str, loss: str) -> None:
    keras = load_keras()
    labels = np.array(BATCHES[batch])
    function, setting = {"triplet": (triplet_loss, 0.2), "supervised_contrastive": (supervised_contrastive_loss, 0.1)}[loss]
    layer = keras.layers.Dense(3, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((2,)), layer, keras.layers.UnitNormalization()])
    model.compile(keras.optimizers.SGD(0.1), loss=lambda y, z: function(y, z, setting))
    rows = np.ones((len(labels), 2), np.float32)
    assert np.isfinite(model.train_on_batch(rows, labels))
    assert np.isfinite(layer.get_weights()[0]).all()


@pytest.mark.parametrize("columns", [1, 5])
def test_compiled_in_a_model_the_losses_are_the_same(columns: int) -> None:
    keras = load_keras()
    labels, rows = np.array(BATCHES["three classes"]), unit(12, columns, seed=2)
    for function, setting in ((triplet_loss, 0.3), (supervised_contrastive_loss, 0.5)):
        model = keras.Sequential([keras.Input((columns,)), keras.layers.UnitNormalization()])
        model.compile(loss=lambda y, z, function=function, setting=setting: function(y, z, setting))
        found = model.test_on_batch(rows, labels)
        assert float(found) == pytest.approx(float(function(labels, rows, setting)), abs=1e-5)
