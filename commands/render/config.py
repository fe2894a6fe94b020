"""Text output of `humeris config`. Nothing here prints."""

from __future__ import annotations

import json
from typing import Any

from ...cache.formatting import to_printable


def format_settings(output: dict[str, Any]) -> str:
    """Return a line per setting: its option, its value and where the value comes from."""
    settings = output["settings"]
    values = ["" if each["value"] in (None, []) else json.dumps(each["value"], ensure_ascii=False) for each in settings]
    option_width, value_width = (max(map(len, texts)) for texts in ([each["option"] for each in settings], values))
    return "\n".join(
        to_printable(f"{each['option']:{option_width}}  {value:{value_width}}  {each['from']}")
        for each, value in zip(settings, values, strict=True)
    )
