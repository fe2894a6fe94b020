"""The one door to Keras: imported when first needed, without its start-up chatter."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator
from typing import Any

from . import device


def load_keras() -> Any:
    """Import Keras, without its start-up chatter, and check the device.

    The first call takes seconds and hundreds of megabytes; `--help` and sweeps of linear heads avoid it.

    Returns
    -------
    module
        `keras`.

    Raises
    ------
    DeviceError
        Where Keras does not compute on the device that `device.use` named.
    """
    if "keras" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        with _silence_descriptor(2):  # TensorFlow's C++ prints on import and when it first looks for devices
            import keras

            keras.ops.zeros(())
        device.check(keras)
        _disable_tf32(keras)
    import keras

    return keras


def _disable_tf32(keras: Any) -> None:
    """On GPUs TensorFlow takes TF32 for float32, with a relative error of 1e-3: another precision under the same key."""
    if keras.backend.backend() == "tensorflow" and device.list_gpus(keras):
        import tensorflow

        tensorflow.config.experimental.enable_tensor_float_32_execution(False)


@contextlib.contextmanager
def _silence_descriptor(descriptor: int) -> Iterator[None]:
    """Send a file descriptor to nowhere; Python exceptions are not affected."""
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

    Unnamed layers are named by a process-wide counter, so the second InceptionV3 of a process has other layer names
    than the first. The caller's counter is put back. Keras offers no public way but `clear_session`, which also drops
    the caller's state.
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
    """Make Keras's initializers repeatable inside the context.

    They draw their seeds from Python's own generator, whose state is put back.

    Parameters
    ----------
    seed : int
        Of Python's generator.
    """
    saved_state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(saved_state)
