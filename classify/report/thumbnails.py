"""Small pictures of a run's images, for a page that must stay small: WebP, made apart from this process."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.errors import DataError, HumerisError
from ...extract.images.detect import reader
from ...extract.pixels import decode, read_file
from ...extract.pixels.decode_pool import Decoders
from ..runs.run import Record
from .blocks import Text

_SMALLER = (
    (1.0, 75),
    (1.0, 60),
    (1.0, 40),
    (1.0, 25),
    (0.8, 25),
    (0.8, 10),
)  # share of the side, and quality, tried until the budget is kept
_AHEAD = 8  # images on their way
_REASONS = 6  # that are told


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of images, in their order, None where there is none. gone: how many are lacking for which reason."""

    pictures: tuple[bytes | None, ...]
    gone: Mapping[str, int]

    def missing(self, data: Mapping[str, Any]) -> list[Text]:
        """A paragraph that says which pictures cannot be shown and what brings them back; [] where none is lacking.

        data: what `Images.summary` said of the images.
        """
        if not self.gone:
            return []
        reasons = sorted(self.gone.items(), key=lambda item: -item[1])
        why = "; ".join(f"{reason} ({count})" for reason, count in reasons[:_REASONS])
        why += "; and others" if len(reasons) > _REASONS else ""
        here = _origin(data)
        instead = (
            f"They are looked for in {here.get('root', 'no folder that the run names')}: put them back there, or run "
            "`humeris sweep` where they are now (it trains nothing again), and then `humeris report` anew."
        )
        if here.get("kind") == "keras":
            instead = "Save the images as files, or as arrays in an .npz file, and run `humeris run` on those to see them."
        return [
            Text(
                f"{sum(self.gone.values())} of {len(self.pictures)} pictures cannot be shown: {why}. {instead}",
                "missing",
            )
        ]


def make(records: Sequence[Record], data: Mapping[str, Any], side: int, budget: int) -> Thumbnails:
    """Pictures of the images `records`, at most `side` pixels long, all together of at most `budget` bytes.

    An image is read where `data` (see `Images.summary`) says it is, has to have the digest it had, and is decoded in a
    process of its own. To keep the budget they get worse and smaller, and at last only the first ones are made.
    Never raises for the sake of an image. Keras's own data sets are not shown: only Keras reads them.
    """
    if not records:
        return Thumbnails((), {})
    try:
        if _origin(data).get("kind") == "keras":
            raise DataError(f"the images of {data.get('source')} are read by Keras, which no report starts")
        read = reader(data)
    except (HumerisError, KeyError, TypeError, AttributeError, OSError, ValueError) as error:
        return Thumbnails((None,) * len(records), {_line(error): len(records)})
    gone: Counter[str] = Counter()
    shown: list[np.ndarray | None] = []
    with Decoders(min(2, read_file.cores())) as decoders:

        def small(record: Record) -> np.ndarray | str:
            return _pixels(decoders, read, record, side)

        for found in read_file.in_order(small, records, min(2, read_file.cores()), _AHEAD):
            if isinstance(found, str):
                gone[found] += 1
            shown.append(None if isinstance(found, str) else found)
    return Thumbnails(tuple(_within(shown, budget)), gone)


def _origin(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is said of the images themselves, where `data` is a file of features that says where they are."""
    images = data.get("images")
    return images if isinstance(images, Mapping) else data


def _pixels(decoders: Decoders, read: Callable[[str], bytes], record: Record, side: int) -> np.ndarray | str:
    """The small image, or why there is none."""
    try:
        data = read(record.name)
        if read_file.digest(data) != record.digest:
            return "the file is not the one that the run was made from"
        return decoders.small(data, side)
    except decode.Refused as refused:
        return str(refused)
    except (HumerisError, OSError, ValueError) as error:  # a name that no file can have, no process to decode in
        return _line(error)


def _within(shown: Sequence[np.ndarray | None], budget: int) -> list[bytes | None]:
    """The pictures as WebP; where all of them at the worst quality take more than `budget`, the first ones only."""
    pictures: list[bytes | None] = []
    for share, quality in _SMALLER:
        pictures = [None if image is None else _webp(image, share, quality) for image in shown]
        if sum(len(each) for each in pictures if each) <= budget:
            return pictures
    left, kept = budget, []
    for each in pictures:
        left -= len(each or b"")
        kept.append(each if left >= 0 else None)
    return kept


def _webp(image: np.ndarray, share: float, quality: int) -> bytes:
    from PIL import Image

    buffer, picture = io.BytesIO(), Image.fromarray(image)
    if share < 1:
        picture = picture.resize((max(1, int(picture.width * share)), max(1, int(picture.height * share))))
    picture.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
