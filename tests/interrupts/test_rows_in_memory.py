"""An exception at any instruction of a call on rows in memory releases their one connection for other threads."""

from __future__ import annotations

import threading

import pytest

from eventfold.ports.target import ProjectionRecord, Target
from eventfold.targets import open_target
from tests.interrupts.raising import Raiser

DEADLINE_S = 20.0


def used_by_another_thread(target: Target) -> list[str]:
    """Write and read in another thread. Returns the names of the records."""
    found: list[str] = []

    def use() -> None:
        with target.control("kept") as tx:
            tx.save_record(ProjectionRecord(name="kept", kind="effects", code="", live=1))
        found.extend(each.name for each in target.records())

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    return found


def write(target: Target) -> None:
    """Run a command's transaction with a query in it, as a handler does."""
    with target.control("other") as tx:
        tx.save_record(ProjectionRecord(name="other", kind="effects", code="", live=1))
        target.records()


def look(target: Target) -> None:
    """Run a query."""
    target.records()


@pytest.mark.parametrize("act", [write, look], ids=["write", "look"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_connection_is_released_after_an_exception(act: object) -> None:
    """The exception is raised at each instruction of the modules that lend it; the exception's traceback is dropped."""
    assert callable(act)
    target = open_target(None, "memory:", lambda: pytest.fail("not asked for"))  # type: ignore[arg-type]
    act(target)
    counting = Raiser(0)
    counting.run(lambda: act(target))
    places = [
        at
        for at, place in enumerate(counting.places, 1)
        if place in ("targets/sql/connections.py", "targets/sql/target.py")
    ]
    assert len(places) > 50
    for at in places:
        raiser = Raiser(at)
        raiser.run(lambda: act(target))
        assert "kept" in used_by_another_thread(target), raiser.where
    target.close()
