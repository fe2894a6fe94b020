"""Advice: which case constructed figures are, when the evidence is thin, and commands that can be pasted."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached_features import fill, write_photos
from typer.main import get_command

from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.cache.typed_json import from_json, to_json
from humeris.classify.advise import advice
from humeris.classify.advise.context import AdviceContext, to_backbone_spec
from humeris.classify.advise.next_steps import MAX_STEPS, suggest_steps
from humeris.classify.advise.scenario import ScenarioEvidence, Size, format_scenario
from humeris.classify.data.group_sampling import assign_folds
from humeris.classify.data.splits import split
from humeris.classify.data.views import Views
from humeris.classify.diagnose import random_baseline
from humeris.classify.diagnose.depth_peak import find_peaks
from humeris.classify.diagnose.random_baseline import LabeledImages
from humeris.classify.evaluate.confidence_intervals import paired_difference_ci
from humeris.classify.evaluate.significance import compare_with_runner_up
from humeris.classify.evaluate.single_label import SingleLabel
from humeris.classify.evaluate.trial import Score, Trial, rank_trials
from humeris.classify.runs.advice import Advice, Peak, PretrainingGain
from humeris.classify.runs.run import Run
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.cli import app
from humeris.extract.backbones.graph import Layer
from humeris.extract.backbones.tap_ref import TapRef
from humeris.extract.images.images import Images
from humeris.extract.images.load import load_images
from humeris.extract.pixels.augment import Policy

IMAGES = 1000  # that heads are chosen by
SPEC = ExtractionSpec("mobilenet_v2", "a", "imagenet", "0" * 64, (224, 224), "tf", "1", arguments={"alpha": 0.35})
FILE = replace(SPEC, backbone="mine", weights="file", arguments={})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", write=True)


def some_photos(store: Store, counts: dict[str, int]) -> Images:
    return load_images(write_photos(store.path.parent / "some", counts), store, jobs=1)


def source(layer: str = "late", extraction: str = "net-1", pool: str = "avg") -> TapRef:
    return TapRef("mobilenet_v2,alpha=0.35", extraction, layer, pool)


def score(accuracy: float, seed: int, images: int = IMAGES, log_loss: float = 0.5, **detail: Any) -> Score:
    """A score with so many images answered rightly, which ones is drawn."""
    right = np.zeros(images, bool)
    right[np.random.default_rng(seed).permutation(images)[: round(accuracy * images)]] = True
    return Score(float(right.mean()), log_loss, (accuracy,), correct=np.packbits(right).tobytes().hex(), fit_info=detail)


def along(accuracies: dict[float, float], images: int = IMAGES) -> tuple[dict[TapRef, float | None], dict[Trial, Score]]:
    """A layer at each depth, with the accuracy of a head there."""
    depth: dict[TapRef, float | None] = {source(f"at{share:.2f}"): share for share in accuracies}
    values = enumerate(zip(depth, accuracies.values(), strict=True))
    return depth, {Trial((tap,), "logreg", {"C": 1.0}): score(value, seed, images) for seed, (tap, value) in values}


def peak_of(accuracies: dict[float, float], images: int = IMAGES) -> Peak:
    depth, scores = along(accuracies, images)
    (found,) = find_peaks(depth, scores, images).values()
    return found


LATE = {0.2: 0.5, 0.5: 0.6, 0.8: 0.7, 1.0: 0.9}
EARLY = {0.2: 0.7, 0.5: 0.9, 0.8: 0.7, 1.0: 0.6}
FLAT = {0.2: 0.8, 0.5: 0.805, 0.8: 0.8, 1.0: 0.8}


@pytest.mark.parametrize(
    ("accuracies", "position", "depth", "tied_range"),
    [
        (LATE, "end", 1.0, (1.0, 1.0)),
        (EARLY, "early", 0.5, (0.5, 0.5)),
        (FLAT, "unsure", 0.5, (0.2, 1.0)),
        ({0.2: 0.5, 0.8: 0.9, 1.0: 0.895}, "end", 0.8, (0.8, 1.0)),
        ({0.2: 0.5, 0.74: 0.9, 0.76: 0.895}, "unsure", 0.74, (0.74, 0.76)),
        ({0.2: 0.6, 0.5: 0.9}, "unknown", 0.5, (0.5, 0.5)),
        ({0.8: 0.6, 1.0: 0.9}, "unknown", 1.0, (1.0, 1.0)),
        ({1.0: 0.9}, "unknown", 1.0, (1.0, 1.0)),
    ],
)
def test_the_peak_is_where_no_layer_elsewhere_does_as_well(
    accuracies: dict[float, float], position: str, depth: float, tied_range: tuple[float, float]
) -> None:
    found = peak_of(accuracies)
    assert (found.position, found.depth, found.tied_range) == (position, depth, tied_range)
    assert (found.n_layers, found.shallowest, found.deepest) == (len(accuracies), min(accuracies), max(accuracies))
    assert found.accuracy == max(accuracies.values())


def test_the_rival_is_the_best_layer_on_the_other_side_with_its_paired_interval() -> None:
    depth, scores = along(LATE)
    (found,) = find_peaks(depth, scores, IMAGES).values()
    best, rival = rank_trials(scores)[0], next(trial for trial in scores if depth[trial.tap_refs[0]] == 0.5)
    first, second = ([bit == "1" for bit in f"{int(scores[each].correct, 16):0{IMAGES}b}"] for each in (best, rival))
    only = sum(a and not b for a, b in zip(first, second, strict=True))
    other = sum(b and not a for a, b in zip(first, second, strict=True))
    assert found.gap_to_rival == pytest.approx((0.3, *paired_difference_ci(only, other, IMAGES)))
    assert peak_of(EARLY).gap_to_rival == pytest.approx((0.2, 0.165, 0.234), abs=0.01)
    assert peak_of({0.2: 0.6, 0.5: 0.9}).gap_to_rival is None


def test_few_images_make_a_steep_curve_a_flat_one() -> None:
    steep = {0.2: 0.72, 0.5: 0.76, 1.0: 0.8}
    assert peak_of(steep, 10_000).position == "end"
    assert peak_of(steep, 50).position == "unsure"


def test_less_than_a_point_is_no_difference_however_many_images_tell_it() -> None:
    def place(other: int) -> str:
        depth: dict[TapRef, float | None] = {source("late"): 1.0, source("early"): 0.5}
        scores = {
            Trial((tap,), "svm", {}): Score(
                count / 50_000, 0.5, (0.5,), correct=np.packbits(np.arange(50_000) < count).tobytes().hex()
            )
            for tap, count in zip(depth, (40_000, other), strict=True)
        }
        return find_peaks(depth, scores, 50_000)["net-1"].position

    assert place(40_000 - 499) == "unsure"
    assert place(40_000 - 501) == "end"


def test_images_of_a_group_count_once_for_the_peak() -> None:
    right = np.arange(400) < 340
    groups = np.arange(400) // 40
    worse = right & (groups != 3)  # wrong on one group of ten, as a whole
    scores = {
        Trial((source(name),), "svm", {}): Score(float(bits.mean()), 0.5, (0.5,), correct=np.packbits(bits).tobytes().hex())
        for name, bits in (("late", right), ("early", worse))
    }
    depth: dict[TapRef, float | None] = {source("late"): 1.0, source("early"): 0.5}
    assert find_peaks(depth, scores, 400)["net-1"].position == "end"
    assert find_peaks(depth, scores, 400, groups)["net-1"].position == "unsure"


def test_each_network_has_its_peak_and_the_best_head_and_pool_of_a_layer_count() -> None:
    depth: dict[TapRef, float | None] = {
        source("a"): 0.5, source("a", pool="max"): 0.5, source("b"): 1.0,
        source("c", "net-2"): None, source("d", "net-3"): 0.3,
    }  # fmt: skip
    taps = list(depth)
    scores = {
        Trial((taps[0],), "logreg", {}): score(0.5, 0),
        Trial((taps[1],), "svm", {}): score(0.9, 1),
        Trial((taps[2],), "svm", {}): score(0.7, 2),
        Trial((taps[3],), "svm", {}): score(0.95, 3),
        Trial((taps[4],), "svm", {}): score(0.4, 4),
        Trial((taps[0], taps[2]), "svm", {}): score(0.99, 5),
    }
    found = find_peaks(depth, scores, IMAGES)
    assert set(found) == {"net-1", "net-3"}
    assert (found["net-1"].layer, found["net-1"].accuracy, found["net-1"].n_layers) == ("a", 0.9, 2)
    assert found["net-1"].position == "early"
    assert json.loads(json.dumps(to_json(found["net-1"])))["tied_range"] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("images", "groups", "classes", "word", "leans"),
    [
        (10, None, 2, "small", "small"),
        (2_000, None, 2, "small", "small"),
        (15_800, None, 10, "small", "small"),
        (16_000, None, 100, "between", "small"),
        (50_000, None, 10, "between", "large"),
        (50_000, None, 100, "between", "small"),
        (125_000, None, 1000, "between", "small"),
        (127_000, None, 1000, "large", "large"),
        (5_000_000, None, 10, "large", "large"),
        (500_000, 3_000, 10, "small", "small"),
    ],
)
def test_sizes_lie_on_a_scale_of_logarithms(images: int, groups: int | None, classes: int, word: str, leans: str) -> None:
    found = Size(images, groups, classes, images // classes)
    assert (found.category, found.nearest_category) == (word, leans)
    assert 0 <= found.position <= 1
    assert f"{images:,} training images" in found.reason
    assert ("groups" in found.reason) == (groups is not None)


def test_the_size_of_unbalanced_data_is_that_of_its_rarest_class() -> None:
    assert Size(804, None, 2, 40).reason.startswith("804 training images, 40 of the rarest class (small: about ")
    assert Size(804, None, 2, 402).reason.startswith("804 training images, 402 per class (small: about ")
    assert (Size(50_000, None, 10, 40).nearest_category, Size(50_000, None, 10, 4_000).nearest_category) == (
        "small",
        "large",
    )


SMALL, BETWEEN, LARGE = Size(3_000, None, 10, 300), Size(50_000, None, 100, 500), Size(800_000, None, 100, 8_000)
MUCH = PretrainingGain(0.9, 0.5, (0.36, 0.44), IMAGES, "logreg")
SOME = PretrainingGain(0.7, 0.5, (0.16, 0.24), IMAGES, "logreg")
LITTLE = PretrainingGain(0.6, 0.5, (0.06, 0.14), IMAGES, "logreg")
BY_CHANCE = PretrainingGain(0.9, 0.5, (-0.01, 0.8), 20, "logreg")


def figures(
    size: Size = SMALL, curve: dict[float, float] | None = None, gain: PretrainingGain | None = MUCH, **more: Any
) -> ScenarioEvidence:
    peak = peak_of(LATE if curve is None else curve)
    values: dict[str, Any] = {
        "size": size, "peak": peak, "other_peaks": (), "gain": gain, "gain_lacks": "" if gain else "cached",
        "accuracy_95": (0.88, 0.92), "majority_class_accuracy": 0.1, "chance_p_value": 0.001,
    }  # fmt: skip
    return ScenarioEvidence(**(values | more))


@pytest.mark.parametrize(
    ("size", "curve", "gain", "scenario"),
    [
        (SMALL, LATE, MUCH, "B1"),
        (SMALL, LATE, SOME, "B1"),
        (SMALL, LATE, None, "B1"),
        (SMALL, LATE, LITTLE, None),
        (SMALL, EARLY, MUCH, "B2"),
        (SMALL, EARLY, None, "B2"),
        (SMALL, FLAT, MUCH, "B1"),
        (SMALL, FLAT, SOME, None),
        (SMALL, FLAT, LITTLE, "B2"),
        (SMALL, FLAT, BY_CHANCE, "B2"),
        (SMALL, FLAT, None, None),
        (SMALL, {1.0: 0.9}, MUCH, "B1"),
        (SMALL, {1.0: 0.9}, None, None),
        (BETWEEN, LATE, MUCH, "B1"),
        (LARGE, LATE, MUCH, "B3"),
        (LARGE, EARLY, LITTLE, "B4"),
    ],
)
def test_the_case_is_of_size_and_of_where_the_peak_and_random_weights_are(
    size: Size, curve: dict[float, float], gain: PretrainingGain | None, scenario: str | None
) -> None:
    found = figures(size, curve, gain).summarize()
    assert found.scenario == scenario
    assert (found.strategy is None) == (scenario is None)
    said = format_scenario(found)
    assert found.size in said
    assert (f"(scenario {scenario})" in said) == (scenario is not None)
    assert found.similarity == {None: None, "B1": "similar", "B3": "similar"}.get(scenario, "different")


def test_plain_evidence_has_nothing_to_mind_and_its_figures_are_told() -> None:
    found = figures().summarize()
    assert found.caveats == ()
    assert found.reasons[0].startswith("3,000 training images, 300 per class")
    assert (
        "peaks at at1.00, 100% of the forward cost; the best layer before the last quarter is worse by 30.0"
        in found.reasons[1]
    )
    assert "0.900 with pretrained weights, 0.500 with random weights, a gain of 40.0 points" in found.reasons[2]
    assert "80% of the errors avoided" in found.reasons[2]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"size": Size(120, None, 2, 60)}, "only 120 images"),
        ({"size": Size(3_000, None, 10, 5)}, "5 of the rarest class: another sample might lead"),
        ({"size": BETWEEN}, "52% of the way from small to large"),
        ({"accuracy_95": (0.7, 0.85)}, "uncertain (95 % CI 0.700–0.850)"),
        ({"chance_p_value": 0.06}, "not significantly better than the majority class"),
        ({"curve": {1.0: 0.9}}, "only at1.00 was tried"),
        ({"curve": {0.2: 0.5, 0.5: 0.9}}, "no layer after 75%"),
        ({"curve": {0.8: 0.5, 1.0: 0.9}}, "no layer before 75%"),
        ({"curve": FLAT}, "accuracy peak is uncertain"),
        ({"curve": {0.2: 0.5, 0.8: 0.9}}, "the deepest layer tried is at 80%"),
        ({"peak": None}, "the depths of the winner's taps are unknown"),
        ({"gain": None}, "random weights are cached"),
        ({"gain": None, "gain_lacks": "file"}, "network from a file"),
        ({"gain": None, "gain_lacks": "few"}, "too few images of a class"),
        ({"gain": None, "gain_lacks": "features"}, "a file of features"),
        ({"gain": None, "gain_lacks": "random"}, "has random weights"),
        ({"gain": LITTLE}, "contradict"),
        ({"gain": SOME}, "smaller than usual"),
        ({"curve": FLAT, "gain": SOME}, "is between that of similar"),
        ({"curve": FLAT, "gain": MUCH}, "alone"),
        ({"other_peaks": [peak_of(EARLY)]}, "suggests the opposite"),
    ],
)
def test_thin_evidence_is_said_to_be_thin(changed: dict[str, Any], said: str) -> None:
    found = figures(**changed).summarize()
    assert any(said in line for line in found.caveats), found.caveats


@pytest.mark.parametrize("changed", [{"chance_p_value": 0.06}, {"gain": None, "gain_lacks": "random"}])
@pytest.mark.parametrize("curve", [LATE, EARLY])
def test_at_chance_and_from_random_weights_there_is_no_case(changed: dict[str, Any], curve: dict[float, float]) -> None:
    assert figures(curve=curve, **changed).summarize().scenario is None


def layer(name: str, cost: int, shape: tuple[int, ...] = (14, 14, 32), **more: Any) -> Layer:
    return Layer(
        name,
        "ReLU",
        shape,
        cost,
        cost,
        more.get("is_cut_point", True),
        more.get("is_block_end", True),
        more.get("parameters", cost),
    )


LAYERS = [
    layer("stem", 10, (112, 112, 16)),
    layer("early", 30),
    layer("half", 50),
    layer("crossed", 74, is_cut_point=False),
    layer("unfinished", 75, is_block_end=False),
    layer("low", 72),
    layer("relu", 99, parameters=100),
    layer("same", 100, parameters=98),
    layer("late", 100, (7, 7, 64)),
    layer("pooled", 110, (64,)),
]


def situation(trials: dict[Trial, Score] | None = None, case: str = "B1", **more: Any) -> AdviceContext:
    judged = {
        "B1": figures(), "B2": figures(curve=EARLY), "B3": figures(LARGE), "B4": figures(LARGE, EARLY),
        "": figures(gain=LITTLE),
    }[case]  # fmt: skip
    scores = trials or {Trial((source(),), "logreg", {"C": 0.1}): score(0.9, 0)}
    values: dict[str, Any] = {
        "evidence": judged, "run": Path("runs/photos-1"), "data": "photos", "command_line": "", "cache_options": (),
        "n_images": 400, "views": Views(), "seed": 0, "from_images": True, "ranked_trials": rank_trials(scores),
        "scores": scores, "layers": {"net-1": LAYERS}, "specs": {"net-1": SPEC},
        "runner_up": compare_with_runner_up(scores, IMAGES),
    }  # fmt: skip
    return AdviceContext(**(values | more))


def commands(found: AdviceContext) -> list[str]:
    told = suggest_steps(found)
    assert len(told) <= MAX_STEPS
    assert all(step.reason for step in told)
    for step in told:
        parse(step.command)
    return [step.command for step in told]


def parse(command: str) -> dict[str, Any]:
    """The values of a command's options, as the command line reads them."""
    program, *words = shlex.split(command)
    assert program == "humeris"
    found: Any = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    with found.make_context(words[0], words[1:]) as context:
        return dict(context.params)


