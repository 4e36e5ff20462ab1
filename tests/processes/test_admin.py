"""`store.processes`: names, instances, retry and skip, by name and by class, sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.errors import EventNotParked, ProcessError, UnknownProjection
from eventfold.processes import after
from eventfold.processes.inspection import Instance


class ParcelSent(ef.Event, type="admin-parcel-sent"):
    """A parcel was sent."""

    parcel: ef.Tag
    fits: bool = True


class ParcelLate(ef.Event, type="admin-parcel-late"):
    """It has not arrived in time."""

    parcel: ef.Tag


class Delivery(ef.Process, name="admin_delivery", start="beginning", attempts=1):
    """Waits for a parcel; one that does not fit fails."""

    parcel: ef.Tag
    late: bool = False

    def evolve(self, event: ParcelSent | ParcelLate) -> None:
        self.late = isinstance(event, ParcelLate)

    def react(self, event: ParcelSent) -> Iterator[object]:
        if not event.fits:
            raise ValueError("it does not fit")
        if not event.parcel.startswith("quick"):
            yield after(ParcelLate(self.parcel), days=1)

    def done(self) -> bool:
        return self.late


def run_to_the_end(store: ef.Store) -> None:
    """React to every event; what does not fit is stuck."""
    with pytest.raises(ProcessError, match="does not fit"):
        store.run_until_idle(Delivery)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a parcel that waits, one that is stuck, and one that runs."""
    path = str(tmp_path_factory.mktemp("processes") / "parcels.db")
    with ef.Store(path) as store:
        store.append(ParcelSent("p-1"), ParcelSent("p-2", fits=False), ParcelSent("quick-3"))
        run_to_the_end(store)
    return path


def summary(found: list[Instance]) -> list[tuple[str, str, int]]:
    """What stands in a list of instances."""
    return [(each.key, each.state, each.position) for each in found]


def test_instances_are_listed_by_name_and_by_class(path: str) -> None:
    """A name shows those that are stuck or wait; the class also the others."""
    with ef.Store(path) as store:
        assert store.processes.names() == ["admin_delivery"]
        waiting = [("p-2", "stuck", 2), ("p-1", "waiting", 0)]
        assert summary(store.processes.list()) == waiting
        assert summary(store.processes.list("admin_delivery")) == waiting
        assert summary(store.processes.list("admin_delivery", limit=1)) == waiting[:1]
        assert summary(store.processes.list(Delivery)) == [*waiting, ("quick-3", "running", 0)]


def test_one_instance_is_found_by_its_key(path: str) -> None:
    """None if it neither waits nor is stuck; the class knows more."""
    with ef.Store(path) as store:
        found = store.processes.instance("admin_delivery", "p-2")
        assert found is not None
        assert (found.state, "it does not fit" in found.error) == ("stuck", True)
        assert store.processes.instance("admin_delivery", "quick-3") is None
        running = store.processes.instance(Delivery, "quick-3")
        assert running is not None
        assert running.state == "running"
        assert store.processes.instance(Delivery, "p-9") is None
        assert store.processes.state(Delivery, "quick-3") == Delivery("quick-3")


def test_a_name_that_the_store_does_not_know_is_refused_with_those_that_it_has(path: str) -> None:
    """Not answered with an empty list."""
    with ef.Store(path) as store:
        for ask in (lambda: store.processes.list("nothing"), lambda: store.processes.instance("nothing", "p-1")):
            with pytest.raises(UnknownProjection) as raised:
                ask()
            assert "admin_delivery" in raised.value.remedy


def test_a_stuck_event_is_retried_or_skipped(tmp_path: Path) -> None:
    """By the name or by the class; an event that is not parked is refused."""
    with ef.Store(str(tmp_path / "parcels.db")) as store:
        store.append(ParcelSent("p-1", fits=False), ParcelSent("p-2", fits=False))
        run_to_the_end(store)
        assert store.processes.retry("admin_delivery") == 2
        store.processes.skip(Delivery, 1, "it came back")
        assert summary(store.processes.list()) == [("p-2", "stuck", 2)]
        with pytest.raises(EventNotParked):
            store.processes.skip("admin_delivery", 1, "again")


def test_the_twin_gives_the_same_answers(path: str) -> None:
    """Each call in a thread."""

    async def ask() -> tuple[list[str], list[Instance], Instance | None, ef.Process | None]:
        async with ef.AsyncStore(path) as store:
            return (
                await store.processes.names(),
                await store.processes.list(Delivery),
                await store.processes.instance("admin_delivery", "p-2"),
                await store.processes.state(Delivery, "p-1"),
            )

    with ef.Store(path) as store:
        assert asyncio.run(ask()) == (
            store.processes.names(),
            store.processes.list(Delivery),
            store.processes.instance("admin_delivery", "p-2"),
            store.processes.state(Delivery, "p-1"),
        )
