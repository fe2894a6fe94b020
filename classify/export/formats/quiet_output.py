"""Suppress what converters write to the terminal, from Python and from C++."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator

_LOGGERS = ("", "absl", "tensorflow", "tf2onnx")


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Suppress standard output, standard error, warnings and log messages while the context lasts.

    The file descriptors belong to the process: what other threads write is lost as well. Python's `sys.stderr` is not
    replaced, since TensorFlow's logger keeps for good the one that it finds at its first message.
    """
    loggers = {name: logging.getLogger(name) for name in _LOGGERS}
    levels = {name: logger.level for name, logger in loggers.items()}
    with _silence_descriptors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers.values():
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for name, level in levels.items():
                loggers[name].setLevel(level)


@contextlib.contextmanager
def _silence_descriptors() -> Iterator[None]:
    _flush()
    saved_descriptors = {number: os.dup(number) for number in (1, 2)}
    null_device = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in saved_descriptors:
            os.dup2(null_device, number)
        yield
    finally:
        _flush()
        for number, saved_descriptor in saved_descriptors.items():
            os.dup2(saved_descriptor, number)
            os.close(saved_descriptor)
        os.close(null_device)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
