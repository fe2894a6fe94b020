"""Bad input: one line with the fault, the evidence and the remedy; nothing is lost, and there is no traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from humeris.extract.engine import extract as extraction

Draw = Callable[..., Path]
NANO = ("-b", "nano,image_size=32", "-l", "block5_out")


def is_one_line(result: Any, *parts: str) -> None:
    """Exit code 2, nothing on standard output, one line on standard error with all of `parts` (regular expressions)."""
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("humeris: ")
    assert result.err.endswith("\n")
    assert result.err.count("\n") == 1
    for part in parts:
        assert re.search(part, result.err), (part, result.err)


@pytest.fixture
def few(tmp_path: Path, draw_image: Draw) -> Path:
    """Two classes with five images each to train on and three to test on, in one folder."""
    for kind, name in enumerate(("stripes", "blob")):
        for seed in range(8):
            draw_image(tmp_path / "few" / ("train" if seed < 5 else "test") / name / f"{seed}.png", kind, seed)
    return tmp_path / "few"


# The data


@pytest.mark.parametrize("command", ["extract", "run"])
def test_an_empty_folder(command: str, tmp_path: Path, humeris: Callable[..., Any]) -> None:
    (tmp_path / "empty").mkdir()
    is_one_line(humeris(command, "empty", *NANO), r"empty: no images; give images in class folders \(root/cat/1.jpg\)")


def test_a_folder_of_empty_class_folders(tmp_path: Path, humeris: Callable[..., Any]) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
    is_one_line(humeris("run", "data", *NANO), "data: no images; give images in class folders")


def test_nothing_at_all(humeris: Callable[..., Any]) -> None:
    is_one_line(humeris("run", "nowhere", *NANO), "nowhere: no such file or folder; check the path")


def test_a_file_that_is_no_csv(tmp_path: Path, humeris: Callable[..., Any]) -> None:
    (tmp_path / "data.xlsx").write_bytes(b"PK")
    is_one_line(
        humeris("run", "data.xlsx", *NANO), "data.xlsx: a spreadsheet; save the list as CSV with the columns path,label"
    )


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_one_class_only(command: str, tmp_path: Path, draw_image: Draw, humeris: Callable[..., Any]) -> None:
    for seed in range(6):
        draw_image(tmp_path / "data/cat" / f"{seed}.png", 0, seed)
    result = humeris(command, "data", *NANO)
    is_one_line(result, "data: only one class, 'cat'; add a folder per class")
    assert not (tmp_path / "runs").exists()


def test_a_class_with_one_image(few: Path, draw_image: Draw, humeris: Callable[..., Any]) -> None:
    draw_image(few / "train/owl/only.png", 2, 1)
    result = humeris("run", few, *NANO)
    is_one_line(
        result,
        "too few training images of class 'owl': 1, at least 2 needed",
        "add images, remove the class, or give splits",
    )


def test_images_without_labels(tmp_path: Path, draw_image: Draw, humeris: Callable[..., Any]) -> None:
    for seed in range(3):
        draw_image(tmp_path / "data" / f"{seed}.png", 0, seed)
    is_one_line(humeris("run", "data", *NANO), "the images have no labels; put them in a folder per class")


def test_all_images_refused(tmp_path: Path, humeris: Callable[..., Any]) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.jpg").write_text("<html>404</html>")
    is_one_line(
        humeris("run", "data", *NANO),
        r"data: no usable images: 2 rejected \(2 not_an_image, such as cat/1.jpg: an HTML page.*; correct these",
    )
    listed = humeris("extract", "data", *NANO, "--json")
    assert listed.code in {1, 2}
    assert "Traceback" not in listed.err


def listing(few: Path, name: str, lines: list[str]) -> Path:
    (few / name).write_text("\n".join(lines) + "\n")
    return few / name


def rows_of(few: Path) -> list[str]:
    return [
        f"{path.relative_to(few)},{path.parent.name},{path.parts[-3]}" for path in sorted(few.glob("*/*/*.png"))
    ]  # fmt: skip


def test_a_csv_without_a_label_column(few: Path, humeris: Callable[..., Any]) -> None:
    path = listing(few, "list.csv", ["path,kind", "train/blob/0.png,blob"])
    is_one_line(humeris("run", path, *NANO), r"no column named label, class or target \(columns: path, kind\)",
                "give its name with --label-column")  # fmt: skip


def test_a_row_without_a_label_costs_that_row_alone(few: Path, humeris: Callable[..., Any]) -> None:
    rows = rows_of(few)
    rows[0] = rows[0].replace("blob,", ",")
    result = humeris("extract", listing(few, "list.csv", ["path,label,split", *rows]), *NANO, "--json")
    assert result.code == 1
    assert result.json["data"]["used"] == 15
    assert result.json["extracted"][0]["computed"] == 15
    (refused,) = result.json["data"]["refused"]
    assert refused["reason"] == "no_label"
    assert "line 2: the label is empty" in refused["detail"]


def test_one_name_listed_twice_is_used_once_and_a_contradiction_is_refused(few: Path, humeris: Callable[..., Any]) -> None:
    rows = rows_of(few)
    again, contradiction = rows[0], rows[1].replace(",blob,", ",stripes,")
    path = listing(few, "list.csv", ["path,label,split", *rows, again, contradiction])
    result = humeris("extract", path, *NANO, "--json")
    assert result.code == 1
    assert result.json["data"]["used"] == 15
    assert {(each["name"], each["reason"]) for each in result.json["data"]["refused"]} == {
        (rows[0].split(",")[0], "listed_twice"), (rows[1].split(",")[0], "conflicting_rows"),
    }  # fmt: skip


def test_an_empty_csv(tmp_path: Path, humeris: Callable[..., Any]) -> None:
    (tmp_path / "list.csv").touch()
    is_one_line(humeris("run", "list.csv", *NANO), r"no column named path, file_name or filename \(columns: none\)")
    (tmp_path / "list.csv").write_text("path,label\n")
    is_one_line(humeris("run", "list.csv", *NANO), "list.csv: no images; give images in class folders")


def test_images_that_are_not_there_cost_their_rows(few: Path, humeris: Callable[..., Any]) -> None:
    path = listing(
        few, "list.csv", ["path,label,split", *rows_of(few), "train/blob/gone.png,blob,train", "/etc/passwd,blob,"]
    )
    result = humeris("extract", path, *NANO)
    assert result.code == 1
    assert "train/blob/gone.png: not_found: line 18: no such file" in result.out
    assert "/etc/passwd: not_an_image: " in result.out
    assert "1 rows list images outside" in result.out


# The backbone and its layers


def test_an_unknown_backbone_lists_the_closest(few: Path, humeris: Callable[..., Any]) -> None:
    is_one_line(humeris("extract", few, "-b", "resnet51"), r"backbone 'resnet51': unknown name \(closest: .*resnet50",
                "`humeris backbones` lists all names")  # fmt: skip


def test_an_unknown_layer_lists_the_closest(few: Path, humeris: Callable[..., Any]) -> None:
    result = humeris("extract", few, "-b", "nano,image_size=32", "-l", "block9_out")
    is_one_line(result, r"layer 'block9_out': matches none of the network's \d+ layers \(closest: .*block5_out",
                "`humeris layers` lists them all")  # fmt: skip


def test_an_unknown_pool(few: Path, humeris: Callable[..., Any]) -> None:
    is_one_line(
        humeris("extract", few, "-b", "nano,image_size=32", "-l", "block5_out:sum"),
        "unknown pool 'sum'; choose one of avg, max, gridN",
    )


def test_a_grid_that_needs_more_pixels(few: Path, humeris: Callable[..., Any]) -> None:
    result = humeris("extract", few, "-b", "nano,image_size=32", "-l", "block5_out:grid3")
    is_one_line(result, "a 3x3 grid does not fit the layer's 2x2 map; use a smaller grid or larger images")


def test_a_layer_that_needs_more_pixels(few: Path, humeris: Callable[..., Any]) -> None:
    """A network of valid convolutions has nothing left at its top when the image is too small."""
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((None, None, 3)), *(layers.Conv2D(2, 5, strides=3, name=f"down{number}") for number in range(3))]
    )
    model.save(few / "deep.keras")
    result = humeris("extract", few, "-b", f"{few / 'deep.keras'},preprocessing=tf", "--image-size", 16, "-l", "down2")
    is_one_line(result, r"backbone .*deep.*16x16 pixels")


def test_an_image_size_below_the_networks_minimum(few: Path, humeris: Callable[..., Any]) -> None:
    is_one_line(humeris("extract", few, "-b", "inception_v3", "--weights", "random", "--image-size", 64),
                "images of 64x64 pixels are too small; give an --image-size of at least 75 pixels")  # fmt: skip


@pytest.mark.parametrize("size", ["0", "7", "5000", "64x", "-64", "big", "64x64x3"])
def test_an_image_size_that_is_none(size: str, few: Path, humeris: Callable[..., Any]) -> None:
    is_one_line(
        humeris("extract", few, "-b", "nano", f"--image-size={size}"),
        f"invalid image size '{size}'; give SIDE or HEIGHTxWIDTH, from 8",
    )


@pytest.mark.parametrize("name", ["nothing.h5", "imagenet", "nonsense"])
def test_weights_that_are_not_there(name: str, few: Path, humeris: Callable[..., Any]) -> None:
    fault = (
        "nano: has no weights 'imagenet'; choose synthetic, random" if name == "imagenet" else f"{name}: no such file; give"
    )
    is_one_line(humeris("extract", few, "-b", "nano", "--weights", name), fault)


def test_a_weights_file_of_something_else(few: Path, humeris: Callable[..., Any]) -> None:
    (few.parent / "bad.weights.h5").write_text("hello")
    is_one_line(
        humeris("extract", few, "-b", "nano", "--weights", "bad.weights.h5"), "bad.weights.h5: cannot be loaded into nano"
    )


def test_a_file_of_ones_own_without_its_preprocessing(few: Path, humeris: Callable[..., Any]) -> None:
    (few.parent / "mine.keras").touch()
    is_one_line(humeris("extract", few, "-b", "mine.keras"), "does not say how its inputs were scaled", "preprocessing=MODE")
    is_one_line(
        humeris("extract", few, "-b", "mine.keras,preprocessing=tf"), "mine.keras: cannot be loaded as a .keras file"
    )
    is_one_line(humeris("extract", few, "-b", "gone.keras,preprocessing=tf"), "gone.keras: no such file; check the path")
    assert humeris("extract", few, *NANO).code == 0
    is_one_line(
        humeris("sweep", few, "-b", "mine.keras,preprocessing=tf"),
        "no features are cached for -b .*mine.keras,preprocessing=tf; run `humeris extract`",
    )


# Options


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--select", "guess", "unknown --select guess; use cv or val"),
        (
            "--select",
            "val",
            r"--select val needs separate train, val and test splits \(train 10, val 0, test 6\); use --select cv",
        ),
        ("--head", "forest", "head 'forest': unknown head family; use one of logreg, "),
        ("--head", "logreg,C=0", r"invalid C '0'; give a number between 1e-12 and 1e\+12"),
        ("--head", "mlp,dropout=2", "invalid dropout '2'; give a number from 0 to below 1"),
    ],
)
def test_an_option_out_of_range(option: str, value: str, message: str, few: Path, humeris: Callable[..., Any]) -> None:
    is_one_line(humeris("run", few, *NANO, option, value), message)
    is_one_line(humeris("sweep", few, option, value), f"{message}|no features of all")


@pytest.mark.parametrize(
    "arguments", [("--batch-size", "0"), ("--jobs", "0"), ("--limit", "0"), ("--seed", "x"), ("--seed", "-1")]
)
def test_a_number_out_of_range_is_a_usage_error(arguments: tuple[str, str], few: Path, humeris: Callable[..., Any]) -> None:
    result = humeris("run", few, *arguments)
    assert result.code == 2
    assert "Traceback" not in result.err
    assert result.err.startswith("humeris: invalid value for '")
    assert arguments[0] in result.err


# Places that are something else


def test_a_cache_folder_that_is_not_one(few: Path, humeris: Callable[..., Any]) -> None:
    (few.parent / "mine").mkdir()
    (few.parent / "mine/thesis.txt").write_text("years of work")
    for command in (("extract", few, *NANO), ("sweep", few), ("cache", "list"), ("cache", "verify")):
        is_one_line(humeris(*command, "--cache", "mine"), "mine: not a humeris cache, and not empty: it holds other",
                    "give another folder with --cache")  # fmt: skip
    assert [path.name for path in (few.parent / "mine").iterdir()] == ["thesis.txt"]


def test_a_file_in_the_place_of_the_cache(few: Path, humeris: Callable[..., Any]) -> None:
    (few.parent / "file").write_text("years of work")
    is_one_line(humeris("extract", few, *NANO, "--cache", "file"), "file: is a file, not a cache folder")
    assert (few.parent / "file").read_text() == "years of work"


def test_a_run_folder_that_is_something_else(few: Path, humeris: Callable[..., Any]) -> None:
    assert humeris("extract", few, *NANO).code == 0
    (few.parent / "taken").mkdir()
    (few.parent / "taken/thesis.txt").write_text("years of work")
    is_one_line(humeris("sweep", few, "-j", 1, "-o", "taken"), "taken: not empty, and not a run folder", "-o")
    assert [path.name for path in (few.parent / "taken").iterdir()] == ["thesis.txt"]
    (few.parent / "file").write_text("years of work")
    is_one_line(humeris("sweep", few, "-j", 1, "-o", "file"), "file")
    assert (few.parent / "file").read_text() == "years of work"


def test_an_output_file_whose_place_is_taken_or_not_there(
    finished: Any, tmp_path: Path, humeris: Callable[..., Any]
) -> None:
    (tmp_path / "folder").mkdir()
    image = finished.photos / "test/blob/09.png"
    is_one_line(humeris("predict", finished.model, image, "-o", tmp_path / "folder"), "folder", "[Dd]irectory")
    is_one_line(humeris("predict", finished.model, image, "-o", tmp_path / "no/such/out.csv"), "no/such/out.csv")
    export = ("cache", "export", finished.photos, "-b", "nano", "--cache", finished.cache, "-o")
    is_one_line(humeris(*export, tmp_path / "folder"), "folder")
    is_one_line(humeris(*export, tmp_path / "no/such/out.h5"), "no/such")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_nothing_cached_names_the_command_that_fills_it(few: Path, humeris: Callable[..., Any]) -> None:
    is_one_line(humeris("sweep", few), "no features of all 16 images are cached; run `humeris extract`")
    is_one_line(
        humeris("cache", "export", few, "-b", "nano", "-o", "out.h5"),
        "no tap of nano is cached for all 16 images",
        "humeris extract",
    )


# Disks


COMMAND = "import sys; sys.argv[0] = 'humeris'; from humeris.cli import main; main()"


class Done:
    """What a command did in a process of its own."""

    def __init__(self, arguments: tuple[object, ...], before: tuple[str, ...] = (), code: str = COMMAND) -> None:
        command = [*before, sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 kB; only root may mount one."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root may mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("this root may not mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder: Path, leave: int) -> Path:
    """A file that leaves so many bytes free where it is."""
    status = os.statvfs(folder)
    path = folder / "filler"
    path.write_bytes(b"x" * (status.f_bavail * status.f_frsize - leave))
    return path


def verified(cache: Path, humeris: Callable[..., Any]) -> int:
    """Rows in a cache that is sound and has no stray files."""
    assert not list((cache / "tmp").iterdir())
    result = humeris("cache", "verify", "--cache", cache, "--json")
    assert result.code == 0
    assert result.json["damaged"] == []
    return int(result.json["rows"])


def test_a_full_disk_loses_nothing(
    few: Path, small_disk: Path, humeris: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = small_disk / "cache"
    assert humeris("extract", few, *NANO, "--cache", cache).code == 0
    before = verified(cache, humeris)
    filler = fill(small_disk, 100_000)
    big = ("extract", few, "-b", "nano,image_size=32", "-l", "block1_out:map", "--cache", cache)
    planned = humeris(*big, "--dry-run")
    assert planned.code == 2
    assert ": not enough disk space" in planned.out
    is_one_line(
        humeris(*big),
        r"not enough disk space for the rows to compute \(197,152 bytes needed, .* free\); ",
        "give another folder with --cache",
    )
    monkeypatch.setattr(extraction, "_check_disk_space", lambda *_: None)  # the disk fills up later
    result = humeris(*big)
    is_one_line(
        result, "no space left to write", "everything written before is intact; free some space, or give another folder"
    )
    assert verified(cache, humeris) == before == 16
    filler.unlink()
    assert humeris("extract", few, *NANO, "-l", "block4_out", "--cache", cache).code == 0
    assert verified(cache, humeris) == 32


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); " + COMMAND


def test_a_limit_on_the_size_of_files_loses_nothing(few: Path, tmp_path: Path, humeris: Callable[..., Any]) -> None:
    cache = tmp_path / "own-cache"
    assert humeris("extract", few, *NANO, "--cache", cache).code == 0
    big = ("extract", few, "-b", "nano,image_size=32", "-l", "block1_out:map", "--cache", cache)
    is_one_line(Done(big, code=LIMITED), "no space left to write", "give another folder with --cache")
    assert verified(cache, humeris) == 16
    assert humeris(*big).code == 0
    assert verified(cache, humeris) == 32


def test_a_run_folder_on_a_full_disk_is_one_line_and_goes_on_later(
    few: Path, small_disk: Path, humeris: Callable[..., Any]
) -> None:
    assert humeris("extract", few, *NANO).code == 0
    filler = fill(small_disk, 0)
    sweep = ("sweep", few, "-j", 1, "--head", "logreg,C=0.1/1", "-o", small_disk / "run")
    is_one_line(humeris(*sweep), "no space left to write")
    filler.unlink()
    assert humeris(*sweep).code == 0
    assert json.loads((small_disk / "run/run.json").read_text())["result"]


def read_only(folder: Path) -> tuple[str, ...]:
    """Take away the permission to write, from root as well; what to put before a command for that."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if os.geteuid() != 0:
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("root needs setpriv to give up its permissions")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")


