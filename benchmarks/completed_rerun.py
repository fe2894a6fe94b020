"""What a completed extraction costs when it is asked for again, against `os.stat` of all its files.

Small distinct images in class folders, or listed in a CSV, are extracted once with nano. Then the same command runs again
in fresh processes, in turn with fresh processes that only `os.stat` the same paths; a figure is a median over the turns.
A re-run must compute nothing and must not import TensorFlow or Keras: both are checked. Processor seconds are printed
beside the seconds that passed: on a busy machine they say what the work itself costs.

    python benchmarks/completed_rerun.py --images 60000 --turns 5
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

CLASSES = 10
SIDE = 8
COMMAND = """
import json, resource, sys
from humeris.cli import app
try:
    app(sys.argv[1:])
except SystemExit as ended:
    assert not ended.code, ended.code
heavy = sorted({"tensorflow", "keras"} & set(sys.modules))
used = resource.getrusage(resource.RUSAGE_SELF)
found = {"heavy": heavy, "kilobytes": used.ru_maxrss, "processor": used.ru_utime + used.ru_stime}
print(json.dumps(found), file=sys.stderr)
"""
STAT = """
import os, sys, time
paths = open(sys.argv[1], encoding="utf-8").read().splitlines()
began = time.perf_counter()
for path in paths:
    os.stat(path)
print(time.perf_counter() - began)
"""


def write_images(folder: Path, count: int) -> list[Path]:
    """`count` BMP files of noise, no two alike."""
    size = 54 + 3 * SIDE * SIDE
    header = struct.pack("<2sIII", b"BM", size, 0, 54) + struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0)
    paths = [folder / f"class{number % CLASSES}" / f"{number:07}.bmp" for number in range(count)]
    for number in range(CLASSES):
        (folder / f"class{number}").mkdir(parents=True)
    for number, path in enumerate(paths):
        path.write_bytes(header + number.to_bytes(8, "little") + os.urandom(size - 62))
    return paths


def extract(data: Path, cache: Path) -> tuple[float, dict[str, Any], dict[str, Any]]:
    """Seconds, the command's JSON, and what its process says of itself."""
    command = ["extract", data, "-b", f"nano,image_size={4 * SIDE}", "-l", "block5_out", "--batch-size", 512]
    arguments = [str(word) for word in [sys.executable, "-c", COMMAND, *command, "--cache", cache, "--json"]]
    start_time = time.perf_counter()
    process = subprocess.run(arguments, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start_time
    return seconds, json.loads(process.stdout), json.loads(process.stderr.splitlines()[-1])


def stat_all(listing: Path) -> float:
    """Seconds that `os.stat` of every path takes in a process of its own."""
    process = subprocess.run([sys.executable, "-c", STAT, str(listing)], capture_output=True, text=True, check=True)
    return float(process.stdout)


def measure(data_form: str, data: Path, cache: Path, listing: Path, n_turns: int) -> dict[str, Any]:
    """The medians of the re-runs of one form of DATA and of their peer."""
    extract(data, cache)
    extract(data, cache)  # files written within a tick of the clock before they were read are read a second time
    reruns, stats, processes = [], [], []
    for _ in range(n_turns):
        stats.append(stat_all(listing))
        seconds, output, process = extract(data, cache)
        extraction = output["extracted"][0]
        if extraction["computed"] or extraction["forward_passes"] or process["heavy"]:
            raise SystemExit(
                f"{data_form}: expected nothing computed and nothing heavy imported, found {extraction}, {process}"
            )
        reruns.append(seconds)
        processes.append(process)
    rerun, stat = median(reruns), median(stats)
    return {
        "data": data_form,
        "images": extraction["images"],
        "rerun_seconds": round(rerun, 3),
        "stat_seconds": round(stat, 3),
        "ratio": round(rerun / stat, 2),
        "rerun_processor_seconds": round(median(usage["processor"] for usage in processes), 3),
        "peak_megabytes": round(median(usage["kilobytes"] for usage in processes) / 1024),
        "all_rerun_seconds": [round(value, 3) for value in reruns],
    }


def main() -> None:
    """Print the medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--data", nargs="+", default=["folders", "csv"], choices=["folders", "csv"])
    parser.add_argument("--folder", help="where the images are written")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root = Path(name)
        paths = write_images(root / "images", options.images)
        (root / "listing").write_text("\n".join(map(str, paths)), encoding="utf-8")
        rows = (f"images/{path.parent.name}/{path.name},{path.parent.name}\n" for path in paths)
        (root / "list.csv").write_text("path,label\n" + "".join(rows))
        data = {"folders": root / "images", "csv": root / "list.csv"}
        results = [
            measure(data_form, data[data_form], root / "cache", root / "listing", options.turns)
            for data_form in options.data
        ]
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
