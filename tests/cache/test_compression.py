"""Compressed rows: the same numbers from a smaller file, and no filter that we did not choose."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import ml_dtypes
import numpy as np
import pytest

from humeris.cache import compression, shard
from humeris.cache.errors import CacheError
from humeris.cache.extraction import Extraction
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store

SPEC = ExtractionSpec("toy", "toy()", "random, seed 0", "ab" * 32, (8, 8), "tf", "1")
COUNT = 37
KEYS = shard.to_keys([hashlib.sha256(bytes([number])).digest() for number in range(COUNT)])
IDENTITY = {"extraction": SPEC.digest, "layer": "conv", "pool": "map"}
RANDOM = np.random.default_rng(0)
SHAPES = [(1,), (7,), (3, 5, 7), (1, 1, 1), (56, 56, 33), (200_001,)]


def relu(*shape: int) -> np.ndarray:
    """Half zeros, half noise, like an activation map."""
    return np.maximum(np.random.default_rng(shape).normal(size=shape), 0).astype(np.float32)


def stored(path: Path, features: np.ndarray, name: str) -> Extraction:
    with Store(path, write=True) as store:
        store.get_extraction(SPEC).add("conv", "map", KEYS[: len(features)], features, compression=name)
    return Store(path).get_extraction(SPEC)


def shard_of(path: Path) -> Path:
    (found,) = path.glob("features/*/*/*.h5")
    return found


def encoded(change: Callable[[h5py.File], Any], count: int = 8) -> bytes:
    """A shard of `count` rows whose features `change` makes."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest") as file:
        change(file)
        file["keys"] = np.ascontiguousarray(KEYS[:count]).view(np.uint8).reshape(-1, 32)
        file["views"] = np.zeros(count, np.uint16)
        file.attrs["attributes"] = json.dumps(IDENTITY)
    return buffer.getvalue()


def published(folder: Path, data: bytes) -> Path:
    path = folder / f"{hashlib.sha256(data).hexdigest()}.h5"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", compression.METHODS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_rows_come_back_as_they_were_stored(dtype: str, name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    count = COUNT if np.prod(shape) < 200_000 else 5
    features = relu(count, *shape).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    tap = stored(tmp_path / "c", features, name).get_features("conv", "map")
    order = RANDOM.permutation(count)
    for wanted in (order, order[:3], np.array([0]), np.array([2, 2, 0])):
        read = tap.read(KEYS[wanted])
        assert read.dtype == (np.float32 if dtype == "bfloat16" else np.dtype(dtype))
        assert np.array_equal(read, features[wanted].astype(read.dtype))
    (item,) = tap.list_shards()
    assert np.array_equal(item.read_rows(), features.astype(item.dtype))
    assert (item.stored_dtype, item.layout.compression, item.shape) == (dtype, name, (count, *shape))


@pytest.mark.parametrize("name", ["gzip", "blosc2"])
def test_maps_of_relus_get_smaller_and_keys_stay_contiguous(name: str, tmp_path: Path) -> None:
    features = relu(COUNT, 14, 14, 64).astype(np.float16)
    stored(tmp_path / "plain", features, "none")
    stored(tmp_path / "c", features, name)
    path = shard_of(tmp_path / "c")
    assert path.stat().st_size < 0.8 * shard_of(tmp_path / "plain").stat().st_size
    with h5py.File(path) as file:
        rows = file["features"].chunks[0]
        assert file["features"].chunks == (rows, 14, 14, 64)
        assert 250_000 < rows * features[0].nbytes <= 1_000_000
        assert file["keys"].chunks is None
        assert file["views"].chunks is None
        assert np.array_equal(file["features"][:], features)


