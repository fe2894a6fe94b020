"""Views: what each operation does, and that the pixels depend only on the policy, the image and the number of the view."""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from humeris.cache.errors import DataError, HumerisError
from humeris.extract.pixels import image_ops
from humeris.extract.pixels.augment import OPERATIONS, DeterministicRNG, Policy, sample_crop_box

DIGEST = hashlib.sha256(b"an image").digest()
Y, X = np.mgrid[0:45, 0:64]
PICTURE = np.stack([X * 4 % 256, (Y * 5 + X) % 256, (X * Y) % 251], axis=-1).astype(np.uint8)
ALL = ",".join(OPERATIONS)

# Sha-256 of views 1 to 8 of PICTURE. A change here changes the features of every cached view: raise VERSION too.
GOLDEN = {
    "flip": "b5492ef45a43610339fd030391c561c3",
    "vflip": "04b27e8e12b8b2c34f1405eb17c99f65",
    "crop": "a227fa1eb7cbf3cb177baa1c005fc652",
    "rotate": "864b977c0e880574697e3023ed5fd25b",
    "randaugment": "816a032ce49d3794c66ee771c6ba2bc1",
    "trivialaugment": "3625477acf0bb8ee1205ba516d7a1379",
    "color": "d267fe3fac6e8b588c53fb5cade2f25c",
    "gray": "90eda6230f4208f89afa8227c747994c",
    "blur": "b5fae1e9c0864e6771b55092b2cd864d",
    "cutout": "75786d965f389a86e21e2e602e6d4e14",
    "flip=1": "1e5a210f636391c2136aa541977f064d",
    "gray=1": "0ef1f4739c1aa3f10126b1c424c39061",
    "vflip=1": "fb9470b20287682f451e88b47ffe1006",
    "randaugment=14x10": "ba6ac790060a7e59f4ab2db0cb143126",
    "flip,crop,color,cutout": "5c1a8cc800197e52eded13278ef76950",
}


def views(text: str, count: int, pixels: np.ndarray = PICTURE) -> list[np.ndarray]:
    policy = Policy.parse(text)
    return [policy.make_view(pixels, DIGEST, number) for number in range(1, count + 1)]


def fingerprint(text: str) -> str:
    return hashlib.sha256(b"".join(view.tobytes() for view in views(text, 8))).hexdigest()[:32]


@pytest.mark.parametrize("text", GOLDEN)
def test_the_bytes_of_a_view_are_the_same_for_ever(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("humeris.extract.pixels.augment.features.version", lambda _: "13.0.0")
    assert fingerprint(text) == GOLDEN[text]


def test_every_operation_is_pinned() -> None:
    assert {name for text in GOLDEN for name, _ in Policy.parse(text).operations} == set(OPERATIONS)


def test_order_threads_and_other_images_make_no_difference() -> None:
    policy = Policy.parse(ALL)
    expected = [policy.make_view(PICTURE, DIGEST, number) for number in range(1, 25)]
    policy.make_view(255 - PICTURE, b"\1" * 32, 7)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: Policy.parse(ALL).make_view(PICTURE, DIGEST, number), range(24, 0, -1)))
    assert all(np.array_equal(first, second) for first, second in zip(expected, reversed(found), strict=True))


def test_views_of_other_numbers_digests_and_policies_differ() -> None:
    policy = Policy.parse("crop,color")
    seen = {policy.make_view(PICTURE, DIGEST, number).tobytes() for number in range(1, 31)}
    seen |= {policy.make_view(PICTURE, bytes([number]) * 32, 1).tobytes() for number in range(30)}
    seen |= {Policy.parse(f"crop=0.{number},color").make_view(PICTURE, DIGEST, 1).tobytes() for number in range(30, 40)}
    assert len(seen) == 70


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 2), (3, 3), (31, 17)])
def test_a_view_has_the_shape_of_its_image(name: str, shape: tuple[int, int]) -> None:
    pixels = np.resize(PICTURE, (*shape, 3))
    before = pixels.copy()
    for view in views(name, 12, pixels):
        assert (view.shape, view.dtype, view.flags.c_contiguous) == ((*shape, 3), np.uint8, True)
        assert not np.shares_memory(view, pixels)
    assert np.array_equal(pixels, before)


