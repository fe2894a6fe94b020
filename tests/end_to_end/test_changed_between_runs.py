"""What moves, changes or breaks between two runs: nothing stale is used, nothing good is lost, no error stays for ever."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from humeris.cache.store import Store
from humeris.classify.export import parity
from humeris.classify.export.predict import Predictor
from humeris.extract.backbones.keras_runtime import load_keras
from humeris.extract.images.load import load_images
from humeris.extract.pixels import decode

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _check_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fresh process of the export's check costs seconds each time; test_export shows it as it is."""
    monkeypatch.setattr(
        parity, "predict_in_subprocess", lambda _, model, images: (Predictor(model).predict_proba(images), 1.0)
    )


def network(path: Path, seed: int) -> Path:
    """A user's own file; the same structure and names, other weights for another seed."""
    keras = load_keras()
    image = keras.Input((16, 16, 3), name="pixels")
    kernel = keras.initializers.RandomNormal(seed=seed)
    keras.Model(
        image, keras.layers.Conv2D(6, 3, activation="relu", name="top", kernel_initializer=kernel)(image), name="net"
    ).save(path)
    return path


def done(humeris: Run, *words: object) -> Any:
    result = humeris("run", *words, "-j", "1", "--json")
    assert result.code == 0, result.err or result.out
    return result.json


def test_a_retrained_file_is_another_backbone_and_its_old_features_are_not_swept(
    humeris: Run, photos: Path, tmp_path: Path
) -> None:
    backbone = f"{network(tmp_path / 'n.keras', 1)},preprocessing=tf"
    before = done(humeris, photos, "-b", backbone)
    network(tmp_path / "n.keras", 2)
    after = done(humeris, photos, "-b", backbone)
    assert after["extracted"][0]["computed"] == 36
    used = {point["extraction"] for point in after["depth"]}
    assert used == {after["extracted"][0]["extraction"]}
    assert used.isdisjoint(point["extraction"] for point in before["depth"])
    swept = humeris("sweep", photos, "-b", backbone, "-j", "1", "--json").json
    assert {point["extraction"] for point in swept["depth"]} == used


