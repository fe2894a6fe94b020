"""Lazy, quiet import of Keras."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

from . import device


def load_keras() -> Any:
    """Import Keras without its start-up messages, and check the device.

    The first call takes seconds and hundreds of megabytes; `--help` and sweeps of linear heads do not need it.

    Returns
    -------
    module
        `keras`.

    Raises
    ------
    DeviceError
        If Keras does not compute on the device given to `device.use`.
    """
    if "keras" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        with _silence_descriptor(2):  # TensorFlow's C++ prints on import and at its first search for devices
            import keras

            keras.ops.zeros(())
        device.check(keras)
        _disable_tf32(keras)
    import keras

    return keras


def _disable_tf32(keras: Any) -> None:
    """Disable TF32, which TensorFlow uses for float32 on GPUs: its relative error of 1e-3 would not be in the key."""
    if keras.backend.backend() == "tensorflow" and device.list_gpus(keras):
        import tensorflow

        tensorflow.config.experimental.enable_tensor_float_32_execution(False)


@contextlib.contextmanager
def _silence_descriptor(descriptor: int) -> Iterator[None]:
    """Redirect a file descriptor to the null device; Python exceptions are not affected."""
    sys.stderr.flush()
    saved_descriptor = os.dup(descriptor)
    devnull_descriptor = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull_descriptor, descriptor)
        yield
    finally:
        os.dup2(saved_descriptor, descriptor)
        os.close(saved_descriptor)
        os.close(devnull_descriptor)


@contextlib.contextmanager
def reset_layer_names() -> Iterator[None]:
    """Number unnamed layers from the start (`conv2d`, `conv2d_1`, …), whatever was built before.

    Keras names them with a process-wide counter, so the second InceptionV3 of a process has other layer names than the
    first. The counter is restored afterwards. The only public alternative, `clear_session`, also drops the caller's state.
    """
    load_keras()
    from keras.src.backend.common import global_state

    name = "object_name_uids"
    saved_uids = global_state.get_global_attribute(name)
    global_state.set_global_attribute(name, None)
    try:
        yield
    finally:
        global_state.set_global_attribute(name, saved_uids)


@contextlib.contextmanager
def seed_initializers(seed: int) -> Iterator[None]:
    """Make Keras's initializers deterministic inside the context.

    They draw their seeds from Python's `random`, whose state is restored afterwards.

    Parameters
    ----------
    seed : int
        Seed of Python's `random`.
    """
    saved_state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(saved_state)
