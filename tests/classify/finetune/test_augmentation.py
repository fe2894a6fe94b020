"""Augmentation in training: Keras's own layers, called directly, are the oracle; each image has draws of its own."""

from __future__ import annotations

import random as python_random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from humeris.cache.errors import DataError
from humeris.classify.finetune import autoaugment
from humeris.classify.finetune.augment_ops import GRAY, Operations
from humeris.classify.finetune.augmentation import KINDS, Augmentation, AugmentationLayers, BatchMixer
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.pixels import augment

Y, X = np.mgrid[0:40, 0:50]
PICTURE = np.stack([X * 5 % 256, (Y * 6 + X) % 256, (X * Y) % 251], axis=-1).astype(np.float32)
SMOOTH = np.stack([100 + 80 * np.sin(X / 9), 120 + 90 * np.cos(Y / 7), 60 + X + Y], axis=-1).astype(np.float32)
BATCH = np.stack([PICTURE, SMOOTH, PICTURE[::-1], SMOOTH[:, ::-1], 255 - PICTURE, 255 - SMOOTH])


@pytest.fixture(scope="module")
def layers() -> AugmentationLayers:
    return AugmentationLayers()


@pytest.fixture(scope="module")
def operations(layers: AugmentationLayers) -> Callable[..., np.ndarray]:
    """An operation on NumPy images."""
    return lambda images, name, level=0.0: np.asarray(layers.operations(tensor(images), name, level))


def tensor(images: np.ndarray) -> Any:
    return load_keras().ops.convert_to_tensor(images, dtype="float32")


def augmented(text: str, images: np.ndarray, layers: AugmentationLayers, seed: int = 0) -> np.ndarray:
    return np.asarray(Augmentation.parse(text).apply(tensor(images), layers, np.random.default_rng(seed)))


def drawn(seed: int, count: int = 1) -> list[int]:
    """The seeds that so many uses of a layer get from NumPy."""
    source = np.random.default_rng(seed)
    return [int(source.integers(2**31)) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_float32_pictures_and_draws_for_each_image(kind: str, layers: AugmentationLayers) -> None:
    copies = np.repeat(SMOOTH[None], 16, axis=0)
    result = augmented(kind, copies, layers)
    assert (result.shape, result.dtype) == (copies.shape, np.float32)
    assert np.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 255
    assert len({image.tobytes() for image in result}) > 1
    assert augmented(kind, np.full_like(copies, 255), layers).max() <= 255


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_the_generator_decides(kind: str, layers: AugmentationLayers) -> None:
    first = augmented(kind, BATCH, layers, 3)
    python, numpy = python_random.getstate(), np.random.get_state()[1]
    augmented(f"{kind},color" if kind != "color" else "augmix,color", BATCH, AugmentationLayers(), 4)
    assert python_random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], numpy)
    assert np.array_equal(augmented(kind, BATCH, layers, 3), first)
    assert np.array_equal(augmented(kind, BATCH, AugmentationLayers(), 3), first)
    assert not np.array_equal(np.concatenate([augmented(kind, BATCH, layers, seed) for seed in range(5, 9)]), [*first] * 4)


@pytest.mark.parametrize("kind", ["rotate,color,gray,cutout,zoom", "randaugment", "erasing=1"])
def test_mixed_precision_of_the_network_changes_no_picture(kind: str, layers: AugmentationLayers) -> None:
    expected = augmented(kind, BATCH, layers, 3)
    keras = load_keras()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert np.array_equal(augmented(kind, BATCH, AugmentationLayers(), 3), expected)
    finally:
        keras.config.set_dtype_policy(before)


