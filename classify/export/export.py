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
from ...cache.atomic_files import make_folder, publish, translate_write_errors
from ...cache.errors import HumerisError, ModelError, ParityError
from ...cache.shard import to_keys
from ...cache.spec import ExtractionSpec
from ...cache.store import Store
from ...extract.backbones.backbone_spec import BackboneSpec
from ...extract.backbones.taps import Tap
from ...extract.images.feature_file import FeatureFile
from ...extract.pixels.read_file import count_cores
from ..data import select_features
from ..data.cached_taps import FeatureStore
from ..data.views import Views
from ..evaluate.trial import Score, Trial
from ..heads.fit import build_training_data, train
from ..heads.head import Head
from ..runs.finetuned_weights import FinetunedWeights, is_finetuned
from ..runs.run import ImageRecord, Run
from . import parity, provenance, sample_images
from . import publish as place
from .export_result import ExportResult
from .formats.format import PRECISIONS, Format, to_one_line
from .formats.registry import choose_format
from .model_card import is_model_card, render_model_card
from .rebuild_backbone import is_same_backbone, rebuild_backbone
from .stack_model import stack_model

N_PARITY_IMAGES, N_PARITY_IMAGES_INT8 = 64, 256
N_CALIBRATION_IMAGES = 128  # images that the ranges of activations are learnt from
_OTHER_OUTPUT = "another place with -o"


def export(
    run: Run,
    store: Store,
    out: Path | str,
    *,
    format_name: str | None = None,
    precision: str = "float32",
    trial: str | None = None,
    backbone_specs: Sequence[BackboneSpec] = (),
    command: str = "",
) -> ExportResult:
    """Write the head of a trial (the best one by default) stacked on its network as one model, with a card beside it.

    form: keras, savedmodel, onnx or litert; by default what the suffix of `out` says. precision: of the weights, float32,
    float16 or int8, as far as the format has them. The model is run in a fresh process and must answer as the cached
    features do on up to 64 of the run's test images (256 in int8); otherwise `ParityError` is raised and nothing is left.
    Class names, the image size and how it was made are inside. `requests` say where backbones are now; without them they
    are where they were.
    """
    out = Path(out)
    model_format = choose_format(out, format_name)
    _check_arguments(model_format, out, precision)
    place.remove_stale_drafts(out, model_format.suffix)
    selected_trial, score = run.find_trial(trial)
    records = run.load_image_records()
    specs = _load_specs(run, selected_trial)
    data = run.metadata["data"]
    if backbone_specs and not any(
        is_same_backbone(backbone_spec, spec) for backbone_spec in backbone_specs for spec in specs.values()
    ):
        raise ModelError(
            f"-b {backbone_specs[0].title}: expected to be told where {', '.join(spec.title for spec in specs.values())} is "
            "now, found another network; leave -b out"
        )
    feature_store = FeatureFile(data["root"]) if data["kind"] == "features" else store
    tuned = FinetunedWeights.load(run, selected_trial) if is_finetuned(selected_trial) else None
    head = (
        tuned.head
        if tuned
        else run.load_head(selected_trial) or _train_head(run, feature_store, selected_trial, score, records)
    )
    size = specs[selected_trial.tap_refs[0].extraction].image_size
    backbones = {
        name: rebuild_backbone(spec, backbone_specs, tuned_weights=tuned.weights if tuned else None)
        for name, spec in specs.items()
    }
    taps = [Tap(tap_ref.layer, tap_ref.pool) for tap_ref in selected_trial.tap_refs]
    model = stack_model([backbones[tap_ref.extraction] for tap_ref in selected_trial.tap_refs], taps, head)
    calibration = (
        sample_images.load_pixels(run, sample_images.select_calibration_records(records, N_CALIBRATION_IMAGES), size)
        if precision == "int8"
        else None
    )
    make_folder(out.absolute().parent, _OTHER_OUTPUT)
    temp_path = out.with_name(f".{out.stem}-{secrets.token_hex(4)}{model_format.suffix}")
    try:
        _write_model(
            model_format,
            model,
            temp_path,
            out,
            _build_description(run, selected_trial, specs, head, precision),
            precision,
            calibration,
        )
        with _explain_parity_error(model_format, specs):
            parity_result, milliseconds = _check_parity(
                temp_path, model_format, precision, run, feature_store, selected_trial, records, head, size
            )
        activations = str((model_format.describe(temp_path) or {}).get("activations", ""))
        with translate_write_errors(out, _OTHER_OUTPUT):
            place.move_into_place(temp_path, out)
    finally:
        place.remove(temp_path)
    sha256 = provenance.compute_digest(out)
    trusted = provenance.remember(store, sha256) or not model_format.runs_code
    result = ExportResult(
        out, place.card_path(out), model_format, precision, activations, selected_trial, parity_result, milliseconds,
        place.get_size(out), sha256, trusted,
    )  # fmt: skip
    command_line = command or _build_command(run, store, result)
    card_text = render_model_card(result, run, score, records, list(specs.values()), command_line)
    publish(card_text.encode("utf-8", "replace"), result.card, out.absolute().parent, 0o644, _OTHER_OUTPUT)
    return result


