"""Peak memory of `humeris extract` against the number of images.

Each count is a fresh process that runs the command on so many generated images (8×8 pixels, all different), with two taps
of the packaged backbone, into an empty cache; its peak is the VmHWM that Linux keeps for it. Start-up, Keras and the first
batch are in every figure alike, so `growth` divides by them too; `bytes_per_image` is what an image adds. A second run on
the filled cache is measured too, since it keeps the same facts without a network. Everything is written below a temporary
folder (in --folder, by default the system's) and removed.

    python benchmarks/memory.py --counts 1000 10000 50000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = 4
TAPS = ("block4_out", "block5_out")
# Runs the command line, then says what Linux has seen at most.
RUN = """
import json, sys
from humeris.cli import app
code = 0
try:
    app(sys.argv[1:], standalone_mode=False)
except SystemExit as end:
    code = end.code
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"code": code, "peak_kb": peak}), file=sys.stderr)
"""


def draw(folder: Path, count: int) -> None:
    """So many PNG files of 8×8 pixels in class folders; no two have the same bytes."""
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
    pixels = np.zeros((8, 8, 3), np.uint8)
    for number in range(count):
        pixels[0, 0] = number & 255, number >> 8 & 255, number >> 16
        pixels[1:] = number * 37 % 256
        Image.fromarray(pixels).save(folder / f"class{number % CLASSES}" / f"{number:07}.png")


def extract(folder: Path, cache: Path) -> dict[str, Any]:
    """One run of the command in a fresh process: its peak memory and its time."""
    arguments = ["extract", str(folder), "-b", "nano", "--cache", str(cache), "--json"]
    for tap in TAPS:
        arguments += ["-l", tap]
    start_time = time.perf_counter()
    process = subprocess.run([sys.executable, "-c", RUN, *arguments], check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - start_time
    try:
        usage = json.loads(process.stderr.splitlines()[-1])
    except (IndexError, ValueError):
        raise SystemExit(f"humeris {' '.join(arguments)}: {process.stderr[-500:]}") from None
    if usage["code"]:
        raise SystemExit(f"humeris {' '.join(arguments)}: exit code {usage['code']}: {process.stderr[-500:]}")
    computed = json.loads(process.stdout)["extracted"][0]["computed"]
    return {"peak_mb": round(usage["peak_kb"] / 1000, 1), "seconds": round(seconds, 1), "computed": computed}


def measure(count: int, parent: Path | None) -> dict[str, Any]:
    """Both runs for so many images, in a temporary folder."""
    with tempfile.TemporaryDirectory(dir=parent, prefix="humeris-memory-") as name:
        folder, cache = Path(name, "images"), Path(name, "cache")
        draw(folder, count)
        return {"images": count, "first": extract(folder, cache), "again": extract(folder, cache)}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 50_000])
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    arguments = parser.parse_args()
    if not os.path.exists("/proc/self/status"):
        parser.error("peak memory is read from /proc, which this system does not have")
    results = [measure(count, arguments.folder) for count in arguments.counts]
    smallest, largest = results[0], results[-1]
    growth = {}
    for run in ("first", "again"):
        added = largest[run]["peak_mb"] - smallest[run]["peak_mb"]
        growth[run] = {
            "times": round(largest[run]["peak_mb"] / smallest[run]["peak_mb"], 3),
            "bytes_per_image": round(1e6 * added / max(1, largest["images"] - smallest["images"])),
        }
    print(json.dumps({"benchmark": "memory", "taps": list(TAPS), "counts": results, "growth": growth}))


if __name__ == "__main__":
    main()
