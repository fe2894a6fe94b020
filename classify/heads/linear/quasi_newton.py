"""A second-order model of a linear head's objective, and the search direction of L-BFGS based on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .design_matrix import Basis

CurvaturePair = tuple[np.ndarray, np.ndarray]  # a step and the change of the gradient along it; 0 for a fold that had none


@dataclass(frozen=True)
class QuadraticModel:
    """The inverse of `C n A (x) cov + 1`: mean curvature A over classes, covariance of the rows, and the penalty.

    Parameters
    ----------
    basis
        Eigenvectors of the covariance.
    inverse_along : ndarray of shape (folds, k, q)
        The inverse along each pair of a class combination and a direction of the basis.
    inverse_outside : ndarray of shape (folds, k)
        The inverse outside the basis.
    bias : ndarray of shape (folds, k)
        The inverse for the intercept.
    mixing : ndarray of shape (folds, k, k)
        Class combinations, the eigenvectors of A, as columns.
    """

    basis: Basis
    inverse_along: np.ndarray
    inverse_outside: np.ndarray
    bias: np.ndarray
    mixing: np.ndarray

    @classmethod
    def from_curvatures(cls, basis: Basis, curvatures: Sequence[np.ndarray], strengths: np.ndarray) -> QuadraticModel:
        """Build the model from each fold's mean curvature (k, k), and C times its number of rows (folds,)."""
        values, mixing = np.linalg.eigh(np.stack(curvatures))
        strength = (strengths[:, None] * np.maximum(values, 0)).astype(np.float32)
        inverse_along = 1 / (strength[..., None] * basis.values[:, None, :] + 1)
        inverse_outside = 1 / (strength * np.float32(basis.residual_variance) + 1)
        floor = (1e-3 * strength.max(axis=1) + 1e-6 * strengths)[:, None]  # rows beyond the hinge have no curvature
        bias = (1 / np.maximum(strength, floor)).astype(np.float32)
        return cls(basis, inverse_along, inverse_outside, bias, mixing.astype(np.float32))

    def apply(self, vectors: np.ndarray, fold_ids: np.ndarray) -> np.ndarray:
        """Return the inverse times vectors (folds, k, r + 1), with the intercept last, for the folds `fold_ids`."""
        weights, projected, bias = self._to_basis(vectors, fold_ids)
        projected *= self._compute_factors(fold_ids)
        out = np.empty_like(vectors)
        if self.basis.vectors is None:
            out[..., :-1] = projected
        else:
            count, outputs, width = weights.shape
            out[..., :-1] = (projected.reshape(count * outputs, -1) @ self.basis.vectors.T).reshape(weights.shape)
            if projected.shape[2] < width:
                out[..., :-1] += weights * self.inverse_outside[fold_ids][..., None]
        out[..., -1] = bias * self.bias[fold_ids]
        return np.asarray(self.mixing[fold_ids] @ out)

    def compute_quadratic_form(self, vectors: np.ndarray, fold_ids: np.ndarray) -> np.ndarray:
        """Return the inner products (folds,) of vectors with the inverse times the vectors."""
        weights, projected, bias = self._to_basis(vectors, fold_ids)
        out = dot(projected, projected * self._compute_factors(fold_ids)) + dot(bias, bias * self.bias[fold_ids])
        if projected.shape[2] < weights.shape[2]:
            out += dot(weights, weights * self.inverse_outside[fold_ids][..., None])
        return np.asarray(out)

    def _to_basis(self, vectors: np.ndarray, fold_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return vectors by class combination.

        The result are weights (folds, k, r), their parts along the basis (folds, k, q), and biases (folds, k).
        """
        combined = self.mixing[fold_ids].transpose(0, 2, 1) @ vectors
        weights, axes = np.ascontiguousarray(combined[..., :-1]), self.basis.vectors
        if axes is None:
            return weights, weights, combined[..., -1]
        return weights, (weights.reshape(-1, weights.shape[2]) @ axes).reshape(*weights.shape[:2], -1), combined[..., -1]

    def _compute_factors(self, fold_ids: np.ndarray) -> np.ndarray:
        """Return the factor for each pair of a class combination and a direction of the basis."""
        axes, inverse_along = self.basis.vectors, self.inverse_along[fold_ids]
        is_complete = axes is None or axes.shape[1] == axes.shape[0]
        return np.asarray(inverse_along if is_complete else inverse_along - self.inverse_outside[fold_ids][..., None])

    def compute_direction(self, gradient: np.ndarray, pairs: Sequence[CurvaturePair], fold_ids: np.ndarray) -> np.ndarray:
        """Return minus the inverse Hessian times the gradient, by the two-loop recursion of L-BFGS (Nocedal 1980)."""
        remainder, applied_pairs = gradient.copy(), []
        for step, gradient_change in reversed(pairs):
            product = dot(step, gradient_change)
            inverse = np.divide(1, product, out=np.zeros_like(product), where=product > 0)
            share = dot(step, remainder) * inverse
            remainder -= scale_vectors(share, gradient_change)
            applied_pairs.append((step, gradient_change, share, inverse))
        out = self.apply(remainder, fold_ids)
        if applied_pairs:  # the model is scaled by the last pair
            step, gradient_change, _, inverse = applied_pairs[0]
            model_curvature = inverse * self.compute_quadratic_form(gradient_change, fold_ids)
            out = scale_vectors(np.divide(1, model_curvature, out=np.ones_like(inverse), where=model_curvature > 0), out)
        for step, gradient_change, share, inverse in reversed(applied_pairs):
            out += scale_vectors(share - dot(gradient_change, out) * inverse, step)
        return -out


def dot(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return inner products (folds,) float64 of arrays (folds, ...)."""
    count = len(left)
    return np.asarray(np.vecdot(left.reshape(count, -1), right.reshape(count, -1)), np.float64)


def scale_vectors(factors: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Multiply arrays (folds, ...) by factors (folds,)."""
    return np.asarray(vectors * factors.astype(np.float32).reshape(-1, *[1] * (vectors.ndim - 1)))


def rescale_gradient_change(gradient_change: np.ndarray, step: np.ndarray, factor: float) -> np.ndarray:
    """Return the change of the gradient along a step after scaling C by `factor`: only the part of the penalty stays."""
    out = np.float32(factor) * gradient_change
    out[..., :-1] -= np.float32(factor - 1) * step[..., :-1]
    return np.asarray(out)