def _check_arguments(model_format: Format, out: Path, precision: str) -> None:
    """Raise `ModelError` before anything is computed for nothing."""
    if precision not in PRECISIONS:
        raise ModelError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    if precision not in model_format.precisions:
        raise ModelError(
            f"format {model_format.name}: expected precision {' or '.join(model_format.precisions)}, found {precision}"
        )
    model_format.check_installed(write=True)
    if not out.name:
        raise ModelError(f"{out}: expected the name of a model, found none; give {_OTHER_OUTPUT}")
    if out.is_dir() and (model_format.suffix or model_format.describe(out) is None):
        raise ModelError(
            f"{out}: expected a place for the model, found a folder that is no exported model; give {_OTHER_OUTPUT}"
        )
    if out.exists() and not out.is_dir() and not model_format.suffix:
        raise ModelError(f"{out}: expected a place for a folder, found a file; give {_OTHER_OUTPUT}")
    card_file = place.card_path(out)
    if card_file.exists() and not (card_file.is_file() and is_model_card(card_file.read_bytes())):
        raise ModelError(f"{card_file}: expected a place for the model card, found something else; give {_OTHER_OUTPUT}")


def _load_specs(run: Run, trial: Trial) -> dict[str, ExtractionSpec]:
    """How the features of each of the trial's extractions were made; raises `ModelError`."""
    specs = {tap_ref.extraction: run.get_spec(tap_ref) for tap_ref in trial.tap_refs}
    if any(not spec.architecture for spec in specs.values()):
        raise ModelError(
            f"{run.path}: expected to know the network that made the features, found a file that does not say: there is "
            "no backbone to stack the head on; extract with humeris, or use the head's arrays in heads/"
        )
    sizes = {spec.image_size: spec.title for spec in specs.values()}
    if len(sizes) > 1:
        size_list = ", ".join(f"{height} x {width} ({title})" for (height, width), title in sizes.items())
        raise ModelError(
            f"{run.path}: expected networks of one image size, as a model has one input, found {size_list}; "
            "extract them with one --image-size, or export another trial of leaderboard.csv with --trial"
        )
    return specs


def _train_head(run: Run, feature_store: FeatureStore, trial: Trial, score: Score, records: Sequence[ImageRecord]) -> Head:
    """The head of a trial that was not the winner, trained as the winner was: on everything but the test split."""
    train_records = sorted((record for record in records if record.split != "test"), key=lambda record: record.digest)
    classes = run.metadata["splits"]["classes"]
    keys = to_keys([record.digest for record in train_records])
    labels = np.array([classes.index(record.label) for record in train_records])
    views = Views.from_dict(run.metadata["views"])
    training_data = build_training_data(
        select_features.open_readers(feature_store, trial.tap_refs, views),
        keys,
        labels,
        len(classes),
        views=views,
        threads=count_cores(),
    )
    head = train(trial, score, training_data, classes, run.metadata["seed"])
    run.save_head(trial, head)
    return head


@contextlib.contextmanager
def _explain_parity_error(model_format: Format, specs: Mapping[str, ExtractionSpec]) -> Iterator[None]:
    """Say of a `ParityError` that it comes of features in half precision, where it does."""
    try:
        yield
    except ParityError as error:
        half_precisions = ", ".join(sorted({spec.precision for spec in specs.values()} - {"float32"}))
        if not half_precisions or not model_format.writer_modules:
            raise
        raise ParityError(
            f"the features were computed in {half_precisions}, and {model_format.runtime} computes in float32, too "
            f"different: {error}; or export as keras or savedmodel, or extract and sweep with --precision float32"
        ) from error


