"""Models and reports from Python: export a run, classify new images, write the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...cache.errors import ModelError
from ...cache.store import Store
from ...extract.api import Backbones, Cache, ProgressFactory, open_store
from ...extract.config import build_config, check_names, to_tuple
from ...extract.engine.extract_config import narrow_backbones, parse_backbones
from ...extract.pixels.image_like import ImageLike, iter_images
from ..export.export import export as export_run
from ..export.export_result import ExportResult
from ..export.formats.registry import DEFAULT_FORMAT, FORMATS
from ..export.predict import Prediction, Predictor, list_image_files
from ..finetune.finetune import FinetuneResult
from ..pipeline import PipelineResult
from ..report.page import ReportResult, write_report
from ..report.report_config import ReportConfig
from ..runs.run import Run
from .runs import RunLike, open_run, to_run

ModelLike = Predictor | ExportResult | RunLike


def export(
    run: RunLike,
    out: Path | str | None = None,
    *,
    trial: str | None = None,
    format: str | None = None,  # noqa: A002  # as Keras's own `Model.export` calls it
    precision: str = "float32",
    backbones: Backbones = (),
    cache: Cache = None,
    command: str = "",
) -> ExportResult:
    """Write the best head of a run, stacked on its network, as one model with a model card beside it.

    The model is loaded again in a fresh process, and its probabilities must equal those computed from the cached features.

    Parameters
    ----------
    run : Run, PipelineResult, FinetuneResult, Path or str
        A finished run or its folder.
    out : Path or str, optional
        A new file or folder, or an exported model, which is replaced; ``model`` in the folder of the run by default.
    trial : str, optional
        The first digits of a trial's id; the best trial by default.
    format : str, optional
        ``keras``, ``savedmodel``, ``onnx``, ``litert`` or a registered format; by default the one that the suffix of `out`
        belongs to.
    precision : str
        Of the weights: ``float32``, ``float16`` or ``int8``, as far as the format has them.
    backbones : str, BackboneSpec or sequence of them
        Where the networks are now, if their files were moved.
    cache : Store, Path or str, optional
        The cache that the run was made with, open for writing if it is a `Store`, or its folder; the user's by default.
    command : str
        What the model card gives as the command that makes the model; by default one that makes the same.

    Returns
    -------
    ExportResult
        Where the model and its card are, their agreement with the cache, size in bytes and milliseconds per image.

    Raises
    ------
    ParityError
        If the probabilities differ. Nothing is left behind then, and an older model stays.
    ModelError
        If something else is at `out`, or the format cannot hold the model.
    RunError, DataError, BackboneError
        If the run, its features, images or network are gone or have changed.

    Examples
    --------
    >>> import humeris
    >>> result = humeris.export("runs/a", "model.keras", cache="features")
    >>> result.format.name, result.parity.max_difference < 1e-4
    ('keras', True)
    """
    opened_run = open_run(run)
    if out is None:
        default_format = DEFAULT_FORMAT if format is None else FORMATS.get(format, DEFAULT_FORMAT)
        out = opened_run.path / f"model{default_format.suffix}"
    specs = narrow_backbones(parse_backbones(to_tuple(backbones), None, None, "float32", 0))
    with open_store(cache, write=True) as store:
        return export_run(
            opened_run, store, out, trial=trial, format=format, precision=precision, backbone_specs=specs, command=command
        )


def predict(
    model: ModelLike,
    images: Iterable[ImageLike] | ImageLike,
    *,
    top: int = 1,
    batch_size: int = 32,
    jobs: int | None = None,
    trust: bool = False,
    cache: Cache = None,
) -> list[Prediction]:
    """Classify images with an exported model.

    To classify with the same model again and again, load it once as a `Predictor`.

    Parameters
    ----------
    model : Path, str, Predictor, ExportResult, Run or PipelineResult
        An exported model in any format, or a run in whose folder ``model.keras`` is.
    images : image, or iterable of images
        Paths of image files, and of folders of them; or whatever `Predictor.predict` takes.
    top : int
        How many classes of each image.
    batch_size : int
        Images in a forward pass.
    jobs : int, optional
        Processes that decode; one for each core by default.
    trust : bool
        Whether to run a model of somebody else's in a format that can hold code (SavedModel, LiteRT).
    cache : Store, Path or str, optional
        The cache that the model was exported with, which knows whether it is trusted; the user's by default.

    Returns
    -------
    list of Prediction
        One for each image, in order; those of a folder are sorted. An image that cannot be decoded has a `rejection`.

    Raises
    ------
    ModelError
        If this is no exported model, or it cannot be run here.
    DataError
        If one of the paths does not exist.

    Examples
    --------
    >>> import humeris
    >>> (prediction,) = humeris.predict("model.keras", "photos/blob/00.png", top=2)
    >>> [name for name, probability in prediction.top][0]
    'blob'
    >>> len(humeris.predict("model.keras", ["photos/blob", "photos/noise/00.png"]))
    13
    """
    listed = list(iter_images(images))
    paths = [Path(image) for image in listed if isinstance(image, Path | str)]
    if paths and len(paths) == len(listed):
        listed = list(list_image_files(paths))
    if not isinstance(model, Predictor):
        folder = cache.path if isinstance(cache, Store) else cache
        model = Predictor(find_model(model), cache=folder, trust=trust)
    return list(model.predict(listed, top=top, batch_size=batch_size, jobs=jobs))


def report(
    runs: Sequence[RunLike] | RunLike,
    page: ReportConfig | Path | str | None = None,
    *,
    cache: Cache = None,
    progress: ProgressFactory | None = None,
    **settings: Any,
) -> ReportResult:
    """Write what one or more runs found as one HTML page that needs no network.

    Parameters
    ----------
    runs : Run, PipelineResult, FinetuneResult, Path or str, or sequence of them
        Runs or their folders, finished or not; several are compared.
    page : Path, str or ReportConfig, optional
        The file, ``report.html`` in the first run by default; or all settings in one object, which `settings` change.
    cache : Store, Path or str, optional
        The cache that the runs were made with, or its folder; the user's by default.
    progress : callable, optional
        As for `humeris.extract`.
    **settings
        The fields of `ReportConfig`: ``latency=True`` times the networks first.

    Returns
    -------
    ReportResult
        The path of the page, its size in bytes, and what it lacks.

    Raises
    ------
    ConfigError
        For an unknown setting.
    RunError
        If there is no run.
    CacheError
        If the page cannot be written.

    Examples
    --------
    >>> import humeris
    >>> humeris.report("runs/a", cache="features").path.as_posix()
    'runs/a/report.html'
    """
    check_names("humeris.report", settings, ReportConfig.list_settings())
    config = build_config(ReportConfig, page, "page", settings)
    folder = config.cache if cache is None else cache
    return write_report(
        [to_run(run) for run in to_tuple(runs)],
        config.page,
        folder.path if isinstance(folder, Store) else folder,
        latency=config.latency,
        progress=progress("latency") if progress and config.latency else None,
    )


def find_model(model: ExportResult | RunLike) -> Path:
    """Return the path of an exported model; raises `ModelError` for a run that has none in its folder."""
    if isinstance(model, ExportResult):
        return model.path
    if isinstance(model, PipelineResult | FinetuneResult) and model.export_result is not None:
        return model.export_result.path
    if isinstance(model, Path | str) and not Run(model).exists:
        return Path(model)
    run = to_run(model)
    path = run.path / f"model{DEFAULT_FORMAT.suffix}"
    if not path.exists():
        raise ModelError(f"{run.path}: the run has no {path.name}; export one from it, and give its path")
    return path
