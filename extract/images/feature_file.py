"""An HDF5 file of features: one that `humeris cache export` wrote, or anyone's with `features` and `labels`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...cache.errors import DataError, RowsMissing
from ...cache.key_value_store import KeyValueStore
from ...cache.shard import to_keys
from ...cache.spec import ExtractionSpec
from .label_names import parse_class_names, to_label_names, to_text
from .safe_hdf5_reader import get_dataset, get_numeric_dataset, iter_blocks, open_file, read_column, scan_rows

_METADATA_NAMES = {"labels", "split", "classes", "groups", "keys", "paths"}
_MAX_MEMBERS = 10_000


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
        self.kv_store = KeyValueStore(self.path, self.path, None)  # remembers nothing
        self.layers: list[dict[str, Any]] = []
        with open_file(self.path) as file:
            self._metadata = _read_metadata(file)
            names = [name for name in file if name not in _METADATA_NAMES] if self._metadata else ["features"]
            if len(file) > _MAX_MEMBERS or "labels" not in file or not names:
                raise ValueError(f"expected features and labels, found {', '.join(list(file)[:20]) or 'nothing'}")
            datasets = {name: get_numeric_dataset(file, name) for name in names}
            lengths = {len(dataset) for dataset in datasets.values()}
            if len(lengths) > 1:
                raise ValueError(f"expected as many rows in each data set, found {', '.join(map(str, sorted(lengths)))}")
            self._names, self._count = names, lengths.pop()
            self.labels, self.columns = self._read_labels(file)
            self.keys = _compute_keys(file, datasets, self._count)
            scans = {name: scan_rows(dataset) for name, dataset in datasets.items()}
            self.non_finite = {name: mask for name, (_, mask) in scans.items()}
            content = [self._metadata.get("spec"), {name: digest for name, (digest, _) in scans.items()}]
            self._digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """What the features are called, as the folder of an extraction is: by the file's name and by what is in it."""
        return f"{self.path.stem}-{self._digest[:16]}"

    @property
    def origin(self) -> dict[str, Any] | None:
        """Where the images are that the features were made from, as a source describes it; None if not known."""
        origin = self._metadata.get("data")
        return origin if isinstance(origin, dict) and {"kind", "root", "source"} <= set(origin) else None

    @cached_property
    def spec(self) -> ExtractionSpec:
        """How the features were made; without an `architecture` where the file does not say."""
        if not self._metadata:
            return ExtractionSpec(self.path.stem, "", "", "", (0, 0), "", "", precision="")
        try:
            return ExtractionSpec.from_dict(self._metadata["spec"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.path}: expected how its features were made, found: {error}") from error

    def iter_extractions(self) -> Iterator[FeatureFile]:
        """The one extraction: this."""
        yield self

    def list_taps(self) -> list[FileRowReader]:
        """The data sets of features."""
        return [FileRowReader(self, name) for name in self._names]

    def get_features(self, layer: str, pool: str) -> FileRowReader:
        """The rows of one tap; raises `RowsMissing`."""
        for rows in self.list_taps():
            if (rows.layer, rows.pool) == (layer, pool):
                return rows
        raise RowsMissing(f"{self.path}: expected the data set {layer}.{pool}, found it gone")

    def find_rows(self, keys: np.ndarray) -> np.ndarray:
        """Row number (n,) of each of `keys` (n,) S32, -1 where there is none."""
        order = np.argsort(self.keys, kind="stable")
        nearest = order[np.minimum(np.searchsorted(self.keys, keys, sorter=order), self._count - 1)]
        return np.where(self.keys[nearest] == keys, nearest, -1)

    def read(self, name: str, rows: np.ndarray, columns: slice | None = None) -> np.ndarray:
        """The rows numbered `rows` (n,) of one data set, or `columns` of them flattened, (n, columns)."""
        with open_file(self.path) as file:
            dataset = get_numeric_dataset(file, name)
            shape = dataset.shape[1:] if columns is None else (columns.stop - columns.start,)
            out = np.empty((len(rows), *shape), dataset.dtype)
            for start, block in iter_blocks(dataset):
                indices = np.nonzero((rows >= start) & (rows < start + len(block)))[0]
                values = block if columns is None else block.reshape(len(block), -1)[:, columns]
                out[indices] = values[rows[indices] - start]
        return out

    def _read_labels(self, file: h5py.File) -> tuple[list[str], dict[str, list[str]]]:
        """The label of each row, and its `split`, `groups` and `paths`, "" where the file does not say."""
        classes = read_column(file, "classes") if "classes" in file else None
        class_list = (
            [to_text(name) for name in classes] if isinstance(classes, list) else parse_class_names(classes, self.path)
        )
        labels = read_column(file, "labels")
        context = f"{self.path}: labels"
        label_names = (
            [to_text(label) for label in labels] if isinstance(labels, list) else to_label_names(labels, class_list, context)
        )
        columns = {}
        for name in ("split", "groups", "paths"):
            values = read_column(file, name) if name in file else [""] * self._count
            columns[name] = [to_text(value) for value in (values if isinstance(values, list) else values.tolist())]
        for name, column in {"labels": label_names, **columns}.items():
            if len(column) != self._count:
                raise ValueError(f"expected {self._count} {name}, found {len(column)}")
        return label_names, columns


class FileRowReader:
    """The rows of one data set, as the cache serves those of a tap."""

    def __init__(self, file: FeatureFile, name: str) -> None:
        self._file, self._name = file, name
        layer, _, pool = name.replace("|", "/").rpartition(".")
        self.layer, self.pool = (layer, pool) if layer else (name, "rows")

    def find_missing(self, keys: np.ndarray) -> np.ndarray:
        """Mask (n,) of the keys that have no finite row."""
        rows = self._file.find_rows(keys)
        return np.asarray((rows < 0) | self._file.non_finite[self._name][rows])

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        """Rows (n, ...) in the order of `keys`, or `columns` of the flattened rows; `RowsMissing` rather than fill a gap."""
        rows = self._file.find_rows(keys)
        if view or (rows < 0).any():
            raise RowsMissing(
                f"{self._file.path}: expected {len(keys)} rows, found {int((rows >= 0).sum())}: it was changed"
            )
        return self._file.read(self._name, rows, columns)


def _read_metadata(file: h5py.File) -> dict[str, Any]:
    """What our own file says of itself; {} for another one."""
    metadata = {name: json.loads(file.attrs[name]) for name in ("spec", "data") if name in file.attrs}
    return metadata if "humeris" in file.attrs and "spec" in metadata else {}


def _compute_keys(file: h5py.File, datasets: dict[str, h5py.Dataset], count: int) -> np.ndarray:
    """What identifies each row (n,) S32: the digest of its image where the file has it, else that of its own bytes."""
    if "keys" in file and "features" not in datasets:
        keys = get_dataset(file, "keys")
        if keys.shape != (count, 32) or keys.dtype != np.uint8:
            raise ValueError(f"expected keys ({count}, 32) uint8, found {keys.dtype} {keys.shape}")
        return to_keys([keys[:].tobytes()])
    digests = [
        hashlib.sha256(row.tobytes()).digest() for _, block in iter_blocks(next(iter(datasets.values()))) for row in block
    ]
    return to_keys(digests)