def test_a_read_only_image_can_be_viewed() -> None:
    frozen = np.asarray(Image.fromarray(PICTURE))
    assert not frozen.flags.writeable
    assert len(views(ALL, 20, frozen)) == 20


def test_the_plain_image_is_no_view() -> None:
    with pytest.raises(ValueError, match="view 0 is the plain image"):
        Policy.parse("flip").make_view(PICTURE, DIGEST, 0)


def test_flips_mirror_in_half_of_the_views() -> None:
    for name, mirrored in (("flip", PICTURE[:, ::-1]), ("vflip", PICTURE[::-1])):
        assert np.array_equal(views(f"{name}=1", 1)[0], mirrored)
        flipped = [np.array_equal(view, mirrored) for view in views(name, 1000)]
        assert 440 < sum(flipped) < 560
        assert all(
            np.array_equal(view, mirrored if done else PICTURE)
            for view, done in zip(views(name, 50), flipped[:50], strict=True)
        )


def test_crops_keep_to_their_ranges() -> None:
    areas, ratios = [], []
    draws = DeterministicRNG(b"crops")
    for _ in range(1000):
        left, top, width, height = sample_crop_box(600, 600, draws, 250)
        assert 0 <= left <= 600 - width
        assert 0 <= top <= 600 - height
        areas.append(width * height / (600 * 600))
        ratios.append(width / height)
    assert (min(areas), max(areas)) == (pytest.approx(0.25, abs=0.01), pytest.approx(0.97, abs=0.03))
    assert (min(ratios), max(ratios)) == (pytest.approx(3 / 4, abs=0.01), pytest.approx(4 / 3, abs=0.01))
    assert abs(np.median(np.log(ratios))) < 0.05


def test_a_crop_of_a_sliver_is_the_largest_in_its_middle() -> None:
    assert sample_crop_box(300, 2, DeterministicRNG(b""), 1000) == (149, 0, 2, 2)
    assert sample_crop_box(2, 300, DeterministicRNG(b""), 1000) == (0, 149, 2, 2)


def test_a_crop_is_the_rectangle_resized() -> None:
    expected = Image.fromarray(PICTURE).crop((10, 5, 40, 25)).resize((64, 45), Image.Resampling.BILINEAR)
    assert np.array_equal(image_ops.crop(PICTURE, 10, 5, 30, 20), np.asarray(expected))


@pytest.mark.parametrize("name", ["crop", "blur"])
def test_a_picture_of_one_colour_stays_so(name: str) -> None:
    plain = np.full((45, 64, 3), (7, 130, 255), np.uint8)
    assert all(np.array_equal(view, plain) for view in views(name, 50, plain))