def test_gzip_needs_nothing_but_h5py_to_be_read(tmp_path: Path) -> None:
    features = relu(COUNT, 14, 14, 8)
    stored(tmp_path / "c", features, "gzip")
    np.save(tmp_path / "rows.npy", features)
    code = (
        "import sys, h5py, numpy as np\n"
        "with h5py.File(sys.argv[1]) as file:\n"
        "    assert np.array_equal(file['features'][:], np.load(sys.argv[2]))\n"
        "assert 'hdf5plugin' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, shard_of(tmp_path / "c"), tmp_path / "rows.npy"], check=True, timeout=60)


def test_rows_that_do_not_compress_are_stored_all_the_same(tmp_path: Path) -> None:
    """HDF5 then leaves the filter out for that chunk, and says so in a mask."""
    noise = np.frombuffer(RANDOM.bytes(COUNT * 9000 * 4), np.uint32).reshape(COUNT, 9000)
    features = ((noise & 0x007FFFFF) | (noise & 0x80000000) | 0x3F800000).view(np.float32)
    flat = RANDOM.bytes(COUNT * 9000 * 2)
    halves = (np.frombuffer(flat, np.uint16).reshape(COUNT, 9000) & 0xBFFF).view(np.float16)
    for number, rows in enumerate((features, halves)):
        tap = stored(tmp_path / str(number), rows, "gzip").get_features("conv", "map")
        assert np.array_equal(tap.read(KEYS), rows)
    data = encoded(lambda file: _raw_chunks(file, halves[:8]))
    (tmp_path / "x").mkdir()
    loaded = shard.load(published(tmp_path / "x", data), IDENTITY)
    assert np.array_equal(loaded.read_rows(), halves[:8])


def _raw_chunks(file: h5py.File, rows: np.ndarray) -> None:
    dataset = file.create_dataset(
        "features", rows.shape, rows.dtype, chunks=(4, rows.shape[1]), compression="gzip", shuffle=True
    )
    dataset.id.write_direct_chunk((0, 0), rows[:4].tobytes(), filter_mask=3)
    dataset[4:] = rows[4:]


def test_only_the_chunks_that_hold_wanted_rows_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = relu(COUNT, 40_000)  # 160 kB: three rows a chunk
    tap = stored(tmp_path / "c", features, "gzip").get_features("conv", "map")
    tap.list_shards()
    read: list[int] = []
    real = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda descriptor, parts, offset: read.append(offset) or real(descriptor, parts, offset)
    )
    assert np.array_equal(tap.read(KEYS[[4, 30, 3]]), features[[4, 30, 3]])
    assert len(read) == 2


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    taps = [stored(tmp_path / name, relu(COUNT, 500), name).get_features("conv", "map") for name in compression.METHODS]
    before = os.listdir("/proc/self/fd") if sys.platform == "linux" else []
    for tap in taps:
        tap.read(KEYS)
    assert (os.listdir("/proc/self/fd") if sys.platform == "linux" else []) == before


# --- what cannot be used here


@pytest.mark.parametrize("name", ["", "zip", "lzf", "GZIP"])
def test_an_unknown_compression_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    with Store(tmp_path / "c", write=True) as store, pytest.raises(CacheError, match="choose one of none, gzip, blosc2"):
        store.get_extraction(SPEC).add("conv", "map", KEYS, relu(COUNT, 4), compression=name)
    assert not list(tmp_path.glob("c/features/*/*/*.h5"))


def test_more_than_a_reader_would_decode_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "DECODED_LIMIT", COUNT * 400)
    views = np.zeros(COUNT, np.uint16)
    assert shard.encode(relu(COUNT, 100), KEYS, views, IDENTITY, "gzip")
    assert shard.encode(relu(COUNT, 101), KEYS, views, IDENTITY, "none")
    with pytest.raises(CacheError, match=r"limit of one file: 14,948 bytes, at most 14,800 allowed"):
        shard.encode(relu(COUNT, 101), KEYS, views, IDENTITY, "gzip")


