"""Reader of untrusted `.npz` files: it runs no code of theirs, and checks sizes before it allocates memory."""

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
    """The arrays of an `.npz` file, whose sizes are checked before they are loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._convert_errors(), zipfile.ZipFile(path) as archive:
            self.names = [re.sub(r"\.npy$", "", info.filename) for info in archive.infolist()]

    def read_image_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array of images; raises `DataError` if it is not one."""
        shape, dtype = self._read_header(name)
        return check_image_array(shape, dtype, f"{self.path}: {name}")

    def load(self, name: str) -> np.ndarray:
        """Return a whole array; raises `DataError`."""
        shape, dtype = self._read_header(name)
        n_bytes, available_bytes = math.prod(shape) * dtype.itemsize, memory.get_available_bytes()
        if n_bytes > available_bytes:
            raise DataError(f"{self.path}: {name} needs {n_bytes:,} bytes of memory, {available_bytes:,} are available")
        with self._convert_errors(), np.load(self.path, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])

    def _read_header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Return shape and dtype after checking that the archive holds that many bytes."""
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
                    f"{self.path}: {name} holds pickled Python objects, which can run code when they are loaded; "
                    "save it as numbers, or as text with np.array(values, dtype=str)"
                )
            if math.prod(shape) * dtype.itemsize > info.file_size:
                raise ValueError(f"{name} has fewer bytes than its shape {shape} requires")
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
            raise DataError(f"{self.path}: cannot be read as an .npz file: {reason}; write it with np.savez") from error
