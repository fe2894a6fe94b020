"""Training loop: warm-up epochs of the head, then all layers above the cut, with a checkpoint after each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cache.errors import HeadError
from ...extract.images.load import Progress
from ..evaluate.target import Target
from ..heads.neural.early_stopping import EarlyStopping
from ..heads.neural.schedules import compute_factors
from .checkpoint import Checkpoint
from .finetune_config import FinetuneConfig

if TYPE_CHECKING:
    from .trainable_tail import Network

METRIC_NAMES = ("loss", "accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True)
class Epoch:
    """A finished epoch: `number` of at most `total`, of the stage `choose` or `refit`, with its metrics, if any.

    part: what was trained, `head` or `all`; "" before training. seconds: of training, without scoring and checkpoint.
    """

    stage: str
    number: int
    total: int
    part: str
    metrics: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class EvalBatches:
    """What an epoch is scored on: batches and encoded labels of images held out, and of as many training images."""

    held_out: Any
    held_out_labels: np.ndarray
    train: Any
    train_labels: np.ndarray
    target: Target

    def evaluate(self, network: Network) -> tuple[dict[str, float], np.ndarray]:
        """Return loss and accuracy on both in inference mode, and the predictions of the held-out images."""
        probabilities = network.predict_proba(self.held_out)
        train_metrics = self._compute_metrics(network.predict_proba(self.train), self.train_labels)
        held_out_metrics = self._compute_metrics(probabilities, self.held_out_labels)
        return dict(zip(METRIC_NAMES, (*train_metrics, *held_out_metrics), strict=True)), probabilities

    def _compute_metrics(self, probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        finite = self.target.replace_non_finite(probabilities)  # of a network that diverged
        loss, is_correct = self.target.compute_loss(labels, finite), self.target.find_correct(labels, finite)
        return loss, float(is_correct.mean())


def find_best_epoch(
    build_network: Callable[[], Network],
    batches: Any,
    eval_batches: EvalBatches,
    config: FinetuneConfig,
    checkpoint: Checkpoint,
    on_epoch: Callable[[Epoch], None],
    progress: Progress | None,
) -> tuple[EarlyStopping, dict[str, float], Network | None]:
    """Train until the validation loss stops falling.

    Returns
    -------
    early_stopping : EarlyStopping
        The training curves and the best epoch.
    initial_metrics : dict
        The metrics before training.
    network : Network or None
        Without `config.refit`, the network with the weights of its best epoch; None if the checkpoint shows that refitting
        has begun.
    """
    epochs = config.n_head_epochs + config.epochs
    early_stopping = EarlyStopping(
        epochs, config.patience, {name: [] for name in METRIC_NAMES}, [], min_epochs=config.n_head_epochs + 1
    )
    epochs_done, initial_metrics, best_state = 0, {}, list[np.ndarray]()
    if checkpoint.metadata:
        initial_metrics, early_stopping.curves, early_stopping.best_epoch = (
            checkpoint.metadata["start"],
            checkpoint.metadata["curves"],
            checkpoint.metadata["best"],
        )
        early_stopping.predictions, epochs_done = checkpoint.arrays["answers"], len(early_stopping.curves["val_loss"])
        if checkpoint.metadata["stage"] == "refit":
            return early_stopping, initial_metrics, None
        best_state = checkpoint.arrays["best"]
    network = build_network()
    _resume(network, config, checkpoint, epochs_done)
    if not initial_metrics:
        initial_metrics, _ = eval_batches.evaluate(network)
        on_epoch(Epoch("choose", 0, epochs, "", initial_metrics, 0.0))
    while not (epochs_done and early_stopping.is_finished):
        seconds = _train_epoch(network, batches, config, epochs_done, epochs, progress)
        metrics, probabilities = eval_batches.evaluate(network)
        early_stopping.add_epoch(metrics, [probabilities])
        epochs_done += 1
        state = network.get_state()
        if not config.refit and early_stopping.best_epoch == epochs_done - 1:
            best_state = state
        metadata = {
            "stage": "choose",
            "start": initial_metrics,
            "curves": early_stopping.curves,
            "best": early_stopping.best_epoch,
        }
        checkpoint.write(metadata, {"state": state, "best": best_state, "answers": early_stopping.predictions})
        on_epoch(Epoch("choose", epochs_done, epochs, _get_trained_part(config, epochs_done - 1), metrics, seconds))
    if not np.isfinite(early_stopping.predictions[0]).all():
        raise HeadError(
            f"{checkpoint.run.path}: training diverged (NaN or infinite predictions after the best epoch); "
            "lower --learning-rate, or leave --precision out"
        )
    if not config.refit:
        network.compile(config, head_only=early_stopping.best_epoch < config.n_head_epochs)
        network.restore(best_state)
    return early_stopping, initial_metrics, network


def refit(
    network: Network,
    batches: Any,
    epochs: int,
    config: FinetuneConfig,
    checkpoint: Checkpoint,
    on_epoch: Callable[[Epoch], None],
    progress: Progress | None,
) -> None:
    """Train for the best number of epochs without validation, after `find_best_epoch`."""
    epochs_done = checkpoint.metadata.get("done", 0)
    _resume(network, config, checkpoint, epochs_done)
    while epochs_done < epochs:
        seconds = _train_epoch(network, batches, config, epochs_done, epochs, progress)
        epochs_done += 1
        arrays = {"state": network.get_state(), "answers": checkpoint.arrays["answers"]}
        checkpoint.write({**checkpoint.metadata, "stage": "refit", "done": epochs_done}, arrays)
        on_epoch(Epoch("refit", epochs_done, epochs, _get_trained_part(config, epochs_done - 1), {}, seconds))


def _resume(network: Network, config: FinetuneConfig, checkpoint: Checkpoint, epochs_done: int) -> None:
    """Restore the network as it was after `epochs_done` epochs."""
    network.compile(config, head_only=max(0, epochs_done - 1) < config.n_head_epochs)
    if epochs_done:
        network.restore(checkpoint.arrays["state"])


def _train_epoch(
    network: Network, batches: Any, config: FinetuneConfig, epochs_done: int, epochs: int, progress: Progress | None
) -> float:
    """Train for one epoch; return the seconds it took."""
    if epochs_done == config.n_head_epochs and epochs_done:
        network.compile(config, head_only=False)
    steps, epoch = len(batches), epochs_done - config.n_head_epochs
    rates = None
    if epoch >= 0 and config.schedule != "constant":
        schedule_rates = float(config.learning_rate or 0) * compute_factors(config.schedule, config.epochs * steps)
        rates = schedule_rates[epoch * steps : (epoch + 1) * steps]
    batches.epoch = epochs_done
    start_time = time.monotonic()
    on_batch = None if progress is None else lambda number: progress(epochs_done * steps + number, epochs * steps)
    network.train_epoch(batches, rates, on_batch)
    return time.monotonic() - start_time


def _get_trained_part(config: FinetuneConfig, epoch: int) -> str:
    return "head" if epoch < config.n_head_epochs else "all"
