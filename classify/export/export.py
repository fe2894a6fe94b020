"""One model out: stack, write, run again elsewhere, compare, and only then give it its name."""

from __future__ import annotations

import contextlib
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...cache.atomic_files import make_folder, publish, write_errors
from ...cache.errors import HumerisError, ModelError, ParityError
from ...cache.shard import as_keys
from ...cache.spec import Spec
from ...cache.store import Store
from ...extract.backbones.backbone_spec import Request
from ...extract.backbones.taps import Tap
from ...extract.images.feature_file import FeatureFile
from ...extract.pixels.read_file import cores
from ..data import select_features
from ..data.cached_taps import Shelf
from ..data.views import Views
from ..evaluate.trial import Score, Trial
from ..heads.fit import problem, train
from ..heads.head import Head
from ..runs.finetuned_weights import Tuned, is_tuned
from ..runs.run import Record, Run
from . import parity, provenance, sample_images
from . import publish as place
from .export_result import Exported
from .formats.format import PRECISIONS, Format, one_line
from .formats.registry import of_name
from .model_card import card, is_card
from .rebuild_backbone import is_of, rebuilt
from .stack_model import stack

CHECKED, CHECKED_INT8 = 64, 256
CALIBRATED = 128  # images that the ranges of activations are learnt from
_INSTEAD = "another place with -o"


def export(
    run: Run,
    store: Store,
    out: Path | str,
    *,
    form: str | None = None,
    precision: str = "float32",
    trial: str | None = None,
    requests: Sequence[Request] = (),
    command: str = "",
) -> Exported:
    """Write the head of a trial (the best one by default) stacked on its network as one model, with a card beside it.

    form: keras, savedmodel, onnx or litert; by default what the suffix of `out` says. precision: of the weights, float32,
    float16 or int8, as far as the format has them. The model is run in a fresh process and must answer as the cached
    features do on up to 64 of the run's test images (256 in int8); otherwise `ParityError` is raised and nothing is left.
    Class names, the image size and how it was made are inside. `requests` say where backbones are now; without them they
    are where they were.
    """
    out = Path(out)
    kind = of_name(out, form)
    _check_asked(kind, out, precision)
    place.clear_stale(out, kind.suffix)
    chosen, score = run.trial(trial)
    records = run.images()
    specs = _specs(run, chosen)
    data = run.description["data"]
    if requests and not any(is_of(request, spec) for request in requests for spec in specs.values()):
        raise ModelError(
            f"-b {requests[0].title}: expected to be told where {', '.join(spec.title for spec in specs.values())} is now, "
            "found another network; leave -b out"
        )
    shelf = FeatureFile(data["root"]) if data["kind"] == "features" else store
    tuned = Tuned.load(run, chosen) if is_tuned(chosen) else None
    head = tuned.head if tuned else run.head(chosen) or _train(run, shelf, chosen, score, records)
    size = specs[chosen.sources[0].extraction].image_size
    built = {name: rebuilt(spec, requests, tuned=tuned.weights if tuned else None) for name, spec in specs.items()}
    taps = [Tap(item.layer, item.pool) for item in chosen.sources]
    model = stack([built[item.extraction] for item in chosen.sources], taps, head)
    ranges = sample_images.pixels_of(run, sample_images.learnt(records, CALIBRATED), size) if precision == "int8" else None
    make_folder(out.absolute().parent, _INSTEAD)
    draft = out.with_name(f".{out.stem}-{secrets.token_hex(4)}{kind.suffix}")
    try:
        _write(kind, model, draft, out, _description(run, chosen, specs, head, precision), precision, ranges)
        with _explained(kind, specs):
            checked, milliseconds = _check(draft, kind, precision, run, shelf, chosen, records, head, size)
        activations = str((kind.describe(draft) or {}).get("activations", ""))
        with write_errors(out, _INSTEAD):
            place.publish(draft, out)
    finally:
        place.remove(draft)
    sha256 = provenance.digest(out)
    known = provenance.remember(store, sha256) or not kind.runs_code
    done = Exported(
        out, place.beside(out), kind, precision, activations, chosen, checked, milliseconds, place.size(out), sha256, known
    )  # fmt: skip
    said = command or _command(run, store, done)
    text = card(done, run, score, records, list(specs.values()), said)
    publish(text.encode("utf-8", "replace"), done.card, out.absolute().parent, 0o644, _INSTEAD)
    return done


def _check_asked(kind: Format, out: Path, precision: str) -> None:
    """Raise `ModelError` before anything is computed for nothing."""
    if precision not in PRECISIONS:
        raise ModelError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    if precision not in kind.precisions:
        raise ModelError(f"format {kind.name}: expected precision {' or '.join(kind.precisions)}, found {precision}")
    kind.check_installed(write=True)
    if not out.name:
        raise ModelError(f"{out}: expected the name of a model, found none; give {_INSTEAD}")
    if out.is_dir() and (kind.suffix or kind.describe(out) is None):
        raise ModelError(f"{out}: expected a place for the model, found a folder that is no exported model; give {_INSTEAD}")
    if out.exists() and not out.is_dir() and not kind.suffix:
        raise ModelError(f"{out}: expected a place for a folder, found a file; give {_INSTEAD}")
    beside = place.beside(out)
    if beside.exists() and not (beside.is_file() and is_card(beside.read_bytes())):
        raise ModelError(f"{beside}: expected a place for the model card, found something else; give {_INSTEAD}")


