"""Registry of formats, and the format of a path."""

from __future__ import annotations

from pathlib import Path

from ....cache.errors import ModelError
from .format import Format
from .keras_format import KerasFormat
from .litert_format import LiteRtFormat
from .onnx_format import OnnxFormat
from .saved_model import SavedModelFormat
from .weight_precision import PRECISIONS

FORMATS: dict[str, Format] = {
    model_format.name: model_format for model_format in (KerasFormat(), SavedModelFormat(), OnnxFormat(), LiteRtFormat())
}
DEFAULT_FORMAT = FORMATS[KerasFormat.name]


def register_format(model_format: Format) -> None:
    """Add a format, which `export` and `Predictor` then know by its name and its suffix.

    Parameters
    ----------
    model_format : Format
        Its name and, unless models are folders, its suffix must be new. A second folder format is told from the first by
        the metadata inside.

    Raises
    ------
    ValueError
        Where the name or the suffix is taken, or a precision is unknown.

    Examples
    --------
    >>> import humeris
    >>> from humeris.classify.export.formats.litert_format import LiteRtFormat
    >>> class Micro(LiteRtFormat):
    ...     name, suffix = "micro", ".micro"
    >>> humeris.register_format(Micro())
    >>> detect_format(Path("flowers.micro"))
    Traceback (most recent call last):
    humeris.cache.errors.ModelError: flowers.micro: ...
    """
    if model_format.name in FORMATS:
        raise ValueError(f"format {model_format.name!r}: the name is already registered; use another one")
    same_suffix = _find_by_suffix(Path(f"model{model_format.suffix}"))
    if same_suffix is not None:
        raise ValueError(
            f"format {model_format.name!r}: suffix {model_format.suffix} belongs to {same_suffix.name}; use another one"
        )
    unknown_precisions = set(model_format.precisions) - set(PRECISIONS)
    if unknown_precisions or not model_format.precisions:
        raise ValueError(
            f"format {model_format.name!r}: invalid precisions {model_format.precisions}; use some of "
            f"{', '.join(PRECISIONS)}"
        )
    FORMATS[model_format.name] = model_format


def describe_formats() -> str:
    """Return the names of the formats and of their files, for messages."""
    return ", ".join(
        f"{model_format.name} ({'a folder' if model_format.is_folder else f'NAME{model_format.suffix}'})"
        for model_format in FORMATS.values()
    )


def choose_format(path: Path, name: str | None) -> Format:
    """The format to write a model in.

    Parameters
    ----------
    path : Path
        Where the model is to be written.
    name : str or None
        The format's name; by default the suffix of `path` says it.

    Raises
    ------
    ModelError
        Where there is no such format, or the two contradict each other.
    """
    suffix_format = _find_by_suffix(path)
    if name is None:
        if suffix_format is None:
            raise ModelError(f"{path}: no format has this suffix; use the suffix of one, or give -f: {describe_formats()}")
        return suffix_format
    if name not in FORMATS:
        raise ModelError(f"format {name!r}: unknown; use one of {describe_formats()}")
    named_format = FORMATS[name]
    if suffix_format is not (None if named_format.is_folder else named_format):
        suffix = f"ends in {named_format.suffix}" if named_format.suffix else "has no suffix of another format"
        raise ModelError(f"{path}: does not go with -f {name}; give a name that {suffix}")
    return named_format


def detect_format(path: Path) -> Format:
    """The format of an exported model.

    Parameters
    ----------
    path : Path
        A file or folder, of which the suffix is looked at; in folders also the metadata, where several formats are folders.

    Raises
    ------
    ModelError
        Where nothing is there, or nothing of a registered format.
    """
    if not path.exists():
        raise ModelError(f"{path}: no such file or folder; give a model that `humeris export` wrote")
    folder_formats = [model_format for model_format in FORMATS.values() if model_format.is_folder]
    if path.is_dir() and folder_formats:
        *others, first = reversed(folder_formats)
        return next((model_format for model_format in others if model_format.read_metadata(path) is not None), first)
    suffix_format = _find_by_suffix(path)
    if suffix_format is None:
        raise ModelError(f"{path}: not an exported model; give one that `humeris export` wrote: {describe_formats()}")
    return suffix_format


def _find_by_suffix(path: Path) -> Format | None:
    suffix = path.suffix.lower()
    return next((model_format for model_format in FORMATS.values() if suffix and model_format.suffix == suffix), None)
