"""What it costs to log a finished sweep to MLflow and TensorBoard, beside MLflow's usual calls for the same trials.

A run of made-up trials, each with two curves of a loss and an accuracy, is logged to a new SQLite store of MLflow's, and
again; then to TensorBoard. The peer is `mlflow.start_run(nested=True)` with `log_params`, `log_metrics`, and `log_metrics`
for each epoch, over the first few of the same trials, in a store of its own. Seconds that passed and seconds of processor.

    python benchmarks/tracking.py --trials 544 --epochs 0
    python benchmarks/tracking.py --trials 544 --epochs 40
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from humeris.classify.data.splits import SplitsSummary
from humeris.classify.data.views import Views
from humeris.classify.evaluate.metrics import classification_report
from humeris.classify.evaluate.trial import Score, Trial
from humeris.classify.runs.data_summary import DataSummary
from humeris.classify.runs.metadata import RunMetadata
from humeris.classify.runs.result import BestTrial, NearDuplicateSummary, RunResult
from humeris.classify.runs.run import Run
from humeris.classify.tracking import run_summary
from humeris.classify.tracking.registry import track
from humeris.extract.backbones.tap_ref import TapRef

NANO = TapRef("nano", "nano-64-0123456789abcdef", "block5_out", "avg")


def make_run(path: Path, count: int, epochs: int) -> Run:
    """A complete run of `count` trials."""
    run = Run(path)
    run.begin(
        RunMetadata(
            config_hash="0" * 64,
            command="",
            humeris="",
            data=DataSummary(
                {"kind": "folders", "source": "made", "root": "/made"}, 2, (), (), {"PNG": 2}, (), listing="0" * 64
            ),
            splits=SplitsSummary(("a", "b"), 1, 0, 1, "cv", ""),
            taps=(),
            left_out=(),
            specs={},
            heads=(),
            views=Views(),
            seed=0,
        )
    )
    scores = {}
    for number in range(count):
        curve = [1 / (1 + epoch) for epoch in range(epochs)]
        fit_info = {"epochs": epochs, "curves": dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy"), curve)}
        scores[Trial((NANO,), "mlp", {"learning_rate": number + 1.0})] = Score(
            0.5, 0.5, (0.4, 0.6), 1.0, fit_info=fit_info if epochs else {}
        )
    run.append(scores)
    run.write_csv("leaderboard.csv", ["rank"], [])
    best, score = next(iter(scores.items()))
    run.finish(
        RunResult(
            best=BestTrial.from_trial(best, score),
            runner_up=None,
            test=classification_report(np.array([0, 1]), np.array([[0.75, 0.25], [0.75, 0.25]]), ("a", "b")),
            test_plain=None,
            groups=None,
            accuracy_95={},
            near_duplicates=NearDuplicateSummary((), True, 0, None, None),
            notes=(),
            advice=None,
            seconds=1.0,
        )
    )
    return run


def log_by_hand(run: Run, count: int) -> None:
    """The first `count` trials as one logs them by hand."""
    import mlflow

    mlflow.set_experiment("peer")
    with mlflow.start_run():
        for trial, score in list(run.load_trials().items())[:count]:
            with mlflow.start_run(nested=True):
                mlflow.log_params(run_summary.collect_hyperparameters(trial))
                mlflow.log_metrics(run_summary.collect_scores(score))
                curves_by_side = run_summary.collect_curves(score)
                for epoch in range(score.fit_info.get("epochs", 0)):
                    values = {
                        f"{side}_{name}": curve[epoch]
                        for side in curves_by_side
                        for name, curve in curves_by_side[side].items()
                    }
                    mlflow.log_metrics(values, step=epoch)


def time_call(call: Callable[[], object]) -> dict[str, float]:
    """Seconds of `call`."""
    start_time, start_processor = time.perf_counter(), time.process_time()
    call()
    return {
        "seconds": round(time.perf_counter() - start_time, 2),
        "processor": round(time.process_time() - start_processor, 2),
    }


def measure(folder: Path, n_trials: int, n_epochs: int, n_by_hand: int) -> dict[str, object]:
    """What the docstring above says, in `folder`."""
    run, one_trial_run = make_run(folder / "run", n_trials, n_epochs), make_run(folder / "one", 1, 0)
    results: dict[str, object] = {"trials": n_trials, "epochs": n_epochs, "cores": os.cpu_count()}
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/first.db"
    results["mlflow, imported, with a new store"] = time_call(lambda: track(one_trial_run, ["mlflow"]))
    os.environ["MLFLOW_EXPERIMENT_NAME"] = "many"
    results["mlflow"] = time_call(lambda: track(run, ["mlflow"]))
    results["mlflow, again"] = time_call(lambda: track(run, ["mlflow"]))
    results["tensorboard"] = time_call(lambda: track(run, ["tensorboard"]))
    results[f"by hand, {n_by_hand} trials"] = time_call(lambda: log_by_hand(run, n_by_hand))
    return results


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=544)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--by-hand", type=int, default=20)
    options = parser.parse_args()
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    warnings.simplefilter("ignore")
    logging.disable()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        with contextlib.redirect_stdout(io.StringIO()):
            results = measure(Path(name), options.trials, options.epochs, options.by_hand)
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
