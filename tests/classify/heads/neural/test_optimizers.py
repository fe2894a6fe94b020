"""RAdam and Ranger against their papers' formulas, and a learning rate for each head."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.classify.heads.neural import optimizers
from humeris.extract.backbones.keras_runtime import load_keras

keras = load_keras()
START = np.array([1.0, -2.0, 0.5])
EPSILON = 1e-7


def gradient(step: int) -> np.ndarray:
    """What a loss might have: changes with the step, of different sizes."""
    return np.array([1.0, 0.1, 10.0]) * np.cos([0.3 * step, 0.5 * step + 1, 0.2 * step])


def radam(steps: int, rate: float, beta_1: float = 0.9, beta_2: float = 0.999) -> list[np.ndarray]:
    """Algorithm 2 of Liu et al., in float64, as printed there but for the epsilon."""
    theta, m, v, found = START.copy(), np.zeros(3), np.zeros(3), []
    limit = 2 / (1 - beta_2) - 1
    for t in range(1, steps + 1):
        g = gradient(t)
        v = beta_2 * v + (1 - beta_2) * g**2
        m = beta_1 * m + (1 - beta_1) * g
        corrected = m / (1 - beta_1**t)
        rho = limit - 2 * t * beta_2**t / (1 - beta_2**t)
        if rho > 4:
            adaptive = math.sqrt(1 - beta_2**t) / (np.sqrt(v) + EPSILON)
            r = math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
            theta = theta - rate * r * corrected * adaptive
        else:
            theta = theta - rate * corrected
        found.append(theta)
    return found


def lookahead(steps: int, step: Callable[[np.ndarray, int], np.ndarray], k: int, alpha: float) -> list[np.ndarray]:
    """Algorithm 1 of Zhang et al.: an inner optimizer's steps from the slow weights, and every k the slow ones move."""
    slow, fast, found = START.copy(), START.copy(), []
    for t in range(1, steps + 1):
        fast = step(fast, t)
        if t % k == 0:
            slow = slow + alpha * (fast - slow)
            fast = slow
        found.append(fast)
    return found


def taken(optimizer: Any, steps: int, start: np.ndarray = START, gradients: Callable[[int], Any] = gradient) -> list[Any]:
    variable = keras.Variable(start.astype(np.float32), name="theta")
    optimizer.build([variable])
    found = []
    for step in range(1, steps + 1):
        optimizer.apply([keras.ops.convert_to_tensor(np.asarray(gradients(step), np.float32))])
        found.append(np.array(keras.ops.convert_to_numpy(variable)))
    return found


@pytest.mark.parametrize("beta_2", [0.999, 0.99, 0.9])
def test_radam_follows_its_paper_before_and_after_the_variance_can_be_told(beta_2: float) -> None:
    ours = taken(optimizers.RAdam(0.05, beta_2=beta_2), 40)
    for mine, theirs in zip(ours, radam(40, 0.05, beta_2=beta_2), strict=True):
        assert mine == pytest.approx(theirs, rel=2e-5, abs=2e-5)


def test_radams_first_steps_are_momentum_and_the_fifth_is_rectified() -> None:
    """With beta_2 = 0.999, rho_t is t - (t^2 - 1) / 6000 to first order: 1, 1.9995, 2.9987, 3.9975, 4.996.

    With a gradient that stays 2, the corrected momentum is 2 and the corrected root of the second moment 2 at every step.
    """
    steps = taken(optimizers.RAdam(0.1), 5, np.zeros(1), lambda _: [2.0])
    assert [float(each[0]) for each in steps[:4]] == pytest.approx([-0.2, -0.4, -0.6, -0.8], rel=1e-5)
    rho, limit = 4.996, 1999.0
    r = math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
    assert float(steps[4][0] - steps[3][0]) == pytest.approx(-0.1 * r, rel=2e-4)
    assert r == pytest.approx(0.0173, rel=1e-2)


def test_radam_goes_over_to_adam_in_the_end() -> None:
    steps = taken(optimizers.RAdam(0.01, beta_2=0.9), 400, np.zeros(1), lambda _: [3.0])
    assert float(steps[-1][0] - steps[-2][0]) == pytest.approx(-0.01, rel=1e-3)


def test_rectification_is_exact_to_float32_over_the_whole_course() -> None:
    optimizer = optimizers.RAdam()
    optimizer.build([keras.Variable(np.zeros(1, np.float32))])
    limit = 2 / (1 - 0.999) - 1
    for t in (5, 6, 7, 30, 150, 199, 200, 201, 1000, 30_000, 200_000):
        optimizer.iterations.assign(t - 1)
        *_, rectified, factor = (float(each) for each in optimizer._compute_corrections())
        rho = limit - 2 * t / math.expm1(-t * math.log(0.999))
        expected = math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
        assert rectified == 1
        assert factor == pytest.approx(expected, rel=1e-5)
    optimizer.iterations.assign(3)
    assert float(optimizer._compute_corrections()[2]) == 0


