"""Record which models were exported with a cache, since models of some formats can run code."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...cache.errors import ModelError
from ...cache.store import Store
from .formats.format import Format

_NAMESPACE = "exported"


def compute_digest(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, or of the names and digests of all files in a folder."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    hasher = hashlib.sha256()
    for member in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        hasher.update(f"{compute_digest(member)} {member.relative_to(path).as_posix()}\n".encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


def remember(store: Store, sha256: str) -> bool:
    """Record the digest of an exported model in the cache; return False if the cache cannot be written."""
    return store.kv_store.put(_NAMESPACE, sha256, b"")


def check(store: Store, path: Path, model_format: Format) -> None:
    """Raise `ModelError` if a model can run code and was not exported with this cache.

    Parameters
    ----------
    store : Store
        The cache.
    path : Path
        The model.
    model_format : Format
        Format of the model.
    """
    if model_format.runs_code and store.kv_store.get(_NAMESPACE, compute_digest(path)) is None:
        raise ModelError(
            f"{path}: the {model_format.name} model can run code and was not exported with the cache {store.path}; "
            "give the cache it was exported with by --cache, or give --trust if you trust its source"
        )
