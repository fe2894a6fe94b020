"""Swap the weights of several trainings, one for each fold, in and out of one compiled model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ....extract.backbones.keras_runtime import load_keras


class StatefulTraining(Protocol):
    """A training; `state` has the values of the model's and the optimizer's variables, in the order of `VariableSwap`."""

    state: list[Any]


class VariableSwap:
    """The variables of a model and its optimizer, which hold the state of one training at a time.

    Attributes
    ----------
    variables
        As given.
    initial_state
        Their values before the first step of any training.
    """

    def __init__(self, variables: Sequence[Any]) -> None:
        self.variables = list(variables)
        self.initial_state = self._copy_values()
        self._current: StatefulTraining | None = None

    def swap_in(self, training: StatefulTraining) -> None:
        """Store the state of the active training, and load that of `training`."""
        if self._current is not training:
            self.store()
            for variable, value in zip(self.variables, training.state, strict=True):
                variable.assign(value)
            self._current = training

    def store(self) -> None:
        """Store the values of the variables in the active training."""
        if self._current is not None:
            self._current.state = self._copy_values()

    def _copy_values(self) -> list[Any]:
        ops = load_keras().ops
        return [ops.copy(variable) for variable in self.variables]
