"""A handler that raises SystemExit or another BaseException: reported, recorded, parked; no thread ends."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import eventfold as ef
from eventfold.errors import ProcessError, ProjectionStopped
from eventfold.processes import Process, effect

ENDS = (SystemExit, KeyboardInterrupt, GeneratorExit)


class EndedEvent(ef.Event, type="ended.event"):
    """An event to fail at."""

    order: ef.Tag


RAISED: dict[str, BaseException] = {}


def end(order: str) -> None:
    """Raise the exception set for this order."""
    if order in RAISED:
        raise RAISED[order]


class Ending(ef.Projection, name="ended_ending", attempts=2):
    """A read model that stops."""

    order: str
    count: int = 0

    def evolve(self, event: EndedEvent) -> None:
        """Count, or end."""
        end(event.order)
        self.count += 1


class EndingParks(ef.Projection, name="ended_parks", on_error="park", attempts=1):
    """A read model that parks."""

    order: str
    count: int = 0

    def evolve(self, event: EndedEvent) -> None:
        """Count, or end."""
        end(event.order)
        self.count += 1


class EndingKey(ef.Projection, name="ended_key", attempts=1):
    """A read model that fails while its key is computed."""

    order: str
    count: int = 0

    @staticmethod
    def key(event: EndedEvent) -> str:
        """Return the order, or raise."""
        end(event.order)
        return event.order

    def evolve(self, event: EndedEvent) -> None:
        """Count."""
        self.count += 1


@effect(start="beginning", name="ended_effect", attempts=1)
def ended_effect(event: EndedEvent) -> None:
    """Raise the exception."""
    end(event.order)


class EndedProcess(Process, name="ended_process", start="beginning", attempts=1):
    """A process that raises in its reaction."""

    order: ef.Tag

    def evolve(self, event: EndedEvent) -> None:
        """Ignore the event."""

    def react(self, event: EndedEvent) -> None:
        """Raise the exception."""
        end(event.order)


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


@pytest.fixture(autouse=True, params=ENDS)
def raised(request: pytest.FixtureRequest) -> None:
    """Run every test with each of these exceptions."""
    RAISED.clear()
    RAISED["b"] = request.param(3)


@pytest.mark.parametrize("model", [Ending, EndingKey])
def test_a_read_model_stops_and_the_runner_says_so(model: type[ef.Projection]) -> None:
    """`failed` has the error with its cause, `status` the event and the exception, and `wait` returns."""
    with ef.Store("memory:") as store:
        store.append(EndedEvent("a"))
        store.append(EndedEvent("b"))
        with store.run(model) as running:
            assert running.wait(60)
            error = next(iter(running.failed.values()))
        assert isinstance(error, ProjectionStopped)
        assert type(error.__cause__) is type(RAISED["b"])
        assert error.fields["position"] == 2
        (status,) = store.projections.status(model)
        assert status.state == "stopped"
        assert f"Stopped at event 2 (ended.event) in {'key' if model is EndingKey else 'evolve'}" in status.sentence
        assert type(RAISED["b"]).__name__ in status.sentence
        assert [row.order for row in store.rows(model)] == ["a"]
        RAISED.clear()
        store.projections.resume(model)
        store.project(model)
        assert [row.order for row in store.rows(model)] == ["a", "b"]


def test_what_parks_parks_it_and_goes_on() -> None:
    """A read model that parks, an effect and a process park the event, and their threads continue."""
    with ef.Store("memory:") as store:
        store.append(EndedEvent("b"))
        store.append(EndedEvent("c"))
        with store.run(EndingParks, ended_effect, EndedProcess) as running:
            for name in ("ended_parks", "ended_effect", "ended_process"):
                store.wait(name, timeout=60)
                assert [entry.position for entry in store.projections.parked(name)] == [1]
                assert type(RAISED["b"]).__name__ in store.projections.status(name)[0].sentence
            assert running.running
            assert not running.failed


def test_in_the_callers_own_thread_it_is_the_callers() -> None:
    """`project` in the main thread raises it unchanged, since it may come from a signal; it is not recorded."""
    with ef.Store("memory:") as store:
        store.append(EndedEvent("b"))
        with pytest.raises(type(RAISED["b"])):
            store.project(EndingParks)
        assert store.projections.parked(EndingParks) == []


def test_a_clock_that_ends_the_timer_thread_is_logged() -> None:
    """The thread that fires timers logs its end, and the runner that it serves stops with it."""

    def clock() -> int:
        raise RAISED["b"]

    with ef.Store("memory:") as store, store.run(EndedProcess, clock=clock) as running:
        assert running.wait(60)
        assert isinstance(running.failed["timers"], ProcessError)
