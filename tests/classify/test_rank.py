"""Ranking taps without training: on the development images alone, against the trained ranking where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from humeris.cache.errors import DataError, LayerError, RunError
from humeris.cache.store import Store
from humeris.classify import rank as ranking
from humeris.classify.data.feature_matrix import FeatureMatrix
from humeris.classify.data.select_features import FeatureQuery
from humeris.classify.data.splits import split
from humeris.classify.diagnose.transferability import Moments, h_score, log_me
from humeris.classify.evaluate.trial import Score, Trial, TrialScores
from humeris.classify.rank import MEASURES, Ranking, TapScores, rank
from humeris.classify.runs.run import Run
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.commands.render import classify
from humeris.extract.backbones.tap_ref import TapRef
from humeris.extract.images.images import Images
from humeris.extract.images.load import load_images


def cached(finished: Any) -> tuple[Images, Store]:
    store = Store(finished.cache)
    return load_images(finished.photos, store, jobs=1), store


def test_scores_are_of_the_development_images_on_the_folds_of_the_sweep(finished: Any) -> None:
    images, store = cached(finished)
    found = rank(images, store, FeatureQuery(patterns=["block5_out"]))
    images = images.sort_by_digest()
    splits = split(images)
    (extraction,) = (each for each in store.iter_extractions() if each.spec.views == "plain")
    features = extraction.get_features("block5_out", "avg").read(images.keys)
    learnt, labels = splits.development, splits.labels
    near, centre = [], []
    for fit, score in splits.iter_folds(0):
        for peer, held in ((KNeighborsClassifier(5, metric="cosine"), near), (NearestCentroid(), centre)):
            held.append(peer.fit(features[fit], labels[fit]).score(features[score], labels[score]))
    moments = Moments.from_features(FeatureMatrix.from_array(features[learnt]), labels[learnt])
    (row,) = found.rows
    assert (row.knn, row.centroid) == (pytest.approx(np.mean(near)), pytest.approx(np.mean(centre)))
    assert (row.log_me, row.h_score) == (pytest.approx(log_me(moments)), pytest.approx(h_score(moments)))
    assert (row.columns, str(row.tap_refs[0])) == (features.shape[1], "nano/block5_out:avg")
    assert row.seconds > 0


def test_nothing_of_the_test_split_is_looked_at_but_its_place(finished: Any) -> None:
    images, store = cached(finished)
    before = rank(images, store)
    used = [
        replace(image, item=replace(image.item, label=("blob" if image.item.label == "noise" else "noise")))
        if image.item.split == "test"
        else image
        for image in images.used
    ]
    after = rank(replace(images, used=tuple(used)), store)
    fewer = rank(
        replace(images, used=tuple(image for image in images.used if image.item.split == "train" or "0" in image.name)),
        store,
    )
    for other in (after, fewer):
        for here, there in zip(before.rows, other.rows, strict=True):
            assert replace(here, seconds=0, trained=None) == replace(there, seconds=0, trained=None)


def test_a_run_of_the_same_images_gives_the_trained_ranking(finished: Any) -> None:
    images, store = cached(finished)
    found = rank(images, store, run=finished.path)
    scores = finished.run.load_trials()
    for row in found.rows:
        held = {trial: score for trial, score in scores.items() if trial.tap_refs == row.tap_refs}
        best = min(held.values(), key=lambda score: score.log_loss)
        assert row.trained == best.accuracy
    assert found.to_dict()["run"] == str(finished.path)
    assert {measure: each["taps"] for measure, each in found.compute_agreement().items()} == dict.fromkeys(MEASURES, 2)


def scored(number: int, **scores: float | None) -> TapScores:
    values: dict[str, Any] = {"log_me": 0.0, "h_score": 0.0, "knn": 0.0, "centroid": 0.0, **scores}
    return TapScores((TapRef("nano", "nano-1", f"block{number}_out", "avg"),), None, 8, seconds=0.1, **values)


def ranking_of(finished: Any, rows: list[TapScores]) -> Ranking:
    images, _ = cached(finished)
    return Ranking(images, split(images), tuple(rows), {}, finished.run)


def test_agreement_is_kendalls_tau_of_the_taps_that_were_trained(finished: Any) -> None:
    random = np.random.default_rng(0)
    values, trained = random.normal(size=7), random.integers(0, 5, 7) / 5
    rows = [
        scored(i, log_me=v, knn=-t, trained=t)
        for i, (v, t) in enumerate(zip(values.tolist(), trained.tolist(), strict=True))
    ]
    found = ranking_of(finished, [*rows, scored(8, log_me=99.0)]).compute_agreement()
    expected = kendalltau(values, trained)
    assert found["log_me"] == {
        "tau": pytest.approx(expected.statistic),
        "p_value": pytest.approx(expected.pvalue),
        "taps": 7,
    }
    assert found["knn"]["tau"] == pytest.approx(-1)
    assert found["centroid"] == {"tau": None, "p_value": None, "taps": 7}  # all alike


def test_places_count_from_one_and_equal_scores_share_the_better_one(finished: Any) -> None:
    rows = [scored(number, knn=value) for number, value in enumerate((0.5, 0.9, 0.9 + 1e-16 * 3, 0.7))]
    assert ranking_of(finished, rows).compute_ranks("knn") == [4, 1, 1, 3]


def write(path: Path, sets: dict[str, np.ndarray], labels: np.ndarray) -> Path:
    """A file of features with a test split, as anyone may have one."""
    with h5py.File(path, "w") as file:
        for name, values in sets.items():
            file[name] = values
        file["labels"] = labels
        file["split"] = np.array([b"test" if number % 5 == 0 else b"train" for number in range(len(labels))])
    return path


@pytest.mark.parametrize("best", ["block4_out", "block5_out"])
def test_the_taps_come_in_the_order_of_their_mean_place(finished: Any, best: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, store = cached(finished)
    columns = {row.tap_refs[0].layer: row.columns for row in rank(images, store).rows}

    def score(features: FeatureMatrix, *_: Any) -> dict[str, float]:
        good = float(features.shape[1] == columns[best])
        return {"log_me": 1 - good, "h_score": good, "knn": good, "centroid": 0.5}

    monkeypatch.setattr(ranking, "_score_taps", score)
    found = rank(images, store)
    assert found.rows[0].tap_refs[0].layer == best
    assert [found.compute_ranks(measure) for measure in MEASURES] == [[2, 1], [1, 2], [1, 2], [1, 1]]


def test_the_trained_accuracy_is_that_of_the_best_head(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images, store = cached(finished)
    taps = rank(images, store).rows[0].tap_refs
    heads = {"knn": 0.25, "logreg": 0.75, "ridge": 0.5}
    scores = {Trial(taps, head, {}): Score(accuracy, 1.0, (accuracy,)) for head, accuracy in heads.items()}
    monkeypatch.setattr(Run, "load_trials", lambda _: TrialScores(scores))
    assert [row.trained for row in rank(images, store, run=finished.path).rows] == [0.75, None]


def test_two_taps_agree_or_disagree_by_chance(finished: Any) -> None:
    rows = [scored(number, log_me=number, trained=number) for number in range(3)]
    assert ranking_of(finished, rows[:2]).compute_agreement()["log_me"] == {"tau": None, "p_value": None, "taps": 2}
    assert ranking_of(finished, rows).compute_agreement()["log_me"]["tau"] == pytest.approx(1)


def test_a_run_that_chose_otherwise_is_another_run(finished: Any) -> None:
    images, store = cached(finished)
    used = [replace(image, item=replace(image.item, split="val")) if "7" in image.name else image for image in images.used]
    images = replace(images, used=tuple(used))
    sweep(images, store, SweepConfig(["logreg,C=1"], layers=["block5_out"], select="cv", jobs=1))
    assert rank(images, store, FeatureQuery(patterns=["block5_out"]), select="cv").run is not None
    assert rank(images, store, FeatureQuery(patterns=["block5_out"])).run is None


def test_a_file_of_features_is_ranked_and_wide_rows_are_too(tmp_path: Path, humeris: Callable[..., Any]) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(80) % 4
    wide = (random.normal(size=(4, 3000))[labels] + 3 * random.normal(size=(80, 3000))).astype(np.float32)
    data = write(tmp_path / "wide.h5", {"features": wide}, labels)
    result = humeris("rank", data, "--json")
    assert result.code == 0
    (row,) = result.json["ranking"]
    assert row["columns"] == 3000
    assert row["knn"] > 0.9
    assert row["centroid"] > 0.9
    assert 0 < row["h_score"] < 3
    assert np.isfinite(row["log_me"])
    assert result.json["splits"]["test"] == 16


def test_the_latest_run_of_the_same_images_is_found(finished: Any, tmp_path: Path) -> None:
    images, store = cached(finished)
    assert rank(images, store).run is None
    shutil.copytree(finished.path, tmp_path / "runs" / "one")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.json").write_text("{")
    found = rank(images, store)
    assert found.run is not None
    assert found.run.path == Path("runs/one")
    assert all(row.trained is not None for row in found.rows)
    assert rank(images.reject({images.used[0].name: images_refusal(images)}), store).run is None


def images_refusal(images: Images) -> Any:
    from humeris.extract.images.item import Rejection

    return Rejection(images.used[0].name, "left_out", "")


def test_a_run_that_lacks_a_tap_is_taken_only_when_it_is_named(finished: Any, tmp_path: Path) -> None:
    images, store = cached(finished)
    sweep(images, store, SweepConfig(["logreg,C=1"], layers=["block5_out"], jobs=1))
    (part,) = (tmp_path / "runs").iterdir()
    assert rank(images, store).run is None
    assert rank(images, store, FeatureQuery(patterns=["block5_out"])).run is not None
    named = rank(images, store, run=part)
    assert sorted(row.trained is None for row in named.rows) == [False, True]
    with pytest.raises(RunError, match=r"none of the ranked taps is in the run \(taps in the run: 1\)"):
        rank(images, store, FeatureQuery(patterns=["block4_out"]), run=part)


def test_errors_say_what_was_expected(finished: Any, tmp_path: Path) -> None:
    images, store = cached(finished)
    with pytest.raises(RunError, match=r"not a run folder \(no run\.json in it\)"):
        rank(images, store, run=tmp_path / "nothing")
    others = images.reject({images.used[0].name: images_refusal(images)})
    with pytest.raises(RunError, match="the run was not made from these 41 images with the same labels and splits"):
        rank(others, store, run=finished.path)
    with pytest.raises(LayerError, match="closest"):
        rank(images, store, FeatureQuery(patterns=["blok5"]))
    with pytest.raises(DataError, match="run `humeris extract`"):
        rank(images, Store(tmp_path / "empty"))


def test_relabelled_images_are_other_images(finished: Any) -> None:
    images, store = cached(finished)
    first = images.used[0]
    label = "blob" if first.item.label != "blob" else "noise"
    changed = replace(images, used=(replace(first, item=replace(first.item, label=label)), *images.used[1:]))
    with pytest.raises(RunError, match="the same labels and splits; give the DATA"):
        rank(changed, store, run=finished.path)


def test_taps_side_by_side_are_ranked_as_one(finished: Any) -> None:
    images, store = cached(finished)
    alone = {row.tap_refs[0].layer: row.columns for row in rank(images, store).rows}
    (both,) = rank(images, store, FeatureQuery(patterns=["block4_out+block5_out"])).rows
    assert [source.layer for source in both.tap_refs] == ["block4_out", "block5_out"]
    assert both.columns == alone["block4_out"] + alone["block5_out"]
    assert both.depth is None


def test_the_command_prints_a_table_with_the_best_marked(finished: Any, humeris: Callable[..., Any]) -> None:
    result = humeris("rank", finished.photos, "--cache", finished.cache, "--run", finished.path)
    assert result.code == 0
    assert result.err == ""
    lines = result.out.splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("backbone"))
    assert lines[header].split() == ["backbone", "tap", "LogME", "H-score", "kNN", "centroid", "accuracy", "seconds"]
    table = lines[header + 1 : header + 3]
    assert {line.split()[1] for line in table} == {"block4_out:avg", "block5_out:avg"}
    assert sum(line.count("<") for line in table) >= 4
    assert table[0].count("1 <") >= table[1].count("1 <")
    assert "scored on 24 images; the 18 test images were not used; " in result.out
    agreement = f"agreement with the accuracies of {finished.path} (Kendall's tau): LogME -, H-score -, kNN -, centroid -"
    assert agreement in lines
    assert lines[-1].startswith(f"next: humeris sweep {finished.photos}") or "sweep" in lines[-1]


def test_the_table_says_nothing_of_training_without_a_run(finished: Any) -> None:
    images, store = cached(finished)
    shown = classify.format_ranking(rank(images, store).to_dict())
    assert "accuracy" not in shown
    assert "agreement" not in shown


def test_the_json_holds_every_score_place_and_tap(finished: Any, humeris: Callable[..., Any]) -> None:
    found = humeris("rank", finished.photos, "--cache", finished.cache, "--run", finished.path, "--json").json
    assert found["run"] == str(finished.path)
    assert set(found["agreement"]) == set(MEASURES)
    for row in found["ranking"]:
        assert set(row["ranks"]) == set(MEASURES)
        assert set(row["ranks"].values()) <= {1, 2}
        assert row["trained"] in {score.accuracy for score in Run.load(finished.path).load_trials().values()}
    assert found["left_out"] == []


def test_taps_that_lack_images_are_left_out_and_listed(finished: Any, humeris: Callable[..., Any], tmp_path: Path) -> None:
    cache = shutil.copytree(finished.cache, tmp_path / "some")
    few = tmp_path / "few"
    for kind in ("stripes", "blob"):
        shutil.copytree(finished.photos / "train" / kind, few / kind)
    assert humeris("extract", few, "-b", "nano", "-l", "block3_out", "--cache", cache).code == 0
    result = humeris("rank", finished.photos, "--cache", cache)
    assert result.code == 1
    assert "left out: nano/block3_out:avg lacks rows of 26 images" in result.out
    assert "block5_out:avg" in result.out
