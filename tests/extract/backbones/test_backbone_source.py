"""Backbone sources: the conformance of every source, and a source of another package from extraction to export."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import humeris as package
from humeris.cache.errors import BackboneError
from humeris.cache.spec import DESCRIPTIVE_FIELDS, ExtractionSpec
from humeris.extract.backbones import registry
from humeris.extract.backbones.backbone_source import BackboneInfo, BackboneSource
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.backbones.preprocessing import MODES
from humeris.extract.backbones.registry import SOURCES, describe_license, find_source, list_sources

# A plug-in, as another package would write it.
PLUG_IN = '''
"""Small networks of a laboratory's own."""

import humeris

TOY = humeris.BackboneInfo("toy", "Toy", 32, "unit", min_size=16, pretrained_weights="blocks")


class Toys(humeris.BackboneSource):
    name = "toys"

    def list_backbones(self):
        return [TOY]

    def build(self, spec):
        import keras

        image = keras.Input(spec.input_shape)
        x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="edges")(image)
        x = keras.layers.Conv2D(16, 3, strides=2, activation="relu", name="shapes")(x)
        model = keras.Model(image, x)
        if spec.has_pretrained_weights:  # which are no better, but others
            model.set_weights([2 * weight for weight in model.get_weights()])
        return model

    def get_license(self, spec):
        return "free for everyone, by a toymaker"


