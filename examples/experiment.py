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

from humeris.classify.evaluate.metrics import ClassificationScores
from humeris.classify.evaluate.trial import Score, Trial, rank_trials
from humeris.classify.runs.run import Run

WIDTH = 110  # of what is printed


@dataclass(frozen=True)
class Row:
    """One experiment.

    description, reported_result: what its authors did, and their figure. commands: what is typed after `humeris`, with
    `{data}` and `{out}` where the user's folders go; the last `-o` is the run that the row is about. compared_options:
    options of its heads, or `tap`, whose values are set side by side; `case` tells the case that its data is judged to be
    in.
    """

    name: str
    description: str
    reported_result: str
    commands: tuple[str, ...]
    compared_options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Smoke:
    """How a table is run in little: on drawings, which `draw` writes into a folder and names, and with random weights.

    extra_arguments: what is added to a command for the first of these words that is in it. replacements: as `--replace`.
    replacements_by_row: the same for the rows named: networks for those of which a few steps of training would take minutes.
    """

    draw: Callable[[Path], Path]
    extra_arguments: Mapping[str, str]
    replacements: Mapping[str, str] = field(default_factory=dict)
    replacements_by_row: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ExperimentPlan:
    """What the user asked for; `extra_arguments`, `replacements` and `replacements_by_row` as `Smoke` has them."""

    data: str
    out: Path
    replacements: Mapping[str, str]
    extra_arguments: Mapping[str, str] = field(default_factory=dict)
    replacements_by_row: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def list_commands(self, row: Row) -> list[list[str]]:
        """The words of each of a row's commands as they are typed."""
        return [
            self._expand_command(command, {**self.replacements_by_row.get(row.name, {}), **self.replacements})
            for command in row.commands
        ]

    def _expand_command(self, command: str, replacements: Mapping[str, str]) -> list[str]:
        words = [_replace_names(word, replacements) for word in shlex.split(command)]
        extra = next((addition for key, addition in self.extra_arguments.items() if key in words), "")
        return [word.format(data=self.data, out=self.out) for word in [*words, *shlex.split(extra)]]


def main(description: str, rows: Sequence[Row], smoke: Smoke, data: str = "") -> int:
    """Run the rows that the command line asks for, print the table; 1 when a command of theirs failed.

    description: the script's docstring. data: DATA where none is given, if there is such a thing.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    arguments = parser.parse_args()
    names = [name.strip() for name in arguments.rows.split(",") if name.strip()]
    if unknown := set(names) - {row.name for row in rows}:
        parser.error(f"--rows {', '.join(sorted(unknown))}: no such row; use some of {', '.join(row.name for row in rows)}")
    if malformed := [text for text in arguments.replace if not all(text.partition("="))]:
        parser.error(f"--replace {malformed[0]!r}: not OLD=NEW")
    if not (arguments.data or arguments.smoke or arguments.list):
        parser.error("no DATA; give a folder of images, or --smoke")
    selected_rows = [row for row in rows if row.name in names or not names]
    replacements = dict(text.split("=", 1) for text in arguments.replace)
    out = arguments.out or Path("runs") / Path(sys.argv[0]).stem
    with tempfile.TemporaryDirectory() as scratch:
        plan = ExperimentPlan(arguments.data or "DATA", out, replacements)
        cache = arguments.cache
        if arguments.smoke:
            out = arguments.out or Path(scratch) / "runs"
            cache = arguments.cache or Path(scratch) / "cache"
            drawings = str(smoke.draw(Path(scratch) / "drawings"))
            plan = ExperimentPlan(
                drawings, out, {**smoke.replacements, **replacements}, smoke.extra_arguments, smoke.replacements_by_row
            )
        return _print_commands(selected_rows, plan) if arguments.list else _run_rows(selected_rows, plan, cache)


def draw_folders(folder: Path, splits: Mapping[str, int], side: int, classes: Sequence[str] = ("beast", "bird")) -> Path:
    """The folder, with so many drawings of each class in each split: `folder/train/beast/0.png` and so on."""
    import numpy as np

    for split, count in splits.items():
        for name in classes:
            class_folder = folder / split / name
            class_folder.mkdir(parents=True)
            for number in range(count):
                random = np.random.default_rng([len(split), classes.index(name), number])
                color, background = random.uniform(0, 255, (2, 3))
                mask = draw_object(random, name)[..., None]
                pixels = (mask * color + (1 - mask) * background).astype(np.uint8)
                Image.fromarray(pixels).resize((side, side)).save(class_folder / f"{number}.png")
    return folder


def _replace_names(word: str, replacements: Mapping[str, str]) -> str:
    """The word with others for names in it; a run folder is called after the network that takes another's place."""
    for old, new in replacements.items():
        name = re.sub(r"[^\w.,=-]", "_", new) if "{" in word else new
        word = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _, name=name: name, word)
    return word


def _print_commands(rows: Sequence[Row], plan: ExperimentPlan) -> int:
    for row in rows:
        print(f"\n{row.name}  {row.description}")
        for words in plan.list_commands(row):
            print("    " + shlex.join(["humeris", *words]))
    return 0


def _run_rows(rows: Sequence[Row], plan: ExperimentPlan, cache: Path | None) -> int:
    if cache is not None:
        os.environ["HUMERIS_CACHE"] = str(cache)
        print(f"export HUMERIS_CACHE={shlex.quote(str(cache))}")
    exit_codes: dict[str, int] = {}
    for row in rows:
        print(f"\n=== {row.name}: {row.description}\n    theirs: {row.reported_result}")
        for words in plan.list_commands(row):
            command_line = shlex.join(["humeris", *words])
            if command_line in exit_codes:
                print(f"$ {command_line}    (done above)")
                continue
            print(f"$ {command_line}", flush=True)
            start_time = time.monotonic()
            exit_codes[command_line] = run_command(words)
            print(f"    {time.monotonic() - start_time:.1f} s, exit code {exit_codes[command_line]}", flush=True)
            if exit_codes[command_line] > 1:
                break
    return _print_table(rows, plan, exit_codes)