@pytest.fixture
def locked(finished: Any, tmp_path: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """A cache that cannot be written, and what to put before a command that shall find it so."""
    cache = tmp_path / "locked"
    shutil.copytree(finished.cache, cache)
    yield cache, read_only(cache)
    for path in [cache, *cache.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_read_only_cache_is_refused_where_rows_must_be_written(
    locked: tuple[Path, tuple[str, ...]], finished: Any
) -> None:
    cache, before = locked
    files = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    arguments = ("extract", finished.photos, "-b", "nano", "-l", "block3_out", "--cache", cache)
    is_one_line(Done(arguments, before), "folder is read-only",
                "change its permissions or give another folder with --cache")  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == files


def test_a_read_only_cache_serves_everything_that_is_in_it(
    locked: tuple[Path, tuple[str, ...]], finished: Any, tmp_path: Path
) -> None:
    cache, before = locked
    sweep = ("sweep", finished.photos, "-j", 1, "--head", "logreg,C=1", "-o", tmp_path / "run", "--cache", cache)
    done = Done(sweep, before)
    assert (done.code, done.err) == (0, "")
    extract = ("extract", finished.photos, "-b", "nano", "-l", "block5_out", "--cache", cache)
    again = Done(extract, before)
    assert again.code == 0, again.err
    assert "0 computed" in again.out
    listed = Done(("cache", "list", "--cache", cache), before)
    assert listed.code == 0


def test_a_run_folder_that_cannot_be_written(few: Path, tmp_path: Path, humeris: Callable[..., Any]) -> None:
    assert humeris("extract", few, *NANO, "--cache", tmp_path / "own-cache").code == 0
    (tmp_path / "shut").mkdir()
    before = read_only(tmp_path / "shut")
    sweep = ("sweep", few, "-j", 1, "-o", tmp_path / "shut/run", "--cache", tmp_path / "own-cache")
    is_one_line(Done(sweep, before), "shut/run: folder is read-only")
