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
from .keras_applications import Application, find_application
from .precision import PRECISIONS
from .preprocessing import MODES

_RESERVED = {"input_tensor", "input_shape", "pooling", "classes", "name", "classifier_activation"}


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone as asked for; what is None is decided by the backbone itself.

    application or file: one of the two; a file is called by its stem. arguments: further arguments of the Keras constructor.
    weights: imagenet, synthetic (nano), file (a .keras file's own), random, or the path of a weights file.
    image_size: (height, width). seed: of random weights. precision: one of `PRECISIONS`.
    """

    name: str
    weights: str
    application: Application | None = None
    file: Path | None = None
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
        """The request written `NAME[,key=value…]`; keywords are what `text` does not say itself.

        Keys are `weights`, `image_size`, `preprocessing`, `seed`, `precision`, and any argument of the Keras constructor,
        with JSON values. Raises `BackboneError`.
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
        arguments = {key: _parse_value(value) for key, value in sorted(options.items())}
        if reserved_names := _RESERVED & set(arguments):
            raise BackboneError(f"backbone {name}: {sorted(reserved_names)[0]} is set by humeris and cannot be given")
        file = Path(name) if name.endswith((".keras", ".h5")) else None
        if file is None:
            application = find_application(name)
            default_weights, name = application.pretrained, application.name
        else:
            application, default_weights, name = None, "file", file.stem
            _check_file(file, preprocessing, arguments)
        return cls(
            name=name,
            weights=weights if weights not in {None, "pretrained"} else default_weights,
            application=application,
            file=file,
            arguments=arguments,
            image_size=None if size is None else parse_size(size),
            preprocessing=preprocessing,
            seed=seed,
            precision=precision,
        )

    @classmethod
    def from_spec(cls, spec: ExtractionSpec) -> BackboneSpec:
        """The request that builds the backbone of `spec` again; raises `BackboneError` when its file is gone."""
        weights, _, seed = spec.weights.partition(", seed ")
        file = Path(spec.file) if spec.file else None
        if file is not None:
            _check_file(file, spec.preprocessing, {})
        return cls(
            name=spec.backbone,
            weights=weights,
            application=None if file else find_application(spec.backbone),
            file=file,
            arguments=dict(spec.arguments),
            image_size=spec.image_size,
            preprocessing=spec.preprocessing,
            seed=int(seed or 0),
            precision=spec.precision,
        )

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
        if self.weights == "random" and self.seed:
            options["seed"] = self.seed
        if self.weights not in {self.application.pretrained if self.application else "file"}:
            options["weights"] = self.weights
        pairs = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in options.items()]
        return ",".join([str(self.file or self.name), *pairs])


def parse_size(text: str | int) -> tuple[int, int]:
    """(height, width) of `224` or `224x320`; raises `BackboneError`."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", str(text))
    if not match or not 8 <= int(match[1]) <= 4096 or not 8 <= int(match[2] or match[1]) <= 4096:
        raise BackboneError(f"image size {text!r}: expected pixels from 8 to 4096 as SIDE or HEIGHTxWIDTH")
    return int(match[1]), int(match[2] or match[1])


def _check_file(file: Path, preprocessing: str | None, arguments: Mapping[str, Any]) -> None:
    if not file.is_file():
        raise BackboneError(f"backbone {file}: expected a .keras file, found no file there; check the path")
    if file.suffix == ".h5":
        raise BackboneError(
            f"backbone {file}: expected the .keras format, found .h5; load it in Keras and save it as .keras"
        )
    if arguments:
        raise BackboneError(
            f"backbone {file}: a file has no constructor arguments, found {', '.join(arguments)}; "
            "it takes preprocessing, image_size and weights"
        )
    if preprocessing is None:
        raise BackboneError(
            f"backbone {file}: how were its inputs scaled? Nothing in the file says so; "
            f"write {file},preprocessing=MODE with MODE one of {_format_modes()}"
        )


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
