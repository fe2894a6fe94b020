"""One immutable HDF5 file of rows: what it holds, and what is refused in its place."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

from humeris.cache import shard

IDENTITY = {"extraction": "e", "layer": "conv/1", "pool": "avg"}
KEYS = shard.to_keys([hashlib.sha256(bytes([number])).digest() for number in range(5)])


def published(folder: Path, data: bytes) -> Path:
    path = folder / f"{hashlib.sha256(data).hexdigest()}.h5"
    path.write_bytes(data)
    return path


def encoded(features: np.ndarray, **extra: Any) -> bytes:
    return shard.encode(features, KEYS, np.zeros(len(KEYS), np.uint16), {**extra, **IDENTITY})


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_shard_can_be_read_with_h5py_alone(dtype: type, tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(5, 2, 3, 4)).astype(dtype)
    path = published(tmp_path, encoded(features, spec={"backbone": "toy"}))
    with h5py.File(path) as file:
        assert set(file) == {"features", "keys", "views"}
        assert np.array_equal(file["features"][:], features)
        assert file["features"].dtype == dtype
        assert file["keys"][:].tobytes() == KEYS.tobytes()
        assert file["keys"].shape == (5, 32)
        assert file["views"][:].tolist() == [0] * 5
        assert file["features"].chunks is None
        assert json.loads(file.attrs["attributes"]) == {**IDENTITY, "spec": {"backbone": "toy"}}


def test_bfloat16_is_stored_as_its_bits_and_says_so(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(5, 3, 7)).astype(ml_dtypes.bfloat16)
    path = published(tmp_path, encoded(features))
    with h5py.File(path) as file:
        rows = file["features"][:]
        assert file["features"].attrs["dtype"] == "bfloat16"
        assert rows.dtype == np.uint16
        assert np.array_equal((rows.astype(np.uint32) << 16).view(np.float32), features.astype(np.float32))
    loaded = shard.load(path, IDENTITY)
    assert (loaded.stored_dtype, loaded.dtype, loaded.shape) == ("bfloat16", np.float32, (5, 3, 7))
    assert np.array_equal(loaded.read_rows(), features.astype(np.float32))
    assert not loaded.read_rows().flags.writeable


def test_every_bfloat16_is_read_as_the_float32_that_it_is(tmp_path: Path) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    features = np.tile(bits, (5, 1)).view(ml_dtypes.bfloat16)
    rows = np.array(shard.load(published(tmp_path, encoded(features)), IDENTITY).read_rows())
    wanted = features.astype(np.float32)
    assert np.array_equal(rows, wanted, equal_nan=True)
    assert np.array_equal(np.signbit(rows), np.signbit(wanted))


@pytest.mark.parametrize("compression", ["none", "gzip", "blosc2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_equal_rows_are_equal_bytes_whenever_they_are_encoded(dtype: type, compression: str) -> None:
    """HDF5's time stamps count seconds: the second encoding is asked for at another one, and h5py's own way does differ."""
    features = np.random.default_rng(0).normal(size=(5, 300)).astype(dtype)

    def both() -> tuple[bytes, bytes]:
        stamped = io.BytesIO()
        with h5py.File(stamped, "w", libver="latest") as file:
            file["features"] = np.ones(3)
        return stamped.getvalue(), shard.encode(features, KEYS, np.zeros(5, np.uint16), IDENTITY, compression)

    stamped, ours = both()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        stamped_later, ours_later = both()
        assert ours_later == ours
        if stamped_later != stamped:
            return
    pytest.fail("the clock stood still")


def test_a_loaded_shard_gives_the_rows_that_were_stored(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    loaded = shard.load(published(tmp_path, encoded(features)), IDENTITY)
    assert np.array_equal(loaded.read_rows(), features)
    assert not loaded.read_rows().flags.writeable
    assert loaded.keys.tobytes() == KEYS.tobytes()


def test_keys_that_end_in_zero_bytes_stay_whole() -> None:
    digest = b"\x01" + bytes(31)
    assert shard.to_keys([digest, digest]).tobytes() == digest * 2


@pytest.mark.parametrize("name", ["extraction", "layer", "pool"])
def test_a_shard_of_another_place_is_refused(name: str, tmp_path: Path) -> None:
    path = published(tmp_path, encoded(np.ones((5, 3), np.float32)))
    with pytest.raises(shard.CorruptFile, match="belongs to another"):
        shard.load(path, {**IDENTITY, name: "other"})


def test_a_file_that_is_not_its_digest_is_damaged(tmp_path: Path) -> None:
    path = published(tmp_path, encoded(np.ones((5, 3), np.float32)))
    shard.check_digest(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(shard.CorruptFile, match="digest"):
        shard.check_digest(path)


def write(change: Any) -> bytes:
    """The bytes of a sound shard, after `change(file)`."""
    buffer = io.BytesIO(encoded(np.ones((5, 3), np.float32)))
    with h5py.File(buffer, "r+", libver="latest") as file:
        change(file)
    return buffer.getvalue()


def replaced(name: str, **options: Any) -> Any:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return change


def _attribute(value: Any) -> Any:
    return lambda file: file.attrs.__setitem__("attributes", value)


MALFORMED: dict[str, Any] = {
    "a data set too many": lambda file: file.create_dataset("more", data=[1]),
    "a group too many": lambda file: file.create_group("more"),
    "a data set too few": lambda file: file.__delitem__("views"),
    "a group where a data set should be": lambda file: (file.__delitem__("views"), file.create_group("views")),
    "a soft link": lambda file: (file.move("views", "x"), file.__setitem__("views", h5py.SoftLink("/x"))),
    "compressed rows": replaced("features", data=np.ones((5, 3), np.float32), compression="gzip"),
    "rows with a checksum filter": replaced("features", data=np.ones((5, 3), np.float32), fletcher32=True),
    "chunked rows": replaced("features", data=np.ones((5, 3), np.float32), chunks=(1, 3)),
    "rows never written": replaced("features", shape=(5, 3), dtype="f4"),
    "rows with an attribute that names another dtype": lambda file: file["features"].attrs.__setitem__("dtype", "bfloat16"),
    "bfloat16 without saying so": replaced("features", data=np.ones((5, 3), np.uint16)),
    "rows with attributes without number": lambda file: [
        file["features"].attrs.__setitem__(f"a{number}", 1) for number in range(40)],
    "integer rows": replaced("features", data=np.ones((5, 3), np.uint8)),
    "text rows": replaced("features", data=np.array([b"a"] * 5)),
    "one-dimensional rows": replaced("features", data=np.ones(5, np.float32)),
    "no rows": lambda file: [replaced(name, shape=shape, dtype=dtype)(file) for name, shape, dtype in
                             (("features", (0, 3), "f4"), ("keys", (0, 32), "u1"), ("views", (0,), "u2"))],
    "empty rows": replaced("features", data=h5py.Empty("f4")),
    "a number for rows": replaced("features", data=np.float32(1)),
    "a row too few": replaced("features", data=np.ones((4, 3), np.float32)),
    "keys of another length": replaced("keys", data=np.ones((5, 31), np.uint8)),
    "keys of another type": replaced("keys", data=np.ones((5, 32), np.uint16)),
    "a view too many": replaced("views", data=np.zeros(6, np.uint16)),
    "views of another type": replaced("views", data=np.zeros(5, np.float32)),
    "no attributes": lambda file: file.attrs.__delitem__("attributes"),
    "attributes that are not JSON": _attribute("{"),
    "attributes that are a JSON list": _attribute("[]"),
    "attributes that are a JSON number": _attribute("1"),
    "attributes that are a number": _attribute(7),
    "attributes that are an array": _attribute(np.arange(3)),
    "attributes that nest without end": _attribute("[" * 100_000),
    "attributes without number": lambda file: [file.attrs.__setitem__(f"a{number}", 1) for number in range(40)],
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_a_file_with_this_instead_is_refused(what: str, tmp_path: Path) -> None:
    path = published(tmp_path, write(MALFORMED[what]))
    shard.check_digest(path)
    with pytest.raises(shard.CorruptFile):
        shard.load(path, IDENTITY)


@pytest.mark.parametrize("data", [b"", b"\x89HDF\r\n\x1a\n", b"<html>", b"\x89HDF\r\n\x1a\n" + bytes(5000)])
def test_a_file_that_is_no_hdf5_is_refused(data: bytes, tmp_path: Path) -> None:
    path = published(tmp_path, data)
    with pytest.raises(shard.CorruptFile):
        shard.load(path, IDENTITY)


def test_a_row_address_beyond_the_file_is_refused(tmp_path: Path) -> None:
    """The old layout message has no checksum, so an address in it can be changed without HDF5 noticing at once."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="earliest") as file:
        file["features"] = np.ones((5, 3), np.float32)
        file["keys"] = np.ascontiguousarray(KEYS).view(np.uint8).reshape(-1, 32)
        file["views"] = np.zeros(5, np.uint16)
        file.attrs["attributes"] = json.dumps(IDENTITY)
        offset = file["features"].id.get_offset()
    data = buffer.getvalue()
    where = offset.to_bytes(8, "little")
    assert data.count(where) == 1
    sound = published(tmp_path, data)
    assert np.array_equal(shard.load(sound, IDENTITY).read_rows(), np.ones((5, 3)))
    for address in (len(data) - 8, len(data) * 2, 2**40, 2**63):
        path = published(tmp_path, data.replace(where, address.to_bytes(8, "little")))
        with pytest.raises(shard.CorruptFile):
            shard.load(path, IDENTITY)