@pytest.mark.parametrize(
    ("case", "first"),
    [
        ("B1", "humeris finetune runs/photos-1 --from low"),
        ("B3", "humeris finetune runs/photos-1 --from input"),
        ("B4", "humeris finetune runs/photos-1 --from input --weights random"),
    ],
)
def test_every_case_begins_with_its_strategy(case: str, first: str) -> None:
    assert commands(situation(case=case))[0] == first


def test_small_and_different_looks_around_the_early_peak() -> None:
    judged = replace(figures(curve=EARLY), peak=replace(peak_of(EARLY), layer="half"))
    taps = [source("early"), source("half"), source("late")]
    trials = {
        Trial((tap,), "logreg", {"C": 0.1}): score(value, n)
        for n, (tap, value) in enumerate(zip(taps, (0.7, 0.9, 0.6), strict=True))
    }
    found = commands(situation(trials, evidence=judged))
    assert (
        found[0] == "humeris sweep photos --extract -b mobilenet_v2,alpha=0.35 -l low -l relu -l same -l half --head logreg"
    )
    assert found[1] == "humeris finetune runs/photos-1 --from early"


def test_a_cut_is_finished_nothing_bypasses_it_and_something_is_left_to_train() -> None:
    found = situation()
    (trial,) = found.ranked_trials
    assert [found.find_cut(trial, share) for share in (0.1, 0.4, 0.75, 0.99)] == [
        (LAYERS[0], 0.1), (LAYERS[1], 0.3), (LAYERS[5], 0.72), (LAYERS[5], 0.72)
    ]  # fmt: skip
    beside = Trial((source(), source("half")), "svm", {})
    place = found.find_cut(beside, 0.99)
    assert place is not None
    assert place[0].name == "early"
    assert found.find_cut(Trial((source("stem"),), "svm", {}), 0.5) is None


