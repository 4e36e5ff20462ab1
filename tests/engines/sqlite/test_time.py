"""Clocks that are set back: recorded time never decreases along the log."""

from __future__ import annotations

import random
from collections.abc import Callable

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.core.query import Query
from eventfold.engines.sqlite import SqliteEngine
from eventfold.ports.messages import Span
from tests.engines.sqlite.noted import noted, raw, request
from tests.engines.sqlite.other import Other


class Clock:
    """A clock that a test sets."""

    now = 1_000_000

    def __call__(self) -> int:
        return self.now


def test_time_never_steps_back_with_the_clock(path: str) -> None:
    """This holds across reopenings; `position_at` stays a prefix, so that `at=` means one moment."""
    dice, clock = random.Random(7), Clock()
    expected: list[int] = []
    for _ in range(6):
        engine = SqliteEngine(path, clock=clock)
        run(engine.open())
        for n in range(20):
            clock.now += dice.randint(-500, 500)
            expected.append(max(clock.now, expected[-1] if expected else 0))
            run(engine.append_many([request(raw(n), raw(n))] if n % 3 == 0 else [request(raw(n))]))
        stored = run(engine.read(Query(), Span(limit=10_000))).events
        times = [event.time for event in stored]
        assert times == sorted(times)
        assert [event.time for event in stored if event.offset == 0] == expected
        for moment in (0, expected[0] - 1, expected[0], expected[-1] - 1, expected[-1], expected[-1] + 10**9):
            assert run(engine.position_at(moment)) == sum(time <= moment for time in times)
        run(engine.close())


def test_two_processes_with_different_clocks_agree_on_the_order(path: str, process: Callable[..., Other]) -> None:
    """A writer whose clock is an hour behind records the time of the event before its own."""
    ahead = SqliteEngine(path, clock=lambda: 10_000_000_000)
    run(ahead.open())
    run(ahead.append_many([request(raw(1))]))
    behind = process()
    behind(f"engine = __import__('eventfold.engines.sqlite').engines.sqlite.SqliteEngine({path!r}, clock=lambda: 5)")
    behind("from eventfold.concurrency.run import run; run(engine.open())")
    assert behind("run(engine.append_many([request(raw(2))]))[0].time") == 10_000_000_000
    run(ahead.append_many([request(raw(3))]))
    assert {event.time for event in run(ahead.read(Query(), Span())).events} == {10_000_000_000}
    run(ahead.close())


def test_a_repeat_keeps_the_time_of_the_first(path: str) -> None:
    """The receipt of a repeated append has the time of the first append, not of the repeat."""
    with ef.Store(path) as store:
        first = store.append(noted(1), key="once")
        assert store.append(noted(2), key="once").time == first.time
