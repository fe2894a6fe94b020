"""Texts for terminals and documents."""

from __future__ import annotations

import json

import pytest

from humeris.cache.formatting import format_error, format_names, to_utf8


def fail(inner: Exception, outer: Exception) -> None:
    try:
        raise inner
    except type(inner):
        raise outer  # noqa: B904  # the inner one is its context


def test_an_error_is_told_by_its_innermost_cause() -> None:
    inner = ValueError("\x1b[1mdepth must\n match: 3 and 4\x1b[0m")
    with pytest.raises(RuntimeError) as caught:
        fail(inner, RuntimeError("Exception encountered when calling layer 'conv'"))
    assert format_error(caught.value) == "depth must match: 3 and 4"


def test_a_key_that_was_looked_for_is_not_why_something_failed() -> None:
    with pytest.raises(TypeError) as caught:
        fail(KeyError("name"), TypeError("Unknown layer: 'Mine'. Please pass custom_objects to fix this."))
    assert format_error(caught.value) == "Unknown layer: 'Mine'."


def test_advice_about_options_of_another_library_is_left_out_but_never_all_of_a_message() -> None:
    text = "Lambda layers are unsafe. You can pass `safe_mode=False` to load them. Ask the author."
    assert format_error(ValueError(text)) == "Lambda layers are unsafe. Ask the author."
    assert format_error(ValueError("Pass safe_mode=False.")) == "Pass safe_mode=False."


def test_json_texts_are_valid_unicode_whatever_the_names_of_files() -> None:
    value = to_utf8({"caf\udce9": ["\udcff.jpg", {"n": 1}], "é": ("ü", None)})
    assert value == {"caf\\xe9": ["\\xff.jpg", {"n": 1}], "é": ["ü", None]}
    json.dumps(value, ensure_ascii=False).encode("utf-8")


def test_of_many_names_the_first_are_shown() -> None:
    assert (format_names(list("abc")), format_names(list("abcd")), format_names([])) == ("a, b, c", "a, b, c, …", "")