def test_maps_are_announced_and_never_larger_than_a_disk() -> None:
    (first, *_) = suggest_steps(situation())
    size = 2 * 400 * 14 * 14 * 32
    assert f"400 maps first, {size / 1e6:.1f} MB" in first.reason
    assert "the last 28% of the cost" in first.reason
    assert "--from low" in commands(situation(n_images=1_000_000))[0]
    assert not [each for each in commands(situation(n_images=2_000_000)) if "finetune" in each]


def test_neighbours_cannot_be_trained_further_so_that_the_best_other_head_starts() -> None:
    knn, other = Trial((source(),), "knn", {"n_neighbors": 3}), Trial((source("half"),), "svm", {"C": 1.0})
    voting = Trial((source(),), "triplet", {"classifier": "knn"})
    trials = {knn: score(0.9, 0), voting: score(0.88, 1), other: score(0.8, 2)}
    assert commands(situation(trials))[0] == f"humeris finetune runs/photos-1 --from early --trial {other.id}"
    assert "from the best svm" in suggest_steps(situation(trials))[0].reason
    assert not [each for each in commands(situation({knn: score(0.9, 0)})) if "finetune" in each]


def test_a_head_over_two_networks_has_another_trial_to_start_from() -> None:
    both, other = Trial((source(), source("x", "net-2")), "svm", {"C": 1.0}), Trial((source(),), "ridge", {"alpha": 1.0})
    found = situation({both: score(0.9, 0), other: score(0.8, 1)}, specs={"net-1": SPEC, "net-2": FILE})
    assert commands(found)[0] == f"humeris finetune runs/photos-1 --from low --trial {other.id}"


