"""The Python face: strings or objects, one answer, that of the command line; examples that run; errors in one line."""

from __future__ import annotations

import inspect
import json
import pydoc
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_world import (
    CLASSES,
    EXAMPLES_WITH_A_MODEL,
    HEADS,
    list_examples,
    list_functions,
    make_world,
    restore_doors,
    run_examples,
)
from sklearn.linear_model import LogisticRegression

import humeris
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.classify.api.command_line import format_command
from humeris.classify.data.splits import split
from humeris.classify.runs.run import Run
from humeris.extract import api
from humeris.extract.api import open_store
from humeris.extract.config import build_config

VERBS: dict[str, tuple[Any, ...]] = {
    "extract": ("photos",),
    "finetune": ("runs/a", "block4_out"),
    "load_features": ("photos",),
    "rank": ("photos",),
    "report": ("runs/a",),
    "run": ("photos",),
    "sweep": ("photos",),
}


@pytest.fixture(scope="session")
def session_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("api"))


@pytest.fixture
def world(session_world: Path, tmp_path: Path) -> Path:
    """A copy to work in, which is the working directory."""
    shutil.copytree(session_world, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(name="command")
def _command(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The command line, as the fixture `humeris` runs it: that name is the package's here."""
    runner: Callable[..., Any] = request.getfixturevalue("humeris")
    return runner


@pytest.fixture
def doors() -> Iterator[None]:
    yield from restore_doors()


def test_every_public_function_has_examples_and_none_is_skipped() -> None:
    functions = list_functions()
    assert set(VERBS) | {"export", "load_images", "predict", "register_format"} <= set(functions)
    for name in functions:
        examples = [example for test in list_examples(name) for example in test.examples]
        assert examples, name
        assert not [example for example in examples if "SKIP" in example.source], name


@pytest.mark.usefixtures("world", "doors")
@pytest.mark.parametrize("name", [name for name in humeris.__all__[1:] if name not in EXAMPLES_WITH_A_MODEL])
def test_the_examples_of_public_names_run(name: str) -> None:
    run_examples(name)


def test_a_wrong_example_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "open_images", lambda *_, **__: [])
    with pytest.raises(AssertionError, match="Failed example"):
        run_examples("load_images")


ORDERS = [
    "import humeris, sys; assert humeris.extract is sys.modules['humeris.extract']",
    "import humeris.extract",
    "import humeris.extract.images.load",
    "import humeris.classify.api.runs",
    "from humeris import extract; assert extract is __import__('humeris').extract",
    "from humeris.extract.api import extract",
    "import importlib, humeris.extract; importlib.reload(humeris.extract)",
]


@pytest.mark.parametrize("first", ORDERS)
def test_extract_is_a_function_and_a_package_whatever_is_imported_first(first: str) -> None:
    code = (
        f"{first}\n"
        "import inspect, sys, humeris\n"
        "from humeris.extract.images.load import load_source\n"
        "assert humeris.extract is humeris.extract is sys.modules['humeris.extract']\n"
        "assert humeris.extract.images.load.load_source is load_source\n"
        "assert list(inspect.signature(humeris.extract).parameters)[:2] == ['data', 'backbones']\n"
        "from humeris import extract\n"
        "try:\n"
        "    extract('nothing', layrs='x')\n"
        "except humeris.ConfigError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "layers" in done.stdout


def test_the_package_extract_is_described_as_the_function() -> None:
    from humeris.extract.api import extract

    assert humeris.extract.__doc__ == extract.__doc__
    assert inspect.signature(humeris.extract) == inspect.signature(extract)
    assert "mobilenet_v2" in pydoc.render_doc(humeris.extract)


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("verb", VERBS)
def test_a_misspelled_setting_names_the_closest(verb: str) -> None:
    settings = {"finetune": {"epoch": 3}, "report": {"latencies": True}}.get(verb, {"layer": "block4_out"})
    closest = {"finetune": "epochs", "report": "latency"}.get(verb, "layers")
    before = sorted(Path.cwd().rglob("*"))
    with pytest.raises(humeris.ConfigError, match=f"{verb}.*{next(iter(settings))}.*{closest}") as caught:
        getattr(humeris, verb)(*VERBS[verb], **settings)
    assert "\n" not in str(caught.value)
    assert sorted(Path.cwd().rglob("*")) == before


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("verb", "settings", "error", "message"),
    [
        ("extract", {"batch_size": 0}, humeris.ConfigError, "--batch-size 0"),
        ("extract", {"backbones": "nanoo"}, humeris.BackboneError, "nanoo"),
        ("extract", {"heads": "knn"}, humeris.ConfigError, "heads"),
        ("sweep", {"heads": "forest"}, humeris.HeadError, "forest"),
        ("sweep", {"batch_size": 2}, humeris.ConfigError, "batch_size"),
        ("sweep", {"layers": "block9", "cache": "features"}, humeris.LayerError, "block9"),
        ("sweep", {"weights": "random", "cache": "features"}, humeris.ConfigError, "weights: no backbone is given"),
        ("rank", {"image_size": 64, "cache": "features"}, humeris.ConfigError, "image_size: no backbone is given"),
        ("load_features", {"precision": "float16"}, humeris.ConfigError, "precision: no backbone is given"),
        ("rank", {"heads": "knn"}, humeris.ConfigError, "heads"),
        ("rank", {"run": "nothing", "cache": "features"}, humeris.RunError, "nothing"),
        ("load_features", {"cache": "features"}, humeris.LayerError, "2 cached taps match"),
        ("load_features", {"cache": "empty"}, humeris.DataError, "empty"),
        ("load_features", {"tap": "block9", "cache": "features"}, humeris.LayerError, "block9"),
        ("finetune", {"devices": ["cpu", "gpu:0"]}, humeris.DeviceError, "cpu, gpu:0"),
        ("finetune", {"cache": "features", "trial": "zzz"}, humeris.RunError, "zzz"),
    ],
)
def test_what_cannot_be_is_one_line(verb: str, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        getattr(humeris, verb)(*VERBS[verb], **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("world")
def test_a_setting_that_would_change_nothing_is_refused() -> None:
    config = humeris.ExtractConfig("nano")
    with pytest.raises(humeris.ConfigError, match="weights: the backbones of the ExtractConfig are parsed"):
        humeris.extract("photos", config, weights="random")
    images = humeris.load_images("photos", "features")
    with pytest.raises(humeris.ConfigError, match="limit 3: the images are already loaded; give limit to load_images"):
        humeris.extract(images, config, cache="features", limit=3)


def test_a_config_is_made_of_one_object_and_settings() -> None:
    config = humeris.SweepConfig("knn", seed=3, layers="a")
    assert build_config(humeris.SweepConfig, config, "heads", {"seed": 4, "batch_size": 3}) == replace(config, seed=4)
    assert build_config(humeris.SweepConfig, "ridge", "heads", {"seed": 4}) == humeris.SweepConfig("ridge", seed=4)
    assert build_config(humeris.SweepConfig, None, "heads", {}) == humeris.SweepConfig()


def test_a_store_is_closed_by_who_opened_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(Store, "flush", lambda store: closed.append(store))
    given = Store(tmp_path / "given")
    with open_store(given, write=True) as store:
        assert store is given
    assert closed == []
    with open_store(tmp_path / "named", write=True) as store:
        assert (store.path, repr(store)) == (tmp_path / "named", f"Store({str(tmp_path / 'named')!r}, write=True)")
    assert closed == [store]
    with open_store(None, write=False) as store:
        assert store.path == tmp_path / "cache"  # HUMERIS_CACHE


def list_cached_rows(cache: Path | str) -> dict[str, int]:
    with Store(cache) as store:
        return {
            f"{extraction.name}/{features.layer}:{features.pool}": len(features)
            for extraction in store.iter_extractions()
            for features in extraction.list_taps()
        }


def test_strings_paths_and_objects_extract_the_same_as_the_command(world: Path, command: Callable[..., Any]) -> None:
    spec = humeris.BackboneSpec.parse("nano")
    with Store(world / "by_objects", write=True) as store:
        images = humeris.load_images(world / "photos", store)
        (by_objects,) = humeris.extract(images, humeris.ExtractConfig(spec, layers=["block4_out"]), cache=store, jobs=1)
    (by_strings,) = humeris.extract("photos", "nano", layers="block4_out", cache="by_strings", jobs=1)
    assert by_objects.rows == by_strings.rows == {"block4_out:avg": 36}
    assert by_objects.metadata.spec == by_strings.metadata.spec
    assert repr(by_objects).startswith("<ExtractResult of nano: block4_out:avg of 36 images, 36 computed in ")
    again = command("extract", "photos", "-b", "nano", "-l", "block4_out", "--cache", "by_strings", "--json", "-j", 1)
    assert again.json["extracted"][0]["computed"] == 0
    assert again.json["extracted"][0]["extraction"] == by_strings.metadata.spec.folder_name
    assert again.json["data"] == by_strings.images.summarize()


def make_sweeps(store: Store) -> dict[str, Callable[[Path], Run]]:
    """The sweep of the world's run, asked for in as many ways."""
    config = humeris.SweepConfig(HEADS, jobs=1)
    return {
        "strings": lambda out: humeris.sweep("photos", HEADS, cache="features", out=str(out), jobs=1),
        "a config": lambda out: humeris.sweep("photos", replace(config, cache="features", out=out)),
        "a config and settings": lambda out: humeris.sweep(
            Path("photos"), humeris.SweepConfig("ridge"), grid=write_grid(), cache=Path("features"), out=out
        ),
        "objects": lambda out: humeris.sweep(humeris.load_images("photos", store), config, cache=store, out=out),
        "taps extracted before": lambda out: humeris.sweep(
            "photos", HEADS, extract=True, backbones="nano", layers="block[45]_out", cache="features", out=out
        ),
        "a config of the extraction": lambda out: humeris.sweep(
            "photos", HEADS, extract=humeris.ExtractConfig("nano", layers="block[45]_out"), cache="features", out=out
        ),
    }


def write_grid() -> Path:
    """A file of the heads that differs from the config's; both are tried."""
    path = Path("grid.toml")
    path.write_text('[[head]]\nname = "knn"\nn_neighbors = 3\n')
    return path


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("way", make_sweeps(Store("none")))
def test_sweeps_are_the_same_however_they_are_asked_for(way: str) -> None:
    with Store("features", write=True) as store:
        run = make_sweeps(store)[way](Path("runs/b"))
    first = Run.load("runs/a")
    assert run.path == Path("runs/b")
    if way == "a config and settings":
        assert [each.head for each in run.metadata.heads] == ["ridge", "knn"]
    else:
        assert run.metadata.config_hash == first.metadata.config_hash
        assert dict(run.load_trials()).keys() == dict(first.load_trials()).keys()
        assert run.result.best.id == first.result.best.id
        assert run.result.test == first.result.test


@pytest.mark.usefixtures("world")
def test_a_sweep_is_that_of_the_command(command: Callable[..., Any]) -> None:
    arguments = ["--head", HEADS[0], "--head", HEADS[1], "--cache", "features", "-o", "runs/b", "-j", 1]
    assert command("sweep", "photos", *arguments, "-q").code == 0
    ours, theirs = Run.load("runs/a"), Run.load("runs/b")
    assert ours.metadata.config_hash == theirs.metadata.config_hash
    assert ours.metadata.data == replace(theirs.metadata.data, origin=ours.metadata.data.origin)  # a copy of the folder
    assert ours.result.test == theirs.result.test
    for name in ("images.csv", "predictions.csv", "probabilities.npy"):
        assert (ours.path / name).read_bytes() == (theirs.path / name).read_bytes()
    assert command("sweep", "photos", *arguments[:-3], "runs/a", "-q").code == 0  # complete, and returned as it is


SWEEPS: list[dict[str, Any]] = [
    {"heads": HEADS, "jobs": 1},
    {"heads": humeris.SweepConfig("ridge", concatenate=True), "seed": 2, "select": "cv", "limit": 8},
    {"heads": "centroid", "layers": ["block4_out", "nano/block4_out:avg+block5_out"], "backbones": "nano"},
    {"heads": "knn", "extract": True, "backbones": "nano,weights=random,seed=5", "layers": "stem_out", "pools": "max"},
    {"heads": "knn", "extract": humeris.ExtractConfig("nano", layers="stem_out", precision="bfloat16", batch_size=8)},
]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("settings", SWEEPS, ids=["heads", "config", "taps", "extract", "extract config"])
def test_a_run_records_the_command_that_does_the_same(settings: dict[str, Any], command: Callable[..., Any]) -> None:
    run = humeris.sweep(Path("photos"), cache="features", **settings)
    recorded, folders = run.metadata.command, sorted(Path("runs").iterdir())
    assert recorded.startswith("humeris sweep photos --")
    assert recorded.endswith("--cache features")
    assert command(*shlex.split(recorded)[1:], "-q").code == 0
    assert sorted(Path("runs").iterdir()) == folders


@pytest.mark.usefixtures("world")
def test_configs_that_contradict_each_other_have_no_command() -> None:
    features, heads = humeris.ExtractConfig("nano", layers="block4_out"), humeris.SweepConfig("knn", layers="block*_out")
    with Store("features") as store:
        assert format_command("sweep", "photos", store, heads, features) == ""
        finetuning = humeris.FinetuneConfig("block4_out", refit=False, epochs=3, learning_rate=1e-5)
        recorded = format_command("finetune", Path("runs/a"), store, finetuning, None, words=("--from", "block4_out"))
    expected = "finetune runs/a --from block4_out --epochs 3 --learning-rate 1e-05 --no-refit --cache features"
    assert recorded == f"humeris {expected}"
    assert format_command("run", "my photos", Store(), humeris.ReportConfig(page="a.html")) == "humeris run 'my photos'"


def drop_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: drop_seconds(each) for key, each in value.items() if key != "seconds"}
    return [drop_seconds(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.usefixtures("world")
def test_a_ranking_is_that_of_the_command(command: Callable[..., Any]) -> None:
    printed = command("rank", "photos", "-b", "nano", "-l", "block*_out", "--cache", "features", "--json", "-j", 1).json
    ranking = humeris.rank("photos", "nano", layers="block*_out", cache="features", jobs=1)
    expected = drop_seconds(json.loads(json.dumps(ranking.to_dict())))
    assert {name: each for name, each in drop_seconds(printed).items() if name in expected} == expected
    assert ranking.run is not None
    assert repr(ranking).splitlines()[0] == "<Ranking of 2 taps on 36 images, best first>"
    sweep_config = humeris.SweepConfig("knn", layers="block4_out", cache="features")
    assert [str(row.tap_refs[0]) for row in humeris.rank("photos", sweep_config).rows] == ["nano/block4_out:avg"]


@pytest.mark.usefixtures("world")
def test_features_are_the_cached_rows_with_the_splits_of_a_sweep() -> None:
    features = humeris.load_features("photos", "block5_out:avg", backbone="nano", cache="features")
    images = humeris.load_images("photos", "features")
    with Store("features") as store:
        (extraction,) = store.iter_extractions()
        rows = extraction.get_features("block5_out", "avg").read(images.keys)
    assert features.X.dtype == np.float32
    assert np.array_equal(features.X, rows)
    assert features.class_names == CLASSES
    assert [features.class_names[label] for label in features.y] == images.labels
    assert features.paths == tuple(str(Path("photos", image.name)) for image in images.used)
    assert all(Path(path).is_file() for path in features.paths)
    splits = split(images)
    assert np.nonzero(features.splits == "test")[0].tolist() == splits.test.tolist()
    run_splits = {record.name: record.split for record in Run.load("runs/a").load_image_records()}
    assert dict(zip([image.name for image in images.used], features.splits.tolist(), strict=True)) == run_splits
    assert repr(features) == "<Features of nano/block5_out:avg: 36 x 144, 3 classes, train 30, test 6>"


@pytest.mark.usefixtures("world")
def test_features_go_to_scikit_learn_at_once() -> None:
    features = humeris.load_features("photos", "block4_out+block5_out", cache="features")
    X, y = features  # noqa: N806  # as scikit-learn calls it
    assert (X is features.X, y is features.y, len(features)) == (True, True, 36)
    train, test = features.select("train"), features.select("test")
    assert LogisticRegression(max_iter=1000).fit(*train).score(*test) == 1.0
    assert len(features.select("train", "test")) == 36
    assert len(features.select("val")) == 0
    assert test.paths == tuple(path for path, name in zip(features.paths, features.splits, strict=True) if name == "test")
    for names in (["valid"], []):
        with pytest.raises(ValueError, match="train, val, test"):
            features.select(*names)


@pytest.mark.usefixtures("world")
def test_features_need_no_labels() -> None:
    flat = Path("flat")
    flat.mkdir()
    for path in sorted(Path("photos").rglob("*.png"))[:3]:
        shutil.copy(path, flat / f"{path.parent.name}-{path.name}")
    features = humeris.load_features(flat, "block5_out", cache="features")
    assert (features.X.shape, features.y.tolist(), features.class_names) == ((3, 144), [-1, -1, -1], ())
    assert set(features.splits.tolist()) == {""}
    assert repr(features) == "<Features of nano/block5_out:avg: 3 x 144, no labels>"


@pytest.mark.usefixtures("world")
def test_images_say_what_they_are() -> None:
    images = humeris.load_images("photos", "features", limit=5)
    assert len(images) == 15
    assert repr(images) == "<Images of photos: 15 used, 3 classes: blob 5, noise 5, stripes 5, 0 duplicates, 0 rejected>"
    assert repr(replace(images, used=())).startswith("<Images of photos: 0 used")


@pytest.mark.usefixtures("world")
def test_a_run_says_what_it_is() -> None:
    run = humeris.Run("runs/a")
    assert repr(run) == f"<Run runs/a: {run.result.best.trial}, test accuracy {run.result.test.accuracy:.4f}>"
    assert repr(humeris.Run("nothing")) == "<Run nothing: nothing there>"
    description = json.loads(Path("runs/a/run.json").read_text())
    Path("runs/a/run.json").write_text(json.dumps({name: each for name, each in description.items() if name != "result"}))
    assert repr(humeris.Run("runs/a")) == "<Run runs/a: unfinished>"
    Path("runs/a/run.json").write_text("{")
    assert repr(humeris.Run("runs/a")) == "<Run runs/a: cannot be read>"


@pytest.mark.usefixtures("world")
def test_every_verb_tells_how_far_it_is() -> None:
    stages: dict[str, list[tuple[int, int]]] = {}

    def progress(name: str) -> Callable[[int, int], None]:
        return lambda done, total: stages.setdefault(name, []).append((done, total))

    humeris.extract("photos", "nano", layers="stem_out", cache="new", jobs=1, progress=progress)
    humeris.sweep("photos", "knn", cache="features", out="runs/b", progress=progress)
    humeris.rank("photos", cache="features", progress=progress)
    assert {name: each[-1] for name, each in stages.items()} == {
        "reading": (36, 36), "nano": (36, 36), "heads": (12, 12), "taps": (2, 2),
    }  # fmt: skip


def test_errors_are_public_and_one_tree() -> None:
    from humeris.cache import errors

    ours = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.HumerisError)}
    assert {getattr(humeris, each.__name__) for each in ours} == ours
    assert ExtractionSpec.__name__ not in humeris.__all__
