"""Parsing of requested backbones."""

from __future__ import annotations

from pathlib import Path

import pytest

from humeris.cache.errors import BackboneError
from humeris.extract.backbones.backbone_spec import BackboneSpec, parse_size


def test_a_name_alone_takes_its_own_weights() -> None:
    request = BackboneSpec.parse("MobileNetV2")
    assert (request.name, request.weights, dict(request.arguments)) == ("mobilenet_v2", "imagenet", {})
    assert BackboneSpec.parse("nano").weights == "synthetic"
    assert BackboneSpec.parse("nano", weights="pretrained").weights == "synthetic"


def test_arguments_are_json_values() -> None:
    request = BackboneSpec.parse(
        "mobilenet_v2, alpha=0.35 ,include_top=true,minimalistic=False,weights_name=x,dropout=null,n=3"
    )
    assert dict(request.arguments) == {
        "alpha": 0.35,
        "dropout": None,
        "include_top": True,
        "minimalistic": False,
        "n": 3,
        "weights_name": "x",
    }


def test_what_the_text_says_wins_over_the_option() -> None:
    request = BackboneSpec.parse("nano,weights=random,image_size=32,seed=7", weights="imagenet", image_size="64", seed=1)
    assert (request.weights, request.image_size, request.seed) == ("random", (32, 32), 7)
    request = BackboneSpec.parse("nano", weights="random", image_size="64x96", seed=3)
    assert (request.weights, request.image_size, request.seed) == ("random", (64, 96), 3)


@pytest.mark.parametrize(("text", "size"), [("224", (224, 224)), ("64x96", (64, 96)), (8, (8, 8)), ("4096", (4096, 4096))])
def test_an_image_size(text: str | int, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "7", "4097", "64x", "x64", "64x7", "-64", "64.0", "64 x 64", "1e2", "٦٤x", "64\n"])
def test_an_image_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BackboneError, match="8 to 4096"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nano,alpha", "option 'alpha' has no '='"),
        ("nano,", "option '' has no '='"),
        ("nano,seed=x", "whole number"),
        ("nano,preprocessing=keras", r"tf \(\[-1, 1\]\)"),
        ("nano,image_size=big", "8 to 4096"),
        ("resnet_51", "closest: resnet50"),
        ("resnet50,pooling=avg", "pooling is set by humeris"),
        ("resnet50,input_shape=3", "input_shape is set by humeris"),
        ("net.keras,preprocessing=tf", "no such file; check the path"),
        ("", "closest"),
        (",", "has no '='"),
    ],
)
def test_a_request_that_makes_no_sense_is_one_line(text: str, said: str) -> None:
    with pytest.raises(BackboneError, match=said) as caught:
        BackboneSpec.parse(text)
    assert "\n" not in str(caught.value)


def test_a_file_needs_its_preprocessing(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    path.write_bytes(b"")
    with pytest.raises(BackboneError, match=r"preprocessing=MODE with MODE one of tf.*caffe"):
        BackboneSpec.parse(str(path))
    request = BackboneSpec.parse(f"{path},preprocessing=caffe")
    assert (request.name, request.info.file, request.weights, request.preprocessing) == ("net", path, "file", "caffe")


def test_a_file_takes_no_constructor_arguments_and_no_old_format(tmp_path: Path) -> None:
    for name in ("net.keras", "net.h5"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(BackboneError, match="no constructor arguments, got alpha"):
        BackboneSpec.parse(f"{tmp_path}/net.keras,preprocessing=tf,alpha=1")
    with pytest.raises(BackboneError, match=r"the \.h5 format of Keras 2"):
        BackboneSpec.parse(f"{tmp_path}/net.h5,preprocessing=tf")


@pytest.mark.parametrize("text", ["nano", "mobilenet_v2,alpha=0.35", "nano,image_size=32x48,seed=5,weights=random"])
def test_the_title_asks_for_the_same_again(text: str) -> None:
    request = BackboneSpec.parse(text)
    assert BackboneSpec.parse(request.title) == request


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("net.h5", b"\x89HDF\r\n\x1a\n", r"the \.h5 format of Keras 2; load it in Keras, and save it as a functional model"),
        ("net.pt", b"PK\x03\x04", "a PyTorch file; give a network of Keras, or one converted to it"),
        ("net.safetensors", b"\x10" + bytes(7), "weights without a network; build the network in Keras, load them"),
        ("net.onnx", b"\x08\x07", r"an ONNX model; give the \.keras file that it was made from"),
        ("net.pb", b"\x0a\x10", "a TensorFlow graph; load it in Keras"),
        ("net.keras", b"version https://git-lfs.github.com/spec/v1\n", r"a Git LFS pointer, not a \.keras file; fetch the"),
        ("net.keras", b"<!DOCTYPE html>", r"an HTML page, .*, not a \.keras file; download the file again"),
        ("net.keras", b"\x1f\x8b\x08", r"a gzip archive, not a \.keras file; unpack it"),
        ("net.keras", b"garbage", "cannot be read as a .keras file"),
        ("folder/saved_model.pb", b"", "a SavedModel folder, which has no layers to tap; load it in Keras"),
    ],
)
def test_what_is_no_keras_file_is_named_with_the_remedy(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    given = path.parent if name.startswith("folder") else path
    with pytest.raises(BackboneError, match=message) as caught:
        BackboneSpec.parse(f"{given},preprocessing=tf").source.compute_architecture(
            BackboneSpec.parse(f"{given},preprocessing=tf")
        )
    assert "\n" not in str(caught.value)
