"""A handler that raises SystemExit: the runner says what ended its thread."""

import time

import eventfold as ef
from eventfold.errors import ProjectionStopped


class EndedEvent(ef.Event, type="ended.event"):
    order: ef.Tag


class Ending(ef.Projection, name="ended_ending"):
    order: str
    count: int = 0

    def evolve(self, event: EndedEvent) -> None:
        raise SystemExit(3)


def test_a_handler_that_exits_is_no_silence() -> None:
    """The thread's end is in `failed`, with its cause."""
    with ef.Store("memory:") as store:
        store.append(EndedEvent("a"))
        with store.run(Ending) as running:
            deadline = time.monotonic() + 20
            while "ended_ending" not in running.failed and time.monotonic() < deadline:
                running.wait(0.05)
            error = running.failed["ended_ending"]
        assert isinstance(error, ProjectionStopped)
        assert isinstance(error.__cause__, SystemExit)