def _check_parity(
    temp_path: Path,
    model_format: Format,
    precision: str,
    run: Run,
    feature_store: FeatureStore,
    trial: Trial,
    records: Sequence[ImageRecord],
    head: Head,
    size: tuple[int, int],
) -> tuple[parity.Parity, float]:
    """Compare the model at `draft` with the cached answers; also the milliseconds that one image takes.

    Rows of whole maps are cached in float16, which alone moves a probability by some 1e-4. What a tuned network answered was
    recorded when it was scored.
    """
    count = N_PARITY_IMAGES_INT8 if precision == "int8" else N_PARITY_IMAGES
    if is_finetuned(trial):
        checked_records, cached = _load_recorded_probabilities(run, records, count)
        ties: np.ndarray | None = None
    else:
        checked_records = sample_images.select_parity_records(records, count)
        features = select_features.load_matrix(
            feature_store, trial.tap_refs, to_keys([record.digest for record in checked_records])
        )
        cached = head.predict_proba(features)
    predictions, milliseconds = parity.predict_in_subprocess(
        model_format, temp_path, sample_images.load_pixels(run, checked_records, size)
    )
    if precision == "int8":
        return parity.compare_classes(cached, predictions), milliseconds
    tolerance = parity.TOLERANCE_FLOAT16 if precision == "float16" else model_format.tolerance
    tolerance = max(tolerance, parity.TOLERANCE_HALF if any(tap_ref.pool == "map" for tap_ref in trial.tap_refs) else 0.0)
    if not is_finetuned(trial):
        ties = head.find_ties(features, tolerance * parity.COSINE_TOLERANCE, tolerance)
    return parity.compare(cached, predictions, tolerance, ties), milliseconds


def _load_recorded_probabilities(
    run: Run, records: Sequence[ImageRecord], count: int
) -> tuple[list[ImageRecord], np.ndarray]:
    """Up to `count` test images and what the run's winner answered, (n, classes)."""
    test_records = [record for record in records if record.split == "test"]
    checked_records = sample_images.select_evenly(test_records, count)
    index_by_digest = {record.digest: index for index, record in enumerate(test_records)}
    return checked_records, run.load_probabilities()[[index_by_digest[record.digest] for record in checked_records]]


def _build_description(
    run: Run, trial: Trial, specs: dict[str, ExtractionSpec], head: Head, precision: str
) -> dict[str, Any]:
    """What is kept inside the model. The test scores there are of plain views, which is what the model sees."""
    test_scores = run.metadata.get("test_plain") or run.metadata["test"]
    first_spec = next(iter(specs.values()))
    return {
        "format": 2,
        "humeris": __version__,
        "classes": list(head.class_names),
        "image_size": list(first_spec.image_size),
        "pixels": first_spec.pixels,
        "precision": precision,
        "specs": {name: spec.to_dict() for name, spec in specs.items()},
        "trial": trial.to_dict(),
        "test": {name: test_scores[name] for name in ("images", "accuracy", "accuracy_95")}
        if trial.id == run.metadata["best"]["id"]
        else None,
    }


def _write_model(
    model_format: Format,
    model: Any,
    temp_path: Path,
    out: Path,
    description: Mapping[str, Any],
    precision: str,
    calibration: np.ndarray | None,
) -> None:
    """Write the draft; raises `ModelError` where the format cannot hold the model, and as `write_errors` says."""
    try:
        with translate_write_errors(out, _OTHER_OUTPUT):
            model_format.write(model, temp_path, description, precision, calibration)
    except HumerisError:
        raise
    except Exception as error:  # converters have types of their own, also for a full disk
        raise ModelError(f"{out}: cannot be written as {model_format.name}: {to_one_line(error)}") from error


def _build_command(run: Run, store: Store, result: ExportResult) -> str:
    """The command that makes the same model."""
    words = ["humeris", "export", run.path, "-o", result.path, "-f", result.format.name, "--precision", result.precision]
    return shlex.join(map(str, [*words, "--trial", result.trial.id, "--cache", store.path]))
