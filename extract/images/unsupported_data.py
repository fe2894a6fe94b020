"""What DATA is, where it is no data set that can be read, and what its user can do."""

from __future__ import annotations

import json
from pathlib import Path

from ...cache.errors import DataError
from ..pixels.file_kinds import describe_kind, find_format

SUPPORTED = (
    "images in class folders (root/cat/1.jpg), in split folders (root/train/cat/1.jpg), listed with the columns path,label "
    "in a .csv, .tsv, .jsonl or .parquet file, or as arrays in an .npz file"
)
_MODEL_SUFFIXES = {".keras", ".pt", ".pth", ".safetensors", ".onnx", ".tflite", ".pb", ".ckpt", ".caffemodel", ".weights"}
_BY_SUFFIX = {
    ".yaml": "a YAML file, as of a YOLO data set; give the folder of its images, with a folder for each class",
    ".yml": "a YAML file, as of a YOLO data set; give the folder of its images, with a folder for each class",
    ".txt": "a text file; save the list as CSV with the columns path,label",
    ".lst": "a text file; save the list as CSV with the columns path,label",
    ".xlsx": "a spreadsheet; save the list as CSV with the columns path,label",
    ".xls": "a spreadsheet; save the list as CSV with the columns path,label",
    ".tfrecord": "a TFRecord file; write its images to class folders",
    ".tfrecords": "a TFRecord file; write its images to class folders",
    ".mat": "a MATLAB file; save its arrays in an .npz file (x, y), or write its images to class folders",
    ".npy": "a single array; save images and labels together in an .npz file (x, y)",
    ".pkl": "a Python pickle; save its arrays in an .npz file (x, y)",
    ".pickle": "a Python pickle; save its arrays in an .npz file (x, y)",
    ".xml": "an XML annotation, as of VOC; give the folder of its images, with a folder for each class",
}
_MAX_JSON_BYTES = 1 << 28


def build_unsupported_error(data: Path) -> DataError:
    """Return the error for a path that exists and that no source can read: what it is, and the remedy."""
    if data.is_dir():
        return DataError(f"{data}: kind of data is not supported; give {SUPPORTED}")
    suffix = data.suffix.lower()
    try:
        with data.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        return DataError(f"{data}: cannot be read: {error.strerror or error}")
    kind = describe_kind(head) if head else None
    is_known = kind is not None and not kind.name.startswith("unknown format")
    if find_format(head) is not None:
        return DataError(f"{data}: a single image; give the folder that holds the class folders")
    if suffix in _MODEL_SUFFIXES:
        return DataError(f"{data}: a model or its weights, not images; give images, and the network with -b")
    if suffix == ".json":
        return DataError(f"{data}: {_describe_json(data)}; list the images in a .csv file with the columns path,label")
    if suffix in _BY_SUFFIX:
        return DataError(f"{data}: {_BY_SUFFIX[suffix]}")
    if suffix in {".h5", ".hdf5"}:
        return DataError(
            f"{data}: an HDF5 file without the data sets features and labels; save images and labels in an .npz file (x, y)"
        )
    if kind is not None and is_known:
        return DataError(f"{data}: {kind.name}; {kind.remedy}")
    return DataError(f"{data}: kind of data is not supported; give {SUPPORTED}")


def _describe_json(path: Path) -> str:
    """Return which kind of JSON document a file is."""
    try:
        document = json.loads(path.read_bytes()) if path.stat().st_size <= _MAX_JSON_BYTES else None
    except (OSError, ValueError, RecursionError):
        return "a JSON file that cannot be parsed"
    if isinstance(document, dict) and {"images", "annotations"} <= document.keys():
        return "a COCO file, whose annotations are boxes or masks and no class for each image"
    return "a JSON document, not JSON Lines"
