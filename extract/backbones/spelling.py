"""Normalize the spelling of the names of backbones and layers."""

from __future__ import annotations

import re


def normalize_name(name: str) -> str:
    """Return a name in lower case without separators, for comparison.

    Examples
    --------
    >>> normalize_name("Mixed_5") == normalize_name("mixed5")
    True
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())
