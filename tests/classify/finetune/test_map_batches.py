"""Batches of cached maps: which rows, in which order, in which view, and how they are mixed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from humeris.cache.shard import to_keys
from humeris.classify.data.views import ViewReader
from humeris.classify.finetune.batch_options import BatchOptions
from humeris.classify.finetune.map_batches import MapBatches
from humeris.classify.heads.neural import mixup

COUNT, CLASSES, SHAPE = 23, 3, (4, 5, 2)
LABELS = np.random.default_rng(0).integers(CLASSES, size=COUNT)
KEYS = to_keys([number.to_bytes(32, "big") for number in range(COUNT)])
PLACES = {key.tobytes(): place for place, key in enumerate(KEYS)}
MAPS = np.random.default_rng(1).normal(size=(3, COUNT, *SHAPE)).astype(np.float16)
# What tells an image and its view in a batch that is not mixed.
NAMES = {MAPS[view, place].astype(np.float32).tobytes(): (place, view) for view in range(3) for place in range(COUNT)}


class Rows:
    """Maps in memory, of the views from `first` on, without the (image, view) of `lacking`."""

    def __init__(self, first: int = 0, lacking: frozenset[tuple[int, int]] = frozenset()) -> None:
        self.first, self.lacking = first, lacking

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        assert columns is None
        places = [PLACES[key.tobytes()] for key in keys]
        assert view >= self.first
        assert not self.lacking & {(place, view) for place in places}
        return MAPS[view, places]

    def find_missing(self, keys: np.ndarray, view: int = 0) -> np.ndarray:
        return np.array([(PLACES[key.tobytes()], view) in self.lacking for key in keys])


def batches(stored: Any = None, **options: Any) -> MapBatches:
    views = options.pop("views", 0)
    given = BatchOptions(**{"batch_size": 5, "seed": 7, "training": True, **options})
    return MapBatches(stored or Rows(), KEYS, np.eye(CLASSES, dtype=np.float32)[LABELS], given, views)


def all_of(made: MapBatches, epoch: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    made.epoch = epoch
    return [made[number] for number in range(len(made))]


def names(found: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[int, int]]:
    """The (image, view) of every row; they must have their own labels."""
    rows = [NAMES[each.tobytes()] for maps, _ in found for each in maps]
    labels = np.concatenate([labels for _, labels in found])
    assert np.array_equal(labels, np.eye(CLASSES, dtype=np.float32)[LABELS[[place for place, _ in rows]]])
    return rows


def same(first: list[tuple[np.ndarray, np.ndarray]], second: list[tuple[np.ndarray, np.ndarray]]) -> bool:
    return all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in zip(first, second, strict=True))


VIEWED = ViewReader(Rows(), Rows(first=1))
MIXED = {"mixup": 0.4, "cutmix": 1.0, "views": 2}


def test_without_training_images_come_in_their_order_as_they_are() -> None:
    made = batches(training=False)
    found = all_of(made)
    assert [len(maps) for maps, _ in found] == [5, 5, 5, 5, 3]
    assert names(found) == [(place, 0) for place in range(COUNT)]
    assert {(maps.dtype, labels.dtype) for maps, labels in found} == {(np.dtype("float32"), np.dtype("float32"))}
    assert same(found, all_of(made, epoch=3))


def test_in_training_every_image_comes_once_an_epoch_in_another_order() -> None:
    made = batches()
    orders = [names(all_of(made, epoch)) for epoch in range(4)]
    assert all(sorted(order) == [(place, 0) for place in range(COUNT)] for order in orders)
    assert len({tuple(order) for order in [*orders, names(all_of(batches(seed=8)))]}) == 5


@pytest.mark.parametrize("options", [{}, {"mixup": 0.4}, {"cutmix": 1.0}, MIXED])
def test_a_batch_depends_on_seed_epoch_and_number_alone(options: dict[str, Any]) -> None:
    """Asked for backwards, again, after another epoch, and from threads that all begin at once."""
    stored = VIEWED if "views" in options else None
    expected = {epoch: all_of(batches(stored, **options), epoch) for epoch in (0, 2)}
    made = batches(stored, **options)
    for epoch in (2, 0, 2):
        made.epoch = epoch
        backwards = [made[number] for number in reversed(range(len(made)))]
        assert same(backwards[::-1], expected[epoch])
    for _ in range(20):
        threaded = batches(stored, **options)
        threaded.epoch = 2
        with ThreadPoolExecutor(5) as pool:
            assert same(list(pool.map(threaded.__getitem__, range(len(threaded)))), expected[2])


def test_views_are_drawn_evenly_among_the_plain_one_and_those_that_there_are() -> None:
    lacking = frozenset({(3, 1), (4, 1), (4, 2)})
    made = batches(ViewReader(Rows(), Rows(first=1, lacking=lacking)), views=2)
    seen = np.zeros((COUNT, 3), int)
    for epoch in range(300):
        rows = names(all_of(made, epoch))
        assert sorted(place for place, _ in rows) == list(range(COUNT))
        for place, view in rows:
            seen[place, view] += 1
    assert seen[3].tolist() == pytest.approx([150, 0, 150], abs=40)
    assert seen[4].tolist() == [300, 0, 0]
    others = np.delete(seen, [3, 4], axis=0)
    assert others.min() > 60  # of 100 on average
    assert others.max() < 140


def test_views_leave_the_order_of_images_as_it_is() -> None:
    plain, viewed = (names(all_of(made, 1)) for made in (batches(), batches(VIEWED, views=2)))
    assert [place for place, _ in plain] == [place for place, _ in viewed]


def test_mixup_shares_maps_and_labels_alike_as_heads_do() -> None:
    plain, mixed = all_of(batches(), 2), all_of(batches(mixup=0.4), 2)
    mixes = mixup.draw_mixes([{"mixup": 0.4, "cutmix": 0.0}], SHAPE, len(plain), [7, 2, 1])
    shares = [float(mix.row_shares[0]) for mix in mixes]
    assert len({round(share, 6) for share in shares}) == len(plain)
    for (maps, labels), (found, soft), share in zip(plain, mixed, shares, strict=True):
        np.testing.assert_allclose(found, share * maps + (1 - share) * maps[::-1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(soft, share * labels + (1 - share) * labels[::-1], rtol=1e-5, atol=1e-6)
        assert found.dtype == soft.dtype == np.float32


def test_cutmix_takes_a_box_of_the_other_map_and_as_much_of_its_label() -> None:
    boxes = 0
    for epoch in range(5):
        plain, mixed = all_of(batches(), epoch), all_of(batches(cutmix=1.0), epoch)
        for (maps, labels), (found, soft) in zip(plain, mixed, strict=True):
            other = maps[::-1]
            taken = (found == other).all(axis=(0, 3)) & ~(maps == other).all(axis=(0, 3))
            assert np.array_equal(found, np.where(taken[..., None], other, maps))
            share = 1 - taken.mean()
            np.testing.assert_allclose(soft, share * labels + (1 - share) * labels[::-1], rtol=1e-5, atol=1e-6)
            boxes += 0 < taken.sum() < taken.size
    assert boxes > 15


def test_where_both_are_asked_for_each_batch_gets_one_of_them() -> None:
    cut = mixed = 0
    for epoch in range(8):
        plain = all_of(batches(), epoch)
        for (maps, _), (found, _) in zip(plain, all_of(batches(mixup=0.4, cutmix=1.0), epoch), strict=True):
            whole = ((found == maps) | (found == maps[::-1])).all()
            cut, mixed = cut + bool(whole), mixed + (not whole)
    assert min(cut, mixed) > 8


def test_maps_are_read_from_the_cache_a_batch_at_a_time() -> None:
    asked: list[int] = []

    class Counted(Rows):
        def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
            asked.append(len(keys))
            return super().read(keys, view, columns)

    made = batches(Counted())
    assert asked == []
    all_of(made)
    assert asked == [5, 5, 5, 5, 3]


def test_fewer_images_than_a_batch_make_one_batch() -> None:
    made = MapBatches(
        Rows(), KEYS[:2], np.eye(CLASSES, dtype=np.float32)[LABELS[:2]], BatchOptions(32, training=True, mixup=0.2)
    )
    assert len(made) == 1
    assert made[0][0].shape == (2, *SHAPE)
