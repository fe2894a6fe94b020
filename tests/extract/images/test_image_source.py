"""Image sources: the conformance of every source, and a source of another package from extraction to export."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image as Picture

from humeris import ImageSource, Store, export, extract, load_images, register_image_source, sweep
from humeris.cache.file_stamp import FileStamp
from humeris.classify.report.thumbnails import make_thumbnails
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images import keras_datasets, registry
from humeris.extract.images.class_folders import ClassFolders
from humeris.extract.images.image_source import STAMP_BYTES, Listing
from humeris.extract.images.item import Item
from humeris.extract.images.registry import list_image_sources, list_images, open_source, reopen_source, try_reopen_source
from humeris.extract.pixels import decode, read_file
from humeris.extract.pixels.decode_pool import DecoderPool

SIZE = (16, 16)


class Box(ImageSource):
    """Concatenated images in a file whose first line is JSON: the name, label and length of each."""

    kinds = ("box",)

    def __init__(self, data: str, root: str | None = None) -> None:
        self.data, self.root = data, Path(root or data)

    @classmethod
    def matches(cls, data: str) -> bool:
        return data.endswith(".box")

    @classmethod
    def open(cls, data: str) -> ImageSource:
        return cls(data)

    def list_items(self) -> Listing:
        with self.root.open("rb") as file:
            items, offset = [], len(line := file.readline())
        for name, label, length in json.loads(line):
            items.append(Item(name, (offset, length), label))
            offset += length
        return Listing(tuple(items))

    def read(self, item: Item) -> bytes:
        with self.root.open("rb") as file:
            file.seek(item.location[0])
            return file.read(item.location[1])

    def stamp(self, item: Item) -> FileStamp:  # noqa: ARG002
        return FileStamp.from_path(self.root)

    def describe(self) -> dict[str, Any]:
        return {"kind": "box", "source": self.data, "root": os.path.abspath(self.root)}

    @classmethod
    def reopen(cls, description: Mapping[str, Any]) -> ImageSource:
        return cls(description["source"], description["root"])


@pytest.fixture(autouse=True)
def _box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SOURCES", list_image_sources())
    register_image_source(Box)


def write_box(photos: Path, file: Path) -> Path:
    """Write the files below a folder as a box."""
    paths = sorted(photos.rglob("*.png"))
    contents = [path.read_bytes() for path in paths]
    header = [
        [f"{path.parent.name}-{path.name}", path.parent.name, len(data)] for path, data in zip(paths, contents, strict=True)
    ]
    file.write_bytes(json.dumps(header).encode() + b"\n" + b"".join(contents))
    return file


def write_flat(photos: Path) -> str:
    for path in sorted(photos.rglob("*.png")):
        path.rename(photos / f"{path.parent.name}{path.name}")
    for folder in [path for path in photos.iterdir() if path.is_dir()]:
        folder.rmdir()
    return "photos"


def write_splits(photos: Path) -> str:
    for role, names in (("test", ["stripes"]), ("train", ["blob", "noise"])):
        (photos / role).mkdir()
        for name in names:
            (photos / name).rename(photos / role / name)
    return "photos"


def write_manifest(photos: Path, name: str = "list.csv") -> str:
    rows = [f"{path.relative_to(photos)},{path.parent.name}" for path in sorted(photos.rglob("*.png"))]
    (photos / name).write_text("file_name,label\n" + "\n".join(rows) + "\n")
    return f"photos/{name}"


def write_metadata(photos: Path) -> str:
    write_manifest(photos, "metadata.csv")
    return "photos"


def arrays() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).integers(0, 256, (6, 12, 12, 3), np.uint8), np.arange(6) % 2


def write_npz(photos: Path) -> str:
    images, labels = arrays()
    np.savez(photos.parent / "d.npz", x=images, y=labels)
    return "d.npz"


def write_keras(photos: Path) -> str:
    file = photos.parent / "keras/datasets/mnist.npz"
    file.parent.mkdir(parents=True)
    file.touch()
    return "keras.datasets.mnist"


def write_features(photos: Path) -> str:
    items = list_images(ClassFolders("photos")).items
    keys = b"".join(read_file.compute_digest((photos / item.name).read_bytes()) for item in items)
    with h5py.File("rows.h5", "w") as file:
        file.attrs.update({"humeris": "0", "format": 2, "spec": "{}", "data": json.dumps(ClassFolders("photos").describe())})
        file["conv.avg"] = np.random.default_rng(0).normal(size=(len(items), 4)).astype(np.float32)
        file["keys"] = np.frombuffer(keys, np.uint8).reshape(-1, 32)
        file["labels"], file["paths"] = [item.label for item in items], [item.name for item in items]
    return "rows.h5"


def write_toy(photos: Path) -> str:
    write_box(photos, photos.parent / "photos.box")
    return "photos.box"


@dataclass(frozen=True)
class Made:
    """DATA relative to the working directory of the test, its source, and its number of images."""

    data: str
    source: ImageSource
    count: int


WRITERS: dict[str, tuple[Callable[[Path], str], int]] = {
    "folders": (lambda _: "photos", 36),
    "splits": (write_splits, 36),
    "flat": (write_flat, 36),
    "manifest": (write_manifest, 36),
    "metadata": (write_metadata, 36),
    "arrays": (write_npz, 6),
    "keras": (write_keras, 6),
    "features": (write_features, 36),
    "box": (write_toy, 36),
}


@pytest.mark.parametrize("name", WRITERS)
class TestEverySource:
    """The conformance of a source: its items, bytes, stamps and descriptions are consistent."""

    @pytest.fixture
    def made(self, name: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
        images, labels = arrays()
        parts = {"x_train": (images[:4], labels[:4]), "x_test": (images[4:], labels[4:])}
        monkeypatch.setattr(keras_datasets, "_load_arrays", lambda _: parts)
        write, count = WRITERS[name]
        data = write(photos)
        return Made(data, open_source(data), count)

    def test_it_is_found_by_what_lies_there_and_no_earlier_source_takes_it(self, made: Made) -> None:
        takers = [source_class for source_class in list_image_sources() if source_class.matches(made.data)]
        assert type(made.source) is takers[0]
        assert made.source.data == made.data
        assert made.source.describe()["kind"] in type(made.source).kinds
        assert not any(source_class.matches("nothing/here") for source_class in list_image_sources())

    def test_every_name_has_one_outcome_in_an_order_that_stays(self, made: Made) -> None:
        listing = made.source.list_items()
        items, rejections, ignored, _ = listing
        names = [*(entry.name for entry in (*items, *rejections)), *ignored]
        assert len(items) == made.count
        assert len(set(names)) == len(names)
        assert open_source(made.data).list_items() == listing

    def test_its_description_is_json_and_gives_the_same_images_anywhere(
        self, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = {item.name: made.source.read(item) for item in made.source.list_items().items}
        title, description = made.source.title, json.loads(json.dumps(made.source.describe()))
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        again = reopen_source({"used": 3, **description})
        assert again.describe() == description
        assert (again.title, type(again)) == (title, type(made.source))
        assert again.is_reachable
        assert {name: again.read(again.get_item(name)) for name in expected} == expected
        assert all(again.exists(name) for name in expected)
        relisted = reopen_source(description).list_items()
        assert {(item.name, item.label, item.split) for item in relisted.items} == {
            (item.name, item.label, item.split) for item in list_images(again).items
        }

    def test_the_location_names_the_same_data_on_a_command_line(
        self, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        again = reopen_source(made.source.describe())
        names = [item.name for item in made.source.list_items().items]
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert [item.name for item in open_source(again.location).list_items().items] == names

    def test_an_image_is_identified_by_the_digest_of_its_bytes(self, made: Made) -> None:
        for item in made.source.list_items().items:
            digest, format_name = made.source.identify(item)
            assert digest == read_file.compute_digest(made.source.read(item))
            assert format_name

    def test_what_a_decoder_is_given_is_the_image(self, made: Made) -> None:
        item = made.source.list_items().items[-1]
        digest, _ = made.source.identify(item)
        with DecoderPool(1) as decoders:
            pixels = decoders.decode(made.source.fetch(item), SIZE, digest)
        assert np.array_equal(pixels[0], decode.decode(made.source.read(item), SIZE))

    def test_an_unknown_name_is_rejected_when_it_is_read(self, made: Made) -> None:
        again = reopen_source(made.source.describe())
        with pytest.raises(decode.ImageRejected):
            again.read(again.get_item("never/was"))

    def test_images_may_be_read_from_several_threads(self, made: Made) -> None:
        again = reopen_source(made.source.describe())
        names = [item.name for item in made.source.list_items().items]
        with ThreadPoolExecutor(4) as threads:
            read = list(threads.map(lambda each: again.read(again.get_item(each)), names))
        assert read == [made.source.read(item) for item in made.source.list_items().items]

    def test_stamps_stay_while_the_images_do_and_change_with_them(self, made: Made, name: str) -> None:
        items = made.source.list_items().items
        before = [made.source.stamp(item) for item in items]
        if name == "features":
            assert before == [None] * len(items)
            return
        packed = [b"" if stamp is None else stamp.to_bytes() for stamp in before]
        assert {len(each) for each in packed} == {STAMP_BYTES}
        assert made.source.read_stamps(items).tobytes() == b"".join(packed)
        assert [made.source.stamp(item) for item in items] == before
        assert made.source.read_stamps(()).shape == (0, 4)
        file = made.source.fetch(items[0])
        os.utime(file if isinstance(file, Path) else made.source.root, (1, 1))
        assert made.source.stamp(items[0]) != before[0]
        assert not np.array_equal(made.source.read_stamps(items[:1]), np.frombuffer(packed[0], np.int64)[None])

    def test_what_was_seen_once_is_not_read_again(self, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(FileStamp, "is_stable", lambda *_: True)
        with Store(write=True) as store:
            first = load_images(made.data, store, jobs=2)
            monkeypatch.setattr(type(made.source), "read", lambda *_: pytest.fail("read again"))
            again = load_images(made.data, store, jobs=2)
        assert [(image.name, image.digest, image.format) for image in again.used] == [
            (image.name, image.digest, image.format) for image in first.used
        ]
        assert len(first.used) == made.count


def test_no_two_sources_have_a_kind_in_common() -> None:
    kinds = [kind for source_class in list_image_sources() for kind in source_class.kinds]
    assert len(set(kinds)) == len(kinds)

    class Folders(Box):
        kinds = ("box", "flat")

    with pytest.raises(ValueError, match="Folders: kind 'box' is already that of Box; rename it"):
        register_image_source(Folders)
    before = list_image_sources()
    assert register_image_source(Box) is Box
    assert list_image_sources() == before


@pytest.mark.parametrize(
    "description", [{}, {"kind": "tar"}, {"kind": [1]}, {"kind": "folders"}, {"kind": "arrays", "root": 3}]
)
def test_a_description_that_nobody_understands_gives_no_source(description: dict[str, Any]) -> None:
    assert try_reopen_source(description) is None
    with pytest.raises((KeyError, TypeError, ValueError)):
        reopen_source(description)


def test_a_source_from_outside_goes_all_the_way_to_a_model_that_was_checked(photos: Path, tmp_path: Path) -> None:
    data = write_box(photos, tmp_path / "photos.box")
    with Store(write=True) as store:
        images = load_images(data, store, jobs=2)
        config = ExtractConfig("nano", layers=["block5_out"], jobs=1)
        (result,) = extract(images, config, cache=store)
        run = sweep(result.images, "logreg,C=1", cache=store, jobs=1)
        exported = export(run, tmp_path / "model.keras", cache=store)
        (again,) = extract(data, config, cache=store)
    assert (result.computed, again.computed) == (36, 0)
    assert run.path.name.startswith("photos.box-")
    assert run.metadata.data.origin["kind"] == "box"
    assert exported.parity.top1_agree == exported.parity.images > 0
    records = run.load_image_records()
    pictures = make_thumbnails(records, run.metadata.data, 24, 1_000_000).pictures
    for record, picture in zip(records, pictures, strict=True):
        label, _, name = record.name.partition("-")
        with Picture.open(photos / label / name) as drawn, Picture.open(io.BytesIO(picture or b"")) as small:
            assert abs(np.asarray(drawn).mean() - np.asarray(small.convert("RGB")).mean()) < 4
