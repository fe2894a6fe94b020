"""Configuration of a sweep: heads, taps, views, and how the winner is selected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from functools import cached_property
from pathlib import Path

from ...extract.backbones.backbone_spec import BackboneSpec
from ...extract.config import NO_EFFECT, RESOLVED, Config, to_tuple
from ...extract.engine.extract_config import narrow_backbones, parse_backbones
from ...extract.pixels.augment import Policy, parse_policy
from ..data.select_features import FeatureQuery
from ..data.views import Views
from ..heads.head_grid import HeadGrid
from ..heads.search import parse_search
from ..heads.search_file import load_head_grids


@dataclass(frozen=True)
class SweepConfig(Config):
    """What to sweep over; `humeris sweep` has an option for each parameter.

    Parameters
    ----------
    heads : sequence of str
        Head families, such as `logreg,C=0.1/1`; logistic regression if neither `heads` nor `grid` gives any.
    grid : Path or str, optional
        A TOML file of [[head]] tables.
    search, trials : str, int
        `grid` tries every combination of a head's options; `random` and `halving` try `trials` (30) of each head.
    backbones : sequence of BackboneSpec or str
        The backbones whose features are used; by default every cached one.
    weights, image_size, precision : str, str or int, str
        Defaults for `backbones`, as in `ExtractConfig`.
    layers : sequence of str
        Taps, `LAYER[:POOL]`, or several side by side, `A+B`, with `BACKBONE/` in front if only one backbone is meant.
        LAYER
        may be a glob. By default every cached tap.
    pools : sequence of str
        Pools of the layers given without one.
    concatenate : bool
        Also try all taps side by side.
    views : int
        Number of augmented views of each image to train on, besides the plain one.
    augment : Policy or str, optional
        How views are made, such as `flip,crop=0.5`; required with `views`, and only then.
    average_views : bool
        Score an image on the mean probabilities over its views, instead of the plain view only.
    select : {"val", "cv"}, optional
        Select on the validation split, or by cross-validation; by default on the validation split if there is one.
    seed : int
        Seed of the folds, the searches, the networks that are trained, and random initializations.
    limit : int, optional
        Use only the first `limit` images of each class and split.
    jobs : int, optional
        Number of processes and threads; every core by default.
    out : Path or str, optional
        The run's folder; `runs/DATA-…` by default.
    cache : Path or str, optional
        The cache folder to open; ignored if a `Store` is given.

    Raises
    ------
    HumerisError
        `ConfigError`, `BackboneError`, `DataError` or `HeadError`, for an invalid setting.
    """

    heads: Sequence[str] | str = field(default=(), metadata=RESOLVED)
    _: KW_ONLY
    grid: Path | str | None = field(default=None, metadata=RESOLVED)
    search: str = field(default="grid", metadata=RESOLVED)
    trials: int | None = field(default=None, metadata=RESOLVED)
    backbones: Sequence[BackboneSpec | str] | BackboneSpec | str = field(default=(), metadata=RESOLVED)
    weights: InitVar[str | None] = None
    image_size: InitVar[str | int | None] = None
    precision: InitVar[str] = "float32"
    layers: Sequence[str] | str = field(default=(), metadata=RESOLVED)
    pools: Sequence[str] | str = field(default=(), metadata=RESOLVED)
    concatenate: bool = field(default=False, metadata=RESOLVED)
    views: int = 0
    augment: Policy | str | None = None
    average_views: bool = False
    select: str | None = field(default=None, metadata=RESOLVED)
    seed: int = 0
    limit: int | None = field(default=None, metadata=RESOLVED)
    jobs: int | None = field(default=None, metadata=NO_EFFECT)
    out: Path | str | None = field(default=None, metadata=NO_EFFECT)
    cache: Path | str | None = field(default=None, metadata=NO_EFFECT)

    def __post_init__(self, weights: str | None, image_size: str | int | None, precision: str) -> None:
        self._set_tuples("heads", "backbones", "layers", "pools")
        self._check_numbers(int, 0, "views", "seed")
        self._check_numbers(int, 1, "limit", "jobs")
        self._set("backbones", parse_backbones(self.backbones, weights, image_size, precision, self.seed))
        self._set("augment", parse_policy(self.views, self.augment))
        self._set_paths("grid", "out", "cache")
        _ = self.view_set, self.head_grids

    @property
    def backbone_specs(self) -> tuple[BackboneSpec, ...]:
        """The parsed backbones."""
        return narrow_backbones(self.backbones)

    @property
    def view_set(self) -> Views:
        """The views to train on, and whether they are averaged."""
        return Views(self.views, self.augment if isinstance(self.augment, Policy) else None, self.average_views)

    @cached_property
    def head_grids(self) -> tuple[HeadGrid, ...]:
        """The head families with the hyperparameters to try; a `grid` file is read when they are first needed."""
        search = parse_search(self.search, self.trials, self.seed)
        file = None if self.grid is None else Path(self.grid)
        return tuple(load_head_grids(to_tuple(self.heads), file, search))

    @property
    def query(self) -> FeatureQuery:
        """The query for cached features."""
        return FeatureQuery(
            self.backbone_specs,
            to_tuple(self.layers),
            to_tuple(self.pools),
            concatenate=self.concatenate,
            views=self.view_set,
        )
