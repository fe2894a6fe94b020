"""HDF5 files of features: written by `humeris cache export`, or by other software with `features` and `labels`."""

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

FORMAT_VERSION = 2
_METADATA_NAMES = {"labels", "split", "classes", "groups", "keys", "paths"}
_MAX_MEMBERS = 10_000


class FeatureFile:
    """Rows of features with their labels, with the interface of a read-only cache that holds one extraction.

    Nothing outside the file is read and no code is loaded: links, virtual and external data sets, filters that are not
    built into HDF5, and data sets larger than the available memory raise `DataError`.

    Heads are trained in float32, whatever the dtype of the file: rows that overflow float32 are rejected as not finite, and
    other values keep about seven digits. Center columns with a large mean and a small variance before writing the file:
    1e9 and 1e9 + 1 become equal.

    Parameters
    ----------
    path : Path or str
        The HDF5 file.

    Raises
    ------
    DataError
        If the file cannot be read, or its data sets do not fit together.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.kv_store = KeyValueStore(self.path, self.path, None)  # stores nothing
        self.layers: list[dict[str, Any]] = []
        with open_file(self.path) as file:
            self._metadata = _read_metadata(file)
            names = [name for name in file if name not in _METADATA_NAMES] if self._metadata else ["features"]
            if len(file) > _MAX_MEMBERS:
                raise ValueError(f"it has more than {_MAX_MEMBERS:,} data sets")
            if "labels" not in file or not names:
                missing = "features" if "labels" in file else "labels"
                raise ValueError(f"no data set named {missing} (data sets: {', '.join(list(file)[:20]) or 'none'})")
            datasets = {name: get_numeric_dataset(file, name) for name in names}
            lengths = {len(dataset) for dataset in datasets.values()}
            if len(lengths) > 1:
                raise ValueError(f"data sets differ in their number of rows: {', '.join(map(str, sorted(lengths)))}")
            self._names, self._count = names, lengths.pop()
            self.labels, self.columns = self._read_labels(file)
            self.keys = _compute_keys(file, datasets, self._count)
            scans = {name: scan_rows(dataset) for name, dataset in datasets.items()}
            self.non_finite = {name: mask for name, (_, mask) in scans.items()}
            content = [self._metadata.get("spec"), {name: digest for name, (digest, _) in scans.items()}]
            self._digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The name of the features, as of an extraction's folder: the file's name and a digest of its contents."""
        return f"{self.path.stem}-{self._digest[:16]}"

    @property
    def origin(self) -> dict[str, Any] | None:
        """The description of the image source that the features were computed from; None if the file has none."""
        origin = self._metadata.get("data")
        return origin if isinstance(origin, dict) and {"kind", "root", "source"} <= set(origin) else None

    @cached_property
    def spec(self) -> ExtractionSpec:
        """The spec of the extraction; its `architecture` is empty if the file has no spec."""
        if not self._metadata:
            return ExtractionSpec(self.path.stem, "", "", "", (0, 0), "", "", precision="")
        try:
            return ExtractionSpec.from_dict(self._metadata["spec"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.path}: attribute 'spec' is not a valid extraction spec: {error}; "
                "write the file again with `humeris cache export`"
            ) from error

    def iter_extractions(self) -> Iterator[FeatureFile]:
        """Yield this file, the only extraction."""
        yield self

    def list_taps(self) -> list[FileRowReader]:
        """Return a reader of each data set of features."""
        return [FileRowReader(self, name) for name in self._names]

    def get_features(self, layer: str, pool: str) -> FileRowReader:
        """Return a reader of the rows of one tap; raises `RowsMissing`."""
        for rows in self.list_taps():
            if (rows.layer, rows.pool) == (layer, pool):
                return rows
        raise RowsMissing(f"{self.path}: no data set {layer}.{pool} (data sets: {', '.join(self._names)}); restore the file")

    def find_rows(self, keys: np.ndarray) -> np.ndarray:
        """Return the row number (n,) of each of `keys` (n,) S32, -1 if missing."""
        order = np.argsort(self.keys, kind="stable")
        nearest = order[np.minimum(np.searchsorted(self.keys, keys, sorter=order), self._count - 1)]
        return np.where(self.keys[nearest] == keys, nearest, -1)

    def read(self, name: str, rows: np.ndarray, columns: slice | None = None) -> np.ndarray:
        """Return rows of one data set.

        Parameters
        ----------
        name : str
            The data set.
        rows : np.ndarray
            Row numbers (n,).
        columns : slice, optional
            Columns of the flattened rows, with start and stop.

        Returns
        -------
        np.ndarray
            (n, ...), or (n, stop - start) with `columns`.
        """
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
        """Return the label of each row, and the columns `split`, `groups` and `paths`; missing values are ""."""
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
                raise ValueError(f"{name} has {len(column)} values for {self._count} rows")
        return label_names, columns


class FileRowReader:
    """Reader of the rows of one data set, with the interface of the cache's `TapFeatures`."""

    def __init__(self, file: FeatureFile, name: str) -> None:
        self._file, self._name = file, name
        layer, _, pool = name.replace("|", "/").rpartition(".")
        self.layer, self.pool = (layer, pool) if layer else (name, "rows")

    def find_missing(self, keys: np.ndarray) -> np.ndarray:
        """Return the mask (n,) of the keys that have no row, or one that is not finite."""
        rows = self._file.find_rows(keys)
        return np.asarray((rows < 0) | self._file.non_finite[self._name][rows])

    def read(self, keys: np.ndarray, view: int = 0, columns: slice | None = None) -> np.ndarray:
        """Return the rows (n, ...) of `keys`, or `columns` of the flattened rows; raises `RowsMissing` if any is missing."""
        rows = self._file.find_rows(keys)
        if view or (rows < 0).any():
            raise RowsMissing(
                f"{self._file.path}: rows are missing: the file has {int((rows >= 0).sum())} of {len(keys)}; restore it"
            )
        return self._file.read(self._name, rows, columns)


def _read_metadata(file: h5py.File) -> dict[str, Any]:
    """Return the attributes that `humeris cache export` writes; {} if other software wrote the file."""
    if "humeris" not in file.attrs or "spec" not in file.attrs:
        return {}
    if (version := file.attrs.get("format")) != FORMAT_VERSION:
        raise ValueError(f"its format is {version}, not {FORMAT_VERSION}; write the file again with `humeris cache export`")
    return {name: json.loads(file.attrs[name]) for name in ("spec", "data") if name in file.attrs}


def _compute_keys(file: h5py.File, datasets: dict[str, h5py.Dataset], count: int) -> np.ndarray:
    """Return the key (n,) S32 of each row: the digest of its image if the file has it, else the digest of the row."""
    if "keys" in file and "features" not in datasets:
        keys = get_dataset(file, "keys")
        if keys.shape != (count, 32) or keys.dtype != np.uint8:
            raise ValueError(f"keys is {keys.dtype} {keys.shape}, not uint8 ({count}, 32)")
        return to_keys([keys[:].tobytes()])
    digests = [
        hashlib.sha256(row.tobytes()).digest() for _, block in iter_blocks(next(iter(datasets.values()))) for row in block
    ]
    return to_keys(digests)
