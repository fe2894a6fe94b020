"""The images of a dataset with their identity: every listed path gets exactly one outcome."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path

import numpy as np

from ...cache.errors import DataError
from ...cache.key_value_store import Memo
from ...cache.shard import as_keys
from ...cache.store import Store
from ..pixels import decode, read_file
from . import feature_file
from .dataset import Dataset, Item, Refusal
from .detect import detect
from .feature_file import FeatureFile
from .file_index import Fact, Facts, Known, Stamp

Progress = Callable[[int, int], None]
_TOGETHER = 16  # files that one task of a thread reads
_EVALUATED_FIRST = {"test": 0, "val": 1, "train": 2, None: 3}


@dataclass(frozen=True, slots=True)
class Image:
    """One used image: its listing, its digest (32 bytes) and the format of its file."""

    item: Item
    digest: bytes
    format: str

    @property
    def name(self) -> str:
        """Path relative to the data's root."""
        return self.item.name

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.item.path


@dataclass(frozen=True)
class Duplicate:
    """A listed image that is byte for byte `original`; `across` when the two lay in different splits."""

    name: str
    original: str
    across: bool


@dataclass(frozen=True)
class Images:
    """Used images in order of name, and the outcome of every other path.

    No two used images have the same bytes, so none can straddle splits or folds. `given`: the features themselves, where
    DATA is a file of them.
    """

    dataset: Dataset
    used: tuple[Image, ...]
    duplicates: tuple[Duplicate, ...]
    refused: tuple[Refusal, ...]
    known: Known = field(repr=False, compare=False)
    given: FeatureFile | None = field(default=None, repr=False, compare=False)

    @cached_property
    def keys(self) -> np.ndarray:
        """Digests of the used images, (n,) S32."""
        return as_keys([image.digest for image in self.used])

    @property
    def labels(self) -> list[str]:
        """Label of each used image ("" where the data has none)."""
        return [image.item.label or "" for image in self.used]

    def without(self, refused: dict[str, Refusal]) -> Images:
        """The same images with `refused` (by name) moved from the used to the refused."""
        return replace(
            self,
            used=tuple(image for image in self.used if image.name not in refused),
            refused=self.refused + tuple(refused.values()),
        )

    def by_digest(self) -> Images:
        """The same images in the order of their digests, which renaming does not change."""
        return replace(self, used=tuple(sorted(self.used, key=lambda image: image.digest)))

    def summary(self) -> dict[str, object]:
        """Counts for people and JSON; formats other than the commonest are listed by name when they are few."""
        formats = Counter(image.format for image in self.used)
        rare = [name for name, count in formats.items() if count <= 5 and count < max(formats.values())]
        return {
            "source": str(self.dataset.source),
            "root": os.path.abspath(self.dataset.root),
            "kind": self.dataset.kind,
            **({"images": self.given.origin} if self.given else {}),
            "used": len(self.used),
            "duplicates": [vars(duplicate) for duplicate in self.duplicates],
            "refused": [vars(refusal) for refusal in self.refused],
            "formats": dict(formats.most_common()),
            "unusual": [{"name": image.name, "format": image.format} for image in self.used if image.format in rare],
        }


def load_images(
    data: Path | str,
    store: Store,
    *,
    limit: int | None = None,
    jobs: int | None = None,
    features: bool = False,
    progress: Progress | None = None,
) -> Images:
    """The images at `data` (folders, a list of images, or arrays), identified; see `detect` and `identify`.

    With `features`, an HDF5 file of features will do too: its rows are the images.
    """
    if feature_file.is_one(Path(data)):
        if not features:
            raise DataError(f"{data}: expected images, found a file of features; give it to `humeris sweep`")
        return _given(feature_file.FeatureFile(data), store.memo, limit)
    return identify(detect(data, limit, store.memo), store.memo, jobs or read_file.cores(), progress)


def identify(dataset: Dataset, memo: Memo, jobs: int, progress: Progress | None = None) -> Images:
    """The images of `dataset` with their digests; files whose path, size, mtime and ctime are known are not read again.

    Of files with the same bytes one is used: the one in test, else val, else train, else the first listed. Files with
    the same bytes and different labels are all refused, and so are members of a group outside its most evaluated split.
    """
    known = Known(memo, dataset.root)
    facts = known.look_up(dataset.items)
    unread = np.nonzero(~facts.found)[0].tolist()
    parts = [unread[start : start + _TOGETHER] for start in range(0, len(unread), _TOGETHER)]
    done = 0
    try:
        for part in read_file.in_order(lambda numbers: [_look(n, dataset.items[n]) for n in numbers], parts, jobs, 4 * jobs):
            for seen in part:
                facts.put(seen.number, seen.fact)
                if seen.stamp is not None:
                    known.put(dataset.items[seen.number].name, seen.stamp, seen.fact, seen.taken_ns)
                done += 1
                if progress is not None:
                    progress(done, len(unread))
    finally:
        known.save()
    return _resolve(dataset, facts, known)


