"""Options shared by several commands."""

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
        help="Folder of class or split folders; .csv, .jsonl or .parquet with path,label; .npz; keras.datasets.NAME.",
    ),
]
Backbones = Annotated[
    list[str] | None,
    typer.Option("--backbone", "-b", envvar="HUMERIS_BACKBONE", metavar="NAME[,key=value]",
                 help="Backbone, with Keras constructor arguments (mobilenet_v2,alpha=0.35), or a file "
                      "(net.keras,preprocessing=tf|torch|caffe|unit|none). Repeatable."),
]  # fmt: skip
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        "-l",
        envvar="HUMERIS_LAYER",
        metavar="LAYER[:POOL]",
        help="Layer to extract; a glob selects several. Repeatable.",
    ),
]
Pools = Annotated[
    list[str] | None,
    typer.Option(
        "--pool", envvar="HUMERIS_POOL", help="Pool of layers without one: avg, max, gridN, map or cls. Repeatable."
    ),
]
Weights = Annotated[
    str | None, typer.Option(envvar="HUMERIS_WEIGHTS", help="imagenet, random, or a weights file.", show_default=False)
]
Size = Annotated[
    str | None, typer.Option("--image-size", envvar="HUMERIS_IMAGE_SIZE", help="Input size in pixels: SIDE or HEIGHTxWIDTH.")
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", envvar="HUMERIS_BATCH_SIZE", min=1, max=4096, help="Images per batch.")
]
Precision = Annotated[
    str,
    typer.Option(envvar="HUMERIS_PRECISION",
                 help="Compute dtype of the network: float32, bfloat16, float16, or auto (the fastest on the device)."),
]  # fmt: skip
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", envvar="HUMERIS_DEVICE", metavar="auto|cpu|gpu|gpu:N",
                 help="Device; if several are given, one worker process each. Repeatable."),
]  # fmt: skip
Heads = Annotated[
    list[str] | None,
    typer.Option("--head", envvar="HUMERIS_HEAD", metavar="NAME[,option=a/b]",
                 help="Head family: logreg, svm, ridge, lda, knn, centroid, mlp, triplet, supcon or head2toe; "
                      "options as values, lists a/b, or ranges low..high to search. Repeatable."),
]  # fmt: skip
Grid = Annotated[
    Path | None,
    typer.Option("--grid", envvar="HUMERIS_GRID", metavar="FILE.toml", readable=False,
                 help="Heads from a TOML file: one [[head]] table each, with a name and options."),
]  # fmt: skip
SearchKind = Annotated[
    str,
    typer.Option("--search", envvar="HUMERIS_SEARCH", metavar="grid|random|halving",
                 help="Hyperparameter search: the whole grid, a random sample, or successive halving."),
]  # fmt: skip
Trials = Annotated[
    int | None,
    typer.Option(envvar="HUMERIS_TRIALS", help="Sets of hyperparameters per head, unless --search grid.", show_default="30"),
]  # fmt: skip
Concatenate = Annotated[
    bool, typer.Option("--concatenate", envvar="HUMERIS_CONCATENATE", help="Also train on all selected taps concatenated.")
]
ViewCount = Annotated[
    int,
    typer.Option(
        "--views",
        envvar="HUMERIS_VIEWS",
        min=0,
        max=1000,
        help="Augmented views to train on besides each image.",
    ),
]
Augment = Annotated[
    str | None,
    typer.Option("--augment", envvar="HUMERIS_AUGMENT", metavar="NAME[=strength],…", show_default=False,
                 help="Augmentations of the views: flip, vflip, crop, rotate, color, gray, blur, cutout, randaugment or "
                      "trivialaugment."),
]  # fmt: skip
AverageViews = Annotated[
    bool,
    typer.Option("--average-views", envvar="HUMERIS_AVERAGE_VIEWS",
                 help="Score an image by the mean prediction over its views."),
]  # fmt: skip
Select = Annotated[
    str | None,
    typer.Option(
        envvar="HUMERIS_SELECT", help="Select the winner on the validation split (val) or by cross-validation (cv)."
    ),
]
Compression = Annotated[
    str,
    typer.Option(
        "--compress", envvar="HUMERIS_COMPRESS", help="Compression of whole maps: none, gzip, or blosc2 (needs hdf5plugin)."
    ),
]
Track = Annotated[
    list[str] | None,
    typer.Option("--track", envvar="HUMERIS_TRACK", metavar="mlflow|tensorboard",
                 help="Also log the finished run there. Repeatable."),
]  # fmt: skip
NewRun = Annotated[
    Path | None, typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="The run folder.", show_default="runs/DATA-…")
]
Latency = Annotated[
    bool,
    typer.Option(envvar="HUMERIS_LATENCY", help="Measure the latency of the networks up to each tap on this machine."),
]
Page = Annotated[
    Path | None,
    typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="The HTML file.", show_default="report.html in the first run"),
]
FromLayer = Annotated[
    str,
    typer.Option("--from", envvar="HUMERIS_FROM", metavar="LAYER|input",
                 help="Train the layers above LAYER on its cached maps, or (input) the whole network on images."),
]  # fmt: skip
StartTrial = Annotated[
    str | None, typer.Option(envvar="HUMERIS_TRIAL", help="Id of the trial to start from.", show_default="the winner")
]
FinetuneWeights = Annotated[
    str | None,
    typer.Option(envvar="HUMERIS_FINETUNE_WEIGHTS", help="random: train from random weights, with --from input.",
                 show_default="those of RUN"),
]  # fmt: skip
Epochs = Annotated[int, typer.Option(envvar="HUMERIS_EPOCHS", help="Maximum number of epochs, after the warm-up.")]
HeadEpochs = Annotated[
    int | None,
    typer.Option(
        envvar="HUMERIS_HEAD_EPOCHS", help="Warm-up epochs that train the head only.", show_default="2; random weights 0"
    ),
]
Patience = Annotated[
    int, typer.Option(envvar="HUMERIS_PATIENCE", help="Stop after so many epochs without a lower validation loss; 0: never.")
]
Optimizer = Annotated[str, typer.Option(envvar="HUMERIS_OPTIMIZER", help="sgd, adam, adamw, radam or ranger.")]
LearningRate = Annotated[
    float | None,
    typer.Option(envvar="HUMERIS_LEARNING_RATE", help="Learning rate after the warm-up.",
                 show_default="3e-4; from input 1e-5; random weights 1e-3"),
]  # fmt: skip
HeadLearningRate = Annotated[float, typer.Option(envvar="HUMERIS_HEAD_LEARNING_RATE", help="Learning rate of the warm-up.")]
Schedule = Annotated[
    str, typer.Option(envvar="HUMERIS_SCHEDULE", help="Learning rate schedule: constant, cosine or one_cycle.")
]
WeightDecay = Annotated[
    float | None, typer.Option(envvar="HUMERIS_WEIGHT_DECAY", help="Decoupled weight decay.", show_default="0; adamw 0.004")
]
LabelSmoothing = Annotated[float, typer.Option(envvar="HUMERIS_LABEL_SMOOTHING", help="Label smoothing, 0 to below 1.")]
Mixup = Annotated[float, typer.Option(envvar="HUMERIS_MIXUP", help="Alpha of MixUp; 0: none.")]
Cutmix = Annotated[float, typer.Option(envvar="HUMERIS_CUTMIX", help="Alpha of CutMix; 0: none.")]
FinetuneAugment = Annotated[
    str | None,
    typer.Option("--augment", envvar="HUMERIS_AUGMENT", metavar="NAME[=strength],…", show_default=False,
                 help="With --from input: flip, crop, color, randaugment, autoaugment, cutout …, drawn in every epoch. "
                      "Otherwise the augmentations of the --views."),
]  # fmt: skip
MapViewCount = Annotated[
    int,
    typer.Option("--views", envvar="HUMERIS_VIEWS", min=0, max=1000,
                 help="Augmented views of each image whose maps are cached, too."),
]  # fmt: skip
TrainBatchNorm = Annotated[
    bool,
    typer.Option("--train-batch-norm", envvar="HUMERIS_TRAIN_BATCH_NORM", help="Also train batch normalization layers."),
]
Refit = Annotated[
    bool,
    typer.Option(envvar="HUMERIS_REFIT", help="Train again on train and validation images for the best number of epochs."),
]
MapCompression = Annotated[
    str,
    typer.Option(
        "--compress", envvar="HUMERIS_COMPRESS", help="Compression of the maps: none, gzip, or blosc2 (needs hdf5plugin)."
    ),
]
MovedBackbones = Annotated[
    list[str] | None,
    typer.Option(
        "--backbone", "-b", metavar="NAME[,key=value]", help="The backbone at its new path, if its file was moved."
    ),
]
TunedRun = Annotated[
    Path | None,
    typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="The new run folder.", show_default="RUN-LAYER-…"),
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", "-j", envvar="HUMERIS_JOBS", min=1, help="Processes; one per core by default.")
]
CacheFolder = Annotated[
    Path | None,
    typer.Option("--cache", envvar="HUMERIS_CACHE", readable=False,  # our own errors say so in one line
                 help="The cache folder.", show_default="the user's cache"),
]  # fmt: skip
Seed = Annotated[
    int,
    typer.Option(
        envvar="HUMERIS_SEED", min=0, max=2**32 - 1, help="Random seed of folds, searches, neural heads and random weights."
    ),
]
Limit = Annotated[
    int | None, typer.Option(envvar="HUMERIS_LIMIT", min=1, help="Use the first N images of each class and split only.")
]
Json = Annotated[bool, typer.Option("--json", envvar="HUMERIS_JSON", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", envvar="HUMERIS_QUIET", help="Print errors only.")]


PathColumn = Annotated[
    str | None,
    typer.Option(envvar="HUMERIS_PATH_COLUMN", metavar="NAME", show_default="path, file_name, image …",
                 help="In a list of images: the column of paths."),
]  # fmt: skip
LabelColumn = Annotated[
    str | None,
    typer.Option(envvar="HUMERIS_LABEL_COLUMN", metavar="NAME", show_default="label, class, target …",
                 help="In a list of images: the column of labels."),
]  # fmt: skip
LabelColumns = Annotated[
    list[str] | None,
    typer.Option("--label-columns", envvar="HUMERIS_LABEL_COLUMNS", metavar="NAME,NAME…",
                 help="In a list of images: one-hot columns, named after the classes. Repeatable."),
]  # fmt: skip
SplitColumn = Annotated[
    str | None,
    typer.Option(envvar="HUMERIS_SPLIT_COLUMN", metavar="NAME", show_default="split, subset or set",
                 help="In a list of images: the column of splits."),
]  # fmt: skip
GroupColumn = Annotated[
    str | None,
    typer.Option(envvar="HUMERIS_GROUP_COLUMN", metavar="NAME", show_default="group",
                 help="In a list of images: the column of groups, such as patients."),
]  # fmt: skip
ImageFolder = Annotated[
    Path | None,
    typer.Option("--images", envvar="HUMERIS_IMAGES", metavar="DIR", show_default="the folder of the list", readable=False,
                 help="The folder that the paths of a list are relative to."),
]  # fmt: skip


def parse_backbones(
    backbones: Sequence[str], weights: str | None, size: str | None, seed: int, precision: str = "float32"
) -> list[BackboneSpec]:
    """Parse the backbones, with the options that apply to all of them; raises `BackboneError`."""
    from ..extract.backbones.backbone_spec import BackboneSpec

    return [BackboneSpec.parse(text, weights=weights, image_size=size, seed=seed, precision=precision) for text in backbones]
