"""Setup of a fine-tuning: network, images, splits and cut, resolved before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ...cache.errors import DataError, HeadError, RunError
from ...cache.spec import ExtractionSpec
from ...cache.store import Store
from ...extract.backbones import cut_points
from ...extract.backbones.backbone_spec import BackboneSpec
from ...extract.backbones.metadata import BackboneMetadata, get_or_build
from ...extract.backbones.tap_ref import TapRef
from ...extract.backbones.taps import Tap
from ...extract.engine.estimate import ExtractEstimate, estimate_extraction
from ...extract.engine.extract_config import ExtractConfig
from ...extract.images.images import Images
from ...extract.images.item import Rejection
from ...extract.images.load import Progress, load_source
from ..data.splits import Splits, split
from ..data.views import Views
from ..evaluate.trial import Score, Trial
from ..export.rebuild_backbone import find_backbone_specs, is_same_backbone
from ..runs.finetuned_weights import FINETUNE_HEAD, can_finetune, is_finetuned
from ..runs.image_records import ImageRecord
from ..runs.run import Run
from .finetune_config import FinetuneConfig


@dataclass(frozen=True)
class FinetuneSetup:
    """A fine-tuning that is ready to start.

    Parameters
    ----------
    run : Run
        The frozen run.
    trial, score : Trial, Score
        The frozen head to start from, and its score.
    request : BackboneSpec
        The network to train.
    frozen_request : BackboneSpec
        The network whose features the head was trained on; another one if training starts from random weights.
    backbone_metadata : BackboneMetadata
        Of the network to train.
    cut : str or None
        The layer whose cached maps are the input; None for images.
    config : FinetuneConfig
        The resolved config.
    images : Images
        The images of the run, sorted by digest.
    splits : Splits
        Their splits, as in the run.
    """

    run: Run
    trial: Trial
    score: Score
    request: BackboneSpec
    frozen_request: BackboneSpec
    backbone_metadata: BackboneMetadata
    cut: str | None
    config: FinetuneConfig
    images: Images
    splits: Splits

    @property
    def mode(self) -> str:
        """`tail`, `input` or `random`."""
        return self.config.mode

    @property
    def backbone_specs(self) -> Sequence[BackboneSpec]:
        """Where the file of the network is, if it is given."""
        return [self.request] if self.mode == "random" else self.config.backbone_specs

    @property
    def map_views(self) -> Views:
        """The augmented views whose maps are trained on besides the plain ones."""
        return Views(self.config.views, self.config.policy)

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.run.metadata.seed

    @property
    def frozen_views(self) -> Views:
        """The views that the frozen head was trained on."""
        return self.run.metadata.views

    @cached_property
    def fold(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the training and of the held-out images in the search for the best epoch."""
        return next(self.splits.iter_folds(self.seed))

    @property
    def spec(self) -> ExtractionSpec:
        """The spec of the network to train."""
        return self.backbone_metadata.spec

    @property
    def taps(self) -> list[Tap]:
        """The taps that are the input of the head, in its order."""
        return [Tap(source.layer, source.pool) for source in self.trial.tap_refs]

    @property
    def tuned_trial(self) -> Trial:
        """The trial of the fine-tuned network."""
        sources = self.trial.tap_refs
        if self.mode == "random":
            sources = tuple(
                TapRef(self.request.title, self.spec.folder_name, source.layer, source.pool) for source in sources
            )
        hyperparameters = {
            "from": self.cut or cut_points.INPUT,
            "head": self.trial.head,
            "start": self.trial.id,
            **self.config.get_result_settings(),
        }
        return Trial(sources, FINETUNE_HEAD, hyperparameters)

    @property
    def map_tap(self) -> TapRef | None:
        """The tap of the maps; None if images are the input."""
        first = self.trial.tap_refs[0]
        return None if self.cut is None else TapRef(first.backbone, first.extraction, self.cut, "map")

    @property
    def development_images(self) -> Images:
        """The images whose maps are needed: all but the test split, which is predicted from pixels."""
        return replace(self.images, used=tuple(self.images.used[row] for row in self.splits.development))

    def list_extractions(self) -> list[tuple[Images, ExtractConfig]]:
        """Return what must be cached before training: the taps of the frozen head, and the maps."""
        config, frozen_views = self.config, self.frozen_views
        taps_config = ExtractConfig(
            self.frozen_request,
            layers=[str(tap) for tap in self.taps],
            views=frozen_views.count,
            augment=frozen_views.policy,
            jobs=config.jobs,
        )
        if self.cut is None:
            return [(self.images, taps_config)]
        map_config = replace(
            taps_config,
            layers=f"{self.cut}:map",
            views=config.views,
            augment=config.policy,
            compression=config.compression,
        )
        return [(self.images, taps_config), (self.development_images, map_config)]

    def plan_extraction(self, store: Store) -> list[ExtractEstimate]:
        """Return estimates of what has to be extracted: taps of the frozen head that were pruned, and the maps."""
        return [
            estimate for images, config in self.list_extractions() for estimate in estimate_extraction(images, store, config)
        ]


