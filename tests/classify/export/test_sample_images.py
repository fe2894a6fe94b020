"""Images of a run for checking an export: what one of them does to its decoder, it does to itself alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from run_values import make_data, make_metadata

from humeris.cache.errors import DataError
from humeris.classify.export.sample_images import load_pixels
from humeris.classify.runs.run import ImageRecord, Run
from humeris.extract.images.class_folders import ClassFolders
from humeris.extract.pixels import decode, read_file

SIZE = (20, 24)


def test_an_image_that_kills_its_decoder_is_named_and_the_others_are_read(
    photos: Path, tmp_path: Path, bad_decoder: Callable[[str], None]
) -> None:
    (photos / "blob" / "00.png").rename(photos / "blob" / "bad.png")
    bad_decoder("os.kill(os.getpid(), signal.SIGSEGV)")
    paths = sorted(photos.rglob("*.png"))
    records = [
        ImageRecord(str(path.relative_to(photos)), path.parent.name, "test", read_file.compute_digest(path.read_bytes()))
        for path in paths
    ]
    run = Run(tmp_path / "run")
    run.begin(make_metadata(data=make_data(**ClassFolders(photos).describe())))
    with pytest.raises(
        DataError, match=r"blob/bad.png: cannot read an image .*two decoders crashed on it \(SIGSEGV\)"
    ) as refusal:
        load_pixels(run, records, SIZE)
    assert "\n" not in str(refusal.value)
    good = [(record, path) for record, path in zip(records, paths, strict=True) if path.name != "bad.png"]
    pixels = load_pixels(run, [record for record, _ in good], SIZE)
    assert np.array_equal(pixels, [decode.decode(path.read_bytes(), SIZE) for _, path in good])
