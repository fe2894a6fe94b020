"""TensorBoard: curves of heads trained by epochs, named as by Keras's TensorBoard callback, and their hyperparameters.

RUN/tensorboard/<trial>/train        `epoch_loss` and `epoch_accuracy` on training images
RUN/tensorboard/<trial>/validation   the same on held-out images, so that both are in one chart
RUN/tensorboard/<trial>              hyperparameters and scores of the trial, for the HPARAMS page

Written without TensorFlow: an event file is a sequence of records, each with its length and two checksums.
"""

from __future__ import annotations

import io
from typing import Any

from ...cache.formatting import quote_argument
from ...extract.images.load import Progress
from ..evaluate.trial import Score, Trial
from ..runs.run import Run
from . import run_summary
from .tracker import Tracker, TrackingResult

_FOLDER_NAME = "tensorboard"
_FILE_NAME = "events.out.tfevents.humeris"  # TensorBoard reads every file with `tfevents` in its name
_FILE_VERSION = "brain.Event:2"  # the first record of every event file


def _log_run(run: Run, progress: Progress | None) -> TrackingResult:
    """Write the event files; existing ones are replaced, so that no event is logged twice."""
    scores_by_trial = {trial: score for trial, score in run.load_trials().items() if run_summary.collect_curves(score)}
    if not scores_by_trial:
        return TrackingResult(
            "tensorboard", "", note="no head of this run was trained by epochs, so there are no curves to log"
        )
    end_time = run_summary.get_end_time(run)
    for count, (trial, score) in enumerate(scores_by_trial.items(), 1):
        run.write(f"{_FOLDER_NAME}/{trial.id}/{_FILE_NAME}", _encode_session(trial, score, end_time))
        for side, curves in run_summary.collect_curves(score).items():
            run.write(f"{_FOLDER_NAME}/{trial.id}/{side}/{_FILE_NAME}", _encode_curves(score, curves, end_time))
        if progress is not None:
            progress(count, len(scores_by_trial))
    folder = run.path / _FOLDER_NAME
    return TrackingResult("tensorboard", str(folder), view_command=f"tensorboard --logdir {quote_argument(folder)}")


def _encode_curves(score: Score, curves: dict[str, list[float]], end_time: float) -> bytes:
    """Return an event file with the curves of one side; epochs count from 0, as in Keras."""
    values = [
        (time, step, {"tag": f"epoch_{name}", "simple_value": value})
        for name, curve in curves.items()
        for step, (value, time) in enumerate(
            zip(curve, run_summary.estimate_epoch_times(end_time, score, len(curve)), strict=True)
        )
    ]
    return _encode_events(end_time - score.seconds, values)


def _encode_session(trial: Trial, score: Score, end_time: float) -> bytes:
    """Return an event file of a session of the HPARAMS page: hyperparameters, scores, and the status of success."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    start_info = plugin_data_pb2.SessionStartInfo(start_time_secs=end_time - score.seconds)
    for name, value in run_summary.collect_hyperparameters(trial).items():
        kind = "bool_value" if isinstance(value, bool) else "string_value" if isinstance(value, str) else "number_value"
        setattr(start_info.hparams[name], kind, value)
    end_info = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=end_time)

    def build_value(tag: str, data: Any) -> dict[str, Any]:
        return {"tag": tag, "metadata": metadata.create_summary_metadata(data), "tensor": metadata.NULL_TENSOR}

    values = [
        build_value(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start_info)),
        *({"tag": name, "simple_value": value} for name, value in run_summary.collect_scores(score).items()),
        build_value(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=end_info)),
    ]
    return _encode_events(end_time - score.seconds, [(end_time, 0, value) for value in values])


def _encode_events(start_time: float, values: list[tuple[float, int, dict[str, Any]]]) -> bytes:
    """Return an event file of (seconds since 1970, step, value) in this order."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    writer.write(Event(wall_time=start_time, file_version=_FILE_VERSION).SerializeToString())
    for time, step, value in values:
        event = Event(wall_time=time, step=step, summary=Summary(value=[Summary.Value(**value)]))
        writer.write(event.SerializeToString())
    return file.getvalue()


TRACKER = Tracker("tensorboard", lambda: ("tensorboard",), _log_run)
