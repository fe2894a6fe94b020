"""Images that the tests draw, a cache of their own, and the command line in this process."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer import testing
from warm_python import WarmPython

ASSETS = os.environ.get("HUMERIS_ASSETS", "")
testing._get_command = functools.cache(testing._get_command)  # the command line is put together once, and not each time
signal.signal(signal.SIGINT, signal.default_int_handler)  # behind nohup it is ignored, and in every child as well
# What trains networks, exports models, kills processes or fills disks: folders and files that `make check` leaves out.
SLOW = (
    "cache/test_damaged_shards",
    "classify/data/test_views",
    "classify/export/",
    "classify/finetune/test_finetune",
    "classify/finetune/test_image_batches",
    "classify/finetune/test_trainable_tail",
    "classify/heads/families/test_metric_learning",
    "classify/heads/families/test_mlp",
    "classify/heads/linear/test_joint_solver",
    "classify/heads/neural/test_parallel_mlp",
    "classify/report/test_page",
    "classify/report/test_report_browser",
    "classify/sweep/test_sweep_views",
    "classify/test_demo",
    "classify/test_pipeline",
    "classify/tracking/",
    "end_to_end/",
    "extract/backbones/test_networks",
    "extract/backbones/test_precision",
    "extract/engine/test_extract",
    "extract/engine/test_multi_device",
    "extract/pixels/test_mutated_images",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow. Skip what needs the photographs, and say so, where they are not."""
    folder = Path(__file__).parent
    for item in items:
        if item.path.relative_to(folder).as_posix().startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    if not ASSETS:
        for item in items:
            if item.get_closest_marker("assets"):
                item.add_marker(pytest.mark.skip(reason="HUMERIS_ASSETS does not point to the photographs and weights"))


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache, weights or working directory."""
    for name in list(os.environ):
        if name.startswith("HUMERIS_") and name != "HUMERIS_ASSETS":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HUMERIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def warm_python() -> Iterator[WarmPython]:
    """Python processes with Keras, where nothing is claimed of an interpreter's beginning."""
    with WarmPython() as server:
        yield server


@pytest.fixture(autouse=True)
def _warm_parity(request: pytest.FixtureRequest, warm_python: WarmPython, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let exported models be checked in a warm process, but where the check itself is tested."""
    from humeris.classify.export import parity

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        with_keras = "import keras" in command[2] or "import tensorflow" in command[2]
        return (warm_python if with_keras else subprocess).run(command, **options)

    if request.path.stem not in {"test_parity", "test_format"}:
        monkeypatch.setattr(parity, "subprocess", SimpleNamespace(run=run))


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of files are written, and each write waits for the disk."""
    place = Path("/dev/shm")
    if not os.access(place, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def assets() -> Path:
    return Path(ASSETS)


def draw(path: Path, kind: int, seed: int, size: tuple[int, int] = (48, 40)) -> Path:
    """A small image of one of three kinds that a classifier can tell apart: stripes, a blob, noise; `seed` varies it."""
    random = np.random.default_rng([kind, seed])
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    if kind % 3 == 0:
        gray = 127 + 100 * np.sin(x / random.uniform(1.5, 2.5) + random.uniform(0, 6))
    elif kind % 3 == 1:
        center = random.uniform(0.3, 0.7, 2) * (width, height)
        gray = 230 * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / random.uniform(60, 160))
    else:
        gray = random.uniform(0, 255, (height, width))
    color = random.uniform(0.6, 1.0, 3)
    pixels = np.clip(gray[..., None] * color + random.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="session")
def draw_image() -> Callable[..., Path]:
    return draw


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three classes with twelve images each."""
    folder = tmp_path / "photos"
    for kind, name in enumerate(("stripes", "blob", "noise")):
        for seed in range(12):
            draw(folder / name / f"{seed:02}.png", kind, seed)
    return folder


@pytest.fixture
def bad_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let decoder processes run `code` for images whose file is called bad.png, by a sitecustomize of their own."""

    def install(code: str) -> None:
        folder = tmp_path / "site"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(
            "import sys\n"
            "if 'humeris.extract.pixels.decode_worker' in sys.orig_argv:\n"
            "    import ctypes, os, signal, time\n"
            "    from humeris.extract.pixels import read_file as source\n"
            "    read = source.read_bytes\n"
            "    def bad(path):\n"
            "        if path.name == 'bad.png':\n"
            f"            {code}\n"
            "        return read(path)\n"
            "    source.read_bytes = bad\n"
        )
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))

    return install


class Result:
    """What a command did: exit code, standard output and standard error."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def humeris() -> Callable[..., Result]:
    """Run a command in this process: `humeris("extract", folder, "-b", "nano")`."""
    from humeris.cli import app

    def invoke(*arguments: object) -> Result:
        result = testing.CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        return Result(result.exit_code, result.stdout, result.stderr)

    return invoke


class FinishedRun:
    """A run that is done: split folders of three classes on nano, swept and exported. Read it, do not change it."""

    def __init__(self, folder: Path) -> None:
        from humeris.cache.store import Store
        from humeris.classify import pipeline
        from humeris.classify.sweep.sweep_config import SweepConfig
        from humeris.extract.engine.extract_config import ExtractConfig
        from humeris.extract.images.load import load_images

        self.photos, self.cache, self.path = folder / "photos", folder / "cache", folder / "run"
        for kind, name in enumerate(("stripes", "blob", "noise")):
            for seed in range(14):
                draw(self.photos / ("train" if seed < 8 else "test") / name / f"{seed:02}.png", kind, seed)
        with Store(self.cache, write=True) as store:
            self.outcome = pipeline.run(
                load_images(self.photos, store, jobs=1),
                store,
                ExtractConfig("nano", layers=["block4_out", "block5_out"], jobs=1),
                SweepConfig("logreg,C=0.1/1", out=self.path, jobs=1),
                command=f"humeris run {self.photos}",
            )
        self.run, self.model = self.outcome.run, self.outcome.export_result.path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return FinishedRun(tmp_path_factory.mktemp("finished"))
