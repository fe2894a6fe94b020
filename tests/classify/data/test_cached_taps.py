"""Cached taps by name: as short as tells them apart, and one where one is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from humeris.cache.errors import LayerError
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.classify.data import select_features
from humeris.classify.data.cached_taps import CachedTap, disambiguate_titles, find_one_tap, list_cached_taps
from humeris.extract.backbones.non_finite import NonFiniteImages
from humeris.extract.backbones.taps import Tap
from humeris.extract.images.load import load_images

SPEC = ExtractionSpec("made_up", "test", "none", "0" * 64, (8, 8), "none", "1")
OTHERS = {
    "alone": replace(SPEC, backbone="other", weights_sha256="2" * 64),
    "small": SPEC,
    "large": replace(SPEC, image_size=(16, 16)),
    "large, other weights": replace(SPEC, image_size=(16, 16), weights_sha256="1" * 64),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A cache of four extractions with a tap each, of ten images."""
    for number in range(10):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x89PNG\r\n\x1a\n%d" % number)
    store = Store(tmp_path / "cache", write=True)
    keys = load_images(tmp_path / "photos", store, jobs=1).keys
    for spec in OTHERS.values():
        store.get_extraction(spec).add("layer", "avg", keys, np.ones((10, 3), np.float32))
    return store


def of(cached: list[CachedTap], spec: ExtractionSpec) -> CachedTap:
    (found,) = [each for each in cached if each.extraction.spec.digest == spec.digest]
    return found


def test_an_extraction_is_called_by_as_little_as_tells_it_from_the_others(store: Store) -> None:
    cached = list_cached_taps(store, ())
    names = disambiguate_titles([each.extraction for each in cached])
    assert [names[of(cached, spec).extraction.path.name] for spec in OTHERS.values()] == [
        "other",
        "made_up,image_size=8x8",
        *(f"made_up,image_size=16x16 ({OTHERS[name].digest[:8]})" for name in ("large", "large, other weights")),
    ]


def test_a_name_is_of_all_that_it_fits(store: Store) -> None:
    cached = list_cached_taps(store, ())
    fits = {text: [name for name, spec in OTHERS.items() if of(cached, spec).matches_pattern(text)] for text in (
        "layer", "l*:avg", "layer:max", "made_up/layer", "made_up,image_size=16x16/layer:avg", "other/layer", "other/la*"
    )}  # fmt: skip
    assert fits == {
        "layer": list(OTHERS),
        "l*:avg": list(OTHERS),
        "layer:max": [],
        "made_up/layer": ["small", "large", "large, other weights"],
        "made_up,image_size=16x16/layer:avg": ["large", "large, other weights"],
        "other/layer": ["alone"],
        "other/la*": ["alone"],
    }


def test_a_side_that_names_several_taps_is_refused_with_their_names(store: Store) -> None:
    cached = list_cached_taps(store, ())
    assert find_one_tap(cached, "made_up,image_size=8x8/layer", ["a", "b"]) is of(cached, SPEC)
    with pytest.raises(LayerError) as caught:
        find_one_tap(cached, "made_up,image_size=16x16/layer", ["made_up,image_size=16x16/layer", "other/layer"])
    assert ": 2 cached taps match: made_up,image_size=16x16 (" in str(caught.value)
    with pytest.raises(LayerError, match=r": no cached tap matches; closest: other/layer:avg"):
        find_one_tap(cached, "other/lair", ["other/lair", "layer"])


def test_only_the_taps_given_are_candidates(store: Store) -> None:
    only = {(SPEC.digest, Tap("layer", "avg")), (OTHERS["large"].digest, Tap("layer", "max"))}
    assert [each.extraction.spec.digest for each in list_cached_taps(store, (), only)] == [SPEC.digest]


@pytest.mark.parametrize(
    ("patterns", "pools", "found"),
    [
        (["mid:max", "top"], ["avg"], ["mid:max", "top:avg"]),
        (["mid:max"], ["avg"], ["mid:max"]),
        (["net/mid:max", "net/mid"], ["avg"], ["mid:avg", "mid:max"]),
        (["mid"], ["avg", "max"], ["mid:avg", "mid:max"]),
        (["mid:max"], ["cls"], ["mid:max"]),
        (["mid:max+top"], ["avg"], ["mid:max + top:avg"]),
        (["mid:max+mid"], ["avg"], ["mid:max + mid:avg"]),
        ([], ["avg"], ["mid:avg", "top:avg"]),
    ],
)
def test_pools_are_for_the_layers_that_name_none(
    tmp_path: Path, patterns: list[str], pools: list[str], found: list[str]
) -> None:
    store, keys = Store(tmp_path / "cache", write=True), np.array([bytes([65 + row]) * 32 for row in range(10)], "S32")
    for layer, pool in (("mid", "max"), ("mid", "avg"), ("top", "avg"), ("top", "grid2")):
        store.get_extraction(replace(SPEC, backbone="net")).add(layer, pool, keys, np.ones((10, 3), np.float32))
    inputs = select_features.find_features(store, keys, select_features.FeatureQuery(patterns=patterns, pools=pools)).inputs
    assert sorted(" + ".join(str(tap).removeprefix("net/") for tap in taps) for taps in inputs) == sorted(found)


@pytest.mark.parametrize(
    ("patterns", "pools", "said"),
    [
        (
            ["mid", "top"],
            ["max"],
            r"layer 'top' with pool max: no cached tap matches \(closest: .*top:avg.*\); run .* -l top --pool max first",
        ),
        (["mid:cls"], ["avg"], r"layer 'mid:cls': no cached tap matches"),
        (
            ["mid:max", "top"],
            ["cls"],
            r"pool 'cls': not cached \(cached pools: avg, max\); run `humeris extract` with --pool cls first",
        ),
        (["mid+top"], ["max"], r"layer 'top' of mid\+top with pool max: no cached tap matches; closest: "),
    ],
)
def test_a_layer_that_is_not_cached_with_the_pool_is_named_with_it(
    tmp_path: Path, patterns: list[str], pools: list[str], said: str
) -> None:
    store, keys = Store(tmp_path / "cache", write=True), np.array([bytes([65 + row]) * 32 for row in range(10)], "S32")
    for layer, pool in (("mid", "max"), ("mid", "avg"), ("top", "avg")):
        store.get_extraction(SPEC).add(layer, pool, keys, np.ones((10, 3), np.float32))
    with pytest.raises(LayerError, match=said):
        select_features.find_features(store, keys, select_features.FeatureQuery(patterns=patterns, pools=pools))


def test_images_that_a_tap_has_no_finite_row_of_are_refused(store: Store, tmp_path: Path) -> None:
    images = load_images(tmp_path / "photos", store, jobs=1)
    bad = images.used[3]
    NonFiniteImages(store.kv_store, SPEC).add(Tap("layer", "avg"), [bad.digest])
    found = select_features.find_features(
        store, images.keys, select_features.FeatureQuery(patterns=["made_up,image_size=8x8/layer"])
    )
    left = found.drop_non_finite(images)
    assert [image.name for image in left.used] == [image.name for image in images.used if image.name != bad.name]
    assert [(each.name, each.reason, each.detail) for each in left.rejections] == [
        (bad.name, "not_finite", "NaN or infinite activations")
    ]
