"""The two trainings of a fine-tuning: to find the best epoch, and on everything but the test split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...cache.store import Store
from ...extract.backbones.build import Backbone
from ...extract.images.load import Progress
from ...extract.pixels.decode_pool import DecoderPool
from ...extract.pixels.read_file import count_cores
from ..data import select_features
from ..data.feature_matrix import FeatureMatrix
from ..evaluate.trial import Score
from ..export.rebuild_backbone import rebuild_backbone
from ..heads.fit import build_training_data, train
from ..heads.head import Head
from ..heads.neural.early_stopping import EarlyStopping, train_subsample
from ..heads.training_data import TrainingData
from ..runs.finetuned_weights import FinetunedWeights
from . import batches as feed
from . import train_loop
from .batches import Batches
from .checkpoint import Checkpoint
from .finalize import MapPredictions
from .image_batches import ImageBatches
from .prepare import FinetuneSetup
from .train_loop import Epoch, EvalBatches

_SAMPLE_SIZE = 64  # images whose predictions from maps and from pixels are compared
_MIN_RELATIVE_SCALE = 0.1  # of the median standard deviation: the smallest divisor of a feature
_VALUES_PER_BLOCK = 1 << 21  # feature values per block when means and standard deviations are computed


class Trainer:
    """The two trainings of a fine-tuning."""

    def __init__(
        self,
        setup: FinetuneSetup,
        store: Store,
        checkpoint: Checkpoint,
        on_epoch: Callable[[Epoch], None],
        progress: Progress | None,
    ) -> None:
        self._setup, self._store, self._jobs = setup, store, setup.config.jobs or count_cores()
        self._checkpoint, self._on_epoch, self._progress = checkpoint, on_epoch, progress
        self._seed, splits, rows = setup.seed, setup.splits, setup.splits.development
        self._train_rows, self._held_out_rows = setup.fold
        fold = (np.searchsorted(rows, self._train_rows), np.searchsorted(rows, self._held_out_rows))
        no_features = FeatureMatrix.from_array(np.zeros((len(rows), 1), np.float32))
        self._training_data = TrainingData(no_features, splits.labels[rows], splits.target, (fold,), np.arange(len(rows)))
        self._network: Any = None
        self._open_batches: list[Any] = []
        self._decoders = DecoderPool(self._jobs)  # shared by all batches: training and scoring alternate

    def close(self) -> None:
        """Stop the threads that make batches, and the decoder processes."""
        for image_batches in self._open_batches:
            image_batches.close()
        self._decoders.close()

    def find_best_epoch(self) -> tuple[EarlyStopping, dict[str, float]]:
        """Train until the validation loss stops falling; return the curves and the metrics before training."""
        config, labels = self._setup.config, self._setup.splits.labels
        train_rows = self._setup.splits.development[
            train_subsample(self._training_data, *self._training_data.folds[0], self._seed)
        ]
        eval_batches = EvalBatches(
            self._make_batches(self._held_out_rows, False),
            labels[self._held_out_rows],
            self._make_batches(train_rows, False),
            labels[train_rows],
            self._setup.splits.target,
        )
        early_stopping, initial_metrics, self._network = train_loop.find_best_epoch(
            lambda: self._build_network(self._train_rows),
            self._make_batches(self._train_rows, True),
            eval_batches,
            config,
            self._checkpoint,
            self._on_epoch,
            self._progress,
        )
        return early_stopping, initial_metrics

    def train_final(self, early_stopping: EarlyStopping) -> FinetunedWeights:
        """Return the final weights: of a training on everything but the test split, or of the best epoch."""
        if self._setup.config.refit:
            rows = self._setup.splits.development
            self._network = self._build_network(rows)
            train_batches = self._make_batches(rows, True)
            train_loop.refit(
                self._network,
                train_batches,
                early_stopping.best_epoch + 1,
                self._setup.config,
                self._checkpoint,
                self._on_epoch,
                self._progress,
            )
        return FinetunedWeights(*self._network.get_weights_and_head())

    def score(self, early_stopping: EarlyStopping, seconds: float) -> Score:
        """Return the score of the best epoch on the held-out images."""
        return self._training_data.score(early_stopping.predictions, seconds, early_stopping.to_fit_info())

    def predict_sample(self) -> MapPredictions | None:
        """Return predictions of some held-out images from their cached maps."""
        if self._setup.cut is None:
            return None
        rows = self._held_out_rows[np.unique(np.linspace(0, len(self._held_out_rows) - 1, _SAMPLE_SIZE).astype(int))]
        return MapPredictions(rows, self._network.predict_proba(self._make_batches(rows, False)))

    def _make_batches(self, rows: np.ndarray, is_training: bool) -> Batches:
        new_batches = feed.make_batches(self._setup, self._store, rows, is_training, self._decoders)
        self._open_batches += [new_batches] if isinstance(new_batches, ImageBatches) else []
        return new_batches

    def _build_network(self, rows: np.ndarray) -> Any:
        """Return the network with the head that was trained on the frozen features of `rows`."""
        from . import trainable_tail

        setup = self._setup
        head, mean, deviation = self._train_head(rows)
        if setup.mode == "random":
            return trainable_tail.Network(
                self._build_backbone(),
                setup.taps,
                None,
                trainable_tail.reinitialize(head, self._seed),
                setup.splits.target,
            )
        return trainable_tail.Network(
            self._build_backbone(), setup.taps, setup.cut, head, setup.splits.target, mean, deviation
        )

    def _build_backbone(self) -> Backbone:
        config = self._setup.config
        return rebuild_backbone(
            self._setup.spec, self._setup.backbone_specs, fold_batch_norm=False, precision=config.precision
        )

    def _train_head(self, rows: np.ndarray) -> tuple[Head, np.ndarray, np.ndarray]:
        """Return the head trained on the frozen features of `rows`, and the mean and standard deviation (d,) of these."""
        from sklearn.preprocessing import StandardScaler

        from . import trainable_tail

        setup, splits = self._setup, self._setup.splits
        views = setup.frozen_views
        readers = select_features.open_readers(self._store, setup.trial.tap_refs, views)
        training_data = build_training_data(
            readers, setup.images.keys[rows], splits.labels[rows], splits.target, views=views, threads=self._jobs
        )
        head = train(setup.trial, setup.score, training_data, self._seed)
        trainable_tail.check_trainable(head, splits.target, setup.trial.head, f"{setup.run.path}, trial {setup.trial.id}")
        scaler = StandardScaler()
        for _, block in training_data.features.iter_blocks(
            size=max(1, _VALUES_PER_BLOCK // training_data.features.shape[1])
        ):
            scaler.partial_fit(block)
        # A nearly constant feature is not scaled up: if fine-tuning lets it vary, it would dominate all others.
        return head, scaler.mean_, np.maximum(scaler.scale_, _MIN_RELATIVE_SCALE * np.median(scaler.scale_))