_HOSTILE = r'''
"""Make hostile files, each under the name that matches its digest, and try to load them in 2 GB of address space."""
import ctypes, hashlib, io, json, os, resource, sys
from pathlib import Path
import h5py, numpy as np
from humeris.cache import shard

root = Path(sys.argv[1])
identity = {"extraction": "e", "layer": "l", "pool": "avg"}
libc = ctypes.CDLL(None, use_errno=True)
watcher = libc.inotify_init1(os.O_NONBLOCK)
secret = root / "secret"

def opened():
    """Whether the secret was opened since the last call."""
    try:
        return bool(os.read(watcher, 65536))
    except BlockingIOError:
        return False

features = np.arange(4096, dtype=np.float32).reshape(4, 1024)
secret.write_bytes(features.tobytes())
with h5py.File(root / "secret.h5", "w") as file:
    file["features"] = features
for path in (secret, root / "secret.h5"):
    assert libc.inotify_add_watch(watcher, os.fsencode(path), 0x20) >= 0  # IN_OPEN

def external_storage(file):
    return file.create_dataset("features", (4, 1024), "f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
def external_link(file):
    file["features"] = h5py.ExternalLink(str(root / "secret.h5"), "/features")
def soft_link_to_external(file):
    file.create_group("views")["x"] = h5py.ExternalLink(str(root / "secret.h5"), "/features")
    file["features"] = h5py.SoftLink("/views/x")
def virtual(file):
    layout = h5py.VirtualLayout((4, 1024), "f4")
    layout[:] = h5py.VirtualSource(str(root / "secret.h5"), "features", (4, 1024))
    file.create_virtual_dataset("features", layout)
def huge(file):
    file.create_dataset("features", (4, 2**38), "f4")
def huge_chunked(file):
    file.create_dataset("features", (4, 2**38), "f4", chunks=(1, 2**20), compression="gzip")
def deep(file):
    file["features"] = features
    group = file
    for number in range(3000):
        group = group.create_group("g")
def many_groups(file):
    file["features"] = features
    for number in range(3000):
        file.create_group(f"g{number}")
def group_as_dataset_loop(file):
    group = file.create_group("features")
    group["features"] = group
def object_references(file):
    file["views2"] = np.zeros(4, np.uint16)
    file.create_dataset("features", data=[[file["views2"].ref]] * 4, dtype=h5py.ref_dtype)

kinds = [external_storage, external_link, soft_link_to_external, virtual, huge, huge_chunked, deep, many_groups,
         group_as_dataset_loop, object_references]
made = {}
for kind in kinds:
    draft = root / "draft.h5"
    with h5py.File(draft, "w", libver="latest") as file:
        kind(file)
        file["keys"] = np.zeros((4, 32), np.uint8)
        if "views" not in file:
            file["views"] = np.zeros(4, np.uint16)
        file.attrs["attributes"] = json.dumps(identity)
    data = draft.read_bytes()
    draft.unlink()
    made[kind.__name__] = root / f"{hashlib.sha256(data).hexdigest()}.h5"
    made[kind.__name__].write_bytes(data)

# A reader without the audit does open the secrets: the watch works and the files are what they claim to be.
naive = {}
for name in ("external_storage", "external_link", "soft_link_to_external", "virtual"):
    opened()
    with h5py.File(made[name]) as file:
        naive[name] = bool(np.array_equal(file["features"][:], features)) and opened()

resource.setrlimit(resource.RLIMIT_AS, (2 * 1024**3, 2 * 1024**3))
found = {}
for name, path in made.items():
    opened()
    shard.check_digest(path)
    try:
        shard.load(path, identity)
        found[name] = "served"
    except shard.CorruptFile as damage:
        found[name] = "opened outside" if opened() else f"refused: {damage}"
with open("/proc/self/status") as status:  # getrusage would count what the parent had when it forked
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"naive": naive, "found": found, "peak": peak}))
'''


@pytest.mark.skipif(sys.platform != "linux", reason="watches files with inotify")
def test_hostile_files_are_refused_and_nothing_outside_is_opened(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HOSTILE, tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert all(result["naive"].values())
    assert len(result["naive"]) == 4
    assert {name: outcome.split(":")[0] for name, outcome in result["found"].items()} == dict.fromkeys(
        result["found"], "refused"
    )
    assert len(result["found"]) == 10
    assert result["peak"] < 500_000  # kB
