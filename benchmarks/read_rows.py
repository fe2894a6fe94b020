"""Reading cached rows: `TapFeatures.read` beside `np.load` of the same matrix, both from the page cache.

    python benchmarks/read_rows.py --size-mb 1000 --shards 32

Prints one JSON document: medians of several rounds, peer and reader in turn in the same round, and their ratio. The
same for rows in another order than they were stored in, and the milliseconds that 256 shuffled rows take, repeated on an
open cache and from a cache opened anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from humeris.cache.shard import to_keys
from humeris.cache.spec import ExtractionSpec
from humeris.cache.store import Store
from humeris.cache.tap_features import TapFeatures

SPEC = ExtractionSpec("benchmark", "benchmark()", "none", "00" * 32, (224, 224), "none", "none")
N_FEW = 256


def time_call(call: Callable[[], object]) -> float:
    """How long one call takes, with what it returns let go inside."""
    start_time = time.perf_counter()
    call()
    return time.perf_counter() - start_time


def open_features(folder: Path) -> TapFeatures:
    """The tap that `fill_cache` stored, from a cache opened anew."""
    return Store(folder).get_extraction(SPEC).get_features("layer", "avg")


def fill_cache(folder: Path, matrix: np.ndarray, keys: np.ndarray, shards: int) -> None:
    """Store the rows in as many shards, in the order that they are in."""
    with Store(folder, write=True) as store:
        for part in np.array_split(np.arange(len(keys)), shards):
            store.get_extraction(SPEC).add("layer", "avg", keys[part], matrix[part])


def measure(folder: Path, size_mb: int, columns: int, shards: int, rounds: int) -> dict[str, object]:
    """The figures as JSON values."""
    random = np.random.default_rng(0)
    matrix = random.random((size_mb * 1_000_000 // (4 * columns), columns), np.float32)
    keys = to_keys([hashlib.sha256(str(number).encode()).digest() for number in range(len(matrix))])
    np.save(folder / "matrix.npy", matrix)
    fill_cache(folder / "cache", matrix, keys, shards)
    shuffled = random.permutation(len(keys))
    reader = open_features(folder / "cache")
    assert np.array_equal(reader.read(keys), matrix)
    assert np.array_equal(reader.read(keys[shuffled]), matrix[shuffled])
    del matrix
    figures: dict[str, list[float]] = {name: [] for name in ("load", "read", "read_anew", "shuffled", "few", "few_anew")}
    for _ in range(rounds):
        few = random.choice(len(keys), N_FEW, replace=False)
        figures["load"].append(time_call(lambda: np.load(folder / "matrix.npy", allow_pickle=False)))
        figures["read"].append(time_call(lambda: reader.read(keys)))
        figures["read_anew"].append(time_call(lambda: open_features(folder / "cache").read(keys)))
        figures["shuffled"].append(time_call(lambda: reader.read(keys[shuffled])))
        figures["few"].append(statistics.median(time_call(lambda few=few: reader.read(keys[few])) for _ in range(20)))
        figures["few_anew"].append(time_call(lambda few=few: open_features(folder / "cache").read(keys[few])))
    medians = {name: statistics.median(values) for name, values in figures.items()}
    return {
        "bytes": len(keys) * columns * 4,
        "rows": len(keys),
        "columns": columns,
        "shards": shards,
        "rounds": rounds,
        "cores": os.cpu_count(),
        "np_load_seconds": round(medians["load"], 4),
        "read_seconds": round(medians["read"], 4),
        "read_opened_anew_seconds": round(medians["read_anew"], 4),
        "read_shuffled_seconds": round(medians["shuffled"], 4),
        "speed_of_np_load": round(statistics.median(np.divide(figures["load"], figures["read"])), 3),
        "speed_of_np_load_opened_anew": round(statistics.median(np.divide(figures["load"], figures["read_anew"])), 3),
        "rows_256_ms": round(medians["few"] * 1000, 3),
        "rows_256_opened_anew_ms": round(medians["few_anew"] * 1000, 3),
    }


def main() -> None:
    """Measure in a folder that is removed afterwards, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mb", type=int, default=1000, help="the matrix, in MB")
    parser.add_argument("--columns", type=int, default=1280)
    parser.add_argument("--shards", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to put the files; default: the temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(
            json.dumps(
                measure(Path(folder), arguments.size_mb, arguments.columns, arguments.shards, arguments.rounds), indent=2
            )
        )


if __name__ == "__main__":
    main()
