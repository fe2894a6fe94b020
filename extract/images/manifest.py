"""Images that a file lists: a manifest, or metadata files in the folders of the images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ...cache.errors import DataError
from .class_folders import ClassFolders
from .folder_walk import FolderWalk
from .image_files import ImageFiles
from .image_list import ImageList
from .image_source import ImageSource, Listing
from .item import Rejection
from .list_columns import MissingColumn
from .listed_items import ItemCollector
from .litter import LIST_SUFFIXES
from .split_names import parse_split, parse_split_folders

_METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


class Manifest(ImageFiles):
    """The images that a manifest lists, by absolute paths or by paths relative to its folder.

    Parameters
    ----------
    data : str
        DATA as the user gave it.
    root : Path
        The folder that paths are relative to: that of the manifest, the one that the user named, or a folder in the layout
        of Hugging Face's ImageFolder: `metadata.csv`, `.jsonl` or `.parquet` is in it or in each of its split folders, with
        paths relative to the metadata file. Files that no metadata file lists are rejected.
    file : Path or None
        The manifest; None for metadata files.
    image_list : ImageList, optional
        The columns.
    """

    kinds = ("manifest",)

    def __init__(self, data: str, root: Path, file: Path | None = None, image_list: ImageList | None = None) -> None:
        self.data, self.root, self._file = str(Path(data)), root, file
        self._image_list = image_list or ImageList(data)

    @classmethod
    def matches(cls, data: str) -> bool:
        """Return whether DATA is a file with a suffix of a manifest, or a folder with metadata files."""
        path = Path(data)
        if path.is_dir():
            return bool(_list_metadata_files(path))
        return path.suffix.lower() in LIST_SUFFIXES and path.exists()

    @classmethod
    def open(cls, data: str) -> ImageSource:
        """Return the source of the manifest, or of the class folders if the metadata files have no column of labels."""
        path = Path(data)
        if not path.is_dir():
            return cls.open_list(ImageList(data))
        manifest, folders = cls(data, path), ClassFolders(data)
        try:
            manifest.list_items()
        except MissingColumn as error:
            if error.column != "label" or folders.layout == "flat" or not _has_classes(folders):
                raise
            return folders
        return manifest

    @classmethod
    def open_list(cls, image_list: ImageList) -> Manifest:
        """Return the source of a manifest, or of the metadata files in a folder, with the columns that the user named."""
        path = Path(image_list)
        if not path.is_dir():
            return cls(str(path), path.parent if image_list.images is None else Path(image_list.images), path, image_list)
        if image_list.images is not None:
            raise DataError(f"{path}: --images has no effect, because metadata files are in the folder of the images")
        return cls(str(path), path, None, image_list)

    def describe(self) -> dict[str, Any]:
        """Return the path of the manifest, the folder of the images, and the columns that the user named."""
        description = {"source": self.data, "root": os.path.abspath(self.root), "kind": "manifest"}
        settings = self._image_list.to_dict()
        columns = {name: value for name, value in settings.items() if name not in {"path", "images"} and value}
        if self._image_list.images is not None:
            columns["path"] = os.path.abspath(self.data)
        return {**description, "list": columns} if columns else description

    @classmethod
    def reopen(cls, description: Mapping[str, Any]) -> Manifest:
        """Return the manifest of that name in the folder that is described, or the metadata files there."""
        root, columns = Path(description["root"]), dict(description.get("list", {}))
        file = Path(columns.pop("path", root / Path(description["source"]).name))
        image_list = ImageList(file, **columns, images=None if file.parent == root else root)
        return cls(description["source"], root, file if file.is_file() else None, image_list)

    @property
    def location(self) -> str:
        """The path of the manifest, or the folder of the metadata files."""
        return str(self._file or self.root)

    @property
    def arguments(self) -> list[str]:
        """The path of the manifest, and the options that name its columns and the folder of the images."""
        return [self.location, *(word for words in self._image_list.to_options().values() for word in words)]

    def list_items(self) -> Listing:
        """Return the files in the order in which they are listed."""
        return self._listing

    @cached_property
    def _listing(self) -> Listing:
        collector = ItemCollector()
        if self._file is not None:
            collector.read(replace(self._image_list, path=self._file), "", None)
            return collector.get_listing()
        metadata_files = _find_metadata_files(self.root)
        for path, (prefix, split) in metadata_files.items():
            collector.read(replace(self._image_list, path=path), prefix, split)
        metadata_names = {f"{prefix}{path.name}" for path, (prefix, _) in metadata_files.items()}
        walk = FolderWalk()
        unlisted_names = [
            f"{folder.prefix}{name}"
            for folder in walk.iter_folders(str(self.root))
            for name in folder.files
            if f"{folder.prefix}{name}" not in collector.listed_names
        ]
        items, list_rejections, _, notes = collector.get_listing()
        unlisted = [Rejection(name, "not_listed", "no metadata file lists it") for name in unlisted_names]
        ignored = tuple(name for name in walk.ignored if name not in metadata_names)
        return Listing(items, (*list_rejections, *walk.rejections, *unlisted), ignored, notes)


def _has_classes(folders: ClassFolders) -> bool:
    """Return whether the folders are classes, of which none is named like a split."""
    try:
        return not any(parse_split(item.label or "") for item in folders.list_items().items)
    except DataError:
        return False


def _list_metadata_files(root: Path) -> list[Path]:
    """Return the metadata files in a folder and in its split folders."""
    split_folders = [root / name for name in parse_split_folders(FolderWalk().list_folder(str(root)).folders)]
    return [folder / name for folder in (root, *split_folders) for name in _METADATA_NAMES if (folder / name).is_file()]


def _find_metadata_files(root: Path) -> dict[Path, tuple[str, str | None]]:
    """Return metadata file -> (prefix of the names, split) for the metadata files that are used; raises `DataError`."""
    if root_metadata := _find_metadata_file(root):
        return {root_metadata: ("", None)}
    metadata_files: dict[Path, tuple[str, str | None]] = {}
    for name, split in parse_split_folders(FolderWalk().list_folder(str(root)).folders).items():
        if (path := _find_metadata_file(root / name)) is not None:
            metadata_files[path] = (f"{name}/", split)
    return metadata_files


def _find_metadata_file(folder: Path) -> Path | None:
    paths = [folder / name for name in _METADATA_NAMES if (folder / name).is_file()]
    if len(paths) > 1:
        raise DataError(f"{folder}: more than one metadata file, {paths[0].name} and {paths[1].name}; keep one")
    return paths[0] if paths else None
