"""Text output about images, backbones and extractions. Nothing here prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ...cache.formatting import format_names, format_size, format_table, join_paragraphs, to_printable
from .cache import format_corrupt_files

_MAX_LISTED = 20


def format_images(summary: Mapping[str, Any]) -> str:
    """Return the outcome of the listed paths, with the rejected ones by name."""
    formats = ", ".join(f"{count:,} {name}" for name, count in summary["formats"].items())
    lines = [f"{to_printable(summary['source'])}: {summary['used']:,} images used{formats and f' ({formats})'}"]
    lines += [f"  used, rare format: {to_printable(entry['name'])} ({entry['format']})" for entry in summary["unusual"]]
    lines += [f"  note: {to_printable(note)}" for note in summary["notes"]]
    if ignored := summary["ignored"]:
        lines.append(
            f"  {len(ignored):,} document{'s' if len(ignored) > 1 else ''} or system file{'s' if len(ignored) > 1 else ''} "
            f"ignored: {format_names(ignored)}"
        )
    if duplicates := summary["duplicates"]:
        cross_split = [entry for entry in duplicates if entry["across"]]
        lines.append(f"  {len(duplicates)} duplicates excluded, {len(cross_split)} of them duplicates across splits")
        lines += [
            f"    {to_printable(entry['name'])} duplicates {to_printable(entry['original'])}"
            for entry in cross_split[:_MAX_LISTED]
        ]
    if rejections := summary["refused"]:
        reasons = Counter(entry["reason"] for entry in rejections)
        lines.append(
            f"  {len(rejections)} image{'s' if len(rejections) > 1 else ''} rejected: "
            + ", ".join(f"{count} {name}" for name, count in reasons.items())
        )
        lines += [
            f"    {to_printable(entry['name'])}: {entry['reason']}: {to_printable(entry['detail'])}"
            for entry in rejections[:_MAX_LISTED]
        ]
        if len(rejections) > _MAX_LISTED:
            lines.append(f"    and {len(rejections) - _MAX_LISTED} more; --json lists them all")
    return "\n".join(lines)


def format_extraction(result: Mapping[str, Any]) -> str:
    """Return the text of `humeris extract`."""
    parts = [format_images(result["data"])]
    for extraction in result["extracted"]:
        rate = f" ({extraction['computed'] / extraction['seconds']:.0f} images/s)" if extraction["computed"] else ""
        parts.append(
            f"{extraction['backbone']}: {_format_tap_count(extraction['taps'])} of {extraction['images']:,} "
            f"images{_format_view_count(extraction['views'])}, {extraction['computed']:,} computed in "
            f"{extraction['seconds']:.1f} s{rate}, {format_size(extraction['bytes'])} written"
        )
        parts += [f"  {tap}: {count:,} new rows" for tap, count in extraction["rows"].items() if count]
        parts += [
            f"  {tap}: {count:,} rows stored as float32 because they overflow float16"
            for tap, count in extraction["rows_kept_in_float32"].items()
        ]
        parts += [f"  {tap}: NaN or infinity for {count} images" for tap, count in extraction["not_finite"].items()]
    return join_paragraphs(*parts, format_corrupt_files(result), f"cache: {to_printable(result['cache'])}")


def _format_tap_count(taps: Sequence[str]) -> str:
    return f"{len(taps)} tap{'' if len(taps) == 1 else 's'}"


def _format_view_count(count: int) -> str:
    return f" and {count} view{'' if count == 1 else 's'} of each" if count else ""


def format_plans(result: Mapping[str, Any]) -> str:
    """Return the text of `humeris extract --dry-run`."""
    parts = [format_images(result["data"])]
    for plan in result["planned"]:
        parts.append(
            f"{plan['backbone']}: {plan['to_compute']:,} of {plan['images'] * (1 + plan['views']):,} "
            f"{'images and views of them' if plan['views'] else 'images'} to compute, about "
            f"{plan['seconds_estimated']:.0f} s on this CPU; {format_size(plan['bytes'])} to write, "
            f"{format_size(plan['bytes_free'])} free{'' if plan['fits'] else ': not enough disk space'}"
        )
        parts.append(
            format_table(["  tap", "rows to compute"], [[f"  {tap}", count] for tap, count in plan["rows"].items()])
        )
    return join_paragraphs(*parts, format_corrupt_files(result), "dry run: nothing was computed")


def format_backbones(result: Mapping[str, Any]) -> str:
    """Return the text of `humeris backbones`."""
    rows = [
        [
            backbone["name"],
            backbone["constructor"],
            backbone["size"],
            backbone["min_size"],
            backbone["preprocessing"],
            backbone["pretrained_weights"],
        ]
        for backbone in result["backbones"]
    ]
    table = format_table(["backbone", "constructor", "image size", "min size", "preprocessing", "weights"], rows)
    return join_paragraphs(
        table,
        "constructor arguments: -b mobilenet_v2,alpha=0.35; your own network: -b net.keras,preprocessing=MODE",
        "preprocessing: tf [-1, 1]; torch ImageNet mean and std; caffe BGR minus the mean; unit [0, 1]; none 0..255",
    )


def format_layers(result: Mapping[str, Any]) -> str:
    """Return the text of `humeris layers`."""
    pools = list(dict.fromkeys(pool for layer in result["layers"] for pool in layer["bytes_per_image"]))
    rows: list[Sequence[object]] = [
        [
            ("* " if layer["default"] else "  ") + layer["layer"],
            layer["kind"],
            "x".join(map(str, layer["shape"])),
            *(layer["bytes_per_image"].get(pool, "") for pool in pools),
            f"{layer['share_of_cost']:.1%}",
        ]
        for layer in result["layers"]
    ]
    pixels = "x".join(map(str, result["image_size"]))
    return join_paragraphs(
        format_table(["  layer", "kind", "shape", *(f"{pool} bytes" for pool in pools), "cost"], rows),
        f"{result['backbone']} at {pixels}: {result['multiply_adds'] / 1e6:,.0f} million multiply-adds; bytes are per "
        "image; cost is the share of the forward pass up to there; * is tapped by default",
    )


def format_doctor(result: Mapping[str, Any]) -> str:
    """Return the text of `humeris doctor`."""
    packages = ", ".join(f"{name} {version}" for name, version in result["packages"].items())
    cache = result["cache"]
    if "problem" in cache:
        state = f"cache      {to_printable(cache['problem'])}"
    else:
        access = "writable" if cache["writable"] else "read-only"
        free = format_size(cache["bytes_free"])
        state = f"cache      {to_printable(cache['path'])}: {cache['extractions']} extractions, {access}, {free} free"
    return join_paragraphs(
        f"python     {result['python']}",
        f"packages   {packages}",
        f"compute    keras on {result['backend']}, {', '.join(result['devices'])}, {result['cores']} cores",
        f"precision  {result['precision']['default']}; --precision auto selects {result['precision']['auto']} here",
        f"pixels     version {result['pixels']}",
        f"weights    {to_printable(result['keras_home'])}: {', '.join(result['weights_at_hand']) or 'none downloaded'}",
        state,
        format_corrupt_files(cache),
    )


def format_portable_export(result: Mapping[str, Any]) -> str:
    """Return the text of `humeris cache export`."""
    export = result["exported"]
    return join_paragraphs(
        format_images(result["data"]),
        f"{to_printable(export['path'])}: {export['images']} images, {format_size(export['bytes'])}",
        *export["taps"],
    )
