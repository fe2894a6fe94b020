"""TensorFlow's SavedModel: a folder that plain TensorFlow runs, from pixels and from encoded images."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from ....cache.errors import ModelError
from ....extract.backbones.keras_runtime import load_keras
from ....extract.pixels import decode
from .format import (
    DESCRIPTION_FILE,
    LABELS_FILE,
    Format,
    PredictFn,
    decode_description,
    encode_description,
    format_labels,
    to_one_line,
)
from .quiet_output import silence

_ASSETS_FOLDER = "assets.extra"  # where TensorFlow keeps what is not its own
_TOLERANCE = 1e-6
SIGNATURE, BYTES_SIGNATURE = "serving_default", "serve_bytes"
_PREDICT_CODE = """
import tensorflow
model = tensorflow.saved_model.load(sys.argv[1])
def answer(images):
    return model.signatures["serving_default"](image=tensorflow.constant(images))["probabilities"].numpy()
"""


def write(model: Any, path: Path, description: Mapping[str, Any], precision: str, calibration: np.ndarray | None) -> None:
    """Write the model as a folder; see `format.Write`.

    It has two signatures: `serving_default` takes `image`, uint8 (n, height, width, 3); `serve_bytes` takes `encoded`,
    strings (n,), the bytes of image files, of which it makes the pixels that `extract.pixels.decode` does, or raises. Both
    give `probabilities` (n, classes). Class names are also in `assets.extra/labels.txt`, one a line. Raises `ModelError`
    where the two signatures do not agree on a few drawn images.
    """
    keras = load_keras()
    import tensorflow as tf

    from .tf_decode import decode

    shape = tuple(model.inputs[0].shape[1:])

    def serve(image: Any) -> dict[str, Any]:
        return {"probabilities": model(image, training=False)}

    def serve_bytes(encoded: Any) -> dict[str, Any]:
        return serve(decode.decode(encoded, shape[:2]))

    archive = keras.export.ExportArchive()
    archive.track(model)
    with silence():
        archive.add_endpoint(SIGNATURE, serve, [tf.TensorSpec((None, *shape), tf.uint8, name="image")])
        archive.add_endpoint(BYTES_SIGNATURE, serve_bytes, [tf.TensorSpec((None,), tf.string, name="encoded")])
        archive.write_out(str(path), verbose=False)
        _check_signatures(path, shape[:2])
    assets = path / _ASSETS_FOLDER
    assets.mkdir()
    (assets / DESCRIPTION_FILE).write_text(encode_description(description), encoding="utf-8")
    (assets / LABELS_FILE).write_bytes(format_labels(description))


def _check_signatures(path: Path, size: tuple[int, int]) -> None:
    """Compare the signatures on drawn images: a large one that lies on its side, a tall one, and a transparent one."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    height, width = size
    files = []
    for image_format, shape in (
        ("JPEG", (5 * max(size), 6 * max(size), 3)),
        ("PNG", (4 * height, width, 3)),
        ("WEBP", (9, 7, 4)),
    ):
        noise = Image.fromarray(rng.integers(0, 256, (16, 16, shape[2]), np.uint8)).resize((shape[1], shape[0]))
        buffer = io.BytesIO()
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        noise.save(buffer, image_format, exif=exif)
        files.append(buffer.getvalue())
    model = tf.saved_model.load(str(path))
    images = np.stack([decode.decode(data, size) for data in files])
    expected = model.signatures[SIGNATURE](image=tf.constant(images))["probabilities"]
    actual = model.signatures[BYTES_SIGNATURE](encoded=tf.constant(files))["probabilities"]
    difference = float(np.abs(np.asarray(actual) - np.asarray(expected)).max())
    if not difference <= _TOLERANCE:
        raise ModelError(
            f"{path}: expected the same answers from pixels and from encoded images, found a difference of "
            f"{difference:.2g}: TensorFlow or Pillow decodes images in another way; use the versions that humeris asks for"
        )


def describe(path: Path) -> dict[str, Any] | None:
    """The description inside; TensorFlow is not loaded."""
    try:
        return decode_description((path / _ASSETS_FOLDER / DESCRIPTION_FILE).read_bytes())
    except OSError:
        return None


def load(path: Path) -> PredictFn:
    """The function of the signature `serving_default`. A SavedModel is a program: load none from a stranger.

    Raises `ModelError`.
    """
    load_keras()  # which starts TensorFlow quietly, and in full precision
    import tensorflow as tf

    try:
        serve = tf.saved_model.load(str(path)).signatures[SIGNATURE]
    except Exception as error:  # a file from anywhere: TensorFlow raises almost anything on a damaged one
        raise ModelError(f"{path}: cannot be loaded: {to_one_line(error)}") from error
    return lambda images: np.asarray(serve(image=tf.constant(images))["probabilities"])


FORMAT = Format(
    "savedmodel", "", ("float32",), ("tensorflow",), "", write, describe, load, _PREDICT_CODE, True, "TensorFlow",
    tolerance=1e-4,
)  # fmt: skip
