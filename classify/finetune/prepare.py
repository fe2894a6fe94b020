"""What is fine-tuned, on which images, and from which layer: found out before anything is computed."""

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
    """A fine-tuning that can begin.

    trial, score: the frozen head that is started from. backbone_metadata, spec: of the network that is trained. request: for
    it, and frozen_request for the one whose features the head was trained on; they differ where it is trained from scratch.
    cut: the layer whose maps are trained on, None for images. config: how, with what its mode decides filled in. images in
    the order of their digests, and their splits.
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
        """What says where the network is that is trained."""
        return [self.request] if self.mode == "random" else self.config.backbone_specs

    @property
    def map_views(self) -> Views:
        """Those whose maps are trained on beside the plain ones."""
        return Views(self.config.views, self.config.policy)

    @property
    def seed(self) -> int:
        """The run's."""
        return self.run.metadata.seed

    @property
    def frozen_views(self) -> Views:
        """Those that the frozen head was trained on."""
        return self.run.metadata.views

    @cached_property
    def fold(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the images that are learnt from while the best epoch is looked for, and of those held out."""
        return next(self.splits.iter_folds(self.seed))

    @property
    def spec(self) -> ExtractionSpec:
        """How the network that is trained was made."""
        return self.backbone_metadata.spec

    @property
    def taps(self) -> list[Tap]:
        """The taps that the head takes, in its order."""
        return [Tap(source.layer, source.pool) for source in self.trial.tap_refs]

    @property
    def tuned_trial(self) -> Trial:
        """The trial that comes of it."""
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
        """The source of the maps."""
        first = self.trial.tap_refs[0]
        return None if self.cut is None else TapRef(first.backbone, first.extraction, self.cut, "map")

    @property
    def development_images(self) -> Images:
        """The images whose maps are read: all but the test split, which is answered from pixels."""
        return replace(self.images, used=tuple(self.images.used[row] for row in self.splits.development))

    def list_extractions(self) -> list[tuple[Images, ExtractConfig]]:
        """What is to be in the cache before training: the run's own taps, and the maps."""
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
        """What is to be computed first: the run's own taps where they were pruned, and the maps."""
        return [
            estimate for images, config in self.list_extractions() for estimate in estimate_extraction(images, store, config)
        ]


def prepare(run: Run, store: Store, config: FinetuneConfig, *, progress: Progress | None = None) -> FinetuneSetup:
    """Find out what `humeris finetune` is asked for.

    Builds the network where it was never built with this cache, and computes nothing. Raises `RunError`, `HeadError`,
    `LayerError`, `DataError`, `BackboneError`.
    """
    frozen_trial, score = _select_trial(run, config.trial)
    extractions = {source.extraction for source in frozen_trial.tap_refs}
    if len(extractions) > 1:
        raise HeadError(
            f"{run.path}: expected a head on one network, found trial {frozen_trial.id} on {len(extractions)}; "
            "give another trial of leaderboard.csv with --trial"
        )
    spec = run.get_spec(frozen_trial.tap_refs[0])
    if not spec.architecture:
        raise RunError(
            f"{run.path}: expected to know the network that made the features, found a file that does not say: there is "
            "nothing to fine-tune; sweep over images"
        )
    frozen_request, backbone_metadata = _resolve_backbone(spec, config.backbone_specs, store, run)
    taps = [Tap(source.layer, source.pool) for source in frozen_trial.tap_refs]
    layer = cut_points.find_cut(config.from_layer, backbone_metadata.layers, taps)
    request = frozen_request
    if config.mode == "random":
        request = replace(frozen_request, weights="random", seed=run.metadata.seed)
        if not frozen_request.source.allows_random_weights:
            raise DataError(
                "--weights random: expected a backbone that comes by name, found the file "
                f"{frozen_request.info.address}; leave it out"
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
    """The frozen trial to start from; raises `HeadError` and `RunError`."""
    frozen_trial, score = run.find_trial(trial_id)
    if is_finetuned(frozen_trial) and trial_id is None:
        frozen_trial, score = run.find_trial(str(frozen_trial.hyperparameters["start"]))
    if is_finetuned(frozen_trial):
        raise HeadError(
            f"{run.path}: expected a frozen head to start from, found trial {frozen_trial.id}, which is fine-tuned; "
            "give another with --trial"
        )
    if not can_finetune(frozen_trial):
        other = next((candidate for candidate in run.load_trials().ranked if can_finetune(candidate)), None)
        suggestion = f"such as --trial {other.id} ({other})" if other else "after `humeris sweep` with --head logreg"
        raise HeadError(
            f"{run.path}: expected a head that can be trained further, found {frozen_trial.head} in trial "
            f"{frozen_trial.id}, which lets neighbours vote; give another, {suggestion}"
        )
    return frozen_trial, score


def _resolve_backbone(
    spec: ExtractionSpec, requests: Sequence[BackboneSpec], store: Store, run: Run
) -> tuple[BackboneSpec, BackboneMetadata]:
    """The request for the network of a spec, and its card; raises `RunError` where it is another one by now."""
    if requests and not any(is_same_backbone(request, spec) for request in requests):
        raise RunError(
            f"-b {requests[0].title}: expected to be told where {spec.title} is now, found another network; leave -b out"
        )
    for request in find_backbone_specs(spec, requests):
        backbone_metadata, _ = get_or_build(request, store.kv_store)
        if backbone_metadata.spec.digest == spec.digest:
            return request, backbone_metadata
    raise RunError(
        f"{run.path}: expected the network {spec.title} as the features were made with, found another one by now; "
        "put the old one back (or name it with -b), or extract and sweep anew"
    )


def _load_run_images(
    run: Run, records: Mapping[bytes, ImageRecord], store: Store, jobs: int | None, progress: Progress | None
) -> Images:
    """The very images of the run, in the order of their digests; raises `DataError` where some are gone."""
    source = run.metadata.data.open(store.kv_store)
    if source.holds_features:
        raise DataError(f"{source.location}: expected images to fine-tune on, found a file of features; sweep over images")
    images = load_source(source, store, jobs=jobs, progress=progress)
    rejections = {
        image.name: Rejection(image.name, "not_in_run", "") for image in images.used if image.digest not in records
    }
    run_images = images.reject(rejections)
    relabeled = [image for image in run_images.used if image.item.label != records[image.digest].label]
    if len(run_images.used) != len(records) or relabeled:
        n_missing = len(records) - len(run_images.used) + len(relabeled)
        raise DataError(
            f"{source.location}: expected the {len(records)} images that {run.path} was made from, found {n_missing} of "
            "them gone or with another label; put them back, or run `humeris sweep` again and fine-tune the new run"
        )
    return replace(run_images, rejections=images.rejections).sort_by_digest()


def _restore_splits(run: Run, records: Mapping[bytes, ImageRecord], images: Images) -> Splits:
    """The roles that the images had in the run; raises `DataError` where they have others by now."""
    splits = split(images, run.metadata.splits.select)
    roles = {int(row): name for name in ("train", "val", "test") for row in getattr(splits, name)}
    has_groups = any(record.group for record in records.values())
    for row, image in enumerate(images.used):
        expected = records[image.digest]
        if roles[row] != expected.split or (has_groups and (image.item.group or "") != expected.group):
            raise DataError(
                f"{images.dataset.root}: expected the splits and groups that {run.path} was made with, found {image.name} "
                f"in {roles[row]}, where it was in {expected.split}{' or of another group' if has_groups else ''}; put it "
                "back, or run `humeris sweep` again and fine-tune the new run"
            )
    return splits