humeris.register_backbone_source(Toys())
'''


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackboneSource]:
    """The source of `PLUG_IN`, registered as long as the test runs."""
    (tmp_path / "toy_backbones.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_registered_sources", [])
    module = importlib.import_module("toy_backbones")
    yield module.Toys()
    del sys.modules["toy_backbones"]


def test_the_license_of_a_users_weights_is_not_that_of_the_network() -> None:
    from humeris.extract.backbones.build import build

    spec = build(BackboneSpec.parse("nano")).spec
    assert describe_license(replace(spec, weights="/home/me/own.weights.h5")).startswith(
        "unknown to humeris: the weights are from the file own.weights.h5"
    )
    assert "not known" not in describe_license(spec)


# --- a source from outside


def test_a_source_from_outside_is_short() -> None:
    assert len(PLUG_IN.strip().splitlines()) < 40


def test_a_source_from_outside_goes_from_images_to_a_model(
    toys: BackboneSource, photos: Path, tmp_path: Path, humeris: Callable[..., Any]
) -> None:
    cache, run, model = ("--cache", tmp_path / "cache"), tmp_path / "run", tmp_path / "toy.keras"
    listed = humeris("backbones", "--json").json["backbones"][-1]
    assert (listed["name"], listed["size"], listed["pretrained_weights"]) == ("toy", 32, "blocks")
    assert {each["layer"] for each in humeris("layers", "TOY", *cache, "--json").json["layers"]} == {"edges", "shapes"}
    extracted = humeris("extract", photos, "-b", "Toy", "-l", "shapes", "-j", 1, *cache, "--json")
    assert extracted.code == 0, extracted.err
    assert extracted.json["extracted"][0]["computed"] == 36
    assert humeris("sweep", photos, "-b", "toy", "--head", "logreg,C=1", "-j", 1, "-o", run, *cache).code == 0
    assert humeris("export", run, "-o", model, *cache).code == 0
    card = Path(f"{model}.md").read_text()
    assert "backbone: toy (toys.Toy()), up to its deepest tap; SHA-256 of the weights " in card
    assert "- toy: free for everyone, by a toymaker" in card
    assert "preprocessing inside the model: pixels scaled to [0, 1]\n" in card
    images = [photos / name / "00.png" for name in ("blob", "noise", "stripes")]
    predicted = humeris("predict", model, *images, "--json")
    assert predicted.code == 0, predicted.err
    assert [each["predicted"] for each in predicted.json["predictions"]] == ["blob", "noise", "stripes"]


def test_its_spec_rebuilds_it_with_its_own_and_with_random_weights(toys: BackboneSource) -> None:
    from humeris.extract.backbones.build import build

    own, random = (build(BackboneSpec.parse(text)).spec for text in ("toy", "toy,weights=random,seed=3"))
    assert (own.weights, random.weights) == ("blocks", "random, seed 3")
    assert own.weights_sha256 != random.weights_sha256
    for spec in (own, random):
        assert build(BackboneSpec.from_spec(spec)).spec == spec
    assert describe_license(random) == "random numbers"
    with pytest.raises(BackboneError, match="at least 16 pixels"):
        build(BackboneSpec.parse("toy,image_size=8"))
    with pytest.raises(BackboneError, match="no arguments, got alpha"):
        BackboneSpec.parse("toy,alpha=1")


def test_a_process_that_gets_one_of_its_backbones_has_it_registered(tmp_path: Path) -> None:
    (tmp_path / "toy_backbones.py").write_text(PLUG_IN)
    paths = os.pathsep.join([str(tmp_path), str(Path(package.__file__).parent.parent)])

    def run(code: str, data: bytes = b"") -> bytes:
        command = [sys.executable, "-c", f"import pickle, sys\n{code}"]
        environment = {**os.environ, "PYTHONPATH": paths}
        return subprocess.run(command, input=data, capture_output=True, env=environment, check=True).stdout

    parse = "from humeris import BackboneSpec\nspec = BackboneSpec.parse('toy,image_size=64')\n"
    pickled = run(f"import toy_backbones\n{parse}sys.stdout.buffer.write(pickle.dumps(spec))")
    answer = run(f"sent = pickle.load(sys.stdin.buffer)\n{parse}print(spec == sent)", pickled)
    assert answer.split() == [b"True"]


def test_without_its_plug_in_a_backbone_is_an_unknown_name() -> None:
    with pytest.raises(BackboneError, match=r"unknown name \(closest: .*`humeris backbones` lists"):
        BackboneSpec.from_spec(ExtractionSpec("toy", "toys.Toy()", "blocks", "0" * 64, (32, 32), "unit", "1"))


def test_a_source_cannot_take_the_name_of_another_or_of_its_backbones(toys: BackboneSource) -> None:
    class Namesake(type(toys)):  # type: ignore[misc]
        name = "nano"

    class Impostor(type(toys)):  # type: ignore[misc]
        name = "impostor"

        def list_backbones(self) -> list[BackboneInfo]:
            return [BackboneInfo("ResNet-50", "", 224, "tf")]

    with pytest.raises(ValueError, match="another source has this name; rename it"):
        registry.register_backbone_source(Namesake())
    with pytest.raises(ValueError, match="another source has a backbone 'ResNet-50'; rename it"):
        registry.register_backbone_source(Impostor())
    assert list_sources() == (*SOURCES, toys)


# --- what every source keeps to


@pytest.fixture(params=[source.name for source in SOURCES] + ["toys"])
def source(request: pytest.FixtureRequest, toys: BackboneSource) -> BackboneSource:
    (found,) = (each for each in list_sources() if each.name == request.param)
    return found


@pytest.fixture
def texts(source: BackboneSource, tmp_path: Path) -> list[str]:
    """Requests for backbones of the source: all that come by name, or a file."""
    path = tmp_path / "my net.keras"
    path.write_bytes(b"")
    return [info.name for info in source.list_backbones()] or [f"{path},preprocessing=tf"]


def test_it_lists_what_it_finds(source: BackboneSource) -> None:
    for info in source.list_backbones():
        for spelling in (info.name, info.name.upper(), info.constructor):
            assert find_source(spelling) == source
            assert source.describe(spelling) == info
        assert info.preprocessing in MODES
        assert info.size is not None
        assert info.size >= info.min_size
        assert json.loads(json.dumps(info.to_dict()))["name"] == info.name
    assert not source.matches("no such backbone")
    assert not source.matches("")


def test_what_is_asked_for_can_be_written_and_read_again(source: BackboneSource, texts: list[str]) -> None:
    for text in texts:
        for options in ("", ",image_size=400x416", ",precision=bfloat16", ",weights=w.weights.h5"):
            spec = BackboneSpec.parse(f"{text}{options}")
            assert spec.source == source
            assert BackboneSpec.parse(spec.title) == spec
            assert pickle.loads(pickle.dumps(spec)) == spec


def test_what_was_extracted_can_be_asked_for_again(source: BackboneSource, texts: list[str]) -> None:
    for text in texts:
        asked = BackboneSpec.parse(text, image_size=400)
        fields = asked.to_descriptive_fields()
        assert set(fields) == set(DESCRIPTIVE_FIELDS)
        mode = asked.preprocessing or asked.info.preprocessing
        architecture = source.compute_architecture(asked) if source.list_backbones() else "sha256:0"
        extraction = ExtractionSpec(
            **fields,
            architecture=architecture,
            weights_sha256="0" * 64,
            image_size=(400, 400),
            preprocessing=mode,
            pixels="1",
        )
        again = BackboneSpec.from_spec(extraction)
        assert again.source == source
        assert again.to_descriptive_fields() == fields
        assert source.is_same(again, extraction)
        assert source.is_same(asked, extraction)
        others = [other for other in list_sources() if other != source]
        assert not any(other.is_same(asked, extraction) for other in others)
        assert describe_license(extraction) == source.get_license(extraction)
        assert not describe_license(extraction).endswith(".")


def test_networks_of_two_names_have_two_keys(source: BackboneSource, texts: list[str]) -> None:
    specs = [BackboneSpec.parse(text) for text in texts]
    assert len({json.dumps(source.list_key_parts(spec)) for spec in specs}) == len(specs)
    if source.list_backbones():
        assert len({source.compute_architecture(spec) for spec in specs}) == len(specs)


def test_a_source_says_whether_it_has_random_weights(source: BackboneSource, texts: list[str]) -> None:
    for text in texts:
        if source.allows_random_weights:
            assert BackboneSpec.parse(text, weights="random", seed=1).has_random_weights
        else:
            with pytest.raises(package.HumerisError, match="--weights random is not available"):
                BackboneSpec.parse(text, weights="random")


def test_to_list_and_to_ask_imports_no_deep_learning_framework() -> None:
    code = (
        "import sys\nfrom humeris.extract.backbones.backbone_spec import BackboneSpec\n"
        "from humeris.extract.backbones.registry import list_backbones\n"
        "specs = [BackboneSpec.parse(info.name) for info in list_backbones()]\n"
        "[(each.source.compute_architecture(each), each.source.list_key_parts(each), each.title) for each in specs]\n"
        "print(len(specs), *(name for name in ('keras', 'tensorflow', 'jax', 'torch') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["41"]
