"""Text for people about images, backbones and extractions. Nothing here prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ...cache.formatting import columns, paragraphs, safe, size
from .cache import damaged

_LISTED = 20


def images(found: Mapping[str, Any]) -> str:
    """What became of the listed paths, the refused ones by name."""
    formats = ", ".join(f"{count} {name}" for name, count in found["formats"].items())
    lines = [f"{safe(found['source'])}: {found['used']} images used{formats and f' ({formats})'}"]
    lines += [f"  used, and unusual here: {safe(each['name'])} ({each['format']})" for each in found["unusual"]]
    if copies := found["duplicates"]:
        across = [each for each in copies if each["across"]]
        lines.append(f"  {len(copies)} duplicates left out, {len(across)} of them of an image in another split")
        lines += [f"    {safe(each['name'])} is {safe(each['original'])}" for each in across[:_LISTED]]
    if refused := found["refused"]:
        reasons = Counter(each["reason"] for each in refused)
        lines.append(f"  {len(refused)} refused: " + ", ".join(f"{count} {name}" for name, count in reasons.items()))
        lines += [f"    {safe(each['name'])}: {each['reason']}: {safe(each['detail'])}" for each in refused[:_LISTED]]
        if len(refused) > _LISTED:
            lines.append(f"    and {len(refused) - _LISTED} more; --json lists them all")
    return "\n".join(lines)


def extracted(found: Mapping[str, Any]) -> str:
    """`humeris extract`."""
    parts = [images(found["data"])]
    for each in found["extracted"]:
        rate = f" ({each['computed'] / each['seconds']:.0f} images/s)" if each["computed"] else ""
        parts.append(
            f"{each['backbone']}: {_taps(each['taps'])} of {each['images']} images{_views(each['views'])}, "
            f"{each['computed']} computed in "
            f"{each['seconds']:.1f} s{rate}, {size(each['bytes'])} written"
        )
        parts += [f"  {tap}: {count} new rows" for tap, count in each["rows"].items() if count]
        parts += [
            f"  {tap}: {count} rows kept in float32, float16 cannot hold them"
            for tap, count in each["rows_kept_in_float32"].items()
        ]
        parts += [f"  {tap}: NaN or infinity for {count} images" for tap, count in each["not_finite"].items()]
    return paragraphs(*parts, damaged(found), f"cache: {safe(found['cache'])}")


def _taps(taps: Sequence[str]) -> str:
    return f"{len(taps)} tap{'' if len(taps) == 1 else 's'}"


def _views(count: int) -> str:
    return f" and {count} view{'' if count == 1 else 's'} of each" if count else ""


def plans(found: Mapping[str, Any]) -> str:
    """`humeris extract --dry-run`."""
    parts = [images(found["data"])]
    for each in found["planned"]:
        parts.append(
            f"{each['backbone']}: {each['to_compute']} of {each['images'] * (1 + each['views'])} "
            f"{'images and views of them' if each['views'] else 'images'} to compute, about "
            f"{each['seconds_estimated']:.0f} s on this processor; {size(each['bytes'])} to write, "
            f"{size(each['bytes_free'])} free{'' if each['fits'] else ': it does not fit'}"
        )
        parts.append(columns(["  tap", "rows to compute"], [[f"  {tap}", count] for tap, count in each["rows"].items()]))
    return paragraphs(*parts, damaged(found), "nothing was computed")


def backbones(found: Mapping[str, Any]) -> str:
    """`humeris backbones`."""
    rows = [
        [each["name"], each["constructor"], each["size"], each["minimum"], each["preprocessing"], each["pretrained"]]
        for each in found["backbones"]
    ]
    table = columns(["backbone", "constructor", "pixels", "least", "preprocessing", "weights"], rows)
    return paragraphs(
        table,
        "constructor arguments: -b mobilenet_v2,alpha=0.35; your own file: -b net.keras,preprocessing=MODE",
        "preprocessing: tf [-1, 1]; torch ImageNet mean and deviation; caffe BGR less the mean; unit [0, 1]; none 0..255",
    )


def layers(found: Mapping[str, Any]) -> str:
    """`humeris layers`."""
    pools = list(dict.fromkeys(pool for layer in found["layers"] for pool in layer["bytes_per_image"]))
    rows: list[Sequence[object]] = [
        [
            ("* " if layer["default"] else "  ") + layer["layer"],
            layer["kind"],
            "x".join(map(str, layer["shape"])),
            *(layer["bytes_per_image"].get(pool, "") for pool in pools),
            f"{layer['share_of_cost']:.1%}",
        ]
        for layer in found["layers"]
    ]
    pixels = "x".join(map(str, found["image_size"]))
    return paragraphs(
        columns(["  layer", "kind", "shape", *(f"{pool} bytes" for pool in pools), "cost"], rows),
        f"{found['backbone']} at {pixels}: {found['multiply_adds'] / 1e6:,.0f} million multiply-adds; bytes are per image; "
        "cost is the share of the forward pass up to there; * is tapped by default",
    )


def doctor(found: Mapping[str, Any]) -> str:
    """`humeris doctor`."""
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    cache = found["cache"]
    if "problem" in cache:
        state = f"cache      {safe(cache['problem'])}"
    else:
        access = "writable" if cache["writable"] else "read-only"
        free = size(cache["bytes_free"])
        state = f"cache      {safe(cache['path'])}: {cache['extractions']} extractions, {access}, {free} free"
    return paragraphs(
        f"python     {found['python']}",
        f"packages   {packages}",
        f"compute    keras on {found['backend']}, {', '.join(found['devices'])}, {found['cores']} cores",
        f"precision  {found['precision']['default']}; --precision auto takes {found['precision']['auto']} here",
        f"pixels     version {found['pixels']}",
        f"weights    {safe(found['keras_home'])}: {', '.join(found['weights_at_hand']) or 'none downloaded'}",
        state,
        damaged(cache),
    )


def portable(found: Mapping[str, Any]) -> str:
    """`humeris cache export`."""
    done = found["exported"]
    return paragraphs(
        images(found["data"]), f"{safe(done['path'])}: {done['images']} images, {size(done['bytes'])}", *done["taps"]
    )
