"""Hostile HDF5 files under the right name in a cache: refused, and neither Python nor HDF5 opens anything outside of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Makes a file of each kind that reaches outside, pretends or exhausts, and is a shard in everything else: its name is its
# digest, its attributes are those of the tap.
_MAKE = r"""
import hashlib, json, sys
from pathlib import Path
import h5py, numpy as np
from humeris.cache import shard
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store

root = Path(sys.argv[1])
spec = ExtractionSpec("toy", "toy()", "random", "ab" * 32, (8, 8), "tf", "1")
keys = shard.to_keys([bytes([number]) * 32 for number in range(1, 9)])
rows = np.arange(4096, dtype=np.float32).reshape(4, 1024) + 1
treasure = root / "treasure"
treasure.mkdir()
(treasure / "raw").write_bytes(rows.tobytes())
with h5py.File(treasure / "file.h5", "w") as file:
    file["features"] = rows
with Store(root / "cache", write=True) as store:
    extraction = store.get_extraction(spec)
    extraction.add("conv", "avg", keys[:4], rows)
    home = extraction.get_features("conv", "avg").path

def external_storage(file):
    file.create_dataset("features", (4, 1024), "f4", external=[(str(treasure / "raw"), 0, h5py.h5f.UNLIMITED)])
def external_link(file):
    file["features"] = h5py.ExternalLink(str(treasure / "file.h5"), "/features")
def soft_link_to_it(file):
    file["way"] = h5py.ExternalLink(str(treasure / "file.h5"), "/features")
    file["features"] = h5py.SoftLink("/way")
def hidden_soft_link(file):
    file.create_group("keys")["way"] = h5py.ExternalLink(str(treasure / "file.h5"), "/features")
    file["features"] = h5py.SoftLink("/keys/way")
def virtual_data_set(file):
    layout = h5py.VirtualLayout((4, 1024), "f4")
    layout[:] = h5py.VirtualSource(str(treasure / "file.h5"), "features", (4, 1024))
    file.create_virtual_dataset("features", layout)
def huge(file):
    file.create_dataset("features", (4, 2**37), "f4")
def huge_and_packed(file):
    file.create_dataset("features", (4, 2**37), "f4", chunks=(1, 2**22), compression="gzip", shuffle=True)
def packed_zeros(file):
    data = file.create_dataset("features", (4, 2**29), "f4", chunks=(1, 2**25), compression="gzip", shuffle=True)
    data[0, : 2**25] = 0
def deep(file):
    file["features"] = rows
    group = file
    for _ in range(3000):
        group = group.create_group("g")
def deep_instead(file):
    group = file.create_group("features")
    for _ in range(3000):
        group = group.create_group("g")
def without_end(file):
    group = file.create_group("features")
    group["features"] = group
def external_filter(file):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1, 1024))
    plist.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((4, 1024))
    h5py.h5d.create(file.id, b"features", h5py.h5t.IEEE_F32LE, space, plist)

KINDS = [external_storage, external_link, soft_link_to_it, hidden_soft_link, virtual_data_set, huge, huge_and_packed,
         packed_zeros, deep, deep_instead, without_end, external_filter]
hostile = {}
for kind in KINDS:
    draft = root / "draft.h5"
    with h5py.File(draft, "w", libver="latest") as file:
        kind(file)
        if "keys" not in file:
            file["keys"] = np.ascontiguousarray(keys[4:]).view(np.uint8).reshape(4, 32)
        file["views"] = np.zeros(4, np.uint16)
        file.attrs["attributes"] = json.dumps({"extraction": spec.digest, "layer": "conv", "pool": "avg"})
    data = draft.read_bytes()
    draft.unlink()
    path = home / f"{hashlib.sha256(data).hexdigest()}.h5"
    path.write_bytes(data)
    hostile[kind.__name__] = path.name
