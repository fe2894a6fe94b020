"""`humeris extract`, `layers`, `backbones` and `doctor`: what they say, and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from humeris.cache.store import Store

Run = Callable[..., Any]


def test_extract_says_what_it_did_and_what_next(photos: Path, humeris: Run) -> None:
    result = humeris("extract", photos, "-b", "nano", "-l", "block5_out")
    assert result.code == 0
    assert result.err == ""
    assert "36 images used (36 PNG)" in result.out
    assert "36 computed" in result.out
    assert f"next: humeris sweep {photos}" in result.out


def test_extract_as_json_is_one_document(photos: Path, humeris: Run) -> None:
    result = humeris("extract", photos, "-b", "nano", "-l", "block5_out", "--json")
    (done,) = result.json["extracted"]
    assert done["rows"] == {"block5_out:avg": 36}
    assert done["computed"] == 36
    assert result.json["data"]["used"] == 36
    again = humeris("extract", photos, "-b", "nano", "-l", "block5_out", "--json").json["extracted"][0]
    assert (again["computed"], again["forward_passes"], again["rows"], again["bytes"]) == (0, 0, {}, 0)


def test_quiet_says_nothing(photos: Path, humeris: Run) -> None:
    result = humeris("extract", photos, "-b", "nano", "-l", "block5_out", "-q")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_several_backbones_and_a_refused_image(photos: Path, humeris: Run) -> None:
    (photos / "blob" / "bad.jpg").write_bytes(b"\xff\xd8\xff" + bytes(50))
    result = humeris("extract", photos, "-b", "nano", "-b", "nano,weights=random", "-l", "block5_out", "--json")
    assert result.code == 1
    assert [each["computed"] for each in result.json["extracted"]] == [36, 36]
    assert [(each["name"], each["reason"]) for each in result.json["data"]["refused"]] == [("blob/bad.jpg", "damaged")]
    text = humeris("extract", photos, "-b", "nano", "-l", "block5_out")
    assert text.code == 1
    assert "blob/bad.jpg: damaged" in text.out


def test_an_image_refused_is_exit_code_one_on_every_run(photos: Path, humeris: Run) -> None:
    (photos / "blob" / "page.jpg").write_text("<html>")
    for _ in range(2):
        result = humeris("extract", photos, "-b", "nano", "-l", "block5_out")
        assert result.code == 1
        assert "blob/page.jpg: not_an_image" in result.out


def test_activations_that_are_not_finite_are_exit_code_one(photos: Path, humeris: Run, tmp_path: Path) -> None:
    from humeris.extract.backbones.keras_runtime import load_keras

    keras = load_keras()
    image = keras.Input((8, 8, 3))
    large = keras.layers.Rescaling(1e38, name="huge")(keras.layers.Rescaling(1e30)(image))
    keras.Model(image, large).save(tmp_path / "bad.keras")
    result = humeris("extract", photos, "-b", f"{tmp_path}/bad.keras,preprocessing=none", "-l", "huge", "--limit", "2")
    assert result.code == 1
    assert "huge:avg: NaN or infinity for 6 images" in result.out


def test_a_dry_run_computes_nothing_and_foretells_the_bytes(photos: Path, humeris: Run) -> None:
    options = ("-b", "nano", "-l", "block1_out:map", "-l", "block2_out:map", "-l", "block5_out:map")
    first = humeris("extract", photos, *options, "--dry-run", "--json")
    assert first.code == 0
    (plan,) = first.json["planned"]
    assert (plan["images"], plan["to_compute"]) == (36, 36)
    assert plan["rows"] == {"block1_out:map": 36, "block2_out:map": 36, "block5_out:map": 36}
    assert plan["bytes_free"] > 0
    assert plan["seconds_estimated"] >= 0
    assert not list(Store().path.glob("features/*"))
    written = humeris("extract", photos, *options, "--json").json["extracted"][0]["bytes"]
    on_disk = sum(path.stat().st_size for path in Store().path.glob("features/*/*/*.h5"))
    assert written == on_disk
    assert abs(plan["bytes"] - written) < 0.1 * written
    after = humeris("extract", photos, *options, "--dry-run", "--json").json["planned"][0]
    assert (after["to_compute"], after["bytes"]) == (0, 0)
    assert "dry run: nothing was computed" in humeris("extract", photos, *options, "--dry-run").out


def test_the_limit_is_per_class(photos: Path, humeris: Run) -> None:
    result = humeris("extract", photos, "-b", "nano", "-l", "block5_out", "--limit", "2", "--json")
    assert result.json["data"]["used"] == 6


def test_the_options_can_come_from_the_environment(photos: Path, humeris: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUMERIS_BACKBONE", "nano")
    monkeypatch.setenv("HUMERIS_POOL", "max")
    monkeypatch.setenv("HUMERIS_IMAGE_SIZE", "32")
    monkeypatch.setenv("HUMERIS_JSON", "1")
    (done,) = humeris("extract", photos, "-l", "block5_out").json["extracted"]
    assert done["taps"] == ["block5_out:max"]
    assert done["extraction"].startswith("nano-32-")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-b", "nanoo"), "closest: nano"),
        (("-b", "nano", "-l", "block6"), "closest: "),
        (("-b", "nano", "-l", "block5_out:mean"), "unknown pool 'mean'; choose one of avg"),
        (("-b", "nano", "--weights", "nowhere.h5"), "nowhere.h5: no such file; give"),
        (("-b", "nano", "--image-size", "big"), "8 to 4096"),
        (("-b", "nano", "-l", "block5_out:grid9"), "grid does not fit the layer's"),
        (("-b", "nano", "--pool", "cls", "-l", "block5_out"), "pool cls does not apply to the layer's output"),
        (("-b", "net.keras,preprocessing=tf"), "net.keras: no such file; check"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(arguments: tuple[str, ...], said: str, photos: Path, humeris: Run) -> None:
    result = humeris("extract", photos, *arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert said in result.err


def test_an_error_as_json_is_one_document(photos: Path, humeris: Run) -> None:
    result = humeris("extract", photos, "-b", "nanoo", "--json")
    assert result.code == 2
    assert "closest: nano" in json.loads(result.out)["error"]


def test_layers_lists_shapes_bytes_costs_and_defaults(humeris: Run) -> None:
    found = humeris("layers", "nano", "--json")
    assert found.code == 0
    layers = {each["layer"]: each for each in found.json["layers"]}
    assert layers["block5_out"]["shape"] == [4, 4, 144]
    assert layers["block5_out"]["bytes_per_image"] == {"avg": 576, "grid2": 2304, "map": 4608}
    shares = [each["share_of_cost"] for each in found.json["layers"]]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert layers["block5_out"]["default"]
    assert not layers["block1_res1_conv"]["is_cut_point"]
    text = humeris("layers", "nano").out
    assert "* block5_out" in text
    assert "million multiply-adds" in text


def test_layers_shows_the_pools_asked_for(humeris: Run) -> None:
    found = humeris("layers", "nano", "--pool", "max", "--pool", "grid4", "--image-size", "32", "--json").json
    layers = {each["layer"]: each["bytes_per_image"] for each in found["layers"]}
    assert layers["block1_out"] == {"max": 96, "grid4": 1536}
    assert layers["block5_out"] == {"max": 576}


def test_backbones_lists_all_of_them(humeris: Run) -> None:
    found = humeris("backbones", "--json")
    assert len(found.json["backbones"]) == 41
    assert {"name", "constructor", "size", "min_size", "preprocessing", "pretrained_weights"} == set(
        found.json["backbones"][0]
    )
    assert "mobilenet_v2" in humeris("backbones").out


def test_doctor_reports_versions_devices_and_the_cache(photos: Path, humeris: Run) -> None:
    humeris("extract", photos, "-b", "nano", "-l", "block5_out", "-q")
    found = humeris("doctor", "--json")
    assert found.code == 0
    assert found.json["precision"]["default"] == "float32"
    assert found.json["precision"]["auto"] in {"float32", "bfloat16", "float16"}
    assert found.json["cores"] >= 1
    assert any("cpu" in device.lower() for device in found.json["devices"])
    assert found.json["packages"]["keras"].startswith("3.")
    assert found.json["cache"]["extractions"] == 1
    assert found.json["weights_at_hand"] == []
    text = humeris("doctor").out
    assert "1 extractions, writable" in text


def test_doctor_says_what_is_wrong_with_a_cache(tmp_path: Path, humeris: Run) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    found = humeris("doctor", "--cache", tmp_path / "thesis")
    assert "not a humeris cache" in found.out