def _given(file: FeatureFile, memo: Memo, limit: int | None) -> Images:
    """The rows of a file of features as images, each identified by its key."""
    dataset = file.dataset() if limit is None else file.dataset().limited(limit)
    facts = Facts.none(len(dataset.items))
    for number, item in enumerate(dataset.items):
        row = file.number[item.name]
        facts.put(number, Fact(file.keys[row : row + 1].tobytes(), "features"))  # a slice: one element loses its zeros
    return replace(_resolve(dataset, facts, Known(memo, dataset.root)), given=file)


@dataclass(frozen=True)
class _Seen:
    """What was read of one file; `stamp` is None for what need not hold the next time."""

    number: int
    stamp: Stamp | None
    taken_ns: int
    fact: Fact


def _look(number: int, item: Item) -> _Seen:
    """The fact about one file. The stamp is taken first: a change while reading makes it stale, never the digest."""
    digest = b"\0" * 32
    taken_ns = time.time_ns()
    try:
        stamp = Stamp.of(item.location)
    except OSError:
        stamp = None
    try:
        data = item.read()
        digest = read_file.digest(data)
        return _Seen(number, stamp, taken_ns, Fact(digest, decode.sniff(data) if item.in_file else "array"))
    except decode.Refused as refused:
        keep = stamp if refused.reason in decode.LASTING else None
        return _Seen(number, keep, taken_ns, Fact(digest, "", refused.reason, str(refused)))


def _resolve(dataset: Dataset, facts: Facts, known: Known) -> Images:
    """The outcome of each item. Almost all have bytes of their own; the rest are gathered by digest."""
    items, digests = dataset.items, facts.digests.tobytes()
    refused = list(dataset.refused)
    refused += [Refusal(items[number].name, *why) for number, why in sorted(facts.refused.items())]
    usable = np.setdiff1d(np.arange(len(items)), list(facts.refused))
    _, which, counts = np.unique(as_keys([digests])[usable], return_inverse=True, return_counts=True)
    alone = counts[which] == 1
    chosen = [
        Image(items[number], digests[32 * number : 32 * number + 32], facts.formats[number])
        for number in usable[alone].tolist()
    ]
    copies: dict[bytes, list[int]] = defaultdict(list)
    for number in usable[~alone].tolist():
        copies[digests[32 * number : 32 * number + 32]].append(number)
    groups = _merged_groups([items[number] for number in numbers] for numbers in copies.values())
    if groups:
        chosen = [_in_group(image, groups.get(image.item.group or "")) for image in chosen]
    duplicates = []
    for digest, numbers in copies.items():
        same = [items[number] for number in numbers]
        if len({item.label for item in same}) > 1:
            names = ", ".join(item.name for item in same[:3])
            refused.extend(Refusal(item.name, "conflicting_labels", f"same bytes: {names}") for item in same)
            continue
        first = min(same, key=lambda item: _EVALUATED_FIRST[item.split])
        group = next((groups[item.group] for item in same if item.group is not None), None)
        chosen.append(_in_group(Image(first, digest, facts.formats[numbers[0]]), group))
        duplicates += [Duplicate(item.name, first.name, item.split != first.split) for item in same if item is not first]
    used, straddling = _whole_groups(sorted(chosen, key=attrgetter("item.name")))
    return Images(dataset, tuple(used), tuple(duplicates), tuple(refused + straddling), known)


def _in_group(image: Image, group: str | None) -> Image:
    """The image as a member of `group`, if it is to be in one."""
    return image if group in {None, image.item.group} else replace(image, item=replace(image.item, group=group))


def _merged_groups(copies: Iterable[Sequence[Item]]) -> dict[str, str]:
    """What each group is called once groups that share an image are one: leaving a copy out must not hide the link."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            group = parent[group]
        return group

    for items in copies:
        linked = sorted({root(item.group) for item in items if item.group is not None})
        parent.update(dict.fromkeys(linked[1:], linked[0]) if linked else {})
    return {group: root(group) for group in list(parent)}


def _whole_groups(images: list[Image]) -> tuple[list[Image], list[Refusal]]:
    """Keep each group in one split: members elsewhere would leak into its evaluation."""
    if all(image.item.group is None for image in images):
        return images, []
    splits: dict[str, str | None] = {}
    for image in images:
        group, split = image.item.group, image.item.split
        if group is not None:
            splits[group] = min(splits.get(group, split), split, key=_EVALUATED_FIRST.__getitem__)
    used, refused = [], []
    for image in images:
        group = image.item.group
        if group is None or splits[group] == image.item.split:
            used.append(image)
        else:
            refused.append(Refusal(image.name, "group_straddles_splits", f"group {group} is also in {splits[group]}"))
    return used, refused
