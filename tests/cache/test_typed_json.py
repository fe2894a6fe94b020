"""Dataclasses survive JSON, and what is none of theirs is refused in one line that says where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest

from humeris.cache.typed_json import as_text, from_json, to_json


@dataclass(frozen=True)
class Inner:
    name: str
    share: float


@dataclass(frozen=True)
class Outer:
    count: int
    sure: bool
    pair: tuple[float, float]
    words: tuple[str, ...]
    inner: Inner | None
    table: tuple[tuple[int, ...], ...]
    by_name: Mapping[str, Inner]
    anything: Mapping[str, Any]
    ratio: Fraction | None = field(default=None, metadata=as_text(Fraction))
    note: str | None = None
    double: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "double", 2 * self.count)


WHOLE = Outer(
    count=3,
    sure=True,
    pair=(0.5, 1.0),
    words=("a", "b"),
    inner=Inner("x", 0.25),
    table=((1, 2), ()),
    by_name={"y": Inner("z", 1.0)},
    anything={"deep": {"er": [1, None, "x"]}},
    ratio=Fraction(1, 3),
)
VALUE = to_json(WHOLE)


def test_a_value_survives_json() -> None:
    assert from_json(Outer, json.loads(json.dumps(VALUE))) == WHOLE


def test_what_is_none_by_default_is_left_out_and_other_none_is_written() -> None:
    assert "note" not in VALUE
    without = Outer(1, False, (0.0, 0.0), (), None, (), {}, {})
    assert to_json(without)["inner"] is None
    assert to_json(without)["ratio"] == ""
    assert from_json(Outer, to_json(without)) == without


def test_whole_numbers_are_numbers_and_truth_is_no_number() -> None:
    found = from_json(Outer, {**VALUE, "pair": [1, 0]})
    assert (found.pair, [type(each) for each in found.pair]) == ((1.0, 0.0), [float, float])
    with pytest.raises(ValueError, match="count: expected a whole number, found True"):
        from_json(Outer, {**VALUE, "count": True})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": "3"}, "count: expected a whole number, found '3'"),
        ({"count": 3.0}, "count: expected a whole number, found 3.0"),
        ({"sure": 1}, "sure: expected true or false, found 1"),
        ({"sure": None}, "sure: expected true or false, found None"),
        ({"pair": [0.5]}, r"pair: expected 2 values, found \[0.5\]"),
        ({"pair": [0.5, "x"]}, r"pair\[1\]: expected a number, found 'x'"),
        ({"pair": {}}, "pair: expected a list, found {}"),
        ({"words": "ab"}, "words: expected a list, found 'ab'"),
        ({"words": ["a", 3]}, r"words\[1\]: expected text, found 3"),
        ({"inner": {"name": "x"}}, "inner.share: expected a number, found nothing"),
        ({"inner": {"name": "x", "share": 1, "more": 2}}, "inner: expected the keys name, share, found also 'more'"),
        ({"inner": [1]}, r"inner: expected an object, found \[1\]"),
        ({"table": [[1], [2, 0.5]]}, r"table\[1\]\[1\]: expected a whole number, found 0.5"),
        ({"by_name": {"y": None}}, "by_name.y: expected an object, found None"),
        ({"by_name": {"two\nlines": 3}}, r"by_name.two\\nlines: expected an object, found 3"),
        ({"ratio": "one"}, "ratio: Invalid literal for Fraction: 'one'"),
        ({"ratio": 3}, "ratio: expected text, found 3"),
        ({"count": "x" * 1000}, "count: expected a whole number, found 'xxx.* …$"),
        ({"pair": [10**400, 0]}, r"pair\[0\]: expected a number, found 1000.* …$"),
        ({"unknown\n": 1}, r"the top level: expected the keys count, .*, found also 'unknown\\n'"),
    ],
)
def test_another_value_is_refused_in_one_line_that_says_where(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=rf"^{words}") as caught:
        from_json(Outer, {**VALUE, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(VALUE))
def test_no_value_may_be_missing(name: str) -> None:
    rest = {each: value for each, value in VALUE.items() if each != name}
    with pytest.raises(ValueError, match=f"run.{name}: expected .*, found nothing"):
        from_json(Outer, rest, "run")


@pytest.mark.parametrize("value", [None, 3, "text", [1]])
def test_what_is_no_object_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="the top level: expected an object, found "):
        from_json(Outer, value)