def test_color_only_moves_a_picture_of_one_colour_to_another() -> None:
    for view in views("color", 50, np.full((45, 64, 3), (70, 130, 200), np.uint8)):
        assert len(np.unique(view.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize(("angle", "turned"), [(90_000, 1), (-90_000, -1), (180_000, 2), (0, 0), (360_000, 4)])
def test_a_right_angle_moves_pixels_exactly(angle: int, turned: int) -> None:
    square = PICTURE[:, :45]
    assert np.array_equal(image_ops.rotate(square, angle), np.rot90(square, turned))


@pytest.mark.parametrize("angle", [7_000, -30_000, 135_000])
def test_a_rotation_is_that_of_pillow(angle: int) -> None:
    smooth = np.asarray(Image.fromarray(PICTURE).filter(ImageFilter.GaussianBlur(3)))
    ours = image_ops.rotate(smooth, angle).astype(int)
    theirs = Image.fromarray(smooth).rotate(angle / 1000, Image.Resampling.BILINEAR, fillcolor=image_ops.FILL)
    inside = (X - 31.5) ** 2 + (Y - 22) ** 2 < 21**2
    assert np.abs(ours - np.asarray(theirs).astype(int))[inside].max() <= 2
    corners = image_ops.rotate(np.zeros((45, 64, 3), np.uint8), 45_000)[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == image_ops.FILL).all()


def test_rotations_keep_to_the_angle() -> None:
    line = np.zeros((201, 201, 3), np.uint8)
    line[100] = 255
    angles = []
    for view in views("rotate=15", 60, line):
        y, x = np.nonzero(view[..., 0] > 160)
        angles.append(math.degrees(math.atan(-np.polyfit(x, y, 1)[0])))
    assert -15.3 < min(angles) < -11
    assert 11 < max(angles) < 15.3


def test_a_shear_slants_and_a_shift_shifts() -> None:
    line = np.zeros((101, 101, 3), np.uint8)
    line[:, 50] = 255
    rows, columns = np.nonzero(image_ops.shear_x(line, 300)[..., 0] > 140)
    assert np.polyfit(rows, columns, 1)[0] == pytest.approx(-0.3, abs=0.01)
    assert np.array_equal(image_ops.shear_y(line.transpose(1, 0, 2), 300), image_ops.shear_x(line, 300).transpose(1, 0, 2))
    shifted = image_ops.translate(PICTURE, 5, -3)
    assert np.array_equal(shifted[:-3, 5:], PICTURE[3:, :-5])
    assert (shifted[-3:] == image_ops.FILL).all()
    assert (shifted[:, :5] == image_ops.FILL).all()
    assert (image_ops.translate(PICTURE, 64, 0) == image_ops.translate(PICTURE, 0, -90)).all()


def test_enhancements_are_those_of_pillow() -> None:
    image = Image.fromarray(PICTURE)
    for factor in (0, 100, 600, 1000, 1400, 1900):
        for ours, theirs in (
            (image_ops.adjust_brightness, ImageEnhance.Brightness),
            (image_ops.adjust_contrast, ImageEnhance.Contrast),
            (image_ops.adjust_saturation, ImageEnhance.Color),
            (image_ops.adjust_sharpness, ImageEnhance.Sharpness),
        ):
            expected = np.asarray(theirs(image).enhance(factor / 1000)).astype(int)
            assert np.abs(ours(PICTURE, factor).astype(int) - expected).max() <= 1 + (factor > 1000)


def test_tone_operations_are_those_of_pillow() -> None:
    image = Image.fromarray(PICTURE // 2 + 20)
    pixels = np.asarray(image)
    assert np.array_equal(image_ops.equalize(pixels), np.asarray(ImageOps.equalize(image)))
    assert np.abs(image_ops.autocontrast(pixels).astype(int) - np.asarray(ImageOps.autocontrast(image))).max() <= 1
    assert image_ops.autocontrast(pixels).max() == 255
    washed_out = np.maximum(PICTURE, 150) | np.uint8(85)
    assert np.array_equal(image_ops.equalize(washed_out), np.asarray(ImageOps.equalize(Image.fromarray(washed_out))))
    for bits in range(1, 9):
        assert np.array_equal(image_ops.posterize(pixels, bits), np.asarray(ImageOps.posterize(image, bits)))
    for threshold in (0, 26, 128, 256):
        assert np.array_equal(image_ops.solarize(pixels, threshold), np.asarray(ImageOps.solarize(image, threshold)))
    assert np.array_equal(image_ops.to_grayscale(pixels), np.asarray(image.convert("L").convert("RGB")))


def test_gray_has_equal_channels_in_a_fifth_of_the_views() -> None:
    done = [bool((view == view[..., :1]).all()) for view in views("gray", 1000)]
    assert 160 < sum(done) < 240
    assert all((view == view[..., :1]).all() for view in views("gray=1", 3))


def test_a_hue_goes_round() -> None:
    primary = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90], [200, 100, 50]]], np.uint8)
    assert image_ops.adjust_hue(primary, 0).tolist() == primary.tolist()
    third = [[0, 254, 0], [0, 0, 254], [254, 0, 0]]
    assert np.abs(image_ops.adjust_hue(primary, 333)[0, :3].astype(int) - third).max() <= 2
    assert image_ops.adjust_hue(primary, 500)[0, :4].tolist() == [[0, 255, 255], [255, 0, 255], [255, 255, 0], [90, 90, 90]]
    assert np.array_equal(image_ops.adjust_hue(PICTURE, 0), PICTURE)
    turned = image_ops.adjust_hue(PICTURE, -77)
    assert np.array_equal(turned.max(axis=-1), PICTURE.max(axis=-1))
    assert np.array_equal(turned.min(axis=-1), PICTURE.min(axis=-1))


