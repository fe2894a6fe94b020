"""Loading of images: every listed path has exactly one outcome, and no image is in two splits."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.cache.file_stamp import FileStamp
from humeris.cache.store import Store
from humeris.commands.render.extract import format_images as describe
from humeris.extract.images.images import Images
from humeris.extract.images.load import load_images
from humeris.extract.pixels import read_file

Draw = Callable[..., Path]


def load(data: Path, **options: Any) -> Images:
    with Store(write=True) as store:
        return load_images(data, store, jobs=2, **options)


def outcomes(images: Images) -> dict[str, str]:
    """The outcome of each path; fails when a path has two."""
    found = [(image.name, "used") for image in images.used]
    found += [(each.name, f"duplicate of {each.original}") for each in images.duplicates]
    found += [(each.name, each.reason) for each in images.rejections]
    found += [(name, "ignored") for name in images.dataset.ignored]
    assert max(Counter(name for name, _ in found).values(), default=0) <= 1, found
    return dict(found)


def settle(data: Path) -> None:
    """Wait until any later change is certain to change the times of a file (about 20 ms)."""
    for path in data.rglob("*"):
        while path.is_file() and not FileStamp.from_path(path).is_stable(time.time_ns()):
            pass


_opened: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _opened.append(os.fsdecode(arguments[0]))


@pytest.fixture(scope="session")
def _audit() -> None:
    sys.addaudithook(_hook)


@pytest.fixture
def opened(_audit: None) -> Iterator[list[str]]:
    """Every path that Python opens while the test runs."""
    global _opened
    _opened = []
    yield _opened
    _opened = None


def test_used_images_carry_their_digest_format_and_label(photos: Path) -> None:
    images = load(photos)
    assert len(images.used) == 36
    assert [image.name for image in images.used] == sorted(image.name for image in images.used)
    for image, label in zip(images.used, images.labels, strict=True):
        assert image.digest == read_file.compute_digest(Path(image.item.location).read_bytes())
        assert image.format == "PNG"
        assert label == Path(image.item.location).parent.name
    assert images.keys.tobytes() == b"".join(image.digest for image in images.used)


def test_duplicates_are_used_once(photos: Path) -> None:
    shutil.copy(photos / "blob" / "00.png", photos / "blob" / "zz.png")
    images = load(photos)
    assert len(images.used) == 36
    assert outcomes(images)["blob/zz.png"] == "duplicate of blob/00.png"
    assert not images.duplicates[0].across


def test_of_duplicates_across_splits_the_most_evaluated_is_kept(tmp_path: Path, draw_image: Draw) -> None:
    data = tmp_path / "data"
    first = draw_image(data / "train" / "a" / "1.png", 0, 1)
    for place in ("test/a/x.png", "val/a/x.png"):
        (data / place).parent.mkdir(parents=True)
        shutil.copy(first, data / place)
    draw_image(data / "train" / "a" / "2.png", 0, 2)
    second = draw_image(data / "train" / "b" / "1.png", 0, 3)
    (data / "val" / "b").mkdir()
    shutil.copy(second, data / "val" / "b" / "y.png")
    images = load(data)
    assert outcomes(images) == {
        "test/a/x.png": "used",
        "train/a/1.png": "duplicate of test/a/x.png",
        "val/a/x.png": "duplicate of test/a/x.png",
        "train/a/2.png": "used",
        "val/b/y.png": "used",
        "train/b/1.png": "duplicate of val/b/y.png",
    }
    assert all(each.across for each in images.duplicates)
    assert "3 of them duplicates across splits" in describe(images.summarize())


def test_the_same_bytes_with_two_labels_are_all_refused(photos: Path) -> None:
    shutil.copy(photos / "blob" / "00.png", photos / "noise" / "zz.png")
    shutil.copy(photos / "blob" / "00.png", photos / "blob" / "zz.png")
    images = load(photos)
    assert len(images.used) == 35
    assert {name for name, outcome in outcomes(images).items() if outcome == "conflicting_labels"} == {
        "blob/00.png",
        "blob/zz.png",
        "noise/zz.png",
    }


def test_a_group_stays_in_its_most_evaluated_split(tmp_path: Path, draw_image: Draw) -> None:
    rows = [
        ("1", "train", "p"),
        ("2", "test", "p"),
        ("3", "train", "q"),
        ("4", "train", ""),
        ("5", "val", "r"),
        ("6", "train", "r"),
    ]
    for name, _, _ in rows:
        draw_image(tmp_path / f"{name}.png", 0, int(name))
    lines = [f"{name}.png,a,{split},{group}" for name, split, group in rows]
    (tmp_path / "list.csv").write_text("path,label,split,group\n" + "\n".join(lines))
    images = load(tmp_path / "list.csv")
    assert outcomes(images) == {
        "1.png": "group_straddles_splits",
        "2.png": "used",
        "3.png": "used",
        "4.png": "used",
        "5.png": "used",
        "6.png": "group_straddles_splits",
    }


def messy(data: Path, draw_image: Draw) -> set[str]:
    """A folder with all kinds of files, and the names that must have an outcome."""
    for number in range(6):
        draw_image(data / f"{'ab'[number % 2]}" / f"{number}.png", number % 3, number)
    draw_image(data / "a" / "photo.jpg", 1, 50)
    shutil.copy(data / "a" / "photo.jpg", data / "a" / "actually a jpeg.png")
    (data / "a" / "empty.jpg").touch()
    (data / "a" / "page.jpg").write_text("<html>")
    (data / "a" / "half.jpg").write_bytes((data / "a" / "photo.jpg").read_bytes()[:300])
    (data / "b" / "notes.txt").write_text("hello")
    (data / "b" / "new\nline.png").write_bytes((data / "b" / "1.png").read_bytes() + b"x")
    (data / "b" / "caf\udce9.png").write_bytes((data / "b" / "1.png").read_bytes() + b"y")
    (data / "b" / "=1+1.png").write_bytes((data / "b" / "1.png").read_bytes() + b"z")
    (data / "b" / ("n" * 251 + ".png")).write_bytes((data / "b" / "1.png").read_bytes() + b"w")
    (data / "b" / "other label.png").write_bytes((data / "a" / "0.png").read_bytes())
    (data / "b" / "gone.png").symlink_to("nowhere")
    (data / "b" / "up").symlink_to(data)
    (data / "b" / "linked.png").symlink_to("1.png")
    (data / "b" / "dir.jpg").mkdir()
    os.mkfifo(data / "b" / "pipe.jpg")
    (data / "loose.png").write_bytes(b"x")
    (data / "a" / ".hidden.png").write_bytes(b"x")
    names = set()
    for folder, folders, files in os.walk(data):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        names |= {os.path.relpath(Path(folder) / name, data) for name in [*files, *links] if not name.startswith(".")}
    return names


def test_every_path_of_a_messy_folder_has_exactly_one_outcome(tmp_path: Path, draw_image: Draw) -> None:
    data = tmp_path / "data"
    names = messy(data, draw_image)
    images = load(data)
    found = outcomes(images)
    assert set(found) == names
    assert {name: outcome for name, outcome in found.items() if outcome != "used"} == {
        "a/photo.jpg": "duplicate of a/actually a jpeg.png",
        "a/empty.jpg": "empty",
        "a/page.jpg": "not_an_image",
        "b/notes.txt": "ignored",
        "a/0.png": "conflicting_labels",
        "b/other label.png": "conflicting_labels",
        "b/gone.png": "not_a_file",
        "b/up": "not_a_file",
        "b/pipe.jpg": "not_a_file",
        "b/linked.png": "duplicate of b/1.png",
        "loose.png": "no_label",
    }
    settle(data)
    load(data)
    assert outcomes(load(data)) == found


def test_the_outcomes_can_be_shown_and_written_as_json(tmp_path: Path, draw_image: Draw) -> None:
    import json

    data = tmp_path / "data"
    messy(data, draw_image)
    summary = load(data).summarize()
    json.dumps(summary, ensure_ascii=True).encode("ascii")
    text = describe(summary)
    text.encode("utf-8")
    assert "new\nline" not in text
    assert all(line.isprintable() for line in text.splitlines())


def test_known_files_are_not_opened_again(photos: Path, opened: list[str]) -> None:
    settle(photos)
    first = load(photos)
    assert sum(path.endswith(".png") for path in opened) == 36
    opened.clear()
    second = load(photos)
    assert not any(path.endswith(".png") for path in opened)
    assert second.used == first.used
    assert second.keys.tobytes() == first.keys.tobytes()


def test_only_a_changed_or_new_file_is_opened_again(photos: Path, opened: list[str], draw_image: Draw) -> None:
    settle(photos)
    before = load(photos)
    os.utime(photos / "blob" / "00.png")
    draw_image(photos / "blob" / "new.png", 1, 99)
    settle(photos)
    opened.clear()
    after = load(photos)
    assert sorted(Path(path).name for path in opened if path.endswith(".png")) == ["00.png", "new.png"]
    assert set(before.used) < set(after.used)
    assert len(after.used) == 37


def test_a_same_size_edit_with_its_time_put_back_changes_the_digest(photos: Path) -> None:
    path = photos / "blob" / "00.png"
    settle(photos)
    before = {image.name: image.digest for image in load(photos).used}
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = {image.name: image.digest for image in load(photos).used}
    assert [name for name in before if after[name] != before[name]] == ["blob/00.png"]


def test_renaming_and_relabelling_keep_the_digest(photos: Path) -> None:
    before = load(photos).keys
    (photos / "blob" / "00.png").rename(photos / "noise" / "moved.png")
    photos.rename(photos.with_name("elsewhere"))
    after = load(photos.with_name("elsewhere")).keys
    assert sorted(before.tolist()) == sorted(after.tolist())


def test_a_file_that_vanishes_while_listing_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from humeris.extract.images import load as module

    real = module.list_images

    def list_images(*arguments: Any) -> Any:
        found = real(*arguments)
        (photos / "blob" / "03.png").unlink()
        return found

    monkeypatch.setattr(module, "list_images", list_images)
    images = load(photos)
    assert outcomes(images)["blob/03.png"] == "unreadable"
    assert len(images.used) == 35


def test_a_file_without_permission_is_refused_and_read_once_it_may_be(photos: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = photos / "blob" / "00.png"
    path.chmod(0)
    assert outcomes(load(photos))["blob/00.png"] == "unreadable"
    path.chmod(0o644)
    assert outcomes(load(photos))["blob/00.png"] == "used"


def test_the_memory_survives_without_a_cache_that_may_be_written(photos: Path) -> None:
    with Store() as store:
        images = load_images(photos, store, jobs=1)
    assert len(images.used) == 36
    assert not Path(os.environ["HUMERIS_CACHE"]).exists()


def test_progress_counts_files_read(photos: Path) -> None:
    seen: list[tuple[int, int]] = []
    load(photos, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 36) for number in range(1, 37)]


def test_no_two_used_images_share_their_bytes_whatever_the_data(tmp_path: Path, draw_image: Draw) -> None:
    random = np.random.default_rng(0)
    pool = [draw_image(tmp_path / "pool" / f"{number}.png", 2, number, (8, 8)).read_bytes() for number in range(8)]
    for round_ in range(5):
        data = tmp_path / f"data{round_}"
        for number in range(40):
            split, label = random.choice(["train", "val", "test"]), random.choice(["a", "b"], p=[0.9, 0.1])
            path = data / split / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pool[random.integers(8)])
        images = load(data)
        assert len(outcomes(images)) == 40
        assert len({image.digest for image in images.used}) == len(images.used)
        for image in images.used:
            same = [path for path in data.rglob("*.png") if path.read_bytes() == Path(image.item.location).read_bytes()]
            order = ["test", "val", "train"]
            best = min(same, key=lambda path: order.index(path.parent.parent.name)).parent.parent.name
            assert image.item.split == best
            assert {path.parent.name for path in same} == {image.item.label}


def test_groups_that_share_an_image_are_one_for_all_their_members(tmp_path: Path, draw_image: Draw) -> None:
    for number in (1, 2, 3):
        draw_image(tmp_path / f"{number}.png", 0, number)
    shutil.copy(tmp_path / "1.png", tmp_path / "copy.png")
    (tmp_path / "list.csv").write_text("path,label,group\n1.png,a,p\ncopy.png,a,q\n2.png,a,q\n3.png,a,r\n")
    images = load(tmp_path / "list.csv")
    assert {image.name: image.item.group for image in images.used} == {"1.png": "p", "2.png": "p", "3.png": "r"}
