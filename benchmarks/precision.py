"""How fast a forward pass is at each precision, against float32, and how far its features are from float32's.

Every variant is a process of its own, because oneDNN and TensorFlow read their settings when they start. Each builds
the network with the same random weights, compiles it, and then answers one batch whenever it is asked to. The variants take
turns, so that a busy machine slows all of them; a figure is a median over the turns. Features are the network's averaged
last map, on noise; cosine and deviation are the worst over the images, the deviation relative to the largest value.

    python benchmarks/precision.py --network ResNet50 MobileNetV2 --variant float32 mixed_bfloat16+folded

A variant is a Keras dtype policy followed by any of `+folded` (each batch normalisation folded into the convolution before
it, which lets oneDNN do convolution, bias and activation in one go), `+jit` (XLA), `+fpmath` (oneDNN may multiply float32 in
bfloat16, where the processor has AMX) and `+noonednn` (TF_ENABLE_ONEDNN_OPTS=0).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from statistics import median
from typing import IO, Any, cast

import numpy as np

NETWORKS = ("ResNet50", "MobileNetV2", "EfficientNetB0", "VGG16")
VARIANTS = ("float32", "float32+folded", "mixed_bfloat16", "mixed_bfloat16+folded", "mixed_float16")
SETTINGS: dict[str, dict[str, str]] = {
    "folded": {},
    "jit": {},
    "fpmath": {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16", "TF_SET_ONEDNN_FPMATH_MODE": "BF16"},
    "noonednn": {"TF_ENABLE_ONEDNN_OPTS": "0"},
}


class Worker:
    """One variant in a process of its own."""

    def __init__(self, network: str, variant: str, batch_size: int) -> None:
        environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
        for flag in variant.split("+")[1:]:
            environment |= SETTINGS[flag]
        command = [sys.executable, __file__, "--worker", network, variant, str(batch_size)]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        ready = self._read()
        self.features = np.array(ready["features"])
        self.first = float(ready["first"])

    def _read(self) -> dict[str, Any]:
        line = cast(IO[str], self.process.stdout).readline()
        if not line:
            raise SystemExit(f"{' '.join(self.process.args)}: ended before it answered")  # type: ignore[arg-type]
        return dict(json.loads(line))

    def turn(self) -> None:
        """One more batch."""
        asking = cast(IO[str], self.process.stdin)
        asking.write("\n")
        asking.flush()
        answer = self._read()
        self.seconds.append(answer["seconds"])
        self.cpu_seconds.append(answer["cpu_seconds"])

    def close(self) -> None:
        """End the process."""
        cast(IO[str], self.process.stdin).close()
        self.process.wait()


def work(network: str, variant: str, batch_size: int) -> None:
    """Build, compile, say the features, then time one batch for each line read."""
    import keras

    policy, *flags = variant.split("+")
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    constructor = getattr(keras.applications, network)
    model = constructor(weights=None, include_top=False, pooling="avg", input_shape=(224, 224, 3))
    model.set_weights([drawn(number, weight) for number, weight in enumerate(model.weights)])
    if "folded" in flags:
        model = folded(model)
    model.compile(jit_compile="jit" in flags)
    scale = 255 if network.startswith("EfficientNet") else 1
    batch = np.random.default_rng(0).uniform(0, scale, (batch_size, 224, 224, 3)).astype(np.float32)
    began = time.perf_counter()
    features = np.asarray(model.predict_on_batch(batch), np.float32)
    first = time.perf_counter() - began
    print(json.dumps({"first": first, "features": features.tolist()}), flush=True)
    for _ in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        model.predict_on_batch(batch)
        answer = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
        print(json.dumps(answer), flush=True)


def drawn(number: int, weight: Any) -> np.ndarray:
    """Values for a Keras weight: kernels keep activations near 1 after a ReLU, a normalisation is not trivial."""
    random, shape = np.random.default_rng(number), tuple(weight.shape)
    if len(shape) > 1:
        inputs = np.prod(shape[:2]) if shape[-1] == 1 else np.prod(shape[:-1])
        return random.normal(0, (2 / inputs) ** 0.5, shape)
    if weight.name in {"gamma", "moving_variance"}:
        return random.uniform(0.7, 1.3, shape)
    if weight.name in {"beta", "moving_mean"}:
        return random.normal(0, 0.1, shape)
    return np.asarray(weight)


def folded(model: Any) -> Any:
    """The same network, in inference, without the batch normalisations that follow a convolution that nothing else uses."""
    import keras

    class Through(keras.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:  # noqa: ARG002
            return inputs

    convolutions = keras.layers.Conv2D, keras.layers.DepthwiseConv2D
    after: dict[str, Any] = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            before = layer.input._keras_history.operation
            if isinstance(before, convolutions) and len(before._outbound_nodes) == 1:
                after[before.name] = layer
    gone = {layer.name for layer in after.values()}

    def clone(layer: Any) -> Any:
        bias = {"use_bias": True} if layer.name in after else {}
        return Through(name=layer.name) if layer.name in gone else type(layer).from_config(layer.get_config() | bias)

    result = keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        if layer.weights and layer.name not in gone:
            values = [np.asarray(value, np.float32) for value in layer.get_weights()]
            if layer.name in after:
                values = _fold(values, after[layer.name], depthwise=isinstance(layer, convolutions[1]))
            result.get_layer(layer.name).set_weights(values)
    return result


def _fold(values: list[np.ndarray], normalisation: Any, *, depthwise: bool) -> list[np.ndarray]:
    """Kernel and bias of a convolution that does its normalisation itself."""
    mean, variance = (np.asarray(value, np.float64) for value in (normalisation.moving_mean, normalisation.moving_variance))
    scale = (np.asarray(normalisation.gamma, np.float64) if normalisation.scale else 1) / np.sqrt(
        variance + normalisation.epsilon
    )
    shift = (np.asarray(normalisation.beta, np.float64) if normalisation.center else 0) - mean * scale
    bias = shift + (values[1] * scale if len(values) > 1 else 0)
    return [values[0] * (scale[:, None] if depthwise else scale), bias]


def compare(network: str, variants: list[str], batch_size: int, turns: int) -> dict[str, Any]:
    """Figures of each variant; the first one is what the others are compared with."""
    workers: list[Worker] = []
    try:
        workers.extend(Worker(network, variant, batch_size) for variant in variants)
        for turn in range(turns + 1):
            for worker in workers:
                worker.turn()
            if turn == 0:
                for worker in workers:
                    worker.seconds.clear()
                    worker.cpu_seconds.clear()
    finally:
        for worker in workers:
            worker.close()
    base = workers[0]
    return {variant: figures(worker, base, batch_size) for variant, worker in zip(variants, workers, strict=True)}


def figures(worker: Worker, base: Worker, batch_size: int) -> dict[str, Any]:
    """Speed and deviation of one variant."""
    ours, theirs = worker.features, base.features
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = float(((ours * theirs).sum(axis=1) / lengths).min())
    finite = bool(np.isfinite(ours).all())
    deviation = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    ratios = [theirs / ours for ours, theirs in zip(worker.seconds, base.seconds, strict=True)]
    return {
        "images_per_second": round(batch_size / median(worker.seconds), 2),
        "times_as_fast": round(median(ratios), 3),
        "cpu_seconds_per_image": round(median(worker.cpu_seconds) / batch_size, 5),
        "first_batch_seconds": round(worker.first, 2),
        "finite": finite,
        "cosine": round(cosine, 7) if finite else None,
        "deviation": round(deviation, 6) if finite else None,
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", default=NETWORKS, help="names in keras.applications")
    parser.add_argument("--variant", nargs="+", default=VARIANTS, help="the first one is the base")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        work(asked.worker[0], asked.worker[1], int(asked.worker[2]))
        return
    for variant in asked.variant:
        if unknown := set(variant.split("+")[1:]) - set(SETTINGS):
            parser.error(f"variant {variant}: expected settings {', '.join(SETTINGS)}, found {', '.join(sorted(unknown))}")
    results = {network: compare(network, list(asked.variant), asked.batch_size, asked.turns) for network in asked.network}
    print(json.dumps({"benchmark": "precision", "batch_size": asked.batch_size, "turns": asked.turns, "networks": results}))


if __name__ == "__main__":
    main()
