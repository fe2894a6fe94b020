"""What `humeris cache …` says. Nothing here prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...cache.formatting import columns, paragraphs, safe, size


def damaged(found: Mapping[str, Any]) -> str:
    """A line per damaged file, or nothing."""
    lines = [f"damaged: {safe(each['path'])}: {safe(each['reason'])}" for each in found.get("damaged", [])]
    if lines:
        lines.append("damaged files are not used; their rows will be computed again by the next `humeris extract`")
    return "\n".join(lines)


def inventory(found: Mapping[str, Any]) -> str:
    """`humeris cache list`."""
    if not found["extractions"]:
        return paragraphs(f"{safe(found['cache'])}: nothing is cached yet; `humeris extract DATA` fills it", damaged(found))
    rows = [
        [
            each["extraction"],
            each["backbone"],
            "x".join(map(str, each["image_size"])),
            each["views"],
            len(each["taps"]),
            max((tap["images"] for tap in each["taps"]), default=0),
            size(each["bytes"]),
        ]
        for each in found["extractions"]
    ]
    table = columns(["extraction", "backbone", "pixels", "views", "taps", "images", "size"], rows)
    return paragraphs(table, f"{safe(found['cache'])}: {size(found['bytes'])}", damaged(found))


def info(found: Mapping[str, Any]) -> str:
    """`humeris cache info`."""
    spec = columns(["made with", ""], list(found["spec"].items()))
    rows = [
        [
            tap["tap"],
            "x".join(map(str, tap["shape"])),
            " ".join(tap["dtypes"]),
            " ".join(tap["compression"]),
            tap["images"],
            len(tap["views"]),
            tap["shards"],
            size(tap["bytes"]),
        ]
        for tap in found["taps"]
    ]
    header = ["tap", "row", "dtype", "compressed", "images", "views", "shards", "size"]
    return paragraphs(safe(found["path"]), f"{spec}\n", columns(header, rows))


def verified(found: Mapping[str, Any]) -> str:
    """`humeris cache verify`."""
    verdict = "damage found" if found["damaged"] else "all sound"
    return paragraphs(
        f"{safe(found['cache'])}: {found['shards']} shards, {found['rows']} rows, {size(found['bytes'])}: {verdict}",
        "; ".join(f"{kind}: {count} rows" for kind, count in found["rows_by_dtype_and_compression"].items()),
        f"{found['rows_not_finite']} rows hold NaN or infinity" if found["rows_not_finite"] else "",
        damaged(found),
        *(f"set aside earlier: {safe(path)}" for path in found["set_aside"]),
    )


def pruned(found: Mapping[str, Any]) -> str:
    """`humeris cache prune`."""
    rows = [
        [each["extraction"], each["tap"], each["shards"], each["age_days"], size(each["bytes"])] for each in found["removed"]
    ]
    done = "would go" if found["dry_run"] else "removed"
    return paragraphs(
        columns(["extraction", "tap", "shards", "days", "size"], rows) if rows else "",
        f"{safe(found['cache'])}:",
        f"taps {done}: {len(rows)}, {size(found['bytes'])}; kept: {found['kept']}, {size(found['bytes_kept'])}",
        f"damaged files {done}: {len(found['set_aside'])}; unfinished ones: {found['drafts']}",
        *(f"could not be removed: {safe(each['path'])}: {safe(each['reason'])}" for each in found["left_out"]),
        "nothing was removed" if found["dry_run"] else "",
    )