def _specs(run: Run, trial: Trial) -> dict[str, Spec]:
    """How the features of each of the trial's extractions were made; raises `ModelError`."""
    specs = {source.extraction: run.spec(source) for source in trial.sources}
    if any(not spec.architecture for spec in specs.values()):
        raise ModelError(
            f"{run.path}: expected to know the network that made the features, found a file that does not say: there is "
            "no backbone to stack the head on; extract with humeris, or use the head's arrays in heads/"
        )
    sizes = {spec.image_size: spec.title for spec in specs.values()}
    if len(sizes) > 1:
        found = ", ".join(f"{height} x {width} ({title})" for (height, width), title in sizes.items())
        raise ModelError(
            f"{run.path}: expected networks of one image size, as a model has one input, found {found}; "
            "extract them with one --image-size, or export another trial of leaderboard.csv with --trial"
        )
    return specs


def _train(run: Run, store: Shelf, trial: Trial, score: Score, records: Sequence[Record]) -> Head:
    """The head of a trial that was not the winner, trained as the winner was: on everything but the test split."""
    learnt = sorted((record for record in records if record.split != "test"), key=lambda record: record.digest)
    classes = run.description["splits"]["classes"]
    keys = as_keys([record.digest for record in learnt])
    labels = np.array([classes.index(record.label) for record in learnt])
    views = Views.from_dict(run.description["views"])
    rows = problem(
        select_features.stored(store, trial.sources, views), keys, labels, len(classes), views=views, threads=cores()
    )
    head = train(trial, score, rows, classes, run.description["seed"])
    run.save_head(trial, head)
    return head


@contextlib.contextmanager
def _explained(kind: Format, specs: Mapping[str, Spec]) -> Iterator[None]:
    """Say of a `ParityError` that it comes of features in half precision, where it does."""
    try:
        yield
    except ParityError as error:
        half = ", ".join(sorted({spec.precision for spec in specs.values()} - {"float32"}))
        if not half or not kind.writers:
            raise
        raise ParityError(
            f"the features were computed in {half}, and {kind.runtime} computes in float32, too different: {error}; "
            "or export as keras or savedmodel, or extract and sweep with --precision float32"
        ) from error


def _check(
    draft: Path,
    kind: Format,
    precision: str,
    run: Run,
    store: Shelf,
    trial: Trial,
    records: Sequence[Record],
    head: Head,
    size: tuple[int, int],
) -> tuple[parity.Parity, float]:
    """Compare the model at `draft` with the cached answers; also the milliseconds that one image takes.

    Rows of whole maps are cached in float16, which alone moves a probability by some 1e-4. What a tuned network answered was
    recorded when it was scored.
    """
    count = CHECKED_INT8 if precision == "int8" else CHECKED
    if is_tuned(trial):
        chosen, cached = _recorded(run, records, count)
        ties: np.ndarray | None = None
    else:
        chosen = sample_images.compared(records, count)
        features = select_features.load(store, trial.sources, as_keys([record.digest for record in chosen]))
        cached = head.predict_proba(features)
    answers, milliseconds = parity.answers(kind, draft, sample_images.pixels_of(run, chosen, size))
    if precision == "int8":
        return parity.agree(cached, answers), milliseconds
    bound = parity.BOUND_FLOAT16 if precision == "float16" else kind.bound
    bound = max(bound, parity.BOUND_HALF if any(item.pool == "map" for item in trial.sources) else 0.0)
    if not is_tuned(trial):
        ties = head.ties(features, bound * parity.ROUNDING, bound)
    return parity.compare(cached, answers, bound, ties), milliseconds


def _recorded(run: Run, records: Sequence[Record], count: int) -> tuple[list[Record], np.ndarray]:
    """Up to `count` test images and what the run's winner answered, (n, classes)."""
    tested = [record for record in records if record.split == "test"]
    chosen = sample_images.evenly(tested, count)
    places = {record.digest: place for place, record in enumerate(tested)}
    return chosen, run.probabilities()[[places[record.digest] for record in chosen]]


def _description(run: Run, trial: Trial, specs: dict[str, Spec], head: Head, precision: str) -> dict[str, Any]:
    """What is kept inside the model. The test scores there are of plain views, which is what the model sees."""
    tested = run.description.get("test_plain") or run.description["test"]
    first = next(iter(specs.values()))
    return {
        "format": 2,
        "humeris": __version__,
        "classes": list(head.classes),
        "image_size": list(first.image_size),
        "pixels": first.pixels,
        "precision": precision,
        "specs": {name: spec.to_dict() for name, spec in specs.items()},
        "trial": trial.to_dict(),
        "test": {name: tested[name] for name in ("images", "accuracy", "accuracy_95")}
        if trial.id == run.description["best"]["id"]
        else None,
    }


def _write(
    kind: Format,
    model: Any,
    draft: Path,
    out: Path,
    description: Mapping[str, Any],
    precision: str,
    ranges: np.ndarray | None,
) -> None:
    """Write the draft; raises `ModelError` where the format cannot hold the model, and as `write_errors` says."""
    try:
        with write_errors(out, _INSTEAD):
            kind.write(model, draft, description, precision, ranges)
    except HumerisError:
        raise
    except Exception as error:  # converters have types of their own, also for a full disk
        raise ModelError(f"{out}: cannot be written as {kind.name}: {one_line(error)}") from error


def _command(run: Run, store: Store, done: Exported) -> str:
    """The command that makes the same model."""
    words = ["humeris", "export", run.path, "-o", done.path, "-f", done.format.name, "--precision", done.precision]
    return shlex.join(map(str, [*words, "--trial", done.trial.id, "--cache", store.path]))
