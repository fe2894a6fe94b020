"""The interface of backbone sources: libraries, registries and files that networks come from.

To add one (presets of another library, a registry of your own):

1. Write a file with a subclass of `BackboneSource`. If each backbone has a unique name and takes no arguments, implement
   `name`, `list_backbones`, `build` and `get_license`. If backbones are addressed by a path or a prefix, also override
   `matches` and `describe`; if they take arguments, `check`.
2. Add an instance to `SOURCES` in `registry.py`. Outside this package, call `register_backbone_source` in your module
   instead.
3. Run `tests/extract/backbones/test_backbone_source.py`, which tests every source.

Only `build` may import a deep learning framework: listing, parsing and completed runs must stay fast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...cache.errors import BackboneError
from ...cache.spec import ExtractionSpec
from .spelling import normalize_name

if TYPE_CHECKING:
    from .backbone_spec import BackboneSpec


@dataclass(frozen=True)
class BackboneInfo:
    """The description of a backbone, available before it is built.

    Attributes
    ----------
    name : str
        The name in commands, tables and runs.
    constructor : str
        The name in the library it comes from; users can write either name.
    size : int or None
        Default side of the images, in pixels; None if only the built network tells.
    preprocessing : str
        Mode of `preprocessing.apply`; "" if it is unknown, so that the user must give it.
    min_size : int
        Smallest side of the images, in pixels.
    pretrained_weights : str
        The name of the pretrained weights, such as ``imagenet``.
    file : pathlib.Path or None
        The user's file of the network; None for a backbone that is addressed by name.
    """

    name: str
    constructor: str
    size: int | None
    preprocessing: str
    min_size: int = 32
    pretrained_weights: str = "imagenet"
    file: Path | None = None

    @property
    def address(self) -> str:
        """The text that identifies it to its source: its name, or the path of its file."""
        return str(self.file or self.name)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Default (height, width) in pixels; None if only the built network tells."""
        return None if self.size is None else (self.size, self.size)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of a named backbone as JSON values."""
        return {name: value for name, value in vars(self).items() if name != "file"}


class BackboneSource(ABC):
    """A source of networks. It has no state: two instances of one class are equal, also in different processes.

    Attributes
    ----------
    name : str
        The unique name of the source, such as `keras.applications`.
    allows_random_weights : bool
        Whether its networks can be built with random weights.
    """

    name: ClassVar[str]
    allows_random_weights: ClassVar[bool] = True

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    @abstractmethod
    def list_backbones(self) -> Sequence[BackboneInfo]:
        """Return the backbones that are addressed by name, which `humeris backbones` lists."""

    @abstractmethod
    def build(self, spec: BackboneSpec) -> Any:
        """Build the network; may import Keras.

        Parameters
        ----------
        spec : BackboneSpec
            The requested backbone; `spec.input_shape` has the size of the images if it is known.

        Returns
        -------
        keras.Model
            The network without its classifier, with one input (batch, height, width, 3) scaled as `spec.preprocessing`
            says. It has its pretrained weights if `spec.has_pretrained_weights`, else those of its initializers, which
            are seeded; the caller then loads the user's weights file, if there is one.

        Raises
        ------
        BackboneError, WeightsError
            If the network cannot be built as requested, or its weights are missing. Users see any other exception as a
            traceback.
        """

    @abstractmethod
    def get_license(self, spec: ExtractionSpec) -> str:
        """Return a sentence, without a full stop, on the license of the pretrained weights of a network of this source."""

    def matches(self, text: str) -> bool:
        """Return whether this source has a backbone of that name."""
        return normalize_name(text) in index_by_name(self.list_backbones())

    def describe(self, text: str) -> BackboneInfo:
        """Return the description of a backbone by its name in any common spelling; raises `BackboneError`."""
        info = index_by_name(self.list_backbones()).get(normalize_name(text))
        if info is None:
            raise BackboneError(f"backbone {text!r}: no such backbone in {self.name}; `humeris backbones` lists all names")
        return info

    def check(self, spec: BackboneSpec) -> None:
        """Raise `BackboneError` or `WeightsError` if this source cannot build `spec`; imports no framework."""
        if spec.arguments:
            raise BackboneError(f"backbone {spec.name}: takes no arguments, got {', '.join(spec.arguments)}; leave them out")

    def compute_architecture(self, spec: BackboneSpec) -> str:
        """Return a text that identifies the structure of the network; it is part of the key of its features."""
        arguments = ", ".join(f"{key}={value!r}" for key, value in sorted(spec.arguments.items()))
        return f"{self.name}.{spec.info.constructor}({arguments})"

    def list_key_parts(self, spec: BackboneSpec) -> list[Any]:
        """Return JSON values that identify the network that `build` returns, besides the options and files of `spec`.

        They are part of the key under which the metadata of the network is cached, together with the options, the files and
        the versions of the packages.
        """
        return [self.name, spec.name]

    def is_same(self, spec: BackboneSpec, extraction: ExtractionSpec) -> bool:
        """Return whether `spec`, of this source, may name the network of `extraction`."""
        return self.matches(extraction.address) and spec.name == extraction.backbone


def index_by_name(infos: Iterable[BackboneInfo]) -> dict[str, BackboneInfo]:
    """Return the backbones by the normalized spellings of their names and constructors."""
    infos = list(infos)
    by_name = {normalize_name(info.name): info for info in infos}
    return by_name | {normalize_name(info.constructor): info for info in infos if info.constructor}
