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
from ...cache.key_value_store import KeyValueStore
from ...cache.shard import to_keys
from ...cache.store import Store
from ..pixels import decode, read_file
from . import feature_file
from .dataset import Dataset, Item, Rejection
from .detect import detect
from .feature_file import FeatureFile
from .file_index import FileIndex, FileRecord, FileRecords, FileStamp

Progress = Callable[[int, int], None]
_FILES_PER_TASK = 16  # files that one task of a thread reads
_SPLIT_PRIORITY = {"test": 0, "val": 1, "train": 2, None: 3}


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

    No two used images have the same bytes, so none can straddle splits or folds. `feature_file`: the features
    themselves, where DATA is a file of them.
    """

    dataset: Dataset
    used: tuple[Image, ...]
    duplicates: tuple[Duplicate, ...]
    rejections: tuple[Rejection, ...]
    file_index: FileIndex = field(repr=False, compare=False)
    feature_file: FeatureFile | None = field(default=None, repr=False, compare=False)

    @cached_property
    def keys(self) -> np.ndarray:
        """Digests of the used images, (n,) S32."""
        return to_keys([image.digest for image in self.used])

    @property
    def labels(self) -> list[str]:
        """Label of each used image ("" where the data has none)."""
        return [image.item.label or "" for image in self.used]

    def reject(self, rejections: dict[str, Rejection]) -> Images:
        """The same images with `rejections` (by name) moved from the used to the rejected."""
        return replace(
            self,
            used=tuple(image for image in self.used if image.name not in rejections),
            rejections=self.rejections + tuple(rejections.values()),
        )

    def sort_by_digest(self) -> Images:
        """The same images in the order of their digests, which renaming does not change."""
        return replace(self, used=tuple(sorted(self.used, key=lambda image: image.digest)))

    def summarize(self) -> dict[str, object]:
        """Counts for people and JSON; formats other than the commonest are listed by name when they are few."""
        formats = Counter(image.format for image in self.used)
        rare_formats = [name for name, count in formats.items() if count <= 5 and count < max(formats.values())]
        return {
            "source": str(self.dataset.source),
            "root": os.path.abspath(self.dataset.root),
            "kind": self.dataset.kind,
            **({"images": self.feature_file.origin} if self.feature_file else {}),
            "used": len(self.used),
            "duplicates": [vars(duplicate) for duplicate in self.duplicates],
            "refused": [vars(rejection) for rejection in self.rejections],
            "formats": dict(formats.most_common()),
            "unusual": [{"name": image.name, "format": image.format} for image in self.used if image.format in rare_formats],
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
    """The images at `data` (folders, a list of images, or arrays), identified; see `detect` and `identify_images`.

    With `features`, an HDF5 file of features will do too: its rows are the images.
    """
    if feature_file.is_feature_file(Path(data)):
        if not features:
            raise DataError(f"{data}: expected images, found a file of features; give it to `humeris sweep`")
        return _load_feature_file(feature_file.FeatureFile(data), store.kv_store, limit)
    return identify_images(detect(data, limit, store.kv_store), store.kv_store, jobs or read_file.count_cores(), progress)


def identify_images(dataset: Dataset, kv_store: KeyValueStore, jobs: int, progress: Progress | None = None) -> Images:
    """The images of `dataset` with their digests; files whose path, size, mtime and ctime are known are not read again.

    Of files with the same bytes one is used: the one in test, else val, else train, else the first listed. Files with
    the same bytes and different labels are all refused, and so are members of a group outside its most evaluated split.
    """
    file_index = FileIndex(kv_store, dataset.root)
    records = file_index.look_up(dataset.items)
    unread = np.nonzero(~records.has_record)[0].tolist()
    chunks = [unread[start : start + _FILES_PER_TASK] for start in range(0, len(unread), _FILES_PER_TASK)]
    n_inspected = 0
    try:
        for inspections in read_file.map_in_order(
            lambda numbers: [_inspect_file(number, dataset.items[number]) for number in numbers], chunks, jobs, 4 * jobs
        ):
            for inspection in inspections:
                records.put(inspection.number, inspection.record)
                if inspection.stamp is not None:
                    file_index.put(
                        dataset.items[inspection.number].name, inspection.stamp, inspection.record, inspection.stamped_at_ns
                    )
                n_inspected += 1
                if progress is not None:
                    progress(n_inspected, len(unread))
    finally:
        file_index.save()
    return _resolve_images(dataset, records, file_index)


def _load_feature_file(file: FeatureFile, kv_store: KeyValueStore, limit: int | None) -> Images:
    """The rows of a file of features as images, each identified by its key."""
    dataset = file.to_dataset() if limit is None else file.to_dataset().limit_per_class(limit)
    records = FileRecords.create_empty(len(dataset.items))
    for number, item in enumerate(dataset.items):
        row = file.row_by_name[item.name]
        records.put(
            number, FileRecord(file.keys[row : row + 1].tobytes(), "features")
        )  # a slice: one element loses its zeros
    return replace(_resolve_images(dataset, records, FileIndex(kv_store, dataset.root)), feature_file=file)


@dataclass(frozen=True)
class _Inspection:
    """What was read of one file; `stamp` is None for what need not hold the next time."""

    number: int
    stamp: FileStamp | None
    stamped_at_ns: int
    record: FileRecord


def _inspect_file(number: int, item: Item) -> _Inspection:
    """The fact about one file. The stamp is taken first: a change while reading makes it stale, never the digest."""
    digest = b"\0" * 32
    stamped_at_ns = time.time_ns()
    try:
        stamp = FileStamp.from_path(item.location)
    except OSError:
        stamp = None
    try:
        data = item.read()
        digest = read_file.compute_digest(data)
        return _Inspection(
            number, stamp, stamped_at_ns, FileRecord(digest, decode.detect_format(data) if item.has_own_file else "array")
        )
    except decode.ImageRejected as error:
        lasting_stamp = stamp if error.reason in decode.PERMANENT_REASONS else None
        return _Inspection(number, lasting_stamp, stamped_at_ns, FileRecord(digest, "", error.reason, str(error)))


def _resolve_images(dataset: Dataset, records: FileRecords, file_index: FileIndex) -> Images:
    """The outcome of each item. Almost all have bytes of their own; the rest are gathered by digest."""
    items, digests = dataset.items, records.digests.tobytes()
    rejections = list(dataset.rejections)
    rejections += [
        Rejection(items[number].name, *reason_and_detail) for number, reason_and_detail in sorted(records.rejections.items())
    ]
    usable = np.setdiff1d(np.arange(len(items)), list(records.rejections))
    _, digest_ids, counts = np.unique(to_keys([digests])[usable], return_inverse=True, return_counts=True)
    is_unique = counts[digest_ids] == 1
    images = [
        Image(items[number], digests[32 * number : 32 * number + 32], records.formats[number])
        for number in usable[is_unique].tolist()
    ]
    copies: dict[bytes, list[int]] = defaultdict(list)
    for number in usable[~is_unique].tolist():
        copies[digests[32 * number : 32 * number + 32]].append(number)
    groups = _merge_groups([items[number] for number in numbers] for numbers in copies.values())
    if groups:
        images = [_assign_group(image, groups.get(image.item.group or "")) for image in images]
    duplicates = []
    for digest, numbers in copies.items():
        identical_items = [items[number] for number in numbers]
        if len({item.label for item in identical_items}) > 1:
            names = ", ".join(item.name for item in identical_items[:3])
            rejections.extend(Rejection(item.name, "conflicting_labels", f"same bytes: {names}") for item in identical_items)
            continue
        original = min(identical_items, key=lambda item: _SPLIT_PRIORITY[item.split])
        group = next((groups[item.group] for item in identical_items if item.group is not None), None)
        images.append(_assign_group(Image(original, digest, records.formats[numbers[0]]), group))
        duplicates += [
            Duplicate(item.name, original.name, item.split != original.split)
            for item in identical_items
            if item is not original
        ]
    used, group_rejections = _keep_groups_in_one_split(sorted(images, key=attrgetter("item.name")))
    return Images(dataset, tuple(used), tuple(duplicates), tuple(rejections + group_rejections), file_index)


def _assign_group(image: Image, group: str | None) -> Image:
    """The image as a member of `group`, if it is to be in one."""
    return image if group in {None, image.item.group} else replace(image, item=replace(image.item, group=group))


def _merge_groups(copies: Iterable[Sequence[Item]]) -> dict[str, str]:
    """What each group is called once groups that share an image are one: leaving a copy out must not hide the link."""
    parent: dict[str, str] = {}

    def find_root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            group = parent[group]
        return group

    for items in copies:
        roots = sorted({find_root(item.group) for item in items if item.group is not None})
        parent.update(dict.fromkeys(roots[1:], roots[0]) if roots else {})
    return {group: find_root(group) for group in list(parent)}


def _keep_groups_in_one_split(images: list[Image]) -> tuple[list[Image], list[Rejection]]:
    """Keep each group in one split: members elsewhere would leak into its evaluation."""
    if all(image.item.group is None for image in images):
        return images, []
    splits: dict[str, str | None] = {}
    for image in images:
        group, split = image.item.group, image.item.split
        if group is not None:
            splits[group] = min(splits.get(group, split), split, key=_SPLIT_PRIORITY.__getitem__)
    used, rejections = [], []
    for image in images:
        group = image.item.group
        if group is None or splits[group] == image.item.split:
            used.append(image)
        else:
            rejections.append(Rejection(image.name, "group_straddles_splits", f"group {group} is also in {splits[group]}"))
    return used, rejections
