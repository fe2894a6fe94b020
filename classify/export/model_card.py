"""The model card: a page of Markdown beside an exported model, that says what it is and how far to trust it.

Its parts are those of Mitchell et al., "Model Cards for Model Reporting" (2019, arXiv:1810.03993), as far as they are known.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...cache.formatting import safe, size
from ...cache.spec import Spec
from ..evaluate.trial import Score
from ..runs.finetuned_weights import is_tuned
from ..runs.run import Record, Run
from . import licenses
from .export_result import Exported

_VERSIONS = ("humeris", "keras", "tensorflow", "scikit-learn", "numpy", "pillow")
_SHOWN = [("accuracy", "accuracy"), ("balanced accuracy", "balanced_accuracy"), ("macro-F1", "macro_f1")]
_PREPROCESSING = {
    "tf": "divided by 127.5, less 1",
    "torch": "divided by 255, less ImageNet's mean, over its deviation",
    "caffe": "RGB turned into BGR, less ImageNet's mean",
    "unit": "divided by 255",
    "none": "none before the network's own",
}


def is_card(text: bytes) -> bool:
    """Whether a file is a model card, which may be written over."""
    return text.startswith(b"# ") and b"Written by humeris." in text[:2000]


def card(done: Exported, run: Run, score: Score, records: Sequence[Record], specs: Sequence[Spec], command: str) -> str:
    """The Markdown text about an exported model; everything in it is of the run or was measured at the export."""
    from jinja2 import Environment

    environment = Environment(autoescape=False, keep_trailing_newline=True)  # noqa: S701  # Markdown, escaped by `md`
    environment.filters["md"] = _escaped
    template = environment.from_string(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))
    described, chosen = run.description, done.trial.id == run.description["best"]["id"]
    return template.render(
        done=done,
        run=run,
        trial=done.trial,
        tuned=is_tuned(done.trial),
        score=score,
        checked=done.parity,
        records=records,
        specs=specs,
        size=size(done.bytes),
        classes=described["splits"]["classes"],
        counts=Counter((record.label, record.split == "test") for record in records),
        data=described["data"],
        test=(described.get("test_plain") or described["test"]) if chosen else None,
        shown=_SHOWN,
        notes=described.get("notes", []) if chosen else [],
        preprocessing=[_PREPROCESSING[how] for how in dict.fromkeys(spec.preprocessing for spec in specs)],
        licence=licenses.note,
        machine=f"{platform.machine()}, {os.cpu_count()} processor cores",
        made=safe(described.get("command") or "humeris sweep"),
        command=safe(command),
        versions={name: importlib.metadata.version(name) for name in _VERSIONS} | {"python": platform.python_version()},
    )


def _escaped(value: object) -> str:
    """Text that stays as it is in Markdown and in the HTML that is made of it."""
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", safe(value))
