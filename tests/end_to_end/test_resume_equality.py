"""An extraction that was interrupted, however often, stores what an uninterrupted one stores, byte for byte."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
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

SIGNALS = (signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
IMAGES = 61  # a last batch that is not full
REAL_IMAGES = 203


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[ForkServer]:
    with ForkServer(tmp_path / "nursery") as found:
        yield found


def begun(extractor: Extractor) -> bool:
    """Whether the command itself was reached; before that Python and typer are still putting it together."""
    return extractor.exit_code != 1 or ", in extract\n" in extractor.err


def without_ignored(errors: str) -> str:
    """What came before "Exception ignored in … __del__": classes interrupted inside a constructor complain so.

    Cython's, h5py's among them, print the traceback first and those words after it.
    """
    before, ignored, _ = errors.partition("Exception ignored")
    return before.partition('Traceback (most recent call last):\n  File "h5py/_objects.pyx"')[0] if ignored else before


@pytest.mark.parametrize("interruptions", [20, pytest.param(50, marks=pytest.mark.many)])
def test_interruptions_change_no_byte(interruptions: int, nursery: ForkServer, tmp_path: Path) -> None:
    began = time.monotonic()
    data = write_images(tmp_path / "data", IMAGES)
    starting = time.monotonic()
    assert nursery.extract(data, tmp_path / "never").computed[0] == IMAGES
    length = time.monotonic() - starting
    never = read_served(tmp_path / "never", compute_reference(data))
    assert never == compute_reference(data)
    random, ends, tally = np.random.default_rng(3), Counter[str](), Tally()
    caches = 0
    while ends.total() < interruptions:
        caches += 1
        cache = tmp_path / f"cache{caches}"
        acknowledged = []
        while True:
            extractor = nursery.extract(data, cache)
            acknowledged.append(extractor.acknowledged)
            number = SIGNALS[int(random.integers(len(SIGNALS)))]
            if ends.total() == interruptions or extractor.has_ended(random.uniform(0, length)):
                assert extractor.exit_code == 0, extractor.err
                break
            extractor.send_signal(number)
            code = extractor.exit_code
            if code == 0:  # the signal came when all was done
                break
            if begun(extractor):
                assert code in {-number, 128 + number}, (code, extractor.err)
                assert "Traceback" not in without_ignored(extractor.err), extractor.err
            ends[signal.Signals(number).name] += 1
            acknowledged[-1] = extractor.acknowledged
        assert tally.check(cache, never, acknowledged) == never
        assert nursery.extract(data, cache).computed == (0, 0)
    tally.assert_sound()
    print(
        f"\n{ends.total()} interruptions ({', '.join(f'{count} {name}' for name, count in sorted(ends.items()))}) of "
        f"{caches} extractions: {tally['lost']} of {tally['acknowledged']} acknowledged rows lost, {tally['wrong']} of "
        f"{tally['served']} not the bytes of an uninterrupted one; {format_seconds_since(began)}"
    )
    assert set(ends) == {each.name for each in SIGNALS}


# --- the real command, with Keras


def interrupt_the_real_command(data: Path, cache: Path, number: int, lines: int, out: Path) -> int:
    """Send a real command a signal once it has told so many things; its exit code."""
    command = [sys.executable, stand_in.__file__, "extract", str(data), "-b", "nano,image_size=32", "-l", "block2_out:avg"]
    command += ["-l", "block4_out:map", "--batch-size", "8", "-j", "1", "--json"]
    read, write = os.pipe()
    environment = {**os.environ, "HUMERIS_CACHE": str(cache), "TOLD": str(write)}
    with out.open("wb") as file:
        process = subprocess.Popen(command, env=environment, pass_fds=[write], stdout=file, stderr=file)
    os.close(write)
    with process, os.fdopen(read, "rb") as told:
        assert all(told.readline() for _ in range(lines)), out.read_text()
        ended = os.pidfd_open(process.pid)
        select.select([ended], [], [], 0.001 * number)
        os.close(ended)
        process.send_signal(number)
        told.read()
    assert "Traceback" not in out.read_text(), out.read_text()
    return process.returncode


def complete(data: Path, cache: Path) -> tuple[int, Reference]:
    """Complete an extraction in this process: images computed, and all rows."""
    taps = ["block2_out:avg", "block4_out:map"]
    with Store(cache, write=True) as store:
        images = load_images(data, store, jobs=1)
        done = extract_features(images, store, ExtractConfig("nano,image_size=32", layers=taps, batch_size=8, jobs=1))[0]
    reference: Reference = {str(tap): dict.fromkeys((image.digest for image in images.used), b"") for tap in done.taps}
    return done.computed, read_served(cache, reference)


def test_real_interruptions_with_padded_batches_change_no_byte(tmp_path: Path) -> None:
    """After each one the batches fall otherwise, and the last is padded."""
    began = time.monotonic()
    data = write_images(tmp_path / "data", REAL_IMAGES)
    stored = []
    for number, lines in ((signal.SIGINT, 4), (signal.SIGKILL, 2), (signal.SIGTERM, 5)):
        code = interrupt_the_real_command(data, tmp_path / "cache", number, lines, tmp_path / "out")
        assert code in {-number, 128 + number}, (tmp_path / "out").read_text()
        stored.append(len(list(tmp_path.glob("cache/features/*/*/*.h5"))))
    never, reference = complete(data, tmp_path / "never")
    rest, found = complete(data, tmp_path / "cache")
    assert never == REAL_IMAGES
    assert 0 < rest < REAL_IMAGES
    assert all(len(rows) == REAL_IMAGES for rows in reference.values())
    assert found == reference
    print(
        f"\n3 real interruptions: {stored} shards after each, {rest} of {REAL_IMAGES} images left to the last run, 0 of "
        f"{2 * REAL_IMAGES} rows other than those of an uninterrupted one; {format_seconds_since(began)}"
    )
    assert complete(data, tmp_path / "cache")[0] == 0
