"""Predict the classes of new images with an exported model."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...cache.errors import ConfigError, DataError, ModelError
from ...cache.store import Store
from ...extract.images.folder_walk import FolderWalk
from ...extract.pixels import decode, read_file
from ...extract.pixels.decode_pool import DecoderPool
from ...extract.pixels.image_like import ImageLike, iter_images, name_image, to_file_or_bytes
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
            (n, height, width, 3) uint8, of size `image_size`; for files and images of other sizes there is `predict`.

        Returns
        -------
        ndarray
            (n, classes).

        Raises
        ------
        DataError
            If the images have another shape or type; it is the same for every format.
        ModelError
            If the model cannot be run on them.
        """
        images = self._check_images(images)
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

    def _check_images(self, images: np.ndarray) -> np.ndarray:
        """Return the images as the runtimes take them; raises `DataError`."""
        height, width = self.image_size
        due = f"give uint8 (n, {height}, {width}, 3), or files to `predict`, which resizes them"
        if not isinstance(images, np.ndarray):
            raise DataError(f"images: a {type(images).__name__}, not an array; {due}")
        if images.ndim != 4 or images.shape[1:] != (height, width, 3) or not len(images):
            raise DataError(f"images: an array of shape {images.shape}; {due}")
        if images.dtype != np.uint8:
            raise DataError(f"images: an array of {images.dtype}, not of uint8 in 0 to 255; {due}")
        return np.ascontiguousarray(images)

    def predict(
        self, images: Iterable[ImageLike] | ImageLike, *, top: int = 1, batch_size: int = 32, jobs: int | None = None
    ) -> Iterator[Prediction]:
        """Predict the classes of images, in memory that does not grow with their number.

        Parameters
        ----------
        images : image, or iterable of images
            Each a path, encoded bytes, a file open for reading bytes, a Pillow image, or a uint8 array (height, width) or
            (height, width, channels) of any size. An array (n, height, width, channels) is n images.
        top : int
            Number of classes to return for each image.
        batch_size : int
            Number of images in a batch.
        jobs : int, optional
            Number of processes that decode images; by default, the number of cores.

        Returns
        -------
        iterator of Prediction
            The prediction for each image, in order; ``path`` is its path, or ``image 3`` for the fourth if it has none.

        Raises
        ------
        ConfigError
            If a number is not a whole number of at least 1.
        DataError
            If `images` is no image and no iterable of images; for one of an iterable, when its turn comes.
        """
        for name, value in (("top", top), ("batch_size", batch_size), ("jobs", 1 if jobs is None else jobs)):
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} {value!r}: must be a whole number of at least 1")
        first_images = itertools.islice(each := iter_images(images), 1)
        return self._predict_all(itertools.chain(list(first_images), each), top, batch_size, jobs or read_file.count_cores())

    def _predict_all(self, images: Iterable[ImageLike], top: int, batch_size: int, jobs: int) -> Iterator[Prediction]:
        pending: list[tuple[str, np.ndarray | str]] = []
        with DecoderPool(jobs) as decoders:
            decoded_images = read_file.map_in_order(
                partial(self._decode, decoders), enumerate(images), jobs, 2 * batch_size + 2 * jobs
            )
            with closing(decoded_images):  # before the decoders are closed, also if the caller stops early
                for decoded_image in decoded_images:
                    pending.append(decoded_image)
                    if len(pending) == batch_size:
                        yield from self._predict_batch(pending, top, batch_size)
                        pending = []
        yield from self._predict_batch(pending, top, batch_size)

    def _decode(self, decoders: DecoderPool, numbered_image: tuple[int, ImageLike]) -> tuple[str, np.ndarray | str]:
        number, image = numbered_image
        name = name_image(image, number)
        try:
            return name, decoders.decode(to_file_or_bytes(image), self.image_size)[0]
        except decode.ImageRejected as error:
            return name, f"{error.reason}: {error}"

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
        The files, and all files below the folders except hidden ones, system files and documents, sorted by folder; links
        are followed as in data sets. What cannot be read is itself in the list, so that it is reported as rejected.

    Raises
    ------
    DataError
        If a path does not exist, or there are no files.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            walk = FolderWalk()
            names = [f"{folder.prefix}{name}" for folder in walk.iter_folders(str(path)) for name in folder.files]
            names += [rejection.name for rejection in walk.rejections]
            files.extend(path / name for name in sorted(names))
        elif path.exists():
            files.append(path)
        else:
            raise DataError(f"{path}: no such file or folder; check the path")
    if not files:
        raise DataError(f"{', '.join(map(str, paths))}: no image files; give files, or folders that hold some")
    return files
