"""Small pictures of a run's images, for a page that must stay small: WebP, made apart from this process."""

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
)  # share of the side, and quality, tried until the budget is kept
_N_PREFETCH = 8  # images on their way
_MAX_REASONS = 6  # that are told


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of images, in their order, None where there is none. failure_counts: how many are lacking, by reason."""

    pictures: tuple[bytes | None, ...]
    failure_counts: Mapping[str, int]

    def describe_failures(self, data: DataSummary | None) -> list[Text]:
        """A paragraph that says which pictures cannot be shown and what brings them back; [] where none is lacking."""
        if not self.failure_counts:
            return []
        reasons = sorted(self.failure_counts.items(), key=lambda item: -item[1])
        reason_list = "; ".join(f"{reason} ({count})" for reason, count in reasons[:_MAX_REASONS])
        reason_list += "; and others" if len(reasons) > _MAX_REASONS else ""
        source = None if data is None else data.try_open_images()
        if source is not None:
            root = source.root
        else:
            root = data.root if data is not None and data.root else "no folder that the run names"
        remedy = (
            f"They are looked for in {root}: put them back there, or run `humeris sweep` where they are now (it trains "
            "nothing again), and then `humeris report` anew."
        )
        if source is not None and source.imports_keras:
            remedy = "Save the images as files, or as arrays in an .npz file, and run `humeris run` on those to see them."
        return [
            Text(
                f"{sum(self.failure_counts.values())} of {len(self.pictures)} pictures cannot be shown: {reason_list}. "
                f"{remedy}",
                "missing",
            )
        ]


def make_thumbnails(records: Sequence[ImageRecord], data: DataSummary | None, side: int, budget: int) -> Thumbnails:
    """Pictures of the images `records`, at most `side` pixels long, all together of at most `budget` bytes.

    An image is read where `data` says it is, has to have the digest it had, and is decoded in a process of its own. To keep
    the budget they get worse and smaller, and at last only the first ones are made. Never raises for the sake of an image.
    Keras's own data sets are not shown: only Keras reads them.
    """
    if not records:
        return Thumbnails((), {})
    try:
        if data is None:
            raise DataError("run.json does not say where the images are")
        source = data.open_images()
    except (HumerisError, OSError) as error:
        return Thumbnails((None,) * len(records), {_format_error(error): len(records)})
    if source.imports_keras:
        reason = f"the images of {data.location} are read by Keras, which no report starts"
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
    """The small image, or why there is none."""
    try:
        data = source.read(source.get_item(record.name))
        if read_file.compute_digest(data) != record.digest:
            return "the file is not the one that the run was made from"
        return decoders.decode_thumbnail(data, side)
    except decode.ImageRejected as rejection:
        return str(rejection)
    except (HumerisError, OSError, ValueError) as error:  # a name that no file can have, no process to decode in
        return _format_error(error)


def _encode_within_budget(images: Sequence[np.ndarray | None], budget: int) -> list[bytes | None]:
    """The pictures as WebP; where all of them at the worst quality take more than `budget`, the first ones only."""
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
