"""Batches of images: what was decoded, decided by the seed, the epoch and the number alone, ready before it is asked for."""

from __future__ import annotations

import random as python_random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.cache.errors import DataError
from humeris.classify.finetune.augmentation import Augmentation
from humeris.classify.finetune.batch_options import BatchOptions
from humeris.classify.finetune.image_batches import ImageBatches
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.images.class_folders import ClassFolders
from humeris.extract.images.images import Image
from humeris.extract.images.item import Item
from humeris.extract.pixels import decode, read_file
from humeris.extract.pixels.decode_pool import DecoderPool

SIZE = (20, 24)
STRONG = {"augmentation": Augmentation.parse("flip,crop,randaugment,color,erasing"), "mixup": 0.4, "cutmix": 0.7}


class Images:
    """The photographs of a folder, and batches of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
        self.digests = [read_file.compute_digest((root / name).read_bytes()) for name in self.names]
        self.labels = np.array([("stripes", "blob", "noise").index(Path(name).parent.name) for name in self.names])
        self.source = ClassFolders(root)
        self.opened: list[ImageBatches | DecoderPool] = []

    def batches(self, training: bool = True, *, epoch: int = 0, batch_size: int = 8, **options: Any) -> ImageBatches:
        """Batches that the fixture closes."""
        decoders = DecoderPool(options.pop("jobs", 2))
        pictures = [
            Image(self.source.get_item(name), digest, "PNG") for name, digest in zip(self.names, self.digests, strict=True)
        ]
        made = ImageBatches(
            self.source, pictures, np.eye(3, dtype=np.float32)[self.labels], SIZE, decoders,
            BatchOptions(batch_size, training=training, **{"seed": 5, **options}),
        )  # fmt: skip
        made.epoch = epoch
        self.opened += [made, decoders]
        return made

    def decoded(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images as extraction decodes them."""
        return np.stack([decode.decode((self.root / self.names[row]).read_bytes(), SIZE) for row in rows])


@pytest.fixture
def images(photos: Path) -> Iterator[Images]:
    made = Images(photos)
    yield made
    for each in made.opened:
        each.close()


def equal(one: Any, other: Any) -> bool:
    return all(np.array_equal(mine, its) and mine.dtype == its.dtype for mine, its in zip(one, other, strict=True))


def test_batches_to_validate_on_are_the_images_as_they_are_extracted(images: Images) -> None:
    batches = images.batches(False, batch_size=10, **STRONG)
    assert [len(x) for x, _ in (batches[number] for number in range(len(batches)))] == [10, 10, 10, 6]
    for number in range(len(batches)):
        rows = range(number * 10, min(36, number * 10 + 10))
        assert equal(batches[number], (images.decoded(rows), np.eye(3, dtype=np.float32)[images.labels[rows]]))


def test_each_epoch_of_training_has_an_order_of_its_own(images: Images) -> None:
    batches = images.batches()
    for epoch in (0, 1, 7):
        batches.epoch = epoch
        order = np.random.default_rng([5, epoch]).permutation(36)
        found = [batches[number] for number in range(len(batches))]
        assert equal(
            [np.concatenate(part) for part in zip(*found, strict=True)],
            (images.decoded(order), np.eye(3, dtype=np.float32)[images.labels[order]]),
        )


def test_labels_are_shared_as_the_images_are(images: Images) -> None:
    x, y = images.batches(**STRONG)[1]
    assert (x.dtype, x.shape, y.dtype, y.shape) == (np.float32, (8, *SIZE, 3), np.float32, (8, 3))
    assert x.min() >= 0
    assert x.max() <= 255
    assert np.allclose(y.sum(axis=1), 1, atol=1e-6)
    assert ((y > 0.01) & (y < 0.99)).any()
    plain = images.batches(augmentation=Augmentation.parse("cutout"))[1]
    assert np.isin(plain[1], (0, 1)).all()


def test_a_batch_is_the_same_whatever_was_asked_before(images: Images) -> None:
    expected = {(epoch, number): images.batches(epoch=epoch, **STRONG)[number] for epoch in (0, 1) for number in (0, 2, 4)}
    assert not equal(expected[0, 2], expected[1, 2])
    used = images.batches(jobs=3, **STRONG)
    for epoch, number in ((1, 4), (0, 2), (1, 0), (0, 4), (0, 0), (1, 2), (1, 2)):
        used.epoch = epoch
        assert equal(used[number], expected[epoch, number])
    used.epoch = 1
    with ThreadPoolExecutor(3) as threads:
        for number, found in zip((4, 0, 2) * 3, threads.map(used.__getitem__, (4, 0, 2) * 3), strict=True):
            assert equal(found, expected[1, number])
    assert not equal(images.batches(seed=6, **STRONG)[0], expected[0, 0])