def test_an_augmentation_is_written_out_in_full_and_in_one_order() -> None:
    text = "randaugment, cutout=0.5,FLIP,crop=0.3,color,autoaugment"
    assert str(Augmentation.parse(text)) == "flip=0.5,crop=0.3,randaugment=2x9,autoaugment,color=0.4,cutout=0.5"
    whole = ",".join(KINDS)
    assert Augmentation.parse(str(Augmentation.parse(whole))) == Augmentation.parse(whole)
    assert [name for name, _ in Augmentation.parse(whole).operations] == list(KINDS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("flop", "'flop': unknown operation; use one of flip, .*; closest: flip"),
        ("randaug=2x9", "closest: randaugment"),
        ("trivialaugment", "closest: autoaugment|closest: randaugment"),
        ("", "leave it out"),
        ("flip,flip", "flip is given twice"),
        ("crop=2", "crop: invalid strength '2'; give the least share .* as in crop=0.25"),
        ("zoom=0.95", "zoom: invalid strength '0.95'"),
        ("autoaugment=3", "takes no strength"),
        ("randaugment=9", "give COUNTxLEVEL"),
        ("augmix=0", "give the severity"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(text: str, found: str) -> None:
    with pytest.raises(DataError, match=found) as refusal:
        Augmentation.parse(text)
    assert "\n" not in str(refusal.value)


def test_names_mean_what_they_mean_for_views() -> None:
    both = KINDS.keys() & augment.OPERATIONS.keys()
    assert both == augment.OPERATIONS.keys() - {"trivialaugment"}
    for name in both:
        assert (KINDS[name].default, KINDS[name].bounds) == (
            augment.OPERATIONS[name].default,
            augment.OPERATIONS[name].bounds,
        )


@pytest.mark.parametrize(("kind", "axis"), [("flip", 2), ("vflip", 1)])
def test_flips_are_exact_and_as_frequent_as_asked(kind: str, axis: int, layers: AugmentationLayers) -> None:
    assert np.array_equal(augmented(f"{kind}=1", BATCH, layers), np.flip(BATCH, axis))
    many = np.repeat(PICTURE[None, :4, :4], 1000, axis=0)
    changed = np.any(augmented(f"{kind}=0.2", many, layers) != many, axis=(1, 2, 3))
    assert 0.15 < changed.mean() < 0.25


OUTSIDE = {"fill_mode": "constant", "fill_value": GRAY}


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("rotate=30", lambda make, seed: make.RandomRotation(30 / 360, seed=seed, **OUTSIDE)),
        ("zoom=0.3", lambda make, seed: make.RandomZoom(0.3, seed=seed, **OUTSIDE)),
        ("translate=0.2", lambda make, seed: make.RandomTranslation(0.2, 0.2, seed=seed, **OUTSIDE)),
        ("gray=0.5", lambda make, seed: make.RandomGrayscale(0.5, seed=seed)),
        ("cutout=0.5", lambda make, seed: make.RandomErasing((1, 1), (0.25, 0.25), fill_value=GRAY, seed=seed)),
        ("erasing=0.6", lambda make, seed: make.RandomErasing((0.6, 0.6), seed=seed)),
    ],
)
def test_a_kind_is_the_layer_of_keras(text: str, peer: Callable[..., Any], layers: AugmentationLayers) -> None:
    expected = np.clip(peer(load_keras().layers, drawn(3)[0])(BATCH, training=True), 0, 255)
    assert np.array_equal(augmented(text, BATCH, layers, 3), expected)
    assert not np.array_equal(expected, BATCH)


def test_crop_is_the_rectangle_that_views_draw_at_full_size(layers: AugmentationLayers) -> None:
    boxes, source = [], np.random.default_rng(3)
    for row, cropped in enumerate(augmented("crop=0.3", BATCH, layers, 3)):
        left, top, wide, high = augment.sample_crop_box(50, 40, augment.DeterministicRNG(source.bytes(16)), 300)
        picture = Image.fromarray(np.round(BATCH[row]).astype(np.uint8))
        peer = picture.resize((50, 40), Image.Resampling.BILINEAR, box=(left, top, left + wide, top + high))
        assert np.abs(cropped - np.asarray(peer, np.float32)).max() < 1.6  # two roundings
        boxes.append((left, top, wide, high))
    assert len(set(boxes)) == len(boxes)


def test_blur_is_gaussian_with_another_deviation_for_each_image(layers: AugmentationLayers) -> None:
    for image, found, deviation in zip(
        BATCH, augmented("blur=3", BATCH, layers, 3), np.random.default_rng(3).uniform(0.1, 3, 6), strict=True
    ):
        peer = ndimage.gaussian_filter(image, (deviation, deviation, 0), mode="mirror", truncate=3)
        assert np.abs(found - peer).max() < 0.5


def test_blur_beyond_the_size_of_a_picture_still_works(layers: AugmentationLayers) -> None:
    assert augmented("blur=10", BATCH[:, :8, :6], layers).shape == (6, 8, 6, 3)


