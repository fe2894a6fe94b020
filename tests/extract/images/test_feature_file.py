"""HDF5 files of features as DATA: swept without a cache, read safely, and exported only if the backbone is known."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from humeris.cache.errors import DataError, RunError
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.cache.typed_json import to_json
from humeris.classify.data.feature_matrix import FeatureMatrix
from humeris.classify.data.select_features import load_matrix as load_sources
from humeris.classify.runs.run import Run
from humeris.extract import memory
from humeris.extract.images.feature_file import FORMAT_VERSION, FeatureFile
from humeris.extract.images.feature_rows import FeatureRows
from humeris.extract.images.images import Images
from humeris.extract.images.load import load_images

ROWS = 90


def write(path: Path, leave: str = "", **columns: Any) -> Path:
    """Write three blobs in eight dimensions with labels and metadata; `columns` replace the default data sets."""
    random = np.random.default_rng(0)
    labels = np.arange(ROWS) % 3
    usual: dict[str, Any] = {"features": (np.eye(3, 8)[labels] * 4 + random.normal(0, 1, (ROWS, 8))).astype(np.float32)}
    with h5py.File(path, "w") as file:
        for name, value in {**usual, "labels": labels, **columns}.items():
            if name != leave:
                file[name] = value
    return path


def load(path: Path, **options: Any) -> Images:
    return load_images(path, Store(), features=True, **options)


def outcomes(images: Images) -> Counter[str]:
    return Counter(
        ["used"] * len(images.used) + [each.reason for each in images.rejections] + ["copy"] * len(images.duplicates)
    )


def test_anyones_features_are_swept_without_a_cache_or_keras(tmp_path: Path) -> None:
    write(tmp_path / "mine.h5")
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom humeris.cli import app\n"
        "done = CliRunner().invoke(app, sys.argv[1:])\n"
        "print(done.stdout)\nprint(done.exit_code, *sorted({'tensorflow', 'keras'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, "sweep", tmp_path / "mine.h5", "--head", "logreg,C=1", "-j", "1", "-o", "run"]
    ran = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=False)
    text, _, code = ran.stdout.rstrip().rpartition("\n")
    assert code == "0", ran.stdout + ran.stderr
    found = json.loads(text)
    assert found["data"]["kind"] == "features"
    assert found["data"]["used"] == ROWS
    assert found["test"]["accuracy"] > 0.9
    (source,) = found["best"]["tap_refs"]
    assert (source["backbone"], source["layer"], source["pool"]) == ("mine", "features", "rows")
    assert source["extraction"] == FeatureFile(tmp_path / "mine.h5").name
    assert not (tmp_path / "cache").exists()


def test_a_row_is_identified_by_its_own_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    images = load(tmp_path / "a.h5")
    assert images.feature_file is not None
    with h5py.File(tmp_path / "a.h5") as file:
        values = file["features"][:]
    assert {image.digest for image in images.used} == {hashlib.sha256(row.tobytes()).digest() for row in values}
    (rows,) = images.feature_file.list_taps()
    order = [image.item.location for image in images.used]
    assert np.array_equal(rows.read(images.keys), values[order])
    assert not rows.find_missing(images.keys).any()
    assert rows.find_missing(np.array([b"x" * 32], "S32")).all()


def test_labels_splits_groups_and_names_are_taken_from_the_file(tmp_path: Path) -> None:
    write(
        tmp_path / "a.h5",
        labels=[b"k\xe4se", *[b"cat", b"dog"] * 44, b""],
        split=["train"] * 60 + ["valid"] * 28 + ["", "holdout"],
        groups=np.arange(ROWS) // 2,
        paths=[f"p{row}" for row in range(ROWS)],
    )
    images = load(tmp_path / "a.h5")
    items = {image.name: image.item for image in images.used}
    assert (items["p0"].label, items["p0"].split, items["p0"].group) == ("k\udce4se", "train", "0")
    assert (items["p88"].label, items["p88"].split, items["p88"].group) == ("dog", None, "44")
    assert items["p61"].split == "val"
    assert {each.name: each.reason for each in images.rejections} == {"p89": "no_label"}
    write(tmp_path / "b.h5", split=["holdout"] + ["train"] * (ROWS - 1), classes=["ant", "bee"])
    assert outcomes(load(tmp_path / "b.h5")) == {"used": 59, "no_label": 30, "unknown_split": 1}
    assert set(load(tmp_path / "b.h5").labels) == {"ant", "bee"}


@pytest.mark.parametrize(
    "options", [{"compression": "gzip"}, {"compression": "lzf", "fletcher32": True}, {"chunks": (7, 2, 2, 2)}]
)
def test_maps_and_the_filters_of_hdf5_itself_are_read(options: dict[str, Any], tmp_path: Path) -> None:
    maps = np.random.default_rng(0).normal(size=(ROWS, 2, 2, 3)).astype(np.float16)
    write(tmp_path / "a.h5", leave="features")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.create_dataset("features", data=maps, **options)
    given = FeatureFile(tmp_path / "a.h5")
    assert np.array_equal(given.list_taps()[0].read(given.keys), maps)


def test_rows_that_are_not_finite_are_refused_and_counted(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(ROWS, 4))
    values[3, 1], values[7, 0] = np.nan, -np.inf
    write(tmp_path / "a.h5", features=values)
    images = load(tmp_path / "a.h5")
    assert {each.name: each.reason for each in images.rejections} == {
        "features/00003": "not_finite",
        "features/00007": "not_finite",
    }
    assert outcomes(images)["used"] == ROWS - 2


def test_equal_rows_never_straddle_splits(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(ROWS, 4))
    values[80], values[81] = values[2], values[4]
    write(tmp_path / "a.h5", features=values, split=["train"] * 60 + ["test"] * 30)
    images = load(tmp_path / "a.h5")
    assert [(each.name, each.original, each.across) for each in images.duplicates] == [
        ("features/00002", "features/00080", True)
    ]
    assert outcomes(images) == {"used": ROWS - 3, "copy": 1, "conflicting_labels": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": np.arange(5)}, "labels has 5 values for 90 rows"),
        ({"labels": np.zeros((ROWS, 3, 3))}, "labels: float64 (90, 3, 3) is not supported; give class numbers or names"),
        ({"labels": np.full(ROWS, 0.5)}, "labels: 0.5 is not a class number"),
        ({"labels": np.full(ROWS, np.nan)}, "90 no_label"),
        ({"labels": np.int64(3)}, "labels is a scalar"),
        ({"features": np.zeros(ROWS)}, "features is float64 (90,), not numbers (n, d)"),
        ({"features": np.zeros((ROWS, 0))}, "features is float64 (90, 0), not numbers (n, d)"),
        ({"features": np.zeros((ROWS, 2), complex)}, "features is complex128 (90, 2), not numbers (n, d)"),
        ({"features": [b"x"] * ROWS}, "features is object (90,), not numbers (n, d)"),
        ({"split": ["train"]}, "split has 1 values for 90 rows"),
        ({"classes": np.eye(2)}, "class names are float64 (2, 2); give text"),
        ({"leave": "labels"}, "no data set named labels (data sets: features)"),
        ({"leave": "features"}, "features is missing"),
    ],
)
def test_what_does_not_fit_together_is_one_line(change: dict[str, Any], said: str, tmp_path: Path, humeris: Any) -> None:
    write(tmp_path / "a.h5", **change)
    result = humeris("sweep", tmp_path / "a.h5", "-o", "run")
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert result.err.count("\n") == 1
    assert not Path("run").exists()


def external(file: h5py.File) -> None:
    file.create_dataset("features", (ROWS, 2), "u1", external=[("secret", 0, ROWS * 2)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((ROWS, 2), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "features", (ROWS, 2))
    file.create_virtual_dataset("features", layout)


def external_link(file: h5py.File) -> None:
    file["features"] = h5py.ExternalLink("other.h5", "features")


def soft_link(file: h5py.File) -> None:
    file["features"] = h5py.SoftLink("/hidden")
    file["hidden"] = np.zeros((ROWS, 2), np.float32)


def group(file: h5py.File) -> None:
    file.create_group("features")


def never_written(file: h5py.File) -> None:
    file.create_dataset("features", (ROWS, 2), "f4")


def half_written(file: h5py.File) -> None:
    file.create_dataset("features", (ROWS, 2), "f4", chunks=(10, 2))[:50] = 1


def too_large(file: h5py.File) -> None:
    file.create_dataset("features", (ROWS, 10**12), "f4", chunks=(1, 1024))


@pytest.mark.parametrize(
    "attack", [external, virtual, external_link, soft_link, group, never_written, half_written, too_large]
)
@pytest.mark.parametrize("where", ["features", "labels"])
def test_a_file_that_leads_elsewhere_or_has_gaps_is_refused(
    attack: Callable[[h5py.File], None], where: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 1000)
    write(tmp_path / "other.h5", features=np.ones((ROWS, 2), np.float32))
    write(tmp_path / "a.h5", leave="features")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        attack(file)
        if where == "labels":
            del file["labels"]
            file.move("features", "labels")
            file["features"] = np.ones((ROWS, 2), np.float32)
    with pytest.raises(DataError) as caught:
        FeatureFile(tmp_path / "a.h5")
    assert "\n" not in str(caught.value)


def test_features_that_need_more_memory_than_there_is_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.h5")
    monkeypatch.setattr(memory, "get_available_bytes", lambda: 100)
    with pytest.raises(DataError, match="bytes of memory, 100 are available"):
        FeatureFile(tmp_path / "a.h5")


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    good = write(tmp_path / "good.h5", classes=["a", "b", "c"]).read_bytes()
    random = np.random.default_rng(0)
    read = 0
    for number in range(150):
        changed = bytearray(good)
        if number % 3:
            changed[random.integers(len(good))] ^= 1 << random.integers(8)
        else:
            del changed[random.integers(len(good)) :]
        (tmp_path / "a.h5").write_bytes(changed)
        try:
            source = FeatureRows(tmp_path / "a.h5")
            given = source.feature_file
            source.list_items()
            assert given.list_taps()[0].read(given.keys).shape[0] == ROWS
            read += 1
        except DataError as error:
            said = str(error)
            assert "\n" not in said
    assert 20 < read < 100  # a flipped bit in the rows gives a valid file with another number


@pytest.mark.parametrize("command", ["extract", "run"])
def test_features_are_not_extracted_again(command: str, tmp_path: Path, humeris: Callable[..., Any]) -> None:
    write(tmp_path / "a.h5")
    result = humeris(command, tmp_path / "a.h5", "-b", "nano")
    assert (result.code, result.out) == (2, "")
    assert "a.h5: is a file of features, not of images; give it to `humeris sweep`" in result.err


def test_a_backbone_cannot_be_chosen_among_features(tmp_path: Path, humeris: Callable[..., Any]) -> None:
    write(tmp_path / "a.h5")
    result = humeris("sweep", tmp_path / "a.h5", "-b", "nano")
    assert result.code == 2
    assert "leave -b out" in result.err
    assert humeris("sweep", tmp_path / "a.h5", "-l", "nothing").code == 2


def test_features_of_anyone_have_no_backbone_to_export(tmp_path: Path, humeris: Callable[..., Any]) -> None:
    write(tmp_path / "a.h5")
    assert humeris("sweep", tmp_path / "a.h5", "--head", "logreg,C=1", "-j", "1", "-o", "run").code == 0
    result = humeris("export", "run", "-o", "model.keras")
    assert result.code == 2
    assert "no backbone to stack the head on" in result.err
    assert not Path("model.keras").exists()


def test_a_second_sweep_finds_its_run_and_other_features_do_not(tmp_path: Path, humeris: Callable[..., Any]) -> None:
    write(tmp_path / "a.h5")
    sweep = ("sweep", tmp_path / "a.h5", "--head", "logreg,C=1", "-j", "1", "-o", "run", "--json")
    first = humeris(*sweep).json
    assert humeris(*sweep).json["best"] == first["best"]
    write(tmp_path / "a.h5", features=np.random.default_rng(9).normal(size=(ROWS, 8)))
    assert humeris(*sweep).code == 2


def own(path: Path, features: np.ndarray, **spec: Any) -> Path:
    """Write a file as `cache export` does, with the keys of images."""
    keys = np.stack([np.frombuffer(hashlib.sha256(b"%d" % row).digest(), np.uint8) for row in range(ROWS)])
    write(path, leave="features", keys=keys, **{"mid.avg": features})
    with h5py.File(path, "a") as file:
        file.attrs["humeris"], file.attrs["format"] = "1", FORMAT_VERSION
        file.attrs["spec"] = json.dumps(
            {**ExtractionSpec("net", "keras", "none", "0" * 64, (8, 8), "none", "1").to_dict(), **spec}
        )
    return path


def test_a_file_that_another_version_exported_is_refused_by_its_format(tmp_path: Path) -> None:
    path = own(tmp_path / "f.h5", np.eye(3, 8, dtype=np.float32)[np.arange(ROWS) % 3])
    assert FeatureFile(path).spec.backbone == "net"
    for change, words in (("modify", "format is 1, not 2"), ("remove", "format is None, not 2")):
        with h5py.File(path, "a") as file:
            file.attrs.modify("format", 1) if change == "modify" else file.attrs.pop("format")
        with pytest.raises(DataError, match=rf"f\.h5.*its {words}; write the file again with `humeris cache export`"):
            FeatureFile(path)


def test_a_run_is_of_the_features_and_not_of_the_files_name(tmp_path: Path, humeris: Callable[..., Any]) -> None:
    good = (np.eye(3, 8)[np.arange(ROWS) % 3] * 4).astype(np.float32)
    noise = np.random.default_rng(9).normal(size=(ROWS, 8)).astype(np.float32)
    words = ("--head", "logreg,C=1", "-j", "1", "--json")

    def swept(path: Path) -> dict[str, Any]:
        result = humeris("sweep", path, *words)
        assert result.code == 0, result.err
        found: dict[str, Any] = result.json
        return found

    path = own(tmp_path / "f.h5", good)
    first = swept(path)
    assert first["test"]["accuracy"] == 1
    assert swept(path)["run"] == first["run"]
    other = swept(own(path, noise))
    assert other["run"] != first["run"]
    assert other["best"]["id"] != first["best"]["id"]
    assert other["test"]["accuracy"] < 0.8
    (tmp_path / "elsewhere").mkdir()
    moved = swept(own(tmp_path / "elsewhere" / "f.h5", good[:, :5]))
    assert moved["run"] not in {first["run"], other["run"]}
    assert swept(own(tmp_path / "elsewhere" / "f.h5", good))["run"] == first["run"]
    assert swept(own(path, good, weights_sha256="1" * 64))["run"] != first["run"]


def test_a_trial_is_not_exported_on_features_that_changed(tmp_path: Path, humeris: Callable[..., Any]) -> None:
    good = (np.eye(3, 8)[np.arange(ROWS) % 3] * 4).astype(np.float32)
    path = own(tmp_path / "f.h5", good)
    assert humeris("sweep", path, "--head", "ridge", "-j", "1", "-o", "run").code == 0
    own(path, good + 1)
    with pytest.raises(RunError, match=r"f\.h5: the file has changed: it no longer holds the features of "):
        load_sources(FeatureFile(path), Run.load("run").find_trial()[0].tap_refs, FeatureFile(path).keys)


@pytest.mark.parametrize("rank", [2, 4])
def test_what_overflows_float32_is_refused_like_nan(tmp_path: Path, rank: int) -> None:
    values = np.random.default_rng(0).normal(size=(ROWS, 4)).reshape((ROWS, 4) if rank == 2 else (ROWS, 2, 2, 1))
    values[3].flat[1], values[7].flat[0], values[9].flat[0] = 1e39, -1e300, 3e38
    images = load(write(tmp_path / "a.h5", features=values))
    assert {each.name: each.reason for each in images.rejections} == {
        "features/00003": "not_finite",
        "features/00007": "not_finite",
    }
    assert images.feature_file is not None
    assert np.isfinite(FeatureMatrix.from_array(images.feature_file.list_taps()[0].read(images.keys)).to_array()).all()


def test_our_own_file_gives_the_run_that_the_cache_gives_and_is_exported(
    finished: Any, tmp_path: Path, humeris: Callable[..., Any]
) -> None:
    exported = humeris("cache", "export", finished.photos, "-b", "nano", "-o", "own.h5", "--cache", finished.cache)
    assert exported.code == 0, exported.err
    with h5py.File("own.h5") as file:
        assert json.loads(file.attrs["spec"])["backbone"] == "nano"
    swept = humeris("sweep", "own.h5", "--head", "logreg,C=0.1/1", "-j", "1", "-o", "run", "--json")
    assert swept.code == 0, swept.err
    theirs, ours = to_json(finished.run.summarize()), swept.json
    assert ours["test"] == theirs["test"]
    assert ours["best"]["score"]["accuracy"] == theirs["best"]["score"]["accuracy"]
    assert ours["best"]["tap_refs"][0]["layer"] == theirs["best"]["tap_refs"][0]["layer"]
    assert ours["data"]["images"]["root"] == str(finished.photos)
    model = humeris("export", "run", "-o", "model.keras", "--json")
    assert model.code == 0, model.err
    assert model.json["exported"]["parity"]["top1_agree"] == model.json["exported"]["parity"]["images"] == 18
    os.unlink("model.keras")
    with h5py.File("own.h5", "a") as file:
        moved = {**json.loads(file.attrs["data"]), "root": str(tmp_path / "nowhere")}
        file.attrs["data"] = json.dumps(moved)
    assert humeris("sweep", "own.h5", "--head", "logreg,C=0.1/1", "-j", "1", "-o", "run").code == 0
    failed = humeris("export", "run", "-o", "model.keras")
    assert failed.code == 2
    assert "cannot read an image that the export needs" in failed.err
    assert not Path("model.keras").exists()


def test_groups_survive_our_own_file(tmp_path: Path, humeris: Callable[..., Any], finished: Any) -> None:
    shutil.copytree(finished.photos, tmp_path / "photos")
    rows = [
        f"{path.relative_to(tmp_path / 'photos')},{path.parent.name},g{number // 2}"
        for number, path in enumerate(sorted((tmp_path / "photos").rglob("*.png")))
    ]
    (tmp_path / "photos" / "list.csv").write_text("path,label,group\n" + "\n".join(rows) + "\n")
    done = humeris("cache", "export", tmp_path / "photos/list.csv", "-b", "nano", "-o", "own.h5", "--cache", finished.cache)
    assert done.code == 0, done.err
    with Store() as store:
        before = load_images(tmp_path / "photos" / "list.csv", store)
    after = load(Path("own.h5"))
    assert [(each.name, each.item.group, each.digest) for each in after.used] == [
        (each.name, each.item.group, each.digest) for each in before.used
    ]


def test_keys_that_end_in_zeros_are_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rows = random.normal(size=(2000, 8)).astype(np.float32)
    found = load(write(tmp_path / "many.h5", features=rows, labels=np.arange(2000) % 3))
    assert len(found.used) == 2000
    assert {len(image.digest) for image in found.used} == {32}
    assert any(image.digest.endswith(b"\0") for image in found.used)
