"""A Keras tutorial's VGG19: a classifier on its codes, its first layers frozen, `block2_pool` kept in HDF5 (C1 to C7).

DATA is any folder of class folders (photos/cat/1.jpg), with or without train and test folders above them; for instance
the flowers of TensorFlow's tutorial
(https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz, unpacked: flower_photos/roses/…).

    python examples/convolutional_codes.py flower_photos
    python examples/convolutional_codes.py flower_photos --rows C3,C4
    python examples/convolutional_codes.py --smoke

The tutorial's images are 256 pixels wide and high, and so are these. `block2_pool` is a map of 64 by 64 by 128 numbers
there, 524,288 for each image, and its author calls it unhelpful to train on. C3 trains on all of them, exactly: with fewer
images than columns, a linear head lies in the span of the rows, which are rotated into it once. A thousand images are 1 GB
in the cache; `humeris extract … --dry-run` says how much your own are.
"""

from __future__ import annotations

import sys

from experiment import Row, Smoke, draw_folders, main

VGG19 = "sweep {data} --extract -b vgg19 --image-size 256 -l block5_pool -o {out}/vgg19"

ROWS = (
    Row("C1", "VGG19 frozen, a new classifier on its codes", "no figure", (VGG19,)),
    Row(
        "C2",
        # in Keras's VGG19: input, block1_conv1, block1_conv2, block1_pool, block2_conv1; the next is block2_conv2
        "the first five layers of Keras's VGG19 frozen (the input is one of them, block2_conv1 the last), the rest trained",
        "no figure",
        (VGG19, "finetune {out}/vgg19 --from block2_conv1 -o {out}/C2"),
    ),
    Row(
        "C3",
        "all numbers of block2_pool kept in HDF5, a classifier trained on them",
        "unhelpful: 64·64·128 = 524,288 of them",
        ("sweep {data} --extract -b vgg19 --image-size 256 -l block2_pool:map -o {out}/C3",),
    ),
    Row(
        "C4",
        "block2_pool averaged over the cells of a grid, which keeps the place of things, and over everything",
        "not tried",
        (
            "sweep {data} --extract -b vgg19 --image-size 256 -l block2_pool --pool avg --pool grid2 --pool grid4 "
            "--pool grid8 -o {out}/C4",
        ),
        ("tap",),
    ),
    Row(
        "C5",
        "fully connected layers on top of the whole last map: two of 1024, with dropout",
        "no figure",
        (
            "sweep {data} --extract -b vgg19 --image-size 256 -l block5_pool:map "
            "--head mlp,hidden=1024x1024,dropout=0.5,learning_rate=1e-4 -o {out}/C5",
        ),
    ),
    Row(
        "C6",
        "the whole network trained, from ImageNet's weights",
        "no figure",
        (VGG19, "finetune {out}/vgg19 --from input -o {out}/C6"),
    ),
    Row(
        "C6-random",
        "the whole network trained, from random weights",
        "no figure",
        (VGG19, "finetune {out}/vgg19 --from input --weights random --epochs 30 -o {out}/C6-random"),
    ),
    Row(
        "C7",
        "a larger network, cut where one likes",
        "no figure",
        ("sweep {data} --extract -b efficientnet_b4 -l block4f_add -l block5f_add -l block6h_add -o {out}/C7",),
        ("tap",),
    ),
)

SMOKE = Smoke(
    lambda folder: draw_folders(folder, {"train": 8, "test": 4}, 32, ("plane", "boat")),
    {
        "sweep": "--weights random --image-size 32",
        "finetune": "--epochs 1 --head-epochs 0 --batch-size 8 --no-refit",
    },
    {"mlp": "mlp,epochs=2"},
    {
        **{
            row: {"vgg19": "nano", "block5_pool": "block5_out", "block2_conv1": "block2_out"}
            for row in ("C2", "C6", "C6-random")
        },
        "C7": {
            "efficientnet_b4": "nano", "block4f_add": "block3_out", "block5f_add": "block4_out", "block6h_add": "block5_out",
        },
    },
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", ROWS, SMOKE))
