"""The source of an export: a trial of a run, with its head, its backbones and its cached predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.errors import ModelError
from ...cache.shard import to_keys
from ...cache.spec import ExtractionSpec
from ...cache.store import Store
from ...cache.typed_json import to_json
from ...extract.backbones.backbone_spec import BackboneSpec
from ...extract.backbones.taps import Tap
from ...extract.pixels.read_file import count_cores
from ..data import select_features
from ..data.cached_taps import FeatureStore
from ..evaluate.target import Target
from ..evaluate.trial import Score, Trial
from ..heads.fit import build_training_data, train
from ..heads.head import Head
from ..runs.finetuned_weights import FinetunedWeights, is_finetuned
from ..runs.image_records import ImageRecord
from ..runs.result import TestAccuracy
from ..runs.run import Run
from . import sample_images
from .model_metadata import ModelMetadata
from .rebuild_backbone import is_same_backbone, rebuild_backbone
from .stack_model import stack_model

N_CALIBRATION_IMAGES = 128


@dataclass(frozen=True)
class CachedPredictions:
    """The predictions that an exported model must reproduce.

    Parameters
    ----------
    records : list of ImageRecord
        The images, n of them.
    probabilities : ndarray
        (n, classes), predicted by the head from cached features, or by a fine-tuned network when it was scored.
    features : Any
        Cached features (n, d); None for a fine-tuned network.
    """

    records: list[ImageRecord]
    probabilities: np.ndarray
    features: Any = None


@dataclass(frozen=True)
class ExportSource:
    """A trial of a run, with everything that its model is built from.

    Parameters
    ----------
    run : Run
        A finished run.
    trial : Trial
        The trial to export.
    score : Score
        Its score on the held-out images.
    records : list of ImageRecord
        The images of the run.
    specs : mapping of str to ExtractionSpec
        Specs of the extractions that the trial uses, by name.
    feature_store : FeatureStore
        The store that holds their features.
    head : Head
        The head, trained on all images outside the test split.
    finetuned_weights : mapping or None
        Weights of the fine-tuned layers of the backbone, by layer name; None if the backbone is frozen.
    """

    run: Run
    trial: Trial
    score: Score
    records: list[ImageRecord]
    specs: Mapping[str, ExtractionSpec]
    feature_store: FeatureStore
    head: Head
    finetuned_weights: Mapping[str, Sequence[np.ndarray]] | None = None

    @classmethod
    def load(
        cls, run: Run, store: Store, trial_id: str | None = None, backbone_specs: Sequence[BackboneSpec] = ()
    ) -> ExportSource:
        """Load a trial of a run; its head is trained first if the run did not save it.

        Parameters
        ----------
        run : Run
            A finished run.
        store : Store
            The cache that the run was computed with.
        trial_id : str or None
            First digits of an id in ``leaderboard.csv``; the best trial by default.
        backbone_specs : sequence of BackboneSpec
            Backbones whose files were moved, with their new paths.

        Raises
        ------
        RunError
            If there is no such trial, or its features are no longer cached.
        ModelError
            If no model can be built from the trial, or `backbone_specs` are of other networks.
        """
        trial, score = run.find_trial(trial_id)
        records = run.load_image_records()
        specs = _load_specs(run, trial)
        _check_backbone_specs(backbone_specs, specs)
        feature_store = run.metadata.data.open().feature_file or store
        if is_finetuned(trial):
            finetuned = FinetunedWeights.load(run, trial)
            return cls(run, trial, score, records, specs, feature_store, finetuned.head, finetuned.weights)
        head = run.load_head(trial) or _train_head(run, feature_store, trial, score, records)
        return cls(run, trial, score, records, specs, feature_store, head)

    @property
    def target(self) -> Target:
        """The kind of label that the model predicts."""
        return self.run.metadata.splits.get_target()

    @property
    def image_size(self) -> tuple[int, int]:
        """The size (height, width) of the model's input, in pixels."""
        return self.specs[self.trial.tap_refs[0].extraction].image_size

    def build_model(self, backbone_specs: Sequence[BackboneSpec] = ()) -> Any:
        """Build the Keras model of the head stacked on its backbones, see `stack_model`; raises `ModelError`."""
        backbones = {
            name: rebuild_backbone(spec, backbone_specs, tuned_weights=self.finetuned_weights)
            for name, spec in self.specs.items()
        }
        taps = [Tap(tap_ref.layer, tap_ref.pool) for tap_ref in self.trial.tap_refs]
        return stack_model([backbones[tap_ref.extraction] for tap_ref in self.trial.tap_refs], taps, self.head)

    def build_metadata(self, precision: str) -> ModelMetadata:
        """Return the metadata to store in the model; its test accuracy is that of single views, as the model uses."""
        result = self.run.result
        test = TestAccuracy.from_scores(result.single_view_test) if self.trial.id == result.best.id else None
        return ModelMetadata(
            classes=tuple(self.head.class_names),
            image_size=next(iter(self.specs.values())).image_size,
            pixels=next(iter(self.specs.values())).pixels,
            precision=precision,
            specs=self.specs,
            trial=self.trial,
            test=to_json(test),
            target_name=self.run.metadata.splits.target_name,
        )

    def load_calibration_images(self) -> np.ndarray:
        """Load up to 128 images (n, height, width, 3) uint8 outside the test split, to calibrate activations with."""
        return self.load_pixels(sample_images.select_calibration_records(self.records, N_CALIBRATION_IMAGES))

    def load_pixels(self, records: Sequence[ImageRecord]) -> np.ndarray:
        """Load images as (n, height, width, 3) uint8; raises `DataError` if one is missing or has changed."""
        return sample_images.load_pixels(self.run, records, self.image_size)

    def load_cached_predictions(self, max_images: int) -> CachedPredictions:
        """Return the predictions to reproduce on up to `max_images` images, of the test split if it has enough."""
        if self.finetuned_weights is not None:
            test_records = [record for record in self.records if record.split == "test"]
            records = sample_images.select_evenly(test_records, max_images)
            index_by_digest = {record.digest: index for index, record in enumerate(test_records)}
            rows = [index_by_digest[record.digest] for record in records]
            return CachedPredictions(records, self.run.load_probabilities()[rows])
        records = sample_images.select_parity_records(self.records, max_images)
        keys = to_keys([record.digest for record in records])
        features = select_features.load_matrix(self.feature_store, self.trial.tap_refs, keys)
        return CachedPredictions(records, self.head.predict_proba(features), features)


