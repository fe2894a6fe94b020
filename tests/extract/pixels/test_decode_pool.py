"""Decoder processes: a bad image affects only itself."""

from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from humeris.cache.errors import HumerisError
from humeris.extract.images.images import Image
from humeris.extract.images.item import Item
from humeris.extract.pixels import decode as pixels
from humeris.extract.pixels import decode_pool, read_file
from humeris.extract.pixels.augment import Policy
from humeris.extract.pixels.decode_pool import DecoderPool

SIZE = (24, 20)


def picture(path: Path, seed: int = 0) -> Image:
    drawn = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), np.uint8)
    Picture.fromarray(drawn).save(path)
    return Image(Item(path.name, path), read_file.compute_digest(path.read_bytes()), "PNG")


def decode(pool: DecoderPool, image: Image, size: tuple[int, int] = SIZE) -> np.ndarray:
    return pool.decode(image.item.location, size, image.digest)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(pixels.ImageRejected) as caught:
        call()
    return caught.value.reason


def test_pixels_are_those_of_the_one_definition(tmp_path: Path) -> None:
    images = [picture(tmp_path / f"{number}.png", number) for number in range(20)]
    with DecoderPool(2) as pool:
        decoded = list(read_file.map_in_order(lambda image: decode(pool, image, SIZE), images, 2, 8))
    for image, got in zip(images, decoded, strict=True):
        assert got.shape == (1, *SIZE, 3)
        assert np.array_equal(got[0], pixels.decode(image.item.location.read_bytes(), SIZE))


def test_views_are_those_of_the_policy(tmp_path: Path) -> None:
    image, policy = picture(tmp_path / "a.png"), Policy.parse("flip,crop,color")
    plain = pixels.decode(image.item.location.read_bytes(), SIZE)
    with DecoderPool(1) as pool:
        got = pool.decode(image.item.location, SIZE, image.digest, (0, 1, 3), policy)
        later = pool.decode(image.item.location, SIZE, image.digest, (3,), policy)
    assert np.array_equal(got[0], plain)
    assert np.array_equal(got[1], policy.make_view(plain, image.digest, 1))
    assert np.array_equal(got[2], policy.make_view(plain, image.digest, 3))
    assert np.array_equal(later[0], got[2])


def test_an_image_without_a_file_is_decoded_from_its_bytes() -> None:
    drawn = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)
    buffer = io.BytesIO()
    Picture.fromarray(drawn).save(buffer, "BMP")
    data = buffer.getvalue()
    image = Image(Item("x_train/0", data), read_file.compute_digest(data), "BMP")
    with DecoderPool(1) as pool:
        assert np.array_equal(decode(pool, image, SIZE)[0], drawn)


def test_a_large_request_and_a_large_answer_pass_the_pipes(tmp_path: Path) -> None:
    drawn = np.random.default_rng(1).integers(0, 256, (1500, 1400, 3), np.uint8)
    buffer = io.BytesIO()
    Picture.fromarray(drawn).save(buffer, "BMP")
    data = buffer.getvalue()
    image = Image(Item("x", data), read_file.compute_digest(data), "BMP")
    with DecoderPool(1) as pool:
        assert np.array_equal(decode(pool, image, (1500, 1400))[0], drawn)


