"""Which settings are tried: grids, random draws, successive halving, and files of them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from humeris.cache.errors import HeadError
from humeris.classify.evaluate.trial import Score, Trial
from humeris.classify.heads.head_grid import HeadGrid
from humeris.classify.heads.registry import list_head_families
from humeris.classify.heads.search import GridSearch, HalvingSearch, RandomSearch, Search, parse_search, plan_halving_rounds
from humeris.classify.heads.search_file import load_head_grids
from humeris.classify.sweep.scheduler import Task
from humeris.extract.backbones.tap_ref import TapRef

TAP = (TapRef("nano", "nano-64-0", "block3_out", "avg"),)


def values(settings: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return [setting[name] for setting in settings]


def test_a_grid_is_every_combination_whatever_the_seed() -> None:
    options = {"hidden": "16/32", "dropout": "0/0.5"}
    first, second = (parse_search("grid", None, seed).build_grid("mlp", options) for seed in (0, 1))
    assert first == second == HeadGrid.parse("mlp,hidden=16/32,dropout=0/0.5")
    assert len(first.hyperparameter_sets) == 4


def test_random_draws_are_distinct_repeatable_and_inside_their_ranges() -> None:
    options = {"learning_rate": "1e-4..1e-2", "hidden": "16/32/64", "epochs": "5..50"}
    found = RandomSearch(40, seed=3).build_grid("mlp", options).hyperparameter_sets
    assert RandomSearch(40, seed=3).build_grid("mlp", options).hyperparameter_sets == found
    assert RandomSearch(40, seed=4).build_grid("mlp", options).hyperparameter_sets != found
    assert len({tuple(sorted(map(str, setting.items()))) for setting in found}) == len(found) == 40
    assert all(1e-4 <= rate <= 1e-2 for rate in values(found, "learning_rate"))
    assert set(values(found, "hidden")) == {
        HeadGrid.parse(f"mlp,hidden={width}").hyperparameter_sets[0]["hidden"] for width in (16, 32, 64)
    }
    assert all(isinstance(epochs, int) and 5 <= epochs <= 50 for epochs in values(found, "epochs"))


def test_a_range_is_even_on_a_logarithmic_scale_and_from_zero_on_a_linear_one() -> None:
    found = RandomSearch(400).build_grid("mlp", {"learning_rate": "1e-4..1e-2", "dropout": "0..0.8"}).hyperparameter_sets
    assert abs(np.mean(np.log10(values(found, "learning_rate"))) + 3) < 0.1
    assert abs(np.mean(values(found, "dropout")) - 0.4) < 0.05
    assert min(values(found, "learning_rate")) < 1.3e-4


def test_a_short_list_is_tried_whole_and_a_long_one_in_part_without_repeats() -> None:
    whole = RandomSearch(30).build_grid("logreg", {"C": "0.01/0.1/1"})
    assert whole == HeadGrid.parse("logreg,C=0.01/0.1/1")
    many = {"C": "/".join(str(number) for number in range(1, 60))}
    part = RandomSearch(7).build_grid("logreg", many).hyperparameter_sets
    assert len(part) == 7
    assert max(Counter(values(part, "C")).values()) == 1


@pytest.mark.parametrize("options", [{}, {"C": "1"}])
def test_a_family_with_nothing_to_draw_is_tried_as_it_is(options: dict[str, str]) -> None:
    assert (
        RandomSearch(30).build_grid("logreg", options).hyperparameter_sets
        == GridSearch().build_grid("logreg", options).hyperparameter_sets
    )


SPACES = {family.name: family.search_space for family in list_head_families() if family.search_space}


@pytest.mark.parametrize("name", sorted(SPACES))
def test_a_family_has_something_to_draw_where_nothing_is_said(name: str) -> None:
    found = RandomSearch(12).build_grid(name, {"epochs": "7"}).hyperparameter_sets
    assert len(found) == 12
    assert set(values(found, "epochs")) == {7}
    for option in SPACES[name]:
        assert len(set(values(found, option))) > 1
    assert HalvingSearch(9).build_grid(name, {"epochs": "18"}).halving_rounds == ((9, 2), (3, 6), (1, 18))


def halving_of_scikit_learn(candidates: int, epochs: int) -> tuple[list[int], list[int]]:
    """The settings and the resources of each round, as scikit-learn itself has them."""
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingRandomSearchCV

    class Guess(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        def __init__(self, rate: float = 0.0, epochs: int = 1) -> None:
            self.rate, self.epochs = rate, epochs

        def fit(self, _: np.ndarray, labels: np.ndarray) -> Guess:
            self.classes_ = np.unique(labels)
            return self

        def predict(self, features: np.ndarray) -> np.ndarray:
            return np.zeros(len(features), int)

    search = HalvingRandomSearchCV(
        Guess(), {"rate": list(np.arange(500.0))}, n_candidates=candidates, factor=3, resource="epochs",
        max_resources=epochs, min_resources="exhaust", cv=2, random_state=0, refit=False,
    )  # fmt: skip
    search.fit(np.zeros((8, 1)), np.arange(8) % 2)
    return list(search.n_candidates_), list(search.n_resources_)


@pytest.mark.parametrize(
    ("candidates", "epochs"), [(27, 27), (30, 40), (9, 90), (100, 81), (2, 40), (30, 2), (1, 5), (4, 3)]
)
def test_halving_has_the_rounds_of_scikit_learn_and_ends_with_every_epoch(candidates: int, epochs: int) -> None:
    counts, resources = halving_of_scikit_learn(candidates, epochs)
    found = plan_halving_rounds(candidates, epochs)
    assert [count for count, _ in found] == counts
    assert found[-1][1] == epochs
    if resources[-1] == epochs:
        assert [each for _, each in found] == resources
    assert all(1 <= few < many for (_, few), (_, many) in pairwise(found))


def test_halving_takes_the_settings_of_lowest_loss_on_to_more_epochs() -> None:
    family = HalvingSearch(9).build_grid("mlp", {"learning_rate": "1e-4..1e-1", "epochs": "18"})
    assert family.halving_rounds == ((9, 2), (3, 6), (1, 18))
    task = Task(TAP, (family,))
    known: dict[Trial, Score] = {}
    rounds = []
    while (step := task.get_next_trials(known)) is not None:
        rounds.append([trial.hyperparameters for trial in step[1]])
        known |= {
            trial: Score(0.5, abs(math.log(trial.hyperparameters["learning_rate"] / 1e-2)), (0.5,)) for trial in step[1]
        }
    assert [(len(each), each[0]["epochs"]) for each in rounds] == list(family.halving_rounds)
    assert len(known) == task.n_trials == 13
    by_loss = sorted(values(rounds[0], "learning_rate"), key=lambda rate: abs(math.log(rate / 1e-2)))
    assert values(rounds[1], "learning_rate") == by_loss[:3]
    assert values(rounds[2], "learning_rate") == by_loss[:1]


def test_halving_goes_on_from_any_trial_on() -> None:
    task = Task(TAP, (HalvingSearch(9).build_grid("mlp", {"learning_rate": "1e-4..1e-1", "epochs": "18"}),))

    def score(trial: Trial) -> Score:
        return Score(0.5, int(trial.id, 16) / 2**32, (0.5,))

    def finish(known: dict[Trial, Score]) -> dict[Trial, Score]:
        while (step := task.get_next_trials(known)) is not None:
            known = known | {trial: score(trial) for trial in step[1]}
        return known

    whole = finish({})
    for kept in range(len(whole)):
        part = dict(list(whole.items())[:kept])
        assert finish(part) == whole
        step = task.get_next_trials(part)
        assert step is not None
        assert not set(step[1]) & set(part)


def test_families_without_epochs_are_searched_at_random_by_halving_too() -> None:
    assert HalvingSearch(5).build_grid("logreg", {"C": "1e-3..1e2"}).halving_rounds == ()


@pytest.mark.parametrize(
    ("search", "options", "message"),
    [
        (
            GridSearch(),
            {"learning_rate": "1e-4..1e-2"},
            r"is a range, but --search grid needs a list; give --search random or halving, or a list a/b/c",
        ),
        (
            RandomSearch(),
            {"learning_rate": "1e-2..1e-4"},
            r"mlp: learning_rate: invalid range '1e-2\.\.1e-4'; give low\.\.high",
        ),
        (RandomSearch(), {"learning_rate": "a..b"}, r"learning_rate: invalid range .*; give low\.\.high"),
        (RandomSearch(), {"learning_rate": "1e-4..inf"}, r"learning_rate: invalid range .*; give low\.\.high"),
        (RandomSearch(), {"learning_rate": "1e-4..1e-2/1"}, r"learning_rate: invalid range .*; give low\.\.high"),
        (RandomSearch(), {"learning_rate": "1..2..3"}, r"learning_rate: invalid range .*; give low\.\.high"),
        (RandomSearch(), {"learning_rat": "1e-4..1e-2"}, r"'?learning_rat'?"),
        (RandomSearch(), {"dropout": "0.5..2"}, r"dropout"),
        (
            HalvingSearch(),
            {"epochs": "5..50"},
            r"head mlp: several numbers of epochs, but --search halving divides one number over its rounds; give one",
        ),
        (
            HalvingSearch(),
            {"epochs": "5/50"},
            r"head mlp: several numbers of epochs, but --search halving divides one number over its rounds; give one",
        ),
    ],
)
def test_what_cannot_be_searched_is_one_line(search: Search, options: dict[str, str], message: str) -> None:
    with pytest.raises(HeadError, match=message) as caught:
        search.build_grid("mlp", options)
    assert "\n" not in str(caught.value)


def written(folder: Path, text: str) -> Path:
    path = folder / "heads.toml"
    path.write_text(text)
    return path


def test_a_file_says_the_same_as_the_options_do(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        '[[head]]\nname = "logreg"\nC = [0.1, 1, 10]\n\n[[head]]\nname = "mlp"\nhidden = [16, 32]\nepochs = 7\n'
        'learning_rate = "1e-4..1e-2"\n',
    )
    search = RandomSearch(10)
    options = ["logreg,C=0.1/1/10", "mlp,hidden=16/32,epochs=7,learning_rate=1e-4..1e-2"]
    assert load_head_grids([], file, search) == load_head_grids(options, None, search)
    assert [head_grid.family.name for head_grid in load_head_grids(["logreg,C=3"], file, search)] == [
        "logreg",
        "logreg",
        "mlp",
    ]


def test_without_heads_there_is_logistic_regression() -> None:
    assert load_head_grids([]) == [HeadGrid.parse("logreg")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"no \[\[head\]\] tables; write \[\[head\]\] tables, each with a name and options"),
        ("head = []", r"no \[\[head\]\] tables; write"),
        ("head = 3", r"head is a whole number, not a list of tables; write"),
        ('[head]\nname = "mlp"', r"head is a table, not a list of tables; write"),
        ('[[heads]]\nname = "mlp"', r"unknown key 'heads'; write \[\[head\]\] tables only"),
        ('[[head]]\nname = "mlp"\n[search]\n', r"unknown key 'search'; write"),
        ("[[head]]\nC = 1", r"heads\.toml: \[\[head\]\] 1, key name: missing; give one of logreg, "),
        (
            '[[head]]\nname = "logreg"\n[[head]]\nname = "forest"',
            r"\[\[head\]\] 2, key name: 'forest' is not a head family; give one of logreg",
        ),
        ("[[head]]\nname = [1]", r"key name: \[1\] is not a head family; give one of logreg"),
        (
            '[[head]]\nname = "mlp"\nhidden = {a = 1}',
            r"\[\[head\]\] 1 \(mlp\), key hidden: invalid value, a table; give a number",
        ),
        ('[[head]]\nname = "mlp"\nhidden = [[16]]', r"key hidden: invalid value, a list; give a number"),
        ('[[head]]\nname = "mlp"\nhidden = []', r"key hidden: empty list; give a value or a list of values"),
        ('[[head]]\nname = "mlp"\nhidden = 2026-01-01', r"key hidden: invalid value, a date; give a number"),
        (
            '[[head]]\nname = "mlp"\nhiden = 16',
            r"heads\.toml: \[\[head\]\] 1: head mlp has no option 'hiden' .*; did you mean hidden\?",
        ),
        ('[[head]]\nname = "mlp"\nhidden = "wide"', r"heads\.toml: \[\[head\]\] 1: head mlp: invalid hidden 'wide'; give"),
        ('[[head]]\nname = "logreg"\nC = -1', r"heads\.toml: \[\[head\]\] 1: head logreg: invalid C '-1'; give"),
        ("[[head]\n", r"heads\.toml: cannot be read as TOML \(.*line 1.*\); give a file of \[\[head\]\] tables"),
        ("\x00", r"cannot be read as TOML \("),
        ("a = " + "[" * 100_000, r"cannot be read as TOML \("),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line_with_file_table_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(HeadError, match=message) as caught:
        load_head_grids([], written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=r"none\.toml: no such file; check the path"):
        load_head_grids([], tmp_path / "none.toml")
    (tmp_path / "image.toml").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(HeadError, match=r"image\.toml: cannot be read as TOML \("):
        load_head_grids([], tmp_path / "image.toml")
    with pytest.raises(HeadError, match=r": is a folder; give the TOML file in it"):
        load_head_grids([], tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--search", "bayes"], "--search bayes: unknown; use one of grid, random, halving"),
        (
            ["--trials", 5],
            "--trials does not apply to --search grid, which tries every combination; give --search random or halving",
        ),
        (["--search", "random", "--trials", 0], "--trials 0: too few; give at least 1"),
        (["--search", "random", "--trials", -3], "--trials -3: too few; give at least 1"),
        (["--average-views"], "--average-views is given without --views; give --views and --augment too"),
        (["--views", 2], "give both --views and --augment, or neither"),
        (["--augment", "flip"], "give both --views and --augment, or neither"),
    ],
)
def test_options_that_say_nothing_together_are_refused(
    tmp_path: Path, humeris: Callable[..., Any], options: list[object], message: str
) -> None:
    result = humeris("sweep", tmp_path, *options)
    assert result.code == 2
    assert message in " ".join(result.err.replace("│", " ").split())


def test_the_help_names_every_family(humeris: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = re.findall(r"[a-z0-9]+", humeris("sweep", "--help").out)
    assert {family.name for family in list_head_families()} <= set(words)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("mpl", r"head 'mpl': unknown head family; use one of logreg, .*; did you mean mlp\?"),
        ("", r"head '': unknown head family; use one of logreg"),
        ("mlp,hiden=16", r"head mlp has no option 'hiden' .*; did you mean hidden\?"),
        ("mlp,hidden", r"'hidden' is not option=value"),
        ("mlp,hidden=", r"'hidden=' is not option=value"),
        ("mlp,hidden=16,hidden=32", r"hidden is given twice; write hidden=a/b"),
        ("logreg,C=", r"'C=' is not option=value"),
        ("logreg,C=a", r"head logreg: invalid C 'a'; give"),
    ],
)
def test_a_head_that_is_misspelt_is_one_line(tmp_path: Path, humeris: Callable[..., Any], head: str, message: str) -> None:
    result = humeris("sweep", tmp_path, "--head", head)
    assert result.code == 2
    assert re.search(message, result.err)
    assert len(result.err.splitlines()) == 1