def _load_specs(run: Run, trial: Trial) -> dict[str, ExtractionSpec]:
    specs = {tap_ref.extraction: run.get_spec(tap_ref) for tap_ref in trial.tap_refs}
    if any(not spec.architecture for spec in specs.values()):
        raise ModelError(
            f"{run.path}: no backbone to stack the head on (the feature file does not name the network that computed its "
            "features); extract with humeris, or use the head's arrays in heads/"
        )
    sizes = {spec.image_size: spec.title for spec in specs.values()}
    if len(sizes) > 1:
        size_list = ", ".join(f"{height} x {width} ({title})" for (height, width), title in sizes.items())
        raise ModelError(
            f"{run.path}: the backbones of trial {trial.id} have several image sizes ({size_list}), but a model has one "
            "input; extract with one --image-size, or export another trial of leaderboard.csv with --trial"
        )
    return specs


def _check_backbone_specs(backbone_specs: Sequence[BackboneSpec], specs: Mapping[str, ExtractionSpec]) -> None:
    if backbone_specs and not any(
        is_same_backbone(backbone_spec, spec) for backbone_spec in backbone_specs for spec in specs.values()
    ):
        raise ModelError(
            f"-b {backbone_specs[0].title}: not the backbone of this trial "
            f"({', '.join(spec.title for spec in specs.values())}); leave -b out"
        )


def _train_head(run: Run, feature_store: FeatureStore, trial: Trial, score: Score, records: Sequence[ImageRecord]) -> Head:
    """Train and save the head of a trial that was not selected, on all images outside the test split."""
    train_records = sorted((record for record in records if record.split != "test"), key=lambda record: record.digest)
    target = run.metadata.splits.get_target()
    keys = to_keys([record.digest for record in train_records])
    views = run.metadata.views
    training_data = build_training_data(
        select_features.open_readers(feature_store, trial.tap_refs, views),
        keys,
        target.encode([record.label for record in train_records]),
        target,
        views=views,
        threads=count_cores(),
    )
    head = train(trial, score, training_data, run.metadata.seed)
    run.save_head(trial, head)
    return head
