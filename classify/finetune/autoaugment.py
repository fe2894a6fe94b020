"""RandAugment, the ImageNet policy of AutoAugment, and AugMix: operations drawn for each image."""

from __future__ import annotations

from typing import Any

import numpy as np

from .augment_ops import MAX_LEVEL, Operations

Steps = list[tuple[str, float]]

_UNSIGNED = {"identity", "autocontrast", "equalize", "invert", "solarize", "posterize"}
# (operation, probability in tenths, magnitude 0 to 9), two to a sub-policy: arXiv 1805.09501, table 9.
_IMAGENET = """
posterize 4 8, rotate 6 9;      solarize 6 5, autocontrast 6 0; equalize 8 0, equalize 6 0;  posterize 6 7, posterize 6 6;
equalize 4 0, solarize 2 4;     equalize 4 0, rotate 8 8;       solarize 6 3, equalize 6 0;  posterize 8 5, equalize 10 0;
rotate 2 3, solarize 6 8;       equalize 6 0, posterize 4 6;    rotate 8 8, saturation 4 0;  rotate 4 9, equalize 6 0;
equalize 0 0, equalize 8 0;     invert 6 0, equalize 10 0;      saturation 6 4, contrast 10 8; rotate 8 8, saturation 10 2;
saturation 8 8, solarize 8 7;   sharpness 4 7, invert 6 0;      shear_x 6 5, equalize 10 0;  saturation 4 0, equalize 6 0;
equalize 4 0, solarize 2 4;     solarize 6 5, autocontrast 6 0; invert 6 0, equalize 10 0;   saturation 6 4, contrast 10 8;
equalize 8 0, equalize 6 0
"""
POLICY = [
    [(name, int(tenths), int(magnitude)) for name, tenths, magnitude in (step.split() for step in pair.split(","))]
    for pair in _IMAGENET.split(";")
]
_AUGMIX_NAMES = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)


def draw_randaugment(random: np.random.Generator, count: int, level: float) -> Steps:
    """Draw `count` of fourteen operations, each at `level` (0 to 10) with a random sign (arXiv 1909.13719)."""
    return [_draw_sign(random, str(random.choice(Operations.NAMES)), level) for _ in range(count)]


def draw_autoaugment(random: np.random.Generator) -> Steps:
    """Draw one of the 25 sub-policies for ImageNet: two operations, each with a probability (arXiv 1805.09501)."""
    sub_policy = POLICY[random.integers(len(POLICY))]
    return [
        _draw_sign(random, name, MAX_LEVEL * magnitude / 9)
        for name, tenths, magnitude in sub_policy
        if random.random() < tenths / 10
    ]


def apply_augmix(random: np.random.Generator, operations: Operations, images: Any, severity: float) -> Any:
    """Mix each image with a mixture of three chains of one to three operations (arXiv 1912.02781, without its loss).

    Magnitudes are one, two or three thirds of `severity` (of 10), where the paper's are continuous: images that have the
    same operation go together.
    """
    from ...extract.backbones.keras_runtime import load_keras

    ops, count, n_chains = load_keras().ops, images.shape[0], 3
    plans = [
        [
            _draw_sign(random, str(random.choice(_AUGMIX_NAMES)), severity * int(random.integers(1, 4)) / 3)
            for _ in range(random.integers(1, 4))
        ]
        for _ in range(count * n_chains)
    ]
    chains = operations.apply_chains(ops.repeat(images, n_chains, axis=0), plans)
    image_share = random.beta(1.0, 1.0, (count, 1)).astype(np.float32)
    shares = (1 - image_share) * random.dirichlet((1.0,) * n_chains, count).astype(np.float32)
    mixed = ops.sum(ops.reshape(chains, (count, n_chains, *images.shape[1:])) * shares[:, :, None, None, None], axis=1)
    return image_share[:, :, None, None] * images + mixed


def _draw_sign(random: np.random.Generator, name: str, level: float) -> tuple[str, float]:
    return name, level if name in _UNSIGNED or random.random() < 0.5 else -level
