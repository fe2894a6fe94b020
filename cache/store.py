"""The cache folder: extractions, each a spec and a folder of rows per tap.

<cache>/CACHEDIR.TAG  humeris.json
<cache>/features/<extraction>/spec.json  layers.json
<cache>/features/<extraction>/<layer>.<pool>/<sha256>.h5
<cache>/index/        values that can be recomputed; may be deleted at any time
<cache>/tmp/
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from .atomic_files import clear_stale, make_folder, publish, read_json
from .errors import CacheReadOnly, NotACache
from .extraction import Extraction, read_spec
from .key_value_store import KeyValueStore
from .leases import Leases
from .spec import ExtractionSpec
from .verification import CorruptFileRecord, Verifier

FORMAT_VERSION = 2
_MARKER = "humeris.json"
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# A cache made by humeris. See https://bford.info/cachedir/\n"


def get_default_folder() -> Path:
    """Return `$HUMERIS_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("HUMERIS_CACHE") or platformdirs.user_cache_dir("humeris", appauthor=False))


class Store:
    """A cache folder; one that does not exist is an empty cache. Reading never writes.

    Parameters
    ----------
    path : Path or str, optional
        The folder; `get_default_folder` by default.
    write : bool
        Whether rows can be added and corrupt files are quarantined.

    Raises
    ------
    NotACache
        If the folder is something else.
    """

    def __init__(self, path: Path | str | None = None, *, write: bool = False) -> None:
        self.path = Path(path) if path is not None else get_default_folder()
        self._tmp, self._is_writable = self.path / "tmp", write
        self._check()
        self.kv_store = KeyValueStore(self.path / "index", self._tmp, self.create if write else None)
        self.verifier = Verifier(self.path, self.kv_store, write)
        self.leases = Leases(self._tmp)
        self._extractions: dict[Path, Extraction] = {}

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, write={self._is_writable})"

    def _check(self) -> None:
        marker = self.path / _MARKER
        if not os.path.lexists(self.path):
            return
        if not self.path.is_dir():
            raise NotACache(f"{self.path}: is a file, not a cache folder; give another folder with --cache")
        names = set(os.listdir(self.path))  # listed once: another process may be laying the folder out
        if marker.name not in names:
            if names - {"CACHEDIR.TAG", "tmp"}:
                raise NotACache(
                    f"{self.path}: not a humeris cache, and not empty: it holds other files and no {_MARKER}; "
                    "give another folder with --cache"
                )
            return
        try:
            format_version = read_json(marker)["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotACache(
                f"{marker}: cannot be read as the marker of a humeris cache; give another folder with --cache"
            ) from error
        if format_version != FORMAT_VERSION:
            raise NotACache(
                f"{self.path}: unsupported cache format {format_version}; this humeris reads format {FORMAT_VERSION}; "
                "use the humeris version that made it, or give another folder with --cache"
            )

    def check_writable(self) -> None:
        """Raise `CacheReadOnly` if the store was opened for reading only."""
        if not self._is_writable:
            raise CacheReadOnly(f"{self.path}: open for reading only; open it with Store({str(self.path)!r}, write=True)")

    def create(self) -> None:
        """Create the folder unless it exists; raises `CacheReadOnly` or `CacheFull`."""
        if not (self.path / _MARKER).exists():
            make_folder(self.path.absolute())
            publish(_TAG, self.path / "CACHEDIR.TAG", self._tmp, mode=0o644)
            marker = {"format": FORMAT_VERSION, "description": "cached activations of frozen networks, see humeris"}
            publish(json.dumps(marker).encode() + b"\n", self.path / _MARKER, self._tmp, mode=0o644)
        elif not os.access(self.path, os.W_OK):
            raise CacheReadOnly(
                f"{self.path}: folder is read-only; change its permissions or give another folder with --cache"
            )
        clear_stale(self._tmp)

    @property
    def corrupt_files(self) -> list[CorruptFileRecord]:
        """Corrupt files since the store was opened."""
        return self.verifier.corrupt_files

    def get_extraction(self, spec: ExtractionSpec) -> Extraction:
        """Return the extraction made with `spec`, stored or not."""
        matches = (item for item in self.iter_extractions() if item.spec.digest == spec.digest)
        return next(matches, None) or self._open_extraction(self.path / "features" / spec.folder_name, spec)

    def iter_extractions(self) -> Iterator[Extraction]:
        """Yield every extraction in the cache, sorted by name."""
        root = self.path / "features"
        for name in sorted(entry.name for entry in os.scandir(root) if entry.is_dir()) if root.is_dir() else ():
            path = root / name / "spec.json"
            spec = read_spec(path)
            if spec is None and path.exists():  # it may have been published since
                spec = read_spec(path)
                if spec is None:
                    self.verifier.quarantine(path, "spec does not belong to this folder")
            if spec is not None:
                yield self._open_extraction(root / name, spec)

    def _open_extraction(self, path: Path, spec: ExtractionSpec) -> Extraction:
        extraction = self._extractions.get(path)
        if extraction is None or extraction.spec.digest != spec.digest:
            extraction = self._extractions[path] = Extraction(path, spec, self.verifier, self._tmp, self.create)
        return extraction

    def flush(self) -> None:
        """Store which files were verified, if the cache is writable."""
        self.verifier.save()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
