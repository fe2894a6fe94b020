"""The cache folder: extractions, each a spec and a folder of rows per tap.

<cache>/CACHEDIR.TAG  humeris.json
<cache>/features/<extraction>/spec.json  layers.json
<cache>/features/<extraction>/<layer>.<pool>/<sha256>.h5
<cache>/known/        what need not be found out twice; may be deleted at any time
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
from .key_value_store import Memo
from .leases import Claims
from .spec import Spec
from .verification import Damage, Trust

FORMAT = 1
_MARK = "humeris.json"
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# A cache made by humeris. See https://bford.info/cachedir/\n"


def default_folder() -> Path:
    """`$HUMERIS_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("HUMERIS_CACHE") or platformdirs.user_cache_dir("humeris", appauthor=False))


class Store:
    """A cache folder. Reading never writes; with `write=True` rows can be added and damaged files are set aside.

    Raises `NotACache` when the folder is something else. A folder that does not exist is an empty cache.
    """

    def __init__(self, path: Path | str | None = None, *, write: bool = False) -> None:
        self.path = Path(path) if path is not None else default_folder()
        self._tmp = self.path / "tmp"
        self._check()
        self.memo = Memo(self.path / "known", self._tmp, self.create if write else None)
        self.trust = Trust(self.path, self.memo, write)
        self.claims = Claims(self._tmp)
        self._extractions: dict[Path, Extraction] = {}

    def _check(self) -> None:
        mark = self.path / _MARK
        if not os.path.lexists(self.path):
            return
        if not self.path.is_dir():
            raise NotACache(f"{self.path}: expected a cache folder, found a file; give another place with --cache")
        present = set(os.listdir(self.path))  # listed once: another process may be laying the folder out
        if mark.name not in present:
            if present - {"CACHEDIR.TAG", "tmp"}:
                raise NotACache(
                    f"{self.path}: expected a humeris cache or an empty folder, found other files and no {_MARK}; "
                    "give another folder with --cache"
                )
            return
        try:
            found = read_json(mark)["format"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotACache(
                f"{mark}: expected the mark of a humeris cache, found something unreadable; give another folder with --cache"
            ) from error
        if found != FORMAT:
            raise NotACache(
                f"{self.path}: expected cache format {FORMAT}, found {found}; "
                "use the humeris version that made it, or give another folder with --cache"
            )

    def create(self) -> None:
        """Lay out the folder unless it is there; raises `CacheReadOnly` or `CacheFull`."""
        if not (self.path / _MARK).exists():
            make_folder(self.path.absolute())
            publish(_TAG, self.path / "CACHEDIR.TAG", self._tmp, mode=0o644)
            mark = {"format": FORMAT, "what": "cached activations of frozen networks, see humeris"}
            publish(json.dumps(mark).encode() + b"\n", self.path / _MARK, self._tmp, mode=0o644)
        elif not os.access(self.path, os.W_OK):
            raise CacheReadOnly(
                f"{self.path}: expected a folder that can be written, found a read-only one; "
                "change its permissions or give another folder with --cache"
            )
        clear_stale(self._tmp)

    @property
    def damaged(self) -> list[Damage]:
        """Files refused since the store was opened."""
        return self.trust.damaged

    def extraction(self, spec: Spec) -> Extraction:
        """The extraction made with `spec`, whether or not anything is stored for it yet."""
        found = (item for item in self.extractions() if item.spec.digest == spec.digest)
        return next(found, None) or self._extraction(self.path / "features" / spec.folder, spec)

    def extractions(self) -> Iterator[Extraction]:
        """Every extraction in the cache, by name."""
        root = self.path / "features"
        for name in sorted(entry.name for entry in os.scandir(root) if entry.is_dir()) if root.is_dir() else ():
            path = root / name / "spec.json"
            spec = read_spec(path)
            if spec is None and path.exists():  # it may have been published since
                spec = read_spec(path)
                if spec is None:
                    self.trust.refuse(path, "not the spec of this folder")
            if spec is not None:
                yield self._extraction(root / name, spec)

    def _extraction(self, path: Path, spec: Spec) -> Extraction:
        known = self._extractions.get(path)
        if known is None or known.spec.digest != spec.digest:
            known = self._extractions[path] = Extraction(path, spec, self.trust, self._tmp, self.create)
        return known

    def close(self) -> None:
        """Write down which files were verified, where the cache may be written."""
        self.trust.save()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
