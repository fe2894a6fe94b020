"""The model card: what the run and the export recorded, complete and safe to publish."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from humeris.cache.spec import ExtractionSpec
from humeris.classify.export.export_result import ExportResult
from humeris.classify.export.formats.format import Format
from humeris.classify.export.formats.keras_format import KerasFormat
from humeris.classify.export.formats.litert_format import LiteRtFormat
from humeris.classify.export.model_card import is_model_card, render_model_card
from humeris.classify.export.parity import Parity
from humeris.classify.runs.run import Run
from humeris.extract.backbones.keras_applications import APPLICATIONS
from humeris.extract.backbones.registry import describe_license
from humeris.extract.pixels import decode


@pytest.fixture
def text(finished: Any) -> str:
    return Path(f"{finished.model}.md").read_text()


def test_the_card_gives_the_scores_of_the_run_with_their_intervals(finished: Any, text: str) -> None:
    test = finished.run.result.test
    low, high = test.accuracy_95
    assert f"On {test.images} test images" in text
    assert f"| accuracy | {100 * test.accuracy:.1f} % | {100 * low:.1f}–{100 * high:.1f} |" in text
    assert f"| macro-F1 | {100 * test.macro_f1:.1f} % | {100 * test.macro_f1_95[0]:.1f}–" in text
    for scores in test.per_class:
        expected = " | ".join(f"{100 * value:.1f} %" for value in (scores.precision, scores.recall, scores.f1))
        assert f"| {scores.class_name} | {expected} |" in text
    score = finished.run.find_trial()[1]
    assert f"accuracy {100 * score.accuracy:.1f} %, log-loss {score.log_loss:.3f}" in text


def test_the_card_counts_training_and_test_images_of_each_class(text: str) -> None:
    for name in ("blob", "noise", "stripes"):
        assert f"| {name} | 8 | 6 |" in text


def test_the_card_says_how_to_use_the_model_and_how_it_was_checked(finished: Any, text: str) -> None:
    assert "RGB, uint8, (batch, 64, 64, 3)" in text
    assert "preprocessing inside the model: pixels scaled to [-1, 1]" in text
    assert "the probabilities of the head on cached features on 18 images: the same class on 18, largest difference" in text
    assert "\n    humeris predict model.keras IMAGES\n" in text
    assert '\n    for prediction in humeris.predict("model.keras", "IMAGES"):\n' in text
    assert "trust" not in text
    assert text.count(f"\n    humeris run {finished.photos}\n") == 1
    assert "logistic regression on features of the frozen backbone nano," in text
    done = finished.outcome.export_result
    assert f"SHA-256 {done.sha256}" in text
    assert re.search(r"Inference takes \d+\.\d ms per image", text)
    assert finished.run.result.best.id in text


def test_the_card_has_no_gaps(text: str) -> None:
    assert not re.search(r"None|undefined|\{\{|\{%|\n\n\n", text)
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# model.keras", "## Intended use", "## How to use", "## Training data", "## Evaluation", "## Parity",
        "## Limitations", "## Model details", "## License of the backbone weights", "## Provenance",
    ]  # fmt: skip


def test_the_card_is_recognized_as_one(text: str) -> None:
    assert is_model_card(text.encode())
    assert not is_model_card(b"# My notes\n")


def test_the_card_of_a_model_that_can_run_code_asks_for_trust(finished: Any) -> None:
    text = carded(finished.run, model_format=LiteRtFormat())
    assert "\n    humeris predict m.keras IMAGES --trust\n" in text
    assert '\n    for prediction in humeris.predict("m.keras", "IMAGES", trust=True):\n' in text
    assert "Models in litert format can run code: set `trust` only if you trust the source of the file." in text
    assert "\n\n\n" not in text


def carded(run: Run, trial: str | None = None, model_format: Format | None = None) -> str:
    chosen, score = run.find_trial(trial)
    parity = Parity(18, 18, 1e-7)
    done = ExportResult(
        Path("m.keras"),
        Path("m.keras.md"),
        model_format or KerasFormat(),
        "float32",
        "",
        chosen,
        parity,
        2.0,
        1000,
        "f" * 64,
        True,
    )
    return render_model_card(
        done, run, score, run.load_image_records(), [run.get_spec(chosen.tap_refs[0])], "humeris export run -o m.keras"
    )


def test_a_trial_that_was_not_chosen_has_no_test_scores(finished: Any) -> None:
    best = finished.run.find_trial()[0]
    other = next(trial for trial in finished.run.load_trials() if trial != best)
    text = carded(finished.run, other.id)
    assert "This trial was not selected, so it was not scored on the test split." in text
    assert "balanced accuracy" not in text
    assert "precision |" not in text
    assert "\n\n\n" not in text


def test_near_duplicates_and_caveats_are_limitations(finished: Any, tmp_path: Path) -> None:
    assert "near-duplicate" not in carded(finished.run)
    shutil.copytree(finished.path, tmp_path / "run")
    described = json.loads((tmp_path / "run/run.json").read_text())
    described["result"]["near_duplicates"] |= {"test_images": 2, "accuracy_without": 0.9375}
    described["result"]["notes"] = ["few <images>"]
    (tmp_path / "run/run.json").write_text(json.dumps(described))
    limitations = carded(Run.load(tmp_path / "run")).split("## Limitations")[1].split("\n## ")[0]
    assert (
        "\n- 2 of the test images have a near-duplicate among the training images; "
        "without them, the test accuracy is 93.8 %.\n"
        "- Few \\<images\\>.\n"
    ) in limitations


def test_names_cannot_break_out_of_the_card(finished: Any, tmp_path: Path) -> None:
    shutil.copytree(finished.path, tmp_path / "run")
    described = json.loads((tmp_path / "run/run.json").read_text())
    described["splits"]["classes"][0] = "<script>alert(1)</script>|`x`\n# heading ‮"
    described["data"]["origin"]["source"] = "[link](javascript:x)"
    (tmp_path / "run/run.json").write_text(json.dumps(described))
    text = carded(Run.load(tmp_path / "run"))
    assert r"\<script\>alert(1)\</script\>\|\`x\`\n\# heading \u202e" in text.replace("\\\\", "\\")
    assert r"\[link\](javascript:x)" in text
    assert "‮" not in text


def spec_of(constructor: str) -> ExtractionSpec:
    return ExtractionSpec(constructor, f"keras.applications.{constructor}()", "imagenet", "0", (8, 8), "tf", "1")


def test_every_network_that_comes_by_name_has_a_note_on_its_licence() -> None:
    unknown = {
        each.constructor for each in APPLICATIONS if "unknown to humeris" in describe_license(spec_of(each.constructor))
    }
    assert unknown == {"ResNet50V2", "ResNet101V2", "ResNet152V2"}
    assert describe_license(spec_of("ResNet50")).startswith("MIT, by Kaiming He")
    assert describe_license(spec_of("VGG16")).startswith("Creative Commons Attribution")
    assert "ImageNet" in describe_license(spec_of("EfficientNetV2B0"))


@pytest.mark.parametrize("kind", ["large jpeg", "turned jpeg", "transparent png", "hidden png", "deep png"])
def test_who_follows_the_card_alone_gets_the_pixels_that_humeris_gets(kind: str, text: str) -> None:
    """Each step below is a sentence of the card."""
    (side,) = set(map(int, re.findall(r"`image\.draft\(\"RGB\", \((\d+), \1\)\)`", text)))
    width, height = map(int, re.findall(r"`image\.resize\(\((\d+), (\d+)\), Image\.Resampling\.BILINEAR\)`", text)[0])
    for words in ("ImageOps.exif_transpose", "composite it onto white", "not if it is transparent everywhere", "16 bits"):
        assert words in text
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    colors = np.asarray(Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).resize((900, 700)))
    alpha = np.zeros((700, 900), np.uint8) if kind == "hidden png" else rng.integers(0, 256, (700, 900), dtype=np.uint8)
    if kind == "deep png":
        Image.fromarray(colors[..., 0].astype(np.uint16) * 13).save(buffer, "PNG")
    elif kind.endswith("png"):
        Image.fromarray(np.dstack([colors, alpha])).save(buffer, "PNG")
    else:
        exif = Image.Exif()
        exif[0x0112] = 6 if kind == "turned jpeg" else 1
        Image.fromarray(colors).save(buffer, "JPEG", exif=exif)
    image: Image.Image = Image.open(buffer)
    if image.format == "JPEG":
        image.draft("RGB", (side, side))
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGBA" and image.getchannel("A").getextrema()[1]:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode == "I;16":
        samples = np.asarray(image)
        depth = next(bits for bits in (8, 10, 12, 16) if samples.max() < 1 << bits)
        image = Image.fromarray((samples >> (depth - 8)).astype(np.uint8))
    found = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found, decode.decode(buffer.getvalue(), (height, width)))
