"""The tables of a run: leaderboard, images and predictions."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from ...extract.images.images import Images
from ..data.splits import Splits
from ..evaluate.trial import Score, Trial, rank_trials
from .run_folder import RunFolder


def write(run: RunFolder, images: Images, splits: Splits, scores: Mapping[Trial, Score], probabilities: np.ndarray) -> None:
    """Write `leaderboard.csv`, `images.csv`, `predictions.csv` and `probabilities.npy`.

    probabilities (n, classes): the winner's predictions for the test split, in its order; the files are in order of name.
    """
    _write_leaderboard(run, scores)
    _write_images(run, images, splits)
    _write_predictions(run, images, splits, probabilities)


def _write_leaderboard(run: RunFolder, scores: Mapping[Trial, Score]) -> None:
    header = [
        "rank",
        "trial",
        "backbone",
        "layer",
        "pool",
        "head",
        "hyperparameters",
        "accuracy",
        "std",
        "log_loss",
        "seconds",
    ]
    rows = []
    for rank, trial in enumerate(rank_trials(scores), start=1):
        score, tap_refs = scores[trial], trial.tap_refs
        rows.append(
            [
                rank,
                trial.id,
                " + ".join(tap_ref.backbone for tap_ref in tap_refs),
                " + ".join(tap_ref.layer for tap_ref in tap_refs),
                " + ".join(tap_ref.pool for tap_ref in tap_refs),
                trial.head,
                " ".join(f"{name}={value}" for name, value in trial.hyperparameters.items()),
                f"{score.accuracy:.5f}",
                f"{np.std(score.folds):.5f}",
                f"{score.log_loss:.5f}",
                f"{score.seconds:.2f}",
            ]
        )
    run.write_csv("leaderboard.csv", header, rows)


def _write_images(run: RunFolder, images: Images, splits: Splits) -> None:
    role_of_row = {int(row): name for name in ("train", "val", "test") for row in getattr(splits, name)}
    rows = [
        [image.name, "used", "", image.item.label, role_of_row[row], image.format, image.digest.hex(), image.item.group]
        for row, image in sorted(enumerate(images.used), key=lambda pair: pair[1].name)
    ]
    rows += [[duplicate.name, "duplicate", duplicate.original, "", "", "", "", ""] for duplicate in images.duplicates]
    rows += [[item.name, "refused", f"{item.reason}: {item.detail}", "", "", "", "", ""] for item in images.rejections]
    run.write_csv("images.csv", ["path", "outcome", "detail", "label", "split", "format", "sha256", "group"], rows)


def _write_predictions(run: RunFolder, images: Images, splits: Splits, probabilities: np.ndarray) -> None:
    order = sorted(range(len(splits.test)), key=lambda index: images.used[splits.test[index]].name)
    probabilities = probabilities[order]
    target, test_rows = splits.target, splits.test[order]
    columns = zip(
        test_rows,
        target.decode(splits.labels[test_rows]),
        target.decode(target.decide(probabilities)),
        [target.rank_classes(each, 1)[0][1] for each in probabilities],
        strict=True,
    )
    rows = [[images.used[row].name, label, predicted, f"{value:.6f}"] for row, label, predicted, value in columns]
    run.write_csv("predictions.csv", ["path", "label", "predicted", "probability"], rows)
    buffer = io.BytesIO()
    np.save(buffer, probabilities, allow_pickle=False)
    run.write("probabilities.npy", buffer.getvalue())