@pytest.mark.parametrize(("k", "alpha"), [(6, 0.5), (4, 0.8)])
def test_ranger_is_lookahead_over_radam(k: int, alpha: float) -> None:
    """RAdam's step depends on the gradients alone, so the inner steps are the differences of its own course."""
    course = [START, *radam(30, 0.05)]
    expected = lookahead(30, lambda fast, t: fast + course[t] - course[t - 1], k, alpha)
    ours = taken(optimizers.Ranger(0.05, k=k, alpha=alpha), 30)
    for mine, theirs in zip(ours, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=2e-5, abs=2e-5)


def test_ranger_goes_half_way_back_after_six_steps() -> None:
    """Momentum steps of -0.2 each: with beta_2 = 0.5 rho_t stays below 3, and nothing is ever rectified."""
    steps = [float(each[0]) for each in taken(optimizers.Ranger(0.1, beta_2=0.5), 7, np.zeros(1), lambda _: [2.0])]
    assert steps[:5] == pytest.approx([-0.2, -0.4, -0.6, -0.8, -1.0], rel=1e-5)
    assert steps[5] == pytest.approx(-0.6, rel=1e-5)
    assert steps[6] == pytest.approx(-0.8, rel=1e-5)


@pytest.mark.parametrize("kind", ["RAdam", "Ranger"])
def test_weight_decay_is_decoupled_as_in_keras(kind: str) -> None:
    plain, decayed = (getattr(optimizers, kind)(0.05, weight_decay=decay) for decay in (None, 0.1))
    first, second = taken(plain, 1)[0], taken(decayed, 1)[0]
    assert second == pytest.approx(first - 0.05 * 0.1 * START, rel=1e-5)


@pytest.mark.parametrize("kind", ["RAdam", "Ranger"])
def test_a_saved_model_goes_on_where_it_stopped(kind: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows, targets = generator.normal(size=(32, 3)).astype("f"), generator.normal(size=(32, 1)).astype("f")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(getattr(optimizers, kind)(0.02, beta_1=0.8), loss="mse")
    model.fit(rows, targets, batch_size=4, epochs=1, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is type(model.optimizer)
    assert again.optimizer.get_config() == model.optimizer.get_config()
    for each in (model, again):
        each.fit(rows, targets, batch_size=4, epochs=1, shuffle=False, verbose=0)
    assert again.get_weights()[0] == pytest.approx(model.get_weights()[0], abs=1e-6)


def test_ranger_keeps_k_and_alpha_in_its_config() -> None:
    config = optimizers.Ranger(0.01, k=3, alpha=0.7, epsilon=1e-6).get_config()
    assert (config["k"], config["alpha"], config["epsilon"]) == (3, 0.7, 1e-6)
    assert optimizers.Ranger.from_config(config).get_config() == config


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "radam", "ranger"])
def test_each_head_has_its_own_rate_and_decay(kind: str) -> None:
    """Three heads along the second axis, against an optimizer of Keras (or ours) for each, with its own arguments."""
    rates, decays = np.array([0.1, 0.01, 0.03]), np.array([0.0, 0.2, 0.05])
    start = np.random.default_rng(1).normal(size=(4, 3, 2))
    gradients = [np.random.default_rng(step).normal(size=start.shape) for step in range(16)]
    together = optimizers.build_per_head_optimizer(kind, 3, decays, [1])
    together.build([variable := keras.Variable(start.astype(np.float32))])
    together.rates.assign(rates)
    for each in gradients:
        together.apply([keras.ops.convert_to_tensor(each.astype(np.float32))])
    for head in range(3):
        decay = {"weight_decay": float(decays[head])}
        alone = {
            "sgd": lambda **given: keras.optimizers.SGD(momentum=0.9, nesterov=True, **given),
            "adam": keras.optimizers.Adam,
            "adamw": keras.optimizers.AdamW,
            "radam": optimizers.RAdam,
            "ranger": optimizers.Ranger,
        }[kind](learning_rate=float(rates[head]), **decay)
        expected = taken(alone, 16, start[:, head], lambda step, head=head: gradients[step - 1][:, head])[-1]
        assert np.array(keras.ops.convert_to_numpy(variable))[:, head] == pytest.approx(expected, rel=1e-4, abs=1e-5)
