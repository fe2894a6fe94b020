"""Names of backbones and layers, compared in any common spelling."""

from __future__ import annotations

import re


def normalize_name(name: str) -> str:
    """A name as it is compared: lower case, without separators.

    Examples
    --------
    >>> normalize_name("Mixed_5") == normalize_name("mixed5")
    True
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())
