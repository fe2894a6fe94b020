"""What AutoAugment, RandAugment and AugMix choose from: each operation but one is a layer of Keras's own.

Keras's `RandAugment` and `AugMix` layers choose once for a whole batch, `RandAugment` computes all eleven operations to
keep one or two, and its one `factor` means other strengths than the paper's: at 0.9 a turn of up to 324 degrees. Here
each image has its own choice, only what is chosen is computed, and magnitudes are those of `extract.augment`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...extract.backbones.keras_runtime import load_keras
from ...extract.pixels import image_ops

GREY = 115.0  # the mean of ImageNet's mean colour; Keras's layers fill with one number for all channels
TOP = 10.0
_RANGE = (0, 255)


class Operations:
    """The operations on float32 tensors (n, height, width, 3) in 0…255, on whichever back end Keras has."""

    NAMES = (
        "identity", "autocontrast", "equalize", "rotate", "solarize", "saturation", "posterize",
        "contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y",
    )  # fmt: skip

    def __init__(self) -> None:
        self._keras = load_keras()
        self._made: dict[tuple[str, float], Callable[[Any], Any]] = {}

    def __call__(self, images: Any, name: str, level: float) -> Any:
        """The images, each changed in the same way. level: -10 to 10; its sign turns, shifts or weakens the other way.

        As in `extract.augment`, the greatest rotation is 30 degrees, shear 0.3 (about the corner), shift 0.453 of the
        side, enhancement 1 ± 0.9, and posterizing leaves 4 bits; solarize at 10, as `invert`, inverts everything.
        Brightness is added by Keras, not multiplied: up to 0.45 of the range, the same for a mid-grey. What comes in
        from outside is `GREY`.
        """
        if name == "identity":
            return images
        if (name, level) not in self._made:
            self._made[name, level] = self._make(name, level)
        return self._made[name, level](images)

    def chains(self, images: Any, plans: Sequence[Sequence[tuple[str, float]]]) -> Any:
        """The images after the operations planned for each of them. Those that have the same one next go together."""
        ops = self._keras.ops
        for depth in range(max(len(plan) for plan in plans)):
            rows: dict[tuple[str, float], list[int]] = {}
            for row, plan in enumerate(plans):
                rows.setdefault(plan[depth] if depth < len(plan) else ("identity", 0.0), []).append(row)
            parts = [self(ops.take(images, np.array(chosen), axis=0), *step) for step, chosen in rows.items()]
            back = np.argsort(np.concatenate(list(rows.values())), kind="stable")
            images = ops.take(ops.concatenate(parts, axis=0), back, axis=0)
        return images

    def _make(self, name: str, level: float) -> Callable[[Any], Any]:
        """A layer whose least and greatest factors are the same, so that it has nothing left to draw."""
        layers, share, enhancement = self._keras.layers, level / TOP, 0.9 * level / TOP
        # Without a seed a layer would take one of Python's own generator, and so change what the caller draws next.
        geometry: dict[str, Any] = {"fill_mode": "constant", "fill_value": GREY, "dtype": "float32", "seed": 0}
        even: dict[str, Any] = {"value_range": _RANGE, "dtype": "float32"}
        colour: dict[str, Any] = {**even, "seed": 0}

        def same(factor: float) -> tuple[float, float]:
            return factor, factor

        def shift(axis: str) -> Any:
            factors = {"height_factor": 0.0, "width_factor": 0.0, axis: same(0.453 * share)}
            return layers.RandomTranslation(**factors, **geometry)

        makers: dict[str, Callable[[], Callable[[Any], Any]]] = {
            "autocontrast": lambda: self._rounded(layers.AutoContrast(**even)),
            "equalize": lambda: self._equalized,
            "invert": lambda: layers.RandomInvert(same(1.0), **colour),
            "rotate": lambda: layers.RandomRotation(same(share * 30 / 360), **geometry),
            "solarize": lambda: self._told(layers.Solarization(**colour), additions=0.0, thresholds=256 - 256 * abs(share)),
            "saturation": lambda: layers.RandomColorDegeneration(same(-enhancement), **colour),
            "posterize": lambda: self._rounded(layers.RandomPosterization(same(8 - round(4 * abs(share))), **colour)),
            "contrast": lambda: self._told(layers.RandomContrast(0.0, **colour), contrast_factor=1 + enhancement),
            "brightness": lambda: layers.RandomBrightness(same(enhancement / 2), **colour),
            "sharpness": lambda: layers.RandomSharpness(same((1 + enhancement) / 2), **colour),
            "shear_x": lambda: self._sheared(layers.RandomShear(**geometry), 0.3 * share, 0.0),
            "shear_y": lambda: self._sheared(layers.RandomShear(**geometry), 0.0, 0.3 * share),
            "translate_x": lambda: shift("width_factor"),
            "translate_y": lambda: shift("height_factor"),
        }
        return makers[name]()

    @staticmethod
    def _told(layer: Any, **transformation: float) -> Callable[[Any], Any]:
        """A layer that is told its transformation, for what its factors cannot say."""
        return lambda images: layer.transform_images(images, transformation)

    def _rounded(self, layer: Any) -> Callable[[Any], Any]:
        """Of whole numbers: what interpolation adds to an even surface would else become a step, or the whole range."""
        return lambda images: layer(self._keras.ops.round(images))

    def _sheared(self, layer: Any, right: float, down: float) -> Callable[[Any], Any]:
        """`RandomShear` draws the sign of its shear itself, so it is told."""

        def apply(images: Any) -> Any:
            factors = self._keras.ops.tile(np.array([[right, down]], np.float32), (images.shape[0], 1))
            return layer.transform_images(images, {"shear_factor": factors})

        return apply

    def _equalized(self, images: Any) -> Any:
        """As views are. Keras's `Equalization` takes one histogram of all images of a batch, and 16 ms for each image."""
        ops = self._keras.ops
        whole = ops.convert_to_numpy(ops.round(images)).astype(np.uint8)
        return ops.convert_to_tensor(np.stack([image_ops.equalize(each) for each in whole]), dtype="float32")
