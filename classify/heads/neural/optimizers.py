"""RAdam and Ranger as Keras optimizers, and optimizers with one rate per head. Importing this loads Keras."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ....extract.backbones.keras_runtime import load_keras

keras = load_keras()
ops = keras.ops


@keras.saving.register_keras_serializable("humeris")
class RAdam(keras.optimizers.Optimizer):  # type: ignore[misc, name-defined]
    """Rectified Adam (Liu et al., ICLR 2020, arXiv:1908.03265, algorithm 2).

    While the variance of the adaptive step cannot be estimated (rho_t <= 4: the first four steps for beta_2 = 0.999), a
    step is the bias-corrected momentum times the learning rate; afterwards it is Adam's step times the rectification r_t.
    `epsilon`, which the paper leaves out, is added to the root of the second moment before its bias correction, as in
    Keras's Adam.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def build(self, variables: Sequence[Any]) -> None:
        """Create the two moments of each variable."""
        if not self.built:
            super().build(variables)
            self._momentums, self._velocities = self.add_optimizer_variables(variables, ["momentum", "velocity"])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable; `learning_rate` may be a tensor that broadcasts against it."""
        gradient, rate = ops.cast(gradient, variable.dtype), ops.cast(learning_rate, variable.dtype)
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        self.assign_add(m, (gradient - m) * (1 - self.beta_1))
        self.assign_add(v, (ops.square(gradient) - v) * (1 - self.beta_2))
        momentum_correction, velocity_correction, is_rectified, factor = (
            ops.cast(value, variable.dtype) for value in self._compute_corrections()
        )
        adaptive = factor * ops.sqrt(velocity_correction) / (ops.sqrt(v) + self.epsilon)
        self.assign_sub(variable, rate / momentum_correction * m * ops.where(is_rectified > 0, adaptive, 1.0))

    def _compute_corrections(self) -> tuple[Any, Any, Any, Any]:
        """Return 1 - beta_1^t, 1 - beta_2^t, 1 if rho_t > 4 (else 0), and r_t, all in float32.

        rho_t is the difference of two numbers near 2,000, of which float32 would leave three digits. With a = -t
        log(beta_2) it is a constant plus 2 / -log(beta_2) times (1 - a / (e^a - 1)), which has a series near 0.
        """
        step = ops.cast(self.iterations + 1, "float32")
        decay = -math.log(self.beta_2)
        a = decay * step
        series = a / 2 - ops.square(a) / 12 + ops.power(a, 4) / 720 - ops.power(a, 6) / 30240
        ratio = ops.where(a < 0.2, series, 1 - a / ops.expm1(ops.maximum(a, 0.1)))
        limit = 2 / (1 - self.beta_2) - 1
        rho = (limit - 2 / decay) + 2 / decay * ratio
        is_rectified = ops.cast(rho > 4, "float32")
        clipped_rho = ops.maximum(rho, 4.0)
        factor = ops.sqrt((clipped_rho - 4) * (clipped_rho - 2) * limit / ((limit - 4) * (limit - 2) * clipped_rho))
        return -ops.expm1(step * math.log(self.beta_1)), -ops.expm1(-a), is_rectified, factor

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build the same optimizer."""
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable("humeris")
class Ranger(RAdam):
    """RAdam with Lookahead (Zhang et al., NeurIPS 2019, arXiv:1907.08610, algorithm 1).

    After every `k` steps the slow weights move by the fraction `alpha` towards the fast ones, which restart from there.
    """

    def __init__(self, *args: Any, k: int = 6, alpha: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.k, self.alpha = k, alpha

    def build(self, variables: Sequence[Any]) -> None:
        """Create the moments and the slow weights of each variable."""
        if not self.built:
            super().build(variables)
            self._slow = self.add_optimizer_variables(variables, "slow")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable, and in every k-th step its slow weights, which start where the first step starts."""
        slow = self._slow[self._get_variable_index(variable)]
        start = ops.where(ops.equal(self.iterations, 0), variable, slow)
        super().update_step(gradient, variable, learning_rate)
        synchronize = ops.equal((self.iterations + 1) % self.k, 0)
        updated = ops.where(synchronize, start + self.alpha * (variable - start), start)
        self.assign(slow, updated)
        self.assign(variable, ops.where(synchronize, updated, variable))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that build the same optimizer."""
        return {**super().get_config(), "k": self.k, "alpha": self.alpha}


# Values of the option `optimizer`, with Keras's defaults. Adam with the decoupled weight decay that the functions below add
# is AdamW.
_KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (keras.optimizers.Adam, {}),
    "adamw": (keras.optimizers.Adam, {}),
    "radam": (RAdam, {}),
    "ranger": (Ranger, {}),
}


def build_optimizer(kind: str, learning_rate: float, weight_decay: float) -> Any:
    """Build a Keras optimizer for one model, with decoupled weight decay of every weight."""
    base, options = _KINDS[kind]
    return base(learning_rate=learning_rate, weight_decay=weight_decay or None, name=kind, **options)


def build_per_head_optimizer(kind: str, n_rates: int, decays: np.ndarray, axes: Sequence[int]) -> Any:
    """Build an optimizer whose variable ``rates`` has a learning rate for each head, or one for all.

    Parameters
    ----------
    kind
        sgd, adam, adamw, radam or ranger.
    n_rates
        The number of heads, or 1.
    decays : ndarray of shape (heads,)
        Decoupled weight decay of each head, of every weight, as Keras's ``weight_decay``.
    axes
        For each variable of the optimizer, the axis of the heads.
    """
    base, options = _KINDS[kind]

    class PerHead(base):  # type: ignore[misc, valid-type]
        def build(self, variables: Sequence[Any]) -> None:
            super().build(variables)
            self.rates = self.add_variable((n_rates,), name="rates")

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            axis = axes[self._get_variable_index(variable)]
            shape = [-1 if dimension == axis else 1 for dimension in range(len(variable.shape))]
            rate = learning_rate * ops.reshape(self.rates, shape)
            if decays.any():
                self.assign(variable, variable * (1 - rate * decays.astype(np.float32).reshape(shape)))
            super().update_step(gradient, variable, rate)

    return PerHead(learning_rate=1.0, name=kind, **options)
