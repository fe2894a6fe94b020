"""Text for people about runs, models and predictions. Nothing here prints."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..cache.text import columns, damaged, paragraphs, safe, size
from ..extract.text import extracted as extracted_text
from ..extract.text import images
from .predict import Prediction
from .run import guarded

_BAR = 30


def run(found: Mapping[str, Any]) -> str:
    """`humeris sweep`."""
    return paragraphs(images(found["data"]), _result(found), damaged(found))


def outcome(found: Mapping[str, Any]) -> str:
    """`humeris run`."""
    data = {"data": found["data"], "extracted": found["extracted"], "cache": found["cache"]}
    return paragraphs(extracted_text(data), _result(found), damaged(found), exported(found))


def demo(found: Mapping[str, Any]) -> str:
    """`humeris demo`."""
    trained, random = found["trained"], found["random"]
    return paragraphs(
        outcome(trained),
        f"\nnano, trained on drawings:  test accuracy {_accuracy(trained['test'])}",
        f"nano, random weights:       test accuracy {_accuracy(random['test'])}",
        f"model: {safe(trained['exported']['model'])}",
    )


def exported(found: Mapping[str, Any]) -> str:
    """`humeris export`."""
    done = found["exported"]
    parity = done["parity"]
    return (
        f"model: {safe(done['model'])} ({size(done['bytes'])}), loaded again in a fresh process: "
        f"{parity['top1_agree']} of {parity['images']} classes equal, probabilities within {parity['max_difference']:.1e}"
    )


def ranking(found: Mapping[str, Any]) -> str:
    """`humeris rank`."""
    named = {"log_me": "LogME", "h_score": "H-score", "knn": "kNN", "centroid": "centroid"}
    compared = found["run"] is not None
    rows = []
    for each in found["ranking"]:
        taps = each["sources"]
        cells = [" + ".join(tap["backbone"] for tap in taps), " + ".join(f"{tap['layer']}:{tap['pool']}" for tap in taps)]
        for measure in named:
            place = each["places"][measure]
            cells.append(f"{each[measure]:.4f}  {place}" + (" <" if place == 1 else ""))
        if compared:
            cells.append("" if each["trained"] is None else f"{each['trained']:.4f}")
        rows.append([*cells, f"{each['seconds']:.2f}"])
    header = ["backbone", "tap", *named.values(), *(["trained"] if compared else []), "seconds"]
    agreement = [
        f"{named[measure]} {'-' if each['tau'] is None else format(each['tau'], '.2f')}"
        for measure, each in found["agreement"].items()
    ]
    splits = found["splits"]
    return paragraphs(
        images(found["data"]),
        f"\n{columns(header, rows)}\n",
        *_left_out(found),
        f"{splits['note']}; scored on {splits['train'] + splits['val']} images, none of the {splits['test']} to test on",
        f"agreement with training (Kendall's tau): {', '.join(agreement)}; {safe(found['run'])}" if agreement else "",
        damaged(found),
    )


def predictions(found: Iterable[Prediction], form: str) -> Iterator[str]:
    """Lines of `humeris predict` as `table`, `csv` or `jsonl`, as the predictions come."""
    if form == "csv":
        yield _csv(["path", "predicted", "probability", "refused"])
    for each in found:
        if form == "jsonl":
            yield json.dumps(each.to_dict())
        elif form == "csv":
            name, value = each.top[0] if each.top else ("", None)
            yield _csv([each.path, name, "" if value is None else f"{value:.6f}", each.refused])
        elif each.refused:
            yield f"{safe(each.path)}  refused: {safe(each.refused)}"
        else:
            yield f"{safe(each.path)}  " + "  ".join(f"{safe(name)} {value:.3f}" for name, value in each.top)


def _csv(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([guarded(cell) for cell in cells])
    return text.getvalue()


def _result(found: Mapping[str, Any]) -> str:
    splits, best, test = found["splits"], found["best"], found["test"]
    chosen = "the validation split" if splits["select"] == "val" else "cross-validation"
    curve = found["depth"]
    low = min((each["accuracy"] for each in curve), default=0.0)
    span = max((each["accuracy"] for each in curve), default=1.0) - low or 1.0
    rows = [
        [
            each["backbone"],
            f"{each['layer']}:{each['pool']}",
            "" if each["depth"] is None else f"{each['depth']:.0%}",
            each["head"],
            " ".join(f"{name}={value}" for name, value in each["setting"].items() if name in {"C", "hidden"}),
            f"{each['accuracy']:.4f}",
            "#" * round(1 + (_BAR - 1) * (each["accuracy"] - low) / span) + (" <" if each["trial"] == best["id"] else ""),
        ]
        for each in curve
    ]
    source = best["sources"][0]
    table = columns(["backbone", "tap", "cost", "head", "best", "accuracy", f"by {chosen}"], rows)
    return paragraphs(
        f"\n{table}\n",
        *_left_out(found),
        f"{splits['note']}; {splits['train']} train, {splits['val']} val, {splits['test']} test",
        f"chosen: {best['head']} on {source['backbone']} {source['layer']}:{source['pool']} (trial {best['id']})",
        f"test accuracy {_accuracy(test)}, balanced {test['balanced_accuracy']:.4f}, macro-F1 {test['macro_f1']:.4f}",
        f"run: {safe(found['run'])}",
    )


def _left_out(found: Mapping[str, Any]) -> list[str]:
    return [
        f"left out: {each['backbone']}/{each['layer']}:{each['pool']} lacks {each['images_missing']} images"
        for each in found.get("left_out", [])
    ]


def _accuracy(test: Mapping[str, Any]) -> str:
    low, high = test["accuracy_95"]
    return f"{test['accuracy']:.4f} (95 % interval {low:.3f} to {high:.3f}, {test['images']} images)"
