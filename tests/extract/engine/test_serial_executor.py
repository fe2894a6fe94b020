"""The serial executor keeps the order of calls, bounds its queue and raises the exceptions of calls."""

from __future__ import annotations

import threading

import pytest

from humeris.extract.engine.serial_executor import SerialExecutor


def test_calls_are_made_in_order_in_one_other_thread() -> None:
    stage, seen = SerialExecutor("test", 100), []
    for number in range(50):
        stage(lambda number=number: seen.append((number, threading.current_thread().name)))
    stage.drain()
    stage.close()
    assert [number for number, _ in seen] == list(range(50))
    assert {name for _, name in seen} == {"test_0"}


def test_who_gives_waits_while_so_many_are_not_done() -> None:
    stage, gate, begun = SerialExecutor("test", 2), threading.Event(), []
    stage(lambda: (begun.append(1), gate.wait()))
    stage(lambda: begun.append(2))
    third = threading.Thread(target=lambda: stage(lambda: begun.append(3)))
    third.start()
    assert third.is_alive()
    assert 3 not in begun
    gate.set()
    third.join(20)
    stage.drain()
    stage.close()
    assert begun == [1, 2, 3]


def test_what_a_call_raises_reaches_the_next_giver() -> None:
    stage, after = SerialExecutor("test", 1), []
    stage(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stage(lambda: after.append(1))
    stage(lambda: after.append(2))
    stage.drain()
    stage.close()
    assert after == [2]


def test_draining_waits_for_the_rest_and_raises_the_first_error() -> None:
    stage, gate, done = SerialExecutor("test", 10), threading.Event(), []

    def fail(text: str) -> None:
        gate.wait()
        raise ValueError(text)

    stage(fail, "first")
    stage(done.append, 1)
    stage(fail, "second")
    stage(done.append, 2)
    gate.set()
    with pytest.raises(ValueError, match="first"):
        stage.drain()
    assert done == [1, 2]
    stage.drain()
    stage.close()
