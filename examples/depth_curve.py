"""Draw accuracy along the depth of each backbone of one or more runs.

    python examples/depth_curve.py runs/cifar10-6k-1f0c2a9b -o depth.svg

Needs matplotlib: pip install 'humeris[figures]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

from humeris.classify.evaluate.depth_curve import DepthPoint
from humeris.classify.runs.run import Run

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito, told apart by everybody


def collect_curves(runs: list[Run]) -> dict[str, list[DepthPoint]]:
    """The points of each backbone and head, by depth."""
    points_by_curve: dict[str, list[DepthPoint]] = {}
    for run in runs:
        for point in run.compute_depth_curve():
            points_by_curve.setdefault(f"{point.backbone}, {point.head}", []).append(point)
    return points_by_curve


def draw(runs: list[Run], title: str, out: Path) -> None:
    """Write the picture: mean accuracy over the folds, one standard deviation either side, the peak named."""
    figure, axes = plt.subplots(figsize=(7.2, 4.0), layout="constrained")
    for (name, points), color in zip(collect_curves(runs).items(), COLORS, strict=False):
        depth = [100 * (point.depth or 0) for point in points]
        accuracy = [point.accuracy for point in points]
        low = [point.accuracy - point.std for point in points]
        high = [point.accuracy + point.std for point in points]
        axes.fill_between(depth, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(depth, accuracy, "o-", color=color, label=name, markersize=4)
        peak = max(range(len(points)), key=accuracy.__getitem__)
        axes.plot(depth[peak], accuracy[peak], "o", color=color, markersize=9, markerfacecolor="none")
        axes.annotate(
            f"{points[peak].layer} {accuracy[peak]:.3f}",
            (depth[peak], accuracy[peak]),
            xytext=(-10, 8),
            textcoords="offset points",
            ha="right",
            fontsize=9,
            color=color,
        )
    axes.set(xlabel="share of the forward pass, %", ylabel="accuracy, cross-validation", title=title)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description="Draw accuracy along the depth of each backbone.")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("-o", "--out", type=Path, default=Path("depth.svg"))
    parser.add_argument("--title", default="")
    arguments = parser.parse_args()
    draw([Run.load(path) for path in arguments.runs], arguments.title, arguments.out)


if __name__ == "__main__":
    main()
