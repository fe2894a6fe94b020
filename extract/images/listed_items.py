"""Collects the images that the rows of manifests list; each row becomes one item or is rejected."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from .image_list import ImageList
from .image_source import Listing
from .item import Item, Rejection
from .label_checks import check_labels
from .manifest_rows import ManifestRow, get_encoding, read_rows
from .path_resolver import PathResolver
from .split_names import parse_split, to_nfc
from .text_encoding import is_unicode

_MISSING = {"nan", "NaN", "<NA>"}  # how pandas writes a missing value as text; as a label it may be a class


class ItemCollector:
    """Collects the items of manifests below one root; the rows that are used and those that are rejected are all rows."""

    def __init__(self) -> None:
        self.listed_names: set[str] = set()
        self._rows: dict[str, list[tuple[Item, str]]] = defaultdict(list)  # name -> the rows that list it, with positions
        self._rejections: list[Rejection] = []
        self._notes: list[str] = []
        self._path = Path()

    def read(self, image_list: ImageList, prefix: str, split: str | None) -> None:
        """Add the rows of a manifest.

        Parameters
        ----------
        image_list : ImageList
            The manifest.
        prefix : str
            Its folder relative to the root, with a slash at the end, or "".
        split : str or None
            The split of rows that name none.
        """
        self._path = path = Path(image_list)
        encoding = get_encoding(image_list)
        root = path.parent if image_list.images is None else Path(image_list.images)
        resolver = PathResolver(root, encoding, rebases=image_list.images is not None)
        n_outside = 0
        for row in read_rows(image_list, encoding):
            rejection, item = self._resolve(row, resolver, f"{prefix}{path.name}", prefix, split)
            if rejection is not None:
                self._rejections.append(rejection)
            if item is not None:
                self._rows[item.name].append((item, row.position))
                n_outside += item.name.startswith("/")
        if not is_unicode(encoding):
            self._notes.append(f"{path}: read as {encoding}, because it is not UTF-8; save it as UTF-8 if names look wrong")
        if n_outside:
            self._notes.append(f"{n_outside:,} rows list images outside {root} by absolute paths; they are used")

    def get_listing(self) -> Listing:
        """Return the items in the order of the manifests, and the rejected rows; raises `DataError` for unusable labels."""
        items = []
        for rows in self._rows.values():
            first, *others = rows
            if any(_get_attributes(item) != _get_attributes(first[0]) for item, _ in others):
                self._rejections += [
                    Rejection(item.name, "conflicting_rows", f"{position}: listed with different labels, splits or groups")
                    for item, position in rows
                ]
                continue
            items.append(first[0])
            self._rejections += [
                Rejection(item.name, "listed_twice", f"{position}: listed before, on {first[1]}; used once")
                for item, position in others
            ]
        labels = [item.label for item in items if item.label is not None]
        return Listing(tuple(items), tuple(self._rejections), (), (*self._notes, *check_labels(labels, str(self._path))))

    def _resolve(
        self, row: ManifestRow, resolver: PathResolver, list_name: str, prefix: str, split: str | None
    ) -> tuple[Rejection | None, Item | None]:
        """Return why a row is rejected, or its item."""
        if row.fault or not row.path:
            row_name = f"{list_name}:{row.position.split()[-1]}"
            reason, fault = ("bad_row", row.fault) if row.fault else ("no_path", "the path is empty")
            return Rejection(row_name, reason, f"{row.position}: {fault}"), None
        resolved = resolver.resolve(row.path)
        name = resolved.name if resolved.name.startswith("/") else prefix + resolved.name
        self.listed_names.add(name)
        row_split = "" if row.split in _MISSING else row.split
        if not row.label:
            reason, fault = "no_label", "the label is empty"
        elif row_split and parse_split(row_split) is None:
            reason, fault = "unknown_split", f"unknown split {row_split[:80]!r}; use train, val or test"
        elif resolved.fault == "outside":
            name, reason = row.path, "outside"
            fault = (
                "path leads outside the folder of the list; give an absolute path, or the folder of the images with --images"
            )
        elif resolved.fault == "ambiguous":
            reason, fault = "not_found", f"several files have this name ({resolved.location}); add the extension"
        elif resolved.fault:
            reason, fault = "not_found", f"no such file: {resolved.location}"
        else:
            item_split = parse_split(row_split) if row_split else split
            group = None if row.group in _MISSING else row.group
            return None, Item(name, resolved.location, to_nfc(row.label), item_split, group or None)
        return Rejection(name, reason, f"{row.position}: {fault}"), None


def _get_attributes(item: Item) -> tuple[str | None, str | None, str | None]:
    return item.label, item.split, item.group
