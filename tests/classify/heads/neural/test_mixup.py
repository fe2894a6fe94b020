"""Mixup's shares, CutMix's boxes, and the schedules of the learning rate."""

from __future__ import annotations

import numpy as np
import pytest

from humeris.classify.heads.neural import mixup as mixing
from humeris.classify.heads.neural import schedules
from humeris.extract.backbones.keras_runtime import load_keras


def of(mixup: float, cutmix: float = 0.0) -> dict[str, float]:
    return {"mixup": mixup, "cutmix": cutmix}


def test_mixup_draws_shares_from_the_beta_distribution_of_each_head() -> None:
    from scipy.stats import beta, kstest

    mixes = mixing.draw_mixes([of(0.2), of(0), of(2.0)], (6,), 4000, [7])
    rows = np.array([mix.row_shares for mix in mixes])
    assert kstest(rows[:, 0], beta(0.2, 0.2).cdf).pvalue > 0.01
    assert (rows[:, 1] == 1).all()
    assert kstest(rows[:, 2], beta(2, 2).cdf).pvalue > 0.01
    assert all(np.array_equal(mix.label_shares, mix.row_shares) and mix.box is None for mix in mixes)


def test_a_head_draws_the_same_alone_and_beside_others() -> None:
    beside = mixing.draw_mixes([of(2.0), of(0.2), of(0.0)], (6,), 5, [7])
    alone = mixing.draw_mixes([of(0.2)], (6,), 5, [7])
    assert [mix.row_shares[1] for mix in beside] == [mix.row_shares[0] for mix in alone]
    assert [mix.row_shares[0] for mix in mixing.draw_mixes([of(0.2)], (6,), 5, [8])] != [mix.row_shares[0] for mix in alone]


def test_cutmix_replaces_a_box_and_its_share_of_the_label() -> None:
    shape, count = (5, 8, 3), 6
    batch = np.arange(count * 120, dtype=np.float32).reshape(count, -1)
    kept = batch.copy()
    areas = []
    for mix in mixing.draw_mixes([of(0, 1.0)] * 2, shape, 300, [3]):
        mixed = mix.apply_cutmix(batch, shape)
        assert (batch == kept).all()
        assert mix.box is not None
        top, bottom, left, right = mix.box
        inside = np.zeros(shape, bool)
        inside[top:bottom, left:right] = True
        assert np.array_equal(mixed, np.where(inside.ravel(), batch[::-1], batch))
        assert mix.label_shares == pytest.approx([1 - inside.mean()] * 2)
        assert (mix.row_shares == 1).all()
        areas.append(inside.mean())
    assert min(areas) < 0.1
    assert max(areas) > 0.7
    assert 0.25 < np.mean(areas) < 0.5  # half of the area on average, less what the edges clip


def test_boxes_reach_every_place() -> None:
    shape, seen = (4, 6, 1), np.zeros((4, 6))
    for mix in mixing.draw_mixes([of(0, 1.0)], shape, 500, [3]):
        assert mix.box is not None
        top, bottom, left, right = mix.box
        seen[top:bottom, left:right] += 1
    assert (seen > 50).all()


def test_both_take_turns() -> None:
    mixes = mixing.draw_mixes([of(0.4, 1.0), of(1.0, 1.0)], (4, 4, 2), 400, [3])
    cut = [mix.box is not None for mix in mixes]
    assert 150 < sum(cut) < 250
    for mix, is_cut in zip(mixes, cut, strict=True):
        assert (mix.row_shares == 1).all() == is_cut
        assert is_cut or np.array_equal(mix.row_shares, mix.label_shares)


def test_cosine_is_kerass() -> None:
    steps = 17
    theirs = load_keras().optimizers.schedules.CosineDecay(1.0, steps)
    assert schedules.compute_factors("cosine", steps) == pytest.approx(
        [float(theirs(step)) for step in range(steps)], abs=1e-6
    )


def test_one_cycle_goes_up_down_and_almost_to_nothing() -> None:
    found = schedules.compute_factors("one_cycle", 1000)
    assert found[0] == pytest.approx(0.1)
    assert found[225] == pytest.approx(0.55)
    assert found[450] == pytest.approx(1)
    assert found[675] == pytest.approx(0.55)
    assert found[900] == pytest.approx(0.1)
    assert found[999] == pytest.approx(0.001, abs=1.1e-3)
    assert found.max() == found[450]


def test_constant_is_one() -> None:
    assert (schedules.compute_factors("constant", 5) == np.ones(5)).all()
