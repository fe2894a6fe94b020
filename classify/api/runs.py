"""Runs from Python: sweep heads over features, do everything at once, fine-tune."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...cache.errors import DeviceError
from ...extract.api import Backbones, Cache, Data, ProgressFactory, open_images, open_store
from ...extract.backbones import device
from ...extract.config import build_config, check_names, to_tuple
from ...extract.engine.extract_config import ExtractConfig
from .. import pipeline
from ..finetune import finetune as finetuning
from ..finetune.finetune import FinetuneResult
from ..finetune.finetune_config import FinetuneConfig
from ..finetune.prepare import prepare
from ..finetune.train_loop import Epoch
from ..pipeline import PipelineResult
from ..report.report_config import ReportConfig
from ..runs.run import Run
from ..sweep.sweep_config import SweepConfig
from .command_line import format_command
from .features import check_backbones

RunLike = Run | PipelineResult | FinetuneResult | Path | str


def sweep(
    data: Data,
    heads: SweepConfig | Sequence[str] | str | None = None,
    *,
    extract: ExtractConfig | bool = False,
    cache: Cache = None,
    command: str = "",
    progress: ProgressFactory | None = None,
    **settings: Any,
) -> Run:
    """Train heads on cached features, select the best by cross-validation, and score it once on the test split.

    An interrupted sweep goes on where it stopped when it is called again; a finished one is returned as it is.

    Parameters
    ----------
    data : Images, Path or str
        As for `humeris.extract`; or an HDF5 file of features.
    heads : str, sequence of str, or SweepConfig, optional
        Head families with the hyperparameters to try, such as ``"logreg,C=0.1/1"``; or all settings in one object, of which
        `settings` change some. Logistic regression by default.
    extract : bool or ExtractConfig
        Whether, or how, features that are not cached are computed first.
    cache : Store, Path or str, optional
        The cache or its folder; the user's by default. A `Store` must be open for writing for `extract`.
    command : str
        The command line that the run records to be repeated; by default one that does the same.
    progress : callable, optional
        As for `humeris.extract`.
    **settings
        The fields of `SweepConfig`, such as ``layers="block_6*"``, ``select="cv"``, ``seed=1`` or ``out="runs/a"``; with
        ``extract=True`` also those of `ExtractConfig`.

    Returns
    -------
    Run
        The finished run; `Run.result` has the winner and its scores, `Run.path` the folder with all tables.

    Raises
    ------
    ConfigError
        For an unknown setting.
    DataError, LayerError, HeadError
        For labels, features or heads that cannot be used.
    RunError
        If another run is in the folder, or another process works on this one.

    Examples
    --------
    >>> import humeris
    >>> run = humeris.sweep("photos", ["logreg,C=1", "knn,n_neighbors=3"], cache="features", out="runs/a")
    >>> run.result.best.head, run.result.test.accuracy
    ('logreg', 1.0)
    >>> [(point.layer, point.head) for point in run.compute_depth_curve()][:2]
    [('block4_out', 'logreg'), ('block4_out', 'knn')]
    """
    kinds = [SweepConfig, ExtractConfig] if extract is True else [SweepConfig]
    _check_settings("humeris.sweep", settings, *kinds)
    sweep_config = build_config(SweepConfig, heads, "heads", settings)
    extract_config = build_config(ExtractConfig, None, "backbones", settings) if extract is True else extract or None
    if extract_config is None:
        check_backbones(sweep_config, settings)
    with open_store(sweep_config.cache if cache is None else cache, write=extract_config is not None) as store:
        limit = sweep_config.limit or (extract_config.limit if extract_config else None)
        images = open_images(data, store, limit, sweep_config.jobs, allow_features=True, progress=progress)
        words = ("--extract",) if extract_config else ()
        command = command or format_command("sweep", data, store, sweep_config, extract_config, words=words)
        _, finished_run = pipeline.extract_and_sweep(
            images, store, extract_config, sweep_config, command=command, progress=progress
        )
        return finished_run


def run(
    data: Data,
    backbones: ExtractConfig | Backbones | None = None,
    heads: SweepConfig | Sequence[str] | str | None = None,
    *,
    model: Path | str | None = None,
    cache: Cache = None,
    command: str = "",
    progress: ProgressFactory | None = None,
    **settings: Any,
) -> PipelineResult:
    """Extract, sweep, export the best head with its network as one model, and write the report.

    Parameters
    ----------
    data : Images, Path or str
        As for `humeris.extract`.
    backbones : str, BackboneSpec, sequence of them, or ExtractConfig, optional
        As for `humeris.extract`.
    heads : str, sequence of str, or SweepConfig, optional
        As for `humeris.sweep`.
    model : Path or str, optional
        The model file; ``model.keras`` in the folder of the run by default.
    cache : Store, Path or str, optional
        The cache, open for writing if it is a `Store`, or its folder; the user's by default.
    command : str
        The command line that the run records to be repeated; by default one that does the same.
    progress : callable, optional
        As for `humeris.extract`.
    **settings
        The fields of `ExtractConfig`, `SweepConfig` and `ReportConfig`. A setting that two of them have holds for both.

    Returns
    -------
    PipelineResult
        ``run``, ``export_result``, ``report_result``, ``extract_results`` and ``images``; where the export or the report
        fails, ``failed_steps`` has the error and a command, and its result is None.

    Raises
    ------
    HumerisError
        What `humeris.extract` and `humeris.sweep` raise.

    Examples
    --------
    >>> import humeris
    >>> result = humeris.run(
    ...     "photos", backbones="nano", heads="logreg,C=1", layers="block5_out", cache="features", out="runs/b"
    ... )
    >>> result.run.result.test.accuracy
    1.0
    >>> result.export_result.path.name, result.report_result.path.name
    ('model.keras', 'report.html')
    """
    _check_settings("humeris.run", settings, ExtractConfig, SweepConfig, ReportConfig)
    extract_config = build_config(ExtractConfig, backbones, "backbones", settings)
    sweep_config = build_config(SweepConfig, heads, "heads", settings)
    report_config = build_config(ReportConfig, None, "page", settings)
    folder = sweep_config.cache or extract_config.cache
    with open_store(folder if cache is None else cache, write=True) as store:
        limit = sweep_config.limit or extract_config.limit
        images = open_images(data, store, limit, sweep_config.jobs, progress=progress)
        words = () if model is None else ("--model", str(model))
        configs = sweep_config, extract_config, report_config
        return pipeline.run(
            images,
            store,
            extract_config,
            sweep_config,
            report_config,
            model=None if model is None else Path(model),
            command=command or format_command("run", data, store, *configs, words=words),
            progress=progress,
        )


def finetune(
    run: RunLike,
    from_layer: FinetuneConfig | str,
    *,
    cache: Cache = None,
    command: str = "",
    on_epoch: Callable[[Epoch], None] | None = None,
    progress: ProgressFactory | None = None,
    **settings: Any,
) -> FinetuneResult:
    """Train the layers above a layer together with the head of a run; leaves another run, its model and its report.

    The maps of the layer are cached once, so that the layers below it never run again. The head is trained alone first.

    Parameters
    ----------
    run : Run, PipelineResult, Path or str
        A finished run or its folder.
    from_layer : str or FinetuneConfig
        The layers above this one are trained; ``"input"`` trains the whole network, on images. Or all settings in one
        object, of which `settings` change some.
    cache : Store, Path or str, optional
        The cache that the run was made with, open for writing if it is a `Store`, or its folder; the user's by default.
    command : str
        The command line that the run records to be repeated; by default one that does the same.
    on_epoch : callable, optional
        Called with the `Epoch` after each epoch: its number, losses and accuracies.
    progress : callable, optional
        As for `humeris.extract`.
    **settings
        The fields of `FinetuneConfig`, such as ``epochs=5``, ``learning_rate=1e-4`` or ``augment="flip"``.

    Returns
    -------
    FinetuneResult
        ``run``, ``export_result``, ``report_result`` and ``failed_steps``, as of `humeris.run`.

    Raises
    ------
    ConfigError, HeadError
        For a setting, or a head that cannot be trained further.
    DataError, RunError
        If the images or the run have changed.
    BackboneError, LayerError, DeviceError
        If the network has changed, cannot be cut at the layer, or several devices are given.

    Examples
    --------
    >>> import humeris
    >>> result = humeris.finetune("runs/a", "block4_out", epochs=1, cache="features", out="runs/c")
    >>> result.run.result.best.head
    'finetune'
    """
    check_names("humeris.finetune", settings, FinetuneConfig.list_settings())
    config = build_config(FinetuneConfig, from_layer, "from_layer", settings)
    devices = device.choose(to_tuple(config.devices))
    if devices:
        raise DeviceError(f"devices {', '.join(devices)}: fine-tuning uses one; give one of them")
    frozen_run = open_run(run)
    with open_store(config.cache if cache is None else cache, write=True) as store:
        setup = prepare(frozen_run, store, config, progress=progress("reading") if progress else None)
        command = command or format_command("finetune", frozen_run.path, store, config, words=("--from", config.from_layer))
        return finetuning.finetune(setup, store, command=command, on_epoch=on_epoch or _ignore, stage=progress)


def open_run(run: RunLike) -> Run:
    """Return the finished run of a folder or of a result; raises `RunError`."""
    opened_run = to_run(run)
    return opened_run if opened_run.complete and opened_run.load_trials() else Run.load(opened_run.path)


def to_run(run: RunLike) -> Run:
    """Return the run of a folder or of a result, finished or not."""
    if isinstance(run, Run):
        return run
    return Run(run) if isinstance(run, Path | str) else run.run


def _ignore(_: Epoch) -> None:
    """Do nothing after an epoch."""


def _check_settings(verb: str, settings: dict[str, Any], *kinds: type[ExtractConfig | SweepConfig | ReportConfig]) -> None:
    """Raise `ConfigError` for a setting that none of the configs has, with the one that is closest."""
    check_names(verb, settings, [name for kind in kinds for name in kind.list_settings()])
