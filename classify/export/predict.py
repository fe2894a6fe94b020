"""Predict the classes of new images with an exported model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import DataError, ModelError
from ...cache.store import Store
from ...extract.pixels import decode, read_file
from ...extract.pixels.decode_pool import DecoderPool
from . import provenance
from .formats.format import to_one_line
from .formats.registry import detect_format


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Parameters
    ----------
    path : str
        Path of the image, as given.
    top : tuple of (str, float)
        The most probable classes and their probabilities, most probable first.
    rejection : str
        Reason why the image was rejected; "" if there is a prediction.
    """

    path: str
    top: tuple[tuple[str, float], ...] = ()
    rejection: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        if self.rejection:
            return {"path": self.path, "refused": self.rejection}
        return {
            "path": self.path,
            "predicted": self.top[0][0],
            "probability": round(self.top[0][1], 6),
            "top": [{"class": name, "probability": round(value, 6)} for name, value in self.top],
        }


class Predictor:
    """An exported model, loaded in its runtime.

    Loading runs no code of an untrusted model: Keras's safe mode stays on, and a model in a format that can contain code
    must have been exported with the same cache, unless `trust` is set.

    Parameters
    ----------
    path : Path or str
        A model that `export` wrote, in any registered format.
    cache : Path or str, optional
        The cache that the model was exported with; the user's default cache if omitted.
    trust : bool
        Whether to run a model in a format that can contain code even if it was not exported with this cache.

    Attributes
    ----------
    classes : list of str
        Class names, in the order of the columns of the probabilities.
    image_size : tuple of int
        (height, width) of the input, in pixels.
    metadata : ModelMetadata
        Metadata stored in the model.

    Raises
    ------
    ModelError
        If the file is not an exported model, was exported for another version of image decoding, is not trusted, or cannot
        be loaded.

    Examples
    --------
    >>> import humeris
    >>> predictor = humeris.Predictor("model.keras")
    >>> predictor
    <Predictor model.keras: keras, 3 classes, images of 64 x 64>
    >>> [prediction.top[0][0] for prediction in predictor.predict(["photos/blob/00.png", "photos/noise/00.png"])]
    ['blob', 'noise']
    """

    def __init__(self, path: Path | str, *, cache: Path | str | None = None, trust: bool = False) -> None:
        self.path = Path(path)
        self.format = detect_format(self.path)
        metadata = self.format.read_metadata(self.path)
        if metadata is None:
            raise ModelError(f"{path}: not a {self.format.name} model that `humeris export` wrote; export the model again")
        if metadata.pixels != decode.get_version():
            raise ModelError(
                f"{path}: the model was made for pixels version {metadata.pixels!r}, but this is {decode.get_version()!r}; "
                "use the versions of humeris and Pillow it was exported with, or extract, sweep and export again"
            )
        self._target = metadata.get_target()
        self.format.check_installed()
        if not trust:
            provenance.check(Store(cache), self.path, self.format)
        self.metadata, self.classes, self.image_size = metadata, list(metadata.classes), metadata.image_size
        self._model = self.format.load(self.path)
        self._has_seen_full_batch = False

    def __repr__(self) -> str:
        height, width = self.image_size
        return f"<Predictor {self.path}: {self.format.name}, {len(self.classes)} classes, images of {height} x {width}>"

    def predict_proba(self, images: np.ndarray) -> np.ndarray:
        """Predict class probabilities of decoded images.

        Parameters
        ----------
        images : ndarray
            (n, height, width, 3) uint8, of size `image_size`.

        Returns
        -------
        ndarray
            (n, classes).

        Raises
        ------
        ModelError
            If the model cannot be run on them.
        """
        try:
            probabilities = self._model(images)
        except Exception as error:  # each runtime raises its own types on invalid models
            height, width = self.image_size
            raise ModelError(
                f"{self.path}: cannot run the model on {height} x {width} images: {to_one_line(error)}"
            ) from error
        if probabilities.shape != (len(images), len(self.classes)):
            raise ModelError(
                f"{self.path}: the model returned probabilities of shape {probabilities.shape}, not "
                f"({len(images)}, {len(self.classes)}); export the model again"
            )
        return probabilities

    def predict(
        self, paths: Iterable[Path | str] | Path | str, *, top: int = 1, batch_size: int = 32, jobs: int | None = None
    ) -> Iterator[Prediction]:
        """Predict the classes of image files, in memory that does not grow with their number.

        Parameters
        ----------
        paths : Path, str, or iterable of them
            The image files.
        top : int
            Number of classes to return for each image.
        batch_size : int
            Number of images in a batch.
        jobs : int, optional
            Number of processes that decode images; by default, the number of cores.

        Yields
        ------
        Prediction
            The prediction for each path, in order.
        """
        if top < 1 or batch_size < 1:
            raise ValueError(f"top and batch_size must be at least 1, got {top} and {batch_size}")
        paths = [paths] if isinstance(paths, Path | str) else paths
        jobs = jobs or read_file.count_cores()
        pending: list[tuple[str, np.ndarray | str]] = []
        with DecoderPool(jobs) as decoders:
            decoded_images = read_file.map_in_order(partial(self._decode, decoders), paths, jobs, 2 * batch_size + 2 * jobs)
            with closing(decoded_images):  # before the decoders are closed, also if the caller stops early
                for decoded_image in decoded_images:
                    pending.append(decoded_image)
                    if len(pending) == batch_size:
                        yield from self._predict_batch(pending, top, batch_size)
                        pending = []
        yield from self._predict_batch(pending, top, batch_size)

    def _decode(self, decoders: DecoderPool, path: Path | str) -> tuple[str, np.ndarray | str]:
        try:
            return str(path), decoders.decode(Path(path), self.image_size)[0]
        except decode.ImageRejected as error:
            return str(path), f"{error.reason}: {error}"

    def _predict_batch(
        self, decoded_images: Sequence[tuple[str, np.ndarray | str]], top: int, batch_size: int
    ) -> Iterator[Prediction]:
        """Yield predictions of a batch; after a full one, smaller batches are padded, so that the model compiles once."""
        images = [image for _, image in decoded_images if not isinstance(image, str)]
        rows: Iterator[np.ndarray] = iter(())
        if images:
            self._has_seen_full_batch = self._has_seen_full_batch or len(decoded_images) == batch_size
            batch = np.zeros((batch_size if self._has_seen_full_batch else len(images), *self.image_size, 3), np.uint8)
            batch[: len(images)] = images
            rows = iter(self.predict_proba(batch))
        for path, image in decoded_images:
            if isinstance(image, str):
                yield Prediction(path, rejection=image)
            else:
                row = next(rows)
                yield Prediction(path, self._target.rank_classes(row, top))


def list_image_files(paths: Sequence[Path]) -> list[Path]:
    """List the image files at the given paths.

    Parameters
    ----------
    paths : sequence of Path
        Files and folders.

    Returns
    -------
    list of Path
        The files, and all files below the folders except hidden ones, sorted by folder. A folder that cannot be read is
        itself in the list, so that it is reported as rejected.

    Raises
    ------
    DataError
        If a path does not exist, or there are no files.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            errors: list[OSError] = []
            folder_files = [
                Path(folder, name)
                for folder, _, names in os.walk(path, onerror=errors.append)
                for name in names
                if not name.startswith(".")
                and not any(part.startswith(".") for part in Path(folder).relative_to(path).parts)
            ]
            files.extend(sorted(folder_files + [Path(error.filename) for error in errors]))
        elif path.exists():
            files.append(path)
        else:
            raise DataError(f"{path}: no such file or folder; check the path")
    if not files:
        raise DataError(f"{', '.join(map(str, paths))}: no image files; give files, or folders that hold some")
    return files