_WITHOUT = r"""
import sys
sys.modules["hdf5plugin"] = None
import json
import numpy as np
from pathlib import Path
from humeris.cache import compression, shard
from humeris.cache.errors import CacheError
from humeris.cache.store import Store
with Store(sys.argv[1], write=True) as store:
    (extraction,) = store.iter_extractions()
    tap = extraction.get_features("conv", "map")
    keys = np.frombuffer(Path(sys.argv[2]).read_bytes(), "S32")
    missing = int(tap.find_missing(keys).sum())
    said = []
    for call in (lambda: compression.check("blosc2"),
                 lambda: extraction.add("other", "map", keys, np.ones((len(keys), 3), np.float32), compression="blosc2")):
        try:
            call()
        except CacheError as error:
            said.append(str(error))
    from humeris.cache.inventory import verify
    damaged = verify(store)["damaged"]
maps = Path("/proc/self/maps").read_text() if sys.platform == "linux" else ""
print(json.dumps({"missing": missing, "said": said, "damaged": damaged, "loaded": "libh5blosc2" in maps}))
"""


def test_without_hdf5plugin_blosc2_is_refused_by_name_and_nothing_is_set_aside(tmp_path: Path) -> None:
    """Nor does HDF5 fetch the filter from HDF5_PLUGIN_PATH by itself, though it is there."""
    stored(tmp_path / "c", relu(COUNT, 50), "blosc2")
    path = shard_of(tmp_path / "c")
    (tmp_path / "keys").write_bytes(KEYS.tobytes())
    environment = {**os.environ, "HDF5_PLUGIN_PATH": hdf5plugin.PLUGIN_PATH}
    command = [sys.executable, "-c", _WITHOUT, tmp_path / "c", tmp_path / "keys"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["missing"] == COUNT
    assert len(found["said"]) == 2
    assert all("pip install 'humeris[compression]'" in each and "\n" not in each for each in found["said"])
    (damage,) = found["damaged"]
    assert damage["path"] == str(path)
    assert "pip install 'humeris[compression]'" in damage["reason"]
    assert path.exists()
    assert not found["loaded"]
    assert np.array_equal(Store(tmp_path / "c").get_extraction(SPEC).get_features("conv", "map").read(KEYS), relu(COUNT, 50))


# --- files made to harm


FEATURES = np.ones((8, 16), np.float32)
CHUNKED = {"data": FEATURES, "chunks": (2, 16)}
FOREIGN: dict[str, Callable[[h5py.File], Any]] = {
    "lzf": lambda file: file.create_dataset("features", **CHUNKED, compression="lzf"),
    "checksums": lambda file: file.create_dataset("features", **CHUNKED, fletcher32=True),
    "scale and offset": lambda file: file.create_dataset("features", **CHUNKED, scaleoffset=2),
    "shuffle alone": lambda file: file.create_dataset("features", **CHUNKED, shuffle=True),
    "gzip alone": lambda file: file.create_dataset("features", **CHUNKED, compression="gzip"),
    "gzip and checksums": lambda file: file.create_dataset(
        "features", **CHUNKED, compression="gzip", shuffle=True, fletcher32=True
    ),
    "lz4": lambda file: file.create_dataset("features", **CHUNKED, **hdf5plugin.LZ4()),
    "bitshuffle": lambda file: file.create_dataset("features", **CHUNKED, **hdf5plugin.Bitshuffle()),
    "blosc, the first": lambda file: file.create_dataset("features", **CHUNKED, **hdf5plugin.Blosc()),
    "zstd": lambda file: file.create_dataset("features", **CHUNKED, **hdf5plugin.Zstd()),
    "chunks without a filter": lambda file: file.create_dataset("features", **CHUNKED),
    "chunks of parts of rows": lambda file: file.create_dataset(
        "features", data=FEATURES, chunks=(8, 4), compression="gzip", shuffle=True
    ),
    "chunks never written": lambda file: file.create_dataset(
        "features", (8, 16), "f4", chunks=(2, 16), compression="gzip", shuffle=True
    ),
    "more than is decoded": lambda file: file.create_dataset(
        "features", (8, compression.DECODED_LIMIT // 32 + 1), "f4", chunks=(1, compression.DECODED_LIMIT // 32 + 1),
        compression="gzip", shuffle=True,
    ),
    "more than is decoded, by blosc2": lambda file: file.create_dataset(
        "features", (8, compression.DECODED_LIMIT // 32 + 1), "f4", chunks=(1, compression.DECODED_LIMIT // 32 + 1),
        **hdf5plugin.Blosc2(),
    ),
    "room to grow": lambda file: file.create_dataset(
        "features", data=FEATURES, chunks=(16, 16), maxshape=(None, 16), compression="gzip", shuffle=True
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FOREIGN)
def test_rows_stored_in_this_way_are_refused(what: str, tmp_path: Path) -> None:
    path = published(tmp_path, encoded(FOREIGN[what]))
    with pytest.raises(shard.CorruptFile) as caught:
        shard.load(path, IDENTITY)
    assert not isinstance(caught.value, shard.UnreadableFile)


def test_a_chunk_that_lies_beyond_the_file_is_refused(tmp_path: Path) -> None:
    """The old index of chunks has no checksum, so an address in it can be changed without HDF5 noticing."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="earliest") as file:
        file.create_dataset("features", **CHUNKED, compression="gzip", shuffle=True)
        file["keys"] = np.ascontiguousarray(KEYS[:8]).view(np.uint8).reshape(-1, 32)
        file["views"] = np.zeros(8, np.uint16)
        file.attrs["attributes"] = json.dumps(IDENTITY)
        address = file["features"].id.get_chunk_info(2).byte_offset.to_bytes(8, "little")
    data = buffer.getvalue()
    assert data.count(address) == 1
    assert np.array_equal(shard.load(published(tmp_path, data), IDENTITY).read_rows(), FEATURES)
    for other in (len(data) - 8, len(data) * 2, 2**40, 2**63 - 1, 2**63, 2**64 - 2):
        path = published(tmp_path, data.replace(address, other.to_bytes(8, "little")))
        with pytest.raises(shard.CorruptFile):
            shard.load(path, IDENTITY)


@pytest.mark.parametrize("name", ["keys", "views"])
def test_keys_and_views_may_not_be_compressed(name: str, tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        values = file[name][:]
        del file[name]
        file.create_dataset(name, data=values, chunks=values.shape, compression="gzip", shuffle=True)

    buffer = io.BytesIO(shard.encode(relu(8, 4), KEYS[:8], np.zeros(8, np.uint16), IDENTITY, "gzip"))
    with h5py.File(buffer, "r+", libver="latest") as file:
        change(file)
    with pytest.raises(shard.CorruptFile):
        shard.load(published(tmp_path, buffer.getvalue()), IDENTITY)


_PLUGIN = r"""
import sys, json
from pathlib import Path
from humeris.cache import shard
found = []
for path in sys.argv[1:]:
    try:
        shard.load(Path(path), json.loads('%s')).read_rows()
        found.append("served")
    except shard.CorruptFile as damage:
        found.append(str(damage))
print(json.dumps({"found": found, "lz4": "libh5lz4" in Path("/proc/self/maps").read_text()}))
import h5py
with h5py.File(sys.argv[1]) as file:
    file["features"][:]
assert "libh5lz4" in Path("/proc/self/maps").read_text()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc for what was loaded")
def test_a_file_cannot_have_a_filter_loaded_from_the_plug_in_folder(tmp_path: Path) -> None:
    """The folder holds the filter, and h5py alone does load it: the last lines of the program show that."""
    path = published(tmp_path, encoded(FOREIGN["lz4"]))
    command = [sys.executable, "-c", _PLUGIN % json.dumps(IDENTITY), path]
    environment = {**os.environ, "HDF5_PLUGIN_PATH": hdf5plugin.PLUGIN_PATH}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "found": ["unsupported HDF5 filters 32004; supported are none, gzip and blosc2"],
        "lz4": False,
    }


_OWN = r"""
import sys, json
from pathlib import Path
from humeris.cache import shard
assert shard.load(Path(sys.argv[1]), json.loads('%s')).read_rows().any()
maps = Path("/proc/self/maps").read_text()
print("libh5blosc2" in maps, sys.argv[2] in maps)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc for what was loaded")
def test_blosc2_is_the_one_that_hdf5plugin_brings_and_not_one_from_the_plug_in_folder(tmp_path: Path) -> None:
    stored(tmp_path / "c", relu(COUNT, 50), "blosc2")
    shutil.copytree(hdf5plugin.PLUGIN_PATH, tmp_path / "plugins")
    command = [sys.executable, "-c", _OWN % json.dumps(IDENTITY), shard_of(tmp_path / "c"), tmp_path / "plugins"]
    environment = {**os.environ, "HDF5_PLUGIN_PATH": str(tmp_path / "plugins")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (done.stdout.split(), done.stderr) == (["True", "False"], "")


_BOMB = r"""
import json, resource, sys, zlib
from pathlib import Path
from humeris.cache import shard
item = shard.load(Path(sys.argv[1]), json.loads('%s'))
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
try:
    item.read_rows()
    print("served")
except shard.CorruptFile as damage:
    print(damage)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory in use from /proc")
def test_a_chunk_that_swells_beyond_what_it_declares_is_refused_early(tmp_path: Path) -> None:
    """A quarter of a megabyte that inflates to a quarter of a gigabyte, declared as 512 bytes."""
    import zlib

    squeeze = zlib.compressobj(9)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(256)) + squeeze.flush()

    def change(file: h5py.File) -> None:
        dataset = file.create_dataset("features", (8, 16), "f4", chunks=(8, 16), compression="gzip", shuffle=True)
        dataset.id.write_direct_chunk((0, 0), bomb)

    path = published(tmp_path, encoded(change))
    command = [sys.executable, "-c", _BOMB % json.dumps(IDENTITY), path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    said, grown = done.stdout.splitlines()
    assert "a chunk does not decode to the expected 512 bytes" in said
    assert int(grown) < 50_000  # kB


@pytest.mark.parametrize("data", [b"", b"not deflate", b"\x00" * 512])
@pytest.mark.parametrize("name", ["gzip", "blosc2"])
def test_chunks_that_cannot_be_decoded_are_damage_and_no_traceback(name: str, data: bytes, tmp_path: Path) -> None:
    """The digest catches what a disk does to a file; this is a file that was named after it was spoilt."""

    def change(file: h5py.File) -> None:
        options = {"compression": "gzip", "shuffle": True} if name == "gzip" else dict(hdf5plugin.Blosc2())
        dataset = file.create_dataset("features", (8, 16), "f4", chunks=(8, 16), **options)
        dataset.id.write_direct_chunk((0, 0), data or b"\0")

    with Store(tmp_path / "c", write=True) as store:
        store.get_extraction(SPEC).add("conv", "map", KEYS[8:], relu(COUNT - 8, 16), compression=name)
        folder = store.get_extraction(SPEC).get_features("conv", "map").path
    path = published(folder, encoded(change))
    from humeris.cache.errors import RowsMissing
    from humeris.cache.inventory import verify

    with Store(tmp_path / "c") as store:
        tap = store.get_extraction(SPEC).get_features("conv", "map")
        with pytest.raises(RowsMissing, match=f"rows are missing: {COUNT - 8} of {COUNT} images are cached;"):
            tap.read(KEYS)
        assert tap.find_missing(KEYS).sum() == 8
        assert np.array_equal(tap.read(KEYS[8:]), relu(COUNT - 8, 16))
        assert [damage.path for damage in store.corrupt_files] == [path]
    with Store(tmp_path / "c", write=True) as store:
        assert [each["path"] for each in verify(store)["damaged"]] == [str(path)]
    assert not path.exists()