@pytest.mark.parametrize(
    ("head", "option", "values", "won", "wider", "kind"),
    [
        ("logreg", "C", (0.01, 0.1, 1), 0.01, "0.0001/0.001/0.01", "strongest"),
        ("svm", "C", (0.01, 0.1, 1), 1, "1/10/100", "weakest"),
        ("ridge", "alpha", (1, 10), 10, "10/100/1000", "strongest"),
        ("ridge", "alpha", (1, 10), 1, "0.01/0.1/1", "weakest"),
        ("logreg", "C", (0.01, 0.1, 1), 0.1, None, ""),
        ("logreg", "C", (0.1,), 0.1, None, ""),
        ("logreg", "C", (1e-12, 1), 1e-12, None, ""),
        ("knn", "n_neighbors", (1, 3), 3, None, ""),
    ],
)
def test_the_edge_of_a_grid_is_looked_beyond(
    head: str, option: str, values: tuple[float, ...], won: float, wider: str | None, kind: str
) -> None:
    trials = {
        Trial((source(),), head, {option: value}): score(0.8, n, log_loss=abs(math.log(value / won)))
        for n, value in enumerate(values)
    }
    found = [step for step in suggest_steps(situation(trials)) if f"{head},{option}=" in step.command]
    assert len(found) == (wider is not None)
    for step in found:
        assert parse(step.command)["heads"] == [f"{head},{option}={wider}"]
        assert kind in step.reason


