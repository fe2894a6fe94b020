"""Trainings, one for each fold, that take turns in one compiled model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ....extract.backbones.keras_runtime import load_keras


class Training(Protocol):
    """What takes turns; state: the values of the model's variables, and of its optimizer's, as it left them."""

    state: list[Any]


class Turns:
    """The variables of a model and its optimizer. start: their values before the first step of any training."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self.variables = list(variables)
        self.start = self._read()
        self._at_work: Training | None = None

    def give(self, training: Training) -> None:
        """Give the variables the state of `training`, and the one they had to the training that left it there."""
        if self._at_work is not training:
            self.store()
            for variable, value in zip(self.variables, training.state, strict=True):
                variable.assign(value)
            self._at_work = training

    def store(self) -> None:
        """Give the training that is at work the state that the variables have."""
        if self._at_work is not None:
            self._at_work.state = self._read()

    def _read(self) -> list[Any]:
        ops = load_keras().ops
        return [ops.copy(variable) for variable in self.variables]
