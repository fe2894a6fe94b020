"""The model card: a page of Markdown beside an exported model."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...cache.formatting import format_size, quote_argument, to_printable
from ...cache.spec import ExtractionSpec
from ...extract.backbones.registry import describe_license
from ..evaluate.trial import Score
from ..heads.registry import find_head_family
from ..runs.finetuned_weights import is_finetuned
from ..runs.image_records import ImageRecord
from ..runs.run import Run
from .export_result import ExportResult

_PACKAGES = ("humeris", "keras", "tensorflow", "scikit-learn", "numpy", "pillow")
_METRICS = [("accuracy", "accuracy"), ("balanced accuracy", "balanced_accuracy"), ("macro-F1", "macro_f1")]
_PREPROCESSING = {
    "tf": "pixels scaled to [-1, 1]",
    "torch": "pixels scaled to [0, 1], then standardized by the mean and standard deviation of ImageNet",
    "caffe": "RGB converted to BGR, then the mean of ImageNet subtracted",
    "unit": "pixels scaled to [0, 1]",
    "none": "that of the backbone itself",
}


def is_model_card(text: bytes) -> bool:
    """Return whether a file is a model card, which an export may overwrite."""
    return text.startswith(b"# ") and b"Written by humeris." in text[:2000]


def render_model_card(
    result: ExportResult,
    run: Run,
    score: Score,
    records: Sequence[ImageRecord],
    specs: Sequence[ExtractionSpec],
    command: str,
) -> str:
    """Return the text of a model card; everything in it comes from the run or was measured during the export.

    The sections follow [1]_, as far as they are known.

    Parameters
    ----------
    result : ExportResult
        The exported model.
    run : Run
        The run of the exported trial.
    score : Score
        Score of the trial on the held-out images.
    records : sequence of ImageRecord
        The images of the run.
    specs : sequence of ExtractionSpec
        Specs of the extractions that the trial uses.
    command : str
        The command that exports the same model.

    Returns
    -------
    str
        Markdown.

    References
    ----------
    .. [1] Mitchell et al., "Model Cards for Model Reporting", 2019, arXiv:1810.03993.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=False, keep_trailing_newline=True)  # noqa: S701  # Markdown, escaped by `md`
    environment.filters |= {"md": _escape_markdown, "percent": lambda share: f"{100 * share:.1f}"}
    template = environment.from_string(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))
    run_result, metadata = run.result, run.metadata
    is_best = result.trial.id == run_result.best.id
    return template.render(
        export=result,
        run=run,
        trial=result.trial,
        is_finetuned=is_finetuned(result.trial),
        head_title=getattr(find_head_family(result.trial.head), "title", result.trial.head),
        score=score,
        parity=result.parity,
        records=records,
        specs=specs,
        size=format_size(result.bytes),
        classes=metadata.splits.classes,
        counts=Counter((record.label, record.split == "test") for record in records),
        data=metadata.data,
        test=run_result.single_view_test if is_best else None,
        metrics=_METRICS,
        near_duplicates=run_result.near_duplicates if is_best else None,
        notes=run_result.notes if is_best else (),
        preprocessing=[_PREPROCESSING[mode] for mode in dict.fromkeys(spec.preprocessing for spec in specs)],
        describe_license=describe_license,
        machine=f"{platform.machine()}, {os.cpu_count()} CPU cores",
        predict_command=f"humeris predict {quote_argument(result.path.name)} IMAGES",
        python_path=to_printable(json.dumps(result.path.name, ensure_ascii=False)),
        run_command=to_printable(metadata.command or "humeris sweep"),
        command=to_printable(command),
        versions={name: importlib.metadata.version(name) for name in _PACKAGES} | {"python": platform.python_version()},
    )


def _escape_markdown(value: object) -> str:
    """Return text escaped so that Markdown, and HTML rendered from it, shows it unchanged."""
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", to_printable(value))
