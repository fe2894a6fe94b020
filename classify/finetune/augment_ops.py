"""The operations of AutoAugment, RandAugment and AugMix; all but one are Keras layers.

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

GRAY = 115.0  # the mean of ImageNet's mean colour; Keras's layers fill with one number for all channels
MAX_LEVEL = 10.0
_VALUE_RANGE = (0, 255)


class Operations:
    """The operations on float32 tensors (n, height, width, 3) in 0…255, with any Keras backend."""

    NAMES = (
        "identity", "autocontrast", "equalize", "rotate", "solarize", "saturation", "posterize",
        "contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y",
    )  # fmt: skip

    def __init__(self) -> None:
        self._keras = load_keras()
        self._layers: dict[tuple[str, float], Callable[[Any], Any]] = {}

    def __call__(self, images: Any, name: str, level: float) -> Any:
        """Apply one operation to all images. level: -10 to 10; the sign reverses the direction.

        As in `extract.augment`, the greatest rotation is 30 degrees, shear 0.3 (about the corner), shift 0.453 of the
        side, enhancement 1 ± 0.9, and posterizing leaves 4 bits; solarize at 10, as `invert`, inverts everything.
        Brightness is added by Keras, not multiplied: up to 0.45 of the range, the same for a mid-grey. What comes in
        from outside is `GRAY`.
        """
        if name == "identity":
            return images
        if (name, level) not in self._layers:
            self._layers[name, level] = self._build_layer(name, level)
        return self._layers[name, level](images)

    def apply_chains(self, images: Any, plans: Sequence[Sequence[tuple[str, float]]]) -> Any:
        """Apply the operations planned for each image, batching the images whose next operation is the same."""
        ops = self._keras.ops
        for depth in range(max(len(plan) for plan in plans)):
            rows_by_step: dict[tuple[str, float], list[int]] = {}
            for row, plan in enumerate(plans):
                rows_by_step.setdefault(plan[depth] if depth < len(plan) else ("identity", 0.0), []).append(row)
            parts = [self(ops.take(images, np.array(indices), axis=0), *step) for step, indices in rows_by_step.items()]
            inverse_order = np.argsort(np.concatenate(list(rows_by_step.values())), kind="stable")
            images = ops.take(ops.concatenate(parts, axis=0), inverse_order, axis=0)
        return images

    def _build_layer(self, name: str, level: float) -> Callable[[Any], Any]:
        """Return a layer with equal lower and upper factors, so that it is deterministic."""
        layers, share, enhancement = self._keras.layers, level / MAX_LEVEL, 0.9 * level / MAX_LEVEL
        # Without a seed a layer would take one of Python's own generator, and so change what the caller draws next.
        geometry_options: dict[str, Any] = {"fill_mode": "constant", "fill_value": GRAY, "dtype": "float32", "seed": 0}
        range_options: dict[str, Any] = {"value_range": _VALUE_RANGE, "dtype": "float32"}
        color_options: dict[str, Any] = {**range_options, "seed": 0}

        def to_range(factor: float) -> tuple[float, float]:
            return factor, factor

        def build_shift(axis: str) -> Any:
            factors = {"height_factor": 0.0, "width_factor": 0.0, axis: to_range(0.453 * share)}
            return layers.RandomTranslation(**factors, **geometry_options)

        builders: dict[str, Callable[[], Callable[[Any], Any]]] = {
            "autocontrast": lambda: self._round_inputs(layers.AutoContrast(**range_options)),
            "equalize": lambda: self._equalize,
            "invert": lambda: layers.RandomInvert(to_range(1.0), **color_options),
            "rotate": lambda: layers.RandomRotation(to_range(share * 30 / 360), **geometry_options),
            "solarize": lambda: self._fix_transformation(
                layers.Solarization(**color_options), additions=0.0, thresholds=256 - 256 * abs(share)
            ),
            "saturation": lambda: layers.RandomColorDegeneration(to_range(-enhancement), **color_options),
            "posterize": lambda: self._round_inputs(
                layers.RandomPosterization(to_range(8 - round(4 * abs(share))), **color_options)
            ),
            "contrast": lambda: self._fix_transformation(
                layers.RandomContrast(0.0, **color_options), contrast_factor=1 + enhancement
            ),
            "brightness": lambda: layers.RandomBrightness(to_range(enhancement / 2), **color_options),
            "sharpness": lambda: layers.RandomSharpness(to_range((1 + enhancement) / 2), **color_options),
            "shear_x": lambda: self._fix_shear(layers.RandomShear(**geometry_options), 0.3 * share, 0.0),
            "shear_y": lambda: self._fix_shear(layers.RandomShear(**geometry_options), 0.0, 0.3 * share),
            "translate_x": lambda: build_shift("width_factor"),
            "translate_y": lambda: build_shift("height_factor"),
        }
        return builders[name]()

    @staticmethod
    def _fix_transformation(layer: Any, **transformation: float) -> Callable[[Any], Any]:
        """Return a function that calls a layer with an explicit transformation, which its factors cannot express."""
        return lambda images: layer.transform_images(images, transformation)

    def _round_inputs(self, layer: Any) -> Callable[[Any], Any]:
        """Round the inputs of a layer: rounding errors of interpolation on a flat area would become visible steps."""
        return lambda images: layer(self._keras.ops.round(images))

    def _fix_shear(self, layer: Any, x_shear: float, y_shear: float) -> Callable[[Any], Any]:
        """Shear with an explicit sign, which `RandomShear` would draw itself."""

        def apply(images: Any) -> Any:
            factors = self._keras.ops.tile(np.array([[x_shear, y_shear]], np.float32), (images.shape[0], 1))
            return layer.transform_images(images, {"shear_factor": factors})

        return apply

    def _equalize(self, images: Any) -> Any:
        """Equalize as in views; Keras's `Equalization` takes one histogram of the whole batch, and 16 ms per image."""
        ops = self._keras.ops
        pixels = ops.convert_to_numpy(ops.round(images)).astype(np.uint8)
        return ops.convert_to_tensor(np.stack([image_ops.equalize(image) for image in pixels]), dtype="float32")