def test_refusals_come_back_with_their_words_whatever_the_name(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n'=\xe2\x98\x83.png"))
    image = picture(odd)
    odd.write_bytes(odd.read_bytes()[:60])
    cut = Image(Item(image.name, odd), read_file.compute_digest(odd.read_bytes()), "PNG")
    with DecoderPool(1) as pool:
        with pytest.raises(pixels.ImageRejected) as here:
            pixels.decode(odd.read_bytes(), SIZE)
        with pytest.raises(pixels.ImageRejected) as there:
            decode(pool, cut, SIZE)
        assert (there.value.reason, str(there.value)) == (here.value.reason, str(here.value))
        assert refusal(lambda: decode(pool, image, SIZE)) == "changed"
        odd.unlink()
        assert refusal(lambda: decode(pool, image, SIZE)) == "unreadable"


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS"])
def test_an_image_that_crashes_its_decoder_costs_itself_alone(
    name: str, tmp_path: Path, bad_decoder: Callable[[str], None]
) -> None:
    bad_decoder(f"os.kill(os.getpid(), signal.{name})")
    bad, good = picture(tmp_path / "bad.png"), [picture(tmp_path / f"{number}.png", number) for number in range(4)]
    with DecoderPool(2) as pool:
        assert refusal(lambda: decode(pool, bad, SIZE)) == "crashed"
        assert all(decode(pool, image, SIZE).shape == (1, *SIZE, 3) for image in good)
    assert "crashed" in pixels.PERMANENT_REASONS


def test_a_decoder_that_is_killed_once_costs_a_retry(tmp_path: Path, bad_decoder: Callable[[str], None]) -> None:
    flag = tmp_path / "once"
    bad_decoder(f"open({str(flag)!r}, 'x'); os.kill(os.getpid(), signal.SIGKILL)")
    image = picture(tmp_path / "bad.png")
    with DecoderPool(
        1
    ) as pool:  # the second time `open` finds the file there, which is an error the decoder does not expect
        assert refusal(lambda: decode(pool, image, SIZE)) == "killed"
        bad_decoder(f"os.path.exists({str(flag)!r}) or (open({str(flag)!r}, 'x'), os.kill(os.getpid(), signal.SIGKILL))")
        flag.unlink()
        pool.close()
        assert decode(pool, image, SIZE).shape == (1, *SIZE, 3)
    assert flag.exists()
    assert "killed" not in pixels.PERMANENT_REASONS


def test_an_endless_loop_is_ended_by_the_kernel(tmp_path: Path, bad_decoder: Callable[[str], None]) -> None:
    bad_decoder(
        "import humeris.extract.pixels.decode_worker as d; d._set_limit(d.resource.RLIMIT_CPU, 1); exec('while True: pass')"
    )
    bad, good = picture(tmp_path / "bad.png"), picture(tmp_path / "good.png", 1)
    with DecoderPool(1) as pool:
        assert refusal(lambda: decode(pool, bad, SIZE)) == "too_slow"
        assert decode(pool, good, SIZE).shape == (1, *SIZE, 3)


def test_a_decoder_that_waits_for_ever_is_stopped(
    tmp_path: Path, bad_decoder: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_pool, "WALL_SECONDS", 1.5)
    bad_decoder("signal.pause()")
    bad, good = picture(tmp_path / "bad.png"), picture(tmp_path / "good.png", 1)
    with DecoderPool(1) as pool:
        assert refusal(lambda: decode(pool, bad, SIZE)) == "stalled"
        assert decode(pool, good, SIZE).shape == (1, *SIZE, 3)


def test_the_kernel_allows_an_image_so_much_processor_time_beyond_what_was_used() -> None:
    code = (
        "import resource, sys, humeris.extract.pixels.decode_worker as d\n"
        "used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])\n"
        "d._set_limit(resource.RLIMIT_CPU, int(used) + 1 + d.CPU_SECONDS)\n"
        "assert used + d.CPU_SECONDS < resource.getrlimit(resource.RLIMIT_CPU)[0] <= used + d.CPU_SECONDS + 2\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_decoders_end_with_their_parent(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from humeris.extract.pixels.decode_pool import DecoderPool\n"
        "pool = DecoderPool(1)\n"
        f"pool.decode(Path({str(image.item.location)!r}), {SIZE})\n"
        "print(pool._decoders[0]._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    child = int(done.stdout)
    try:
        descriptor = os.pidfd_open(child)
    except ProcessLookupError:  # gone already
        return
    assert select.select([descriptor], [], [], 20)[0], "the decoder outlived its parent"
    os.close(descriptor)


def test_the_decoder_loads_neither_keras_nor_hdf5() -> None:
    heavy = "{'keras', 'tensorflow', 'h5py', 'sklearn'}"
    code = f"import sys, humeris.extract.pixels.decode_worker; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_decoder_that_cannot_start_ends_the_command_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text("import os; os._exit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    with (
        DecoderPool(1) as pool,
        pytest.raises(
            HumerisError, match=r"process exits at once; to see why, run .* -m humeris.extract.pixels.decode_worker"
        ),
    ):
        decode(pool, picture(tmp_path / "a.png"))
