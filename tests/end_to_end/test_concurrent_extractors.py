"""Several extractors and readers at the same moment on one cache: nothing wrong, and little computed twice."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from extractors import (
    Extractor,
    ForkServer,
    Reference,
    Tally,
    compute_reference,
    count_stored_rows,
    format_seconds_since,
    read_served,
    write_images,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for processes by descriptor, as Linux has")

EXTRACTORS, READERS = 4, 2
IMAGES, BATCH = 2000, 32
SHARD = 128  # images; the rows of both taps together weigh 480 bytes an image
SHARD_BYTES = 480 * SHARD


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with ForkServer(tmp_path_factory.mktemp("nursery")) as found:
        yield found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), IMAGES)


@pytest.fixture(scope="module")
def reference(data: Path) -> Reference:
    return compute_reference(data)


def read_on(cache: Path, reference: Reference, tally: Tally, stop: threading.Event) -> None:
    """Read all there is, again and again; no row that was there may be gone."""
    before: Reference = {tap: {} for tap in reference}
    while True:
        last = stop.is_set()
        there = {tap: set(rows) for tap, rows in before.items()}
        before = tally.compare(read_served(cache, reference), reference, [there])
        tally["readings"] += 1
        tally["readings of some"] += 0 < len(before["late:avg"]) < IMAGES
        if last:
            return


def together(
    nursery: ForkServer, data: Path, cache: Path, reference: Reference, claims: bool
) -> tuple[Tally, list[Extractor]]:
    """Four extractors begun at the same moment while two threads read."""
    began, tally, stop = time.monotonic(), Tally(), threading.Event()
    tallies = [Tally() for _ in range(READERS)]
    readers = [threading.Thread(target=read_on, args=(cache, reference, each, stop)) for each in tallies]
    for reader in readers:
        reader.start()
    try:
        running = [
            nursery.extract(data, cache, batch_size=BATCH, shard_bytes=SHARD_BYTES, claims=claims) for _ in range(EXTRACTORS)
        ]
        codes = [each.exit_code for each in running]
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert codes == [0] * EXTRACTORS, [each.err for each in running]
    for each in tallies:
        tally.update(each)
    found = tally.check(cache, reference, [each.acknowledged for each in running])
    assert found == reference
    tally["computed"] = sum(each.computed[0] for each in running)
    rows, different = count_stored_rows(cache)
    shares = ", ".join(str(each.computed[0]) for each in running)
    print(
        f"\n{EXTRACTORS} extractors of the same {IMAGES} images, {'with' if claims else 'without'} claims: "
        f"{tally['lost']} of {tally['acknowledged']} acknowledged rows lost, {tally['wrong']} of {tally['served']} wrong, "
        f"{tally['filler']} filler; "
        f"{tally['computed'] - IMAGES} images computed twice ({shares}), "
        f"{rows - different} of {rows} rows stored twice; {tally['readings']} readings, {tally['readings of some']} of a "
        f"part; {format_seconds_since(began)}"
    )
    return tally, running


def test_extractors_and_readers_at_once_never_see_a_wrong_row(
    nursery: ForkServer, data: Path, reference: Reference, tmp_path: Path
) -> None:
    tally, running = together(nursery, data, tmp_path / "cache", reference, claims=True)
    tally.assert_sound()
    assert not [event for each in running for event in each.events if "lock" in event], "a lock on a file"
    assert tally["readings of some"] > 0
    assert nursery.extract(data, tmp_path / "cache").computed == (0, 0)


def test_without_claims_it_is_the_same(nursery: ForkServer, data: Path, reference: Reference, tmp_path: Path) -> None:
    """Where nobody is held off, only work is lost: nothing that is right depends on a claim."""
    tally, _ = together(nursery, data, tmp_path / "cache", reference, claims=False)
    tally.assert_sound()
    assert nursery.extract(data, tmp_path / "cache").computed == (0, 0)


def test_at_most_one_shard_per_extractor_is_computed_twice(
    nursery: ForkServer, data: Path, reference: Reference, tmp_path: Path
) -> None:
    """Three times, because who comes first is chance."""
    twice = []
    for number in range(3):
        tally, _ = together(nursery, data, tmp_path / f"cache{number}", reference, claims=True)
        twice.append(tally["computed"] - IMAGES)
    assert max(twice) <= EXTRACTORS * SHARD, twice
