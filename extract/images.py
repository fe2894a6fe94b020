"""The images of a dataset with their identity: every listed path gets exactly one outcome."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..cache.memo import Memo
from ..cache.shard import as_keys
from ..cache.store import Store
from . import pixels, source
from .dataset import Dataset, Item, Refusal
from .detect import detect
from .known import Fact, Known, Stamp

Progress = Callable[[int, int], None]
_EVALUATED_FIRST = {"test": 0, "val": 1, "train": 2, None: 3}


@dataclass(frozen=True)
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

    No two used images have the same bytes, so none can straddle splits or folds.
    """

    dataset: Dataset
    used: tuple[Image, ...]
    duplicates: tuple[Duplicate, ...]
    refused: tuple[Refusal, ...]
    known: Known = field(repr=False, compare=False)

    @property
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
    progress: Progress | None = None,
) -> Images:
    """The images at `data` (folders, a list of images, or arrays), identified; see `detect` and `identify`."""
    return identify(detect(data, limit, store.memo), store.memo, jobs or source.cores(), progress)


def identify(dataset: Dataset, memo: Memo, jobs: int, progress: Progress | None = None) -> Images:
    """The images of `dataset` with their digests; files whose path, size, mtime and ctime are known are not read again.

    Of files with the same bytes one is used: the one in test, else val, else train, else the first listed. Files with
    the same bytes and different labels are all refused, and so are members of a group outside its most evaluated split.
    """
    known = Known(memo, dataset.root)
    facts: dict[str, Fact] = {}
    unread: list[Item] = []
    for item in dataset.items:
        if (fact := known.get(item.name, item.path)) is not None:
            facts[item.name] = fact
        else:
            unread.append(item)
    try:
        for done, seen in enumerate(source.in_order(_look, unread, jobs, 4 * jobs), start=1):
            facts[seen.item.name] = seen.fact
            if seen.stamp is not None:
                known.put(seen.item.name, seen.stamp, seen.fact, seen.taken_ns)
            if progress is not None:
                progress(done, len(unread))
    finally:
        known.save()
    return _resolve(dataset, facts, known)


@dataclass(frozen=True)
class _Seen:
    """What was read of one file; `stamp` is None for what need not hold the next time."""

    item: Item
    stamp: Stamp | None
    taken_ns: int
    fact: Fact


def _look(item: Item) -> _Seen:
    """The fact about one file. The stamp is taken first: a change while reading makes it stale, never the digest."""
    digest = b"\0" * 32
    taken_ns = time.time_ns()
    try:
        stamp = Stamp.of(item.path)
    except OSError:
        stamp = None
    try:
        data = item.read()
        digest = source.digest(data)
        return _Seen(item, stamp, taken_ns, Fact(digest, pixels.sniff(data) if item.in_file else "array"))
    except pixels.Refused as refused:
        keep = stamp if refused.reason in pixels.LASTING else None
        return _Seen(item, keep, taken_ns, Fact(digest, "", refused.reason, str(refused)))


def _resolve(dataset: Dataset, facts: dict[str, Fact], known: Known) -> Images:
    refused = list(dataset.refused)
    by_digest: dict[bytes, list[Item]] = defaultdict(list)
    for item in dataset.items:
        fact = facts[item.name]
        if fact.reason:
            refused.append(Refusal(item.name, fact.reason, fact.detail))
        else:
            by_digest[fact.digest].append(item)
    groups = _merged_groups(by_digest.values())
    duplicates, chosen = [], {}
    for digest, items in by_digest.items():
        if len({item.label for item in items}) > 1:
            names = ", ".join(item.name for item in items[:3])
            refused.extend(Refusal(item.name, "conflicting_labels", f"same bytes: {names}") for item in items)
            continue
        first = min(items, key=lambda item: _EVALUATED_FIRST[item.split])
        group = next((groups[item.group] for item in items if item.group is not None), None)
        item = first if group == first.group else replace(first, group=group)
        chosen[first.name] = Image(item, digest, facts[first.name].format)
        duplicates += [Duplicate(item.name, first.name, item.split != first.split) for item in items if item is not first]
    used, straddling = _whole_groups(chosen.values())
    return Images(dataset, tuple(used), tuple(duplicates), tuple(refused + straddling), known)


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


def _whole_groups(images: Iterable[Image]) -> tuple[list[Image], list[Refusal]]:
    """Keep each group in one split: members elsewhere would leak into its evaluation."""
    images = sorted(images, key=lambda image: image.name)
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
