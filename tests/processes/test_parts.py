"""Work that is made of parts is run as its parts are: an effect of its own, and steps that are due at a time."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import InvalidProcess, InvalidProjection
from eventfold.processes import effect
from eventfold.processes.parts import Clocked, Parts
from eventfold.processes.work import load
from eventfold.projections.admin import ProjectionAdmin
from tests.processes.shop import OrderPlaced, Reminded
from tests.processes.test_effects import until


class Clock:
    """A step at 1,000 µs, that appends one event."""

    def __init__(self, admin: ProjectionAdmin, store: ef.Store) -> None:
        self.admin, self.store, self.fired = admin, store, threading.Event()

    async def fire(self, now: int) -> int:
        """Append once."""
        if now < 1_000 or self.fired.is_set():
            return 0
        self.fired.set()
        self.store.append(Reminded("o-1"))
        return 1

    def next_due(self) -> int | None:
        """See Clocked."""
        return None if self.fired.is_set() else 1_000


class Siren:
    """Work with an effect and a clock."""

    code = f"{__name__}:siren"

    def __init__(self, store: ef.Store | None = None) -> None:
        self.store, self.sounded, self.clocks = store, list[str](), list[Clock]()

    def __eventfold_parts__(self) -> Parts:
        @effect(start="beginning", name="siren")
        def sound(event: OrderPlaced | Reminded) -> None:
            self.sounded.append(event.order)

        def clock(admin: ProjectionAdmin) -> Clocked:
            assert self.store is not None
            self.clocks.append(Clock(admin, self.store))
            return self.clocks[-1]

        return Parts((sound,), (clock,))


siren = Siren()


def test_the_runner_runs_the_parts_and_their_clock(store: ef.Store) -> None:
    """The step is done when the runner's clock has reached it; its event reaches the effect."""
    now, work = [0], Siren(store)
    with store.run(work, clock=lambda: now[0]) as running:
        store.append(OrderPlaced("o-2"))
        until(lambda: work.sounded == ["o-2"])
        assert not work.clocks[0].fired.is_set()
        now[0] = 1_000
        until(lambda: work.sounded == ["o-2", "o-1"])
        assert not running.failed


def test_run_until_idle_does_the_steps_that_are_due(store: ef.Store) -> None:
    """Without threads too; steps that are not due are left."""
    work = Siren(store)
    store.run_until_idle(work, clock=lambda: 999)
    assert work.sounded == []
    store.run_until_idle(work, clock=lambda: 1_000)
    assert work.sounded == ["o-1"]
    assert "siren" in store.processes.names()


def test_a_module_that_declares_such_work_is_found() -> None:
    """By its name, and among all that a module declares; its effect by the name of the progress."""
    assert load(f"{__name__}:siren") == [siren]
    assert siren in load(__name__)
    with pytest.raises(InvalidProjection, match="cannot be run"):
        load("eventfold.processes.parts")


def test_two_parts_of_one_name_are_refused(store: ef.Store) -> None:
    """As two effects of one name are."""
    work: tuple[Any, ...] = (Siren(store), Siren(store))
    with pytest.raises(InvalidProcess, match="named siren"):
        store.run(*work)