def test_colour_is_what_the_layers_of_colour_jitter_do_one_after_the_other(layers: AugmentationLayers) -> None:
    make, (one, two, three, four) = load_keras().layers, drawn(3, 4)
    inside: dict[str, Any] = {"value_range": (0, 1)}
    images = make.RandomBrightness((-0.2, 0.2), seed=one, **inside)(BATCH / np.float32(255))
    images = make.RandomContrast((0.4, 0.4), seed=two, **inside)(images)
    images = make.RandomSaturation((0.6 / 1.6, 1.4 / 2.4), seed=three, **inside)(images)
    images = make.RandomHue((0, 0.2), seed=four, **inside)(images)
    found = augmented("color=0.4", BATCH, layers, 3)
    assert np.allclose(found, np.clip(np.asarray(images) * 255, 0, 255), atol=1e-3)


def test_colour_changes_as_far_as_asked_in_both_directions(layers: AugmentationLayers) -> None:
    grey = augmented("color=0.4", np.full((200, 2, 2, 3), 127.5, np.float32), layers)[:, 0, 0, 0] - 127.5
    assert -51.01 < grey.min() < -45
    assert 45 < grey.max() < 51.01
    faint = np.full((200, 1, 1, 3), (150, 100, 100), np.float32)
    found = augmented("color=0.4", faint, layers)
    saturation = 1 - found.min(axis=-1) / found.max(axis=-1)
    assert saturation.min() < 0.7 / 3
    assert saturation.max() > 1.3 / 3


def test_cutout_takes_one_part_of_the_size_asked(layers: AugmentationLayers) -> None:
    images = np.zeros((8, 40, 60, 3), np.float32)
    for image in augmented("cutout=0.5", images, layers):
        rows, columns = np.nonzero(image[..., 0])
        assert set(np.unique(image)) == {0.0, GRAY}
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 30)
        assert len(rows) == 600


@pytest.mark.parametrize("name", [*Operations.NAMES, "invert"])
@pytest.mark.parametrize("level", [7.0, -7.0])
def test_an_operation_looks_at_no_other_image(name: str, level: float, operations: Callable[..., np.ndarray]) -> None:
    together = operations(BATCH, name, level)
    assert together.dtype == np.float32
    assert together.shape == BATCH.shape
    assert np.array_equal(together, np.concatenate([operations(image[None], name, level) for image in BATCH]))
    assert np.array_equal(together, BATCH) == (name == "identity")


@pytest.mark.parametrize(
    ("name", "level", "peer", "within"),
    [
        ("autocontrast", 0, ImageOps.autocontrast, 1.01),
        ("equalize", 0, ImageOps.equalize, 0),
        ("invert", 0, ImageOps.invert, 0),
        ("posterize", 10, lambda image: ImageOps.posterize(image, 4), 0),
        ("posterize", 5, lambda image: ImageOps.posterize(image, 6), 0),
        ("solarize", 5, lambda image: ImageOps.solarize(image, 128), 0),
        ("solarize", 10, ImageOps.invert, 0),
        ("saturation", 10, lambda image: ImageEnhance.Color(image).enhance(1.9), 2),
        ("saturation", -10, lambda image: ImageEnhance.Color(image).enhance(0.1), 2),
    ],
)
def test_an_operation_is_that_of_pillow(
    name: str, level: float, peer: Callable[..., Image.Image], within: float, operations: Callable[..., np.ndarray]
) -> None:
    found = operations(np.round(BATCH), name, level)
    for image, each in zip(np.round(BATCH).astype(np.uint8), found, strict=True):
        assert np.abs(each - np.asarray(peer(Image.fromarray(image)), np.float32)).max() <= within


def test_sharpening_is_that_of_pillow_inside(operations: Callable[..., np.ndarray]) -> None:
    for level, factor in ((10, 1.9), (-10, 0.1)):
        peer = np.asarray(ImageEnhance.Sharpness(Image.fromarray(PICTURE.astype(np.uint8))).enhance(factor), np.float32)
        found = operations(PICTURE[None], "sharpness", level)[0]
        assert np.abs(found - peer)[1:-1, 1:-1].max() < 2


def test_contrast_and_brightness_have_the_strength_said(operations: Callable[..., np.ndarray]) -> None:
    calm = SMOOTH[None] / 4 + 90
    mean = calm.mean(axis=(1, 2), keepdims=True)
    for level, factor in ((10, 1.9), (-5, 0.55)):
        assert np.allclose(operations(calm, "contrast", level), (calm - mean) * factor + mean, atol=1e-2)
    assert np.allclose(operations(calm, "brightness", 5), np.clip(calm + 0.225 * 255, 0, 255), atol=1e-3)
    assert np.allclose(operations(calm, "brightness", -5), np.clip(calm - 0.225 * 255, 0, 255), atol=1e-3)


