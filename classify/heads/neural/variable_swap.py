"""Trainings, one for each fold, that take turns in one compiled model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ....extract.backbones.keras_runtime import load_keras


class StatefulTraining(Protocol):
    """What takes turns; state: the values of the model's variables, and of its optimizer's, as it left them."""

    state: list[Any]


class VariableSwap:
    """The variables of a model and its optimizer. start: their values before the first step of any training."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self.variables = list(variables)
        self.initial_state = self._copy_values()
        self._current: StatefulTraining | None = None

    def swap_in(self, training: StatefulTraining) -> None:
        """Give the variables the state of `training`, and the one they had to the training that left it there."""
        if self._current is not training:
            self.store()
            for variable, value in zip(self.variables, training.state, strict=True):
                variable.assign(value)
            self._current = training

    def store(self) -> None:
        """Give the training that is at work the state that the variables have."""
        if self._current is not None:
            self._current.state = self._copy_values()

    def _copy_values(self) -> list[Any]:
        ops = load_keras().ops
        return [ops.copy(variable) for variable in self.variables]
