"""TensorFlow's SavedModel: a folder that plain TensorFlow runs, on pixels and on encoded images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from ....cache.errors import ModelError
from ....extract.backbones.keras_runtime import load_keras
from ....extract.pixels import decode
from ..model_metadata import ModelMetadata, encode_metadata
from .format import (
    LABELS_FILE,
    METADATA_FILE,
    Format,
    PredictFn,
    encode_labels,
    explain_load_errors,
    parse_metadata,
)
from .quiet_output import silence

_ASSETS_FOLDER = "assets.extra"  # TensorFlow leaves it to others
_MAX_SIGNATURE_DIFFERENCE = 1e-6
SIGNATURE, BYTES_SIGNATURE = "serving_default", "serve_bytes"


class SavedModelFormat(Format):
    """A folder with two signatures, which both give ``probabilities`` (n, classes).

    ``serving_default`` takes ``image``, uint8 (n, height, width, 3). ``serve_bytes`` takes ``encoded``, strings (n,), the
    bytes of image files, and makes the pixels of them that `extract.pixels.decode` makes, or raises. The class names are
    also in ``assets.extra/labels.txt``, one a line.
    """

    name = "savedmodel"
    suffix = ""
    modules = ("tensorflow",)
    runtime = "TensorFlow"
    runs_code = True
    tolerance = 1e-4
    encoded_signature = BYTES_SIGNATURE
    predict_code = """
import tensorflow
model = tensorflow.saved_model.load(sys.argv[1])
def predict(images):
    return model.signatures["serving_default"](image=tensorflow.constant(images))["probabilities"].numpy()
"""

    def write(self, model: Any, path: Path, metadata: ModelMetadata, precision: str, calibration: np.ndarray | None) -> None:
        """See `Format.write`; also raises `ModelError` where the two signatures disagree on a few drawn images."""
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
        (assets / METADATA_FILE).write_text(encode_metadata(metadata), encoding="utf-8")
        (assets / LABELS_FILE).write_bytes(encode_labels(metadata))

    def read_metadata(self, path: Path) -> ModelMetadata | None:
        """See `Format.read_metadata`; TensorFlow is not loaded."""
        try:
            text = (path / _ASSETS_FOLDER / METADATA_FILE).read_bytes()
        except OSError:
            return None
        return parse_metadata(path, text)

    def load(self, path: Path) -> PredictFn:
        """See `Format.load`. A SavedModel is a program: load none from a stranger."""
        load_keras()  # which starts TensorFlow quietly, and in full precision
        import tensorflow as tf

        with explain_load_errors(path):
            serve = tf.saved_model.load(str(path)).signatures[SIGNATURE]
        return lambda images: np.asarray(serve(image=tf.constant(images))["probabilities"])


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
    if not difference <= _MAX_SIGNATURE_DIFFERENCE:
        raise ModelError(
            f"{path}: probabilities from pixels and from encoded images differ by {difference:.2g}, since TensorFlow "
            "and Pillow decode differently; install the versions that humeris requires"
        )
