"""The config of an extraction: backbones, taps, views and storage."""

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
        The networks, such as `mobilenet_v2,alpha=0.35`, or `my.keras,preprocessing=tf` for a file. Images are decoded once
        for all backbones of one image size.
    layers : sequence of str
        Taps, `LAYER[:POOL]`, where LAYER can be a glob; the default layers of each backbone if empty.
    pools : sequence of str
        `avg`, `max`, `gridN`, `map` or `cls`, for layers without a pool.
    weights : str, optional
        `imagenet`, `random` or a weights file. This and the next three settings apply to backbones whose text does not give
        them.
    image_size : str or int, optional
        SIDE or HEIGHTxWIDTH, in pixels.
    precision : str
        `float32`, `bfloat16`, `float16` or `auto`.
    seed : int
        Seed of random weights.
    views : int
        Number of augmented views of each image, cached in addition to the plain image.
    augment : Policy or str, optional
        The augmentation of views, such as `flip,crop=0.5`; required with `views`, and not allowed without.
    compression : str
        Compression of whole maps: `none`, `gzip` or `blosc2`.
    limit : int, optional
        Use only the first `limit` images of each class and split.
    batch_size : int
        Number of images in a forward pass.
    devices : sequence of str
        `auto`, `cpu`, `gpu` or `gpu:N`; with several devices, one worker process runs on each.
    jobs : int, optional
        Number of decoder processes; the number of cores by default.
    cache : Path or str, optional
        The cache folder; ignored by functions that take a `Store`.

    Raises
    ------
    ConfigError, BackboneError, DataError, CacheError
        For an invalid setting.
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
        """The parsed backbones."""
        return narrow_backbones(self.backbones)

    @property
    def policy(self) -> Policy | None:
        """The parsed augmentation; None without views."""
        return self.augment if isinstance(self.augment, Policy) else None


def parse_backbones(
    backbones: object, weights: str | None, image_size: str | int | None, precision: str, seed: int
) -> tuple[BackboneSpec, ...]:
    """Parse the texts in a tuple of backbones, with defaults for the options that they leave out.

    Raises `BackboneError` or `WeightsError`.
    """
    assert isinstance(backbones, tuple)
    options: dict[str, Any] = {"weights": weights, "image_size": image_size, "seed": seed, "precision": precision}
    return tuple(BackboneSpec.parse(each, **options) if isinstance(each, str) else each for each in backbones)


def narrow_backbones(backbones: object) -> tuple[BackboneSpec, ...]:
    """Return the same tuple with the type of parsed backbones."""
    assert isinstance(backbones, tuple)
    return backbones
