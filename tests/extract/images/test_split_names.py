"""The words by which people name splits."""

from __future__ import annotations

import pytest

from humeris.extract.images.split_names import SPLITS, parse_split, parse_split_folders


@pytest.mark.parametrize("word", SPLITS)
def test_a_split_word_is_known_in_any_case_and_with_words_that_say_nothing_of_a_class(word: str) -> None:
    split = SPLITS[word]
    names = [
        word.upper(), f"{word}_set", f"{word}_data", f"seg_{word}", f"{word}2017", f"{word}1", f"{word}_images",
        f"{word}set", f"{word.title()}Images", f"my {word}-dataset", f"1. {word}",
    ]  # fmt: skip
    assert {name: parse_split(name) for name in names} == dict.fromkeys(names, split)


@pytest.mark.parametrize(
    "name",
    ["train_station", "bullet train", "testis", "Trained", "steam_train", "train_val", "validator", "", "2017", "set"],
)
def test_a_class_that_only_contains_such_a_word_is_no_split(name: str) -> None:
    assert parse_split(name) is None


def test_names_that_differ_in_the_split_word_alone_are_splits_whatever_else_they_say() -> None:
    assert parse_split_folders(["asl_alphabet_train", "asl_alphabet_test", "notes"]) == {
        "asl_alphabet_train": "train",
        "asl_alphabet_test": "test",
    }
    assert parse_split_folders(["steam_train", "bus", "electric_train"]) == {}
    assert parse_split_folders(["chest train", "knee test"]) == {}
