"""MLflow: the sweep as a run of an experiment called after the data, with a run inside it for each trial.

Where to is MLflow's own business: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and MLFLOW_EXPERIMENT_ID are honoured, and
without them it is the database `mlflow.db` in the current folder. A sweep is known again by its plan (the tag
`humeris.plan`), so that it is logged once; one that was logged in part is completed. MLflow's own telemetry stays off.
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

from ...cache.formatting import quoted, safe
from ...extract.images.load import Progress
from ..evaluate.trial import Score, Trial
from ..runs.run import Run
from . import run_summary
from .tracker import Tracked, Tracker, failed, without_secrets

_PLAN, _TRIAL, _PARENT = "humeris.plan", "humeris.trial", "mlflow.parentRunId"
_FILES = ("run.json", "leaderboard.csv")
_SAID = {  # whatever the environment says: nothing is sent to MLflow's makers, nothing is printed
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# MLflow's defaults (7 times, 120 s) keep a user waiting for minutes where no server answers.
_UNLESS_SAID = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
_DATABASES = {"sqlite", "postgresql", "mysql", "mssql"}
_AT_ONCE = 8  # trials on their way to a server, which mostly are waited for; a database writes one after the other
_PAGE = 1000


def _modules() -> tuple[str, ...]:
    """What is needed: for a database of one's own, what speaks to databases as well."""
    scheme = _scheme(os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:")
    return ("mlflow", "sqlalchemy", "alembic") if scheme in _DATABASES else ("mlflow",)


def _scheme(address: str) -> str:
    return urlsplit(address).scheme.split("+")[0]


def _log(run: Run, progress: Progress | None) -> Tracked:
    with _quiet():
        address = os.environ.get("MLFLOW_TRACKING_URI") or "mlflow.db"
        try:
            from mlflow import MlflowClient, get_tracking_uri

            address = get_tracking_uri()
            _check_database(address)
            experiment, before = _Sweep(MlflowClient(address), run).log(progress)
        except _failures() as error:
            raise failed(run, "mlflow", address, error) from error
    where = f"{without_secrets(address)}, experiment {experiment}"
    return Tracked("mlflow", where, look=_look(address), note="it was there already" if before else "")


def _look(address: str) -> str:
    """How to look at a store."""
    shown = without_secrets(address)
    if _scheme(address) in {"http", "https"}:
        return shown
    return f"mlflow ui --backend-store-uri {quoted(shown)}"


def _failures() -> tuple[type[Exception], ...]:
    """What MLflow raises, and a database, as far as they can be imported: SQLAlchemy is not needed for a server."""
    known: list[type[Exception]] = [OSError, ImportError, ValueError, RuntimeError]
    with contextlib.suppress(ImportError):
        from mlflow.exceptions import MlflowException

        known.append(MlflowException)
    with contextlib.suppress(ImportError):
        from sqlalchemy.exc import SQLAlchemyError

        known.append(SQLAlchemyError)
    return tuple(known)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow from logging, printing, warning and calling out; the environment is as it was afterwards."""
    before, level = dict(os.environ), logging.root.manager.disable
    os.environ.update(_SAID)
    for name, value in _UNLESS_SAID.items():
        os.environ.setdefault(name, value)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        for name in {*_SAID, *_UNLESS_SAID}:
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)


def _check_database(address: str) -> None:
    """Connect once, since MLflow tries ten times, for minutes, to connect to a database that is not there."""
    if _scheme(address) in _DATABASES:
        import sqlalchemy
        from mlflow.store.db.utils import create_sqlalchemy_engine

        engine = create_sqlalchemy_engine(address)
        if engine.dialect.name == "sqlite" and engine.url.database:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)  # as MLflow does
        try:
            sqlalchemy.inspect(engine).get_table_names()
        finally:
            engine.dispose()


class _Sweep:
    """A run of ours on its way to MLflow."""

    def __init__(self, client: Any, run: Run) -> None:
        self._client, self._run = client, run
        self._end = run_summary.ended(run)

    def log(self, progress: Progress | None) -> tuple[str, bool]:
        """The experiment's name, and whether everything was there before."""
        experiment = self._experiment()
        plan = self._run.description["plan"]
        found = self._search(experiment, f"tags.`{_PLAN}` = '{plan}'")
        if any(each.info.status == "FINISHED" for each in found):
            return safe(experiment.name), True
        parent = found[0] if found else self._create(experiment, safe(self._run.path.name), {_PLAN: plan})
        done = self._done(experiment, parent) if found else set()
        due = {trial: score for trial, score in self._run.trials().items() if trial.id not in done}
        self._each(due, lambda trial, score: self._log_trial(experiment, parent, trial, score), progress)
        self._log_sweep(parent)
        return safe(experiment.name), False

    def _experiment(self) -> Any:
        if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return self._client.get_experiment(given)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _cut(run_summary.title(self._run), "MAX_EXPERIMENT_NAME_LENGTH")
        found = self._client.get_experiment_by_name(name)
        return found or self._client.get_experiment(self._client.create_experiment(name))

    def _search(self, experiment: Any, wanted: str) -> list[Any]:
        found, token = [], None
        while True:
            page = self._client.search_runs([experiment.experiment_id], wanted, max_results=_PAGE, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _done(self, experiment: Any, parent: Any) -> set[str]:
        """The trials that are there in whole; what is there in part is taken away."""
        done = set()
        for each in self._search(experiment, f"tags.`{_PARENT}` = '{parent.info.run_id}'"):
            if each.info.status == "FINISHED":
                done.add(each.data.tags.get(_TRIAL, ""))
            else:
                self._client.delete_run(each.info.run_id)
        return done

    def _create(self, experiment: Any, name: str, tags: Mapping[str, str], seconds: float | None = None) -> Any:
        spent = self._run.spent() if seconds is None else seconds
        return self._client.create_run(
            experiment.experiment_id,
            start_time=_milliseconds(self._end - spent),
            tags={"humeris.run": _cut(safe(self._run.path.absolute()), "MAX_TAG_VAL_LENGTH"), **tags},
            run_name=name,
        )

    def _each(self, due: Mapping[Trial, Score], log: Callable[[Trial, Score], None], progress: Progress | None) -> None:
        """Log every trial, several at once where a server takes them; the first that fails ends it."""
        over_http = _scheme(self._client.tracking_uri) in {"http", "https"}
        with ThreadPoolExecutor(_AT_ONCE if over_http else 1) as pool:
            for count, _ in enumerate(pool.map(log, due.keys(), due.values()), 1):
                if progress is not None:
                    progress(count, len(due))

    def _log_trial(self, experiment: Any, parent: Any, trial: Trial, score: Score) -> None:
        tags = {_PARENT: parent.info.run_id, _TRIAL: trial.id}
        run = self._create(experiment, f"{trial.head} {trial.id}", tags, score.seconds).info.run_id
        self._write(run, run_summary.settings(trial), [*self._metrics(run_summary.scores(score)), *self._curves(score)])
        self._client.set_terminated(run, end_time=_milliseconds(self._end))

    def _log_sweep(self, parent: Any) -> None:
        described, run = self._run.description, parent.info.run_id
        wanted = {name: described.get(name) for name in ("plan", "seed", "command", "humeris")}
        splits = {name: described["splits"].get(name) for name in ("train", "val", "test", "select")}
        best = {"best": described["best"]["id"]}
        numbers = {**run_summary.tested(self._run), "trials": len(self._run.trials()), "seconds": self._run.spent()}
        self._write(run, {**wanted, **splits, **best}, self._metrics(numbers))
        for name in _FILES:
            self._client.log_artifact(run, str(self._run.path / name))
        self._client.set_terminated(run, end_time=_milliseconds(self._end))

    def _metrics(self, numbers: Mapping[str, float]) -> list[Any]:
        from mlflow.entities import Metric

        return [Metric(name, float(value), _milliseconds(self._end), 0) for name, value in numbers.items()]

    def _curves(self, score: Score) -> Iterable[Any]:
        """A metric for each curve, named as in TensorBoard, by epochs that count from 0."""
        from mlflow.entities import Metric

        for side, curves in run_summary.curves(score).items():
            for name, curve in curves.items():
                key = f"epoch_val_{name}" if side == "validation" else f"epoch_{name}"
                for step, time in enumerate(run_summary.times(self._end, score, len(curve))):
                    yield Metric(key, float(curve[step]), _milliseconds(time), step)

    def _write(self, run: str, params: Mapping[str, object], metrics: list[Any]) -> None:
        from mlflow.entities import Param

        named = [Param(name, _cut(safe(value), "MAX_PARAM_VAL_LENGTH")) for name, value in params.items()]
        self._client.log_batch(run, metrics, named, synchronous=True)


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _cut(text: str, limit: str) -> str:
    """`text`, no longer than MLflow's limit of that name allows."""
    from mlflow.utils import validation

    longest: int = getattr(validation, limit)
    return text if len(text) <= longest else f"{text[: longest - 2]} …"


TRACKER = Tracker("mlflow", _modules, _log)