def test_other_heads_are_named_where_one_was_tried_and_none_where_nothing_can_be_gained() -> None:
    assert (
        "humeris sweep photos -l mobilenet_v2,alpha=0.35/late:avg --head logreg --head svm --head ridge --head lda"
        in commands(situation())
    )
    perfect = {Trial((source(),), "logreg", {"C": value}): score(1.0, 0, log_loss=value) for value in (0.1, 1)}
    twice = {Trial((replace(source(), backbone="mobilenet_v2 (0a1b2c3d)"),), "logreg", {"C": 0.1}): score(0.9, 0)}
    for trials in (perfect, twice):
        assert not [each for each in commands(situation(trials)) if "--head logreg" in each and "--views" not in each]


def test_a_cheaper_runner_up_that_is_not_told_apart_is_offered_as_a_model() -> None:
    two = {
        Trial((source(),), "svm", {"C": 1.0}): score(0.9, 0),
        Trial((source("half"),), "svm", {"C": 1.0}): score(0.895, 1),
    }
    other = rank_trials(two)[1]
    told = suggest_steps(situation(two))
    assert [step.command for step in told if "export" in step.command] == [
        f"humeris export runs/photos-1 --trial {other.id} -o cheaper.keras"
    ]
    assert any("at 50% of its cost" in step.reason for step in told)
    worse = {**two, other: score(0.5, 1)}
    dear = {trial: score(0.9 if trial == other else 0.895, n) for n, trial in enumerate(two)}
    for trials in (worse, dear):
        assert not [each for each in commands(situation(trials)) if "export" in each]


