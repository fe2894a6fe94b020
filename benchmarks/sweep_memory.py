"""Peak memory of whole sweeps with linear heads beside the size of the features.

    python benchmarks/sweep_memory.py --shapes 20000x3000 3000x20000
    python benchmarks/sweep_memory.py --streamed          # as where the features do not fit into memory

For each shape a cache of generated rows is made in a temporary folder: so many images to learn from and a fifth as many to
test on. Each family is swept over it in a fresh process (splits, five folds, choice, the winner's training, its score on the
test split, near-duplicates), after a sweep of the same images over eight columns, which imports what there is to import.
`peak_mb` is how far the large sweep's peak (VmHWM, reset in between) lies above the process before it; `times_matrix`
divides that by the float32 matrix of the images learnt from, n x d, and `squares` is what is left after that matrix, in
matrices of min(n, d) squared float64 numbers, for these are what a decomposition needs.

Bounds, with q = 8 min(n, d)^2 bytes and a few blocks of 16 MiB: heads of d <= n hold the matrix (unless `--streamed`, where
only blocks of it are read); with d > n it is read in blocks of columns and never held. Centroids need nothing else where
d <= n, neighbours the rows of one fold to score. A decomposition takes 4 q: the matrix, which its vectors replace, LAPACK's
workspace of 2 q, and the vectors of the fold before; ridge and LDA with d <= n have half a q for each fold besides, the
folds' scatter matrices. A head of neighbours is the matrix, and as large again while it is saved.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

FAMILIES = ("logreg,C=0.001/0.1", "svm,C=0.0001/0.01", "ridge", "lda,shrinkage=0.1/0.5", "knn", "centroid")
CLASSES, SHARDS = 10, 8
PNG = b"\x89PNG\r\n\x1a\n"  # a sweep opens no image


def fill_cache(folder: Path, rows: int, columns: int) -> None:
    """Files of so many images to learn from and a fifth to test on, and a cache of their rows at `large` and `tiny`."""
    from humeris.cache.spec import ExtractionSpec
    from humeris.cache.store import Store
    from humeris.extract.images.load import load_images

    for split, count in (("train", rows), ("test", rows // 5)):
        for label in range(CLASSES):
            (folder / "images" / split / f"class{label}").mkdir(parents=True)
        for number in range(count):
            path = folder / "images" / split / f"class{number % CLASSES}" / f"{number:06}.png"
            path.write_bytes(PNG + f"{split} {number}".encode())
    random = np.random.default_rng(0)
    with Store(folder / "cache", write=True) as store:
        images = load_images(folder / "images", store, jobs=1)
        labels = np.array([images.dataset.classes.index(label) for label in images.labels])
        extraction = store.get_extraction(
            ExtractionSpec("benchmark", "benchmark()", "none", "00" * 32, (224, 224), "none", "none")
        )
        for layer, width in (("large", columns), ("tiny", 8)):
            means = random.standard_normal((CLASSES, width), np.float32)
            for part in np.array_split(random.permutation(len(labels)), SHARDS):
                values = random.standard_normal((len(part), width), np.float32)
                values += means[labels[part]] * np.float32(0.5 / width**0.25)
                extraction.add(layer, "avg", images.keys[part], values)


def read_status(field: str) -> int:
    """A figure of Linux's about this process, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith(field))


def measure_sweep(folder: Path, family: str, jobs: int, streamed: bool) -> int:
    """Bytes that the sweep of a family over `large` takes at most, above what the process has before it."""
    from humeris.cache.store import Store
    from humeris.classify.data import feature_matrix as matrix
    from humeris.classify.sweep.sweep import sweep
    from humeris.classify.sweep.sweep_config import SweepConfig
    from humeris.extract.images.load import load_images

    if streamed:
        matrix._SHARE = 0.0
    store = Store(folder / "cache")
    images = load_images(folder / "images", store, jobs=1)
    with tempfile.TemporaryDirectory(dir=folder) as runs:
        sweep(images, store, SweepConfig([family], layers=["tiny"], out=Path(runs, "tiny"), jobs=jobs))
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
        resident_before = read_status("VmRSS")
        sweep(images, store, SweepConfig([family], layers=["large"], out=Path(runs, "large"), jobs=jobs))
    return read_status("VmHWM") - resident_before


def measure(rows: int, columns: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of every family at one shape."""
    matrix_bytes, square_bytes = 4 * rows * columns, 8 * min(rows, columns) ** 2
    figures = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="humeris-sweep-memory-") as folder:
        fill_cache(Path(folder), rows, columns)
        for family in arguments.families:
            words = [__file__, "--child", folder, "--families", family, "--jobs", str(arguments.jobs)]
            words += ["--streamed"] if arguments.streamed else []
            process = subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True)
            if process.returncode:
                raise SystemExit(f"{family} at {rows}x{columns}: {process.stderr[-1000:]}")
            peak = int(process.stdout)
            figures[family] = {
                "peak_mb": round(peak / 1e6),
                "times_matrix": round(peak / matrix_bytes, 2),
                "squares": round(max(0, peak - (0 if arguments.streamed else matrix_bytes)) / square_bytes, 1),
            }
    return {
        "rows": rows,
        "columns": columns,
        "matrix_mb": round(matrix_bytes / 1e6),
        "square_mb": round(square_bytes / 1e6),
        **figures,
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["20000x3000", "3000x20000"], help="rows to learn from x columns")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--streamed", action="store_true", help="never hold the features, as where they do not fit")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not os.path.exists("/proc/self/clear_refs"):
        parser.error("peak memory is read from /proc, which this system does not have")
    if arguments.child:
        print(measure_sweep(arguments.child, arguments.families[0], arguments.jobs, arguments.streamed))
        return
    shapes = [tuple(int(number) for number in shape.split("x")) for shape in arguments.shapes]
    results = [measure(rows, columns, arguments) for rows, columns in shapes]
    print(
        json.dumps({"benchmark": "sweep_memory", "jobs": arguments.jobs, "streamed": arguments.streamed, "shapes": results})
    )


if __name__ == "__main__":
    main()
