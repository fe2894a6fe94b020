"""What is extracted, and how: backbones, taps, views, storage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from pathlib import Path
from typing import Any

from ...cache import compression as compressing
from ..backbones.backbone_spec import BackboneSpec
from ..config import NO_EFFECT, Config
from ..pixels.augment import Policy, parse_policy

DEFAULT_BACKBONE = "mobilenet_v2"


@dataclass(frozen=True)
class ExtractConfig(Config):
    """What to extract; `humeris extract` has an option for each setting.

    Parameters
    ----------
    backbones : sequence of BackboneSpec or str
        The networks, as `mobilenet_v2,alpha=0.35`, or `my.keras,preprocessing=tf` for a file. Those of one image size share
        the decoding.
    layers : sequence of str
        Taps, `LAYER[:POOL]`, where LAYER may be a glob; without any a backbone's default layers.
    pools : sequence of str
        `avg`, `max`, `gridN`, `map` or `cls`, for the layers given without one.
    weights, image_size, precision, seed : str, str or int, str, int
        What a backbone's text leaves open: `imagenet`, `random` or a weights file; SIDE or HEIGHTxWIDTH in pixels;
        `float32`, `bfloat16`, `float16` or `auto`; the seed of random weights. They are taken up by `backbones`.
    views : int
        How many augmented views of each image are cached beside the plain one.
    augment : Policy or str, optional
        How views are made, as `flip,crop=0.5`; given with `views`, or not at all.
    compression : str
        Of whole maps: `none`, `gzip` or `blosc2`.
    limit : int, optional
        Use the first so many images of each class and split.
    batch_size : int
        Images in a forward pass.
    devices : sequence of str
        `auto`, `cpu`, `gpu` or `gpu:N`; where several are given, a worker process on each.
    jobs : int, optional
        Processes that decode; every core unless given.
    cache : Path or str, optional
        The cache folder to open; not looked at where a `Store` is handed over.

    Raises
    ------
    HumerisError
        `ConfigError`, `BackboneError`, `DataError` or `CacheError`, for a setting that cannot be.
    """

    backbones: Sequence[BackboneSpec | str] | BackboneSpec | str = DEFAULT_BACKBONE
    _: KW_ONLY
    layers: Sequence[str] | str = ()
    pools: Sequence[str] | str = ()
    weights: InitVar[str | None] = None
    image_size: InitVar[str | int | None] = None
    precision: InitVar[str] = "float32"
    seed: InitVar[int] = 0
    views: int = 0
    augment: Policy | str | None = None
    compression: str = "none"
    limit: int | None = None
    batch_size: int = 32
    devices: Sequence[str] | str = field(default=(), metadata=NO_EFFECT)
    jobs: int | None = field(default=None, metadata=NO_EFFECT)
    cache: Path | str | None = field(default=None, metadata=NO_EFFECT)

    def __post_init__(self, weights: str | None, image_size: str | int | None, precision: str, seed: int) -> None:
        self._set_tuples("backbones", "layers", "pools", "devices")
        self._set("backbones", parse_backbones(self.backbones, weights, image_size, precision, seed))
        self._check_numbers(int, 0, "views")
        self._check_numbers(int, 1, "limit", "batch_size", "jobs")
        self._set("augment", parse_policy(self.views, self.augment))
        self._set_paths("cache")
        compressing.check(self.compression)

    @property
    def backbone_specs(self) -> tuple[BackboneSpec, ...]:
        """The backbones, parsed."""
        return narrow_backbones(self.backbones)

    @property
    def policy(self) -> Policy | None:
        """How views are made, parsed; None without views."""
        return self.augment if isinstance(self.augment, Policy) else None


def parse_backbones(
    backbones: object, weights: str | None, image_size: str | int | None, precision: str, seed: int
) -> tuple[BackboneSpec, ...]:
    """The backbones of a tuple of them and of their texts; the rest is what the texts do not say. Raises `BackboneError`."""
    assert isinstance(backbones, tuple)
    options: dict[str, Any] = {"weights": weights, "image_size": image_size, "seed": seed, "precision": precision}
    return tuple(BackboneSpec.parse(each, **options) if isinstance(each, str) else each for each in backbones)


def narrow_backbones(backbones: object) -> tuple[BackboneSpec, ...]:
    """The same tuple, for a type checker, once it was parsed."""
    assert isinstance(backbones, tuple)
    return backbones
