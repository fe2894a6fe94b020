"""A requested backbone with its options: `mobilenet_v2,alpha=0.35` or `my.keras,preprocessing=tf`."""

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
    """A requested backbone; for an option that is None, the default of the backbone is used.

    Attributes
    ----------
    source : BackboneSource
        The source of the backbone.
    info : BackboneInfo
        Its description.
    weights : str
        The name of the pretrained weights (``imagenet``, ``synthetic``, ``file``), ``random``, or the path of a weights
        file.
    arguments : mapping
        Arguments of the Keras constructor.
    image_size : tuple of int or None
        (height, width) in pixels.
    preprocessing : str or None
        A mode of `preprocessing.apply`.
    seed : int
        Seed of random weights.
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
        """Parse a backbone written as `NAME[,key=value…]`.

        Parameters
        ----------
        text : str
            A name or the path of a file, and options: `weights`, `image_size`, `preprocessing`, `seed`, `precision`, and any
            argument of the Keras constructor, with JSON values.
        weights, image_size, seed, precision : optional
            Defaults of the options that are not in `text`.

        Returns
        -------
        BackboneSpec
            The checked request.

        Raises
        ------
        BackboneError, WeightsError
            If there is no such backbone, or an option is invalid.

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
                raise BackboneError(f"backbone {text!r}: option {pair!r} has no '='; write NAME,key=value,…")
            options[key.strip()] = value.strip()
        weights = options.pop("weights", weights)
        size = options.pop("image_size", image_size)
        preprocessing = options.pop("preprocessing", None)
        if preprocessing is not None and preprocessing not in MODES:
            raise BackboneError(f"backbone {name}: unknown preprocessing {preprocessing!r}; choose one of {_format_modes()}")
        seed = _parse_seed(options.pop("seed", seed), name)
        precision = options.pop("precision", precision)
        if precision not in PRECISIONS:
            raise BackboneError(f"backbone {name}: unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
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
        """Return the request that builds the backbone of an extraction again.

        Parameters
        ----------
        spec : ExtractionSpec
            The spec of the extraction.

        Raises
        ------
        BackboneError
            If the file of the backbone is missing, or its source is not registered in this process.
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
        """Return the spec itself; raises `BackboneError` or `WeightsError` if its source cannot build it."""
        self.source.check(self)
        if not (self.preprocessing or self.info.preprocessing):
            address = self.info.address
            raise BackboneError(
                f"backbone {address}: unknown preprocessing: the file does not say how its inputs were scaled; "
                f"write {address},preprocessing=MODE with MODE one of {_format_modes()}"
            )
        return self

    @property
    def name(self) -> str:
        """The name of the backbone; the stem of a file."""
        return self.info.name

    @property
    def has_random_weights(self) -> bool:
        """Whether random weights are requested."""
        return self.weights == "random"

    @property
    def has_pretrained_weights(self) -> bool:
        """Whether the pretrained weights are requested."""
        return self.weights == self.info.pretrained_weights

    @property
    def weights_file(self) -> Path | None:
        """The requested weights file, whether or not it exists; None for pretrained or random weights."""
        return None if self.has_random_weights or self.has_pretrained_weights else Path(self.weights)

    @property
    def input_shape(self) -> tuple[int | None, int | None, int]:
        """(height, width, 3) of the images, as requested or by default; None for a side that only the network tells."""
        height, width = self.image_size or self.info.image_size or (None, None)
        return height, width, 3

    @property
    def title(self) -> str:
        """The request as a user can write it."""
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
        """The name in a sweep: the title, or for a file its stem."""
        return self.title if self.info.address == self.name else self.name

    def list_files(self) -> list[Path]:
        """Return the user's existing files that the backbone is built from."""
        return [path for path in (self.info.file, self.weights_file) if path is not None and path.is_file()]

    def to_descriptive_fields(self) -> dict[str, Any]:
        """Return the `DESCRIPTIVE_FIELDS` of an `ExtractionSpec`: names and paths, which are not part of its digest."""
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
    """Return (height, width) of `224` or `224x320`; raises `BackboneError`."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", str(text))
    if not match or not 8 <= int(match[1]) <= 4096 or not 8 <= int(match[2] or match[1]) <= 4096:
        raise BackboneError(f"invalid image size {text!r}; give SIDE or HEIGHTxWIDTH, from 8 to 4096 pixels each")
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
        raise BackboneError(f"backbone {name}: invalid seed {value!r}; give a whole number") from error