def prepare(run: Run, store: Store, config: FinetuneConfig, *, progress: Progress | None = None) -> FinetuneSetup:
    """Resolve network, images, splits and cut of a fine-tuning.

    The network is built if the cache has no metadata of it; nothing else is computed.

    Parameters
    ----------
    run : Run
        A finished run.
    store : Store
        The cache.
    config : FinetuneConfig
        What to train, and how.
    progress : callable, optional
        Called with the number of images read and their total.

    Returns
    -------
    FinetuneSetup

    Raises
    ------
    RunError, HeadError, LayerError, DataError, BackboneError
        If the run, the trial, the layer, the images or the network cannot be used.
    """
    frozen_trial, score = _select_trial(run, config.trial)
    extractions = {source.extraction for source in frozen_trial.tap_refs}
    if len(extractions) > 1:
        raise HeadError(
            f"{run.path}: trial {frozen_trial.id} has features of {len(extractions)} networks, and only one can be "
            "fine-tuned; give another trial of leaderboard.csv with --trial"
        )
    spec = run.get_spec(frozen_trial.tap_refs[0])
    if not spec.architecture:
        raise RunError(
            f"{run.path}: the network of the features is unknown, since they come from a file that does not name it; "
            "fine-tune a run over images"
        )
    frozen_request, backbone_metadata = _resolve_backbone(spec, config.backbone_specs, store, run)
    taps = [Tap(source.layer, source.pool) for source in frozen_trial.tap_refs]
    layer = cut_points.find_cut(config.from_layer, backbone_metadata.layers, taps)
    request = frozen_request
    if config.mode == "random":
        request = replace(frozen_request, weights="random", seed=run.metadata.seed)
        if not frozen_request.source.allows_random_weights:
            raise DataError(
                f"--weights random: the network comes from the file {frozen_request.info.address}, which can only be "
                "built with its own weights; leave --weights out"
            )
        backbone_metadata, _ = get_or_build(request, store.kv_store)
    records = {record.digest: record for record in run.load_image_records()}
    images = _load_run_images(run, records, store, config.jobs, progress)
    return FinetuneSetup(
        run=run,
        trial=frozen_trial,
        score=score,
        request=request,
        frozen_request=frozen_request,
        backbone_metadata=backbone_metadata,
        cut=None if layer is None else layer.name,
        config=config.resolve(),
        images=images,
        splits=_restore_splits(run, records, images),
    )


def _select_trial(run: Run, trial_id: str | None) -> tuple[Trial, Score]:
    """Return the frozen trial to start from; raises `HeadError` and `RunError`."""
    frozen_trial, score = run.find_trial(trial_id)
    if is_finetuned(frozen_trial) and trial_id is None:
        frozen_trial, score = run.find_trial(str(frozen_trial.hyperparameters["start"]))
    if is_finetuned(frozen_trial):
        raise HeadError(f"{run.path}: trial {frozen_trial.id} is already fine-tuned; give a frozen one with --trial")
    if not can_finetune(frozen_trial):
        other = next((candidate for candidate in run.load_trials().ranked if can_finetune(candidate)), None)
        suggestion = f"such as --trial {other.id} ({other})" if other else "after `humeris sweep` with --head logreg"
        raise HeadError(
            f"{run.path}: the head of trial {frozen_trial.id}, {frozen_trial.head}, cannot be trained by gradient descent; "
            f"give another, {suggestion}"
        )
    return frozen_trial, score


def _resolve_backbone(
    spec: ExtractionSpec, requests: Sequence[BackboneSpec], store: Store, run: Run
) -> tuple[BackboneSpec, BackboneMetadata]:
    """Return the spec to build the network from, and its metadata; raises `RunError` if the network has changed."""
    if requests and not any(is_same_backbone(request, spec) for request in requests):
        raise RunError(
            f"-b {requests[0].title}: not the network of the run ({spec.title}); leave -b out, or give its new path"
        )
    for request in find_backbone_specs(spec, requests):
        backbone_metadata, _ = get_or_build(request, store.kv_store)
        if backbone_metadata.spec.digest == spec.digest:
            return request, backbone_metadata
    raise RunError(
        f"{run.path}: the network {spec.title} is not the one that the features were computed with (another file or "
        "version); restore it, give its path with -b, or extract and sweep again"
    )


def _load_run_images(
    run: Run, records: Mapping[bytes, ImageRecord], store: Store, jobs: int | None, progress: Progress | None
) -> Images:
    """Return the images of the run, sorted by digest; raises `DataError` if some are missing or relabeled."""
    source = run.metadata.data.open(store.kv_store)
    if source.holds_features:
        raise DataError(f"{source.location}: a file of features has no images to fine-tune on; fine-tune a run over images")
    images = load_source(source, store, jobs=jobs, progress=progress)
    rejections = {
        image.name: Rejection(image.name, "not_in_run", "") for image in images.used if image.digest not in records
    }
    run_images = images.reject(rejections)
    relabeled = [image for image in run_images.used if image.item.label != records[image.digest].label]
    if len(run_images.used) != len(records) or relabeled:
        n_missing = len(records) - len(run_images.used) + len(relabeled)
        raise DataError(
            f"{source.location}: {n_missing} of the {len(records)} images of {run.path} are missing or have another label; "
            "restore them, or run `humeris sweep` again and fine-tune the new run"
        )
    return replace(run_images, rejections=images.rejections).sort_by_digest()


def _restore_splits(run: Run, records: Mapping[bytes, ImageRecord], images: Images) -> Splits:
    """Return the splits of the images, as in the run; raises `DataError` if they have changed."""
    splits = split(images, run.metadata.splits.select)
    roles = {int(row): name for name in ("train", "val", "test") for row in getattr(splits, name)}
    has_groups = any(record.group for record in records.values())
    for row, image in enumerate(images.used):
        expected = records[image.digest]
        if roles[row] != expected.split or (has_groups and (image.item.group or "") != expected.group):
            change = (
                f"the {roles[row]} split, and was in {expected.split}" if roles[row] != expected.split else "another group"
            )
            raise DataError(
                f"{images.dataset.root}: the splits or groups of {run.path} have changed ({image.name} is now in {change}); "
                "restore them, or run `humeris sweep` again and fine-tune the new run"
            )
    return splits
