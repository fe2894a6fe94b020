"""An HDF5 file of features as DATA: one that `humeris cache export` wrote, or anyone's with `features` and `labels`."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...cache.errors import DataError, RowsMissing
from ...cache.key_value_store import Memo
from ...cache.shard import as_keys
from ...cache.spec import Spec
from .. import memory
from ..engine.non_finite import images_at_fault
from ..pixels.decode import Refused
from .dataset import SPLITS, Dataset, Item, Refusal
from .npz import class_names, text, texts

_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
_ABOUT = {"labels", "split", "classes", "groups", "keys", "paths"}
_FILTERS = {1, 2, 3, 4, 5, 6, 32000}  # those built into HDF5, and LZF, which h5py brings: none is loaded from a file
_MEMBERS = 10_000
_BLOCK = 1 << 26  # bytes
_DAMAGED = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError, RecursionError)


def is_one(path: Path) -> bool:
    """Whether the name says that the file is HDF5."""
    return path.suffix.lower() in _SUFFIXES and path.is_file()


class FeatureFile:
    """Rows of features with their labels. It plays the part of a cache that holds one extraction, for reading.

    Nothing outside of the file is read and no code is loaded: links, virtual and external data sets and foreign filters
    are refused, as are sizes beyond the memory there is. Raises `DataError`.

    Heads learn from the rows in float32, whatever numbers are in the file: rows that overflow it are refused as infinite,
    and of the others seven digits are kept. Columns that vary little about a large mean (1e9 and 1e9 + 1 become equal) have
    to be centred before they are written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.memo = Memo(self.path, self.path, None)  # remembers nothing
        self.layers: list[dict[str, Any]] = []
        self.number: dict[str, int] = {}
        with self._opened() as file:
            self._about = _about(file)
            names = [name for name in file if name not in _ABOUT] if self._about else ["features"]
            if len(file) > _MEMBERS or "labels" not in file or not names:
                raise ValueError(f"expected features and labels, found {', '.join(list(file)[:20]) or 'nothing'}")
            sets = {name: _numbers(file, name) for name in names}
            count = {len(each) for each in sets.values()}
            if len(count) > 1:
                raise ValueError(f"expected as many rows in each data set, found {', '.join(map(str, sorted(count)))}")
            self._names, self._count = names, count.pop()
            self._labels, self._columns = self._describe(file)
            self.keys = _digests(file, sets, self._count)
            seen = {name: _look(each) for name, each in sets.items()}
            self.bad = {name: bad for name, (_, bad) in seen.items()}
            content = [self._about.get("spec"), {name: digest for name, (digest, _) in seen.items()}]
            self._digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """What the features are called, as the folder of an extraction is: by the file's name and by what is in it."""
        return f"{self.path.stem}-{self._digest[:16]}"

    @property
    def origin(self) -> dict[str, Any] | None:
        """Where the images are that the features were made from, as `Images.summary` says it; None if not known."""
        origin = self._about.get("data")
        return origin if isinstance(origin, dict) and {"kind", "root", "source"} <= set(origin) else None

    @cached_property
    def spec(self) -> Spec:
        """How the features were made; without an `architecture` where the file does not say."""
        if not self._about:
            return Spec(self.path.stem, "", "", "", (0, 0), "", "", precision="")
        try:
            return Spec.from_dict(self._about["spec"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.path}: expected how its features were made, found: {error}") from error

    def dataset(self) -> Dataset:
        """The rows as items, those without a label or a finite row refused."""
        items, refused = [], []
        count = len(self.keys)
        fault = images_at_fault(self.bad.values())
        names = self._columns["paths"]
        if len(set(names)) < count:
            names = [f"features/{row:0{max(5, len(str(count - 1)))}}" for row in range(count)]
        for row, (name, label) in enumerate(zip(names, self._labels, strict=True)):
            split, group = self._columns["split"][row], self._columns["groups"][row]
            if fault[row]:
                refused.append(Refusal(name, "not_finite", f"row {row} holds NaN, infinity or what float32 cannot hold"))
            elif not label:
                refused.append(Refusal(name, "no_label", f"row {row} has no label, or one without a name"))
            elif split and split.lower() not in SPLITS:
                refused.append(
                    Refusal(name, "unknown_split", f"row {row}: expected train, val or test, found {split[:80]!r}")
                )
            else:
                items.append(Item(name, self.path, label, SPLITS.get(split.lower()), group or None, _no_image))
        if not items:
            raise DataError(f"{self.path}: expected rows with labels, found none among {count} ({_reasons(refused)})")
        self.number = {name: row for row, name in enumerate(names)}
        return Dataset(self.path, self.path, "features", tuple(items), tuple(refused))

    def extractions(self) -> Iterator[FeatureFile]:
        """The one extraction: this."""
        yield self

    def taps(self) -> list[FileRows]:
        """The data sets of features."""
        return [FileRows(self, name) for name in self._names]

    def features(self, layer: str, pool: str) -> FileRows:
        """The rows of one tap; raises `RowsMissing`."""
        for rows in self.taps():
            if (rows.layer, rows.pool) == (layer, pool):
                return rows
        raise RowsMissing(f"{self.path}: expected the data set {layer}.{pool}, found it gone")

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """Row number (n,) of each of `keys` (n,) S32, -1 where there is none."""
        order = np.argsort(self.keys, kind="stable")
        at = order[np.minimum(np.searchsorted(self.keys, keys, sorter=order), self._count - 1)]
        return np.where(self.keys[at] == keys, at, -1)

    def read(self, name: str, rows: np.ndarray, columns: slice | None = None) -> np.ndarray:
        """The rows numbered `rows` (n,) of one data set, or `columns` of them flattened, (n, columns)."""
        with self._opened() as file:
            stored = _numbers(file, name)
            shape = stored.shape[1:] if columns is None else (columns.stop - columns.start,)
            out = np.empty((len(rows), *shape), stored.dtype)
            for start, block in _blocks(stored):
                here = np.nonzero((rows >= start) & (rows < start + len(block)))[0]
                wanted = block if columns is None else block.reshape(len(block), -1)[:, columns]
                out[here] = wanted[rows[here] - start]
        return out

    def _describe(self, file: h5py.File) -> tuple[list[str], dict[str, list[str]]]:
        """The label of each row, and its `split`, `groups` and `paths`, "" where the file does not say."""
        classes = _column(file, "classes") if "classes" in file else None
        names = [text(name) for name in classes] if isinstance(classes, list) else class_names(classes, self.path)
        labels = _column(file, "labels")
        where = f"{self.path}: labels"
        found = [text(label) for label in labels] if isinstance(labels, list) else texts(labels, names, where)
        columns = {}
        for name in ("split", "groups", "paths"):
            values = _column(file, name) if name in file else [""] * self._count
            columns[name] = [text(value) for value in (values if isinstance(values, list) else values.tolist())]
        for name, column in {"labels": found, **columns}.items():
            if len(column) != self._count:
                raise ValueError(f"expected {self._count} {name}, found {len(column)}")
        return found, columns

    @contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        try:
            with memory.limited():
                file = h5py.File(self.path, "r", locking=False)
            with file:
                yield file
        except DataError:
            raise
        except MemoryError as error:
            raise DataError(f"{self.path}: not enough memory to read it") from error
        except _DAMAGED as error:
            reason = " ".join(str(error).strip("'\"").split())[:200]
            raise DataError(f"{self.path}: cannot be used as features (n, d) and labels (n,): {reason}") from error


class FileRows:
    """The rows of one data set, as the cache serves those of a tap."""

    def __init__(self, file: FeatureFile, name: str) -> None:
        self._file, self._name = file, name
        layer, _, pool = name.replace("|", "/").rpartition(".")
        self.layer, self.pool = (layer, pool) if layer else (name, "rows")

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Mask (n,) of the keys that have no finite row."""
        rows = self._file.rows(keys)
        return np.asarray((rows < 0) | self._file.bad[self._name][rows])

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        """Rows (n, ...) in the order of `keys`, or `columns` of the flattened rows; `RowsMissing` rather than fill a gap."""
        rows = self._file.rows(keys)
        if view or (rows < 0).any():
            raise RowsMissing(
                f"{self._file.path}: expected {len(keys)} rows, found {int((rows >= 0).sum())}: it was changed"
            )
        return self._file.read(self._name, rows, columns)


def _about(file: h5py.File) -> dict[str, Any]:
    """What our own file says of itself; {} for another one."""
    found = {name: json.loads(file.attrs[name]) for name in ("spec", "data") if name in file.attrs}
    return found if "humeris" in file.attrs and "spec" in found else {}


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A data set that lies wholly in the file; raises `ValueError`."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
        raise ValueError(f"{name} is missing, a link or no data set")
    found = file[name]
    properties = found.id.get_create_plist()
    filters = {properties.get_filter(number)[0] for number in range(properties.get_nfilters())}
    if found.is_virtual or found.external or filters - _FILTERS:
        raise ValueError(f"{name} is virtual or external, or stored by a filter that is not HDF5's own")
    if found.shape is None or not found.ndim:
        raise ValueError(f"{name} is a single value")
    if found.nbytes > (free := memory.available()):
        raise ValueError(f"{name} needs {found.nbytes:,} bytes of memory, found {free:,}")
    if found.chunks is None:
        whole = found.id.get_storage_size() >= found.nbytes
    else:
        pieces = [math.ceil(length / chunk) for length, chunk in zip(found.shape, found.chunks, strict=True)]
        whole = found.id.get_num_chunks() == math.prod(pieces)
    if not whole:  # HDF5 would fill the gaps with zeros
        raise ValueError(f"{name} was never written whole")
    return found


def _numbers(file: h5py.File, name: str) -> h5py.Dataset:
    found = _dataset(file, name)
    if found.dtype.kind not in "fiu" or found.ndim < 2 or 0 in found.shape:
        raise ValueError(
            f"expected {name} as numbers (n, d) or (n, height, width, channels), found {found.dtype} {found.shape}"
        )
    return found


def _column(file: h5py.File, name: str) -> np.ndarray | list[bytes]:
    """Numbers (n, ...), or text (n,) as bytes."""
    found = _dataset(file, name)
    if h5py.check_string_dtype(found.dtype) is None:
        if found.dtype.kind not in "biuf":
            raise ValueError(f"expected {name} as numbers or text, found {found.dtype}")
        return np.asarray(found[:])
    if found.ndim != 1:
        raise ValueError(f"expected {name} (n,), found {found.shape}")
    return [bytes(value) for value in found[:]]


def _blocks(found: h5py.Dataset) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, rows) until all were read."""
    step = max(1, _BLOCK // max(1, found.dtype.itemsize * math.prod(found.shape[1:])))
    for start in range(0, len(found), step):
        yield start, found[start : start + step]


def _digests(file: h5py.File, sets: dict[str, h5py.Dataset], count: int) -> np.ndarray:
    """What identifies each row (n,) S32: the digest of its image where the file has it, else that of its own bytes."""
    if "keys" in file and "features" not in sets:
        keys = _dataset(file, "keys")
        if keys.shape != (count, 32) or keys.dtype != np.uint8:
            raise ValueError(f"expected keys ({count}, 32) uint8, found {keys.dtype} {keys.shape}")
        return as_keys([keys[:].tobytes()])
    digests = [hashlib.sha256(row.tobytes()).digest() for _, block in _blocks(next(iter(sets.values()))) for row in block]
    return as_keys(digests)


def _look(found: h5py.Dataset) -> tuple[str, np.ndarray]:
    """(digest of type, shape and numbers; mask (n,) of the rows that hold NaN or infinity, once they are float32)."""
    digest, bad = hashlib.sha256(f"{found.dtype.str} {found.shape}".encode()), np.zeros(len(found), bool)
    for start, block in _blocks(found):
        digest.update(block.tobytes())
        with np.errstate(over="ignore"):
            finite = np.isfinite(block.astype(np.float32, copy=False))
        bad[start : start + len(block)] = ~finite.reshape(len(block), -1).all(axis=1)
    return digest.hexdigest(), bad


def _reasons(refused: Sequence[Refusal]) -> str:
    counts = Counter(each.reason for each in refused)
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _no_image() -> bytes:
    raise Refused("not_an_image", "a row of features, not an image")
