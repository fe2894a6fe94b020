"""Every source of networks, in the order in which it is asked whether a name is its own."""

from __future__ import annotations

import difflib

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
    """Add a source from outside of this package, for this process.

    Call it where the source's module is imported: a process that gets one of its backbones from another imports that module
    first. To register a source again changes nothing.

    Parameters
    ----------
    source : BackboneSource
        An instance of a class that can be imported by its name.

    Raises
    ------
    ValueError
        Where another source has its name, or the name of one of its backbones.
    """
    if source in list_sources():
        return
    if any(source.name == other.name for other in list_sources()):
        raise ValueError(f"backbone source {source.name!r}: another one has this name; give it its own")
    for info in source.list_backbones():
        if any(other.matches(info.name) for other in list_sources()):
            raise ValueError(f"backbone source {source.name!r}: {info.name!r} comes from another one; give it its own name")
    _registered_sources.append(source)


def list_sources() -> tuple[BackboneSource, ...]:
    """All sources, the registered ones last."""
    return (*SOURCES, *_registered_sources)


def list_backbones() -> list[BackboneInfo]:
    """The backbones of all sources that come by name; imports no deep learning framework."""
    return [info for source in list_sources() for info in source.list_backbones()]


def find_source(text: str) -> BackboneSource:
    """The source of the backbone called so.

    Parameters
    ----------
    text : str
        A name in any common spelling (`ResNet50`, `resnet_50`), or the path of a file.

    Raises
    ------
    BackboneError
        Where no source has such a backbone; it lists the closest names.
    """
    source = next((source for source in list_sources() if source.matches(text)), None)
    if source is not None:
        return source
    by_name = index_by_name(list_backbones())
    close_names = difflib.get_close_matches(normalize_name(text), by_name, n=4, cutoff=0.5)
    names = ", ".join(dict.fromkeys(by_name[name].name for name in close_names)) or "(none is close)"
    raise BackboneError(
        f"backbone {text!r}: expected a name in `humeris backbones` or a .keras file, found neither; closest: {names}"
    )


def describe_license(spec: ExtractionSpec) -> str:
    """A sentence, without its full stop, on the licence of the weights that features were made with."""
    return "random numbers" if spec.has_random_weights else find_source(spec.address).get_license(spec)


def allows_random_weights(spec: ExtractionSpec) -> bool:
    """Whether the network of a spec can be built with random weights, as far as is known of where it comes from."""
    try:
        return find_source(spec.address).allows_random_weights
    except BackboneError:  # features of a source that is not registered here
        return True
