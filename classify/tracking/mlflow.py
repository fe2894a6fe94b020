"""MLflow: the sweep as a run of an experiment named after the data, with a nested run for each trial.

The server is configured as usual: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and MLFLOW_EXPERIMENT_ID are honored, and
without them it is the database `mlflow.db` in the current folder. A sweep is identified by the hash of its configuration
(the tag `humeris.config_hash`), so that it is logged once; a partially logged one is completed. MLflow's own telemetry
stays off.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...cache.formatting import quote_argument, to_printable
from ...extract.images.load import Progress
from ..evaluate.trial import Score, Trial
from ..runs.run import Run
from . import run_summary
from .tracker import Tracker, TrackingResult, build_error, mask_secrets

_CONFIG_HASH_TAG, _TRIAL_TAG, _PARENT_TAG = "humeris.config_hash", "humeris.trial", "mlflow.parentRunId"
_ARTIFACT_NAMES = ("run.json", "leaderboard.csv")
_ENVIRONMENT = {  # whatever the environment says: no telemetry, no printing
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# With MLflow's defaults (7 times, 120 s) users wait for minutes if no server answers.
_ENVIRONMENT_DEFAULTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
_DATABASE_SCHEMES = {"sqlite", "postgresql", "mysql", "mssql"}
_MAX_CONCURRENT_TRIALS = 8  # concurrent requests to a server, which mostly wait; a database writes one after the other
_PAGE_SIZE = 1000


def _list_modules() -> tuple[str, ...]:
    """Return the required modules: for a local database, SQLAlchemy too."""
    scheme = _parse_scheme(os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:")
    return ("mlflow", "sqlalchemy", "alembic") if scheme in _DATABASE_SCHEMES else ("mlflow",)


def _parse_scheme(address: str) -> str:
    return urlsplit(address).scheme.split("+")[0]


def _log_run(run: Run, progress: Progress | None) -> TrackingResult:
    with _silence_mlflow():
        address = os.environ.get("MLFLOW_TRACKING_URI") or "mlflow.db"
        try:
            from mlflow import MlflowClient, get_tracking_uri

            address = get_tracking_uri()
            _check_database(address)
            experiment_name, was_logged = _SweepLogger(MlflowClient(address), run).log(progress)
        except _list_exceptions() as error:
            raise build_error(run, "mlflow", address, error) from error
    destination = f"{mask_secrets(address)}, experiment {experiment_name}"
    return TrackingResult(
        "mlflow", destination, view_command=_format_view_command(address), note="already logged" if was_logged else ""
    )


def _format_view_command(address: str) -> str:
    """Return the command or address to look at a store."""
    public_address = mask_secrets(address)
    if _parse_scheme(address) in {"http", "https"}:
        return public_address
    return f"mlflow ui --backend-store-uri {quote_argument(public_address)}"


def _list_exceptions() -> tuple[type[Exception], ...]:
    """Return the exceptions raised by MLflow and databases, as far as these are installed: a server needs no SQLAlchemy."""
    exceptions: list[type[Exception]] = [OSError, ImportError, ValueError, RuntimeError]
    with contextlib.suppress(ImportError):
        from mlflow.exceptions import MlflowException

        exceptions.append(MlflowException)
    with contextlib.suppress(ImportError):
        from sqlalchemy.exc import SQLAlchemyError

        exceptions.append(SQLAlchemyError)
    return tuple(exceptions)


@contextlib.contextmanager
def _silence_mlflow() -> Iterator[None]:
    """Keep MLflow from logging, printing, warning and sending telemetry; the environment is restored afterwards."""
    saved_environment, saved_level = dict(os.environ), logging.root.manager.disable
    os.environ.update(_ENVIRONMENT)
    for name, value in _ENVIRONMENT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(saved_level)
        for name in {*_ENVIRONMENT, *_ENVIRONMENT_DEFAULTS}:
            if name in saved_environment:
                os.environ[name] = saved_environment[name]
            else:
                os.environ.pop(name, None)


def _check_database(address: str) -> None:
    """Connect once, since MLflow tries ten times, for minutes, to connect to a missing database."""
    if _parse_scheme(address) in _DATABASE_SCHEMES:
        import sqlalchemy
        from mlflow.store.db.utils import create_sqlalchemy_engine

        engine = create_sqlalchemy_engine(address)
        if engine.dialect.name == "sqlite" and engine.url.database:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)  # as MLflow does
        try:
            sqlalchemy.inspect(engine).get_table_names()
        finally:
            engine.dispose()


class _SweepLogger:
    """Logs one run to MLflow."""

    def __init__(self, client: Any, run: Run) -> None:
        self._client, self._run = client, run
        self._end_time = run_summary.get_end_time(run)

    def log(self, progress: Progress | None) -> tuple[str, bool]:
        """Return the experiment's name, and whether everything was logged before."""
        experiment = self._get_or_create_experiment()
        config_hash = self._run.metadata.config_hash
        mlflow_runs = self._search_runs(experiment, f"tags.`{_CONFIG_HASH_TAG}` = '{config_hash}'")
        if any(mlflow_run.info.status == "FINISHED" for mlflow_run in mlflow_runs):
            return to_printable(experiment.name), True
        parent = (
            mlflow_runs[0]
            if mlflow_runs
            else self._create_run(experiment, to_printable(self._run.path.name), {_CONFIG_HASH_TAG: config_hash})
        )
        finished_ids = self._collect_finished_ids(experiment, parent) if mlflow_runs else set()
        pending_trials = {trial: score for trial, score in self._run.load_trials().items() if trial.id not in finished_ids}
        self._log_trials(pending_trials, lambda trial, score: self._log_trial(experiment, parent, trial, score), progress)
        self._log_sweep(parent)
        return to_printable(experiment.name), False

    def _get_or_create_experiment(self) -> Any:
        if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return self._client.get_experiment(experiment_id)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _truncate(
            run_summary.get_data_name(self._run.metadata.data), "MAX_EXPERIMENT_NAME_LENGTH"
        )
        experiment = self._client.get_experiment_by_name(name)
        return experiment or self._client.get_experiment(self._client.create_experiment(name))

    def _search_runs(self, experiment: Any, filter_string: str) -> list[Any]:
        mlflow_runs, token = [], None
        while True:
            page = self._client.search_runs(
                [experiment.experiment_id], filter_string, max_results=_PAGE_SIZE, page_token=token
            )
            mlflow_runs += page
            token = page.token
            if not token:
                return mlflow_runs

    def _collect_finished_ids(self, experiment: Any, parent: Any) -> set[str]:
        """Return the ids of the trials that are completely logged; delete partially logged ones."""
        finished_ids = set()
        for mlflow_run in self._search_runs(experiment, f"tags.`{_PARENT_TAG}` = '{parent.info.run_id}'"):
            if mlflow_run.info.status == "FINISHED":
                finished_ids.add(mlflow_run.data.tags.get(_TRIAL_TAG, ""))
            else:
                self._client.delete_run(mlflow_run.info.run_id)
        return finished_ids

    def _create_run(self, experiment: Any, name: str, tags: Mapping[str, str], seconds: float | None = None) -> Any:
        elapsed = self._run.get_elapsed() if seconds is None else seconds
        return self._client.create_run(
            experiment.experiment_id,
            start_time=_milliseconds(self._end_time - elapsed),
            tags={"humeris.run": _truncate(to_printable(self._run.path.absolute()), "MAX_TAG_VAL_LENGTH"), **tags},
            run_name=name,
        )

    def _log_trials(
        self, pending_trials: Mapping[Trial, Score], log_trial: Callable[[Trial, Score], None], progress: Progress | None
    ) -> None:
        """Log every trial, several at once to a server; stop at the first failure."""
        is_http = _parse_scheme(self._client.tracking_uri) in {"http", "https"}
        with ThreadPoolExecutor(_MAX_CONCURRENT_TRIALS if is_http else 1) as pool:
            for count, _ in enumerate(pool.map(log_trial, pending_trials.keys(), pending_trials.values()), 1):
                if progress is not None:
                    progress(count, len(pending_trials))

    def _log_trial(self, experiment: Any, parent: Any, trial: Trial, score: Score) -> None:
        tags = {_PARENT_TAG: parent.info.run_id, _TRIAL_TAG: trial.id}
        run_id = self._create_run(experiment, f"{trial.head} {trial.id}", tags, score.seconds).info.run_id
        self._log_batch(
            run_id,
            run_summary.collect_hyperparameters(trial),
            [*self._build_metrics(run_summary.collect_scores(score)), *self._build_curve_metrics(score)],
        )
        self._client.set_terminated(run_id, end_time=_milliseconds(self._end_time))

    def _log_sweep(self, parent: Any) -> None:
        metadata, run_id = self._run.metadata, parent.info.run_id
        splits = metadata.splits
        params = {
            "config_hash": metadata.config_hash,
            "seed": metadata.seed,
            "command": metadata.command,
            "humeris": metadata.humeris,
            "train": splits.train,
            "val": splits.val,
            "test": splits.test,
            "select": splits.select,
            "best": self._run.result.best.id,
        }
        numbers = {
            **run_summary.collect_test_scores(self._run),
            "trials": len(self._run.load_trials()),
            "seconds": self._run.get_elapsed(),
        }
        self._log_batch(run_id, params, self._build_metrics(numbers))
        for name in _ARTIFACT_NAMES:
            self._client.log_artifact(run_id, str(self._run.path / name))
        self._client.set_terminated(run_id, end_time=_milliseconds(self._end_time))

    def _build_metrics(self, numbers: Mapping[str, float]) -> list[Any]:
        from mlflow.entities import Metric

        return [Metric(name, float(value), _milliseconds(self._end_time), 0) for name, value in numbers.items()]

    def _build_curve_metrics(self, score: Score) -> Iterable[Any]:
        """Yield a metric for each curve, named as in TensorBoard, with epochs counted from 0."""
        from mlflow.entities import Metric

        for side, curves in run_summary.collect_curves(score).items():
            for name, curve in curves.items():
                key = f"epoch_val_{name}" if side == "validation" else f"epoch_{name}"
                for step, time in enumerate(run_summary.estimate_epoch_times(self._end_time, score, len(curve))):
                    yield Metric(key, float(curve[step]), _milliseconds(time), step)

    def _log_batch(self, run_id: str, params: Mapping[str, object], metrics: list[Any]) -> None:
        from mlflow.entities import Param

        mlflow_params = [
            Param(name, _truncate(to_printable(value), "MAX_PARAM_VAL_LENGTH")) for name, value in params.items()
        ]
        self._client.log_batch(run_id, metrics, mlflow_params, synchronous=True)


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _truncate(text: str, limit_name: str) -> str:
    """Return `text`, shortened to MLflow's limit of that name."""
    from mlflow.utils import validation

    max_length: int = getattr(validation, limit_name)
    return text if len(text) <= max_length else f"{text[: max_length - 2]} …"


TRACKER = Tracker("mlflow", _list_modules, _log_run)