def test_geometry_moves_pixels_to_where_it_says(operations: Callable[..., np.ndarray]) -> None:
    ten = 10 * 10 / (0.453 * 50)  # the level of a shift by ten pixels
    right, left = operations(PICTURE[None], "translate_x", ten)[0], operations(PICTURE[None], "translate_x", -ten)[0]
    assert np.allclose(right[:, 11:], PICTURE[:, 1:-10], atol=0.1)
    assert np.allclose(left[:, :-11], PICTURE[:, 10:-1], atol=0.1)
    assert (right[:, :9] == GRAY).all()
    assert (left[:, -9:] == GRAY).all()
    ten = 10 * 10 / (0.453 * 40)
    assert np.allclose(operations(PICTURE[None], "translate_y", ten)[0, 11:], PICTURE[1:-10], atol=0.1)

    rows, columns = Y.astype(float), X.astype(float)
    places = {
        ("shear_x", 10): (rows, columns + 0.3 * rows),
        ("shear_x", -10): (rows, columns - 0.3 * rows),
        ("shear_y", 10): (rows + 0.3 * columns, columns),
    }
    for (name, level), place in places.items():
        inside = (place[0] >= 0) & (place[0] <= 39) & (place[1] >= 0) & (place[1] <= 49)
        peer = np.stack([ndimage.map_coordinates(SMOOTH[..., channel], place, order=1) for channel in range(3)], axis=-1)
        found = operations(SMOOTH[None], name, level)[0]
        assert np.allclose(found[inside], peer[inside], atol=0.05)
        assert np.isin(found[~inside], GRAY).mean() > 0.8  # the others are of the rim

    peer = np.asarray(load_keras().layers.RandomRotation((30 / 360, 30 / 360), **OUTSIDE)(BATCH))
    assert np.array_equal(operations(BATCH, "rotate", 10), peer)
    assert np.allclose(operations(BATCH, "rotate", -10)[:, :, ::-1], operations(BATCH[:, :, ::-1], "rotate", 10), atol=0.5)


def test_a_chain_does_its_operations_one_after_the_other(
    layers: AugmentationLayers, operations: Callable[..., np.ndarray]
) -> None:
    plans = [
        [("rotate", 5.0), ("solarize", 3.0)],
        [("posterize", 9.0)],
        [],
        [("rotate", 5.0), ("equalize", 0.0), ("shear_x", -4.0)],
        [("rotate", -5.0), ("solarize", 3.0)],
        [("identity", 9.0), ("rotate", 5.0)],
    ]
    for image, plan, found in zip(BATCH, plans, layers.operations.apply_chains(tensor(BATCH), plans), strict=True):
        expected = image[None]
        for name, level in plan:
            expected = operations(expected, name, level)
        assert np.array_equal(found, expected[0])


def test_images_without_any_operation_stay_as_they_are(layers: AugmentationLayers) -> None:
    assert np.array_equal(layers.operations.apply_chains(tensor(BATCH), [[] for _ in BATCH]), BATCH)


def test_randaugment_draws_its_count_of_all_operations_with_either_sign() -> None:
    source = np.random.default_rng(0)
    steps = [step for _ in range(500) for step in autoaugment.draw_randaugment(source, 3, 7.0)]
    assert len(steps) == 1500
    assert {name for name, _ in steps} == set(Operations.NAMES)
    assert {level for name, level in steps if name == "rotate"} == {7.0, -7.0}
    assert {level for name, level in steps if name in {"posterize", "solarize"}} == {7.0}


def test_autoaugment_draws_the_published_sub_policies_as_often_as_they_say() -> None:
    assert len(autoaugment.POLICY) == 25
    assert all(len(pair) == 2 for pair in autoaugment.POLICY)
    assert {name for pair in autoaugment.POLICY for name, _, _ in pair} <= {*Operations.NAMES, "invert"}
    assert autoaugment.POLICY[0] == [("posterize", 4, 8), ("rotate", 6, 9)]
    assert autoaugment.POLICY[12] == [("equalize", 0, 0), ("equalize", 8, 0)]
    source = np.random.default_rng(0)
    drawn_steps = [autoaugment.draw_autoaugment(source) for _ in range(20_000)]
    share = sum(tenths for pair in autoaugment.POLICY for _, tenths, _ in pair) / 250
    assert np.isclose(np.mean([len(steps) for steps in drawn_steps]), share, atol=0.02)
    sheared = [level for steps in drawn_steps for name, level in steps if name == "shear_x"]
    assert set(np.round(sheared, 6)) == {round(50 / 9, 6), -round(50 / 9, 6)}
    assert np.isclose(len(sheared) / 20_000, 0.6 / 25, atol=0.01)