# What a reader without an audit would do: the files are what they claim to be.
naive = {}
for name in ("external_storage", "external_link", "soft_link_to_it", "hidden_soft_link", "virtual_data_set"):
    with h5py.File(home / hostile[name]) as file:
        naive[name] = bool(np.array_equal(file["features"][:], rows))
print(json.dumps({"hostile": hostile, "naive": naive}))
"""

# Reads the whole cache in two gigabytes of addresses, and says which paths Python opened.
_READ = r"""
import json, os, resource, sys
opened = []
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        opened.append(os.fsdecode(arguments[0]))
import h5py, numpy as np
from humeris.cache import inventory, shard
from humeris.cache.errors import RowsMissing
from humeris.cache.store import Store
resource.setrlimit(resource.RLIMIT_AS, (2 * 1024**3, 2 * 1024**3))
sys.addaudithook(hook)
keys = shard.to_keys([bytes([number]) * 32 for number in range(1, 9)])
store = Store(sys.argv[1])
(extraction,) = store.iter_extractions()
features = extraction.get_features("conv", "avg")
missing = features.find_missing(keys)
try:
    features.read(keys)
    complete = True
except RowsMissing:
    complete = False
good = features.read(keys[:4])
listed = inventory.build_inventory(Store(sys.argv[1]))
verified = inventory.verify(Store(sys.argv[1]))
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({
    "refused": {found.path.name: found.reason for found in store.corrupt_files}, "missing": missing.tolist(),
    "complete": complete, "good": bool(np.array_equal(good, np.arange(4096).reshape(4, 1024) + 1)),
    "listed": [tap["rows"] for each in listed["extractions"] for tap in each["taps"]],
    "verified": verified["rows"], "opened": opened, "peak": peak,
}))
"""


@pytest.fixture
def attacked(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A folder with a sound shard of four rows, the hostile ones beside it, and the treasures that they point to."""
    done = subprocess.run([sys.executable, "-c", _MAKE, tmp_path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["naive"].values()) == [True] * 5
    assert len(found["hostile"]) == 12
    return tmp_path, found["hostile"]


def read(root: Path, *before: str) -> dict[str, Any]:
    command = [*before, sys.executable, "-c", _READ, str(root / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def outside(paths: set[str], root: Path) -> set[str]:
    """What was opened of the test's folder and does not lie in the cache."""
    return {path for path in paths if path.startswith(f"{root}/") and not f"{path}/".startswith(f"{root}/cache/")}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_hostile_shards_are_refused_and_python_opens_nothing_outside(attacked: tuple[Path, dict[str, str]]) -> None:
    root, hostile = attacked
    found = read(root)
    print({"hostile": len(hostile), "refused": len(found["refused"]), "files opened": len(found["opened"])}, found["peak"])
    for kind, name in hostile.items():
        print(f"  {kind}: {found['refused'].get(name)}")
    assert set(found["refused"]) == set(hostile.values())
    assert found["missing"] == [False] * 4 + [True] * 4
    assert not found["complete"]
    assert found["good"]
    assert found["listed"] == [4]
    assert found["verified"] == 4
    assert any(path.startswith(f"{root}/cache/") for path in found["opened"])
    assert outside(set(found["opened"]), root) == set()
    assert found["peak"] < 400_000  # kB


def test_hostile_shards_make_hdf5_open_nothing_outside(attacked: tuple[Path, dict[str, str]]) -> None:
    """HDF5 opens files in C, where no hook of Python sees it: this watches the system calls."""
    root, hostile = attacked
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    log = root / "calls"
    watch = (strace, "-f", "-qq", "-s", "4096", "-e", "trace=open,openat,openat2,creat,readlink,execve", "-o", str(log))
    if subprocess.run([*watch, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not watch a process here")
    found = read(root, *watch)
    calls = log.read_text()
    opened = {path for path in re.findall(r'"((?:[^"\\]|\\.)*)"', calls) if path.startswith("/")}
    names = {Path(path).name for path in opened}
    print({"system calls": calls.count("\n"), "hostile files opened": len(names & set(hostile.values()))})
    assert set(found["refused"]) == set(hostile.values())
    assert set(hostile.values()) <= names
    assert "treasure" not in calls
    assert outside(opened, root) == set()
    assert not any("plugin" in path and path.endswith(".so") and "hdf5" in path for path in opened)


def test_the_watch_sees_a_file_that_hdf5_opens(attacked: tuple[Path, dict[str, str]]) -> None:
    root, hostile = attacked
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    log = root / "calls"
    code = "import h5py, sys; h5py.File(sys.argv[1])['features'][:]"
    for kind in ("external_storage", "external_link", "virtual_data_set"):
        (path,) = root.glob(f"cache/features/*/*/{hostile[kind]}")
        command = [strace, "-f", "-qq", "-e", "trace=openat", "-o", str(log), sys.executable, "-c", code, str(path)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("strace may not watch a process here")
        assert f"{root}/treasure" in log.read_text()


def test_setting_hostile_shards_aside_keeps_the_good_rows(attacked: tuple[Path, dict[str, str]]) -> None:
    root, hostile = attacked
    command = [sys.executable, "-c", "from humeris.cli import main; main()", "cache", "verify", "--json", "--cache"]
    first, second = (
        subprocess.run([*command, str(root / "cache")], capture_output=True, text=True, timeout=60, check=False)
        for _ in range(2)
    )
    assert first.returncode == 1, first.stderr
    assert len(json.loads(first.stdout)["damaged"]) == len(hostile)
    assert second.returncode == 0, second.stderr
    found = json.loads(second.stdout)
    assert (found["rows"], found["damaged"], len(found["set_aside"])) == (4, [], len(hostile))


_LIES = r"""
import hashlib, importlib.util, io, json, resource, struct, sys, zlib
import h5py, numpy as np
from humeris.cache import shard
from humeris.cache.errors import RowsMissing
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store

spec = ExtractionSpec("toy", "toy()", "random", "ab" * 32, (8, 8), "tf", "1")
keys = shard.to_keys([bytes([number]) * 32 for number in range(1, 5)])
rows = np.arange(4096, dtype=np.float32).reshape(4, 1024)
with Store(sys.argv[1], write=True) as store:
    store.get_extraction(spec).create()
features = Store(sys.argv[1]).get_extraction(spec).get_features("conv", "avg")
features.path.mkdir()

def inflated(chunk):
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 24)) for _ in range(120)) + packer.flush()
def shortened(chunk):
    return zlib.compress(zlib.decompress(chunk)[:-1])
def claims_two_gigabytes(chunk):
    changed = bytearray(chunk)
    for form, claim in (("<i", 2**31 - 1), (">q", 2**31 - 1)):
        for at in range(len(changed) - 8):
            if struct.unpack_from(form, changed, at)[0] == rows.nbytes:
                struct.pack_into(form, changed, at, claim)
    assert changed != chunk
    return bytes(changed)
def cut(chunk):
    return chunk[: len(chunk) // 2]

cases = [("gzip", change) for change in (inflated, shortened, cut)]
if importlib.util.find_spec("hdf5plugin"):
    cases += [("blosc2", change) for change in (claims_two_gigabytes, cut)]
found = {}
limits = resource.getrlimit(resource.RLIMIT_AS)
for compression, change in cases:
    buffer = io.BytesIO(shard.encode(rows, keys, np.zeros(4, np.uint16), features.identity, compression))
    with h5py.File(buffer, "r+", libver="latest") as file:
        chunk = file["features"].id.read_direct_chunk((0, 0))[1]
        file["features"].id.write_direct_chunk((0, 0), change(chunk))
    path = features.path / f"{hashlib.sha256(buffer.getvalue()).hexdigest()}.h5"
    path.write_bytes(buffer.getvalue())
    resource.setrlimit(resource.RLIMIT_AS, (2 * 1024**3, limits[1]))
    store = Store(sys.argv[1])
    try:
        store.get_extraction(spec).get_features("conv", "avg").read(keys)
        found[f"{compression} {change.__name__}"] = "served"
    except RowsMissing:
        found[f"{compression} {change.__name__}"] = " ".join(damage.reason for damage in store.corrupt_files)
    resource.setrlimit(resource.RLIMIT_AS, limits)
    path.unlink()
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"found": found, "peak": peak}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_a_compressed_chunk_that_lies_is_a_miss_and_takes_no_memory(tmp_path: Path) -> None:
    """Right in name, attributes and description; what its chunk unpacks to is another size, two gigabytes, or nothing."""
    done = subprocess.run(
        [sys.executable, "-c", _LIES, tmp_path / "c"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    print(result)
    assert len(result["found"]) >= 3
    assert all(reason.startswith("compressed rows") for reason in result["found"].values())
    assert result["peak"] < 200_000  # kB


# --- as data

_DATA = r"""
import sys
from pathlib import Path
import h5py, numpy as np

root = Path(sys.argv[1])
(root / "treasure").mkdir()
rows = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
(root / "treasure" / "raw").write_bytes(rows.tobytes())
with h5py.File(root / "treasure" / "file.h5", "w") as file:
    file["features"] = rows

def sound(file):
    file["features"] = rows
def external_storage(file):
    file.create_dataset("features", (40, 16), "f4", external=[(str(root / "treasure" / "raw"), 0, h5py.h5f.UNLIMITED)])
def external_link(file):
    file["features"] = h5py.ExternalLink(str(root / "treasure" / "file.h5"), "/features")
def soft_link_to_it(file):
    file["way"] = h5py.ExternalLink(str(root / "treasure" / "file.h5"), "/features")
    file["features"] = h5py.SoftLink("/way")
def virtual_data_set(file):
    layout = h5py.VirtualLayout((40, 16), "f4")
    layout[:] = h5py.VirtualSource(str(root / "treasure" / "file.h5"), "features", (40, 16))
    file.create_virtual_dataset("features", layout)
def huge(file):
    file.create_dataset("features", (40, 2**36), "f4")
def deep_instead(file):
    group = file.create_group("features")
    for _ in range(3000):
        group = group.create_group("g")

for kind in (sound, external_storage, external_link, soft_link_to_it, virtual_data_set, huge, deep_instead):
    with h5py.File(root / f"{kind.__name__}.h5", "w") as file:
        kind(file)
        file["labels"] = np.arange(40) % 2
"""

_SWEEP = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 * 1024**3,) * 2); from humeris.cli import main; main()"


def test_hostile_files_given_as_data_are_one_line_and_open_nothing_else(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _DATA, tmp_path], check=True, timeout=60)
    strace = shutil.which("strace")
    log = tmp_path / "calls"
    watch = [strace, "-f", "-qq", "-s", "4096", "-e", "trace=open,openat,openat2", "-o", str(log)] if strace else []
    if watch and subprocess.run([*watch, "true"], capture_output=True, check=False).returncode:
        watch = []
    refused = 0
    for path in sorted(tmp_path.glob("*.h5")):
        words = ["sweep", path, "-j", "1", "--head", "logreg,C=1", "-o", tmp_path / f"run-{path.stem}"]
        done = subprocess.run(
            [*watch, sys.executable, "-c", _SWEEP, *map(str, words)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if path.stem == "sound":
            assert (done.returncode, done.stderr) == (0, "")
        else:
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
            assert done.stderr.startswith("humeris: "), done.stderr
            refused += 1
        if watch:
            assert str(path) in log.read_text()
            assert "treasure" not in log.read_text()
    print({"refused": refused, "watched": bool(watch)})
    assert refused == 6
