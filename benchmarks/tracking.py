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

from humeris.classify.evaluate.trial import Score, Source, Trial
from humeris.classify.runs.run import Run
from humeris.classify.tracking import run_summary
from humeris.classify.tracking.registry import track

NANO = Source("nano", "nano-64-0123456789abcdef", "block5_out", "avg")


def made(path: Path, count: int, epochs: int) -> Run:
    """A complete run of `count` trials."""
    run = Run(path)
    run.begin({"plan": "0" * 64, "seed": 0, "command": "", "humeris": "", "splits": {}, "data": {"root": "/made"}})
    scores = {}
    for number in range(count):
        curve = [1 / (1 + epoch) for epoch in range(epochs)]
        detail = {"epochs": epochs, "curves": dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy"), curve)}
        scores[Trial((NANO,), "mlp", {"learning_rate": number + 1.0})] = Score(
            0.5, 0.5, (0.4, 0.6), 1.0, detail=detail if epochs else {}
        )
    run.append(scores)
    run.write_csv("leaderboard.csv", ["rank"], [])
    run.finish({"best": {"id": next(iter(scores)).id}, "test": {"accuracy": 0.5}})
    return run


def peer(run: Run, count: int) -> None:
    """The first `count` trials as one logs them by hand."""
    import mlflow

    mlflow.set_experiment("peer")
    with mlflow.start_run():
        for trial, score in list(run.trials().items())[:count]:
            with mlflow.start_run(nested=True):
                mlflow.log_params(run_summary.settings(trial))
                mlflow.log_metrics(run_summary.scores(score))
                found = run_summary.curves(score)
                for epoch in range(score.detail.get("epochs", 0)):
                    values = {f"{side}_{name}": curve[epoch] for side in found for name, curve in found[side].items()}
                    mlflow.log_metrics(values, step=epoch)


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Seconds of `work`."""
    began, used = time.perf_counter(), time.process_time()
    work()
    return {"seconds": round(time.perf_counter() - began, 2), "processor": round(time.process_time() - used, 2)}


def measure(folder: Path, trials: int, epochs: int, by_hand: int) -> dict[str, object]:
    """What the docstring above says, in `folder`."""
    run, one = made(folder / "run", trials, epochs), made(folder / "one", 1, 0)
    found: dict[str, object] = {"trials": trials, "epochs": epochs, "cores": os.cpu_count()}
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/first.db"
    found["mlflow, imported, with a new store"] = timed(lambda: track(one, ["mlflow"]))
    os.environ["MLFLOW_EXPERIMENT_NAME"] = "many"
    found["mlflow"] = timed(lambda: track(run, ["mlflow"]))
    found["mlflow, again"] = timed(lambda: track(run, ["mlflow"]))
    found["tensorboard"] = timed(lambda: track(run, ["tensorboard"]))
    found[f"by hand, {by_hand} trials"] = timed(lambda: peer(run, by_hand))
    return found


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
            found = measure(Path(name), options.trials, options.epochs, options.by_hand)
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
