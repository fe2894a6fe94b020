"""Metric-learning losses in Keras, for the class numbers (n,) and unit-length embeddings (n, e) of a batch.

Views of one image have the same class, and so are positives of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ....extract.backbones.keras_runtime import load_keras


@dataclass(frozen=True)
class EmbeddingLoss:
    """A loss over the pairs of a batch, with its one hyperparameter.

    Parameters
    ----------
    function
        Takes class numbers (n,), embeddings (n, e) and the hyperparameter.
    option
        Name of the hyperparameter for users.
    default
        Its default value.
    search_range
        Its range for a random search.
    """

    function: Callable[[Any, Any, float], Any]
    option: str
    default: float
    search_range: str

    def bind(self, value: float) -> Callable[[Any, Any], Any]:
        """Return the loss with a value of its hyperparameter, as Keras calls it."""

        def loss(labels: Any, embeddings: Any) -> Any:
            return self.function(labels, embeddings, value)

        return loss


def triplet_loss(labels: Any, embeddings: Any, margin: float) -> Any:
    """Compute the triplet loss with semi-hard negatives, mined within the batch.

    The mean of `max(0, |a - p|² - |a - n|² + margin)` over all ordered pairs (a, p) of a class, or 0 if there are none. The
    negative n is the nearest row of another class that is farther from a than p is, or the farthest row of another class if
    none is. A pair costs nothing if there is no other class. Schroff, Kalenichenko and Philbin, "FaceNet" (2015), equation
    4.
    """
    ops = load_keras().ops
    same_class, embeddings = _match_labels(labels, embeddings)
    squared = ops.maximum(2 - 2 * ops.matmul(embeddings, ops.transpose(embeddings)), 0.0)
    positive = ops.logical_and(same_class, ops.logical_not(_build_diagonal_mask(same_class)))
    upper_bound = 5.0  # more than any squared distance of unit-length rows
    from_other = ops.where(same_class, upper_bound, squared)  # (a, n)
    farther = from_other[:, None, :] > squared[:, :, None]  # (a, p, n)
    nearest = ops.min(ops.where(farther, from_other[:, None, :], upper_bound), axis=2)
    farthest = ops.max(ops.where(same_class, -1.0, squared), axis=1)[:, None]
    to_negative = ops.where(nearest < upper_bound, nearest, farthest)
    is_counted = ops.logical_and(positive, farthest >= 0)
    losses = ops.where(is_counted, ops.maximum(squared - to_negative + margin, 0.0), 0.0)
    n_pairs = ops.sum(ops.cast(positive, "float32"))
    return ops.sum(losses) / ops.maximum(n_pairs, 1.0)


def supervised_contrastive_loss(labels: Any, embeddings: Any, temperature: float) -> Any:
    """Compute the supervised contrastive loss, with the sum over positives outside the logarithm.

    The mean over rows z that have a positive of `-mean over p of log(exp(z·z_p / t) / sum over a of exp(z·z_a / t))`, or 0
    if there are none; p runs over the other rows of the class, a over all other rows. Khosla et al., "Supervised Contrastive
    Learning" (2020), equation 2.
    """
    ops = load_keras().ops
    same_class, embeddings = _match_labels(labels, embeddings)
    diagonal = _build_diagonal_mask(same_class)
    similarity = ops.where(diagonal, -1e9, ops.matmul(embeddings, ops.transpose(embeddings)) / temperature)
    log_share = similarity - ops.logsumexp(similarity, axis=1, keepdims=True)
    positive = ops.cast(ops.logical_and(same_class, ops.logical_not(diagonal)), "float32")
    n_positives = ops.sum(positive, axis=1)
    row_losses = -ops.sum(ops.where(positive > 0, log_share, 0.0), axis=1) / ops.maximum(n_positives, 1.0)
    return ops.sum(row_losses) / ops.maximum(ops.sum(ops.cast(n_positives > 0, "float32")), 1.0)


def _match_labels(labels: Any, embeddings: Any) -> tuple[Any, Any]:
    """Mask (n, n) of rows of the same class, and the embeddings (n, e), which Keras flattens if e is 1."""
    ops = load_keras().ops
    labels = ops.reshape(labels, (-1,))
    if len(embeddings.shape) == 1:
        embeddings = embeddings[:, None]
    return labels[:, None] == labels[None, :], embeddings


def _build_diagonal_mask(square: Any) -> Any:
    ops = load_keras().ops
    rows = ops.arange(ops.shape(square)[0])
    return rows[:, None] == rows[None, :]


TRIPLET_LOSS = EmbeddingLoss(triplet_loss, "margin", 0.2, "0.05..0.5")
SUPERVISED_CONTRASTIVE_LOSS = EmbeddingLoss(supervised_contrastive_loss, "temperature", 0.1, "0.05..0.5")
