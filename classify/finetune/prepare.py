"""What is fine-tuned, on which images, and from which layer: found out before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...cache import compression as compressing
from ...cache.errors import DataError, HeadError, RunError
from ...cache.spec import Spec
from ...cache.store import Store
from ...extract.backbones.backbone_spec import Request
from ...extract.backbones.metadata import Card, look_up
from ...extract.backbones.taps import Tap
from ...extract.engine.estimate import Plan, plan
from ...extract.images.dataset import Refusal
from ...extract.images.load import Images, Progress, load_images
from ...extract.pixels.augment import Policy
from ..data.splits import Splits, split
from ..data.views import Views
from ..evaluate.trial import Score, Source, Trial, ranked
from ..export.rebuild_backbone import candidates, is_of
from ..runs.finetuned_weights import HEAD, can_start, is_tuned
from ..runs.run import Record, Run
from . import cut_points as cutting
from .augmentation import Augmentation, Mixes
from .finetune_config import Recipe


@dataclass(frozen=True)
class Prepared:
    """A fine-tuning that can begin.

    trial, score: the frozen head that is started from. card, spec: of the network that is trained. request: for it, and
    frozen_request for the one whose features the head was trained on; they differ where it is trained from scratch.
    cut: the layer whose maps are trained on, None for images. views, policy: of the maps; the augmentation of images is the
    recipe's. images in the order of their digests, and their splits.
    """

    run: Run
    trial: Trial
    score: Score
    request: Request
    frozen_request: Request
    card: Card
    cut: str | None
    kind: str
    recipe: Recipe
    images: Images
    splits: Splits
    views: int = 0
    policy: Policy | None = None
    compression: str = "none"

    @property
    def seed(self) -> int:
        """The run's."""
        return int(self.run.description["seed"])

    @property
    def frozen_views(self) -> Views:
        """Those that the frozen head was trained on."""
        return Views.from_dict(self.run.description["views"])

    @cached_property
    def fold(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows of the images that are learnt from while the best epoch is looked for, and of those held out."""
        return next(self.splits.folds(self.seed))

    @property
    def spec(self) -> Spec:
        """How the network that is trained was made."""
        return self.card.spec

    @property
    def taps(self) -> list[Tap]:
        """The taps that the head takes, in its order."""
        return [Tap(source.layer, source.pool) for source in self.trial.sources]

    @property
    def tuned(self) -> Trial:
        """The trial that comes of it."""
        sources = self.trial.sources
        if self.kind == "random":
            sources = tuple(Source(self.request.title, self.spec.folder, source.layer, source.pool) for source in sources)
        said = {"from": self.cut or cutting.INPUT, "head": self.trial.head, "start": self.trial.id, **self.recipe.to_dict()}
        if self.kind == "random":
            said["weights"] = "random"
        if self.policy is not None:
            said |= {"views": self.views, "augment": str(self.policy)}
        return Trial(sources, HEAD, said)

    @property
    def map(self) -> Source | None:
        """The source of the maps."""
        first = self.trial.sources[0]
        return None if self.cut is None else Source(first.backbone, first.extraction, self.cut, "map")

    @property
    def learnt(self) -> Images:
        """The images whose maps are read: all but the test split, which is answered from pixels."""
        return replace(self.images, used=tuple(self.images.used[row] for row in self.splits.development))

    def plans(self, store: Store) -> list[Plan]:
        """What is to be computed first: the run's own taps where they were pruned, and the maps."""
        own, taps = self.frozen_views, [str(tap) for tap in self.taps]
        found = [plan(self.images, self.frozen_request, taps, store, (), own.count, own.parsed)]
        if self.cut is not None:
            views = (self.views, self.policy)
            found.append(plan(self.learnt, self.frozen_request, [f"{self.cut}:map"], store, (), *views, self.compression))
        return found


def prepare(
    run: Run,
    store: Store,
    start: str,
    recipe: Recipe,
    *,
    trial: str | None = None,
    weights: str | None = None,
    views: int = 0,
    augment: str | None = None,
    compression: str = "none",
    requests: Sequence[Request] = (),
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Find out what `humeris finetune` is asked for; `start` is a layer or `input`, `trial` an id in the run.

    Builds the network where it was never built with this cache, and computes nothing. Raises `RunError`, `HeadError`,
    `LayerError`, `DataError`, `BackboneError`.
    """
    chosen, score = _start(run, trial)
    from_input = start == cutting.INPUT
    _check_asked(start, weights, views, augment, compression)
    extractions = {source.extraction for source in chosen.sources}
    if len(extractions) > 1:
        raise HeadError(
            f"{run.path}: expected a head on one network, found trial {chosen.id} on {len(extractions)}; "
            "give another trial of leaderboard.csv with --trial"
        )
    spec = run.spec(chosen.sources[0])
    if not spec.architecture:
        raise RunError(
            f"{run.path}: expected to know the network that made the features, found a file that does not say: there is "
            "nothing to fine-tune; sweep over images"
        )
    frozen, card = _card(spec, requests, store, run)
    taps = [Tap(source.layer, source.pool) for source in chosen.sources]
    layer = cutting.find(start, card.layers, taps)
    kind = "tail" if layer is not None else weights or "input"
    request = frozen
    if kind == "random":
        request = replace(frozen, weights="random", seed=int(run.description["seed"]))
        if frozen.file is not None:
            raise DataError(
                f"--weights random: expected a backbone that comes by name, found the file {frozen.file}; leave it out"
            )
        card, _ = look_up(request, store.memo)
    if from_input:
        Mixes(recipe.mixup, recipe.cutmix)
    if from_input and augment:
        recipe = replace(recipe, augment=str(Augmentation.parse(augment)))
    records = {record.digest: record for record in run.images()}
    images = _images(run, records, store, jobs, progress)
    return Prepared(
        run=run,
        trial=chosen,
        score=score,
        request=request,
        frozen_request=frozen,
        card=card,
        cut=None if layer is None else layer.name,
        kind=kind,
        recipe=recipe.resolved(kind),
        images=images,
        splits=_split(run, records, images),
        views=views,
        policy=Policy.parse(augment) if augment and not from_input else None,
        compression=compression,
    )


def _check_asked(start: str, weights: str | None, views: int, augment: str | None, compression: str) -> None:
    from_input = start == cutting.INPUT
    compressing.check(compression)
    if from_input and compression != "none":
        raise HeadError(f"--compress {compression}: expected --from LAYER, whose maps are cached; from input leave it out")
    if weights not in {None, "random"}:
        raise HeadError(
            f"--weights {weights}: expected random, or nothing for the weights that the run's network has; leave it out"
        )
    if weights and not from_input:
        raise HeadError("--weights random: expected --from input, as cached maps are of trained layers; give --from input")
    if from_input and views:
        raise HeadError(
            "--views: expected --from LAYER, whose maps are cached; from input every epoch sees images anew; leave it out"
        )
    if not from_input and (views > 0) != (augment is not None):
        raise DataError("--augment: give both --views and --augment, or neither, where maps are cached")


def _start(run: Run, name: str | None) -> tuple[Trial, Score]:
    """The frozen trial to start from; raises `HeadError` and `RunError`."""
    chosen, score = run.trial(name)
    if is_tuned(chosen) and name is None:
        chosen, score = run.trial(str(chosen.setting["start"]))
    if is_tuned(chosen):
        raise HeadError(
            f"{run.path}: expected a frozen head to start from, found trial {chosen.id}, which is fine-tuned; "
            "give another with --trial"
        )
    if not can_start(chosen):
        other = next((each for each in ranked(run.trials()) if can_start(each)), None)
        said = f"such as --trial {other.id} ({other})" if other else "after `humeris sweep` with --head logreg"
        raise HeadError(
            f"{run.path}: expected a head that can be trained further, found {chosen.head} in trial {chosen.id}, which lets "
            f"neighbours vote; give another, {said}"
        )
    return chosen, score


def _card(spec: Spec, requests: Sequence[Request], store: Store, run: Run) -> tuple[Request, Card]:
    """The request for the network of a spec, and its card; raises `RunError` where it is another one by now."""
    if requests and not any(is_of(request, spec) for request in requests):
        raise RunError(
            f"-b {requests[0].title}: expected to be told where {spec.title} is now, found another network; leave -b out"
        )
    for request in candidates(spec, requests):
        card, _ = look_up(request, store.memo)
        if card.spec.digest == spec.digest:
            return request, card
    raise RunError(
        f"{run.path}: expected the network {spec.title} as the features were made with, found another one by now; "
        "put the old one back (or name it with -b), or extract and sweep anew"
    )


def _images(run: Run, records: Mapping[bytes, Record], store: Store, jobs: int | None, progress: Progress | None) -> Images:
    """The very images of the run, in the order of their digests; raises `DataError` where some are gone."""
    data: dict[str, Any] = run.description["data"]
    root = Path(data["source"] if data["kind"] == "keras" else data["root"])
    if data["kind"] == "features":
        raise DataError(f"{root}: expected images to fine-tune on, found a file of features; sweep over images")
    listed = root / Path(data["source"]).name  # the names in a list of images are relative to its folder
    images = load_images(listed if listed.is_file() else root, store, jobs=jobs, progress=progress)
    others = {each.name: Refusal(each.name, "not_in_run", "") for each in images.used if each.digest not in records}
    kept = images.without(others)
    changed = [each for each in kept.used if each.item.label != records[each.digest].label]
    if len(kept.used) != len(records) or changed:
        lost = len(records) - len(kept.used) + len(changed)
        raise DataError(
            f"{root}: expected the {len(records)} images that {run.path} was made from, found {lost} of them gone or with "
            "another label; put them back, or run `humeris sweep` again and fine-tune the new run"
        )
    return replace(kept, refused=images.refused).by_digest()


def _split(run: Run, records: Mapping[bytes, Record], images: Images) -> Splits:
    """The roles that the images had in the run; raises `DataError` where they have others by now."""
    splits = split(images, run.description["splits"]["select"])
    role = {int(row): name for name in ("train", "val", "test") for row in getattr(splits, name)}
    grouped = any(record.group for record in records.values())
    for row, image in enumerate(images.used):
        then = records[image.digest]
        if role[row] != then.split or (grouped and (image.item.group or "") != then.group):
            raise DataError(
                f"{images.dataset.root}: expected the splits and groups that {run.path} was made with, found {image.name} "
                f"in {role[row]}, where it was in {then.split}{' or of another group' if grouped else ''}; put it back, or "
                "run `humeris sweep` again and fine-tune the new run"
            )
    return splits
