"""A small data set, on the shoulders of giants: cats and dogs, three architectures, by trial and error (A1 to A9).

The authors took a few thousand photographs of two kinds of animals and tried VGG16, ResNet50 and InceptionV3 on them by
hand. DATA is such a set, for example the 2,000 + 1,000 cats and dogs of Google's machine learning course
(https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip), unpacked:

    cats_and_dogs_filtered/train/cats/cat.0.jpg …    cats_and_dogs_filtered/train/dogs/dog.0.jpg …
    cats_and_dogs_filtered/validation/cats/…         cats_and_dogs_filtered/validation/dogs/…

    python examples/small_data_set.py cats_and_dogs_filtered
    python examples/small_data_set.py cats_and_dogs_filtered --rows A3,A6
    python examples/small_data_set.py --smoke

Without a test folder the validation folder is the test split, met once by each row's winner. Keras downloads its ImageNet
weights by itself. On a CPU, A1, A4 and A5 take hours; the rest takes minutes.
"""

from __future__ import annotations

import sys

from experiment import Row, Smoke, draw_folders, main

VGG16 = "sweep {data} --extract -b vgg16 -l block5_pool --head mlp,patience=0 -o {out}/vgg16"
RESNET50 = "sweep {data} --extract -b resnet50 -l conv5_block3_out --head mlp,patience=0 -o {out}/resnet50"
INCEPTION = "sweep {data} --extract -b inception_v3 -l mixed_10 --head mlp,patience=0 -o {out}/inception_v3"
MIXED_5 = "sweep {data} --extract -b inception_v3 -l mixed_5 --head logreg --head mlp -o {out}/mixed_5"

ROWS = (
    Row(
        "A1",
        "VGG16 without pretrained weights, everything trained; beside it, in one leaderboard, frozen with ImageNet's",
        "loss plateaus, accuracy stuck",
        (VGG16, "finetune {out}/vgg16 --from input --weights random --epochs 30 -o {out}/A1"),
    ),
    Row(
        "A2",
        "VGG16, the first six layers frozen (block1_conv1 to block2_pool), the new top trained first, then the rest",
        "no improvement",
        (VGG16, "finetune {out}/vgg16 --from block2_pool --head-epochs 5 -o {out}/A2"),
    ),
    Row(
        "A3",
        "ResNet50, everything frozen, a new head; the report draws both curves and the gap between them",
        "train .97, validation flat .5",
        (RESNET50, "report {out}/resnet50"),
    ),
    Row(
        "A4",
        "ResNet50, all layers trained from ImageNet's weights",
        ".91 after about 21 epochs",
        (RESNET50, "finetune {out}/resnet50 --from input --epochs 30 -o {out}/A4"),
    ),
    Row("A5-frozen", "InceptionV3, everything frozen, a new head", "about .7", (INCEPTION,)),
    Row(
        "A5-all",
        "InceptionV3, all layers trained from ImageNet's weights",
        "about .7",
        (INCEPTION, "finetune {out}/inception_v3 --from input --epochs 30 -o {out}/A5"),
    ),
    Row(
        "A6",
        "InceptionV3 cut at the end of every mixed block in turn, a head on each",
        "mixed_5 wins: the best so far",
        (
            "extract {data} -b inception_v3 -l 'mixed*'",
            "sweep {data} -b inception_v3 -l 'mixed*' -o {out}/A6",
        ),
        ("tap",),
    ),
    Row(
        "A7",
        "the cut at mixed_5, the layers between mixed_4 and mixed_5 trained with the head",
        "the best of all",
        (MIXED_5, "finetune {out}/mixed_5 --from mixed_4 -o {out}/A7"),
    ),
    Row(
        "A8",
        "50 epochs of the same; the best one is kept, and marked on the curves of the report",
        "best epoch 11 of 50, then overfitting; noticed by eye",
        (MIXED_5, "finetune {out}/mixed_5 --from mixed_4 --epochs 50 --patience 50 -o {out}/A8"),
    ),
    Row(
        "A9",
        "choose the architecture, take only what you need, tune last, document it: a wide sweep over the depth of two "
        "networks (heat map, leaderboard, a model cut at the best tap), then a narrow one where that was best",
        "advice",
        (
            "run {data} -b resnet50 -b inception_v3 -o {out}/A9-wide",
            "sweep {data} -b inception_v3 -l mixed_5+mixed_7 -l mixed_5 --head logreg,C=1e-4/1e-3/1e-2/1e-1 --head svm "
            "--head ridge -o {out}/A9",
        ),
        ("tap",),
    ),
)

SMOKE = Smoke(
    lambda folder: draw_folders(folder, {"train": 8, "validation": 4}, 75),
    {
        "inception_v3": "--weights random --image-size 75",  # the smallest it takes
        "run": "--weights random --image-size 32",
        "sweep": "--weights random --image-size 32",
        "block2_out": "--epochs 1 --batch-size 8 --no-refit",  # the head first, as in the row
        "finetune": "--epochs 1 --head-epochs 0 --batch-size 8 --no-refit",
    },
    {"mlp": "mlp,epochs=2"},
    {
        "A1": {"vgg16": "nano", "block5_pool": "block5_out"},
        "A2": {"vgg16": "nano", "block5_pool": "block5_out", "block2_pool": "block2_out"},
        "A4": {"resnet50": "nano", "conv5_block3_out": "block5_out"},
        "A5-all": {"inception_v3": "nano", "mixed_10": "block5_out"},
        "A7": {"inception_v3": "nano", "mixed_5": "block5_out", "mixed_4": "block3_out"},
        "A8": {"inception_v3": "nano", "mixed_5": "block5_out", "mixed_4": "block3_out"},
    },
)

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", ROWS, SMOKE))