def test_augmix_mixes_in_shares_that_sum_to_one(layers: AugmentationLayers) -> None:
    plain = np.full((6, 40, 50, 3), GRAY, np.float32)  # which nothing of this severity changes
    assert np.allclose(augmented("augmix=1", plain, layers), plain, atol=1e-3)
    assert not np.allclose(augmented("augmix=3", BATCH, layers), BATCH, atol=1)


LABELS = np.eye(6, dtype=np.float32)


def mixed(mixes: BatchMixer, images: np.ndarray, layers: AugmentationLayers, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    pair = mixes.apply(tensor(images), tensor(LABELS), layers, np.random.default_rng(seed))
    return np.asarray(pair[0]), np.asarray(pair[1])


def test_mixup_mixes_images_and_labels_in_the_same_shares(layers: AugmentationLayers) -> None:
    images, labels = mixed(BatchMixer(mixup=0.8), BATCH, layers, 3)
    assert np.allclose(labels.sum(axis=1), 1, atol=1e-6)
    assert (labels >= 0).all()
    assert np.allclose(images, np.einsum("ij,jhwc->ihwc", labels, BATCH), atol=1e-3)
    assert len(np.unique(labels.max(axis=1))) > 2


def test_cutmix_gives_each_label_the_share_of_its_area(layers: AugmentationLayers) -> None:
    numbered = np.broadcast_to(np.arange(6, dtype=np.float32)[:, None, None, None], (6, 64, 64, 3))
    cut = 0
    for seed in range(8):
        images, labels = mixed(BatchMixer(cutmix=1.0), numbered, layers, seed)
        areas = np.stack([(images[..., 0] == number).mean(axis=(1, 2)) for number in range(6)], axis=1)
        assert np.allclose(labels.sum(axis=1), 1, atol=1e-6)
        assert np.abs(areas - labels).max() < 2 / 64  # a row and a column
        cut += int(((labels > 0.1) & (labels < 0.9)).any(axis=1).sum())
    assert cut > 8


def test_both_mixes_are_the_layers_of_keras(layers: AugmentationLayers) -> None:
    source = np.random.default_rng(3)
    source.integers(1)  # which of the one that is asked for
    seed, make = int(source.integers(2**31)), load_keras().layers
    for mixes, layer in (
        (BatchMixer(mixup=0.8), make.MixUp(0.8, seed=seed)),
        (BatchMixer(cutmix=0.6), make.CutMix((0.6, 0.6), seed=seed)),
    ):
        peer = layer({"images": BATCH, "labels": LABELS})
        images, labels = mixed(mixes, BATCH, layers, 3)
        assert np.array_equal(images, peer["images"])
        assert np.array_equal(labels, peer["labels"])


def test_of_both_a_batch_gets_one(layers: AugmentationLayers) -> None:
    mixes, images = BatchMixer(mixup=0.8, cutmix=0.8), np.broadcast_to(LABELS.argmax(1)[:, None, None, None], (6, 16, 16, 3))
    whole = [np.all(np.ptp(mixed(mixes, images, layers, seed)[0], axis=(1, 2, 3)) == 0) for seed in range(16)]
    assert 3 < sum(whole) < 13  # mixing evenly leaves plain images plain


@pytest.mark.parametrize("alphas", [{"mixup": 1.5}, {"cutmix": -0.1}, {"mixup": float("nan")}])
def test_an_alpha_beyond_the_bounds_of_keras_is_refused(alphas: dict[str, float]) -> None:
    with pytest.raises(DataError, match=r"--(mixup|cutmix) .*: out of range; give alpha from 0"):
        BatchMixer(**alphas)


def test_without_alphas_there_is_no_mix() -> None:
    assert not BatchMixer()
    assert BatchMixer(mixup=0.1)
    assert BatchMixer(cutmix=0.1)