def test_each_batch_of_each_epoch_has_draws_of_its_own(images: Images) -> None:
    images.names, images.digests, images.labels = images.names[:1] * 16, images.digests[:1] * 16, images.labels[[0] * 16]
    cut = Augmentation.parse("cutout")
    found = [images.batches(epoch=epoch, augmentation=cut)[number][0] for epoch in (0, 1) for number in (0, 1)]
    assert len({x.tobytes() for x in found}) == 4


def test_making_batches_leaves_the_random_numbers_of_others_alone(images: Images) -> None:
    keras = load_keras()
    python_random.seed(1)
    keras.utils.set_random_seed(3)
    expected = python_random.random(), np.random.random(), float(keras.random.uniform(()))
    keras.utils.set_random_seed(3)
    batches = images.batches(**STRONG)
    for number in range(3):
        batches[number]
    assert (python_random.random(), np.random.random(), float(keras.random.uniform(()))) == expected


def test_two_more_batches_are_made_ahead_and_no_third(images: Images) -> None:
    order, asked, third = np.random.default_rng([5, 0]).permutation(36), set(), threading.Event()

    class Noted(ClassFolders):
        def fetch(self, item: Item) -> Path | bytes:
            asked.add(item.name)
            if {images.names[row] for row in order[8:24]} <= asked:
                third.set()
            return super().fetch(item)

    images.source = Noted(images.root)
    batches = images.batches()
    batches[0]
    assert third.wait(30)
    batches.close()
    assert asked == {images.names[row] for row in order[:24]}


def test_as_many_images_are_decoded_at_once_as_there_are_jobs(images: Images) -> None:
    together = threading.Barrier(4)

    class Waiting(ClassFolders):
        def fetch(self, item: Item) -> Path | bytes:
            together.wait(30)
            return super().fetch(item)

    images.source = Waiting(images.root)
    assert len(images.batches(jobs=4, batch_size=4)[0][0]) == 4


def spoil(path: Path, how: str) -> None:
    if how == "gone":
        path.unlink()
    elif how == "changed":
        path.write_bytes(path.read_bytes() + b"more")
    else:
        path.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")


@pytest.mark.parametrize(
    ("how", "found"),
    [("gone", "No such file"), ("changed", "the file has changed; restore it"), ("damaged", "PNG header cannot be read")],
)
def test_an_image_that_is_not_what_it_was_is_named_when_its_batch_is_asked_for(images: Images, how: str, found: str) -> None:
    spoil(images.root / images.names[9], how)
    if how == "damaged":
        images.digests[9] = read_file.compute_digest((images.root / images.names[9]).read_bytes())
    batches = images.batches(False)
    assert len(batches[0][0]) == 8
    with pytest.raises(DataError, match=found) as refusal:
        batches[1]
    assert str(refusal.value).startswith(f"{images.names[9]}: cannot be read as the run saw it: ")
    assert "\n" not in str(refusal.value)
    assert len(batches[2][0]) == 8


def test_an_image_that_kills_its_decoder_costs_its_own_batch_alone(
    images: Images, bad_decoder: Callable[[str], None]
) -> None:
    bad_decoder("os.kill(os.getpid(), signal.SIGSEGV)")
    bad = Path(images.names[9]).with_name("bad.png")
    (images.root / images.names[9]).rename(images.root / bad)
    images.names[9] = str(bad)
    batches = images.batches(False)
    assert np.array_equal(batches[0][0], images.decoded(range(8)))
    with pytest.raises(DataError, match=r"bad.png: cannot be read as .*two decoders crashed on it \(SIGSEGV\)"):
        batches[1]
    assert np.array_equal(batches[2][0], images.decoded(range(16, 24)))


def test_a_batch_beyond_the_last_is_an_error_of_the_program(images: Images) -> None:
    with pytest.raises(IndexError, match="batch 5 of 5"):
        images.batches()[5]
    images.names.pop()
    images.digests.pop()
    with pytest.raises(ValueError, match="35 images, but 36 labels"):
        images.batches()


@pytest.mark.parametrize("training", [True, False])
def test_what_an_image_did_wrong_is_told_in_one_line(images: Images, training: bool) -> None:
    images.digests[int(np.random.default_rng([5, 0]).permutation(36)[30])] = bytes(32)
    batches = images.batches(training)
    with pytest.raises(DataError, match="the file has changed") as refusal:
        [batches[number] for number in range(len(batches))]
    assert "\n" not in str(refusal.value)