def test_features_of_another_pixels_version_or_image_size_are_not_mixed_in(
    humeris: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(humeris, photos, "-b", "nano,image_size=32", "-l", "block5_out")
    first = done(humeris, photos, "-b", "nano", "-l", "block5_out")
    assert len(first["depth"]) == 1
    monkeypatch.setattr(decode, "get_version", lambda: "2, another decoder")
    second = done(humeris, photos, "-b", "nano", "-l", "block5_out")
    assert [point["extraction"] for point in second["depth"]] == [second["extracted"][0]["extraction"]]
    assert second["extracted"][0]["computed"] == 36
    everything = humeris("sweep", photos, "-j", "1", "--json").json["depth"]
    assert len({(point["backbone"], point["layer"]) for point in everything}) == len(everything) == 3


def test_a_run_follows_images_that_were_moved_and_renamed_and_computes_nothing(
    humeris: Run, photos: Path, tmp_path: Path
) -> None:
    words = ["-b", "nano", "-l", "block5_out", "-o", tmp_path / "run"]
    before = done(humeris, photos, *words)
    photos.rename(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere"
    (moved / "blob" / "03.png").rename(moved / "blob" / "zz.png")
    after = done(humeris, moved, *words)
    assert after["extracted"][0]["computed"] == 0
    assert after["best"] == before["best"]
    assert after["test"] == before["test"]
    assert "blob/zz.png" in (tmp_path / "run" / "images.csv").read_text()
    assert humeris("export", tmp_path / "run", "-o", tmp_path / "again.keras").code == 0


def test_a_backbone_file_that_was_moved_is_found_where_it_is_named_now(humeris: Run, photos: Path, tmp_path: Path) -> None:
    path = network(tmp_path / "n.keras", 1)
    words = [photos, "-o", tmp_path / "run"]
    done(humeris, *words, "-b", f"{path},preprocessing=tf")
    moved = path.rename(tmp_path / "m.keras")
    again = done(humeris, photos, "-o", tmp_path / "other", "-b", f"{moved},preprocessing=tf")
    assert again["extracted"][0]["computed"] == 0
    failed = humeris("export", tmp_path / "run", "-o", tmp_path / "x.keras")
    assert (failed.code, len(failed.err.strip().splitlines())) == (2, 1)
    named = humeris("export", tmp_path / "run", "-o", tmp_path / "x.keras", "-b", f"{moved},preprocessing=tf")
    assert named.code == 0, named.err


def test_weights_at_a_path_with_commas_and_spaces_are_exported(humeris: Run, photos: Path, tmp_path: Path) -> None:
    from humeris.extract.backbones.nano_network import WEIGHTS

    path = tmp_path / "we,ights of mine" / "n.weights.h5"
    path.parent.mkdir()
    path.write_bytes(WEIGHTS.read_bytes())
    assert done(humeris, photos, "-b", "nano", "-l", "block5_out", "--weights", path)["exported"]["parity"]["images"] > 0


@pytest.mark.parametrize("name", ["spec.json", "layers.json"])
def test_a_damaged_description_is_written_again_by_the_next_extract(
    name: str, humeris: Run, photos: Path, tmp_path: Path
) -> None:
    words = ["extract", photos, "-b", "nano", "-l", "block5_out"]
    assert humeris(*words).code == 0
    (path,) = (tmp_path / "cache" / "features").glob(f"*/{name}")
    path.unlink()
    path.write_text("{")
    humeris(*words)
    assert json.loads(path.read_bytes())
    assert humeris(*words).code == 0
    assert humeris("sweep", photos, "-b", "nano", "-j", "1").code == 0


def test_one_image_without_finite_activations_is_refused_and_the_rest_is_done(
    humeris: Run, photos: Path, tmp_path: Path
) -> None:
    keras = load_keras()
    image = keras.Input((16, 16, 3))
    spread = keras.ops.std(image, axis=(1, 2, 3), keepdims=True)
    keras.Model(image, keras.layers.Conv2D(4, 3, name="top")(image / spread)).save(tmp_path / "std.keras")
    Image.new("RGB", (20, 20), (90, 90, 90)).save(photos / "blob" / "flat.png")
    words = [photos, "-b", f"{tmp_path / 'std.keras'},preprocessing=none", "-l", "top", "-j", "1", "--json"]
    first = humeris("run", *words)
    assert first.code == 1
    assert [(each["name"], each["reason"]) for each in first.json["data"]["refused"]] == [("blob/flat.png", "not_finite")]
    assert first.json["exported"]["parity"]["images"] > 0
    again = humeris("run", *words)
    assert (again.code, again.json["extracted"][0]["forward_passes"]) == (1, 0)
    swept = humeris("sweep", photos, "-j", "1", "--json")
    assert (swept.code, swept.json["run"]) == (1, again.json["run"])


def test_a_copy_that_is_left_out_still_keeps_its_group_on_one_side(photos: Path, tmp_path: Path) -> None:
    """A test image is byte for byte a training image of patient1: no other image of patient1 may train."""
    (photos / "blob" / "copy.png").write_bytes((photos / "blob" / "05.png").read_bytes())
    lines = ["path,label,split,group"]
    for path in sorted(photos.glob("*/*.png")):
        name = str(path.relative_to(photos))
        split = "test" if path.name in {"copy.png", "00.png", "01.png"} else "train"
        group = "patient1" if name in {"blob/05.png", "blob/06.png", "blob/07.png"} else ""
        lines.append(f"{name},{path.parent.name},{split},{group}")
    (photos / "list.csv").write_text("\n".join(lines))
    images = load_images(photos / "list.csv", Store(tmp_path / "cache"), jobs=1)
    used = {image.name: image.item.split for image in images.used}
    assert used["blob/copy.png"] == "test"
    assert {"blob/05.png", "blob/06.png", "blob/07.png"}.isdisjoint(used)
    assert {each.name for each in images.rejections} == {"blob/06.png", "blob/07.png"}


def test_what_was_asked_for_and_is_not_cached_is_named(humeris: Run, photos: Path) -> None:
    assert humeris("extract", photos, "-b", "nano", "-l", "block5_out").code == 0
    for words, message in [
        (["-l", "block5_out", "-l", "blok4_out"], r"blok4_out.*closest: block5_out"),
        (["-l", "block5_out", "--pool", "avg", "--pool", "max"], "pool 'max'"),
        (["-b", "nano", "-b", "vgg16", "-l", "block5_out"], "vgg16"),
    ]:
        result = humeris("sweep", photos, *words, "-j", "1")
        assert result.code == 2
        assert len(result.err.strip().splitlines()) == 1
        assert re.search(message, result.err)


def test_the_next_command_names_the_cache_that_was_named(humeris: Run, photos: Path, tmp_path: Path) -> None:
    result = humeris("extract", photos, "-b", "nano", "-l", "block5_out", "--cache", tmp_path / "my cache")
    assert f"next: humeris sweep {photos} --cache '{tmp_path}/my cache'" in result.out
