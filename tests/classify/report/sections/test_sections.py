"""What the sections of a report say: the figures of the run, and in words what they mean."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import change_metadata, change_result, copy_run, make_varied_run
from run_values import NEAR_DUPLICATES, make_metadata
from scipy.stats import binomtest

from humeris.classify.data.splits import SplitsSummary
from humeris.classify.evaluate import confidence_intervals, significance
from humeris.classify.evaluate.calibration import ReliabilityBin
from humeris.classify.evaluate.confidence_intervals import wilson_ci
from humeris.classify.evaluate.trial import Score, Trial, TrialScores, rank_trials
from humeris.classify.report import charts as drawing
from humeris.classify.report.blocks import Chart, Command, Section, Table, Text
from humeris.classify.report.run_snapshot import RunSnapshot
from humeris.classify.report.sections import comparison, confusion, depth, leaderboard, reproduce, summary, training_curves
from humeris.classify.runs.metadata import SweptTap
from humeris.classify.runs.run import Run
from humeris.extract.backbones.tap_ref import TapRef


@pytest.fixture(scope="session")
def evidence(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> RunSnapshot:
    return RunSnapshot.read(make_varied_run(finished, tmp_path_factory.getbasetemp()), finished.cache)


def words(parts: Section | Sequence[Any], kind: str = "") -> str:
    found = parts.parts if isinstance(parts, Section) else parts
    return " ".join(part.text for part in found if isinstance(part, Text) and kind in part.kind)


def tables(section: Section) -> list[Table]:
    return [part for part in section.parts if isinstance(part, Table)]


def charts(section: Section) -> list[Chart]:
    return [part for part in section.parts if isinstance(part, Chart)]


def tried(accuracies: dict[str, float], **depths: float) -> RunSnapshot:
    """A run of logreg at the taps named, with these accuracies and depths."""
    sources = {name: TapRef("net", "net-1", name, "avg") for name in accuracies}
    scores = {
        Trial((sources[name],), "logreg", {"C": 1.0}): Score(value, 1 - value, (value,), 0.5)
        for name, value in accuracies.items()
    }
    taps = tuple(SweptTap.from_tap_ref(source, depths.get(name)) for name, source in sources.items())
    metadata = make_metadata(taps=taps, splits=SplitsSummary(("a", "b"), 80, 20, 10, "cv", ""))
    return RunSnapshot(Path("run"), metadata, TrialScores(scores), (), (), None, None, ())


# The summary


def test_the_runner_up_is_as_the_run_compared_it(evidence: RunSnapshot) -> None:
    assert evidence.result is not None
    found = evidence.result.runner_up
    assert found is not None
    told = words(summary.build_section(evidence))
    low, high = found.comparison.difference_95
    assert f"{100 * found.score.accuracy:.1f} %" in told
    assert f"{100 * low:+.1f} to {100 * high:+.1f}" in told
    assert (", not significant. " in told) == (found.comparison.p_value > 0.05)


@pytest.mark.parametrize(
    ("p_value", "difference", "verdict"),
    [
        (0.2, 0.01, "p = 0.2), not significant."),
        (0.01, 0.1, "p = 0.01), significant."),
        (0.01, -0.1, "p = 0.01), the winner was selected by log-loss as well."),
    ],
)
def test_how_sure_the_winner_is_better_is_said(
    p_value: float, difference: float, verdict: str, evidence: RunSnapshot
) -> None:
    assert evidence.result is not None
    found = evidence.result.runner_up
    assert found is not None
    compared = replace(found.comparison, p_value=p_value, difference=difference)
    changed = change_result(evidence, runner_up=replace(found, comparison=compared))
    assert verdict in words(summary.build_section(changed))


def test_notes_and_near_duplicates_are_warnings(evidence: RunSnapshot) -> None:
    copies = replace(NEAR_DUPLICATES, test_images=4, accuracy_without=0.5)
    changed = change_result(evidence, notes=("the width is unusual",), near_duplicates=copies)
    told = words(summary.build_section(changed), "warning")
    assert told.startswith("the width is unusual Test images that are near-duplicates of training images: 4; ")
    assert "without them the accuracy is 50.0 %" in told


def test_features_of_an_unknown_network_have_no_command_that_exports_them(evidence: RunSnapshot) -> None:
    assert evidence.metadata is not None
    specs = {name: replace(spec, architecture="") for name, spec in evidence.metadata.specs.items()}
    changed = change_result(change_metadata(evidence, specs=specs), advice=None)
    section = summary.build_section(changed)
    assert not [part for part in section.parts if isinstance(part, Command)]
    assert "there is no model to export" in words(section)
    assert [part for part in summary.build_section(evidence).parts if isinstance(part, Command)]


# Depth


def test_points_are_the_runs_own_with_the_intervals_of_the_terminal(evidence: RunSnapshot, finished: Any) -> None:
    from humeris.classify.runs.run import Run

    assert evidence.splits is not None
    scored = evidence.splits.train + evidence.splits.val
    found = depth.collect_points(evidence)
    own = Run(evidence.path).compute_depth_curve()
    assert [{name: each[name] for name in vars(own[0])} for each in found] == list(map(vars, own))
    for each in found:
        assert (each["low"], each["high"]) == wilson_ci(round(each["accuracy"] * scored), scored)
    by_groups = {found[0]["trial"]: (0.25, 0.75)}
    changed = change_result(evidence, accuracy_95=by_groups)
    assert (depth.collect_points(changed)[0]["low"], depth.collect_points(changed)[0]["high"]) == (0.25, 0.75)


def test_the_heat_map_runs_from_the_lowest_to_the_highest_accuracy(evidence: RunSnapshot) -> None:
    (heat,) = tables(depth.build_section(evidence))
    assert heat.header == ["tap", "depth", "logreg", "knn", "mlp"]
    assert [row[0] for row in heat.rows] == ["block4_out:avg", "block5_out:avg"]
    assert heat.shades is not None
    shown = [shade for row in heat.shades for shade in row if shade is not None]
    accuracies = [cell for row in heat.rows for cell in row[2:]]
    assert (min(shown), max(shown), len(shown)) == (0.0, 1.0, 6)
    assert np.argsort(shown, kind="stable").tolist() == np.argsort(accuracies, kind="stable").tolist()


def test_a_line_is_drawn_only_where_a_backbone_has_several_depths(evidence: RunSnapshot) -> None:
    line = charts(depth.build_section(tried({"a": 0.5, "b": 0.7}, a=0.2, b=0.9)))[0]
    dots = charts(depth.build_section(tried({"a": 0.5, "b": 0.7})))[0]
    assert any(layer.get("mark") == {"type": "line"} for layer in line.spec["layer"])
    assert not any(layer.get("mark") == {"type": "line"} for layer in dots.spec["layer"])
    for chart in (line, dots):
        assert drawing.draw(chart, "c").wide.count('aria-roledescription="point"') in {2, 3}  # and the ring
    assert "selected" in drawing.draw(line, "c").wide


def test_of_many_lines_the_best_are_drawn_and_the_rest_is_said() -> None:
    base = tried({"a": 0.1, "b": 0.2}, a=0.2, b=0.9)
    scores = {
        Trial(trial.tap_refs, f"head{number}", {"C": 1.0}): replace(score, accuracy=number / 20)
        for number in range(11)
        for trial, score in base.scores.items()
    }
    section = depth.build_section(replace(base, scores=TrialScores(scores)))
    drawn = {value["line"] for value in charts(section)[0].spec["data"]["values"]}
    assert drawn == {f"head{number}" for number in range(3, 11)}
    assert "The best 8 of 11 lines are shown" in words(section)
    table = charts(section)[0].table
    assert table is not None
    assert len(table.rows) == 22


# Curves


def test_each_head_is_drawn_against_what_was_varied_and_the_best_is_ringed(evidence: RunSnapshot) -> None:
    titles = [chart.title for chart in charts(training_curves.build_section(evidence))]
    assert sum(title.startswith("logreg at") and title.endswith("accuracy by C") for title in titles) == 1
    assert sum(title.startswith("knn at") and title.endswith("log-loss by n_neighbors") for title in titles) == 1
    chart = next(each for each in charts(training_curves.build_section(evidence)) if each.title.startswith("logreg"))
    values = chart.spec["data"]["values"]
    assert [value["x"] for value in values] == [0.001, 0.1, 10.0]
    best = next(trial for trial in evidence.ranked_trials if trial.head == "logreg")
    assert [value["x"] for value in values if value["best"]] == [best.hyperparameters["C"]]
    assert chart.spec["encoding"]["x"]["scale"]["type"] == "log"


def test_a_best_setting_at_the_end_of_what_was_tried_is_said() -> None:
    def run(losses: Sequence[float]) -> str:
        source = TapRef("net", "net-1", "a", "avg")
        scores = {
            Trial((source,), "ridge", {"alpha": 10.0**power}): Score(0.5, loss, (0.5,)) for power, loss in enumerate(losses)
        }
        return words(training_curves.build_section(replace(tried({"a": 0.5}), scores=TrialScores(scores))))

    assert "The best alpha of ridge is the largest value tried, 1000: larger values may be better." in run([4, 3, 2, 1])
    assert "is the smallest value tried, 1: smaller values" in run([1, 2, 3, 4])
    assert "may be better" not in run([2, 1, 3, 4])


def course(accuracy: Sequence[float], val_accuracy: Sequence[float], val_loss: Sequence[float]) -> dict[str, list[float]]:
    return {
        "loss": [1.0] * len(val_loss), "accuracy": list(accuracy), "val_accuracy": list(val_accuracy),
        "val_loss": list(val_loss),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("accuracy", "val_accuracy", "val_loss", "epoch", "told", "not_told"),
    [
        (
            [0.8, 0.97], [0.5, 0.5], [0.7, 0.69], 2,
            ["training and validation accuracy is large", "97.0 % on training", "50.0 % on held-out"], ["rises"],
        ),
        ([0.6, 0.7], [0.6, 0.601], [0.7, 0.6], 2, ["The loss was still falling"], ["large", "gap"]),
        (
            [0.6, 0.7, 0.9], [0.6, 0.65, 0.65], [0.7, 0.6, 0.8], 2,
            ["rises by 33 % until epoch 3", "accuracy is 5 points at epoch 2 and 25 points at the last"], ["still"],
        ),
        ([0.6, 0.7, 0.7], [0.6, 0.65, 0.65], [0.7, 0.6, 0.659], 2, ["Epoch 2 of 3 was kept"], ["rises", "gap", "still"]),
    ],
)  # fmt: skip
def test_overfitting_is_called_out_in_words_where_it_is_large(
    accuracy: list[float], val_accuracy: list[float], val_loss: list[float], epoch: int, told: list[str], not_told: list[str]
) -> None:
    found = words(training_curves.describe_learning_curve(course(accuracy, val_accuracy, val_loss), epoch))
    assert all(text in found for text in told), found
    assert not any(text in found for text in not_told), found


def test_learning_curves_are_drawn_with_the_kept_epoch_and_a_head_without_training_accuracy_has_its_own_side_only(
    evidence: RunSnapshot,
) -> None:
    best = next(trial for trial in evidence.ranked_trials if trial.head == "mlp")
    chart = next(each for each in charts(training_curves.build_section(evidence)) if best.id in each.title)
    kept = evidence.scores[best].fit_info["epochs"]
    assert f">kept: {kept}<" in drawing.draw(chart, "c").wide
    assert chart.table is not None
    assert [row[0] for row in chart.table.rows] == list(range(1, 7))
    assert [row[2] for row in chart.table.rows] == evidence.scores[best].fit_info["curves"]["val_loss"]
    detail = {"epochs": 1, "curves": {"loss": [5.0, 4.0], "val_loss": [0.5, 0.6], "val_accuracy": [0.5, 0.5]}}
    alone = {best: replace(evidence.scores[best], fit_info=detail)}
    section = training_curves.build_section(replace(evidence, scores=TrialScores(alone)))
    assert {value["line"] for value in charts(section)[0].spec["data"]["values"]} == {"held-out images"}
    assert "rises by 20 %" in words(section, "warning")


# Confusion and calibration


def test_classes_that_are_taken_for_each_other_come_to_stand_side_by_side() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        partner = random.permutation(40).reshape(20, 2)
        counts = np.diag(np.full(40, 6))
        for first, second in partner:
            counts[first, second] = counts[second, first] = 3
        order = confusion.order_classes(counts)
        assert sorted(order) == list(range(40))
        place = np.argsort(order)
        assert all(abs(place[first] - place[second]) == 1 for first, second in partner)


def test_a_class_without_test_images_is_no_reason_to_fail(evidence: RunSnapshot) -> None:
    counts = np.diag([0] + [3] * 24)
    assert sorted(confusion.order_classes(counts)) == list(range(25))


def test_the_pairs_most_often_confused_are_counted_and_sorted(evidence: RunSnapshot) -> None:
    counts = [[5, 2, 0], [4, 3, 1], [0, 0, 0]]
    section = confusion.build_section(_with_confusion(evidence, counts))
    (pairs,) = [table for table in tables(section) if "pairs" in table.caption]
    assert [list(row) for row in pairs.rows] == [
        ["noise", "blob", 4, 8, 0.5], ["blob", "noise", 2, 7, 2 / 7], ["noise", "stripes", 1, 8, 0.125],
    ]  # fmt: skip


def _with_confusion(evidence: RunSnapshot, counts: list[list[int]]) -> RunSnapshot:
    assert evidence.test is not None
    return change_result(evidence, test=replace(evidence.test, confusion=tuple(map(tuple, counts))))


def test_the_cells_of_the_matrix_are_those_that_are_not_empty(evidence: RunSnapshot) -> None:
    counts = np.array([[5, 2, 0], [4, 1, 1], [0, 3, 6]])
    section = confusion.build_section(_with_confusion(evidence, counts.tolist()))
    values = charts(section)[0].spec["data"]["values"]
    assert len(values) == (counts > 0).sum()
    for value in values:
        row, column = evidence.class_names.index(value["true"]), evidence.class_names.index(value["predicted"])
        assert (value["count"], value["share"]) == (counts[row, column], counts[row, column] / counts[row].sum())
        assert (value["kind"] == "correct") == (row == column)
    (per_class,) = [table for table in tables(section) if "Per-class metrics" in table.caption]
    assert evidence.test is not None
    for row, each in zip(per_class.rows, evidence.test.per_class, strict=True):
        assert row[:4] == [each.class_name, each.images, each.precision, each.recall]
        assert tuple(row[4:6]) == wilson_ci(round(each.recall * each.images), each.images)


@pytest.mark.parametrize(
    ("error", "confidence", "told"),
    [
        (0.03, 0.9, "There is no evidence of miscalibration"),
        (0.2, 0.9, "overconfident by 20.0 points"),
        (0.2, 0.5, "underconfident by 20.0 points"),
    ],
)
def test_calibration_is_judged_against_what_chance_would_show(
    error: float, confidence: float, told: str, evidence: RunSnapshot
) -> None:
    assert evidence.test is not None
    bins = (ReliabilityBin(18, confidence, 0.7, (0.5, 0.8)),)
    test = replace(evidence.test, calibration_error=error, calibration_error_by_chance=0.025, reliability=bins)
    section = confusion.build_section(change_result(evidence, test=test))
    assert told in words(section)


# Leaderboard and how to repeat it


def test_the_leaderboard_is_in_the_order_of_the_run_and_says_how_many_more_there_are(evidence: RunSnapshot) -> None:
    (table,) = tables(leaderboard.build_section(evidence))
    with (evidence.path / "leaderboard.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [row[-1] for row in table.rows] == [row["trial"] for row in listed]
    assert [f"{row[1]:.5f}" for row in table.rows] == [row["accuracy"] for row in listed]
    assert table.sortable
    assert "more are in" not in words(leaderboard.build_section(evidence))
    assert {row[3] for row in table.rows if row[2] == "mlp"} == {"hidden=16"}  # one setting, of which the first option
    assert {row[3] for row in table.rows if row[2] == "logreg"} == {"C=0.001", "C=0.1", "C=10.0"}
    many = {
        Trial(trial.tap_refs, trial.head, {"C": number + 1}): score
        for number in range(210)
        for trial, score in list(evidence.scores.items())[:1]
    }
    section = leaderboard.build_section(replace(evidence, scores=TrialScores(many)))
    assert len(tables(section)[0].rows) == 200
    assert "10 more trials are in leaderboard.csv" in words(section)


def test_what_is_needed_to_repeat_a_run_is_there(evidence: RunSnapshot) -> None:
    described = evidence.metadata
    assert described is not None
    section = reproduce.build_section(evidence)
    (command,) = [part for part in section.parts if isinstance(part, Command)]
    assert command.line == described.command
    text = json.dumps([[table.caption, table.header, table.rows] for table in tables(section)])
    (spec,) = described.specs.values()
    assert evidence.best is not None
    for needed in (
        described.humeris, described.config_hash, described.data.listing, described.data.root,
        spec.weights_sha256, spec.pixels, spec.preprocessing, spec.architecture, evidence.best.id,
        "24 train, 0 val, 18 test", "C=0.001/0.1/10.0", "n_neighbors=1/3/5",
    ):  # fmt: skip
        assert needed in text, needed


# Runs side by side


def changed_answers(evidence: RunSnapshot, wrong: Sequence[int], groups: Sequence[str] = ()) -> RunSnapshot:
    """The same run, whose answers to all test images are right but for some."""
    answers = tuple(
        replace(each, predicted="never" if place in wrong else each.label) for place, each in enumerate(evidence.predictions)
    )
    grouped = dict(zip((each.name for each in evidence.predictions), groups, strict=False))
    images = tuple(replace(image, group=grouped.get(image.name, "")) for image in evidence.images)
    return replace(evidence, predictions=answers, images=images)


def test_two_winners_are_compared_on_the_test_images_that_both_have(evidence: RunSnapshot) -> None:
    one, other = changed_answers(evidence, [0, 1]), changed_answers(evidence, [1, 2, 3, 4, 5, 6])
    told = words(comparison.build_section([one, other]))
    low, high = confidence_intervals.paired_difference_ci(5, 1, 18)
    assert "on the same test images (18)" in told
    assert "5 correct only in varied (1), 1 only in varied (2);" in told
    assert f"difference +22.2 points (95 % CI {100 * low:+.1f} to {100 * high:+.1f}" in told
    assert f"p = {binomtest(5, 6).pvalue:.2g}): not significant." in told
    fewer = replace(other, images=tuple(image for image in other.images if not image.name.startswith("test/blob")))
    assert "on the test images in both (12)" in words(comparison.build_section([one, fewer]))
    none = replace(other, images=())
    assert "have no test images in common" in words(comparison.build_section([one, none]))


def test_images_of_one_group_count_once_in_a_comparison(evidence: RunSnapshot) -> None:
    groups = [f"g{place // 3}" for place in range(18)]
    one, other = changed_answers(evidence, [], groups), changed_answers(evidence, range(9), groups)
    sums, sizes = np.array([3, 3, 3, 0, 0, 0]), np.full(6, 3)
    low, high = confidence_intervals.grouped_difference_ci(sums, sizes)
    told = words(comparison.build_section([one, other]))
    assert "(18 in 6 groups)" in told
    assert f"95 % CI {100 * low:+.1f} to {100 * high:+.1f}, p = {significance.sign_flip_test(sums):.2g})" in told


def test_runs_that_label_the_same_images_otherwise_are_not_compared(evidence: RunSnapshot) -> None:
    other = replace(evidence, predictions=tuple(replace(each, label="dog") for each in evidence.predictions))
    assert "label their common test images differently" in words(comparison.build_section([evidence, other]))


def test_the_table_of_runs_has_the_figures_of_each(evidence: RunSnapshot, finished: Any) -> None:
    other = RunSnapshot.read(finished.path, finished.cache)
    chart = charts(comparison.build_section([evidence, other]))[0]
    assert chart.table is not None
    assert [row[0] for row in chart.table.rows] == ["varied", "run"]
    for row, run in zip(chart.table.rows, (evidence, other), strict=True):
        assert run.test is not None
        assert row[3:8] == [len(run.scores), run.test.images, run.test.accuracy, *run.test.accuracy_95]


# Drawing


def test_numbers_and_texts_become_what_a_drawing_can_hold() -> None:
    found = drawing.to_plain(
        {"a": np.float32(0.5), "b": [float("nan"), np.int64(3)], "c": "x\u202ey\udcff", "d": np.arange(2)}
    )
    assert found == {"a": 0.5, "b": [None, 3], "c": "x\\u202ey\\udcff", "d": [0, 1]}


def test_a_drawing_never_fetches_its_data() -> None:
    spec = {"data": {"url": "http://127.0.0.1:9/data.json"}, "mark": "point", "encoding": {"x": {"field": "a"}}}
    with pytest.raises(ValueError, match="not allowed"):
        drawing.draw(Chart("t", spec), "c")


def test_what_drawings_refer_to_by_id_is_their_own() -> None:
    mark = {"type": "point", "clip": True}
    spec = {"data": {"values": [{"a": 1}]}, "mark": mark, "encoding": {"x": {"field": "a", "type": "quantitative"}}}
    both = [drawing.draw(Chart("t", spec), name) for name in ("c1", "c2")]
    texts = [text for found in both for text in (found.wide, found.narrow or "")]
    ids = [re.findall(r'\bid="([^"]+)"', text) for text in texts]
    assert all(len(found) == 1 for found in ids)
    assert [found[0] for found in ids] == ["c1-w0", "c1-n0", "c2-w0", "c2-n0"]
    assert drawing.draw(Chart("t", spec), "c1") == both[0]
    assert [re.findall(r"url\(#([^)]+)\)", text) for text in texts] == ids


def test_ranked_is_what_the_evidence_ranks_by(evidence: RunSnapshot) -> None:
    assert list(evidence.ranked_trials) == rank_trials(dict(evidence.scores))


def test_a_run_of_features_from_a_copied_folder_is_titled_by_it(finished: Any, tmp_path: Path) -> None:
    assert RunSnapshot.read(copy_run(finished.path, tmp_path / "named")).title == "named"


def test_how_well_the_winner_fits_what_it_learnt_from_is_said_beside_what_it_has_not_seen(evidence: RunSnapshot) -> None:
    """The oracle: the head of the run on the rows of the cache."""
    from humeris.cache.shard import to_keys
    from humeris.classify.data import select_features as sources

    learnt = [record for record in evidence.images if record.split != "test"]
    assert evidence.store is not None
    assert evidence.best is not None
    features = sources.load_matrix(evidence.store, evidence.best.tap_refs, to_keys([record.digest for record in learnt]))
    head = Run(evidence.path).load_head(evidence.best)
    assert head is not None
    answers = head.predict_proba(features).argmax(axis=1)
    fitted = float(
        np.mean([evidence.class_names[answer] == record.label for answer, record in zip(answers, learnt, strict=True)])
    )
    held_out = evidence.scores[evidence.best].accuracy
    said = (
        f"Accuracy of the winner: {100 * fitted:.1f} % on 24 training images, {100 * held_out:.1f} % on held-out images, a"
    )
    assert said in words(training_curves.build_section(evidence), "plain")
    worse = replace(evidence.scores[evidence.best], accuracy=fitted - 0.2)
    lower = TrialScores({**evidence.scores, evidence.best: worse})
    warned = words(training_curves.build_section(replace(evidence, scores=lower)), "warning")
    assert "a gap of 20.0 points, which is large (more than 10): the head overfits" in warned


def test_nothing_is_said_of_the_fit_where_the_features_are_gone(evidence: RunSnapshot) -> None:
    assert "Accuracy of the winner" not in words(training_curves.build_section(replace(evidence, store=None)))
