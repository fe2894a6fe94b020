"""Registry of backbone sources, in the order in which they are tried."""

from __future__ import annotations

import difflib
from pathlib import Path

from ...cache.errors import BackboneError
from ...cache.spec import ExtractionSpec
from .backbone_source import BackboneInfo, BackboneSource, index_by_name
from .keras_applications import KerasApplications
from .keras_file import KerasFile
from .nano import Nano
from .spelling import normalize_name

SOURCES: tuple[BackboneSource, ...] = (Nano(), KerasApplications(), KerasFile())
_registered_sources: list[BackboneSource] = []


def register_backbone_source(source: BackboneSource) -> None:
    """Register a backbone source of another package, for this process.

    Call it in the module of the source's class, so that worker processes, which import the module to unpickle the source,
    register it too. Registering a source again has no effect.

    Parameters
    ----------
    source : BackboneSource
        An instance of a class that can be imported.

    Raises
    ------
    ValueError
        If another source has the same name, or a backbone of the same name.

    Examples
    --------
    >>> import humeris
    >>> class Toys(humeris.BackboneSource):
    ...     name = "toys"
    ...
    ...     def list_backbones(self):
    ...         return [humeris.BackboneInfo("toy", "toy", 32, "unit", pretrained_weights="none")]
    ...
    ...     def build(self, spec):
    ...         import keras
    ...
    ...         image = keras.Input(spec.input_shape)
    ...         return keras.Model(image, keras.layers.Conv2D(8, 3, name="edges")(image))
    ...
    ...     def get_license(self, spec):
    ...         return "CC0"
    >>> humeris.register_backbone_source(Toys())
    >>> humeris.ExtractConfig("toy,image_size=48").backbone_specs[0].title
    'toy,image_size=48x48'
    """
    if source in list_sources():
        return
    if any(source.name == other.name for other in list_sources()):
        raise ValueError(f"backbone source {source.name!r}: another source has this name; rename it")
    for info in source.list_backbones():
        if any(other.matches(info.name) for other in list_sources()):
            raise ValueError(f"backbone source {source.name!r}: another source has a backbone {info.name!r}; rename it")
    _registered_sources.append(source)


def list_sources() -> tuple[BackboneSource, ...]:
    """Return all sources; those of other packages come last."""
    return (*SOURCES, *_registered_sources)


def list_backbones() -> list[BackboneInfo]:
    """Return the named backbones of all sources; imports no deep learning framework."""
    return [info for source in list_sources() for info in source.list_backbones()]


def find_source(text: str) -> BackboneSource:
    """Return the source of a backbone.

    Parameters
    ----------
    text : str
        A name in any common spelling (`ResNet50`, `resnet_50`), or the path of a file.

    Raises
    ------
    BackboneError
        If no source has such a backbone; the message lists the closest names.
    """
    source = next((source for source in list_sources() if source.matches(text)), None)
    if source is not None:
        return source
    by_name = index_by_name(list_backbones())
    close_names = difflib.get_close_matches(normalize_name(text), by_name, n=4, cutoff=0.5)
    names = ", ".join(dict.fromkeys(by_name[name].name for name in close_names)) or "none"
    raise BackboneError(
        f"backbone {text!r}: unknown name (closest: {names}); `humeris backbones` lists all names, or give a .keras file"
    )


def describe_license(spec: ExtractionSpec) -> str:
    """Return a sentence, without a full stop, on the license of the weights of an extraction."""
    if spec.has_random_weights:
        return "random numbers"
    if Path(spec.weights).is_absolute():  # the user's weights file
        return f"unknown to humeris: the weights are from the file {Path(spec.weights).name}; ask whoever trained them"
    return find_source(spec.address).get_license(spec)


def allows_random_weights(spec: ExtractionSpec) -> bool:
    """Return whether the network of an extraction can be built with random weights; True if its source is unknown."""
    try:
        return find_source(spec.address).allows_random_weights
    except BackboneError:  # features of a source that is not registered here
        return True
