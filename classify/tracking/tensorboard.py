"""TensorBoard: the curves of heads trained by epochs, as Keras's TensorBoard callback names them, and their settings.

RUN/tensorboard/<trial>/train        `epoch_loss` and `epoch_accuracy` on images that were learnt from
RUN/tensorboard/<trial>/validation   the same on images held out, so that both lie in one chart
RUN/tensorboard/<trial>              the setting and the scores of the trial, for the page HPARAMS

Written without TensorFlow: an event file is a sequence of records, each with its length and two checksums.
"""

from __future__ import annotations

import io
from typing import Any

from ...cache.formatting import quoted
from ...extract.images.load import Progress
from ..evaluate.trial import Score, Trial
from ..runs.run import Run
from . import run_summary
from .tracker import Tracked, Tracker

_FOLDER = "tensorboard"
_FILE = "events.out.tfevents.humeris"  # TensorBoard reads every file with `tfevents` in its name
_VERSION = "brain.Event:2"  # the first record of every event file


def _log(run: Run, progress: Progress | None) -> Tracked:
    """Write the event files anew, so that no event is there twice."""
    found = {trial: score for trial, score in run.trials().items() if run_summary.curves(score)}
    if not found:
        return Tracked("tensorboard", "", note="no head of this run was trained by epochs, so there are no curves to log")
    end = run_summary.ended(run)
    for count, (trial, score) in enumerate(found.items(), 1):
        run.write(f"{_FOLDER}/{trial.id}/{_FILE}", _session(trial, score, end))
        for side, curves in run_summary.curves(score).items():
            run.write(f"{_FOLDER}/{trial.id}/{side}/{_FILE}", _curves(score, curves, end))
        if progress is not None:
            progress(count, len(found))
    folder = run.path / _FOLDER
    return Tracked("tensorboard", str(folder), look=f"tensorboard --logdir {quoted(folder)}")


def _curves(score: Score, curves: dict[str, list[float]], end: float) -> bytes:
    """An event file of one side's curves; epochs count from 0, as Keras's do."""
    values = [
        (time, step, {"tag": f"epoch_{name}", "simple_value": value})
        for name, curve in curves.items()
        for step, (value, time) in enumerate(zip(curve, run_summary.times(end, score, len(curve)), strict=True))
    ]
    return _events(end - score.seconds, values)


def _session(trial: Trial, score: Score, end: float) -> bytes:
    """An event file of what the page HPARAMS calls a session: its setting, its scores, and that it ended well."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    begun = plugin_data_pb2.SessionStartInfo(start_time_secs=end - score.seconds)
    for name, value in run_summary.settings(trial).items():
        kind = "bool_value" if isinstance(value, bool) else "string_value" if isinstance(value, str) else "number_value"
        setattr(begun.hparams[name], kind, value)
    over = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=end)

    def said(tag: str, data: Any) -> dict[str, Any]:
        return {"tag": tag, "metadata": metadata.create_summary_metadata(data), "tensor": metadata.NULL_TENSOR}

    values = [
        said(metadata.SESSION_START_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=begun)),
        *({"tag": name, "simple_value": value} for name, value in run_summary.scores(score).items()),
        said(metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=over)),
    ]
    return _events(end - score.seconds, [(end, 0, value) for value in values])


def _events(begun: float, values: list[tuple[float, int, dict[str, Any]]]) -> bytes:
    """An event file of (seconds since 1970, step, value) in this order."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    file = io.BytesIO()
    writer = RecordWriter(file)
    writer.write(Event(wall_time=begun, file_version=_VERSION).SerializeToString())
    for time, step, value in values:
        event = Event(wall_time=time, step=step, summary=Summary(value=[Summary.Value(**value)]))
        writer.write(event.SerializeToString())
    return file.getvalue()


TRACKER = Tracker("tensorboard", lambda: ("tensorboard",), _log)
