"""A folder in which the examples of the public functions run: photographs, cached features, a run, in this order."""

from __future__ import annotations

import doctest
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import draw

import humeris
from humeris.classify.evaluate import target_registry as targets
from humeris.classify.export.formats import registry as formats
from humeris.classify.heads import registry as heads
from humeris.extract.backbones import registry as backbones
from humeris.extract.images import registry as images

HEADS = ["logreg,C=1", "knn,n_neighbors=3"]
CLASSES = ("blob", "noise", "stripes")
EXAMPLES_WITH_A_MODEL = ("export", "Predictor", "predict", "report", "run", "finetune")  # slow, and in this order


def make_world(folder: Path) -> Path:
    """The folder, with `photos` (three classes of twelve images), `features` (two taps of nano), and the run `runs/a`."""
    for kind, name in enumerate(("stripes", "blob", "noise")):
        for seed in range(12):
            draw(folder / "photos" / name / f"{seed:02}.png", kind, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # so that the run names its images as the examples do
        humeris.extract("photos", "nano", layers="block[45]_out", cache="features", jobs=1)
        humeris.sweep("photos", HEADS, cache="features", out="runs/a", jobs=1)
    return folder


def list_functions() -> dict[str, Any]:
    """The public functions by name; the package `extract` is one as well."""
    public = {name: getattr(humeris, name) for name in humeris.__all__}
    return {name: each for name, each in public.items() if isinstance(each, types.FunctionType | types.ModuleType)}


def list_examples(name: str) -> list[doctest.DocTest]:
    """The examples in the docstrings of a public name, of a class those of its methods as well."""
    public = getattr(humeris, name)
    documented = public.__wrapped__ if isinstance(public, types.ModuleType) else public
    module = __import__(documented.__module__, fromlist=["_"])
    found = doctest.DocTestFinder(exclude_empty=True).find(documented, name, module=module, globs=dict(vars(module)))
    return [each for each in found if each.examples]


def run_examples(name: str) -> None:
    """Run the examples of a public name here; fails with what differs."""
    for example in list_examples(name):
        report: list[str] = []
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        results = doctest.DocTestRunner(optionflags=flags).run(example, out=report.append)
        assert results.failed == 0, "".join(report)


def restore_doors() -> Iterator[None]:
    """Let what is registered meanwhile be forgotten at the end."""
    tables: list[Any] = [formats.FORMATS, heads._FAMILIES, backbones._registered_sources, images._SOURCES, targets._TARGETS]
    copies = [table.copy() for table in tables]
    yield
    for table, copy in zip(tables, copies, strict=True):
        table.clear()
        table.update(copy) if isinstance(table, dict) else table.extend(copy)
