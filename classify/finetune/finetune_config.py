"""Settings of fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path

from ...cache import compression as compressing
from ...cache.errors import DataError, HeadError
from ...extract.backbones.backbone_spec import BackboneSpec
from ...extract.backbones.cut_points import INPUT
from ...extract.backbones.precision import PRECISIONS
from ...extract.config import NO_EFFECT, RESOLVED, Config, format_option
from ...extract.engine.extract_config import narrow_backbones, parse_backbones
from ...extract.pixels.augment import Policy
from ..heads.families.mlp import OPTIMIZERS
from ..heads.neural.schedules import SCHEDULES
from .augmentation import Augmentation, BatchMixer

DEFAULT_LEARNING_RATES = {"tail": 3e-4, "input": 1e-5, "random": 1e-3}


@dataclass(frozen=True)
class FinetuneConfig(Config):
    """How to train; `humeris finetune` has an option for each setting.

    Parameters
    ----------
    from_layer : str
        Train the layers above this one on its cached maps; `input` trains the whole network on images.
    trial : str, optional
        Id of the trial to start from; the winner of the run by default.
    weights : {"random"}, optional
        With `input`: train from random weights.
    epochs, head_epochs : int
        Maximum number of epochs, after `head_epochs` warm-up epochs that train the head only (2; from random weights 0).
    patience : int
        Stop after so many epochs without a lower validation loss; 0 never stops early.
    batch_size : int
        Images per step.
    optimizer : str
        `sgd`, `adam`, `adamw`, `radam` or `ranger`.
    learning_rate, head_learning_rate : float
        Initial learning rate (by default 3e-4; from `input` 1e-5; from random weights 1e-3), and that of the warm-up epochs.
    schedule : str
        Schedule of the learning rate: `constant`, `cosine` or `one_cycle`.
    weight_decay : float, optional
        Decoupled weight decay; by default 0.004 for `adamw`, as in Keras, and 0 for the others.
    label_smoothing : float
        Label smoothing, from 0 to below 1.
    mixup, cutmix : float
        Alpha of the Beta distribution of MixUp and CutMix; 0 for none.
    views : int
        Number of augmented views of each image whose maps are cached besides the plain one; not with `input`.
    augment : Policy, Augmentation or str, optional
        With `input`, the augmentation of images in every epoch; else how `views` are made.
    train_batch_norm : bool
        Whether batch normalization layers are trained, too.
    precision : str
        Precision of the computations in training.
    refit : bool
        Whether to train again on everything but the test split, for the best number of epochs.
    compression : str
        Compression of the cached maps: `none`, `gzip` or `blosc2`.
    backbones : sequence of BackboneSpec or str
        The network at its new path, if its file was moved.
    jobs : int, optional
        Number of decoder processes; one per core by default.
    devices : sequence of str
        The device to train on.
    out : Path or str, optional
        The folder of the new run; `RUN-LAYER-…` beside the old one by default.
    cache : Path or str, optional
        The cache folder; ignored if a `Store` is passed.

    Raises
    ------
    HumerisError
        `ConfigError`, `HeadError`, `DataError`, `BackboneError` or `CacheError`, for an invalid setting.
    """

    from_layer: str = field(default=INPUT, metadata=RESOLVED)
    _: KW_ONLY
    trial: str | None = field(default=None, metadata=RESOLVED)
    weights: str | None = None
    epochs: int = 10
    head_epochs: int | None = None
    patience: int = 5
    batch_size: int = 32
    optimizer: str = "adam"
    learning_rate: float | None = None
    head_learning_rate: float = 1e-3
    schedule: str = "cosine"
    weight_decay: float | None = None
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    views: int = 0
    augment: Policy | Augmentation | str | None = None
    train_batch_norm: bool = False
    precision: str = "float32"
    refit: bool = True
    compression: str = field(default="none", metadata=NO_EFFECT)
    backbones: Sequence[BackboneSpec | str] | BackboneSpec | str = field(default=(), metadata=NO_EFFECT)
    jobs: int | None = field(default=None, metadata=NO_EFFECT)
    devices: Sequence[str] | str = field(default=(), metadata=NO_EFFECT)
    out: Path | str | None = field(default=None, metadata=NO_EFFECT)
    cache: Path | str | None = field(default=None, metadata=NO_EFFECT)

    def __post_init__(self) -> None:
        self._set_tuples("backbones", "devices")
        self._set("backbones", parse_backbones(self.backbones, None, None, "float32", 0))
        self._set_paths("out", "cache")
        self._check_numbers(int, 0, "views")
        self._check_numbers(int, 1, "jobs")
        self._check_training()
        self._check_data()
        self._set("augment", self._parse_augment())

    @property
    def from_input(self) -> bool:
        """Whether the whole network is trained on images."""
        return self.from_layer == INPUT

    @property
    def mode(self) -> str:
        """`tail` if the layers above one are trained, `input` for the whole network, `random` from random weights."""
        return (self.weights or "input") if self.from_input else "tail"

    @property
    def policy(self) -> Policy | None:
        """The augmentation policy of the views whose maps are cached; None without views."""
        return self.augment if isinstance(self.augment, Policy) else None

    @property
    def augmentation(self) -> Augmentation | None:
        """The augmentation of images in training; None for none."""
        return self.augment if isinstance(self.augment, Augmentation) else None

    @property
    def backbone_specs(self) -> tuple[BackboneSpec, ...]:
        """The backbones, parsed."""
        return narrow_backbones(self.backbones)

    @property
    def n_head_epochs(self) -> int:
        """The number of warm-up epochs; valid once the config is resolved."""
        return self.head_epochs or 0

    def resolve(self) -> FinetuneConfig:
        """Return the config with the defaults that depend on its mode."""
        mode = self.mode
        default_decay = 0.004 if self.optimizer == "adamw" else 0.0
        return replace(
            self,
            learning_rate=DEFAULT_LEARNING_RATES[mode] if self.learning_rate is None else self.learning_rate,
            weight_decay=default_decay if self.weight_decay is None else self.weight_decay,
            head_epochs=self.head_epochs if self.head_epochs is not None else 0 if mode == "random" else 2,
            train_batch_norm=mode == "random" or self.train_batch_norm,
        )

    def _parse_augment(self) -> Policy | Augmentation | None:
        if not isinstance(self.augment, str):
            return self.augment
        return Augmentation.parse(self.augment) if self.from_input else Policy.parse(self.augment)

    def _check_training(self) -> None:
        """Raise `HeadError` for an invalid setting of the training."""
        choices = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                option = f"{format_option(name)} {getattr(self, name)!r}"
                raise HeadError(f"{option}: unknown; use one of {', '.join(allowed)}")
        bounds = {"epochs": 1, "head_epochs": 0, "patience": 0, "batch_size": 1}
        for name, minimum in bounds.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise HeadError(f"{format_option(name)} {value}: too few; give at least {minimum}")
        for name in ("learning_rate", "head_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise HeadError(f"{format_option(name)} {value}: not above 0; give a positive number, such as 1e-4")
        for name in ("weight_decay", "mixup", "cutmix"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise HeadError(f"{format_option(name)} {value}: negative or not finite; give a number of at least 0")
        if not 0 <= self.label_smoothing < 1:
            raise HeadError(f"--label-smoothing {self.label_smoothing}: out of range; give a number from 0 to below 1")

    def _check_data(self) -> None:
        """Raise `HeadError` or `DataError` for settings that do not go with the layer to train from."""
        compressing.check(self.compression)
        if self.from_input and self.compression != "none":
            raise HeadError(
                f"--compress {self.compression} has no effect with --from input, which caches no maps; leave it out"
            )
        if self.weights not in {None, "random"}:
            raise HeadError(
                f"--weights {self.weights}: unknown; use random, or leave it out to start from the run's own weights"
            )
        if self.weights and not self.from_input:
            raise HeadError(
                "--weights random needs --from input, since cached maps come from trained layers; give --from input"
            )
        if self.from_input and self.views:
            raise HeadError("--views has no effect with --from input, which augments images in every epoch; leave it out")
        if not self.from_input and (self.views > 0) != (self.augment is not None):
            raise DataError("--augment and --views belong together when maps are cached; give both or neither")
        if self.from_input:
            BatchMixer(self.mixup, self.cutmix)
