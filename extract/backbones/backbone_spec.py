"""What a user asks of a backbone: `mobilenet_v2,alpha=0.35` or `my.keras,preprocessing=tf`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...cache.errors import BackboneError
from ...cache.spec import ExtractionSpec
from .backbone_source import BackboneInfo, BackboneSource
from .precision import PRECISIONS
from .preprocessing import MODES
from .registry import find_source


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone as asked for; what is None is decided by the backbone itself.

    Attributes
    ----------
    source, info : BackboneSource, BackboneInfo
        Where it comes from, and what is known of it there.
    weights : str
        What its own are called (imagenet, synthetic, file), random, or the path of a weights file.
    arguments : mapping
        Further arguments, of the Keras constructor.
    image_size : tuple of int or None
        (height, width) in pixels.
    preprocessing : str or None
        A mode of `preprocessing.apply`.
    seed : int
        Of random weights.
    precision : str
        One of `PRECISIONS`.
    """

    source: BackboneSource
    info: BackboneInfo
    weights: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    image_size: tuple[int, int] | None = None
    preprocessing: str | None = None
    seed: int = 0
    precision: str = "float32"

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        weights: str | None = None,
        image_size: str | int | None = None,
        seed: int = 0,
        precision: str = "float32",
    ) -> BackboneSpec:
        """The request written `NAME[,key=value…]`.

        Parameters
        ----------
        text : str
            A name or the path of a file, and options: `weights`, `image_size`, `preprocessing`, `seed`, `precision`, and any
            argument of the Keras constructor, with JSON values.
        weights, image_size, seed, precision : optional
            What holds where `text` does not say it.

        Raises
        ------
        BackboneError, WeightsError
            Where there is no such backbone, or it cannot have what is asked for.

        Examples
        --------
        >>> BackboneSpec.parse("MobileNetV2, alpha=0.35", image_size=96).title
        'mobilenet_v2,alpha=0.35,image_size=96x96'
        """
        name, *pairs = [part.strip() for part in text.split(",")]
        options: dict[str, str] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals:
                raise BackboneError(f"backbone {text!r}: expected NAME,key=value,…, found {pair!r} without '='")
            options[key.strip()] = value.strip()
        weights = options.pop("weights", weights)
        size = options.pop("image_size", image_size)
        preprocessing = options.pop("preprocessing", None)
        if preprocessing is not None and preprocessing not in MODES:
            raise BackboneError(f"backbone {name}: expected preprocessing to be {_format_modes()}; found {preprocessing!r}")
        seed = _parse_seed(options.pop("seed", seed), name)
        precision = options.pop("precision", precision)
        if precision not in PRECISIONS:
            raise BackboneError(f"backbone {name}: expected precision {', '.join(PRECISIONS)}, found {precision!r}")
        source = find_source(name)
        info = source.describe(name)
        return cls(
            source=source,
            info=info,
            weights=info.pretrained_weights if weights is None or weights == "pretrained" else weights,
            arguments={key: _parse_value(value) for key, value in sorted(options.items())},
            image_size=None if size is None else parse_size(size),
            preprocessing=preprocessing,
            seed=seed,
            precision=precision,
        ).check()

    @classmethod
    def from_spec(cls, spec: ExtractionSpec) -> BackboneSpec:
        """The request that builds the backbone of `spec` again.

        Raises
        ------
        BackboneError
            Where its file is gone, or its source is not registered in this process.
        """
        source = find_source(spec.address)
        weights, _, seed = spec.weights.partition(", seed ")
        return cls(
            source=source,
            info=source.describe(spec.address),
            weights=weights,
            arguments=dict(spec.arguments),
            image_size=spec.image_size,
            preprocessing=spec.preprocessing,
            seed=int(seed or 0),
            precision=spec.precision,
        ).check()

    def check(self) -> BackboneSpec:
        """Itself; raises `BackboneError` or `WeightsError` where its source cannot build what it asks for."""
        self.source.check(self)
        if not (self.preprocessing or self.info.preprocessing):
            address = self.info.address
            raise BackboneError(
                f"backbone {address}: how were its inputs scaled? Nothing in the file says so; "
                f"write {address},preprocessing=MODE with MODE one of {_format_modes()}"
            )
        return self

    @property
    def name(self) -> str:
        """What the backbone is called; a file by its stem."""
        return self.info.name

    @property
    def has_random_weights(self) -> bool:
        """Whether it is to have random weights."""
        return self.weights == "random"

    @property
    def has_pretrained_weights(self) -> bool:
        """Whether it is to have the weights that it comes with."""
        return self.weights == self.info.pretrained_weights

    @property
    def weights_file(self) -> Path | None:
        """The user's file of weights, whether it is there or not; None where others are asked for."""
        return None if self.has_random_weights or self.has_pretrained_weights else Path(self.weights)

    @property
    def input_shape(self) -> tuple[int | None, int | None, int]:
        """(height, width, 3) of its images, as asked for or by default; None where the built network alone says."""
        height, width = self.image_size or self.info.image_size or (None, None)
        return height, width, 3

    @property
    def title(self) -> str:
        """The request as a user would write it."""
        options: dict[str, Any] = dict(self.arguments)
        if self.preprocessing is not None:
            options["preprocessing"] = self.preprocessing
        if self.image_size is not None:
            options["image_size"] = "x".join(map(str, self.image_size))
        if self.precision != "float32":
            options["precision"] = self.precision
        if self.has_random_weights and self.seed:
            options["seed"] = self.seed
        if not self.has_pretrained_weights:
            options["weights"] = self.weights
        pairs = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in options.items()]
        return ",".join([self.info.address, *pairs])

    @property
    def label(self) -> str:
        """What a sweep calls it: as a user would write it, but a file by its name alone."""
        return self.title if self.info.address == self.name else self.name

    def list_files(self) -> list[Path]:
        """The user's files that the backbone is made of."""
        return [path for path in (self.info.file, self.weights_file) if path is not None and path.is_file()]

    def to_descriptive_fields(self) -> dict[str, Any]:
        """The `DESCRIPTIVE_FIELDS` of an `ExtractionSpec`, which only name things, as this request names them."""
        if self.has_random_weights:
            weights = f"random, seed {self.seed}"
        else:
            is_file = self.weights_file is not None and self.weights_file.is_file()
            weights = str(Path(self.weights).absolute()) if is_file else self.weights
        return {
            "backbone": self.name,
            "arguments": dict(self.arguments),
            "weights": weights,
            "file": str(self.info.file.absolute()) if self.info.file else "",
        }

    def __str__(self) -> str:
        return self.title


def parse_size(text: str | int) -> tuple[int, int]:
    """(height, width) of `224` or `224x320`; raises `BackboneError`."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", str(text))
    if not match or not 8 <= int(match[1]) <= 4096 or not 8 <= int(match[2] or match[1]) <= 4096:
        raise BackboneError(f"image size {text!r}: expected pixels from 8 to 4096 as SIDE or HEIGHTxWIDTH")
    return int(match[1]), int(match[2] or match[1])


def _format_modes() -> str:
    return ", ".join(f"{mode} ({meaning})" for mode, meaning in MODES.items())


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def _parse_seed(value: str | int, name: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise BackboneError(f"backbone {name}: expected a whole number as seed, found {value!r}") from error
