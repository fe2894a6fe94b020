"""Learning curves: from what they are made, where they end, and the comparison with random weights on a real run."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import change_metadata, change_origin

from humeris.cache.store import Store
from humeris.classify.data import group_sampling
from humeris.classify.data.feature_matrix import FeatureMatrix
from humeris.classify.diagnose import learning_curve
from humeris.classify.diagnose.learning_curve import Asymptote, Curve
from humeris.classify.diagnose.random_baseline import is_quick
from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.evaluate.trial import Score, Trial, TrialScores
from humeris.classify.heads import registry
from humeris.classify.report import winner_features as rows
from humeris.classify.report.blocks import Chart, Command, Section, Table, Text
from humeris.classify.report.charts import draw
from humeris.classify.report.run_snapshot import RunSnapshot
from humeris.classify.report.sections import pretraining_gain
from humeris.extract.backbones.tap_ref import TapRef


def blobs(count: int, classes: int, width: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    rows = random.normal(size=(classes, width))[labels] + noise * random.normal(size=(count, width))
    return rows.astype(np.float32), labels


def alone(count: int) -> np.ndarray:
    return np.arange(count)


def test_a_curve_is_what_scikit_learn_gets_from_the_same_images() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows_, labels = blobs(300, 3, 20, 3.0)
    found = learning_curve.compute_learning_curve(
        FeatureMatrix.from_array(rows_), labels, alone(300), SingleLabel.from_n_classes(3), "logreg", {"C": 0.1}, 2
    )
    part = group_sampling.assign_folds(labels, alone(300), 5, 0)
    assert found.n_images.shape == (5, 5)
    for draw_ in range(5):
        held, pool = part == draw_, np.nonzero(part != draw_)[0]
        order = pool[group_sampling.stratify(labels[pool], alone(len(pool)), draw_)]
        for size in range(5):
            learnt = order[: found.n_images[size, draw_]]
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000, tol=1e-8))
            theirs = model.fit(rows_[learnt], labels[learnt]).score(rows_[held], labels[held])
            assert found.accuracy[size, draw_] == pytest.approx(theirs, abs=1.01 / held.sum())
    assert found.sizes.tolist() == pytest.approx([15, 30, 60, 120, 240], abs=1)
    assert found.starts.tolist() == found.accuracy[0].tolist()
    assert found.slopes == pytest.approx((found.accuracy[2] - found.accuracy[0]) / 2, rel=0.1)


@pytest.mark.parametrize(
    ("head", "setting"),
    [
        ("ridge", {"alpha": 10.0}),
        ("svm", {"C": 0.01}),
        ("lda", {"shrinkage": 0.1}),
        ("knn", {"n_neighbors": 20, "weights": "uniform"}),
        ("centroid", {"metric": "cosine"}),
    ],
)
def test_every_quick_head_has_a_curve_even_of_few_images(head: str, setting: dict[str, Any]) -> None:
    rows_, labels = blobs(60, 4, 30, 0.5)
    found = learning_curve.compute_learning_curve(
        FeatureMatrix.from_array(rows_), labels, alone(60), SingleLabel.from_n_classes(4), head, setting, 1
    )
    assert found.n_images[0].min() >= 8
    assert found.accuracy[-1].mean() > 0.8
    assert is_quick(head)


def test_no_image_is_learnt_from_and_scored_and_groups_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Spy:
        @staticmethod
        def cross_validate(problem: Any, tried: Any, _seed: int) -> list[Any]:
            ((fit, score),) = problem.folds
            values = problem.features.to_array()[:, 0].astype(int)
            seen.append((set(values[fit].tolist()), set(values[score].tolist())))
            assert tried == [{"C": 1}]
            return [replace_score()]

    def replace_score() -> Any:
        from humeris.classify.evaluate.trial import Score

        return Score(0.5, 1.0, (0.5,))

    monkeypatch.setitem(registry._FAMILIES, "spy", Spy)  # type: ignore[arg-type]
    groups = np.random.default_rng(0).integers(0, 50, 200)
    labels = groups % 2
    learning_curve.compute_learning_curve(
        FeatureMatrix.from_array(alone(200)[:, None]), labels, groups, SingleLabel.from_n_classes(2), "spy", {"C": 1}, 1
    )
    assert len(seen) == 25
    for number, (fit, score) in enumerate(seen):
        assert not {groups[row] for row in fit} & {groups[row] for row in score}
        for group in {groups[row] for row in fit}:
            assert set(np.nonzero(groups == group)[0].tolist()) <= fit
        if number % 5:
            assert seen[number - 1][0] < fit
            assert seen[number - 1][1] == score
    assert set().union(*(score for _, score in seen)) == set(range(200))


def test_sizes_with_too_few_images_of_a_class_are_left_out() -> None:
    rows_, labels = blobs(100, 10, 40, 0.2)
    found = learning_curve.compute_learning_curve(
        FeatureMatrix.from_array(rows_), labels, alone(100), SingleLabel.from_n_classes(10), "ridge", {"alpha": 1.0}, 1
    )
    assert found.sizes.tolist() == [20, 40, 80]
    few = learning_curve.compute_learning_curve(
        FeatureMatrix.from_array(rows_[:20]),
        labels[:20],
        alone(20),
        SingleLabel.from_n_classes(10),
        "ridge",
        {"alpha": 1.0},
        1,
    )
    assert few.accuracy.size == 0


def law(end: float, rise: float, power: float, noise: float = 0.0, seed: int = 0) -> Curve:
    images = np.repeat(np.array([100, 200, 400, 800, 1600])[:, None], 3, axis=1)
    random = np.random.default_rng(seed)
    return Curve(images, end - rise * (images / 100) ** -power + noise * random.normal(size=images.shape))


@pytest.mark.parametrize(("end", "rise", "power"), [(0.93, 0.3, 0.7), (0.7, 0.4, 0.4), (0.995, 0.1, 1.0), (0.8, 0.3, 2.8)])
def test_the_end_of_a_power_law_is_found(end: float, rise: float, power: float) -> None:
    found = learning_curve.fit_asymptote(law(end, rise, power))
    assert found is not None
    assert found.accuracy == pytest.approx(end, abs=1e-3)
    assert found.margin < 1e-3
    near = [learning_curve.fit_asymptote(law(end, rise, power, 0.002, seed)) for seed in range(40)]
    held = [abs(each.accuracy - end) <= each.margin for each in near if each is not None]
    assert len(held) >= 20
    assert np.mean(held) >= 0.9


def test_draws_with_levels_of_their_own_widen_the_interval_and_not_the_fit() -> None:
    curve = law(0.9, 0.3, 0.6)
    moved = Curve(curve.n_images, curve.accuracy + np.array([-0.02, 0.0, 0.02]))
    found = learning_curve.fit_asymptote(moved)
    assert found is not None
    assert found.accuracy == pytest.approx(0.9, abs=1e-3)
    assert found.margin == pytest.approx(0.02 / 3**0.5 * 4.303, rel=0.01)


@pytest.mark.parametrize(
    "curve",
    [
        law(0.5, 0.0, 1.0),  # flat
        law(0.5, 0.0, 1.0, 0.02),  # nothing but noise
        law(0.9, 0.3, 0.6, 0.1),  # too noisy
        law(0.9, -0.3, 0.6),  # it falls
        Curve(law(0.9, 0.3, 0.6).n_images[:3], law(0.9, 0.3, 0.6).accuracy[:3]),
        Curve(law(0.9, 0.3, 0.6).n_images, 0.05 * np.arange(5)[:, None] + np.zeros((5, 3)) + 0.3),  # no end in sight
    ],
)
def test_where_the_law_does_not_fit_no_end_is_told(curve: Curve) -> None:
    assert learning_curve.fit_asymptote(curve) is None


def test_curves_are_compared_in_words() -> None:
    good, bad = law(0.95, 0.4, 0.6), law(0.5, 0.2, 0.6)
    words = pretraining_gain.compare_curves(good, bad, Asymptote(0.95, 0.01), Asymptote(0.5, 0.02))
    assert "a higher start (55.0 % vs 30.0 % with 100 images)" in words
    assert "a higher slope (11.3 vs 5.6 points per doubling)" in words
    assert "a higher asymptote (95.0 ± 1.0 % vs 50.0 ± 2.0 %)" in words
    words = pretraining_gain.compare_curves(bad, good, Asymptote(0.5, 0.2), Asymptote(0.6, 0.1))
    assert "a lower start" in words
    assert "a lower slope" in words
    assert "no clear difference in asymptote" in words
    words = pretraining_gain.compare_curves(good, good, None, Asymptote(0.5, 0.02))
    assert "no clear difference in start" in words
    assert "an unknown difference in asymptote" in words
    mixed = Curve(good.n_images, good.accuracy + np.array([-0.1, 0.05, 0.1]))
    for pair in ((good, mixed), (mixed, good)):
        assert "no clear difference in start" in pretraining_gain.compare_curves(*pair, None, None)


@pytest.fixture
def evidence(finished: Any) -> RunSnapshot:
    return RunSnapshot.read(finished.path, finished.cache)


def words(section: Section, kind: str = "plain") -> str:
    return "\n".join(part.text for part in section.parts if isinstance(part, Text) and part.kind == kind)


def one(section: Section, kind: type) -> Any:
    (found,) = [part for part in section.parts if isinstance(part, kind)]
    return found


def test_the_command_that_is_told_brings_the_comparison(
    evidence: RunSnapshot, finished: Any, humeris: Callable[..., Any], tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(finished.cache, tmp_path / "copy")
    evidence = replace(evidence, store=Store(tmp_path / "copy"))
    alone_ = pretraining_gain.build_section(evidence)
    assert [row[0] for row in one(alone_, Table).rows] == ["pretrained weights"]
    assert "has no features of the same taps with random weights" in words(alone_)
    program, *arguments = shlex.split(one(alone_, Command).line)
    assert program == "humeris"
    assert humeris(*arguments).code == 0

    section = pretraining_gain.build_section(replace(evidence, store=Store(tmp_path / "copy")))
    assert words(section, "missing") == ""
    assert not [part for part in section.parts if isinstance(part, Command)]
    ours, random = one(section, Table).rows
    assert (ours[0], random[0]) == ("pretrained weights", "random weights")
    assert "Compared with random weights, pretrained weights give" in words(section)
    chart = one(section, Chart)
    assert {row[0] for row in chart.table.rows} == {ours[0], random[0]}
    first = next(row for row in chart.table.rows if row[0] == ours[0])
    assert ours[1] == f"{100 * first[2]:.1f} %"
    assert all(row[3] <= row[2] <= row[4] for row in chart.table.rows)
    svg = draw(chart, "m").wide
    assert all(f"{name}; " in svg for name in (ours[0], random[0]))
    part = one(alone_, Chart).table.rows
    assert part == chart.table.rows[: len(part)]


def test_a_network_with_other_settings_is_no_counterpart(evidence: RunSnapshot, tmp_path: Path) -> None:
    assert evidence.best is not None
    assert evidence.metadata is not None
    spec = evidence.metadata.specs[evidence.best.tap_refs[0].extraction]
    twin = replace(spec, weights="random, seed 0", weights_sha256="cd" * 32)
    others = [
        replace(twin, image_size=(96, 96)),
        replace(twin, precision="bfloat16"),
        replace(twin, weights="imagenet", weights_sha256="ef" * 32),
    ]
    with Store(tmp_path / "other", write=True) as store:
        for each in others:
            store.get_extraction(each).create([{"name": "x", "cost": 1}])
        assert pretraining_gain._find_random_init_twin(replace(evidence, store=store), spec) is None
        store.get_extraction(replace(twin, backbone="renamed")).create([{"name": "x", "cost": 1}])
        assert (
            pretraining_gain._find_random_init_twin(replace(evidence, store=store), spec)
            == replace(twin, backbone="renamed").folder_name
        )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"weights": "random, seed 0"}, "has random weights"),
        ({"file": "/nowhere/my.keras"}, "no counterpart"),
        ({"file": "my.keras"}, "no counterpart"),
    ],
)
def test_some_backbones_have_nothing_to_be_compared_with(
    evidence: RunSnapshot, change: dict[str, str], expected: str
) -> None:
    Path("my.keras").write_bytes(b"a network of the user's")
    assert evidence.metadata is not None
    specs = {name: replace(spec, **change) for name, spec in evidence.metadata.specs.items()}
    section = pretraining_gain.build_section(change_metadata(evidence, specs=specs))
    assert expected in words(section) + words(section, "missing")
    assert one(section, Chart)
    assert not [part for part in section.parts if isinstance(part, Command)]


@pytest.mark.parametrize("lost", [{"store": None}, {"images": ()}, {"scores": TrialScores({})}, {"metadata": None}])
def test_without_features_the_section_says_what_is_missing(evidence: RunSnapshot, lost: dict[str, Any]) -> None:
    section = pretraining_gain.build_section(replace(evidence, **lost))
    assert words(section, "missing")
    assert not [part for part in section.parts if isinstance(part, Chart)]


def test_the_head_is_the_winners_or_the_best_that_is_trained_in_seconds() -> None:
    tap = (TapRef("nano", "nano-1", "block5_out", "avg"),)
    other = (TapRef("nano", "nano-1", "block4_out", "avg"),)
    mlp, far, near = Trial(tap, "mlp", {"hidden": 8}), Trial(other, "svm", {"C": 1.0}), Trial(tap, "knn", {"n_neighbors": 3})
    accuracies = {mlp: 0.9, far: 0.8, near: 0.7}
    scores = {trial: Score(accuracy, 0.5, (accuracy,)) for trial, accuracy in accuracies.items()}
    found = RunSnapshot(Path(), None, TrialScores(scores), (), (), None, None, ())
    assert pretraining_gain._choose_head(found, near) == ("knn", {"n_neighbors": 3}, ", the winner's head,")
    assert pretraining_gain._choose_head(found, mlp)[:2] == ("knn", {"n_neighbors": 3})
    found = replace(found, scores=TrialScores({trial: scores[trial] for trial in (mlp, far)}))
    head, setting, why = pretraining_gain._choose_head(found, mlp)
    assert (head, setting["C"]) == ("logreg", 0.01)
    assert "faster than a multilayer perceptron, the winner's head" in why
    assert not any(map(is_quick, ("mlp", "triplet", "supcon", "head2toe", "of another version")))


def test_the_command_names_every_backbone_and_quotes_what_a_shell_would_read(evidence: RunSnapshot) -> None:
    assert evidence.data is not None
    described = change_metadata(evidence, data=change_origin(evidence.data, root="/a b/$(c)"))
    line = rows.format_extract_command(described, list(evidence.tap_depths))
    assert shlex.split(line)[:5] == ["humeris", "extract", "/a b/$(c)", "-b", shlex.split(line)[4]]
    assert [part for part in shlex.split(line) if part.startswith("block")] == ["block4_out:avg", "block5_out:avg"]
    assert rows.format_extract_command(replace(evidence, metadata=None), list(evidence.tap_depths)) == ""


def test_groups_are_written_down_with_the_images(humeris: Callable[..., Any], photos: Path, tmp_path: Path) -> None:
    names = sorted(path for path in photos.rglob("*.png"))
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "group"])
        writer.writerows(
            [path, path.parent.name, f"g{number // 2}" if number % 6 else ""] for number, path in enumerate(names)
        )
    assert humeris("extract", tmp_path / "list.csv", "-b", "nano", "-l", "block5_out").code == 0
    assert humeris("sweep", tmp_path / "list.csv", "--head", "centroid", "-o", tmp_path / "run").code in {0, 1}
    found = {each.name: each.group for each in RunSnapshot.read(tmp_path / "run").images}
    assert len(found) == 36
    for number, path in enumerate(names):
        (group,) = [found[name] for name in found if name.endswith(f"{path.parent.name}/{path.name}")]
        assert group == (f"g{number // 2}" if number % 6 else "")
