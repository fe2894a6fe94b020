"""Cuts of a network: the layer that `--from` finds, and the errors for layers that cannot be cut at."""

from __future__ import annotations

from pathlib import Path

import pytest

from humeris.cache.errors import LayerError
from humeris.cache.store import Store
from humeris.extract.backbones import cut_points as cut
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.graph import Layer
from humeris.extract.backbones.metadata import get_or_build
from humeris.extract.backbones.taps import Tap

MAP = (8, 8, 16)


def layer(name: str, parameters: int, *, is_cut_point: bool = True, is_block_end: bool = True) -> Layer:
    return Layer(name, "Conv2D", MAP, 1, 1, is_cut_point, is_block_end, parameters)


NETWORK = [
    layer("stem", 10, is_block_end=False),
    layer("stem_relu", 10),
    layer("mixed3", 20),
    layer("mixed4_branch", 25, is_cut_point=False),
    layer("mixed4_tower", 28, is_cut_point=False),
    layer("mixed4", 30),
    layer("mixed5_branch", 35, is_cut_point=False),
    layer("mixed5", 40),
    layer("mixed5_relu", 40),
    layer("mixed6", 50),
]
TOP = [Tap("mixed5_relu", "avg")]


def found(text: str, wanted: list[Tap] | None = None, network: list[Layer] | None = None) -> str | None:
    place = cut.find_cut(text, network or NETWORK, wanted or TOP)
    return None if place is None else place.name


def refused(text: str, wanted: list[Tap] | None = None, network: list[Layer] | None = None) -> str:
    with pytest.raises(LayerError) as caught:
        cut.find_cut(text, network or NETWORK, wanted or TOP)
    said = str(caught.value)
    assert "\n" not in said
    assert text in said
    return said


def test_a_layer_is_found_however_it_is_commonly_written() -> None:
    spellings = ["mixed4", "mixed_4", "Mixed-4", "MIXED4", "mixed_4:map"]
    assert {found(text) for text in spellings} == {"mixed4"}
    assert found("input") is None


def test_a_layer_that_is_not_there_is_answered_with_those_that_resemble_it() -> None:
    assert "(closest: mixed3, mixed4_tower, mixed4, mixed5, mixed6);" in refused("mixd_4")


@pytest.mark.parametrize("text", ["mixed5_relu", "mixed6", "mixed_6"])
def test_a_layer_at_the_tap_or_above_it_is_refused_with_the_last_ones_below(text: str) -> None:
    said = refused(text)
    assert "the layer is not below the run's tap mixed5_relu:avg" in said
    assert said.endswith("; use mixed3 or mixed4")


def test_nothing_to_train_between_the_layer_and_the_tap_is_refused() -> None:
    said = refused("mixed5")
    assert "no weights to train between the layer and the run's tap mixed5_relu:avg" in said
    assert said.endswith("; use mixed3 or mixed4")


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("mixed4_branch", "mixed3 or mixed4"), ("mixed4_tower", "mixed3 or mixed4"), ("mixed5_branch", "mixed4")],
)
def test_a_layer_that_connections_pass_by_is_refused_with_the_nearest_cuts_on_either_side(text: str, nearest: str) -> None:
    said = refused(text)
    assert "skip connections bypass the layer" in said
    assert said.endswith(f"; use {nearest}")


def test_of_several_taps_the_lowest_decides() -> None:
    wanted = [Tap("mixed6", "avg"), Tap("mixed4", "max")]
    assert found("mixed3", wanted) == "mixed3"
    said = refused("mixed4", wanted)
    assert "the layer is not below the run's tap mixed4:max" in said
    assert said.endswith("; use stem_relu or mixed3")


@pytest.mark.parametrize("pool", ["avg", "max", "grid2"])
def test_a_pool_is_refused_for_whole_maps_are_trained_on(pool: str) -> None:
    assert f"a cut has no pool, because the whole output of the layer is cached; leave out :{pool}" in refused(
        f"mixed4:{pool}"
    )


@pytest.mark.parametrize("text", ["mixed*", "*relu"])
def test_a_pattern_of_several_layers_is_refused_with_cuts_to_choose_from(text: str) -> None:
    said = refused(text)
    assert " layers, not one" in said
    assert said.endswith("; use mixed3 or mixed4")


def test_a_pattern_of_one_layer_is_that_layer() -> None:
    assert found("*3") == "mixed3"


def test_a_network_without_a_cut_below_the_tap_is_trained_from_the_input() -> None:
    network = [layer("a", 10, is_cut_point=False), layer("b", 20)]
    assert refused("a", [Tap("b", "avg")], network).endswith("there is no cut; use --from input")
    assert refused("b", [Tap("b", "avg")], network).endswith("there is no cut; use --from input")


def test_the_cuts_that_are_offered_are_the_ones_that_are_found() -> None:
    offered = [each.name for each in cut.list_cuts(NETWORK, TOP)]
    assert offered == ["stem", "stem_relu", "mixed3", "mixed4"]
    assert [found(name) for name in offered] == offered
    for name in {each.name for each in NETWORK} - set(offered):
        refused(name)


def test_in_mobilenet_a_residual_connection_is_passed_by_and_its_ends_are_cuts(tmp_path: Path) -> None:
    """Layers of Keras in common spellings; the oracle is which tensors each addition of MobileNetV2 adds."""
    store = Store(tmp_path / "cache", write=True)
    request = BackboneSpec.parse("mobilenet_v2,alpha=0.35", weights="random", image_size=32)
    card, backbone = get_or_build(request, store.kv_store)
    assert backbone is not None
    top = [Tap("out_relu", "avg")]
    assert found("block13_expandReLU", top, card.layers) == "block_13_expand_relu"
    said = refused("block_8_expand_relu", top, card.layers)
    assert said.endswith("; use block_7_add or block_8_add")
    sums = [each for each in backbone.graph.operations.values() if type(each).__name__ == "Add"]
    assert len(sums) == 10
    offered = {each.name for each in cut.list_cuts(card.layers, top)}
    order = [each.name for each in card.layers]
    for each in sums:
        skipped, through = (tensor._keras_history.operation.name for tensor in each.input)
        low, high = sorted((order.index(skipped), order.index(each.name)))
        assert skipped in offered
        assert each.name in offered
        assert not offered & set(order[low + 1 : high]), f"{skipped} is added to {through} in {each.name}"
