"""What cannot be fine-tuned, as a user types it: one line that says what to do, and nothing is lost by it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from report_runs import copy_run
from tuning import TAPS, SweepRun, make_sweep_run, read_files, tune

from humeris.cache.store import Store
from humeris.classify.finetune import finetune as finetuning
from humeris.classify.finetune.finetune_config import FinetuneConfig
from humeris.classify.runs.run import Run
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.engine import estimate, extract
from humeris.extract.engine.extract import extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images

Humeris = Callable[..., Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SweepRun:
    return make_sweep_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "finish_run", lambda *_, **__: (None, None, ()))


Finetune = Callable[..., Any]


@pytest.fixture
def finetune(made: SweepRun, tmp_path: Path, humeris: Humeris) -> Finetune:
    """`humeris finetune` of a run, the small one unless another is given, into a new folder."""

    def call(*words: object, run: Path | None = None, cache: Path | None = None) -> Any:
        given = words if "--from" in words else ("--from", "block4_out", *words)
        out = () if "-o" in words else ("-o", tmp_path / "new")
        return humeris("finetune", run or made.path, *given, *out, "--cache", cache or made.cache, "-j", 1)

    return call


def refused(result: Any, *words: str) -> None:
    assert result.code == 2, (result.out, result.err)
    assert result.out == ""
    assert len(result.err.splitlines()) == 1, result.err
    assert result.err.startswith("humeris: ")
    for word in words:
        assert word in result.err


@pytest.fixture(autouse=True)
def _nothing_lost(made: SweepRun, tmp_path: Path) -> Any:
    """Whatever is asked, the run that it is asked of is unchanged."""
    before = read_files(made.path)
    yield
    assert read_files(made.path) == before


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("block5_out", "--from block5_out: the layer is not below the run's tap block5_out:avg; use block"),
        ("block_9", "layer 'block_9': matches none of the network's "),
        ("block4_res1_conv", "skip connections bypass the layer; use block4_down_relu or "),
        ("block4_out:avg", "a cut has no pool, because the whole output of the layer is cached; leave out :avg"),
        ("block*_out", "matches 5 layers, not one; use block4_out or block5_down_relu"),
        ("", "layer '': matches none of the network's "),
    ],
)
def test_a_layer_that_will_not_do(finetune: Finetune, tmp_path: Path, layer: str, words: str) -> None:
    refused(finetune("--from", layer), words)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--epochs", "0", "--epochs 0: too few; give at least 1"),
        ("--head-epochs", "-1", "--head-epochs -1: too few; give at least 0"),
        ("--patience", "-1", "--patience -1: too few; give at least 0"),
        ("--batch-size", "0", "--batch-size"),
        ("--optimizer", "lion", "--optimizer 'lion': unknown; use one of sgd, adam, adamw, radam, ranger"),
        ("--schedule", "step", "--schedule 'step': unknown; use one of constant, cosine, one_cycle"),
        ("--precision", "int8", "int8"),
        ("--learning-rate", "0", "--learning-rate 0.0: not above 0; give a positive number"),
        ("--learning-rate", "nan", "--learning-rate nan: not above 0; give a positive number"),
        ("--head-learning-rate", "inf", "--head-learning-rate inf: not above 0; give a positive number"),
        ("--weight-decay", "-1", "--weight-decay -1.0: negative or not finite; give a number of at least 0"),
        ("--weight-decay", "nan", "--weight-decay nan: negative or not finite; give a number of at least 0"),
        ("--label-smoothing", "1", "--label-smoothing 1.0: out of range; give a number from 0 to below 1"),
        ("--mixup", "-0.1", "--mixup -0.1: negative or not finite; give a number of at least 0"),
        ("--cutmix", "nan", "--cutmix nan: negative or not finite; give a number of at least 0"),
        ("--weights", "imagenet", "--weights imagenet: unknown; use random, or leave it out"),
        ("--weights", "random", "--weights random needs --from input"),
        ("--views", "2", "--augment and --views belong together when maps are cached; give both or neither"),
        ("--augment", "flip", "--augment and --views belong together when maps are cached; give both or neither"),
        ("--compress", "zip", "zip"),
        ("--trial", "0000", "no trials have an id that begins with '0000'; give an id listed in leaderboard.csv"),
        ("--backbone", "nano,seed=x", "nano"),
        (
            "--backbone",
            "mobilenet_v2",
            "-b mobilenet_v2: not the network of the run (nano)",
        ),
    ],
)
def test_an_option_out_of_range(finetune: Finetune, tmp_path: Path, option: str, value: str, words: str) -> None:
    refused(finetune(option, value), words)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--views", "2", "--views has no effect with --from input"),
        (
            "--augment",
            "sepia",
            "augmentation 'sepia': unknown operation; use one of flip, vflip, crop, rotate, zoom, translate",
        ),
        ("--augment", "flip=2", "flip"),
        ("--mixup", "5", "--mixup 5: out of range; give alpha from 0 (none) to 1"),
        ("--cutmix", "1.5", "--cutmix 1.5: out of range; give alpha from 0 (none) to 1"),
    ],
)
def test_an_option_that_does_not_go_with_images(
    finetune: Finetune, tmp_path: Path, option: str, value: str, words: str
) -> None:
    refused(finetune("--from", "input", option, value), words)
    assert not (tmp_path / "new").exists()


def test_a_run_that_is_none_or_not_finished(made: SweepRun, finetune: Finetune, tmp_path: Path) -> None:
    refused(finetune(run=tmp_path), "not a run folder (no run.json in it); `humeris sweep` creates one")
    copy_run(made.path, tmp_path / "run", result=None)
    refused(finetune(run=tmp_path / "run"), f"the run was interrupted; resume it with: humeris sweep {made.photos}")


def test_another_folder_is_never_written_into(made: SweepRun, finetune: Finetune, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    words = "not empty, and not a run folder; give another folder with -o"
    refused(finetune("-o", tmp_path / "mine", "-q"), words)
    assert read_files(tmp_path / "mine") == {"notes.txt": b"mine"}
    refused(
        finetune("-o", made.path, "-q"),
        "the folder holds a run of other images, features or options; give another folder with -o",
    )


def test_neighbours_cannot_be_trained_further_and_the_head_that_is_named_instead_can(
    made: SweepRun, finetune: Finetune, tmp_path: Path
) -> None:
    with Store(made.cache, write=True) as store:
        images = load_images(made.photos, store, jobs=1)
        run = sweep(
            images, store, SweepConfig(["knn,n_neighbors=3", "logreg,C=1"], layers=TAPS, out=tmp_path / "near", jobs=1)
        )
        alone = sweep(images, store, SweepConfig(["knn,n_neighbors=3"], layers=TAPS, out=tmp_path / "alone", jobs=1))
    best = run.find_trial()[0]
    assert best.head == "knn"
    done = finetune("--from", "block3_out", "--dry-run", run=run.path)
    words = f"the head of trial {best.id}, knn, cannot be trained by gradient descent"
    refused(done, words, "; give another, such as --trial ")
    named = done.err.split("--trial ")[1].split()[0]
    assert run.find_trial(named)[0].head == "logreg"
    done = finetune("--from", "block3_out", "--dry-run", "--trial", named, run=run.path)
    assert done.code == 0, done.err
    assert "block3_out:map" in done.out
    assert "dry run: nothing was computed" in done.out
    refused(
        finetune("--from", "block3_out", run=alone.path),
        ", knn, cannot be trained by gradient descent",
        "`humeris sweep` with --head logreg",
    )


def test_a_head_on_two_networks(made: SweepRun, finetune: Finetune, tmp_path: Path) -> None:
    shutil.copytree(made.cache, tmp_path / "cache2")
    requests = [BackboneSpec.parse("nano"), BackboneSpec.parse("nano,weights=random")]
    with Store(tmp_path / "cache2", write=True) as store:
        images = load_images(made.photos, store, jobs=1)
        extract_features(images, store, ExtractConfig(requests[1:], layers=["block5_out"], jobs=1))
        config = SweepConfig(
            "ridge", backbones=requests, layers="block5_out", concatenate=True, out=tmp_path / "two", jobs=1
        )
        run = sweep(images, store, config)
    both = next(trial.id for trial in run.load_trials() if len(trial.tap_refs) == 2)
    done = finetune("--trial", both, run=run.path, cache=tmp_path / "cache2")
    refused(
        done,
        f"trial {both} has features of 2 networks, and only one can be fine-tuned; give another trial of",
    )
    for trial in run.load_trials():
        if len(trial.tap_refs) == 1:
            done = finetune("--trial", trial.id, "--dry-run", run=run.path, cache=tmp_path / "cache2")
            assert done.code == 0, done.err


def test_a_run_of_a_file_of_features(finetune: Finetune, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["features"], file["labels"] = rows, ["a", "b"] * 30
    with Store(tmp_path / "other", write=True) as store:
        images = load_images(tmp_path / "rows.h5", store, jobs=1, features=True)
        run = sweep(images, store, SweepConfig(["ridge"], out=tmp_path / "rows", jobs=1))
    refused(
        finetune(run=run.path),
        "the network of the features is unknown, since they come from a file that does not name it",
    )


@pytest.mark.parametrize("change", ["gone", "another label", "another content", "all gone"])
def test_images_that_are_not_as_they_were(made: SweepRun, finetune: Finetune, tmp_path: Path, change: str) -> None:
    shutil.copytree(made.photos, tmp_path / "photos")
    with Store(made.cache, write=True) as store:
        images = load_images(tmp_path / "photos", store, jobs=1)
        run = sweep(images, store, SweepConfig(["ridge"], layers=TAPS, out=tmp_path / "run", jobs=1))
    before = read_files(run.path)
    image = tmp_path / "photos" / "train" / "blob" / "001.png"
    if change == "all gone":
        shutil.rmtree(tmp_path / "photos")
        refused(finetune("--from", "block3_out", run=run.path), "no such file or folder; check the path")
    else:
        if change == "gone":
            image.unlink()
        elif change == "another label":
            image.rename(tmp_path / "photos" / "train" / "noise" / "renamed.png")
        else:
            image.write_bytes(image.read_bytes() + b"\0")
        said = finetune("--from", "block3_out", run=run.path)
        refused(said, f"1 of the 60 images of {run.path} are missing or have another label")
    assert read_files(run.path) == before


def test_images_that_came_later_are_left_out(made: SweepRun, finetune: Finetune, tmp_path: Path, unexported: None) -> None:
    from tuning import draw_picture

    shutil.copytree(made.photos, tmp_path / "photos")
    with Store(made.cache, write=True) as store:
        images = load_images(tmp_path / "photos", store, jobs=1)
        run = sweep(images, store, SweepConfig(["ridge"], layers=TAPS, out=tmp_path / "run", jobs=1))
    draw_picture(tmp_path / "photos" / "train" / "blob" / "later.png", 0, 99)
    done = finetune("--from", "block4_out", "--trial", ridge_at(run, "block5_out"), "--dry-run", "--json", run=run.path)
    assert done.code == 0, done.err
    assert {each["images"] for each in done.json["planned"]} == {60, 42}


def ridge_at(run: Run, layer: str) -> str:
    return next(trial.id for trial in run.load_trials() if [source.layer for source in trial.tap_refs] == [layer])


def test_what_was_pruned_is_said_and_computed_again_the_runs_own_tap_too(
    made: SweepRun, finetune: Finetune, tmp_path: Path, humeris: Humeris, unexported: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = made.copy(tmp_path / "mine")
    expected = tune(mine, tmp_path / "expected").load_probabilities()
    assert humeris("cache", "prune", "--max-size", "0", "--cache", mine.cache).code == 0
    planned = finetune("--dry-run", run=mine.path, cache=mine.cache)
    assert planned.code == 0, planned.err

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "finetune", interrupted)
        done = finetune(run=mine.path, cache=mine.cache)
    assert done.code == 130
    lost, maps, last = done.err.splitlines()
    assert lost.startswith("recomputing missing rows of block5_out:avg: 60 of 60 rows, 36.6 kB uncompressed, ")
    assert maps.startswith("caching block4_out:map: 42 of 42 rows, 152 kB uncompressed, ")
    assert last.startswith("humeris: interrupted; completed work is kept. Resume with: ")
    assert planned.out.splitlines()[-1] == "dry run: nothing was computed"
    assert [line.split(",")[0] for line in planned.out.splitlines()[:-1]] == [lost.split(",")[0], maps.split(",")[0]]

    run = tune(mine, tmp_path / "new")
    # Rows that are computed in other batches may round otherwise to float16: 1e-4 after training, without AVX-512.
    np.testing.assert_allclose(run.load_probabilities(), expected, atol=1e-3)
    assert {each["taps"][0]: each["computed"] for each in run.result.finetune.cached} == {
        "block5_out:avg": 60,
        "block4_out:map": 42,
    }


def test_too_little_disk_for_the_maps(
    made: SweepRun, finetune: Finetune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = made.copy(tmp_path / "mine")
    shards = read_files(mine.cache)
    for module in (extract, estimate):
        monkeypatch.setattr(module, "get_free_bytes", lambda _: 1000)
    done = finetune("--from", "block3_out", "--json", run=mine.path, cache=mine.cache)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "bytes needed, 1,000 free); give fewer or smaller taps" in done.json["error"]
    assert {name for name in read_files(mine.cache) if name.endswith(".h5")} == {
        name for name in shards if name.endswith(".h5")
    }
    done = finetune("--from", "block3_out", "--dry-run", run=mine.path, cache=mine.cache)
    assert done.code == 2
    assert "not enough disk space; --compress gzip may help" in done.out
    done = finetune("--from", "block3_out", "--dry-run", "--compress", "gzip", run=mine.path, cache=mine.cache)
    assert done.code == 0


def test_a_refill_that_was_interrupted_goes_on(made: SweepRun, tmp_path: Path, unexported: None) -> None:
    mine = made.copy(tmp_path / "mine")
    whole = tune(made, tmp_path / "whole", "block3_out")

    def stage(name: str) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            if name != "fine-tuning" and done > 40:
                raise KeyboardInterrupt

        return progress

    recipe = FinetuneConfig(
        "block3_out", epochs=1, head_epochs=0, batch_size=8, learning_rate=1e-3, schedule="constant", out=tmp_path / "new"
    )
    with Store(mine.cache, write=True) as store, pytest.raises(KeyboardInterrupt):
        finetuning.finetune(mine.prepare(store, recipe), store, stage=stage)
    with Store(mine.cache, write=True) as store:
        own, maps = mine.prepare(store, recipe).plan_extraction(store)
        assert own.to_compute == 0
        assert maps.to_compute == 42 - 32
        done = finetuning.finetune(mine.prepare(store, recipe), store)
    assert [each["computed"] for each in done.run.result.finetune.cached] == [maps.to_compute]
    np.testing.assert_allclose(done.run.load_probabilities(), whole.load_probabilities(), atol=1e-5)
