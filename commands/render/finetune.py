"""What a fine-tuning says on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...cache.formatting import columns, paragraphs, safe, size
from ...classify.finetune.train_loop import Epoch
from .cache import damaged
from .classify import exported
from .extract import images

_SURE = 0.05


def announced(plans: Sequence[Mapping[str, Any]]) -> str:
    """What is going to be cached, a line each; "" where everything is there."""
    lines = []
    for each in plans:
        if not each["to_compute"]:
            continue
        (tap, count), *_ = [(tap, count) for tap, count in each["rows"].items() if count]
        before = each["images"] * (1 + each["views"])
        lost = f", of which the cache has {before - each['to_compute']}" if each["to_compute"] < before else ""
        what = "caching" if tap.endswith(":map") else "the cache has lost rows of"
        lines.append(
            f"{what} {tap}{' and others' if len(each['rows']) > 1 else ''}: {count} rows of {before}{lost}, "
            f"{size(each['bytes'])} uncompressed, {size(each['bytes_free'])} free, about {each['seconds_estimated']:.0f} s"
        )
    return "\n".join(lines)


def planned(found: Mapping[str, Any]) -> str:
    """`humeris finetune --dry-run`."""
    text = announced(found["planned"]) or "nothing is to be cached: all of it is there"
    fits = all(each["fits"] for each in found["planned"])
    return paragraphs(text, "" if fits else "it does not fit; --compress gzip may help", "nothing was computed")


def epoch(done: Epoch) -> str:
    """One epoch that ended, in a line."""
    if not done.number:
        return f"before: {_figures(done.figures)}"
    named = "epoch" if done.stage == "choose" else "again, on all images but the test split: epoch"
    what = " (the head alone)" if done.part == "head" else ""
    figures = f": {_figures(done.figures)}" if done.figures else ""
    return f"{named} {done.number}/{done.of}{what}{figures}, {done.seconds:.1f} s"


def _figures(found: Mapping[str, float]) -> str:
    return (
        f"loss {found['loss']:.4f}, accuracy {found['accuracy']:.4f}, val_loss {found['val_loss']:.4f}, "
        f"val_accuracy {found['val_accuracy']:.4f}"
    )


def finetuned(found: Mapping[str, Any]) -> str:
    """`humeris finetune`."""
    tuned, best = found["finetune"], found["best"]
    setting, score = best["setting"], best["score"]
    curves, kept = score["detail"]["curves"], score["detail"]["epochs"]
    frozen = tuned["frozen"]
    page = found["reported"]
    rows = []
    if frozen is not None:
        rows.append(["frozen", frozen["trial"]["head"], *_cells(frozen["test"])])
    origin = "scratch" if setting.get("weights") == "random" else setting["from"]
    rows.append([f"from {origin}", setting["head"], *_cells(found["test"])])
    return paragraphs(
        images(found["data"]),
        f"best epoch: {kept} of {len(curves['val_loss'])}, val_loss {curves['val_loss'][kept - 1]:.4f} "
        f"(before {tuned['before']['val_loss']:.4f}), val_accuracy {curves['val_accuracy'][kept - 1]:.4f} "
        f"(before {tuned['before']['val_accuracy']:.4f})",
        "\n" + columns(["network", "head", "test accuracy", "95 %", "images"], rows) + "\n",
        _compared(frozen["compared"]) if frozen is not None and frozen["compared"] else "",
        *(f"note: {safe(note)}" for note in found["notes"]),
        f"run: {safe(found['run'])}, in {found['seconds']:.0f} s",
        damaged(found),
        exported(found),
        f"report: {safe(page['path'])} ({size(page['bytes'])})",
    )


def _compared(found: Mapping[str, Any]) -> str:
    """The tuned and the frozen network on the same test images."""
    low, high = found["difference_95"]
    verdict = "more than chance would do" if found["p_value"] <= _SURE else "these images do not tell them apart"
    return (
        f"test images on which only the tuned network is right: {found['only_winner']}, only the frozen one: "
        f"{found['only_runner_up']}; difference {found['difference']:+.4f}\n"
        f"  (95 % interval {low:+.3f} to {high:+.3f}, p = {found['p_value']:.2g}), {verdict}"
    )


def _cells(test: Mapping[str, Any]) -> list[str]:
    return [f"{test['accuracy']:.4f}", "-".join(f"{bound:.3f}" for bound in test["accuracy_95"]), str(test["images"])]