def test_a_head_that_knows_its_images_by_heart_gets_views() -> None:
    def of(fits: float, held: float) -> list[str]:
        curves = {"accuracy": [0.5, fits, 1.0], "val_accuracy": [0.5, held, 0.1]}
        trial = Trial((source(),), "mlp", {"hidden": "8"})
        return commands(situation({trial: score(held, 0, epochs=2, curves=curves)}))

    words = "-b mobilenet_v2,alpha=0.35 -l late:avg --head mlp --views 4 --augment flip,crop,color"
    views = f"humeris sweep photos --extract {words}"
    assert of(1.0, 0.8)[1] == views
    assert views not in of(1.0, 0.95)[:2]
    assert views not in of(0.9, 0.7)[:2]


def test_without_a_case_evidence_comes_first() -> None:
    lacking = figures(curve={1.0: 0.9}, gain=None)
    found = commands(situation(evidence=lacking))
    assert found[0] == "humeris sweep photos --extract -b mobilenet_v2,alpha=0.35"
    assert found[1] == "humeris extract photos -b mobilenet_v2,alpha=0.35,weights=random -l late:avg"
    chance = commands(situation(evidence=figures(chance_p_value=0.5)))
    assert chance[0] == "humeris run photos -b resnet50"
    own = replace(SPEC, weights="random, seed 3")
    random = commands(situation(evidence=figures(gain=None, gain_lacks="random"), specs={"net-1": own}))
    assert random[0] == "humeris run photos -b mobilenet_v2,alpha=0.35"


def test_a_network_that_is_a_file_is_never_asked_for_random_weights() -> None:
    Path("mine.keras").write_bytes(b"")
    spec = replace(FILE, file="mine.keras")
    judged = figures(LARGE, EARLY, None, gain_lacks="file")
    found = commands(situation(evidence=judged, specs={"net-1": spec}))
    assert found[0] == "humeris finetune runs/photos-1 --from input"
    assert not [each for each in found if "random" in each]
    Path("mine.keras").unlink()  # then its features still are there
    assert not [each for each in commands(situation(evidence=judged, specs={"net-1": spec})) if "-b mine" in each]


def test_a_file_of_features_has_nothing_to_fine_tune_or_extract() -> None:
    for case in ("B1", "B2", "B3", "B4", ""):
        found = commands(situation(case=case, from_images=False, layers={}))
        assert not [each for each in found if shlex.split(each)[1] != "sweep" or "--extract" in each]


def test_what_was_typed_is_kept_and_quoted() -> None:
    found = situation(
        run=Path("my runs/$(x)"), data="my photos;", command_line="humeris run 'my photos;' --limit 20 --select=val -b x",
        cache_options=("--cache", "a b"), seed=7, views=Views(2, Policy.parse("flip"), average=True),
        evidence=figures(curve={1.0: 0.9}, gain=None),
    )  # fmt: skip
    spread, random, *_ = commands(found)
    assert shlex.split(spread)[2] == "my photos;"
    read = parse(spread)
    assert (str(read["data"]), read["limit"], read["select"], read["seed"]) == ("my photos;", 20, "val", 7)
    assert (str(read["cache"]), read["views"], read["augment"], read["average_views"]) == ("a b", 2, "flip=0.5", True)
    asked = parse(random)
    assert (asked["limit"], asked["views"], str(asked["cache"])) == (20, 0, "a b")
    assert str(parse(commands(replace(found, evidence=figures()))[0])["run"]) == "my runs/$(x)"
    assert commands(replace(found, command_line="humeris sweep it's"))


@pytest.mark.parametrize("size", [(64, 64), (224, 224)])
def test_a_backbone_is_named_as_briefly_as_it_can_be(size: tuple[int, int]) -> None:
    found = to_backbone_spec(replace(SPEC, image_size=size, precision="bfloat16")).title
    own = ",image_size=64x64" if size == (64, 64) else ""
    assert found == f"mobilenet_v2,alpha=0.35{own},precision=bfloat16"
    assert to_backbone_spec(replace(SPEC, preprocessing="torch")).title == "mobilenet_v2,alpha=0.35,preprocessing=torch"