def test_color_keeps_to_its_range() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    levels = [int(view[0, 0, 0]) for view in views("color=0.4", 1000, grey)]
    assert 60 <= min(levels) <= 62
    assert 138 <= max(levels) <= 140


@pytest.mark.parametrize("sigma", [500, 1500, 2000, 6000])
def test_a_blur_is_gaussian(sigma: int) -> None:
    dot = np.zeros((61, 61, 3), np.uint8)
    dot[30, 30:32] = 255
    weights = np.exp(-((np.arange(61) - 30.0) ** 2) / (2 * (sigma / 1000) ** 2))
    weights /= weights.sum()
    expected = 255 * np.outer(weights, weights + np.roll(weights, 1))
    assert np.abs(image_ops.blur(dot, sigma)[..., 1] - expected).max() < 1.6


def test_cutout_covers_its_square() -> None:
    black = np.zeros((80, 80, 3), np.uint8)
    areas = []
    for view in views("cutout=0.5", 1000, black):
        rows, columns = np.nonzero((view == image_ops.FILL).all(axis=-1))
        areas.append(len(rows))
        assert len(rows) == np.ptp(rows) * np.ptp(columns) + np.ptp(rows) + np.ptp(columns) + 1
        assert (view != 0).any(axis=-1).sum() == len(rows)
    assert max(areas) == 40 * 40
    assert 20 * 20 <= min(areas) < 25 * 25


def test_randaugment_makes_all_of_its_fourteen_pictures() -> None:
    pictures = {view.tobytes() for view in views("randaugment=1x9", 400)}
    assert len(pictures) == 4 + 2 * 9 + 1  # nine of the operations have a sign; one leaves the picture as it is
    assert {view.tobytes() for view in views("randaugment=1x0", 100)} == {
        pixels.tobytes() for pixels in (PICTURE, image_ops.autocontrast(PICTURE), image_ops.equalize(PICTURE))
    }
    assert image_ops.rotate(PICTURE, 27_000).tobytes() in pictures
    assert image_ops.translate(PICTURE, 26, 0).tobytes() in pictures
    assert image_ops.posterize(PICTURE, 4).tobytes() in pictures
    assert image_ops.adjust_contrast(PICTURE, 1810).tobytes() in pictures


def test_trivialaugment_draws_its_magnitude() -> None:
    pictures = {view.tobytes() for view in views("trivialaugment", 400)}
    assert len(pictures) > 150
    assert image_ops.autocontrast(PICTURE).tobytes() in pictures


