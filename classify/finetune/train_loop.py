"""Training epoch by epoch: first the head, then the layers below it as well, with a checkpoint after each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...cache.errors import HeadError
from ...extract.images.load import Progress
from ..heads.neural.early_stopping import Course
from ..heads.neural.schedules import factors
from .checkpoint import Checkpoint
from .finetune_config import Recipe

if TYPE_CHECKING:
    from .trainable_tail import Network

NAMES = ("loss", "accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True)
class Epoch:
    """An epoch that ended: `number` of at most `of`, of the stage `choose` or `refit`; figures as in the curves, if any.

    part: what was trained, `head` or `all`; "" before anything was. seconds: of this epoch, its measurement and checkpoint
    left out.
    """

    stage: str
    number: int
    of: int
    part: str
    figures: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Watched:
    """What an epoch is judged by: batches and class numbers of images held out, and of as many that are learnt from."""

    held: Any
    held_labels: np.ndarray
    seen: Any
    seen_labels: np.ndarray

    def measure(self, network: Network) -> tuple[dict[str, float], np.ndarray]:
        """Loss and accuracy on both, as the network would answer (no dropout, no mixing), and the answers on the first."""
        answers = network.answers(self.held)
        seen = _figures(network.answers(self.seen), self.seen_labels)
        held = _figures(answers, self.held_labels)
        return dict(zip(NAMES, (*seen, *held), strict=True)), answers


def _figures(answers: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    known = np.where(np.isfinite(answers), answers, 1 / answers.shape[1])  # a network that has diverged knows nothing
    true = known[np.arange(len(labels)), labels]
    loss = -np.log(np.clip(true, np.finfo(np.float32).eps, 1.0)).mean()
    return float(loss), float((known.argmax(axis=1) == labels).mean())


def choose(
    make: Callable[[], Network],
    batches: Any,
    watched: Watched,
    recipe: Recipe,
    kept: Checkpoint,
    told: Callable[[Epoch], None],
    progress: Progress | None,
) -> tuple[Course, dict[str, float], Network | None]:
    """Train until no epoch is better any more; how it went, how good the network was before, and the network.

    Where the recipe does not train again afterwards, the network is as it was after its best epoch; it is None where a
    checkpoint says that training again has begun.
    """
    epochs = recipe.of_head + recipe.epochs
    course = Course(epochs, recipe.patience, {name: [] for name in NAMES}, [], least=recipe.of_head + 1)
    done, start, best = 0, {}, list[np.ndarray]()
    if kept.facts:
        start, course.curves, course.best = kept.facts["start"], kept.facts["curves"], kept.facts["best"]
        course.answers, done = kept.arrays["answers"], len(course.curves["val_loss"])
        if kept.facts["stage"] == "refit":
            return course, start, None
        best = kept.arrays["best"]
    network = make()
    _resume(network, recipe, kept, done)
    if not start:
        start, _ = watched.measure(network)
        told(Epoch("choose", 0, epochs, "", start, 0.0))
    while not (done and course.over):
        seconds = _epoch(network, batches, recipe, done, epochs, progress)
        figures, answers = watched.measure(network)
        course.add(figures, [answers])
        done += 1
        state = network.state()
        if not recipe.refit and course.best == done - 1:
            best = state
        facts = {"stage": "choose", "start": start, "curves": course.curves, "best": course.best}
        kept.write(facts, {"state": state, "best": best, "answers": course.answers})
        told(Epoch("choose", done, epochs, _part(recipe, done - 1), figures, seconds))
    if not np.isfinite(course.answers[0]).all():
        raise HeadError(
            f"{kept.run.path}: expected training to converge, found answers that are no numbers after its best epoch; lower "
            "--learning-rate, or leave --precision out"
        )
    if not recipe.refit:
        network.compile(recipe, head_only=course.best < recipe.of_head)
        network.restore(best)
    return course, start, network


def refit(
    network: Network,
    batches: Any,
    epochs: int,
    recipe: Recipe,
    kept: Checkpoint,
    told: Callable[[Epoch], None],
    progress: Progress | None,
) -> None:
    """Train for as many epochs as were best, unwatched, after `choose`."""
    done = kept.facts.get("done", 0)
    _resume(network, recipe, kept, done)
    while done < epochs:
        seconds = _epoch(network, batches, recipe, done, epochs, progress)
        done += 1
        arrays = {"state": network.state(), "answers": kept.arrays["answers"]}
        kept.write({**kept.facts, "stage": "refit", "done": done}, arrays)
        told(Epoch("refit", done, epochs, _part(recipe, done - 1), {}, seconds))


def _resume(network: Network, recipe: Recipe, kept: Checkpoint, done: int) -> None:
    """Put the network where it was after `done` epochs."""
    network.compile(recipe, head_only=max(0, done - 1) < recipe.of_head)
    if done:
        network.restore(kept.arrays["state"])


def _epoch(network: Network, batches: Any, recipe: Recipe, done: int, epochs: int, progress: Progress | None) -> float:
    """Train for one more epoch; the seconds it took."""
    if done == recipe.of_head and done:
        network.compile(recipe, head_only=False)
    steps, own = len(batches), done - recipe.of_head
    rates = None
    if own >= 0 and recipe.schedule != "constant":
        table = float(recipe.learning_rate or 0) * factors(recipe.schedule, recipe.epochs * steps)
        rates = table[own * steps : (own + 1) * steps]
    batches.epoch = done
    began = time.monotonic()
    told = None if progress is None else lambda number: progress(done * steps + number, epochs * steps)
    network.epoch(batches, rates, told)
    return time.monotonic() - began


def _part(recipe: Recipe, epoch: int) -> str:
    return "head" if epoch < recipe.of_head else "all"
