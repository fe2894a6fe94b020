"""An epoch of fine-tuning from cached maps against an epoch of the same training through the whole network.

    python benchmarks/finetune.py IMAGES [--backbone inception_v3] [--from mixed4] [--tap mixed5] [--rounds 3]

IMAGES is a folder of class folders. Both train the same layers with the same head, from the same weights (random ones:
they take as long as others), on the same images in the same order; one reads their maps at `--from` from the cache, the
other decodes the images and computes the frozen layers below anew in every epoch.

bound: the ratio of the two training steps on a batch that is there already. ratio: that of the epochs, medians of rounds
that take turns. The goal is a ratio of 0.9 of the bound. losses: mean over the images after the rounds, which must agree.
repaid_after_epochs: what filling the cache costs, over what an epoch then saves.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from humeris.cache.store import Store
from humeris.classify.data import select_features
from humeris.classify.export.rebuild_backbone import rebuild_backbone
from humeris.classify.finetune import batches as feed
from humeris.classify.finetune.finetune import fill_cache
from humeris.classify.finetune.finetune_config import FinetuneConfig
from humeris.classify.finetune.prepare import FinetuneSetup, prepare
from humeris.classify.sweep.sweep import sweep
from humeris.classify.sweep.sweep_config import SweepConfig
from humeris.extract.backbones.backbone_spec import BackboneSpec
from humeris.extract.engine.extract import extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images
from humeris.extract.pixels.decode_pool import DecoderPool
from humeris.extract.pixels.read_file import count_cores

STEPS = 7  # of which the first two are left out


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--backbone", default="inception_v3")
    parser.add_argument("--from", dest="start", default="mixed4")
    parser.add_argument("--tap", default="mixed5")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments, Path(folder)), indent=2))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures; seconds, unless they are ratios."""
    with Store(folder / "cache", write=True) as store, DecoderPool(count_cores()) as decoders:
        request = BackboneSpec.parse(arguments.backbone, weights="random")
        images = load_images(arguments.images, store, limit=arguments.limit)
        extract_features(images, store, ExtractConfig(request, layers=[f"{arguments.tap}:avg"]))
        run = sweep(images, store, SweepConfig(["logreg,C=0.01"], out=folder / "run"))
        config = FinetuneConfig(arguments.start, learning_rate=1e-5, head_epochs=0)
        from_maps = prepare(run, store, config)
        from_images = prepare(run, store, replace(config, from_layer="input"))
        start_time = time.perf_counter()
        fill_cache(from_maps, store)
        fill_seconds = time.perf_counter() - start_time
        rows = from_maps.splits.development
        tail, whole = build_networks(from_maps, config, store)
        train_batches = {"maps": feed.make_batches(from_maps, store, rows, True, decoders)}
        train_batches["images"] = feed.make_batches(from_images, store, rows, True, decoders)
        steps = {"maps": time_step(tail, train_batches["maps"]), "images": time_step(whole, train_batches["images"])}
        tail, whole = build_networks(from_maps, config, store)
        for network, name in ((tail, "maps"), (whole, "images")):  # the first steps are traced and compiled
            state = network.get_state()
            for number in (0, len(train_batches[name]) - 1):
                network.model.train_on_batch(*train_batches[name][number])
            network.restore(state)
        epochs: dict[str, list[float]] = {"maps": [], "images": []}
        for number in range(arguments.rounds):
            for network, name in ((tail, "maps"), (whole, "images")):
                train_batches[name].epoch = number
                start_time = time.perf_counter()
                network.train_epoch(train_batches[name])
                epochs[name].append(time.perf_counter() - start_time)
        losses = {
            "maps": compute_loss(tail, feed.make_batches(from_maps, store, rows, False, decoders), from_maps, rows),
            "images": compute_loss(whole, feed.make_batches(from_images, store, rows, False, decoders), from_images, rows),
        }
    bound = steps["images"] / steps["maps"]
    medians = {name: statistics.median(epoch_seconds) for name, epoch_seconds in epochs.items()}
    ratio = medians["images"] / medians["maps"]
    return {
        "backbone": arguments.backbone,
        "from": arguments.start,
        "tap": arguments.tap,
        "images": len(rows),
        "step": steps,
        "bound": bound,
        "epochs": epochs,
        "ratio": ratio,
        "share_of_bound": ratio / bound,
        "losses": losses,
        "filling": fill_seconds,
        "images_filled": len(from_maps.development_images.used),
        "repaid_after_epochs": fill_seconds / (medians["images"] - medians["maps"]),
    }


def build_networks(setup: FinetuneSetup, config: FinetuneConfig, store: Store) -> tuple[Any, Any]:
    """The tail on maps, and the whole network on images of which the same layers are trained, with the same weights."""
    from humeris.classify.finetune.trainable_tail import Network

    head = setup.run.load_head(setup.trial)
    assert head is not None
    resolved_config = config.resolve()
    features = select_features.load_matrix(store, setup.trial.tap_refs, setup.images.keys).to_array()
    scale = features.mean(axis=0, dtype=np.float64), np.maximum(features.std(axis=0, dtype=np.float64), 1e-6)
    tail = Network(
        rebuild_backbone(setup.spec, fold_batch_norm=False), setup.taps, setup.cut, head, setup.splits.target, *scale
    )
    whole = Network(rebuild_backbone(setup.spec, fold_batch_norm=False), setup.taps, None, head, setup.splits.target, *scale)
    whole.tail = {name: layer for name, layer in whole.tail.items() if name in tail.tail}
    for network in (tail, whole):
        network.compile(resolved_config, head_only=False)
    return tail, whole


def time_step(network: Any, batches: Any) -> float:
    """Seconds of a training step on a batch in memory."""
    batch, seconds = batches[0], []
    for _ in range(STEPS):
        start_time = time.perf_counter()
        network.model.train_on_batch(*batch)
        seconds.append(time.perf_counter() - start_time)
    return statistics.median(seconds[2:])


def compute_loss(network: Any, batches: Any, setup: FinetuneSetup, rows: np.ndarray) -> float:
    """Mean cross-entropy."""
    probabilities = network.predict_proba(batches)
    return float(-np.log(np.maximum(probabilities[np.arange(len(rows)), setup.splits.labels[rows]], 1e-7)).mean())


if __name__ == "__main__":
    main()
