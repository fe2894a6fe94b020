"""The command line: parse, one library call, render."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from . import __version__
from .cache.errors import HumerisError
from .cache.text import quoted, safe

if TYPE_CHECKING:
    from .classify.family import Family
    from .classify.predict import Prediction
    from .classify.views import Views
    from .extract.extraction import Extracted
    from .extract.images import Images, Progress
    from .extract.request import Request

DEFAULT_BACKBONE = "mobilenet_v2"
_OF_BACKBONE = ("weights", "image_size", "precision")  # options that say which network, where one is named

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)
cache_app = typer.Typer(no_args_is_help=True, help="Look after the cache of activations.")
app.add_typer(cache_app, name="cache")

Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        readable=False,
        help="Class or split folders, a CSV, JSONL or Parquet with path,label, an .npz, or keras.datasets.NAME.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
BackboneArgument = Annotated[str, typer.Argument(metavar="BACKBONE", help="A name, or FILE.keras,preprocessing=MODE.")]
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
BatchSize = Annotated[int, typer.Option("--batch-size", envvar="HUMERIS_BATCH_SIZE", min=1, max=4096)]
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

_Command = TypeVar("_Command", bound=Callable[..., Any])


def reported(function: _Command) -> _Command:
    """A command whose errors are one line and an exit code: 2 for bad input, 130 for an interruption."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> None:
        try:
            code = function(*args, **options)
        except (HumerisError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(0) from None
            words = str(error) if isinstance(error, HumerisError) else _of_system(error)
            if options.get("as_json"):
                print(json.dumps({"error": words}))
            print(f"humeris: {safe(words)}", file=sys.stderr)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            print(f"humeris: interrupted; what was done is kept. Go on with: {safe(_command())}", file=sys.stderr)
            raise typer.Exit(130) from None
        if code:
            raise typer.Exit(code)

    return call  # type: ignore[return-value]


@app.command()
@reported
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="Where everything is written.")] = Path(
        "humeris-demo"
    ),
    jobs: Jobs = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Do the main job offline: handwritten digits on nano, and on nano with random weights."""
    from .classify import text
    from .classify.demo import demo as run_demo

    with _stages(as_json or quiet) as stage:
        result = run_demo(out, jobs=jobs, progress=stage)
    model, sevens = result.trained.exported.path, out / "digits" / "7"
    return _render(result.to_dict(), as_json, quiet, text.demo, ["predict", model, sevens, "--top", 2])


@app.command()
@reported
def run(
    data: Data,
    backbone: Backbones = None,
    layer: Layers = None,
    pool: Pools = None,
    weights: Weights = None,
    image_size: Size = None,
    head: Heads = None,
    grid: Grid = None,
    search: SearchKind = "grid",
    trials: Trials = None,
    concatenate: Concatenate = False,
    views: ViewCount = 0,
    augment: Augment = None,
    average_views: AverageViews = False,
    select: Select = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="The run folder.", show_default="runs/DATA-…")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(envvar="HUMERIS_MODEL", help="The model file.", show_default="RUN/model.keras")
    ] = None,
    batch_size: BatchSize = 32,
    precision: Precision = "float32",
    device: Devices = None,
    cache: CacheFolder = None,
    jobs: Jobs = None,
    seed: Seed = 0,
    limit: Limit = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Extract, sweep and export: one command, one model."""
    from .cache.store import Store
    from .classify import text
    from .classify.pipeline import run as run_all
    from .classify.splits import split

    requests = _requests(backbone or [DEFAULT_BACKBONE], weights, image_size, seed, precision)
    workers = _devices(device)
    families = _families(head, grid, search, trials, seed)
    viewed = _views(views, augment, average_views)
    with Store(cache, write=True) as store, _stages(as_json or quiet) as stage:
        images = _images(data, store, limit, jobs, stage)
        if workers:
            split(images, select)  # which `run_all` does first, but here the devices compute before it
        apart = _taps_apart(workers, data, limit, requests, layer or [], store.path, pool, batch_size, viewed, jobs, stage)
        result = run_all(
            images, requests, layer or [], families, store, pools=pool or [], batch_size=batch_size, concatenate=concatenate,
            views=viewed, select=select, out=out, model=model, seed=seed, jobs=jobs, command=_command(), progress=stage,
        )  # fmt: skip
        _count(result.extracted, apart)
        found = {**result.to_dict(), "cache": str(store.path), **_damage(store)}
    return _render(found, as_json, quiet, text.outcome, ["predict", result.exported.path, "IMAGES"])


