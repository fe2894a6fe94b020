"""Experiments as tables of commands: each row is one or two `humeris` commands, and what its authors had found.

The scripts that hold such tables run them in order, in this process, exactly as they would be typed, and end with a
table of the authors' figures beside ours.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drawn_objects import draw_object
from PIL import Image

from humeris.classify.evaluate.trial import Score, Source, Trial, ranked
from humeris.classify.runs.run import Run

WIDTH = 110  # of what is printed


@dataclass(frozen=True)
class Row:
    """One experiment.

    did, theirs: what its authors did, and their figure. commands: what is typed after `humeris`, with `{data}` and `{out}`
    where the user's folders go; the last `-o` is the run that the row is about. compares: options of its heads, or `tap`,
    whose values are set side by side; `case` tells the case that its data is judged to be in.
    """

    name: str
    did: str
    theirs: str
    commands: tuple[str, ...]
    compares: tuple[str, ...] = ()


@dataclass(frozen=True)
class Smoke:
    """How a table is run in little: on drawings, which `draw` writes into a folder and names, and with random weights.

    arguments: what is added to a command for the first of these words that is in it. replace: as `--replace`. smaller: the
    same for the rows named: networks for those of which a few steps of training would take minutes.
    """

    draw: Callable[[Path], Path]
    arguments: Mapping[str, str]
    replace: Mapping[str, str] = field(default_factory=dict)
    smaller: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What the user asked for; `arguments`, `replace` and `smaller` as `Smoke` has them."""

    data: str
    out: Path
    replace: Mapping[str, str]
    arguments: Mapping[str, str] = field(default_factory=dict)
    smaller: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def words(self, row: Row) -> list[list[str]]:
        """The words of each of a row's commands as they are typed."""
        return [self._words(command, {**self.smaller.get(row.name, {}), **self.replace}) for command in row.commands]

    def _words(self, command: str, replace: Mapping[str, str]) -> list[str]:
        found = [_replaced(word, replace) for word in shlex.split(command)]
        added = next((more for key, more in self.arguments.items() if key in found), "")
        return [word.format(data=self.data, out=self.out) for word in [*found, *shlex.split(added)]]


def main(told: str, rows: Sequence[Row], smoke: Smoke, data: str = "") -> int:
    """Run the rows that the command line asks for, print the table; 1 when a command of theirs failed.

    told: the script's docstring. data: DATA where none is given, if there is such a thing.
    """
    parser = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default=data, metavar="DATA", help=data or "your folder of images")
    parser.add_argument("--rows", default="", metavar="A,B", help="only these rows")
    parser.add_argument("--out", type=Path, help="where the runs are written (runs/NAME)")
    parser.add_argument("--cache", type=Path, help="the cache of features (humeris's own)")
    parser.add_argument(
        "--replace", action="append", default=[], metavar="OLD=NEW",
        help="another network or layer in every command: vgg16=mobilenet_v2,alpha=0.35. Repeatable.",
    )  # fmt: skip
    parser.add_argument("--smoke", action="store_true", help="run everything in little, on drawings and random weights")
    parser.add_argument("--list", action="store_true", help="print the commands, run nothing")
    typed = parser.parse_args()
    names = [name.strip() for name in typed.rows.split(",") if name.strip()]
    if unknown := set(names) - {row.name for row in rows}:
        parser.error(f"--rows: expected some of {', '.join(row.name for row in rows)}, found {', '.join(sorted(unknown))}")
    if wrong := [text for text in typed.replace if not all(text.partition("="))]:
        parser.error(f"--replace: expected OLD=NEW, found {wrong[0]!r}")
    if not (typed.data or typed.smoke or typed.list):
        parser.error("DATA: expected the folder of images, found none; or give --smoke")
    wanted = [row for row in rows if row.name in names or not names]
    replace = dict(text.split("=", 1) for text in typed.replace)
    out = typed.out or Path("runs") / Path(sys.argv[0]).stem
    with tempfile.TemporaryDirectory() as scratch:
        plan = Plan(typed.data or "DATA", out, replace)
        cache = typed.cache
        if typed.smoke:
            out = typed.out or Path(scratch) / "runs"
            cache = typed.cache or Path(scratch) / "cache"
            drawings = str(smoke.draw(Path(scratch) / "drawings"))
            plan = Plan(drawings, out, {**smoke.replace, **replace}, smoke.arguments, smoke.smaller)
        return _list(wanted, plan) if typed.list else _run(wanted, plan, cache)


def draw_folders(folder: Path, splits: Mapping[str, int], side: int, classes: Sequence[str] = ("beast", "bird")) -> Path:
    """The folder, with so many drawings of each class in each split: `folder/train/beast/0.png` and so on."""
    import numpy as np

    for split, count in splits.items():
        for name in classes:
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                draws = np.random.default_rng([len(split), classes.index(name), number])
                colour, ground = draws.uniform(0, 255, (2, 3))
                mask = draw_object(draws, name)[..., None]
                pixels = (mask * colour + (1 - mask) * ground).astype(np.uint8)
                Image.fromarray(pixels).resize((side, side)).save(place / f"{number}.png")
    return folder


def _replaced(word: str, replace: Mapping[str, str]) -> str:
    """The word with others for names in it; a run folder is called after the network that takes another's place."""
    for old, new in replace.items():
        name = re.sub(r"[^\w.,=-]", "_", new) if "{" in word else new
        word = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _, name=name: name, word)
    return word


def _list(rows: Sequence[Row], plan: Plan) -> int:
    for row in rows:
        print(f"\n{row.name}  {row.did}")
        for words in plan.words(row):
            print("    " + shlex.join(["humeris", *words]))
    return 0


