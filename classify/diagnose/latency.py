"""Inference time of the network up to each tap of a run, measured on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.atomic_files import read_json
from ...cache.errors import BackboneError, HumerisError
from ...cache.typed_json import from_json, to_json
from ...extract.backbones import taps
from ...extract.backbones.backbone_spec import BackboneSpec
from ...extract.backbones.build import Backbone, build
from ...extract.backbones.keras_runtime import load_keras
from ...extract.backbones.tap_ref import TapRef
from ...extract.backbones.taps import Tap
from ...extract.images.load import Progress
from ...extract.pixels.read_file import count_cores
from ..runs.run import Run

FILE = "latency.json"
BATCH_SIZE = 32
_FORMAT_VERSION = 2
_TARGET_SECONDS, _MIN_CALLS, _MAX_CALLS = 0.5, 7, 200  # of repeated calls; minimum and maximum number of calls


@dataclass(frozen=True)
class Latency:
    """Cost of one set of taps: seconds for one image and for a batch of `BATCH_SIZE`, and parameters of the cut network.

    tap_keys: (extraction, layer, pool) of each tap, as in a trial.
    """

    tap_keys: tuple[tuple[str, str, str], ...]
    seconds_per_image: float
    seconds_per_batch: float
    n_parameters: int


@dataclass(frozen=True)
class LatencyResult:
    """Latencies by taps, with the device and number of threads they were measured on. omissions: why some are missing."""

    device: str
    threads: int
    latencies: Mapping[tuple[tuple[str, str, str], ...], Latency]
    omissions: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    """The content of `latency.json`."""

    format: int
    device: str
    threads: int
    batch_size: int
    taps: tuple[Latency, ...]
    omissions: tuple[str, ...]


def make_key(tap_refs: Sequence[TapRef]) -> tuple[tuple[str, str, str], ...]:
    """Return the key of a trial's taps in `LatencyResult.latencies`."""
    return tuple((tap_ref.extraction, tap_ref.layer, tap_ref.pool) for tap_ref in tap_refs)


def measure_all(runs: Sequence[Run], progress: Progress | None = None) -> list[LatencyResult]:
    """Return the result of `measure` for each run; raises `RunError` before anything is measured."""
    for run in runs:
        run.read_metadata()
    return [measure(run, progress) for run in runs]


def measure(run: Run, progress: Progress | None = None) -> LatencyResult:
    """Build the backbones, cut them at the taps of the run's trials, and time them; writes `latency.json` into the run.

    The cut network is compiled as for extraction and called with random pixels for about half a second; the median call
    is reported. Heads are left out, since they are small compared to the network. The times of taps in several backbones
    are added. A backbone that is missing or has changed is left out. Imports Keras. Raises `CacheError` if the run cannot
    be written.
    """
    tap_groups = list(dict.fromkeys(trial.tap_refs for trial in run.load_trials()))
    backbones: dict[str, Backbone] = {}
    omissions: dict[str, str] = {}
    for name in dict.fromkeys(tap_ref.extraction for tap_refs in tap_groups for tap_ref in tap_refs):
        try:
            backbones[name] = _build_backbone(run, name)
        except HumerisError as error:
            omissions[name] = str(error)
    available_groups = [tap_refs for tap_refs in tap_groups if all(tap_ref.extraction in backbones for tap_ref in tap_refs)]
    cuts = [_cut_networks(backbones, tap_refs) for tap_refs in available_groups]
    seconds = _time_calls([(models, count) for models, _ in cuts for count in (1, BATCH_SIZE)], progress)
    latencies = {
        make_key(tap_refs): Latency(make_key(tap_refs), image_seconds, batch_seconds, parameters)
        for tap_refs, (_, parameters), image_seconds, batch_seconds in zip(
            available_groups, cuts, seconds[::2], seconds[1::2], strict=True
        )
    }
    result = LatencyResult(_get_device(), count_cores(), latencies, tuple(omissions.values()))
    values = (result.device, result.threads, BATCH_SIZE, tuple(latencies.values()), result.omissions)
    run.write_json(FILE, to_json(_File(_FORMAT_VERSION, *values)))
    return result


def read(run: Run) -> LatencyResult | None:
    """Return what `measure` wrote into the run; None if it did not, or the file is invalid."""
    try:
        content = from_json(_File, read_json(run.path / FILE))
    except (OSError, ValueError):
        return None
    if (content.format, content.batch_size) != (_FORMAT_VERSION, BATCH_SIZE):
        return None
    latencies = {latency.tap_keys: latency for latency in content.taps}
    return LatencyResult(content.device, content.threads, latencies, content.omissions)


def _build_backbone(run: Run, name: str) -> Backbone:
    """Build the backbone of an extraction; raises `HumerisError` if it is missing or has changed."""
    spec = run.get_spec(TapRef("", name, "", ""))
    backbone = build(BackboneSpec.from_spec(spec))
    if backbone.spec.architecture != spec.architecture or backbone.spec.weights_sha256 != spec.weights_sha256:
        raise BackboneError(f"backbone {spec.title}: the network is not the one that the features were extracted with")
    return backbone


def _cut_networks(backbones: Mapping[str, Backbone], tap_refs: Sequence[TapRef]) -> tuple[list[Any], int]:
    """Return the networks that compute the rows of `tap_refs`, one for each backbone, and their number of parameters."""
    keras = load_keras()
    models, parameters = [], 0
    for name in dict.fromkeys(tap_ref.extraction for tap_ref in tap_refs):
        graph = backbones[name].graph
        backbone_taps = [Tap(tap_ref.layer, tap_ref.pool) for tap_ref in tap_refs if tap_ref.extraction == name]
        models.append(keras.Model(graph.image, [taps.apply(graph.outputs[tap.layer], tap) for tap in backbone_taps]))
        parameter_counts = {layer.name: layer.parameters or 0 for layer in graph.layers}
        parameters += max(parameter_counts[tap.layer] for tap in backbone_taps)
    return models, parameters


def _time_calls(calls: Sequence[tuple[Sequence[Any], int]], progress: Progress | None) -> list[float]:
    """Return the median time of each call, over all its networks, with its number of images.

    Calls alternate, so that other load on the machine affects all alike; the first two rounds, which compile, are not
    counted.
    """
    rng = np.random.default_rng(0)
    times: list[list[float]] = [[] for _ in calls]
    elapsed, limit = 0.0, _TARGET_SECONDS * len(calls)
    while calls and (len(times[0]) < 2 + _MIN_CALLS or (elapsed < limit and len(times[0]) < _MAX_CALLS)):
        for (models, count), call_times in zip(calls, times, strict=True):
            batches = [rng.integers(0, 256, (count, *model.inputs[0].shape[1:]), np.uint8) for model in models]
            start = time.perf_counter()
            for model, images in zip(models, batches, strict=True):
                model.predict_on_batch(images)
            call_times.append(time.perf_counter() - start)
            elapsed += call_times[-1] if len(call_times) > 2 else 0.0
        if progress is not None:
            progress(min(len(times[0]), 2 + _MIN_CALLS), 2 + _MIN_CALLS)
    return [statistics.median(call_times[2:]) for call_times in times]


def _get_device() -> str:
    """Return the device that Keras computes on, in words."""
    devices: list[str] = load_keras().distribution.list_devices()
    return next((name for name in devices if name.startswith(("gpu", "cuda"))), "cpu")
