"""Images in arrays: each row has one outcome, a digest, and the same pixels as the equal image in a file."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from humeris.cache.errors import DataError
from humeris.cache.store import Store
from humeris.extract import memory
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.images.images import Images
from humeris.extract.images.load import load_images
from humeris.extract.images.registry import detect, reopen_source
from humeris.extract.pixels import decode, read_file, tiff

SIDE = 12


def drawn(count: int, seed: int = 0, shape: tuple[int, ...] = (SIDE, SIDE, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def listed(path: Path) -> list[tuple[str, str | None, str | None]]:
    return [(item.name, item.label, item.split) for item in detect(path).items]


def load(path: Path | str, **options: Any) -> Images:
    with Store(write=True) as store:
        return load_images(path, store, jobs=2, **options)


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("x", "y"), None),
        (("images", "labels"), None),
        (("x_train", "y_train"), "train"),
        (("X_val", "Y_val"), "val"),
        (("x_valid", "y_valid"), "val"),
        (("x_test", "y_test"), "test"),
        (("test_images", "test_labels"), "test"),
    ],
)
def test_arrays_under_every_usual_name(names: tuple[str, str], split: str | None, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **{names[0]: drawn(2), names[1]: np.array([1, 0]), "other": np.zeros(3)})
    dataset = detect(tmp_path / "d.npz")
    assert (dataset.source.describe()["kind"], dataset.title) == ("arrays", "d.npz")
    assert listed(tmp_path / "d.npz") == [(f"{names[0]}/00000", "1", split), (f"{names[0]}/00001", "0", split)]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_row_is_an_image_with_exactly_its_samples(shape: tuple[int, ...], compressed: bool, tmp_path: Path) -> None:
    images = drawn(3, shape=shape)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "d.npz", x=images, y=np.arange(3))
    dataset = detect(tmp_path / "d.npz")
    source = dataset.source
    for row, item in enumerate(dataset.items):
        assert source.fetch(item) == source.read(item)
        assert source.root == tmp_path / "d.npz"
        with Image.open(io.BytesIO(source.read(item))) as image:
            assert np.array_equal(np.asarray(image), images[row].squeeze())
        decoded = decode.decode(source.read(item), (5, 7))
        flat = images[row].reshape(5, 7, -1)
        assert decoded.shape == (5, 7, 3)
        if flat.shape[2] < 4:
            assert np.array_equal(decoded, np.broadcast_to(flat, (5, 7, 3)))
        else:
            white = flat[..., :3] * (flat[..., 3:] / 255) + 255 - flat[..., 3:]
            assert np.abs(decoded - white).max() <= 1.01


def test_a_row_has_the_pixels_of_the_same_image_in_a_file(tmp_path: Path) -> None:
    image = drawn(1, shape=(40, 52, 3))[0]
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    row = tiff.build_header(40, 52, 3) + image.tobytes()
    assert np.array_equal(decode.decode(row, (17, 23)), decode.decode(buffer.getvalue(), (17, 23)))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array([3, 0, 12]), ["3", "0", "12"]),
        (np.array([[3], [0], [12]], np.uint8), ["3", "0", "12"]),
        (np.array([1.0, 0.0, np.nan]), ["1", "0", None]),
        (np.array([True, False, True]), ["1", "0", "1"]),
        (np.array(["cat", " dog ", ""]), ["cat", "dog", None]),
        (np.array(["cat", "nan", "\ud800"]), ["cat", "nan", "\\ud800"]),
        (np.array([b"cat", b"k\xe4se", b"x"]), ["cat", "k\udce4se", "x"]),
        (np.eye(3, 4), ["0", "1", "2"]),
        (np.array([[1, 0], [1, 1], [0, 0]]), ["0", None, None]),
        (np.array([[0.0, 1.0], [0.5, 0.0], [np.nan, 0.0]]), ["1", None, None]),
    ],
)
def test_labels_are_numbers_names_or_one_hot(labels: np.ndarray, names: list[str | None], tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=drawn(3), y=labels)
    dataset = detect(tmp_path / "d.npz")
    found = {item.name: item.label for item in dataset.items}
    assert [found.get(f"x/{row:05}") for row in range(3)] == names
    assert {each.name: each.reason for each in dataset.rejections} == {
        f"x/{row:05}": "no_label" for row, name in enumerate(names) if name is None
    }


@pytest.mark.parametrize("labels", [np.array([0, 1, 2, -1]), np.eye(4, 3)[[0, 1, 2, 3]], np.array([0.0, 1.0, 2.0, 3.0])])
@pytest.mark.parametrize("name", ["classes", "class_names"])
def test_class_names_name_the_numbers_and_a_number_without_a_name_is_refused(
    name: str, labels: np.ndarray, tmp_path: Path
) -> None:
    np.savez(tmp_path / "d.npz", x=drawn(4), y=labels, **{name: np.array(["ant", "bee", "cat"])})
    dataset = detect(tmp_path / "d.npz")
    assert [item.label for item in dataset.items] == ["ant", "bee", "cat"]
    assert [each.name for each in dataset.rejections] == ["x/00003"]


class Danger:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": drawn(2).astype(np.float32), "y": np.arange(2)}, "x: pixels are float32; convert them to uint8, 0 to 255"),
        ({"x": drawn(2, shape=(3, 5, 5)), "y": np.arange(2)}, "1, 3 or 4 channels"),
        ({"x": drawn(2, shape=(25,)), "y": np.arange(2)}, "is not supported; give images as"),
        ({"x": drawn(2, shape=(0, 4)), "y": np.arange(2)}, "x: images are 0 x 4 pixels; give images of 1 to"),
        ({"x": drawn(0), "y": np.arange(0)}, "no images; give"),
        ({"x": drawn(2), "y": np.arange(3)}, "x has 2 images but 3 labels"),
        ({"x": drawn(2), "y": np.float64(3)}, r"labels of x: float64 \(\) is not supported; give class numbers or names"),
        ({"x": drawn(2), "y": np.zeros((2, 2, 2))}, "give class numbers or names"),
        ({"x": drawn(2), "y": np.array([0.5, 1])}, "labels of x: 0.5 is not a class number"),
        ({"x": drawn(2), "y": np.array([1j, 2])}, "give class numbers or names"),
        ({"x": drawn(2), "z": np.arange(2)}, r"no labels y for x \(arrays: x, z\); add them"),
        ({"a": drawn(2)}, r"no images and labels \(arrays: a\); name the arrays x_train"),
        ({"x": drawn(2), "y": np.array([np.nan, np.nan])}, "no images: 2 rejected .2 no_label, such as x/00000: row 0"),
        ({"x": drawn(2), "y": np.array(["a", "b"], object)}, "holds pickled Python objects"),
        ({"x": np.array([Danger(), 1], object), "y": np.arange(2)}, "holds pickled Python objects"),
        ({"x": drawn(2), "y": np.arange(2), "classes": np.eye(2)}, r"class names are float64 \(2, 2\); give text"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_one_line(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=said) as caught:
        detect(tmp_path / "d.npz")
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()


def test_an_array_that_says_it_is_larger_than_it_is_is_not_believed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 100, 100)})
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", buffer.getvalue() + bytes(100))
        archive.writestr("y.npy", buffer.getvalue() + bytes(100))
    with pytest.raises(DataError, match="fewer bytes than its shape"):
        detect(tmp_path / "d.npz")


def test_arrays_that_need_more_memory_than_there_is_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "d.npz", x=drawn(2), y=np.arange(2))
    monkeypatch.setattr(memory, "get_available_bytes", lambda: 100)
    dataset = detect(tmp_path / "d.npz")
    with pytest.raises(decode.ImageRejected, match=r"needs 864 bytes of memory, 100 are available"):
        dataset.source.read(dataset.items[0])


def test_a_damaged_file_is_one_line_or_refuses_its_rows(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "good.npz", x=drawn(4), y=np.arange(4), classes=np.array(list("abcd")))
    good = (tmp_path / "good.npz").read_bytes()
    random = np.random.default_rng(0)
    for number in range(200):
        changed = bytearray(good)
        if number % 2:
            changed[random.integers(len(good))] ^= 1 << random.integers(8)
        else:
            del changed[random.integers(len(good)) :]
        (tmp_path / "d.npz").write_bytes(changed)
        try:
            dataset = detect(tmp_path / "d.npz")
            read = [dataset.source.read(item) for item in dataset.items]
        except (DataError, decode.ImageRejected) as error:
            read, said = [], str(error)
            assert "\n" not in said
        assert len(read) in {0, 4}


@pytest.mark.parametrize("data", [b"", b"PK", b"\x93NUMPY", b"text", bytes(1000)])
def test_a_file_of_another_kind_is_one_line(data: bytes, tmp_path: Path, humeris: Callable[..., Any]) -> None:
    (tmp_path / "d.npz").write_bytes(data)
    result = humeris("extract", tmp_path / "d.npz", "-b", "nano")
    assert result.code == 2
    assert "d.npz: cannot be read as an .npz file: " in result.err
    assert result.err.count("\n") == 1


def test_equal_rows_are_duplicates_and_never_straddle_splits(tmp_path: Path) -> None:
    train, test = drawn(4), drawn(3, seed=1)
    train[3] = test[0]
    train[2] = train[0]
    np.savez(tmp_path / "d.npz", x_train=train, y_train=np.array([0, 1, 0, 1]), x_test=test, y_test=np.array([1, 0, 1]))
    images = load(tmp_path / "d.npz")
    assert {each.name: (each.original, each.across) for each in images.duplicates} == {
        "x_train/00002": ("x_train/00000", False),
        "x_train/00003": ("x_test/00000", True),
    }
    assert len({image.digest for image in images.used}) == len(images.used) == 5
    assert images.summarize()["formats"] == {"array": 5}
    for image in images.used:
        assert read_file.compute_digest(images.source.read(image.item)) == image.digest


def test_rows_whose_file_did_not_change_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from humeris.cache.file_stamp import FileStamp
    from humeris.extract.images.image_arrays import LazyImageArray

    monkeypatch.setattr(FileStamp, "is_stable", lambda *_: True)
    np.savez(tmp_path / "d.npz", x=drawn(6), y=np.arange(6) % 2)
    first = load(tmp_path / "d.npz")
    with monkeypatch.context() as patch:
        patch.setattr(LazyImageArray, "encode", lambda *_: pytest.fail("read again"))
        again = load(tmp_path / "d.npz")
    assert [(image.name, image.digest, image.format) for image in again.used] == [
        (image.name, image.digest, image.format) for image in first.used
    ]
    changed = drawn(6)
    changed[2, 0, 0, 0] ^= 1
    np.savez(tmp_path / "d.npz", x=changed, y=np.arange(6) % 2)
    later = load(tmp_path / "d.npz")
    differ = [a.digest != b.digest for a, b in zip(first.used, later.used, strict=True)]
    assert differ == [False, False, True, False, False, False]


def test_the_limit_is_per_class_and_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x_train=drawn(8), y_train=np.arange(8) % 2, x_test=drawn(4, 1), y_test=np.arange(4) % 2)
    assert len(load(tmp_path / "d.npz", limit=2).used) == 8


def test_an_image_is_found_again_from_what_a_run_wrote_down(tmp_path: Path, photos: Path) -> None:
    np.savez(tmp_path / "d.npz", x=drawn(3), y=np.arange(3))
    for data in (tmp_path / "d.npz", photos):
        images = load(data)
        source = reopen_source(images.summarize())
        for image in images.used:
            assert read_file.compute_digest(source.read(source.get_item(image.name))) == image.digest
        with pytest.raises(decode.ImageRejected):
            source.read(source.get_item("x/99999"))


def separable(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Horizontal stripes, vertical stripes and noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    wave = np.sin(np.arange(48) / random.uniform(1.5, 2.5, (count, 1)) + random.uniform(0, 6, (count, 1)))
    rows, columns = np.broadcast_to(wave[:, :, None], (count, 48, 48)), np.broadcast_to(wave[:, None], (count, 48, 48))
    noise = random.uniform(-1, 1, (count, 48, 48))
    grey = np.select([labels[:, None, None] == 0, labels[:, None, None] == 1], [rows, columns], noise)
    return (127 + 100 * grey + random.normal(0, 5, (count, 48, 48))).astype(np.uint8), labels


def test_an_npz_goes_all_the_way_to_a_model_that_was_checked(tmp_path: Path, humeris: Callable[..., Any]) -> None:
    x_train, y_train = separable(36, 0)
    x_test, y_test = separable(15, 1)
    np.savez(
        tmp_path / "d.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test,
        classes=np.array(["rows", "columns", "noise"]),
    )  # fmt: skip
    ran = humeris("run", tmp_path / "d.npz", "-b", "nano", "-l", "block5_out", "--head", "logreg,C=1", "-j", "1", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["data"]["kind"] == "arrays"
    assert ran.json["test"]["accuracy"] > 0.7
    assert ran.json["exported"]["parity"]["images"] == 16  # 15 to test on, and one more
    assert Path(ran.json["run"]).name.startswith("d.npz-")
    again = humeris("extract", tmp_path / "d.npz", "-b", "nano", "-l", "block5_out", "--json")
    assert again.json["extracted"][0]["computed"] == 0
    np.savez(tmp_path / "d.npz", x_train=x_train, y_train=y_train, x_test=255 - x_test, y_test=y_test)
    failed = humeris("export", ran.json["run"], "-o", "model.keras")
    assert failed.code == 2
    assert "cannot read an image that the export needs" in failed.err
    assert not Path("model.keras").exists()


def write_fashion(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write 45 images in the four files that Keras's `fashion_mnist` reads, which it does not verify by digest."""
    images, labels = separable(45, 3)
    images = images[:, 10:38, 10:38]
    (folder / "datasets" / "fashion-mnist").mkdir(parents=True)
    for part, rows in (("train", slice(0, 33)), ("t10k", slice(33, 45))):
        for name, header, values in (
            ("labels-idx1", struct.pack(">II", 2049, len(labels[rows])), labels[rows].astype(np.uint8)),
            ("images-idx3", struct.pack(">IIII", 2051, len(labels[rows]), 28, 28), images[rows]),
        ):
            with gzip.open(folder / "datasets" / "fashion-mnist" / f"{part}-{name}-ubyte.gz", "wb") as file:
                file.write(header + values.tobytes())
    return images, labels


