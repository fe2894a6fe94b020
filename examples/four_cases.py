"""The four cases of a course on fine-tuning, by size of the data and similarity to the source (B1 to B4).

The course's table says what to do with a pretrained network when the data is small or large ("small" there is about two
thousand images, "large" about a million) and similar to ImageNet or different. `humeris run` ends by saying which case
your data is in, and why (row B); the other rows do all that the four cases would have you do, so that you see
whether it is right. The case is read from the depth at which accuracy peaks, and from the gap to the same network with
random weights, which is why row B computes both.

DATA is any folder of class folders (photos/cat/1.jpg), with or without train and test folders above them. For instance
the flowers of TensorFlow's tutorial are small and similar
(https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz, unpacked: flower_photos/roses/…),
and `keras.datasets.mnist` is neither small nor similar.

    python examples/four_cases.py flower_photos
    python examples/four_cases.py keras.datasets.mnist --rows B,B1,B2
    python examples/four_cases.py --smoke
"""

from __future__ import annotations

import sys

from experiment import Row, Smoke, draw_folders, main

RANDOM = "extract {data} -b vgg16 --weights random"
RUN = "run {data} -b vgg16 -o {out}/vgg16"

ROWS = (
    Row(
        "B",
        "judge the case: VGG16 tapped along its depth, beside the same network with random weights",
        "by the size of the data and a look at it",
        (RANDOM, RUN),
        ("case", "tap"),
    ),
    Row(
        "B1",
        "small and similar: cut the end off, a new layer, everything else frozen",
        "a frozen head at a late layer",
        ("sweep {data} --extract -b vgg16 -l block5_pool -o {out}/B1",),
    ),
    Row(
        "B2",
        "small and different: keep only the first layers, a new layer on those, frozen",
        "a frozen head at an early layer",
        ("sweep {data} --extract -b vgg16 -l block2_pool -l block3_pool -o {out}/B2",),
        ("tap",),
    ),
    Row(
        "B3",
        "large and similar: replace the last layer, start from the pretrained weights, train everything",
        "train the whole network",
        (RUN, "finetune {out}/vgg16 --from input -o {out}/B3"),
    ),
    Row(
        "B4",
        "large and different: from scratch (or as B3)",
        "train from random weights",
        (RUN, "finetune {out}/vgg16 --from input --weights random --epochs 30 -o {out}/B4"),
    ),
)

SMOKE = Smoke(
    lambda folder: draw_folders(folder, {"train": 8, "test": 4}, 32, ("disc", "star 5", "heart")),
    {
        "extract": "--image-size 32 --seed 1",  # the random network: another one than that of `run`
        "run": "--weights random --image-size 32",
        "sweep": "--weights random --image-size 32",
        "finetune": "--epochs 1 --head-epochs 1 --batch-size 8",
    },
)

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", ROWS, SMOKE))
