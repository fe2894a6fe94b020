"""WebP thumbnails of a run's images within a byte budget, decoded in separate processes."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...cache.errors import DataError, HumerisError
from ...extract.images.image_source import ImageSource
from ...extract.pixels import decode, read_file
from ...extract.pixels.decode_pool import DecoderPool
from ..runs.data_summary import DataSummary
from ..runs.image_records import ImageRecord
from .blocks import Text

_QUALITY_STEPS = (
    (1.0, 75),
    (1.0, 60),
    (1.0, 40),
    (1.0, 25),
    (0.8, 25),
    (0.8, 10),
)  # scale and WebP quality, tried in turn until the budget is met
_N_PREFETCH = 8  # images decoded ahead
_MAX_REASONS = 6  # reasons listed


@dataclass(frozen=True)
class Thumbnails:
    """Thumbnails in the order of the images, None where one failed. failure_counts: the number of failures by reason."""

    pictures: tuple[bytes | None, ...]
    failure_counts: Mapping[str, int]

    def describe_failures(self, data: DataSummary | None) -> list[Text]:
        """Return a paragraph on which thumbnails are missing and how to restore them; [] if none is missing."""
        if not self.failure_counts:
            return []
        reasons = sorted(self.failure_counts.items(), key=lambda item: -item[1])
        reason_list = "; ".join(f"{reason} ({count})" for reason, count in reasons[:_MAX_REASONS])
        reason_list += "; and other reasons" if len(reasons) > _MAX_REASONS else ""
        source = None if data is None else data.try_open_images()
        root = (data.root if data is not None else "") if source is None else str(source.root)
        remedy = (
            f"The images were searched in {root or 'an unknown folder'}: move them back, or run `humeris sweep` on their "
            "new folder (nothing is trained again), then `humeris report` again."
        )
        if source is not None and source.imports_keras:
            remedy = "To see them, save the images as files or as arrays in an .npz file, and run `humeris run` on those."
        return [
            Text(
                f"{sum(self.failure_counts.values())} of {len(self.pictures)} thumbnails are missing: {reason_list}. "
                f"{remedy}",
                "missing",
            )
        ]


def make_thumbnails(records: Sequence[ImageRecord], data: DataSummary | None, side: int, budget: int) -> Thumbnails:
    """Make thumbnails of images.

    An image is used only if its digest is that of the record, and is decoded in a separate process. To meet the budget,
    quality and scale are reduced; if that is not enough, only the first thumbnails are kept. Keras data sets have none, as
    reading them needs Keras. An image that fails is counted, never raised.

    Parameters
    ----------
    records : sequence of ImageRecord
        The images.
    data : DataSummary or None
        Where the images are.
    side : int
        Longer side in pixels, at most.
    budget : int
        Bytes of all thumbnails together, at most.

    Returns
    -------
    Thumbnails
    """
    if not records:
        return Thumbnails((), {})
    try:
        if data is None:
            raise DataError("run.json does not name the folder of the images")
        source = data.open_images()
    except (HumerisError, OSError) as error:
        return Thumbnails((None,) * len(records), {_format_error(error): len(records)})
    if source.imports_keras:
        reason = f"{data.location} can only be read with Keras, which reports do not load"
        return Thumbnails((None,) * len(records), {reason: len(records)})
    failure_counts: Counter[str] = Counter()
    images: list[np.ndarray | None] = []
    with DecoderPool(min(2, read_file.count_cores())) as decoders:

        def decode_record(record: ImageRecord) -> np.ndarray | str:
            return _decode_thumbnail(decoders, source, record, side)

        for result in read_file.map_in_order(decode_record, records, min(2, read_file.count_cores()), _N_PREFETCH):
            if isinstance(result, str):
                failure_counts[result] += 1
            images.append(None if isinstance(result, str) else result)
    return Thumbnails(tuple(_encode_within_budget(images, budget)), failure_counts)


def _decode_thumbnail(decoders: DecoderPool, source: ImageSource, record: ImageRecord, side: int) -> np.ndarray | str:
    """Return the decoded thumbnail, or why it failed."""
    try:
        data = source.read(source.get_item(record.name))
        if read_file.compute_digest(data) != record.digest:
            return "the file has changed since the run"
        return decoders.decode_thumbnail(data, side)
    except decode.ImageRejected as rejection:
        return str(rejection)
    except (HumerisError, OSError, ValueError) as error:  # an impossible file name, no decoder process
        return _format_error(error)


def _encode_within_budget(images: Sequence[np.ndarray | None], budget: int) -> list[bytes | None]:
    """Encode images as WebP; if all of them exceed `budget` at the lowest quality, only the first ones."""
    pictures: list[bytes | None] = []
    for scale, quality in _QUALITY_STEPS:
        pictures = [None if image is None else _encode_webp(image, scale, quality) for image in images]
        if sum(len(picture) for picture in pictures if picture) <= budget:
            return pictures
    bytes_left, kept_pictures = budget, []
    for picture in pictures:
        bytes_left -= len(picture or b"")
        kept_pictures.append(picture if bytes_left >= 0 else None)
    return kept_pictures


def _encode_webp(image: np.ndarray, scale: float, quality: int) -> bytes:
    from PIL import Image

    buffer, picture = io.BytesIO(), Image.fromarray(image)
    if scale < 1:
        picture = picture.resize((max(1, int(picture.width * scale)), max(1, int(picture.height * scale))))
    picture.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _format_error(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
