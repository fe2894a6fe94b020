"""The two trainings of a fine-tuning: one that finds the best epoch, and one on all images but the test split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...cache.store import Store
from ...extract.backbones.backbone_spec import Request
from ...extract.backbones.build import Backbone
from ...extract.images.load import Progress
from ..data import select_features
from ..data.feature_matrix import Matrix
from ..evaluate.trial import Score
from ..export.rebuild_backbone import rebuilt
from ..heads.fit import problem, train
from ..heads.head import Head
from ..heads.neural.early_stopping import Course, as_many
from ..heads.training_data import Problem
from ..runs.finetuned_weights import Tuned
from . import batches as feed
from . import train_loop
from .batches import Batches
from .checkpoint import Checkpoint
from .finalize import Sample
from .image_batches import ImageBatches
from .prepare import Prepared
from .train_loop import Epoch, Watched

_SAMPLED = 64  # images whose answers from maps and from pixels are compared
_LEAST = 0.1  # of the median deviation, by which features are divided at least
_MEASURED = 1 << 21  # values of the features in a block whose mean and deviation are measured


class Work:
    """The two trainings, on the images of a prepared fine-tuning."""

    def __init__(
        self,
        prepared: Prepared,
        store: Store,
        requests: Sequence[Request],
        jobs: int,
        kept: Checkpoint,
        told: Callable[[Epoch], None],
        progress: Progress | None,
    ) -> None:
        self._prepared, self._store, self._requests, self.jobs = prepared, store, requests, jobs
        self._kept, self._told, self._progress = kept, told, progress
        self._seed, splits, rows = prepared.seed, prepared.splits, prepared.splits.development
        self._fit, self._held = prepared.fold
        fold = (np.searchsorted(rows, self._fit), np.searchsorted(rows, self._held))
        nothing = Matrix.of(np.zeros((len(rows), 1), np.float32))
        self._problem = Problem(nothing, splits.labels[rows], len(splits.classes), (fold,), np.arange(len(rows)))
        self._network: Any = None
        self._opened: list[Any] = []

    def close(self) -> None:
        """End the threads that make batches."""
        for each in self._opened:
            each.close()

    def choose(self) -> tuple[Course, dict[str, float]]:
        """Find the best epoch."""
        recipe, labels = self._prepared.recipe, self._prepared.splits.labels
        seen = self._prepared.splits.development[as_many(self._problem, *self._problem.folds[0], self._seed)]
        watched = Watched(self._batches(self._held, False), labels[self._held], self._batches(seen, False), labels[seen])
        course, start, self._network = train_loop.choose(
            lambda: self._make(self._fit),
            self._batches(self._fit, True),
            watched,
            recipe,
            self._kept,
            self._told,
            self._progress,
        )
        return course, start

    def tuned(self, course: Course) -> Tuned:
        """The network that comes out."""
        if self._prepared.recipe.refit:
            rows = self._prepared.splits.development
            self._network = self._make(rows)
            batches = self._batches(rows, True)
            train_loop.refit(
                self._network, batches, course.best + 1, self._prepared.recipe, self._kept, self._told, self._progress
            )
        return Tuned(*self._network.tuned())

    def score(self, course: Course, seconds: float) -> Score:
        """How the best epoch did on the images held out, as a sweep scores its trials."""
        return self._problem.score(course.answers, seconds, course.detail())

    def sample(self) -> Sample | None:
        """Some images held out, as the tuned network answers their cached maps."""
        if self._prepared.cut is None:
            return None
        rows = self._held[np.unique(np.linspace(0, len(self._held) - 1, _SAMPLED).astype(int))]
        return Sample(rows, self._network.answers(self._batches(rows, False)))

    def _batches(self, rows: np.ndarray, train: bool) -> Batches:
        made = feed.batches(self._prepared, self._store, rows, train, self.jobs)
        self._opened += [made] if isinstance(made, ImageBatches) else []
        return made

    def _make(self, rows: np.ndarray) -> Any:
        """The network with the head that is trained on `rows` while everything below it is frozen."""
        from . import trainable_tail

        prepared = self._prepared
        head, mean, deviation = self._head(rows)
        if prepared.kind == "random":
            return trainable_tail.Network(self._built(), prepared.taps, None, trainable_tail.fresh(head, self._seed))
        return trainable_tail.Network(self._built(), prepared.taps, prepared.cut, head, mean, deviation)

    def _built(self) -> Backbone:
        recipe = self._prepared.recipe
        return rebuilt(self._prepared.spec, self._requests, fold=False, precision=recipe.precision)

    def _head(self, rows: np.ndarray) -> tuple[Head, np.ndarray, np.ndarray]:
        """The frozen head of `rows`, and the mean and deviation (d,) of their features."""
        from sklearn.preprocessing import StandardScaler

        from . import trainable_tail

        prepared, splits = self._prepared, self._prepared.splits
        views = prepared.frozen_views
        stored = select_features.stored(self._store, prepared.trial.sources, views)
        learnt = problem(
            stored, prepared.images.keys[rows], splits.labels[rows], len(splits.classes), views=views, threads=self.jobs
        )
        head = train(prepared.trial, prepared.score, learnt, splits.classes, self._seed)
        trainable_tail.check(head, prepared.trial.head, f"{prepared.run.path}, trial {prepared.trial.id}")
        scaler = StandardScaler()
        for _, block in learnt.features.blocks(size=max(1, _MEASURED // learnt.features.shape[1])):
            scaler.partial_fit(block)
        # A feature that hardly varies is left small: tuned layers may wake it, and it would then outweigh all others.
        return head, scaler.mean_, np.maximum(scaler.scale_, _LEAST * np.median(scaler.scale_))
