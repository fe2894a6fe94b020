"""Killed at random moments while others work on the same cache: nothing acknowledged is lost, nothing wrong is served."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import stand_in
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

from humeris.cache.store import Store
from humeris.extract.engine.extract import extract_features
from humeris.extract.engine.extract_config import ExtractConfig
from humeris.extract.images.load import load_images

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for processes by descriptor, as Linux has")

AT_ONCE = 3
IMAGES = 60
REAL_IMAGES = 160


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[ForkServer]:
    with ForkServer(tmp_path / "nursery") as found:
        yield found


def moment(extractor: Extractor, found: Reference, reference: Reference) -> str:
    """Where the work stood when `extractor` was killed and the cache served what was `found`."""
    if list(extractor.cache.glob(f"tmp/{extractor.pid}-*")):
        return "killed while writing a file"
    if not any(found.values()):
        return "killed before the first shard"
    whole = all(set(rows) == set(reference[tap]) for tap, rows in found.items())
    return "killed after the last shard" if whole else "killed between shards"


def one_round(
    nursery: ForkServer, data: Path, cache: Path, reference: Reference, kills: int, length: float,
    random: np.random.Generator, tally: Tally,
) -> None:  # fmt: skip
    """Fill one cache with three extractors that are killed and begun again until all rows are there, or `kills` is met.

    Some respect what others have claimed, and wait; most do not, so that several write at the same moment.
    """
    everyone: list[Extractor] = []

    def begin() -> tuple[float, Extractor]:
        everyone.append(nursery.extract(data, cache, claims=bool(random.random() < 0.25)))
        return time.monotonic() + random.uniform(0, length), everyone[-1]

    running = [begin() for _ in range(AT_ONCE)]
    whole = False
    while running:
        running.sort(key=lambda pair: pair[0])
        until, extractor = running.pop(0)
        if extractor.has_ended(until - time.monotonic()):
            assert extractor.exit_code == 0, extractor.output
            whole = True
            continue
        extractor.send_signal(signal.SIGKILL)
        acknowledged = [each.acknowledged for each in everyone]
        found = tally.compare(read_served(cache, reference), reference, acknowledged)
        if extractor.exit_code == -signal.SIGKILL:
            tally["kills"] += 1
            tally[moment(extractor, found, reference)] += 1
        if not whole and tally["kills"] < kills:
            running.append(begin())
    if not whole:
        everyone.append(nursery.extract(data, cache))
        assert everyone[-1].exit_code == 0, everyone[-1].err
    tally["images computed"] += sum(event.get("computed", 0) for each in everyone for event in each.events)
    tally["images"] += IMAGES
    assert tally.check(cache, reference, [each.acknowledged for each in everyone]) == reference
    assert nursery.extract(data, cache).computed == (0, 0)


def kill(nursery: ForkServer, folder: Path, kills: int, seed: int) -> Tally:
    """As many kills as asked for, over as many fresh caches as that takes."""
    data = write_images(folder / "data", IMAGES)
    reference = compute_reference(data)
    random, tally = np.random.default_rng(seed), Tally()
    starting = time.monotonic()
    together = [nursery.extract(data, folder / "undisturbed", claims=False) for _ in range(AT_ONCE)]
    assert [each.exit_code for each in together] == [0] * AT_ONCE, [each.err for each in together]
    length = time.monotonic() - starting
    assert read_served(folder / "undisturbed", reference) == reference
    assert len(list(folder.glob("undisturbed/features/*/*/*.h5"))) >= IMAGES // 4
    began = time.monotonic()
    rounds = 0
    while tally["kills"] < kills:
        rounds += 1
        one_round(nursery, data, folder / f"cache{rounds}", reference, kills, length, random, tally)
    again = tally["images computed"] - tally["images"]
    print(
        f"\n{tally['kills']} kills in {rounds} caches: {tally['lost']} of {tally['acknowledged']} acknowledged rows lost, "
        f"{tally['wrong']} of {tally['served']} wrong, {tally['filler']} filler, {tally['litter']} files out of place, "
        f"{again} of {tally['images computed']} images computed again; {length:.2f} s uninterrupted, "
        f"{format_seconds_since(began)} in all; "
        + ", ".join(f"{count} {name}" for name, count in sorted(tally.items()) if name.startswith("killed"))
    )
    return tally


def assert_unbroken(tally: Tally, kills: int) -> None:
    tally.assert_sound()
    assert tally["kills"] >= kills
    moments = ("before the first shard", "while writing a file", "between shards", "after the last shard")
    assert all(tally[f"killed {name}"] for name in moments), tally
    assert tally["acknowledged"] > tally["kills"]


@pytest.mark.parametrize("kills", [70, *(pytest.param(kills, marks=pytest.mark.many) for kills in (200, 1000))])
def test_kills_lose_no_acknowledged_row_and_leave_no_wrong_one(kills: int, nursery: ForkServer, tmp_path: Path) -> None:
    assert_unbroken(kill(nursery, tmp_path, kills, seed=kills), kills)


def test_a_cache_that_loses_or_alters_rows_would_be_noticed(nursery: ForkServer, tmp_path: Path) -> None:
    """The instrument itself: each kind of fault, made by hand in a sound cache, is counted."""
    data = write_images(tmp_path / "data", 12)
    reference = compute_reference(data)
    done = nursery.extract(data, tmp_path / "cache")
    assert done.computed == (12, 3)
    tally = Tally()
    assert tally.check(tmp_path / "cache", reference, [done.acknowledged]) == reference
    tally.assert_sound()
    assert tally["acknowledged"] == 24
    first, second = sorted(reference["late:avg"])[:2]
    swapped = {**reference, "late:avg": {**reference["late:avg"], first: reference["late:avg"][second]}}
    altered = Tally()
    altered.check(tmp_path / "cache", swapped)
    assert altered["wrong"] == 2  # as served, and as it lies there
    victim = next(tmp_path.glob("cache/features/*/late.avg/*.h5"))
    victim.rename(tmp_path / "cache" / "elsewhere.h5")
    lacking = Tally()
    lacking.check(tmp_path / "cache", reference, [done.acknowledged])
    assert (lacking["lost"], lacking["litter"]) == (4, 1)


# --- the real command, with Keras


def kill_the_real_command(data: Path, cache: Path, lines: int, out: Path) -> dict[str, set[bytes]]:
    """Begin a real command, kill it after so many things it told, and say what was acknowledged to it."""
    command = [sys.executable, stand_in.__file__, "extract", str(data), "-b", "nano,image_size=32", "-l", "block2_out:avg"]
    command += ["-l", "block4_out:map", "--batch-size", "4", "-j", "1", "--json"]
    read, write = os.pipe()
    environment = {**os.environ, "HUMERIS_CACHE": str(cache), "TOLD": str(write)}
    with out.open("wb") as file, os.fdopen(read, "rb") as told:
        with subprocess.Popen(command, env=environment, pass_fds=[write], stdout=file, stderr=file) as process:
            os.close(write)
            heard = [told.readline() for _ in range(lines)]
            ended = os.pidfd_open(process.pid)
            select.select([ended], [], [], np.random.default_rng(lines).uniform(0, 0.01))
            os.close(ended)
            process.kill()
        heard += told.readlines()
    assert process.returncode == -signal.SIGKILL, f"it ended before it was killed: {out.read_text()}"
    taps: dict[str, set[bytes]] = {}
    for event in (json.loads(line) for line in heard if line.endswith(b"\n")):
        if "tap" in event:
            keys = bytes.fromhex(event["keys"])
            taps.setdefault(event["tap"], set()).update(keys[at : at + 32] for at in range(0, len(keys), 32))
    return taps


def with_keras(data: Path, cache: Path) -> tuple[int, Reference]:
    """Complete an extraction in this process: images computed, and all rows."""
    with Store(cache, write=True) as store:
        images = load_images(data, store, jobs=1)
        done = extract_features(
            images,
            store,
            ExtractConfig("nano,image_size=32", layers=["block2_out:avg", "block4_out:map"], batch_size=4, jobs=1),
        )[0]
    reference: Reference = {str(tap): dict.fromkeys((image.digest for image in images.used), b"") for tap in done.taps}
    return done.computed, read_served(cache, reference)


def test_real_commands_killed_with_keras_at_work_lose_no_acknowledged_row(tmp_path: Path) -> None:
    began = time.monotonic()
    data = write_images(tmp_path / "data", REAL_IMAGES)
    acknowledged = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for together in ((3, 30, 60), (1, 9)):
            killed = [
                pool.submit(kill_the_real_command, data, tmp_path / "cache", lines, tmp_path / f"out{lines}")
                for lines in together
            ]
            acknowledged += [each.result() for each in killed]
    computed, reference = with_keras(data, tmp_path / "other")
    assert computed == REAL_IMAGES
    tally = Tally()
    before = tally.check(tmp_path / "cache", reference, acknowledged)
    stored = min(len(rows) for rows in before.values())
    computed, found = with_keras(data, tmp_path / "cache")
    assert found == reference
    tally.check(tmp_path / "cache", reference, acknowledged)
    print(
        f"\n5 kills of the real command: {tally['lost']} of {tally['acknowledged']} acknowledged rows lost, "
        f"{tally['wrong']} of {tally['served']} wrong, {tally['filler']} filler; "
        f"{REAL_IMAGES - computed} of {REAL_IMAGES} images were there; {format_seconds_since(began)}"
    )
    tally.assert_sound()
    assert tally["acknowledged"] > 0
    assert computed == REAL_IMAGES - stored
    assert with_keras(data, tmp_path / "cache")[0] == 0
