"""Each operation on a file fails, ends the process, or loses power: one line, no wrong row, and the next run completes."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import faulty_files
import numpy as np
import power_cut
import pytest
from extractors import (
    Extractor,
    ForkServer,
    Reference,
    Tally,
    compute_reference,
    format_seconds_since,
    read_served,
    write_images,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for processes by descriptor, as Linux has")

IMAGES = 6
BATCH = 3
# A process that ends where it would have read leaves what one leaves that ends at its next change.
CHANGES = (*faulty_files.WRITES, "unlink", "rmdir", "chmod")
FAULTS: list[dict[str, Any]] = [
    {"fault": "EIO", "only": CHANGES},
    {"fault": "ENOSPC", "only": faulty_files.WRITES},
    {"fault": "ENOSPC", "only": faulty_files.WRITES, "sticky": True},
    {"fault": "lost EIO", "only": ("write", "fsync", "rename", "mkdir", "close")},
    {"fault": "short", "only": ("write",)},
    {"fault": "crash", "only": CHANGES},
    {"fault": "torn", "only": ("write",)},
]
MANY_FAULTS: list[dict[str, Any]] = [{"fault": "EIO"}, {"fault": "EIO", "sticky": True}, {"fault": "crash"}]


def called(fault: Mapping[str, Any]) -> str:
    everywhere = " everywhere" if fault["fault"] in {"crash", "EIO"} and "only" not in fault else ""
    return f"{fault['fault']}{' from there on' if fault.get('sticky') else ''}{everywhere}"


@dataclass(frozen=True)
class Scene:
    """Images, the rows due, and the cache that each run begins with (None: no folder yet)."""

    data: Path
    reference: Reference
    nursery: ForkServer
    before: Path | None
    folder: Path

    def extract(self, place: Path, **faults: Any) -> Extractor:
        options = {"root": str(place), **faults} if faults else None
        return self.nursery.extract(self.data, place / "cache", batch_size=BATCH, faults=options)

    def place(self, name: str) -> Path:
        place = self.folder / name
        if self.before is None:
            place.mkdir()
        else:
            shutil.copytree(self.before, place)
        return place


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with ForkServer(tmp_path_factory.mktemp("nursery")) as found:
        yield found


@pytest.fixture(params=["no cache yet", "a cache with some rows and a damaged shard"])
def scene(request: pytest.FixtureRequest, nursery: ForkServer, memory: Path) -> Scene:
    data = write_images(memory / "data", IMAGES)
    before = None
    if request.param != "no cache yet":
        before = memory / "before"
        before.mkdir()
        some = write_images(memory / "some" / "data", IMAGES)
        for path in sorted(some.glob("*/*"))[::3]:
            path.unlink()
        assert nursery.extract(some, before / "cache", batch_size=2).computed == (4, 2)
        victim = sorted(before.glob("cache/features/*/late.avg/*.h5"))[0]
        victim.chmod(0o644)
        victim.write_bytes(victim.read_bytes()[:-1])
    (memory / "places").mkdir()
    return Scene(data, compute_reference(data), nursery, before, memory / "places")


def complaint(run: Extractor, fault: Mapping[str, Any], met: Mapping[str, Any] | None) -> str:
    """What is wrong with how the command ended, or "": a fault is one line for the user, or nothing to him at all."""
    if met is not None and fault["fault"] in faulty_files.FATAL_FAULTS:
        return "" if run.exit_code == -signal.SIGKILL else "it went on"
    if run.exit_code not in ({0, 1} if met is None else {0, 1, 2}):
        return "a crash"
    if "Traceback" in run.err:
        return f"a traceback that ends with {run.err.splitlines()[-1]}"
    if run.err.count("\n") != (run.exit_code == 2) or (run.exit_code == 2 and not run.err.startswith("humeris: ")):
        return f"not one line: {run.err}"
    return ""


def one(scene: Scene, fault: Mapping[str, Any], number: int, tally: Tally, complaints: list[str]) -> bool:
    """Let operation `number` meet the fault, judge what is left, and complete it; False when there was no such operation."""
    place = scene.place(f"{called(fault)} {number}".replace(" ", "-"))
    run = scene.extract(place, at=number, **fault)
    where = f"{called(fault)} {number}, exit {run.exit_code}"
    met = next((event for event in run.events if "fault" in event), None)
    where += f", at {met}"
    if found := complaint(run, fault, met):
        complaints.append(f"{where}: {found}")
    tally[f"exit {run.exit_code}"] += met is not None
    tally["bare"] += "[Errno" in run.err
    acknowledged = [run.acknowledged]
    tally.compare(read_served(place / "cache", scene.reference), scene.reference, acknowledged)
    if scene.before is None:
        tally.examine(place / "cache", scene.reference)
    rerun = scene.extract(place)
    acknowledged.append(rerun.acknowledged)
    if rerun.exit_code not in {0, 1} or tally.check(place / "cache", scene.reference, acknowledged) != scene.reference:
        complaints.append(f"{where}: the next run did not complete: {rerun.err}")
    elif number % 4 == 0 and scene.extract(place).computed != (0, 0):
        complaints.append(f"{where}: the third run found something to do")
    tally["operations failed"] += met is not None
    shutil.rmtree(place)
    return met is not None


@pytest.mark.parametrize(
    "fault", [*FAULTS, *(pytest.param(fault, marks=pytest.mark.many) for fault in MANY_FAULTS)], ids=called
)
def test_any_operation_may_fail_and_no_row_is_lost_wrong_or_filler(scene: Scene, fault: dict[str, Any]) -> None:
    began, tally = monotonic(), Tally()
    complaints: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        for first in itertools.count(1, 8):
            if not all(pool.map(lambda number: one(scene, fault, number, tally, complaints), range(first, first + 8))):
                break
    exits = ", ".join(f"{count} with {name}" for name, count in sorted(tally.items()) if name.startswith("exit"))
    print(
        f"\n{called(fault)}: {tally['operations failed']} operations, {tally['lost']} of {tally['acknowledged']} "
        f"acknowledged rows lost, {tally['wrong']} of {tally['served']} wrong, {tally['filler']} filler, "
        f"{tally['litter']} files out of place; {exits}, {tally['bare']} in the system's own words; "
        f"{format_seconds_since(began)}"
    )
    for each in complaints:
        print(each)
    assert complaints == []
    tally.assert_sound()
    assert tally["operations failed"] >= (5 if "write" in fault.get("only", ())[:1] else 20)


# --- power cuts


def journal(scene: Scene) -> list[dict[str, Any]]:
    """All operations of one undisturbed run in their order, and what was acknowledged between them."""
    run = scene.extract(scene.place("journal"), journal=True)
    assert run.exit_code in {0, 1}, run.err
    return run.events


# How likely an unsynced name is there, and what became of unsynced bytes.
STATES = [(0.0, "missing"), (1.0, "missing"), (1.0, "zeroed"), (1.0, "torn"), (0.5, "kept"), *[(0.5, "any")] * 10]


def cut(scene: Scene, events: Sequence[Mapping[str, Any]], tally: Tally, complete_every: int = 0) -> None:
    """Rebuild what each cut may leave, and count what is lost or wrong; complete some of them."""
    random = np.random.default_rng(0)
    acknowledged: dict[str, set[bytes]] = {tap: set() for tap in scene.reference}
    reached = 0
    for number, disk in power_cut.iterate_cuts(scene.before, events):
        for event in (event for event in events[reached:number] if "tap" in event):
            keys = bytes.fromhex(event["keys"])
            acknowledged[event["tap"]] |= {keys[at : at + 32] for at in range(0, len(keys), 32)}
        reached = number
        for names, data in STATES:
            place = scene.folder / "cut"
            disk.write_after_cut(place, random, names, data)
            tally.compare(read_served(place / "cache", scene.reference), scene.reference, [acknowledged])
            tally["states"] += 1
            if complete_every and tally["states"] % complete_every == 0:
                rerun = scene.extract(place)
                assert rerun.exit_code in {0, 1}, rerun.err
                assert tally.check(place / "cache", scene.reference, [acknowledged]) == scene.reference
                assert scene.extract(place).computed == (0, 0)
                tally["completed"] += 1
            shutil.rmtree(place)


def test_a_power_cut_at_any_moment_loses_no_acknowledged_row_and_serves_no_wrong_one(scene: Scene) -> None:
    began, tally = monotonic(), Tally()
    cut(scene, journal(scene), tally, complete_every=30)
    print(
        f"\n{tally['states']} states after a power cut: {tally['lost']} of {tally['acknowledged']} acknowledged rows lost, "
        f"{tally['wrong']} of {tally['served']} wrong; {tally['completed']} completed; {format_seconds_since(began)}"
    )
    tally.assert_sound()
    assert tally["states"] >= 500
    assert tally["acknowledged"] > tally["states"]


@pytest.mark.parametrize("scene", ["no cache yet"], indirect=True)
def test_the_model_of_a_power_cut_would_notice_a_sync_that_is_not_there(scene: Scene) -> None:
    events = journal(scene)
    shards = [event["path"] for event in events if event.get("operation") == "rename" and event["path"].endswith(".h5")]
    drafts = {event["source"] for event in events if event.get("operation") == "rename" and event["path"] in shards}
    folders = {str(Path(path).parent) for path in shards}
    assert len(shards) == 4
    for without in (drafts, folders):
        left = [event for event in events if not (event.get("operation") == "fsync" and event["path"] in without)]
        assert len(left) < len(events)
        tally = Tally()
        cut(scene, left, tally)
        assert tally["lost"] > 0
        assert tally["wrong"] == 0
