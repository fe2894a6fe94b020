"""A second-order model of a linear head's objective, and the search direction that L-BFGS makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .design_matrix import Basis

Pair = tuple[np.ndarray, np.ndarray]  # a step, and the turn of the gradient that it made; 0 where a fold had none


@dataclass(frozen=True)
class Model:
    """The inverse of `C n A (x) cov + 1`: mean curvature over classes times the rows' covariance, and the penalty.

    along (folds, k, q): the inverse along each pair of a class combination and a direction of the rows. rest (folds, k): for
    what the basis leaves out. bias (folds, k): for the intercept. mixing (folds, k, k): class combinations, as columns.
    """

    basis: Basis
    along: np.ndarray
    rest: np.ndarray
    bias: np.ndarray
    mixing: np.ndarray

    @classmethod
    def of(cls, basis: Basis, curvatures: Sequence[np.ndarray], strengths: np.ndarray) -> Model:
        """For the mean curvature (k, k) of each fold's rows, and C times their number (folds,)."""
        values, mixing = np.linalg.eigh(np.stack(curvatures))
        strength = (strengths[:, None] * np.maximum(values, 0)).astype(np.float32)
        along = 1 / (strength[..., None] * basis.values[:, None, :] + 1)
        rest = 1 / (strength * np.float32(basis.rest) + 1)
        least = (1e-3 * strength.max(axis=1) + 1e-6 * strengths)[:, None]  # rows beyond the hinge have no curvature
        bias = (1 / np.maximum(strength, least)).astype(np.float32)
        return cls(basis, along, rest, bias, mixing.astype(np.float32))

    def apply(self, vectors: np.ndarray, which: np.ndarray) -> np.ndarray:
        """The inverse times vectors (folds, k, r + 1), which end in the intercept's, of the folds numbered `which`."""
        weights, turned, bias = self._inside(vectors, which)
        turned *= self._along(which)
        out = np.empty_like(vectors)
        if self.basis.vectors is None:
            out[..., :-1] = turned
        else:
            count, outputs, width = weights.shape
            out[..., :-1] = (turned.reshape(count * outputs, -1) @ self.basis.vectors.T).reshape(weights.shape)
            if turned.shape[2] < width:
                out[..., :-1] += weights * self.rest[which][..., None]
        out[..., -1] = bias * self.bias[which]
        return np.asarray(self.mixing[which] @ out)

    def square(self, vectors: np.ndarray, which: np.ndarray) -> np.ndarray:
        """The inner products (folds,) of vectors with the inverse times themselves."""
        weights, turned, bias = self._inside(vectors, which)
        out = dot(turned, turned * self._along(which)) + dot(bias, bias * self.bias[which])
        if turned.shape[2] < weights.shape[2]:
            out += dot(weights, weights * self.rest[which][..., None])
        return np.asarray(out)

    def _inside(self, vectors: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vectors by class combinations: weights (folds, k, r), these along the basis (folds, k, q), biases (folds, k)."""
        inside = self.mixing[which].transpose(0, 2, 1) @ vectors
        weights, axes = np.ascontiguousarray(inside[..., :-1]), self.basis.vectors
        if axes is None:
            return weights, weights, inside[..., -1]
        return weights, (weights.reshape(-1, weights.shape[2]) @ axes).reshape(*weights.shape[:2], -1), inside[..., -1]

    def _along(self, which: np.ndarray) -> np.ndarray:
        """What multiplies each pair of a class combination and a direction of the basis."""
        axes, along = self.basis.vectors, self.along[which]
        whole = axes is None or axes.shape[1] == axes.shape[0]
        return np.asarray(along if whole else along - self.rest[which][..., None])

    def direction(self, gradient: np.ndarray, pairs: Sequence[Pair], which: np.ndarray) -> np.ndarray:
        """Minus the inverse Hessian times the gradient, by the two loops of L-BFGS (Nocedal 1980) about this model."""
        rest, kept = gradient.copy(), []
        for step, turn in reversed(pairs):
            product = dot(step, turn)
            inverse = np.divide(1, product, out=np.zeros_like(product), where=product > 0)
            share = dot(step, rest) * inverse
            rest -= times(share, turn)
            kept.append((step, turn, share, inverse))
        out = self.apply(rest, which)
        if kept:  # the model's scale is that of the last turn
            step, turn, _, inverse = kept[0]
            modelled = inverse * self.square(turn, which)
            out = times(np.divide(1, modelled, out=np.ones_like(inverse), where=modelled > 0), out)
        for step, turn, share, inverse in reversed(kept):
            out += times(share - dot(turn, out) * inverse, step)
        return -out


def dot(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Inner products (folds,) float64 of what each fold has."""
    count = len(left)
    return np.asarray(np.vecdot(left.reshape(count, -1), right.reshape(count, -1)), np.float64)


def times(factors: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Each fold's vectors times its factor (folds,)."""
    return np.asarray(vectors * factors.astype(np.float32).reshape(-1, *[1] * (vectors.ndim - 1)))


def grown(turn: np.ndarray, step: np.ndarray, factor: float) -> np.ndarray:
    """The turn of the gradient that a step makes once C is so many times as large: only the penalty's part stays."""
    out = np.float32(factor) * turn
    out[..., :-1] -= np.float32(factor - 1) * step[..., :-1]
    return np.asarray(out)