@app.command()
@reported
def extract(
    data: Data,
    backbone: Backbones = None,
    layer: Layers = None,
    pool: Pools = None,
    weights: Weights = None,
    image_size: Size = None,
    views: ViewCount = 0,
    augment: Augment = None,
    compress: Annotated[
        str, typer.Option(envvar="HUMERIS_COMPRESS", help="Of whole maps: none, gzip, or blosc2 (needs hdf5plugin).")
    ] = "none",
    batch_size: BatchSize = 32,
    precision: Precision = "float32",
    device: Devices = None,
    cache: CacheFolder = None,
    jobs: Jobs = None,
    seed: Seed = 0,
    limit: Limit = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", envvar="HUMERIS_DRY_RUN", help="Say what it would cost; compute nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Fill the cache with activations; only what is missing is computed."""
    from .cache.store import Store
    from .extract import text
    from .extract.augment import Policy
    from .extract.extraction import extract_all
    from .extract.plan import plan

    requests = _requests(backbone or [DEFAULT_BACKBONE], weights, image_size, seed, precision)
    _check_views(views, augment)
    policy = Policy.parse(augment) if augment else None
    workers = _devices(device)
    with Store(cache, write=True) as store, _stages(as_json or quiet) as stage:
        images = _images(data, store, limit, jobs, stage)
        patterns, pools = layer or [], pool or []
        if dry_run:
            plans = [plan(images, each, patterns, store, pools, views, policy, compress) for each in requests]
            done = [each.to_dict() for each in plans]
        else:
            options: dict[str, Any] = {
                "pools": pools,
                "batch_size": batch_size,
                "views": views,
                "policy": policy,
                "compression": compress,
            }
            apart = _apart(workers, data, limit, requests, patterns, store.path, options, jobs, stage)
            results = extract_all(images, requests, patterns, store, jobs=jobs, progress=stage, **options)
            _count(results, apart)
            images = results[-1].images
            done = [result.to_dict() for result in results]
        name = "planned" if dry_run else "extracted"
        found = {
            "data": images.summary(),
            name: done,
            "cache": str(store.path),
            "command": _command(),
            **_damage(store),
        }
    if dry_run:
        code = _render(found, as_json, quiet, text.plans)
        return code if all(each["fits"] for each in done) else 2
    limited = ["--limit", limit] if limit else []
    return _render(found, as_json, quiet, text.extracted, ["sweep", data, *limited, *_at(cache)])


@app.command()
@reported
def sweep(
    context: typer.Context,
    data: Data,
    backbone: Backbones = None,
    layer: Layers = None,
    pool: Pools = None,
    weights: Weights = None,
    image_size: Size = None,
    precision: Precision = "float32",
    head: Heads = None,
    grid: Grid = None,
    search: SearchKind = "grid",
    trials: Trials = None,
    concatenate: Concatenate = False,
    views: ViewCount = 0,
    augment: Augment = None,
    average_views: AverageViews = False,
    fill: Annotated[
        bool, typer.Option("--extract", envvar="HUMERIS_EXTRACT", help="Compute what is missing in the cache first.")
    ] = False,
    batch_size: BatchSize = 32,
    device: Devices = None,
    select: Select = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="The run folder.", show_default="runs/DATA-…")
    ] = None,
    cache: CacheFolder = None,
    jobs: Jobs = None,
    seed: Seed = 0,
    limit: Limit = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Train heads over what is cached, choose one honestly, score it once; leaves a run."""
    from .cache.store import Store
    from .classify import text
    from .classify.pipeline import extract_taps, taps_of
    from .classify.splits import split
    from .classify.sweep import sweep as run_sweep

    named = backbone or ([DEFAULT_BACKBONE] if fill else [])
    if not named:
        _refuse_typed(context, _OF_BACKBONE, "-b", "without one, everything cached is swept as it was extracted")
    if not fill:
        _refuse_typed(context, ("device", "batch_size"), "--extract", "without it, nothing is computed but the heads")
    requests = _requests(named, weights, image_size, seed, precision)
    families = _families(head, grid, search, trials, seed)
    viewed = _views(views, augment, average_views)
    patterns, found = layer or [], {}
    with Store(cache, write=fill) as store, _stages(as_json or quiet) as stage:
        images = _images(data, store, limit, jobs, stage, features=True)
        only = None
        if fill:
            split(images, select)
            workers = _devices(device)
            apart = _taps_apart(workers, data, limit, requests, patterns, store.path, pool, batch_size, viewed, jobs, stage)
            extracted = extract_taps(
                images, requests, patterns, store, pools=pool or [], batch_size=batch_size, views=viewed, jobs=jobs,
                progress=stage,
            )  # fmt: skip
            _count(extracted, apart)
            images, only = extracted[-1].images, taps_of(extracted)
            found = {"extracted": [each.to_dict() for each in extracted], "cache": str(store.path)}
        done = run_sweep(
            images, store, families, requests=[] if fill else requests, patterns=patterns, pools=pool or [], only=only,
            concatenate=concatenate, views=viewed, select=select, out=out, seed=seed, jobs=jobs, command=_command(),
            progress=stage("heads"),
        )  # fmt: skip
        found = {"data": done.description["data"], **found, **done.summary(), **_damage(store)}
    return _render(found, as_json, quiet, text.run, ["export", done.path, "-o", "model.keras", *_at(cache)])


@app.command()
@reported
def rank(
    context: typer.Context,
    data: Data,
    backbone: Backbones = None,
    layer: Layers = None,
    pool: Pools = None,
    weights: Weights = None,
    image_size: Size = None,
    precision: Precision = "float32",
    select: Select = None,
    run: Annotated[
        Path | None,
        typer.Option(
            envvar="HUMERIS_RUN", help="A finished run to compare with.", show_default="the latest of DATA under runs"
        ),
    ] = None,
    cache: CacheFolder = None,
    jobs: Jobs = None,
    seed: Seed = 0,
    limit: Limit = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Score every cached tap without training (LogME, H-score, kNN, centroid), and say whether training agrees."""
    from .cache.store import Store
    from .classify import text
    from .classify.ranking import rank as rank_taps

    if not backbone:
        _refuse_typed(context, _OF_BACKBONE, "-b", "without one, everything cached is ranked as it was extracted")
    requests = _requests(backbone or [], weights, image_size, seed, precision)
    with Store(cache) as store, _stages(as_json or quiet) as stage:
        images = _images(data, store, limit, jobs, stage, features=True)
        done = rank_taps(
            images, store, requests=requests, patterns=layer or [], pools=pool or [], select=select, run=run, seed=seed,
            progress=stage("taps"),
        )  # fmt: skip
        found = {**done.to_dict(), **_damage(store)}
    limited = ["--limit", limit] if limit else []
    return _render(found, as_json, quiet, text.ranking, ["sweep", data, *limited, *_at(cache)])


@app.command()
@reported
def export(
    run_folder: RunFolder,
    out: Annotated[Path, typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="The model file, NAME.keras.")],
    trial: Annotated[
        str | None, typer.Option(envvar="HUMERIS_TRIAL", help="Id in leaderboard.csv.", show_default="the best")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone", "-b", metavar="NAME[,key=value]", help="Where the backbone is now, if its file was moved."
        ),
    ] = None,
    cache: CacheFolder = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Stack a head on its backbone as one model, checked against the cached answers."""
    from .cache.store import Store
    from .classify import text
    from .classify.export import export as run_export
    from .classify.run import Run

    requests = _requests([backbone] if backbone else [], None, None, 0)
    done = run_export(Run.load(run_folder), Store(cache), out, trial=trial, requests=requests)
    return _render({"exported": done.to_dict()}, as_json, quiet, text.exported, ["predict", done.path, "IMAGES"])


@app.command()
@reported
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A file that `humeris export` wrote.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES…", help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(envvar="HUMERIS_TOP", min=1, help="How many classes of each image.")] = 1,
    form: Annotated[
        str | None, typer.Option("--format", "-f", envvar="HUMERIS_FORMAT", help="table (the default), csv or jsonl.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="A file instead of standard output.")
    ] = None,
    batch_size: BatchSize = 32,
    jobs: Jobs = None,
    as_json: Json = False,
) -> int:
    """Classify images with an exported model."""
    from .classify import text
    from .classify.predict import Predictor, expand

    if as_json and form is not None:
        raise typer.BadParameter("give --json or --format, not both", param_hint="--format")
    if form not in {None, "table", "csv", "jsonl"}:
        raise typer.BadParameter(f"expected table, csv or jsonl, found {form!r}", param_hint="--format")
    paths = expand(images)
    predictions = Predictor(model).predict(paths, top=top, batch_size=batch_size, jobs=jobs)
    refused = 0

    def counted() -> Iterator[Prediction]:
        nonlocal refused
        for each in predictions:
            refused += bool(each.refused)
            yield each

    with out.open("w", encoding="utf-8", errors="surrogateescape") if out else nullcontext(sys.stdout) as file:
        if as_json:
            print(json.dumps({"predictions": [each.to_dict() for each in counted()]}, indent=2), file=file)
        else:
            for line in text.predictions(counted(), form or "table"):
                print(line, file=file)
    return 1 if refused else 0


@app.command()
@reported
def backbones(as_json: Json = False) -> int:
    """List the backbones that come by name."""
    from .extract import text
    from .extract.applications import APPLICATIONS

    return _render({"backbones": [vars(item) for item in APPLICATIONS]}, as_json, False, text.backbones)


@app.command()
@reported
def layers(
    backbone: BackboneArgument,
    weights: Weights = None,
    image_size: Size = None,
    pool: Pools = None,
    cache: CacheFolder = None,
    as_json: Json = False,
) -> int:
    """List a backbone's layers: shape, bytes per image, share of the forward cost."""
    from .cache.store import Store
    from .extract import text
    from .extract.layers import describe

    request = _requests([backbone], weights, image_size, 0)[0]
    return _render(describe(request, Store(cache, write=True), pool or []), as_json, False, text.layers)


@app.command()
@reported
def doctor(cache: CacheFolder = None, as_json: Json = False) -> int:
    """Say what this machine has: versions, devices, precision, weights, cache."""
    from .extract import text
    from .extract.doctor import examine

    return _render(examine(cache), as_json, False, text.doctor)


@cache_app.command("list")
@reported
def cache_list(cache: CacheFolder = None, as_json: Json = False) -> int:
    """List the extractions in the cache."""
    from .cache import text
    from .cache.inventory import inventory
    from .cache.store import Store

    return _render(inventory(Store(cache)), as_json, False, text.inventory)


@cache_app.command("info")
@reported
def cache_info(
    name: Annotated[str, typer.Argument(metavar="EXTRACTION", help="Its folder's name, or the beginning of it.")],
    cache: CacheFolder = None,
    as_json: Json = False,
) -> int:
    """Show how an extraction was made and what it holds."""
    from .cache import text
    from .cache.inventory import info
    from .cache.store import Store

    return _render(info(Store(cache), name), as_json, False, text.info)


@cache_app.command("verify")
@reported
def cache_verify(cache: CacheFolder = None, as_json: Json = False) -> int:
    """Check every file against its digest; damaged ones are set aside and will be computed again."""
    from .cache import text
    from .cache.inventory import verify
    from .cache.store import Store

    with Store(cache, write=True) as store:
        found = verify(store)
    return _render(found, as_json, False, text.verified)


@cache_app.command("prune")
@reported
def cache_prune(
    older_than: Annotated[
        str | None,
        typer.Option(envvar="HUMERIS_OLDER_THAN", metavar="AGE", help="Remove taps that got no new rows for 30d, 12h, 2w …"),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(envvar="HUMERIS_MAX_SIZE", metavar="SIZE", help="Remove the oldest taps until the rest fits in 10GB …"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", envvar="HUMERIS_DRY_RUN", help="Say what would go; remove nothing.")
    ] = False,
    cache: CacheFolder = None,
    as_json: Json = False,
) -> int:
    """Make room: remove taps, oldest first, and what damage and killed processes left.

    A tap goes or stays whole. Its age is the time since rows were last added to it, not since it was last read, which no
    disk tells reliably. What is removed is computed again when it is next needed.
    """
    from .cache import text
    from .cache.prune import parse_age, parse_size, prune
    from .cache.store import Store

    if older_than is None and max_size is None:
        raise typer.BadParameter("give --older-than, --max-size or both", param_hint="--older-than")
    age = None if older_than is None else parse_age(older_than)
    size = None if max_size is None else parse_size(max_size)
    with Store(cache, write=True) as store:
        found = prune(store, older_than=age, max_bytes=size, dry_run=dry_run)
    return _render(found, as_json, False, text.pruned)


@cache_app.command("export")
@reported
def cache_export(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", envvar="HUMERIS_OUT", help="The HDF5 file.")],
    backbone: Backbones = None,
    layer: Layers = None,
    pool: Pools = None,
    weights: Weights = None,
    image_size: Size = None,
    precision: Precision = "float32",
    cache: CacheFolder = None,
    jobs: Jobs = None,
    seed: Seed = 0,
    limit: Limit = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Write the cached features of DATA as one portable HDF5 file, a dataset per tap."""
    from .cache.store import Store
    from .extract import text
    from .extract.portable import export as export_portable

    requests = _requests(backbone or [DEFAULT_BACKBONE], weights, image_size, seed, precision)
    if len(requests) > 1:
        raise typer.BadParameter("give one backbone: a file holds the features of one", param_hint="-b")
    with Store(cache) as store, _stages(as_json or quiet) as stage:
        images = _images(data, store, limit, jobs, stage)
        done = export_portable(images, requests[0], layer or [], store, out, pool or [])
    return _render({"data": images.summary(), "exported": done.to_dict()}, as_json, quiet, text.portable)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Frozen pretrained networks run once, light heads swept over their activations, one model out."""
    if version:
        print(f"humeris {__version__}")
        raise typer.Exit


def _requests(
    texts: Sequence[str], weights: str | None, size: str | None, seed: int, precision: str = "float32"
) -> list[Request]:
    from .extract.request import Request

    return [Request.parse(text, weights=weights, image_size=size, seed=seed, precision=precision) for text in texts]


def _refuse_typed(context: typer.Context, names: Sequence[str], needed: str, why: str) -> None:
    """Raise `HumerisError` for an option of `names` on the command line; in the environment it is for other commands too."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise HumerisError(f"{option} needs {needed}: {why}; give {needed} as well, or leave {option} out")


def _check_views(views: int, augment: str | None) -> None:
    if bool(views) != bool(augment):
        raise typer.BadParameter("give both --views and --augment, or neither", param_hint="--augment")


def _views(count: int, augment: str | None, average: bool) -> Views | None:
    from .classify.views import Views
    from .extract.augment import Policy

    _check_views(count, augment)
    if average and not count:
        raise typer.BadParameter("there are no views to average; give --views and --augment", param_hint="--average-views")
    if augment is None:
        return None
    policy = Policy.parse(augment)
    return Views(count, str(policy), policy.version, average)


def _families(heads: Sequence[str] | None, grid: Path | None, kind: str, trials: int | None, seed: int) -> list[Family]:
    """The head families with the settings to try."""
    from .classify.grid import families
    from .classify.search import KINDS, TRIALS, Search

    if kind not in KINDS:
        raise typer.BadParameter(f"expected one of {', '.join(KINDS)}, found {kind!r}", param_hint="--search")
    if trials is not None and kind == "grid":
        raise typer.BadParameter("a grid is tried whole; give --search random or halving as well", param_hint="--trials")
    if trials is not None and trials < 1:
        raise typer.BadParameter(f"expected at least 1, found {trials}", param_hint="--trials")
    return families(heads or [], grid, Search(kind, trials or TRIALS, seed))


def _devices(texts: Sequence[str] | None) -> list[str]:
    """The devices to start workers on; a single one is for this process."""
    from .extract import device

    devices = device.parse(list(texts or ["auto"]))
    if len(devices) == 1:
        device.use(devices[0])
        return []
    return devices


def _apart(
    devices: list[str],
    data: Path,
    limit: int | None,
    requests: Sequence[Request],
    patterns: Sequence[str],
    cache: Path,
    options: dict[str, Any],
    jobs: int | None,
    stage: Callable[[str], Progress],
) -> list[list[Extracted]]:
    """What workers on several devices did; [] without them."""
    from .extract.workers import Order, extract_on

    if not devices:
        return []
    order = Order(data, limit, requests, patterns, cache, options)
    return extract_on(devices, order, jobs, stage(" + ".join(devices)))


def _taps_apart(
    devices: list[str],
    data: Path,
    limit: int | None,
    requests: Sequence[Request],
    patterns: Sequence[str],
    cache: Path,
    pools: list[str] | None,
    batch_size: int,
    views: Views | None,
    jobs: int | None,
    stage: Callable[[str], Progress],
) -> list[list[Extracted]]:
    """What workers on several devices did of `extract_taps`, in its order."""
    from .classify.pipeline import orders
    from .extract.augment import Policy

    options: dict[str, Any] = {"pools": pools or [], "batch_size": batch_size}
    if views is not None:
        options |= {"views": views.count, "policy": Policy.parse(views.policy)}
    parts = [
        _apart(devices, data, limit, together, taps, cache, options, jobs, stage)
        for together, taps in (orders(requests, patterns) if devices else [])
    ]
    return [[each for part in worker for each in part] for worker in zip(*parts, strict=True)]


def _count(results: Sequence[Extracted], apart: Sequence[Sequence[Extracted]]) -> None:
    from .extract.workers import add

    for parts in apart:
        for total, part in zip(results, parts, strict=True):
            add(total, part)


def _images(
    data: Path, store: Any, limit: int | None, jobs: int | None, stage: Callable[[str], Progress], features: bool = False
) -> Images:
    from .extract.images import load_images

    return load_images(data, store, limit=limit, jobs=jobs, features=features, progress=stage("reading"))


def _damage(store: Any) -> dict[str, Any]:
    return {"damaged": [damage.to_dict() for damage in store.damaged]}


def _command() -> str:
    return shlex.join([_program(), *sys.argv[1:]])


def _program() -> str:
    """What to type for this command: its name where that is found, else the path it was started by."""
    found = shutil.which("humeris")
    if Path(sys.argv[0]).name != "humeris" or (found and os.path.samefile(found, sys.argv[0])):
        return "humeris"
    return os.path.relpath(sys.argv[0])


def _at(cache: Path | None) -> list[object]:
    """The option that names the cache, where the environment does not."""
    return [] if cache is None or os.environ.get("HUMERIS_CACHE") == str(cache) else ["--cache", cache]


def _render(
    found: dict[str, Any],
    as_json: bool,
    quiet: bool,
    show: Callable[[dict[str, Any]], str],
    then: Sequence[object] = (),
) -> int:
    """Print the result and the command to type next; 1 when something was refused, left out or damaged."""
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=True))
    elif not quiet:
        print(show(found))
        if then:
            print("next:", " ".join(quoted(word) for word in [_program(), *then]))
    left_out = (found.get("data") or {}).get("refused") or found.get("left_out") or found.get("damaged")
    unstored = any(each.get("not_finite") for each in found.get("extracted", []))
    return 1 if left_out or unstored else 0


@contextmanager
def _stages(silent: bool) -> Iterator[Callable[[str], Progress]]:
    """Progress bars on a terminal's standard error, one per stage, with rate and time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn()]
    with Bars(*columns, console=console, disable=silent or not console.is_terminal, transient=True) as bars:

        def stage(name: str) -> Progress:
            task = bars.add_task(name, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield stage


def _of_system(error: OSError) -> str:
    """An error of the operating system's that nothing was known to do about."""
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "a file"
    return f"{where}: {error.strerror or error}; put that right and run the command again: what was stored is kept"


def main() -> None:
    """The `humeris` command. Names that are not UTF-8 go out as they came in."""
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    try:
        app()
    except KeyboardInterrupt:  # before a command began
        sys.exit(130)


if __name__ == "__main__":
    main()