def test_rounding_is_never_close() -> None:
    """Sines, exponentials and powers may differ in their last bit between machines: no rounded value may depend on it."""

    def doubt(value: float) -> float:
        return abs(value % 1 - 0.5)

    turns = [math.radians(angle / 1000) for angle in range(90_001)]
    assert min(doubt(65536 * math.sin(turn)) for turn in turns) > 1e-7
    assert min(doubt(65536 * math.cos(turn)) for turn in turns) > 1e-7
    assert min(doubt(65536 * (4 / 3) ** (power / 1000)) for power in range(-1000, 1001)) > 1e-7
    nearest = 1.0
    for sigma in range(100, 10_001):
        away = np.arange(1, -(-3 * sigma // 1000) + 1)
        nearest = min(nearest, float(np.abs(65536 * np.exp(-((1000 * away / sigma) ** 2) / 2) % 1 - 0.5).min()))
    assert nearest > 1e-7


def test_draws_are_uniform() -> None:
    draws = DeterministicRNG(b"seed")
    counts = np.bincount([draws.randint(3, 9) for _ in range(7000)], minlength=10)
    assert counts[:3].sum() == 0
    assert (abs(counts[3:] - 1000) < 130).all()
    orders = {tuple(draws.permutation(3)) for _ in range(100)}
    assert len(orders) == 6
    assert [draws.randint(5, 5) for _ in range(3)] == [5, 5, 5]


def test_a_version_writes_everything_out() -> None:
    policy = Policy.parse(" cutout , FLIP,crop=0.50,randaugment=2x9,trivialaugment")
    assert str(policy) == "flip=0.5,crop=0.5,randaugment=2x9,trivialaugment,cutout=0.5"
    assert policy.version.startswith("1: flip=0.5, crop=0.5, randaugment=2x9, trivialaugment, cutout=0.5; Pillow ")
    assert Policy.parse(str(policy)) == policy
    assert Policy.parse("color=0.25,flip").version == "1: flip=0.5, color=0.25"


def test_another_pillow_is_another_version_where_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Policy.parse("crop").version, Policy.parse("color").version
    monkeypatch.setattr("humeris.extract.pixels.augment.features.version", lambda _: "99.1.0")
    assert Policy.parse("crop").version != before[0]
    assert Policy.parse("color").version == before[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flp", "augmentation 'flp': unknown operation; use one of flip, vflip, crop, .*; closest: flip"),
        ("", "augmentation '': the operation has no name; leave it out or use one of flip, .*; closest: "),
        ("flip,", "augmentation '': the operation has no name; leave it out or use one of"),
        ("flip,flip=1", "augmentation 'flip,flip=1': flip is given twice; give each operation once"),
        (
            "crop=2",
            "augmentation crop: invalid strength '2'; give the least share of the area .* 0.01 to 1, as in crop=0.25",
        ),
        ("crop=", "augmentation crop: invalid strength ''; give the least share"),
        ("crop=-0.5", "augmentation crop: invalid strength '-0.5'; give"),
        ("crop=nan", "augmentation crop: invalid strength 'nan'; give"),
        ("crop=1e-1", "augmentation crop: invalid strength '1e-1'; give"),
        ("crop=0.5x0.5", "augmentation crop: invalid strength '0.5x0.5'; give"),
        ("crop=0.1234", "augmentation crop: invalid strength '0.1234'; give"),
        ("flip=0", "augmentation flip: invalid strength '0'; give the probability .* above 0 up to 1"),
        ("randaugment=9", "augmentation randaugment: invalid strength '9'; give COUNTxLEVEL, .* as in randaugment=2x9"),
        ("randaugment=2x11", "augmentation randaugment: invalid strength '2x11'; give COUNTxLEVEL"),
        ("randaugment=1.5x9", "augmentation randaugment: invalid strength '1.5x9'; give COUNTxLEVEL"),
        ("randaugment=2x9x1", "augmentation randaugment: invalid strength '2x9x1'; give COUNTxLEVEL"),
        ("trivialaugment=3", "augmentation trivialaugment: takes no strength, but '3' is given; leave it out"),
        ("trivialaugment=", "augmentation trivialaugment: takes no strength, but '' is given"),
        ("blur=1\n2", r"augmentation blur: invalid strength '1\\n2'; give"),
        ("fl\x1b[2Jip", r"augmentation 'fl\\x1b\[2jip': unknown operation; use one of"),
    ],
)
def test_a_policy_that_cannot_be_is_explained_in_a_line(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Policy.parse(text)
    assert isinstance(caught.value, HumerisError)
    assert str(caught.value).isprintable()
