"""How a network is fine-tuned: from which layer, how it is trained, on what."""

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
        The layers above this one are trained, on its maps, which are cached; `input` trains the whole network on images.
    trial : str, optional
        The id of the head to start from; the run's best unless given.
    weights : {"random"}, optional
        Train from scratch, with `input`.
    epochs, head_epochs : int
        At most, after those of the head alone (2; from scratch 0).
    patience : int
        Epochs without a lower validation loss to stop after, 0 for never.
    batch_size : int
        Images in a step.
    optimizer : str
        `sgd`, `adam`, `adamw`, `radam` or `ranger`.
    learning_rate, head_learning_rate : float
        Of everything (by default 3e-4; from `input` 1e-5; from scratch 1e-3), and while the head alone is trained.
    schedule : str
        Of the learning rate: `constant`, `cosine` or `one_cycle`.
    weight_decay : float, optional
        Decoupled; by default 0.004 for `adamw`, as in Keras, and 0 for the others.
    label_smoothing : float
        Share spread over all classes, from 0 to below 1.
    mixup, cutmix : float
        Alpha of the Beta distribution, 0 for none.
    views : int
        How many augmented views of each image have their maps cached beside the plain one; not from `input`.
    augment : Policy, Augmentation or str, optional
        From `input`, what is done to the images, anew each epoch; else how `views` are made.
    train_batch_norm : bool
        Whether batch normalisation learns and counts, too.
    precision : str
        Of the arithmetic in training.
    refit : bool
        Train once more on all but the test split, once the best epoch is known.
    compression : str
        Of the cached maps: `none`, `gzip` or `blosc2`.
    backbones : sequence of BackboneSpec or str
        Where the network is now, if its file was moved.
    jobs : int, optional
        Processes that decode; every core unless given.
    devices : sequence of str
        What computes: one device.
    out : Path or str, optional
        The new run's folder; `RUN-LAYER-…` beside the old one unless given.
    cache : Path or str, optional
        The cache folder to open; not looked at where a `Store` is handed over.

    Raises
    ------
    HumerisError
        `ConfigError`, `HeadError`, `DataError`, `BackboneError` or `CacheError`, for a setting that cannot be.
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
        """`tail` where a network is trained above a layer, `input` as a whole, `random` from scratch."""
        return (self.weights or "input") if self.from_input else "tail"

    @property
    def policy(self) -> Policy | None:
        """How the views are made whose maps are cached; None without."""
        return self.augment if isinstance(self.augment, Policy) else None

    @property
    def augmentation(self) -> Augmentation | None:
        """What is done to images as they stream; None where nothing is."""
        return self.augment if isinstance(self.augment, Augmentation) else None

    @property
    def backbone_specs(self) -> tuple[BackboneSpec, ...]:
        """The backbones, parsed."""
        return narrow_backbones(self.backbones)

    @property
    def n_head_epochs(self) -> int:
        """Epochs of the head alone, once the config is resolved."""
        return self.head_epochs or 0

    def resolve(self) -> FinetuneConfig:
        """The config with what its mode decides filled in."""
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
        """Raise `HeadError` where a figure of the training cannot be."""
        choices = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                option = f"{format_option(name)} {getattr(self, name)!r}"
                raise HeadError(f"{option}: expected one of {', '.join(allowed)}; choose one of them")
        bounds = {"epochs": 1, "head_epochs": 0, "patience": 0, "batch_size": 1}
        for name, minimum in bounds.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise HeadError(f"{format_option(name)} {getattr(self, name)}: expected at least {minimum}; give more")
        for name in ("learning_rate", "head_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise HeadError(f"{format_option(name)} {value}: expected a number above 0, such as 1e-4; give one")
        for name in ("weight_decay", "mixup", "cutmix"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise HeadError(f"{format_option(name)} {value}: expected a number of at least 0; give one")
        if not 0 <= self.label_smoothing < 1:
            raise HeadError(f"--label-smoothing {self.label_smoothing}: expected a share from 0 to below 1; give one")

    def _check_data(self) -> None:
        """Raise `HeadError` or `DataError` where what is trained on does not go with the layer that is trained from."""
        compressing.check(self.compression)
        if self.from_input and self.compression != "none":
            raise HeadError(
                f"--compress {self.compression}: expected --from LAYER, whose maps are cached; from input leave it out"
            )
        if self.weights not in {None, "random"}:
            raise HeadError(
                f"--weights {self.weights}: expected random, or nothing for the weights that the run's network has; leave "
                "it out"
            )
        if self.weights and not self.from_input:
            raise HeadError(
                "--weights random: expected --from input, as cached maps are of trained layers; give --from input"
            )
        if self.from_input and self.views:
            raise HeadError(
                "--views: expected --from LAYER, whose maps are cached; from input every epoch sees images anew; leave it "
                "out"
            )
        if not self.from_input and (self.views > 0) != (self.augment is not None):
            raise DataError("--augment: give both --views and --augment, or neither, where maps are cached")
        if self.from_input:
            BatchMixer(self.mixup, self.cutmix)
