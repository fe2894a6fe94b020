"""Views: augmentations cached beside the plain image, computed once, shared by nothing they should not be shared by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from humeris.cache.store import Store
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.build import build
from humeris.extract.backbones.forward import ForwardPass
from humeris.extract.backbones.taps import Tap
from humeris.extract.engine.extract import extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images
from humeris.extract.pixels import decode as pixels
from humeris.extract.pixels.augment import Policy

Run = Callable[..., object]
POLICY = Policy.parse("flip,crop,color")
NANO = BackboneSpec.parse("nano")


def test_views_are_the_network_on_the_augmented_pixels(photos: Path) -> None:
    with Store(write=True) as store:
        images = load_images(photos, store)
        done = extract_features(
            images, store, ExtractConfig(NANO, layers=["block4_out"], views=3, augment=POLICY, batch_size=16)
        )[0]
        augmented = store.get_extraction(replace(done.metadata.spec, views=POLICY.version)).get_features("block4_out", "avg")
        plain = store.get_extraction(done.metadata.spec).get_features("block4_out", "avg")
        forward = ForwardPass(build(NANO).graph, [Tap("block4_out", "avg")], 16)
        for image in images.used[::9]:
            number = images.used.index(image)
            key = images.keys[number : number + 1]
            whole = pixels.decode(Path(image.item.location).read_bytes(), (64, 64))
            shown = [whole, *(POLICY.make_view(whole, image.digest, view) for view in (1, 2, 3))]
            (expected,) = forward(shown)
            assert np.allclose(plain.read(key)[0], expected[0], rtol=1e-5, atol=1e-6)
            for view in (1, 2, 3):
                assert np.allclose(augmented.read(key, view)[0], expected[view], rtol=1e-5, atol=1e-6)
        assert augmented.find_missing(images.keys, 0).all()
        assert augmented.find_missing(images.keys, 4).all()
    assert done.computed == 4 * len(images.used)


def test_more_views_cost_only_what_is_missing_and_another_policy_shares_the_plain_view(photos: Path) -> None:
    with Store(write=True) as store:
        images = load_images(photos, store)
        count = len(images.used)

        def computed(**options: object) -> int:
            return extract_features(images, store, ExtractConfig(NANO, layers=["block4_out"], **options))[0].computed

        assert computed() == count
        assert computed(views=1, augment=POLICY) == count
        assert computed(views=3, augment=POLICY) == 2 * count
        assert computed(views=3, augment=POLICY) == 0
        assert computed(views=2, augment=Policy.parse("flip")) == 2 * count
        assert computed() == 0


def test_backbones_of_one_image_size_share_the_decoding(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from humeris.extract.pixels.decode_pool import DecoderPool

    decoded = []
    decode = DecoderPool.decode

    def counted(self: DecoderPool, image: object, *rest: object) -> np.ndarray:
        decoded.append(image)
        return decode(self, image, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(DecoderPool, "decode", counted)
    requests = [NANO, BackboneSpec.parse("nano,weights=random"), BackboneSpec.parse("nano,image_size=48")]
    with Store(write=True) as store:
        images = load_images(photos, store)
        done = extract_features(images, store, ExtractConfig(requests, layers=["block4_out"]))
        assert len(decoded) == 2 * len(images.used)
        assert [each.computed for each in done] == [len(images.used)] * 3
        alone = Store(store.path.parent / "alone", write=True)
        for request, each in zip(requests, done, strict=True):
            extract_features(images, alone, ExtractConfig(request, layers=["block4_out"]))[0]
            together = store.get_extraction(each.metadata.spec).get_features("block4_out", "avg").read(images.keys)
            assert np.array_equal(
                alone.get_extraction(each.metadata.spec).get_features("block4_out", "avg").read(images.keys), together
            )


def test_a_sweep_passes_over_augmented_extractions(photos: Path, humeris: Run, tmp_path: Path) -> None:
    result = humeris("extract", photos, "-b", "nano", "-l", "block4_out", "--views", 2, "--augment", "flip,crop", "--json")
    assert result.code == 0, result.err  # type: ignore[attr-defined]
    assert result.json["extracted"][0]["views"] == 2  # type: ignore[attr-defined]
    listed = humeris("cache", "list", "--json").json  # type: ignore[attr-defined]
    assert len(listed["extractions"]) == 2
    swept = humeris("sweep", photos, "-o", tmp_path / "run", "--json")
    assert swept.code == 0, swept.err  # type: ignore[attr-defined]


@pytest.mark.parametrize("options", [["--views", 2], ["--augment", "flip"]])
def test_views_and_augment_go_together(options: list[object], photos: Path, humeris: Run) -> None:
    assert humeris("extract", photos, "-b", "nano", *options).code == 2  # type: ignore[attr-defined]


def test_an_unknown_augmentation_is_one_line(photos: Path, humeris: Run) -> None:
    result = humeris("extract", photos, "-b", "nano", "--views", 1, "--augment", "flop")
    assert result.code == 2  # type: ignore[attr-defined]
    assert "use one of flip" in result.err  # type: ignore[attr-defined]
    assert len(result.err.splitlines()) == 1  # type: ignore[attr-defined]


def test_a_dry_run_counts_views(photos: Path, humeris: Run) -> None:
    plain = humeris("extract", photos, "-b", "nano", "-l", "block4_out", "--dry-run", "--json").json  # type: ignore[attr-defined]
    views = humeris(  # type: ignore[attr-defined]
        "extract", photos, "-b", "nano", "-l", "block4_out", "--views", 3, "--augment", "flip", "--dry-run", "--json"
    ).json
    assert views["planned"][0]["bytes"] == 4 * plain["planned"][0]["bytes"]
    assert views["planned"][0]["to_compute"] == 4 * plain["planned"][0]["to_compute"]


def test_an_image_that_cannot_be_decoded_is_refused_in_the_passes_of_every_size(photos: Path) -> None:
    bad = photos / "blob/05.png"
    bad.write_bytes(bad.read_bytes()[:-60])
    requests = [NANO, BackboneSpec.parse("nano,image_size=48"), BackboneSpec.parse("nano,image_size=40")]
    with Store(write=True) as store:
        done = extract_features(load_images(photos, store), store, ExtractConfig(requests, layers=["block4_out"]))
        for each in done:
            assert each.computed == len(each.images.used) == 35
            assert [refusal.name for refusal in each.images.rejections] == ["blob/05.png"]
            rows = store.get_extraction(each.metadata.spec).get_features("block4_out", "avg")
            assert not rows.find_missing(each.images.keys).any()
        again = extract_features(load_images(photos, store), store, ExtractConfig(requests, layers=["block4_out"]))
    assert [each.passes for each in again] == [0, 0, 0]


def test_many_views_come_in_groups_and_are_all_there(photos: Path) -> None:
    policy = Policy.parse("flip,crop")
    with Store(write=True) as store:
        images = load_images(photos, store, limit=1)
        done = extract_features(
            images, store, ExtractConfig(NANO, layers=["block4_out"], views=19, augment=policy, batch_size=16)
        )[0]
        assert (done.computed, done.rows) == (60, {"block4_out:avg": 60})
        augmented = store.get_extraction(replace(done.metadata.spec, views=policy.version)).get_features("block4_out", "avg")
        assert not any(augmented.find_missing(images.keys, view).any() for view in range(1, 20))
        assert (
            extract_features(images, store, ExtractConfig(NANO, layers=["block4_out"], views=19, augment=policy))[0].passes
            == 0
        )
