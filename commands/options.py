"""The options that several commands share: how each is written, its line of help, and the backbones that they name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..extract.backbones.backbone_spec import BackboneSpec

DEFAULT_BACKBONE = "mobilenet_v2"

Data = Annotated[
    str,  # as an address is no path
    typer.Argument(
        metavar="DATA",
        help="Class or split folders, a CSV, JSONL or Parquet with path,label, an .npz, or keras.datasets.NAME.",
    ),
]
Backbones = Annotated[
    list[str] | None,
    typer.Option("--backbone", "-b", envvar="HUMERIS_BACKBONE", metavar="NAME[,key=value]",
                 help="A backbone with Keras's constructor arguments (mobilenet_v2,alpha=0.35), or your own file "
                      "(net.keras,preprocessing=tf|torch|caffe|unit|none). Repeatable."),
]  # fmt: skip
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer", "-l", envvar="HUMERIS_LAYER", metavar="LAYER[:POOL]", help="Layers to tap; globs are allowed. Repeatable."
    ),
]
Pools = Annotated[
    list[str] | None,
    typer.Option("--pool", envvar="HUMERIS_POOL", help="avg, max, gridN, map or cls, for layers given without one."),
]
Weights = Annotated[
    str | None, typer.Option(envvar="HUMERIS_WEIGHTS", help="imagenet, random, or a weights file.", show_default=False)
]
Size = Annotated[str | None, typer.Option("--image-size", envvar="HUMERIS_IMAGE_SIZE", help="SIDE or HEIGHTxWIDTH.")]
BatchSize = Annotated[
    int, typer.Option("--batch-size", envvar="HUMERIS_BATCH_SIZE", min=1, max=4096, help="Images in a step.")
]
Precision = Annotated[
    str,
    typer.Option(envvar="HUMERIS_PRECISION",
                 help="Of the network's arithmetic: float32, bfloat16, float16, or auto, what the device is good at."),
]  # fmt: skip
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", envvar="HUMERIS_DEVICE", metavar="auto|cpu|gpu|gpu:N",
                 help="What computes; a worker process on each where several are given. Repeatable."),
]  # fmt: skip
Heads = Annotated[
    list[str] | None,
    typer.Option("--head", envvar="HUMERIS_HEAD", metavar="NAME[,option=a/b]",
                 help="logreg, svm, ridge, lda, knn, centroid, mlp, triplet, supcon or head2toe; "
                      "options as values, lists a/b, or ranges low..high to search. Repeatable."),
]  # fmt: skip
Grid = Annotated[
    Path | None,
    typer.Option("--grid", envvar="HUMERIS_GRID", metavar="FILE.toml", readable=False,
                 help="Heads from a file: a table of the array `head` for each, with a name and its options."),
]  # fmt: skip
SearchKind = Annotated[
    str,
    typer.Option("--search", envvar="HUMERIS_SEARCH", metavar="grid|random|halving",
                 help="Every setting of a head, some at random, or many for a few epochs and the best for more."),
]  # fmt: skip
Trials = Annotated[
    int | None,
    typer.Option(envvar="HUMERIS_TRIALS", help="Settings of each head to search.", show_default="30"),
]  # fmt: skip
Concatenate = Annotated[
    bool, typer.Option("--concatenate", envvar="HUMERIS_CONCATENATE", help="Try all chosen taps side by side as well.")
]
ViewCount = Annotated[
    int,
    typer.Option("--views", envvar="HUMERIS_VIEWS", min=0, max=1000, help="Augmented views of each image to use as well."),
]
Augment = Annotated[
    str | None,
    typer.Option("--augment", envvar="HUMERIS_AUGMENT", metavar="NAME[=strength],…", show_default=False,
                 help="How views are made: flip, vflip, crop, rotate, color, gray, blur, cutout, randaugment or "
                      "trivialaugment."),
]  # fmt: skip
AverageViews = Annotated[
    bool,
    typer.Option("--average-views", envvar="HUMERIS_AVERAGE_VIEWS",
                 help="Score an image on the mean over its views, not on the plain one."),
]  # fmt: skip
Select = Annotated[str | None, typer.Option(envvar="HUMERIS_SELECT", help="Choose on val, or by cross-validation (cv).")]
Compression = Annotated[
    str,
    typer.Option("--compress", envvar="HUMERIS_COMPRESS", help="Of whole maps: none, gzip, or blosc2 (needs hdf5plugin)."),
]
Track = Annotated[
    list[str] | None,
    typer.Option("--track", envvar="HUMERIS_TRACK", metavar="mlflow|tensorboard",
                 help="Log the finished run there as well. Repeatable."),
]  # fmt: skip
NewRun = Annotated[
    Path | None, typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="The run folder.", show_default="runs/DATA-…")
]
Latency = Annotated[
    bool,
    typer.Option(
        envvar="HUMERIS_LATENCY", help="First measure how long the networks take up to each tap here; loads Keras."
    ),
]
Page = Annotated[
    Path | None,
    typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="The page.", show_default="report.html in the first run"),
]
FromLayer = Annotated[
    str,
    typer.Option("--from", envvar="HUMERIS_FROM", metavar="LAYER|input",
                 help="Train the layers above LAYER on its cached maps, or the whole network on the images."),
]  # fmt: skip
StartTrial = Annotated[
    str | None, typer.Option(envvar="HUMERIS_TRIAL", help="The head to start from.", show_default="the best")
]
FinetuneWeights = Annotated[
    str | None,
    typer.Option(envvar="HUMERIS_FINETUNE_WEIGHTS", help="random: from scratch, with --from input.",
                 show_default="as RUN's"),
]  # fmt: skip
Epochs = Annotated[int, typer.Option(envvar="HUMERIS_EPOCHS", help="At most, after those of the head.")]
HeadEpochs = Annotated[
    int | None,
    typer.Option(envvar="HUMERIS_HEAD_EPOCHS", help="First, of the head alone.", show_default="2; from scratch 0"),
]
Patience = Annotated[
    int, typer.Option(envvar="HUMERIS_PATIENCE", help="Epochs without a lower validation loss to stop after; 0 for never.")
]
Optimizer = Annotated[str, typer.Option(envvar="HUMERIS_OPTIMIZER", help="sgd, adam, adamw, radam or ranger.")]
LearningRate = Annotated[
    float | None,
    typer.Option(envvar="HUMERIS_LEARNING_RATE", help="Of everything, once the head was trained.",
                 show_default="3e-4; from input 1e-5; from scratch 1e-3"),
]  # fmt: skip
HeadLearningRate = Annotated[
    float, typer.Option(envvar="HUMERIS_HEAD_LEARNING_RATE", help="While the head alone is trained.")
]
Schedule = Annotated[
    str, typer.Option(envvar="HUMERIS_SCHEDULE", help="Of the learning rate: constant, cosine or one_cycle.")
]
WeightDecay = Annotated[
    float | None, typer.Option(envvar="HUMERIS_WEIGHT_DECAY", help="Decoupled.", show_default="0; adamw 0.004")
]
LabelSmoothing = Annotated[float, typer.Option(envvar="HUMERIS_LABEL_SMOOTHING", help="Share spread over all classes.")]
Mixup = Annotated[float, typer.Option(envvar="HUMERIS_MIXUP", help="Alpha; 0 for none.")]
Cutmix = Annotated[float, typer.Option(envvar="HUMERIS_CUTMIX", help="Alpha; 0 for none.")]
FinetuneAugment = Annotated[
    str | None,
    typer.Option("--augment", envvar="HUMERIS_AUGMENT", metavar="NAME[=strength],…", show_default=False,
                 help="From input: flip, crop, color, randaugment, autoaugment, cutout and others, anew every epoch. "
                      "From a layer: how its --views are made."),
]  # fmt: skip
MapViewCount = Annotated[
    int,
    typer.Option("--views", envvar="HUMERIS_VIEWS", min=0, max=1000,
                 help="Augmented views of each image whose maps are cached."),
]  # fmt: skip
TrainBatchNorm = Annotated[
    bool,
    typer.Option("--train-batch-norm", envvar="HUMERIS_TRAIN_BATCH_NORM", help="Do not freeze batch normalisation."),
]
Refit = Annotated[
    bool,
    typer.Option(envvar="HUMERIS_REFIT", help="Train again on validation images too, once the best epoch is known."),
]
MapCompression = Annotated[
    str,
    typer.Option("--compress", envvar="HUMERIS_COMPRESS", help="Of the maps: none, gzip, or blosc2 (needs hdf5plugin)."),
]
MovedBackbones = Annotated[
    list[str] | None,
    typer.Option("--backbone", "-b", metavar="NAME[,key=value]", help="Where the backbone is now, if its file was moved."),
]
TunedRun = Annotated[
    Path | None,
    typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="The new run folder.", show_default="RUN-LAYER-…"),
]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", envvar="HUMERIS_JOBS", min=1, help="Default: every core.")]
CacheFolder = Annotated[
    Path | None,
    typer.Option("--cache", envvar="HUMERIS_CACHE", readable=False,  # our own errors say so in one line
                 help="The cache folder.", show_default="the user's cache"),
]  # fmt: skip
Seed = Annotated[
    int, typer.Option(envvar="HUMERIS_SEED", min=0, max=2**32 - 1, help="Of folds, MLP heads and random weights.")
]
Limit = Annotated[
    int | None, typer.Option(envvar="HUMERIS_LIMIT", min=1, help="Use the first so many images of each class and split.")
]
Json = Annotated[bool, typer.Option("--json", envvar="HUMERIS_JSON", help="One JSON document on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", envvar="HUMERIS_QUIET", help="Errors only.")]


def parse_backbones(
    backbones: Sequence[str], weights: str | None, size: str | None, seed: int, precision: str = "float32"
) -> list[BackboneSpec]:
    """The backbones as asked for, by their texts and by the options that hold for all of them; raises `BackboneError`."""
    from ..extract.backbones.backbone_spec import BackboneSpec

    return [BackboneSpec.parse(text, weights=weights, image_size=size, seed=seed, precision=precision) for text in backbones]
