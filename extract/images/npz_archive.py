"""The arrays of an `.npz` file, read without running code and without believing what it says of their sizes."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...cache.errors import DataError
from .. import memory
from .image_arrays import check_image_array

_READ_ERRORS = (
    OSError, ValueError, LookupError, EOFError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class NpzArchive:
    """The arrays of an `.npz`, whose sizes are known before they are loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._convert_errors(), zipfile.ZipFile(path) as archive:
            self.names = [re.sub(r"\.npy$", "", info.filename) for info in archive.infolist()]

    def read_image_shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array of images; raises `DataError` when it is something else."""
        shape, dtype = self._read_header(name)
        return check_image_array(shape, dtype, f"{self.path}: {name}")

    def load(self, name: str) -> np.ndarray:
        """An array, read whole."""
        shape, dtype = self._read_header(name)
        n_bytes, available_bytes = math.prod(shape) * dtype.itemsize, memory.get_available_bytes()
        if n_bytes > available_bytes:
            raise DataError(f"{self.path}: {name} needs {n_bytes:,} bytes of memory, found {available_bytes:,}")
        with self._convert_errors(), np.load(self.path, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])

    def _read_header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and dtype, if the archive holds as many bytes as they say."""
        with self._convert_errors(), zipfile.ZipFile(self.path) as archive:
            info = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
            with archive.open(info) as file:
                version = np.lib.format.read_magic(file)
                read_header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read_header(file)
            if dtype.hasobject:
                raise DataError(
                    f"{self.path}: {name} holds Python objects, which would run code when loaded; "
                    "save it as numbers or text, np.array(values, dtype=str)"
                )
            if math.prod(shape) * dtype.itemsize > info.file_size:
                raise ValueError(f"{name} is shorter than its shape {shape}")
            return shape, dtype

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except DataError:
            raise
        except MemoryError as error:
            raise DataError(f"{self.path}: not enough memory to load it") from error
        except _READ_ERRORS as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{self.path}: expected arrays written by np.savez, found: {reason}") from error
