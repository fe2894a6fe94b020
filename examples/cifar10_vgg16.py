"""CIFAR-10 with VGG16: all of it frozen, only three blocks of it, and the four techniques (D1 to D4).

DATA is `keras.datasets.cifar10`, which Keras downloads (170 MB, from https://www.cs.toronto.edu/~kriz/cifar.html), or a
folder of your own: the ten classes as train/airplane/… and test/airplane/….

    python examples/cifar10_vgg16.py
    python examples/cifar10_vgg16.py keras.datasets.cifar10 --rows D1,D2
    python examples/cifar10_vgg16.py --smoke

The 32 pixels are enlarged to the network's own 224, and 60,000 forward passes of VGG16 are minutes on a GPU and hours on
a CPU, once; add `--limit 500` to the commands (`--list` prints them) for a tenth of them. The heads of D1 and D2 do not stop
early, so that the report draws how the validation loss grows again; the epoch with the lowest one is kept all the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

from experiment import Row, Smoke, main

HEAD = "--head mlp,hidden=256,epochs=30,patience=0"
FROZEN = f"sweep {{data}} --extract -b vgg16 -l block5_pool --pool avg --pool grid2 {HEAD} -o {{out}}/vgg16"
CUT = f"sweep {{data}} --extract -b vgg16 -l block3_pool --pool avg --pool grid4 {HEAD} -o {{out}}/D2"

ROWS = (
    Row(
        "D1",
        "all five blocks frozen, a new last layer; the report draws both losses",
        "train .9223, validation .8456, its loss growing",
        (FROZEN, "report {out}/vgg16"),
        ("tap",),
    ),
    Row(
        "D2",
        "the last two blocks cut off, the same head on the first three",
        "train .9993, validation .8923, its loss growing from epoch 10",
        (CUT, "report {out}/D2"),
        ("tap",),
    ),
    Row(
        "D3",
        "batch normalisation after the backbone, and without",
        "speeds training up",
        ("sweep {data} --extract -b vgg16 -l block5_pool --head mlp,hidden=256,batch_norm=false/true -o {out}/D3",),
        ("batch_norm",),
    ),
    Row("D4-frozen", "first technique: a frozen extractor", "no figure", (FROZEN,)),
    Row(
        "D4-top",
        "second technique: the top block trained with the head",
        "no figure",
        (FROZEN, "finetune {out}/vgg16 --from block4_pool -o {out}/D4-top"),
    ),
    Row(
        "D4-all",
        "third technique: everything trained, at a very small rate",
        "no figure",
        (FROZEN, "finetune {out}/vgg16 --from input --learning-rate 1e-5 -o {out}/D4-all"),
    ),
    Row(
        "D4-scratch",
        "fourth technique: the architecture without its weights",
        "no figure",
        (FROZEN, "finetune {out}/vgg16 --from input --weights random --epochs 30 -o {out}/D4-scratch"),
    ),
)


def draw(folder: Path) -> Path:
    """A file of arrays with a few drawings of 32 pixels, as CIFAR-10 has them."""
    import numpy as np
    from drawn_objects import draw_object

    folder.mkdir()
    arrays = {}
    for split, count in (("train", 8), ("test", 4)):
        objects = [
            draw_object(np.random.default_rng([count, kind, number]), name)
            for kind, name in enumerate(("plane", "car"))
            for number in range(count)
        ]
        arrays[f"x_{split}"] = (255 * np.stack(objects)[:, 2::4, 2::4, None].repeat(3, axis=3)).astype(np.uint8)
        arrays[f"y_{split}"] = np.repeat([0, 1], count)
    np.savez(folder / "drawings.npz", **arrays)
    return folder / "drawings.npz"


SMOKE = Smoke(
    draw,
    {
        "sweep": "--weights random --image-size 64",  # the smallest whose last map has the cells of grid2
        "finetune": "--epochs 1 --head-epochs 0 --batch-size 8 --no-refit",
    },
    {"epochs=30": "epochs=2", "batch_norm": "epochs=2,batch_norm"},
    {
        row: {"vgg16": "nano", "block5_pool": "block5_out", "block4_pool": "block4_out"}
        for row in ("D4-top", "D4-all", "D4-scratch")
    },
)

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", ROWS, SMOKE, "keras.datasets.cifar10"))