def _run(rows: Sequence[Row], plan: Plan, cache: Path | None) -> int:
    if cache is not None:
        os.environ["HUMERIS_CACHE"] = str(cache)
        print(f"export HUMERIS_CACHE={shlex.quote(str(cache))}")
    done: dict[str, int] = {}
    for row in rows:
        print(f"\n=== {row.name}: {row.did}\n    theirs: {row.theirs}")
        for words in plan.words(row):
            typed = shlex.join(["humeris", *words])
            if typed in done:
                print(f"$ {typed}    (done above)")
                continue
            print(f"$ {typed}", flush=True)
            began = time.monotonic()
            done[typed] = typing(words)
            print(f"    {time.monotonic() - began:.1f} s, exit code {done[typed]}", flush=True)
            if done[typed] > 1:
                break
    return _conclude(rows, plan, done)


def typing(words: Sequence[str]) -> int:
    """The exit code of a `humeris` command, run in this process as if it had been typed."""
    from humeris.cli import main as humeris

    before, sys.argv = sys.argv, ["humeris", *words]
    try:
        humeris()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code == 130:
            raise KeyboardInterrupt from None
        return code
    finally:
        sys.argv = before
    return 0


def _conclude(rows: Sequence[Row], plan: Plan, done: Mapping[str, int]) -> int:
    """Print the table, and what each row compared."""
    lines, compared, failed = [("row", "theirs", "ours (95 % interval)", "with")], [], 0
    for row in rows:
        typed = plan.words(row)
        wrong = [words for words in typed if done.get(shlex.join(["humeris", *words]), 0) > 1]
        if wrong:
            failed += 1
            lines.append((row.name, row.theirs, "failed", shlex.join(["humeris", *wrong[0]])))
            continue
        run = Run.load(_run_of(typed))
        lines.append((row.name, row.theirs, _figure(run.description["test"]), _how(run)))
        compared += [f"{row.name}: {line}" for line in _compared(run, row.compares)]
    print("\n" + "\n".join(_aligned(lines)))
    if compared:
        print("\nby the images held out for choosing:")
        print("\n".join(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ") for line in compared))
    return int(failed > 0)


def _run_of(typed: Sequence[Sequence[str]]) -> str:
    """The run that a row's commands leave last."""
    return [words[words.index("-o") + 1] for words in typed if "-o" in words][-1]


def _figure(test: Mapping[str, Any]) -> str:
    low, high = test["accuracy_95"]
    return f"{test['accuracy']:.4f} ({low:.3f} to {high:.3f})"


def _how(run: Run) -> str:
    """The winner: its head and taps; where it has learning curves, its best epoch, and its accuracy there on both sides."""
    trial, score = run.trial(run.description["best"]["id"])
    head = f"finetune from {trial.setting['from']}" if trial.head == "finetune" else trial.head
    said = f"{head} on {_taps(trial, ())}"
    curves = score.detail.get("curves") or {}
    if not {"accuracy", "val_accuracy"} <= set(curves):  # triplets and contrast have a loss only
        return f"{said}; held out {score.accuracy:.3f}"
    epoch, last = score.detail["epochs"], len(curves["val_loss"])
    learnt, held = (curves[name][epoch - 1] for name in ("accuracy", "val_accuracy"))
    return f"{said}; best epoch {epoch} of {last}: {learnt:.3f} on what it learnt from, {held:.3f} held out"


def _compared(run: Run, options: Sequence[str]) -> list[str]:
    """For each head and each of the options, the accuracy of the best setting at each of the values that were tried.

    The best, here as in the leaderboard, is the setting with the lowest log-loss, on the taps with the highest accuracy.
    """
    found, scores, order = [], run.trials(), {source: place for place, source in enumerate(_sources(run))}
    if "case" in options:
        found.append(f"the case is {run.description['advice']['case'] or 'not clear'}")
    for head in dict.fromkeys(trial.head for trial in scores):
        tried = {trial: score for trial, score in scores.items() if trial.head == head}
        for option in [each for each in options if each != "case"]:
            groups: dict[Any, dict[Trial, Score]] = {}
            for trial in sorted(tried, key=lambda trial: [order.get(source, -1) for source in trial.sources]):
                value = _taps(trial, tried) if option == "tap" else trial.setting.get(option)
                groups.setdefault(value, {})[trial] = scores[trial]
            best = {value: group[ranked(group)[0]] for value, group in groups.items()}
            if len(best) > 1:
                found.append(f"{head} {option}: " + ", ".join(f"{value} {best[value].accuracy:.3f}" for value in best))
    return found


def _taps(trial: Trial, among: Collection[Trial]) -> str:
    """The trial's taps, without the network where that is the same for all of the others."""
    backbones = {source.backbone for other in among for source in other.sources}
    return " + ".join(f"{each.layer}:{each.pool}" if len(backbones) == 1 else str(each) for each in trial.sources)


def _sources(run: Run) -> list[Source]:
    """The run's sources, by backbone and depth."""
    return [Source(**{name: each[name] for name in ("backbone", "extraction", "layer", "pool")}) for each in
            run.description["sources"]]  # fmt: skip


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a table; its second and its last column are wrapped."""
    widths = [max(len(line[0]) for line in lines), 30, max(len(line[2]) for line in lines)]
    found = []
    for line in lines:
        theirs, ours = textwrap.wrap(line[1], widths[1]) or [""], textwrap.wrap(line[3], WIDTH - sum(widths) - 6) or [""]
        for number in range(max(len(theirs), len(ours))):
            cells = (
                line[0] if number == 0 else "",
                theirs[number] if number < len(theirs) else "",
                line[2] if number == 0 else "",
            )
            start = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            found.append(f"{start}  {ours[number] if number < len(ours) else ''}".rstrip())
    return found
