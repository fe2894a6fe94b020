"""The card beside a model: what the run says, nothing more, and harmless."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from humeris.cache.spec import ExtractionSpec
from humeris.classify.export.export_result import ExportResult
from humeris.classify.export.formats.keras_format import KerasFormat
from humeris.classify.export.model_card import render_model_card
from humeris.classify.export.parity import Parity
from humeris.classify.runs.run import Run
from humeris.extract.backbones.keras_applications import APPLICATIONS
from humeris.extract.backbones.registry import describe_license


@pytest.fixture
def text(finished: Any) -> str:
    return Path(f"{finished.model}.md").read_text()


def test_the_card_gives_the_scores_of_the_run_with_their_intervals(finished: Any, text: str) -> None:
    test = finished.run.result.test
    low, high = test.accuracy_95
    assert f"On {test.images} test images" in text
    assert f"| accuracy | {test.accuracy:.4f} | {low:.3f} to {high:.3f} |" in text
    assert f"| macro-F1 | {test.macro_f1:.4f} |" in text
    score = finished.run.find_trial()[1]
    assert f"accuracy {score.accuracy:.4f}, log-loss {score.log_loss:.3f}" in text


def test_the_card_counts_what_was_learnt_from_and_what_was_tested_on(text: str) -> None:
    for name in ("blob", "noise", "stripes"):
        assert f"| {name} | 8 | 6 |" in text


def test_the_card_says_what_goes_in_and_how_it_was_checked(finished: Any, text: str) -> None:
    assert "RGB, uint8, (batch, 64, 64, 3)" in text
    assert "divided by 127.5, less 1" in text
    assert "compared with the answers from the cached features on 18 images: 18 classes equal" in text
    done = finished.outcome.export_result
    assert f"SHA-256 {done.sha256}" in text
    assert re.search(r"One image takes \d+\.\d ms there", text)
    assert finished.run.result.best.id in text


def test_the_card_has_no_gaps(text: str) -> None:
    assert not re.search(r"None|undefined|\{\{|\{%|\n\n\n", text)
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        r"# model.keras", "## Scores", "## Data", "## Model", "## Input and output", "## Check", "## Licence of the weights",
        "## To make it again",
    ]  # fmt: skip


def carded(run: Run, trial: str | None = None) -> str:
    chosen, score = run.find_trial(trial)
    parity = Parity(18, 18, 1e-7)
    done = ExportResult(
        Path("m.keras"), Path("m.keras.md"), KerasFormat(), "float32", "", chosen, parity, 2.0, 1000, "f" * 64, True
    )
    return render_model_card(
        done, run, score, run.load_image_records(), [run.get_spec(chosen.tap_refs[0])], "humeris export run -o m.keras"
    )


def test_a_trial_that_was_not_chosen_has_no_test_scores(finished: Any) -> None:
    best = finished.run.find_trial()[0]
    other = next(trial for trial in finished.run.load_trials() if trial != best)
    text = carded(finished.run, other.id)
    assert "It was not chosen, so it was never scored on the test split." in text
    assert "balanced accuracy" not in text
    assert "\n\n\n" not in text


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
