"""Resolves the paths that a list gives, as people write them, to files."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from .split_names import to_nfc

_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
    ".jp2", ".j2k", ".avif", ".heic", ".heif",
}  # fmt: skip


class ResolvedPath(NamedTuple):
    """The name of a listed file in its source, where it is, and its fault: "", ``outside``, ``ambiguous``, ``not_found``."""

    name: str
    location: str
    fault: str = ""


class PathResolver:
    """Resolves listed paths below a folder; most cost one look at the disk.

    A path that does not exist as it is written is also looked for with forward slashes in place of backslashes, in the bytes
    of the list's encoding, in another Unicode form, in capitals or small letters, and with the extension of an image of that
    name. Where the user names the folder of the images, it is looked for there by its last parts as well.

    Parameters
    ----------
    root : Path
        The folder that paths are relative to.
    encoding : str
        The encoding that the list was read in.
    rebases : bool
        Whether to look for paths of another place by their last parts.
    """

    def __init__(self, root: Path, encoding: str = "utf-8", *, rebases: bool = False) -> None:
        self._root_prefix = "" if str(root) == "." else f"{str(root).rstrip(os.sep)}{os.sep}"
        self._real_root = os.path.realpath(root)
        self._encoding, self._rebases = encoding, rebases
        self._names_of_folders: dict[str, dict[str, list[str]]] = {}
        self._real_folders: dict[str, str] = {}

    def resolve(self, path: str) -> ResolvedPath:
        """Return the file of a listed path."""
        first = self._look_up(path)
        if first.fault != "not_found":
            return first
        slashed = path.replace("\\", "/")
        variants = [slashed] if slashed != path else []
        if not self._encoding.startswith("utf") and not path.isascii():
            variants += [_to_raw_name(text, self._encoding) for text in (path, *variants)]
        for variant in variants:
            if (resolved := self._look_up(variant)).fault != "not_found":
                return resolved
        for variant in (path, *variants):
            if (named := self._look_up_by_name(variant)) is not None:
                return named
        if self._rebases:
            parts = [part for part in slashed.split("/") if part not in {"", ".", ".."}]
            for start in range(1, len(parts)):
                tail = "/".join(parts[start:])
                if (resolved := self._look_up(tail)).fault != "not_found":
                    return resolved
                if (named := self._look_up_by_name(tail)) is not None:
                    return named
        return first

    def _look_up(self, path: str) -> ResolvedPath:
        """Return the file of exactly this path."""
        is_absolute = os.path.isabs(path)
        location = os.path.normpath(path if is_absolute else self._root_prefix + path)
        name = location.removeprefix(self._root_prefix)
        if is_absolute and name == location:
            name = self._shorten(location)
        elif not is_absolute and (name == ".." or name.startswith("../") or (self._root_prefix and name == location)):
            return ResolvedPath(path, location, "outside")
        try:
            is_file = stat.S_ISREG(os.stat(location).st_mode)
        except (OSError, ValueError):
            is_file = False
        return ResolvedPath(name, location, "" if is_file else "not_found")

    def _shorten(self, location: str) -> str:
        """Return an absolute path relative to the root, if it is below it when links are resolved; else as it is."""
        folder, _, basename = location.rpartition(os.sep)
        if folder not in self._real_folders:
            try:
                self._real_folders[folder] = os.path.realpath(folder or os.sep)
            except (OSError, ValueError):
                self._real_folders[folder] = folder
        real_location = f"{self._real_folders[folder].rstrip(os.sep)}{os.sep}{basename}"
        prefix = f"{self._real_root.rstrip(os.sep)}{os.sep}"
        return real_location.removeprefix(prefix) if real_location.startswith(prefix) else location

    def _look_up_by_name(self, path: str) -> ResolvedPath | None:
        """Return the file that has the name of `path` in another Unicode form or case, or with an extension."""
        folder, slash, basename = path.rpartition("/")
        names = self._list_names(os.path.normpath(folder + slash if os.path.isabs(path) else self._root_prefix + folder))
        matches = names.get(to_nfc(basename)) or names.get(to_nfc(basename).casefold(), [])
        if not matches:
            return None
        if len(matches) > 1:
            return ResolvedPath(path, ", ".join(matches[:3]), "ambiguous")
        return self._look_up(f"{folder}{slash}{matches[0]}")

    def _list_names(self, folder: str) -> dict[str, list[str]]:
        """Return the files of a folder by their names in NFC and in small letters, images also without extension."""
        if folder not in self._names_of_folders:
            names: dict[str, list[str]] = {}
            try:
                entries = sorted(os.listdir(folder or "."))
            except (OSError, ValueError):
                entries = []
            for entry in entries:
                name = to_nfc(entry)
                stem, suffix = os.path.splitext(name)
                aliases = [name, name.casefold(), *([stem, stem.casefold()] if suffix.lower() in _SUFFIXES else [])]
                for alias in dict.fromkeys(aliases):
                    names.setdefault(alias, []).append(entry)
            self._names_of_folders[folder] = names
        return self._names_of_folders[folder]


def _to_raw_name(text: str, encoding: str) -> str:
    """Return the file name that has the bytes of `text` in `encoding`."""
    try:
        return os.fsdecode(text.encode(encoding))
    except UnicodeEncodeError:
        return text
