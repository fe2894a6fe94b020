"""The registry of backbone sources, and the source of a name."""

from __future__ import annotations

import pytest

from humeris.cache.errors import BackboneError
from humeris.extract.backbones.registry import SOURCES, find_source, list_backbones, list_sources, register_backbone_source


def test_there_are_forty_backbones_of_keras_and_nano() -> None:
    infos = list_backbones()
    assert len(infos) == 41
    assert len({info.name for info in infos}) == 41
    assert (infos[0].name, infos[0].size) == ("nano", 64)


@pytest.mark.parametrize(
    ("text", "source"),
    [("nano", "nano"), ("ResNet-50", "keras.applications"), ("a/net.keras", "keras file"), ("nano.h5", "keras file")],
)
def test_a_name_belongs_to_one_source(text: str, source: str) -> None:
    assert find_source(text).name == source
    assert [each.name for each in list_sources() if each.matches(text)] == [source]


@pytest.mark.parametrize(
    ("name", "close"), [("resnet_51", "resnet50"), ("efficientnet", "efficientnet_b"), ("nanoo", "nano")]
)
def test_an_unknown_name_lists_the_closest(name: str, close: str) -> None:
    with pytest.raises(BackboneError, match=close) as caught:
        find_source(name)
    assert "\n" not in str(caught.value)
    assert "humeris backbones" in str(caught.value)


@pytest.mark.parametrize("name", ["", "qqqqqq", "!", "../x"])
def test_a_name_like_no_other_is_one_line(name: str) -> None:
    with pytest.raises(BackboneError, match=r"\(closest: none\)"):
        find_source(name)


def test_a_source_that_is_there_is_not_registered_twice() -> None:
    for source in SOURCES:
        register_backbone_source(type(source)())
    assert list_sources() == SOURCES
