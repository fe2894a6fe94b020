"""The words by which people name train, validation and test splits."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

SPLITS = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "validation": "val",
    "valid": "val",
    "validate": "val",
    "val": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "tst": "test",
    "eval": "test",
    "evaluation": "test",
}
_SUFFIXES = ("set", "data", "dataset", "images", "imgs", "split")  # written onto the word: trainset, testdata
# Words that say nothing about the class: training_set, seg_train, train_images.
_FILLERS = {
    "set", "sets", "data", "dataset", "datasets", "split", "splits", "subset", "folder", "dir", "seg", "raw", "new", "final",
    "image", "images", "img", "imgs", "picture", "pictures", "pic", "pics", "photo", "photos", "sample", "samples",
    "example", "examples", "jpg", "jpeg", "png", "the", "for", "my", "all",
}  # fmt: skip
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WORD = re.compile(r"[^\W\d_]+")


def to_nfc(name: str) -> str:
    """Return `name` in Unicode's normal form C: names that look the same are then equal."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


@lru_cache(4096)
def parse_split(name: str) -> str | None:
    """Return the split that a folder, an array or a cell is named after.

    Parameters
    ----------
    name : str
        One split word in any case, alone (``valid``) or with words and numbers that say nothing about a class
        (``training_set``, ``seg_train``, ``TestImages``, ``train2017``).

    Returns
    -------
    str or None
        ``train``, ``val`` or ``test``; None for any other name.

    Examples
    --------
    >>> parse_split("Training_Set"), parse_split("val2017"), parse_split("train_station")
    ('train', 'val', None)
    """
    if name in SPLITS:
        return SPLITS[name]
    splits, other_words = _parse_words(name)
    return splits[0] if len(splits) == 1 and _FILLERS.issuperset(other_words) else None


def parse_split_folders(names: Iterable[str]) -> dict[str, str]:
    """Return folder name -> split for the folders of one level that are named after splits.

    Parameters
    ----------
    names : iterable of str
        The names of all folders of the level. Two that differ in the split word alone are splits whatever the other words
        are: ``asl_alphabet_train`` and ``asl_alphabet_test``.

    Returns
    -------
    dict
        The others are left out.
    """
    siblings: dict[tuple[str, ...], dict[str, str]] = {}  # other words -> name -> split
    for name in names:
        splits, other_words = _parse_words(name)
        if len(splits) == 1:
            siblings.setdefault(other_words, {})[name] = splits[0]
    return {
        name: split
        for other_words, members in siblings.items()
        if _FILLERS.issuperset(other_words) or len(set(members.values())) > 1
        for name, split in members.items()
    }


def _parse_words(name: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the splits that the words of `name` stand for, and its other words in small letters; digits are left out."""
    splits, other_words = [], []
    for word in _WORD.findall(_CAMEL_CASE.sub(" ", to_nfc(name))):
        stem = _strip_suffix(word.lower())
        if stem in SPLITS:
            splits.append(SPLITS[stem])
        else:
            other_words.append(stem)
    return splits, tuple(other_words)


def _strip_suffix(word: str) -> str:
    """Return `word` without a filler that is written onto a split word."""
    stems = (word.removesuffix(suffix) for suffix in _SUFFIXES)
    return next((stem for stem in stems if stem in SPLITS), word)
