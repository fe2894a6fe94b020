"""A head on the taps of several networks: one model, one input, each network's part in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.cache.errors import ModelError
from humeris.cache.store import Store
from humeris.classify import pipeline
from humeris.classify.export.predict import Predictor
from humeris.classify.runs.run import Run
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images
from humeris.extract.pixels.decode import decode

NANO, RANDOM = BackboneSpec.parse("nano"), BackboneSpec.parse("nano", weights="random")


@pytest.fixture(scope="module")
def outcome(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> pipeline.PipelineResult:
    """`humeris run` on the same layers of two networks whose layers have the same names, side by side."""
    import shutil

    folder = tmp_path_factory.mktemp("both")
    shutil.copytree(finished.cache, folder / "cache")
    with Store(folder / "cache", write=True) as store:
        taps = "nano,weights=random/block4_out:avg+nano/block5_out:max+nano/block4_out:avg"
        return pipeline.run(
            load_images(finished.photos, store, jobs=1),
            store,
            ExtractConfig([NANO, RANDOM], layers=taps, jobs=1),
            SweepConfig("logreg,C=0.1", layers=taps, out=folder / "run", jobs=1),
        )


def photographs(finished: Any, run: Run) -> np.ndarray:
    records = [record for record in run.load_image_records() if record.split == "test"]
    return np.stack([decode((finished.photos / record.name).read_bytes(), (64, 64)) for record in records])


def test_the_model_answers_as_the_cache_and_was_checked_so(finished: Any, outcome: pipeline.PipelineResult) -> None:
    done = outcome.export_result
    assert [source.backbone for source in done.trial.tap_refs] == ["nano,weights=random", "nano", "nano"]
    assert (done.parity.images, done.parity.top1_agree) == (18, 18)
    found = Predictor(done.path).predict_proba(photographs(finished, outcome.run))
    assert np.ptp(found, axis=0).max() > 0.1
    assert np.abs(found - outcome.run.load_probabilities()).max() < 1e-4


def test_the_model_is_flat_with_one_input_and_every_networks_own_weights(outcome: pipeline.PipelineResult) -> None:
    import keras

    model = keras.saving.load_model(outcome.export_result.path)
    assert [tensor.name for tensor in model.inputs] == ["image"]
    assert not {"Functional", "Sequential"} & {type(layer).__name__ for layer in model.layers}
    names = [layer.name for layer in model.layers]
    assert len(names) == len(set(names))
    twins = [layer for layer in model.layers if layer.name.endswith("stem_conv")]
    assert len(twins) == 2
    assert not np.allclose(twins[0].get_weights()[0], twins[1].get_weights()[0])


def test_the_card_names_both_networks(outcome: pipeline.PipelineResult) -> None:
    text = outcome.export_result.card.read_text()
    assert "- backbone: nano (humeris.nano()), up to its deepest tap; SHA-256 of the weights " in text
    assert "- backbone: nano,weights=random (humeris.nano()), up to its deepest tap; SHA-256 of the weights " in text
    assert "- nano,weights=random: random numbers" in text


def test_networks_of_two_image_sizes_are_refused_before_anything_is_computed(finished: Any, tmp_path: Path) -> None:
    requests = [NANO, BackboneSpec.parse("nano", weights="random", image_size=32)]
    with Store(tmp_path / "cache", write=True) as store:
        images = load_images(finished.photos, store, jobs=1)
        config = ExtractConfig(requests, layers="block5_out", jobs=1)
        for asked in (SweepConfig("logreg,C=1", concatenate=True, jobs=1), SweepConfig("head2toe", jobs=1)):
            with pytest.raises(
                ModelError, match=r": the backbones have several image sizes, but .* one input; give --image-size"
            ):
                pipeline.run(images, store, config, asked)
        assert list(store.iter_extractions()) == []


def test_a_run_on_two_image_sizes_names_them_at_the_export(finished: Any, tmp_path: Path) -> None:
    from humeris.classify.export.export import export
    from humeris.classify.sweep.sweep import sweep
    from humeris.extract.engine.extract import extract_features

    with Store(tmp_path / "cache", write=True) as store:
        images = load_images(finished.photos, store, jobs=1)
        for size in (64, 32):
            extract_features(images, store, ExtractConfig(f"nano,image_size={size}", layers=["block5_out"], jobs=1))[0]
        run = sweep(images, store, SweepConfig(["logreg,C=1"], concatenate=True, out=tmp_path / "run", jobs=1))
        both = next(trial for trial in run.load_trials() if len(trial.tap_refs) == 2)
        with pytest.raises(
            ModelError, match=r"have several image sizes \((32|64) x (32|64) \(nano\), .*\), but a model has one input"
        ):
            export(run, store, tmp_path / "model.keras", trial=both.id)
    assert not list(tmp_path.glob("*model*"))
