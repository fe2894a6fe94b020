"""How a network is fine-tuned: every choice in one value, as it is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...cache.errors import HeadError
from ...extract.backbones.precision import PRECISIONS
from ..heads.families.mlp import OPTIMIZERS
from ..heads.neural.schedules import SCHEDULES

DEFAULT_LEARNING_RATES = {"tail": 3e-4, "input": 1e-5, "random": 1e-3}


@dataclass(frozen=True)
class FinetuneConfig:
    """How to train.

    epochs: at most, after `head_epochs` of the head alone (None: 2, from scratch 0), at `head_learning_rate`. patience:
    epochs without a lower validation loss after which it stops, 0 for never. learning_rate: of all, afterwards; None takes
    `DEFAULT_LEARNING_RATES`: lower for a pretrained network than for the layers at its end. weight_decay: decoupled; None is
    0.004 for adamw, as in Keras, and 0 for the others. mixup, cutmix: alpha of the Beta distribution, 0 for none. augment:
    what is done to images as they stream; train_batch_norm: whether batch normalisation learns and counts, too; precision:
    of the arithmetic in training. refit: whether, once the best epoch is known, as many are trained on all but the test
    split.
    """

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
    augment: str = ""
    train_batch_norm: bool = False
    precision: str = "float32"
    refit: bool = True

    def resolve(self, mode: str) -> FinetuneConfig:
        """The recipe with what the kind of training (tail, input, random) decides filled in; raises `HeadError`."""
        self._check()
        default_decay = 0.004 if self.optimizer == "adamw" else 0.0
        return replace(
            self,
            learning_rate=DEFAULT_LEARNING_RATES[mode] if self.learning_rate is None else self.learning_rate,
            weight_decay=default_decay if self.weight_decay is None else self.weight_decay,
            head_epochs=self.head_epochs if self.head_epochs is not None else 0 if mode == "random" else 2,
            train_batch_norm=mode == "random" or self.train_batch_norm,
        )

    @property
    def n_head_epochs(self) -> int:
        """Epochs of the head alone, once the recipe is resolved."""
        return self.head_epochs or 0

    def _check(self) -> None:
        choices = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                option = f"{_format_option(name)} {getattr(self, name)!r}"
                raise HeadError(f"{option}: expected one of {', '.join(allowed)}; choose one of them")
        bounds = {"epochs": 1, "head_epochs": 0, "patience": 0, "batch_size": 1}
        for name, minimum in bounds.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise HeadError(f"{_format_option(name)} {getattr(self, name)}: expected at least {minimum}; give more")
        for name in ("learning_rate", "head_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise HeadError(f"{_format_option(name)} {value}: expected a number above 0, such as 1e-4; give one")
        for name in ("weight_decay", "mixup", "cutmix"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise HeadError(f"{_format_option(name)} {value}: expected a number of at least 0; give one")
        if not 0 <= self.label_smoothing < 1:
            raise HeadError(f"--label-smoothing {self.label_smoothing}: expected a share from 0 to below 1; give one")

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> FinetuneConfig:
        """The recipe that `to_dict` wrote."""
        return cls(**value)


def _format_option(name: str) -> str:
    return "--" + name.replace("_", "-")