@pytest.fixture
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give Keras, which reads its home on import, a home in the test's folder."""
    load_keras()
    from keras.src.backend import config

    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path / "keras"))
    (tmp_path / "keras").mkdir(exist_ok=True)
    return tmp_path / "keras"


def test_a_data_set_of_keras_is_read_by_keras_itself(keras_home: Path) -> None:
    images, labels = write_fashion(keras_home)
    dataset = detect("keras.datasets.fashion_mnist")
    assert (dataset.source.describe()["kind"], dataset.title) == ("keras", "keras.datasets.fashion_mnist")
    assert [item.split for item in dataset.items] == ["train"] * 33 + ["test"] * 12
    names = ["T-shirt/top", "Trouser", "Pullover"]
    assert [item.label for item in dataset.items] == [names[label] for label in labels]
    assert dataset.items[33].name == "x_test/00000"
    for row in (0, 32, 33, 44):
        assert np.array_equal(decode.decode(dataset.source.read(dataset.items[row]), (28, 28))[..., 0], images[row])


def test_a_data_set_of_keras_is_found_again_without_keras(keras_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from humeris.cache.file_stamp import FileStamp

    write_fashion(keras_home)
    with monkeypatch.context() as patch:
        patch.setattr(FileStamp, "is_stable", lambda *_: True)
        first = load("keras.datasets.fashion_mnist")
    code = (
        "import sys\nfrom humeris.cache.store import Store\nfrom humeris.extract.images.load import load_images\n"
        "images = load_images('keras.datasets.fashion_mnist', Store())\n"
        "print(images.keys.tobytes().hex(), 'keras' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [first.keys.tobytes().hex(), "False"]
    os.utime(keras_home / "datasets/fashion-mnist/t10k-labels-idx1-ubyte.gz", (1, 1))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [first.keys.tobytes().hex(), "True"]


@pytest.mark.parametrize(
    ("name", "file", "url"),
    [
        ("mnist", "mnist.npz", "mnist.npz"),
        ("cifar10", "cifar-10-batches-py-target_archive", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python-target_archive", "cifar-100-python.tar.gz"),
        ("fashion_mnist", "train-labels-idx1-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    ],
)
def test_without_a_network_the_error_names_the_file_and_where_to_put_it(
    name: str, file: str, url: str, keras_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.error

    from keras.src.utils import file_utils

    asked = []

    def unreachable(origin: str, target: str, *_: Any) -> None:
        asked.append((origin, target))
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(file_utils, "urlretrieve", unreachable)
    with pytest.raises(DataError) as caught:
        detect(f"keras.datasets.{name}")
    assert "\n" not in str(caught.value)
    ((origin, target),) = asked
    assert origin.endswith(url)
    assert Path(target).name == file
    assert f"{file} is missing or corrupt in {Path(target).parent}, and cannot be downloaded; " in str(caught.value)
    assert f"download {origin} on another machine" in str(caught.value)


def test_a_data_set_that_keras_does_not_have_is_one_line(humeris: Callable[..., Any]) -> None:
    result = humeris("extract", "keras.datasets.imdb", "-b", "nano")
    assert (result.code, result.out) == (2, "")
    assert (
        "no such image data set in Keras; choose one of keras.datasets.mnist, keras.datasets.fashion_mnist, " in result.err
    )


def test_the_words_of_cifar_are_as_many_as_its_numbers() -> None:
    from humeris.extract.images.keras_datasets import _DATASETS

    assert len(_DATASETS["cifar10"].classes.split(",")) == 10
    assert len(set(_DATASETS["cifar100"].classes.split(","))) == 100
    assert len(_DATASETS["fashion_mnist"].classes.split(",")) == 10