class Rows:
    """Rows of features, by the number that is a key."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        assert view == 0
        found = self.rows[[int(key) for key in keys]]
        return np.asarray(found if columns is None else found[:, columns])


def drawn(count: int = 300, classes: int = 3) -> tuple[LabeledImages, Rows, Rows]:
    draw = np.random.default_rng(0)
    labels = np.arange(count) % classes
    own = np.eye(8)[labels] * 2.5 + draw.normal(size=(count, 8))
    other = np.eye(8)[labels] * 1.0 + draw.normal(size=(count, 8))
    keys = np.array([f"{row}".encode() for row in range(count)])
    return (
        LabeledImages(keys, labels, np.arange(count), SingleLabel.from_n_classes(classes)),
        Rows(own.astype(np.float32)),
        Rows(other.astype(np.float32)),
    )


def test_the_gap_is_what_scikit_learn_gets_in_the_same_folds() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    learnt, own, other = drawn()
    found = random_baseline.compute_gain([own], [other], learnt, "logreg", [{"C": 0.1}], 1)
    assert found is not None
    folds = PredefinedSplit(assign_folds(learnt.labels, learnt.groups, 5, 0))
    right = []
    for rows in (own, other):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8, max_iter=1000))
        right.append(cross_val_predict(model, rows.rows, learnt.labels, cv=folds) == learnt.labels)
    assert (found.pretrained_accuracy, found.random_init_accuracy) == pytest.approx([each.mean() for each in right])
    expected = paired_difference_ci(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()), 300)
    assert found.difference_95 == pytest.approx(expected)
    assert found.errors_avoided == pytest.approx(
        (found.pretrained_accuracy - found.random_init_accuracy) / (1 - found.random_init_accuracy)
    )
    turned = random_baseline.compute_gain([other], [own], learnt, "logreg", [{"C": 0.1}], 1)
    assert turned is not None
    assert turned.difference_95 == pytest.approx((-expected[1], -expected[0]))
    assert turned.errors_avoided < 0


def test_a_gap_is_measured_on_a_sample_with_whole_groups_or_not_at_all() -> None:
    learnt, own, other = drawn(12_000)
    groups = np.arange(12_000) // 6
    found = random_baseline.compute_gain(
        [own], [other], replace(learnt, groups=groups), "centroid", [{"metric": "cosine"}], 1
    )
    assert found is not None
    assert found.images == pytest.approx(5000, abs=6)
    alone, rows, others = drawn(9)
    few = replace(alone, labels=np.array([0] * 8 + [1]), target=SingleLabel.from_n_classes(2))
    assert random_baseline.compute_gain([rows], [others], few, "centroid", [{"metric": "cosine"}], 1) is None


def test_with_many_classes_the_gap_is_of_a_head_that_one_decomposition_solves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_baseline, "_MAX_OPERATIONS", 100)
    learnt, own, other = drawn()
    found = random_baseline.compute_gain([own], [other], learnt, "logreg", [{"C": 0.1}], 1)
    assert found is not None
    assert found.head == "ridge"
    assert found.pretrained_accuracy > found.random_init_accuracy


def test_a_sweep_without_layers_or_depths_still_ends_with_advice(
    store: Store,
    tmp_path: Path,
) -> None:
    images = some_photos(store, {"train": 40, "test": 10})
    fill(store, images, {"one": 0.0, "two": 0.0})
    run = sweep(images, store, SweepConfig(["centroid"], out=tmp_path / "run", jobs=1))
    found = run.result.advice
    assert found is not None
    assert (found.scenario, found.size, found.peaks, found.pretraining_gain) == (None, "small", (), None)
    assert any("the depths of the winner's taps are unknown" in line for line in found.caveats)
    assert any("not significantly better than the majority class" in line for line in found.caveats)
    assert Run(run.path).result.advice == found


@pytest.mark.parametrize("lacking", [0, 1])
def test_random_weights_are_compared_with_where_they_are_cached_of_every_image(
    store: Store, tmp_path: Path, lacking: int
) -> None:
    images = some_photos(store, {"train": 20, "test": 10})
    fill(store, images, {"layer": 3})
    (own,) = store.iter_extractions()
    rows = np.random.default_rng(0).normal(size=(len(images.used), 6)).astype(np.float32)
    learnt = [number for number, image in enumerate(images.used) if image.item.split == "train"][lacking:]
    twin = replace(own.spec, weights="random, seed 0", weights_sha256="1" * 64)
    store.get_extraction(twin).add("layer", "avg", images.keys[learnt], rows[learnt])
    wanted = ["made_up/layer"]
    found = sweep(images, store, SweepConfig(["logreg"], layers=wanted, out=tmp_path / "run", jobs=1)).result.advice
    assert found is not None
    gain = found.pretraining_gain
    assert (gain is None) == bool(lacking)
    assert any("random weights are cached" in line for line in found.caveats) == bool(lacking)
    if gain is not None:
        assert gain.pretrained_accuracy > 0.8 > gain.random_init_accuracy
        assert gain.images == 40


@pytest.mark.parametrize(("count", "strength", "learnt"), [(40, 0.0, False), (40, 1.5, True), (4, 1.5, False)])
def test_the_best_of_many_has_to_beat_chance_by_more_than_one_of_them(
    store: Store, tmp_path: Path, count: int, strength: float, learnt: bool
) -> None:
    from scipy.stats import binomtest

    images = some_photos(store, {"train": count, "test": 10})
    fill(store, images, {f"layer{number}": strength for number in range(6)})
    run = sweep(images, store, SweepConfig(["centroid"], out=tmp_path / "run", jobs=1))
    right = round(2 * count * run.load_trials()[rank_trials(run.load_trials())[0]].accuracy)
    by_chance = 6 * binomtest(right, 2 * count, 0.5, alternative="greater").pvalue > 0.05
    assert run.result.advice is not None
    assert any("not significantly better than the majority class" in line for line in run.result.advice.caveats) == by_chance
    assert by_chance != learnt


def test_a_run_without_advice_is_told_of_without(store: Store, tmp_path: Path) -> None:
    from humeris.classify.report.page import write_report
    from humeris.commands.render import classify

    images = some_photos(store, {"train": 12, "test": 6})
    fill(store, images, {"layer": 2})
    run = sweep(images, store, SweepConfig(["logreg"], out=tmp_path / "run", jobs=1))
    advised = run.result
    data = {"data": run.metadata.data.to_dict()}
    assert "advice: " in classify.format_sweep(data, run.summarize())
    page = write_report([run.path], cache=store.path).path
    assert "Advice: " in page.read_text()
    run.finish(replace(advised, advice=None))
    loaded = Run.load(run.path)
    assert loaded.summarize().advice is None
    assert "advice: " not in classify.format_sweep(data, loaded.summarize())
    page = write_report([run.path], cache=store.path).path
    assert "Advice: " not in page.read_text()


def test_a_real_run_tells_what_it_lacks_and_every_command_it_gives_runs(
    humeris: Callable[..., Any], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    words = shlex.split("run photos -b nano -l block1_out -l block5_out --head knn,n_neighbors=3 -o done")
    said = humeris(*words)
    assert "\nadvice: small data" in said.out
    first = json.loads(Path("done/run.json").read_bytes())["result"]["advice"]
    for step in first["next"]:
        assert f"  try: {step['command']}\n" in said.out
    for line in first["caveats"]:
        assert f"  caveat: {line}\n" in said.out
    assert first["pretraining_gain"] is None
    (extract,) = [each["command"] for each in first["next"] if "weights=random" in each["command"]]
    page = Path("done/report.html").read_text()
    assert "nano,weights=random" in page
    for step in first["next"]:
        parse(step["command"])
        if "resnet50" not in step["command"]:  # whose weights are not here
            dry = ["--dry-run"] * ("finetune" in step["command"])
            assert humeris(*shlex.split(step["command"])[1:], *dry).code == 0
    assert "-b nano,weights=random -l block" in extract
    words[0] = "sweep"  # the same run, without another export
    again = humeris(*words, "--json").json["advice"]
    assert again["pretraining_gain"] is not None
    assert not [step for step in again["next"] if "weights=random" in step["command"]]
    written = Path("done/run.json").stat().st_mtime_ns
    assert humeris(*words, "--json").json["advice"] == again
    assert Path("done/run.json").stat().st_mtime_ns == written


def test_a_sweep_of_a_file_of_features_advises_nothing_that_needs_images(
    humeris: Callable[..., Any], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    assert humeris("extract", "photos", "-b", "nano", "-l", "block3_out", "-l", "block5_out").code == 0
    assert humeris("cache", "export", "photos", "-b", "nano", "-o", "rows.h5").code == 0
    words = ("sweep", "rows.h5", "--head", "centroid,metric=cosine", "-o", "done")
    found = humeris(*words, "--json").json["advice"]
    assert f"\nadvice: {format_scenario(from_json(Advice, found))}\n" in humeris(*words).out
    assert any("a file of features" in line for line in found["caveats"])
    for step in found["next"]:
        assert shlex.split(step["command"])[1:3] == ["sweep", "rows.h5"]
        assert humeris(*shlex.split(step["command"])[1:]).code == 0


def test_advice_takes_no_network(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    images = some_photos(store, {"train": 12, "test": 6})
    fill(store, images, {"layer": 2})
    loaded: Sequence[str] = [name for name in sys.modules if name.split(".")[0] in {"keras", "tensorflow"}]
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    run = sweep(images, store, SweepConfig(["logreg"], out=tmp_path / "run", jobs=1))
    assert run.result.advice
    assert not advice.is_outdated(run, images, split(images, None), store)
