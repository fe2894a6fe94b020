"""The door through which networks come: a class for each place that has some.

To add one (presets of another library, a registry of your own):

1. Write a file with a subclass of `BackboneSource`. Where each backbone has a name of its own and takes no arguments,
   `name`, `list_backbones`, `build` and `get_license` are all of it; where they are found in another way, by a path or a
   prefix, override `matches` and `describe`; where they take arguments, `check`.
2. Add an instance to `SOURCES` in `registry.py`. From outside of this package, call `register_backbone_source` where your
   module is imported instead.
3. Run `tests/extract/backbones/test_backbone_source.py`, which tries every source there is.

Nothing but `build` may import a deep learning framework: listing, parsing and completed runs must stay fast.
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
    """What is known of a backbone before it is built.

    Attributes
    ----------
    name : str
        What it is called, in commands, tables and runs.
    constructor : str
        What it is called where it comes from: its second spelling.
    size : int or None
        Default side of its images, in pixels; None where the built network alone says.
    preprocessing : str
        Mode of `preprocessing.apply`; "" where nothing says, so that the user must.
    min_size : int
        Least side of its images, in pixels.
    pretrained_weights : str
        What its own weights are called.
    file : pathlib.Path or None
        The user's file that it lies in; None where it comes by name.
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
        """What its source finds it by: its name, or the path of its file."""
        return str(self.file or self.name)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Default (height, width) in pixels; None where the built network alone says."""
        return None if self.size is None else (self.size, self.size)

    def to_dict(self) -> dict[str, Any]:
        """The fields of a backbone that comes by name, as JSON values."""
        return {name: value for name, value in vars(self).items() if name != "file"}


class BackboneSource(ABC):
    """A place that networks come from. It has no state: two sources of one class are equal, in every process.

    Attributes
    ----------
    name : str
        What the source is called: `keras.applications`. No two sources share one.
    allows_random_weights : bool
        Whether its networks can be built without their own weights.
    """

    name: ClassVar[str]
    allows_random_weights: ClassVar[bool] = True

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    @abstractmethod
    def list_backbones(self) -> Sequence[BackboneInfo]:
        """The backbones that come by name, as `humeris backbones` lists them."""

    @abstractmethod
    def build(self, spec: BackboneSpec) -> Any:
        """The network that is asked for, which may import Keras.

        Parameters
        ----------
        spec : BackboneSpec
            What is asked for; `spec.input_shape` has the size of the images, where one is given or the backbone has one.

        Returns
        -------
        keras.Model
            With one input (batch, height, width, 3), scaled as `spec.preprocessing` says and cut below its classifier. With
            its own weights if `spec.has_pretrained_weights`, else with those that its initialisers draw: they are seeded,
            and the user's weights file is loaded afterwards.

        Raises
        ------
        BackboneError, WeightsError
            Where it cannot be built as asked, or its weights are not there. Anything else would be a traceback.
        """

    @abstractmethod
    def get_license(self, spec: ExtractionSpec) -> str:
        """A sentence, without its full stop, on the licence of the weights (not random ones) of a network from here."""

    def matches(self, text: str) -> bool:
        """Whether a backbone called so comes from here."""
        return normalize_name(text) in index_by_name(self.list_backbones())

    def describe(self, text: str) -> BackboneInfo:
        """What is known of the backbone called so, in any common spelling; raises `BackboneError` where it has none."""
        info = index_by_name(self.list_backbones()).get(normalize_name(text))
        if info is None:
            raise BackboneError(f"backbone {text!r}: expected one of {self.name}, found another")
        return info

    def check(self, spec: BackboneSpec) -> None:
        """Raise `BackboneError` or `WeightsError` where what is asked for makes no sense here; imports nothing heavy."""
        if spec.arguments:
            raise BackboneError(f"backbone {spec.name}: it has no arguments, found {', '.join(spec.arguments)}")

    def compute_architecture(self, spec: BackboneSpec) -> str:
        """The network's structure as text: part of the key of its features, so that another structure is another text."""
        arguments = ", ".join(f"{key}={value!r}" for key, value in sorted(spec.arguments.items()))
        return f"{self.name}.{spec.info.constructor}({arguments})"

    def list_key_parts(self, spec: BackboneSpec) -> list[Any]:
        """What decides the network that `build` gives, beside the options and files of `spec`: JSON values.

        While they, the options, the files and the versions of the packages stay as they are, `build` is not asked again.
        """
        return [self.name, spec.name]

    def is_same(self, spec: BackboneSpec, extraction: ExtractionSpec) -> bool:
        """Whether `spec`, of this source, may name the network that features were made with."""
        return self.matches(extraction.address) and spec.name == extraction.backbone


def index_by_name(infos: Iterable[BackboneInfo]) -> dict[str, BackboneInfo]:
    """Backbones by their normalised names, and by what they are called where they come from."""
    infos = list(infos)
    by_name = {normalize_name(info.name): info for info in infos}
    return by_name | {normalize_name(info.constructor): info for info in infos if info.constructor}