def run_command(words: Sequence[str]) -> int:
    """The exit code of a `humeris` command, run in this process as if it had been typed."""
    from humeris.cli import main as humeris

    previous_argv, sys.argv = sys.argv, ["humeris", *words]
    try:
        humeris()
    except SystemExit as exit_error:
        code = exit_error.code if isinstance(exit_error.code, int) else int(exit_error.code is not None)
        if code == 130:
            raise KeyboardInterrupt from None
        return code
    finally:
        sys.argv = previous_argv
    return 0


def _print_table(rows: Sequence[Row], plan: ExperimentPlan, exit_codes: Mapping[str, int]) -> int:
    """Print the table, and what each row compared."""
    lines, comparisons, n_failed = [("row", "theirs", "ours (95 % interval)", "with")], [], 0
    for row in rows:
        commands = plan.list_commands(row)
        failed_commands = [words for words in commands if exit_codes.get(shlex.join(["humeris", *words]), 0) > 1]
        if failed_commands:
            n_failed += 1
            lines.append((row.name, row.reported_result, "failed", shlex.join(["humeris", *failed_commands[0]])))
            continue
        run = Run.load(_find_run_folder(commands))
        lines.append((row.name, row.reported_result, _format_accuracy(run.result.test), _describe_winner(run)))
        comparisons += [f"{row.name}: {line}" for line in _compare_options(run, row.compared_options)]
    print("\n" + "\n".join(_align_table(lines)))
    if comparisons:
        print("\nby the images held out for choosing:")
        print("\n".join(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ") for line in comparisons))
    return int(n_failed > 0)


def _find_run_folder(commands: Sequence[Sequence[str]]) -> str:
    """The run that a row's commands leave last."""
    return [words[words.index("-o") + 1] for words in commands if "-o" in words][-1]


def _format_accuracy(test: ClassificationScores) -> str:
    low, high = test.accuracy_95
    return f"{test.accuracy:.4f} ({low:.3f} to {high:.3f})"


def _describe_winner(run: Run) -> str:
    """The winner: its head and taps; where it has learning curves, its best epoch, and its accuracy there on both sides."""
    trial, score = run.find_trial(run.result.best.id)
    head = f"finetune from {trial.hyperparameters['from']}" if trial.head == "finetune" else trial.head
    text = f"{head} on {_format_taps(trial, ())}"
    curves = score.fit_info.get("curves") or {}
    if not {"accuracy", "val_accuracy"} <= set(curves):  # triplets and contrast have a loss only
        return f"{text}; held out {score.accuracy:.3f}"
    epoch, n_epochs = score.fit_info["epochs"], len(curves["val_loss"])
    train_accuracy, held_out_accuracy = (curves[name][epoch - 1] for name in ("accuracy", "val_accuracy"))
    return (
        f"{text}; best epoch {epoch} of {n_epochs}: {train_accuracy:.3f} on what it learnt from, {held_out_accuracy:.3f} "
        "held out"
    )


def _compare_options(run: Run, options: Sequence[str]) -> list[str]:
    """For each head and each of the options, the accuracy of the best setting at each of the values that were tried.

    The best, here as in the leaderboard, is the setting with the lowest log-loss, on the taps with the highest accuracy.
    """
    comparisons, scores, tap_order = (
        [],
        run.load_trials(),
        {tap_ref: index for index, tap_ref in enumerate(run.metadata.depths)},
    )
    if "case" in options:
        advice = run.result.advice
        comparisons.append(f"the case is {(advice and advice.scenario) or 'not clear'}")
    for head in dict.fromkeys(trial.head for trial in scores):
        head_scores = {trial: score for trial, score in scores.items() if trial.head == head}
        for option in [name for name in options if name != "case"]:
            groups: dict[Any, dict[Trial, Score]] = {}
            for trial in sorted(head_scores, key=lambda trial: [tap_order.get(tap_ref, -1) for tap_ref in trial.tap_refs]):
                value = _format_taps(trial, head_scores) if option == "tap" else trial.hyperparameters.get(option)
                groups.setdefault(value, {})[trial] = scores[trial]
            best = {value: group[rank_trials(group)[0]] for value, group in groups.items()}
            if len(best) > 1:
                comparisons.append(f"{head} {option}: " + ", ".join(f"{value} {best[value].accuracy:.3f}" for value in best))
    return comparisons


def _format_taps(trial: Trial, trials: Collection[Trial]) -> str:
    """The trial's taps, without the network where that is the same for all of the others."""
    backbones = {source.backbone for other in trials for source in other.tap_refs}
    return " + ".join(f"{tap.layer}:{tap.pool}" if len(backbones) == 1 else str(tap) for tap in trial.tap_refs)


def _align_table(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a table; its second and its last column are wrapped."""
    widths = [max(len(line[0]) for line in lines), 30, max(len(line[2]) for line in lines)]
    rows = []
    for line in lines:
        reported, result = textwrap.wrap(line[1], widths[1]) or [""], textwrap.wrap(line[3], WIDTH - sum(widths) - 6) or [""]
        for number in range(max(len(reported), len(result))):
            cells = (
                line[0] if number == 0 else "",
                reported[number] if number < len(reported) else "",
                line[2] if number == 0 else "",
            )
            start = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            rows.append(f"{start}  {result[number] if number < len(result) else ''}".rstrip())
    return rows
