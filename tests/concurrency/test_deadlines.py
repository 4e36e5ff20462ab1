"""Calls that may hang are waited for until a deadline, or until the runner of their thread is stopped."""

from __future__ import annotations

import contextvars
import threading

import pytest

from eventfold.concurrency.deadlines import Stopped, run_within, stopped_by

WORD: contextvars.ContextVar[str] = contextvars.ContextVar("WORD")


def test_what_a_call_does_is_returned_or_raised() -> None:
    """In the context of the caller."""
    WORD.set("here")
    assert run_within(30.0, WORD.get) == "here"
    with pytest.raises(ZeroDivisionError):
        run_within(30.0, lambda: 1 // 0)


def test_a_call_that_hangs_is_abandoned_at_the_deadline() -> None:
    """`abandon` ends it, so that its thread is not left forever."""
    gate, ended = threading.Event(), threading.Event()

    def hang() -> None:
        gate.wait()
        ended.set()

    with pytest.raises(TimeoutError):
        run_within(0.05, hang, gate.set)
    assert ended.wait(30)


def test_a_call_that_hangs_is_left_once_the_runner_is_stopped() -> None:
    """One that has begun gets a moment; one that has not is not begun. Outside of the block there is no runner."""
    stop, gate, begun = threading.Event(), threading.Event(), list[int]()

    def hang() -> None:
        begun.append(1)
        stop.set()
        gate.wait()

    with stopped_by(stop):
        with pytest.raises(Stopped):
            run_within(None, hang)
        with pytest.raises(Stopped):
            run_within(None, hang)
    gate.set()
    assert begun == [1]
    assert run_within(None, lambda: 5) == 5


def test_a_call_that_ends_in_time_is_heard_after_the_stop() -> None:
    """The moment is for calls that are about to end: their result is not thrown away."""
    stop = threading.Event()

    def end() -> str:
        stop.set()
        threading.Event().wait(0.2)
        return "sent"

    with stopped_by(stop):
        assert run_within(None, end) == "sent"
