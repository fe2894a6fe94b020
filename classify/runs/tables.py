"""The tables of a run: who did how well, what became of each image, and what the winner answered."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from ...extract.images.load import Images
from .run import Run
from ..data.splits import Splits
from ..evaluate.trial import Score, Trial, ranked


def write(run: Run, images: Images, splits: Splits, scores: Mapping[Trial, Score], probabilities: np.ndarray) -> None:
    """Write `leaderboard.csv`, `images.csv`, `predictions.csv` and `probabilities.npy`.

    probabilities (n, classes): the winner's answers for the test split, in its order; the tables are in order of name.
    """
    _leaderboard(run, scores)
    _images(run, images, splits)
    _predictions(run, images, splits, probabilities)


def _leaderboard(run: Run, scores: Mapping[Trial, Score]) -> None:
    header = ["rank", "trial", "backbone", "layer", "pool", "head", "setting", "accuracy", "std", "log_loss", "seconds"]
    rows = []
    for rank, trial in enumerate(ranked(scores), start=1):
        score, sources = scores[trial], trial.sources
        rows.append(
            [
                rank,
                trial.id,
                " + ".join(source.backbone for source in sources),
                " + ".join(source.layer for source in sources),
                " + ".join(source.pool for source in sources),
                trial.head,
                " ".join(f"{name}={value}" for name, value in trial.setting.items()),
                f"{score.accuracy:.5f}",
                f"{np.std(score.folds):.5f}",
                f"{score.log_loss:.5f}",
                f"{score.seconds:.2f}",
            ]
        )
    run.write_csv("leaderboard.csv", header, rows)


def _images(run: Run, images: Images, splits: Splits) -> None:
    role = {int(row): name for name in ("train", "val", "test") for row in getattr(splits, name)}
    rows = [
        [image.name, "used", "", image.item.label, role[row], image.format, image.digest.hex(), image.item.group]
        for row, image in sorted(enumerate(images.used), key=lambda pair: pair[1].name)
    ]
    rows += [[copy.name, "duplicate", copy.original, "", "", "", "", ""] for copy in images.duplicates]
    rows += [[item.name, "refused", f"{item.reason}: {item.detail}", "", "", "", "", ""] for item in images.refused]
    run.write_csv("images.csv", ["path", "outcome", "detail", "label", "split", "format", "sha256", "group"], rows)


def _predictions(run: Run, images: Images, splits: Splits, probabilities: np.ndarray) -> None:
    order = sorted(range(len(splits.test)), key=lambda place: images.used[splits.test[place]].name)
    probabilities = probabilities[order]
    predicted = probabilities.argmax(axis=1)
    rows = [
        [images.used[row].name, splits.classes[splits.labels[row]], splits.classes[guess], f"{sure[guess]:.6f}"]
        for row, guess, sure in zip(splits.test[order], predicted, probabilities, strict=True)
    ]
    run.write_csv("predictions.csv", ["path", "label", "predicted", "probability"], rows)
    buffer = io.BytesIO()
    np.save(buffer, probabilities, allow_pickle=False)
    run.write("probabilities.npy", buffer.getvalue())
