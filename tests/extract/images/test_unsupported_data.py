"""DATA that is no data set is named in one line, with what to do."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from humeris.cache.errors import DataError
from humeris.extract.images.registry import open_source


def make_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("cat/1.jpg", b"\xff\xd8\xff")
    return buffer.getvalue()


def make_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("photos.zip", make_zip(), "a ZIP archive .*; unpack it, and give the folder"),
        ("photos.tar.gz", b"\x1f\x8b\x08" + bytes(40), "a gzip archive; unpack it"),
        ("photos.tar", bytes(257) + b"ustar\x0000" + bytes(200), "a tar archive; unpack it"),
        ("data.mat", b"MATLAB 5.0 MAT-file", r"a MATLAB file; save its arrays in an \.npz file"),
        ("train.tfrecord", bytes(40), "a TFRecord file; write its images to class folders"),
        ("train.txt", b"a.jpg 0\n", "a text file; save the list as CSV with the columns path,label"),
        ("data.yaml", b"train: a\n", "a YAML file, as of a YOLO data set; give the folder of its images"),
        ("x.npy", b"\x93NUMPY\x01\0", "a single array; save images and labels together"),
        ("net.pt", make_zip(), "a model or its weights, not images; give images, and the network with -b"),
        ("net.onnx", b"\x08\x07", "a model or its weights"),
        ("coco.json", json.dumps({"images": [], "annotations": []}).encode(), "a COCO file, whose annotations are boxes"),
        ("labels.json", b"[1, 2]", "a JSON document, not JSON Lines; list the images in a .csv file"),
        ("labels.json", b"{", "a JSON file that cannot be parsed"),
        ("page.csv.download", b"<!DOCTYPE html>", "an HTML page, .*; download the file again"),
        ("photo.jpg", make_png(), "a single image; give the folder that holds the class folders"),
        ("data.bin", b"\x01\x02\x03", "kind of data is not supported; give images in class folders"),
        ("empty.bin", b"", "kind of data is not supported"),
    ],
)
def test_what_is_no_data_set_is_named_with_the_remedy(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}: {message}") as caught:
        open_source(tmp_path / name)
    assert "\n" not in str(caught.value)
