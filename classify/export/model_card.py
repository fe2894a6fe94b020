"""The model card, a page of Markdown beside an exported model."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...cache.formatting import format_size, to_printable
from ...cache.spec import ExtractionSpec
from ...extract.backbones.registry import describe_license
from ..evaluate.trial import Score
from ..runs.finetuned_weights import is_finetuned
from ..runs.image_records import ImageRecord
from ..runs.run import Run
from .export_result import ExportResult

_PACKAGES = ("humeris", "keras", "tensorflow", "scikit-learn", "numpy", "pillow")
_REPORTED_SCORES = [("accuracy", "accuracy"), ("balanced accuracy", "balanced_accuracy"), ("macro-F1", "macro_f1")]
_PREPROCESSING = {
    "tf": "divided by 127.5, less 1",
    "torch": "divided by 255, less ImageNet's mean, over its deviation",
    "caffe": "RGB turned into BGR, less ImageNet's mean",
    "unit": "divided by 255",
    "none": "none before the network's own",
}


def is_model_card(text: bytes) -> bool:
    """Whether a file is a model card, which may be written over."""
    return text.startswith(b"# ") and b"Written by humeris." in text[:2000]


def render_model_card(
    result: ExportResult,
    run: Run,
    score: Score,
    records: Sequence[ImageRecord],
    specs: Sequence[ExtractionSpec],
    command: str,
) -> str:
    """Write the text of a model card; everything in it is from the run or was measured at the export.

    Its sections are those of Mitchell et al., "Model Cards for Model Reporting" (2019, arXiv:1810.03993), as far as they
    are known.

    Parameters
    ----------
    result : ExportResult
        The exported model.
    run : Run
        The run that it comes from.
    score : Score
        How its trial did on the images that it was selected on.
    records : sequence of ImageRecord
        The images of the run.
    specs : sequence of ExtractionSpec
        How the features of each of its extractions were made.
    command : str
        The command that makes the same model.

    Returns
    -------
    str
        Markdown.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=False, keep_trailing_newline=True)  # noqa: S701  # Markdown, escaped by `md`
    environment.filters["md"] = _escape_markdown
    template = environment.from_string(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))
    run_result, metadata = run.result, run.metadata
    is_best = result.trial.id == run_result.best.id
    return template.render(
        done=result,
        run=run,
        trial=result.trial,
        tuned=is_finetuned(result.trial),
        score=score,
        checked=result.parity,
        records=records,
        specs=specs,
        size=format_size(result.bytes),
        classes=metadata.splits.classes,
        counts=Counter((record.label, record.split == "test") for record in records),
        data=metadata.data,
        test=run_result.single_view_test if is_best else None,
        shown=_REPORTED_SCORES,
        notes=run_result.notes if is_best else (),
        preprocessing=[_PREPROCESSING[mode] for mode in dict.fromkeys(spec.preprocessing for spec in specs)],
        licence=describe_license,
        machine=f"{platform.machine()}, {os.cpu_count()} processor cores",
        made=to_printable(metadata.command or "humeris sweep"),
        command=to_printable(command),
        versions={name: importlib.metadata.version(name) for name in _PACKAGES} | {"python": platform.python_version()},
    )


def _escape_markdown(value: object) -> str:
    """Text that stays as it is in Markdown and in the HTML that is made of it."""
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", to_printable(value))
