"""How long the network takes up to each tap of a run, measured on this machine."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import BackboneError, HumerisError, RunError
from ...extract.backbones import taps
from ...extract.backbones.backbone_spec import Request
from ...extract.backbones.build import Backbone, build
from ...extract.backbones.keras_runtime import load_keras
from ...extract.backbones.taps import Tap
from ...extract.images.load import Progress
from ...extract.pixels.read_file import cores
from ..evaluate.trial import Source
from ..runs.run import Run

FILE = "latency.json"
BATCH = 32
_FORMAT = 1
_SECONDS, _FEWEST, _MOST = 0.5, 7, 200  # of repeated calls; how many there are at least and at most


@dataclass(frozen=True)
class Latency:
    """What one set of taps costs: seconds for one image and for a batch of `BATCH`, and parameters of the cut network.

    taps: (extraction, layer, pool) of each, as in a trial.
    """

    taps: tuple[tuple[str, str, str], ...]
    one: float
    batch: float
    parameters: int


@dataclass(frozen=True)
class Measured:
    """Latencies by taps, and on what they were measured: device and processor threads. left_out: why some were not."""

    device: str
    threads: int
    found: Mapping[tuple[tuple[str, str, str], ...], Latency]
    left_out: tuple[str, ...] = ()


def key(sources: Sequence[Source]) -> tuple[tuple[str, str, str], ...]:
    """What names the taps of a trial in `Measured.found`."""
    return tuple((source.extraction, source.layer, source.pool) for source in sources)


def measure_all(paths: Sequence[Path], progress: Progress | None = None) -> list[Measured]:
    """What `measure` finds for each of the runs at `paths`; raises `RunError` before anything is measured."""
    runs = [Run(path) for path in paths]
    for run in runs:
        if not run.description:
            raise RunError(f"{run.path}: expected a run folder with a run.json, found none; `humeris sweep` makes one")
    return [measure(run, progress) for run in runs]


def measure(run: Run, progress: Progress | None = None) -> Measured:
    """Build the backbones, cut them at the taps of the run's trials, and time each; writes `latency.json` into the run.

    The cut network is compiled as extraction compiles it, given random pixels, and called for about half a second; the
    median of the calls counts. Heads are left out, which are small beside it. Of taps in several backbones the times are
    added. A backbone that is gone, or not what it was, is left out. Imports Keras. Raises `CacheError` where the run cannot
    be written.
    """
    wanted = list(dict.fromkeys(trial.sources for trial in run.trials()))
    backbones: dict[str, Backbone] = {}
    left_out: dict[str, str] = {}
    for name in dict.fromkeys(source.extraction for sources in wanted for source in sources):
        try:
            backbones[name] = _built(run, name)
        except HumerisError as error:
            left_out[name] = str(error)
    there = [sources for sources in wanted if all(source.extraction in backbones for source in sources)]
    cuts = [_cut(backbones, sources) for sources in there]
    seconds = _seconds([(models, count) for models, _ in cuts for count in (1, BATCH)], progress)
    found = {
        key(sources): Latency(key(sources), one, batch, parameters)
        for sources, (_, parameters), one, batch in zip(there, cuts, seconds[::2], seconds[1::2], strict=True)
    }
    measured = Measured(_device(), cores(), found, tuple(left_out.values()))
    about = {"format": _FORMAT, "device": measured.device, "threads": measured.threads, "batch": BATCH}
    run.write_json(FILE, {**about, "taps": [asdict(each) for each in found.values()], "left_out": list(left_out.values())})
    return measured


def read(run: Run) -> Measured | None:
    """What `measure` wrote into the run; None where it did not, or where the file is not whole."""
    try:
        stored = json.loads((run.path / FILE).read_bytes())
        if stored["format"] != _FORMAT or stored["batch"] != BATCH:
            return None
        listed = [
            Latency(
                tuple((str(name), str(layer), str(pool)) for name, layer, pool in each["taps"]),
                float(each["one"]),
                float(each["batch"]),
                int(each["parameters"]),
            )
            for each in stored["taps"]
        ]
        left_out = tuple(map(str, stored["left_out"]))
        return Measured(str(stored["device"]), int(stored["threads"]), {each.taps: each for each in listed}, left_out)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _built(run: Run, name: str) -> Backbone:
    """The backbone of an extraction; raises `HumerisError` where it is gone, or another one by now."""
    spec = run.spec(Source("", name, "", ""))
    backbone = build(Request.of(spec))
    if backbone.spec.architecture != spec.architecture or backbone.spec.weights_sha256 != spec.weights_sha256:
        raise BackboneError(f"backbone {spec.title}: expected the network that the features were made with, found another")
    return backbone


def _cut(backbones: Mapping[str, Backbone], sources: Sequence[Source]) -> tuple[list[Any], int]:
    """The networks that give the rows of `sources`, one for each backbone, and how many parameters they have."""
    keras = load_keras()
    models, parameters = [], 0
    for name in dict.fromkeys(source.extraction for source in sources):
        graph = backbones[name].graph
        here = [Tap(source.layer, source.pool) for source in sources if source.extraction == name]
        models.append(keras.Model(graph.image, [taps.apply(graph.outputs[tap.layer], tap) for tap in here]))
        held = {layer.name: layer.parameters or 0 for layer in graph.layers}
        parameters += max(held[tap.layer] for tap in here)
    return models, parameters


def _seconds(calls: Sequence[tuple[Sequence[Any], int]], progress: Progress | None) -> list[float]:
    """The median time of each call, of all its networks with so many images.

    All are called in turns, so that what else the machine does meanwhile slows all alike; the first two rounds, which
    compile, do not count.
    """
    random = np.random.default_rng(0)
    times: list[list[float]] = [[] for _ in calls]
    spent, limit = 0.0, _SECONDS * len(calls)
    while calls and (len(times[0]) < 2 + _FEWEST or (spent < limit and len(times[0]) < _MOST)):
        for (models, count), each in zip(calls, times, strict=True):
            shown = [random.integers(0, 256, (count, *model.inputs[0].shape[1:]), np.uint8) for model in models]
            began = time.perf_counter()
            for model, images in zip(models, shown, strict=True):
                model.predict_on_batch(images)
            each.append(time.perf_counter() - began)
            spent += each[-1] if len(each) > 2 else 0.0
        if progress is not None:
            progress(min(len(times[0]), 2 + _FEWEST), 2 + _FEWEST)
    return [statistics.median(each[2:]) for each in times]


def _device() -> str:
    """What Keras computes on, in words."""
    devices: list[str] = load_keras().distribution.list_devices()
    return next((name for name in devices if name.startswith(("gpu", "cuda"))), "cpu")
