"""Text output of `humeris cache …`. Nothing here prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...cache.formatting import format_size, format_table, join_paragraphs, to_printable


def format_corrupt_files(result: Mapping[str, Any]) -> str:
    """Return a line per corrupt file, "" without any."""
    lines = [
        f"corrupt: {to_printable(entry['path'])}: {to_printable(entry['reason'])}" for entry in result.get("damaged", [])
    ]
    if lines:
        lines.append("corrupt files are not used; the next `humeris extract` recomputes their rows")
    return "\n".join(lines)


def format_inventory(result: Mapping[str, Any]) -> str:
    """Return the text of `humeris cache list`."""
    if not result["extractions"]:
        return join_paragraphs(
            f"{to_printable(result['cache'])}: cache is empty; fill it with `humeris extract DATA`",
            format_corrupt_files(result),
        )
    rows = [
        [
            extraction["extraction"],
            extraction["backbone"],
            "x".join(map(str, extraction["image_size"])),
            extraction["views"],
            len(extraction["taps"]),
            max((tap["images"] for tap in extraction["taps"]), default=0),
            format_size(extraction["bytes"]),
        ]
        for extraction in result["extractions"]
    ]
    table = format_table(["extraction", "backbone", "image size", "views", "taps", "images", "size"], rows)
    return join_paragraphs(
        table, f"{to_printable(result['cache'])}: {format_size(result['bytes'])}", format_corrupt_files(result)
    )


def format_extraction(result: Mapping[str, Any]) -> str:
    """Return the text of `humeris cache info`."""
    spec = format_table(["field", "value"], list(result["spec"].items()))
    rows = [
        [
            tap["tap"],
            "x".join(map(str, tap["shape"])),
            " ".join(tap["dtypes"]),
            " ".join(tap["compression"]),
            tap["images"],
            len(tap["views"]),
            tap["shards"],
            format_size(tap["bytes"]),
        ]
        for tap in result["taps"]
    ]
    header = ["tap", "shape", "dtype", "compression", "images", "views", "shards", "size"]
    return join_paragraphs(to_printable(result["path"]), f"{spec}\n", format_table(header, rows))


def format_verification(result: Mapping[str, Any]) -> str:
    """Return the text of `humeris cache verify`."""
    verdict = "corrupt files found" if result["damaged"] else "all files intact"
    return join_paragraphs(
        f"{to_printable(result['cache'])}: {result['shards']} shards, {result['rows']} rows, "
        f"{format_size(result['bytes'])}: {verdict}",
        "; ".join(f"{kind}: {count} rows" for kind, count in result["rows_by_dtype_and_compression"].items()),
        f"{result['rows_not_finite']} rows hold NaN or infinity" if result["rows_not_finite"] else "",
        format_corrupt_files(result),
        *(f"quarantined: {to_printable(path)}" for path in result["set_aside"]),
    )


def format_pruning(result: Mapping[str, Any]) -> str:
    """Return the text of `humeris cache prune`."""
    rows = [
        [entry["extraction"], entry["tap"], entry["shards"], entry["age_days"], format_size(entry["bytes"])]
        for entry in result["removed"]
    ]
    action = "to remove" if result["dry_run"] else "removed"
    return join_paragraphs(
        format_table(["extraction", "tap", "shards", "age (days)", "size"], rows) if rows else "",
        f"{to_printable(result['cache'])}:",
        f"taps {action}: {len(rows)}, {format_size(result['bytes'])}; kept: {result['kept']}, "
        f"{format_size(result['bytes_kept'])}",
        f"quarantined files {action}: {len(result['set_aside'])}; stale temporary files: {result['drafts']}",
        *(f"cannot remove {to_printable(entry['path'])}: {to_printable(entry['reason'])}" for entry in result["left_out"]),
        "dry run: nothing was removed" if result["dry_run"] else "",
    )
