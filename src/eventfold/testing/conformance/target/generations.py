"""Generations: rebuilt beside the live rows, compared, switched, rolled back, discarded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

import eventfold as ef
from eventfold.errors import InvalidProjection, ProjectionChanged, UnknownProjection
from eventfold.ports.target import PartitionKey
from eventfold.testing.conformance.target.flights import (
    Cancelled,
    CarrierMonth,
    Departed,
    flights,
    folded,
    proved,
    rows,
)

TABLE = "conformance_carrier_month"


class Delays(ef.Projection):
    """Minutes late, by carrier."""

    carrier: str
    minutes: int = 0

    def evolve(self, event: Departed) -> None:
        """Every minute counts."""
        self.minutes += event.delay


class Changed(ef.Projection, name="delays"):
    """The same name with another rule: only delays count."""

    carrier: str
    minutes: int = 0
    late: int = 0

    def evolve(self, event: Departed) -> None:
        """Early is not negative lateness."""
        if event.delay > 0:
            self.minutes += event.delay
            self.late += 1


Changed.__qualname__ = "Delays"  # as it is when the class is edited where it stands


def test_a_changed_class_is_noticed_and_rebuilt_beside_the_old_one(open_store: Callable[[], ef.Store]) -> None:
    """It is refused with a remedy; readers see the old rows until the switch, and again after a rollback."""
    events = list(flights(300))
    with open_store() as store:
        store.extend(events)
        store.project(Delays)
        old = {row.carrier: row.minutes for row in store.rows(Delays)}
        with pytest.raises(ProjectionChanged, match=r"eventfold projections rebuild .+ delays"):
            store.project(Changed)
        assert store.projections.rebuild(Changed) == 2
        assert {row.carrier: row.minutes for row in store.rows(Delays)} == old
        store.projections.switch(Changed)
        new = {row.carrier: row.minutes for row in store.rows(Changed)}
        assert new == {
            carrier: sum(e.delay for e in events if isinstance(e, Departed) and e.carrier == carrier and e.delay > 0)
            for carrier in old
        }
        store.project(Changed)
        store.projections.rollback("delays")
        assert {row.carrier: row.minutes for row in store.rows(Delays)} == old
        with pytest.raises(ProjectionChanged):
            store.project(Changed)
        store.project(Delays)
        store.projections.rollback("delays")
        store.project(Changed)
        assert proved(store)


def test_a_comparison_counts_rows_and_shows_differences(store: ef.Store) -> None:
    """Equal after a rebuild; a row that was changed by SQL is shown, before and after."""
    store.extend(flights(400))
    store.project(CarrierMonth)
    store.projections.rebuild(CarrierMonth)
    compared = store.projections.compare(CarrierMonth)
    assert compared.equal
    assert compared.rows[0] == compared.rows[1] == len(rows(store))
    assert compared.digests[0] == compared.digests[1]
    (carrier, month, *_), (other, another, *_) = rows(store)[:2]
    with store.projections.target(CarrierMonth).transaction(PartitionKey(TABLE, 1)) as tx:
        where = "WHERE carrier = '{}' AND month = {}"
        tx.execute(f"UPDATE {{{TABLE}}} SET flights = flights + 1 " + where.format(carrier, month))  # noqa: S608
        tx.execute(f"DELETE FROM {{{TABLE}}} " + where.format(other, another))  # noqa: S608
    compared = store.projections.compare(CarrierMonth)
    assert (compared.different, len(compared.differences)) == (2, 2)
    by_key = {difference.key: difference for difference in compared.differences}
    changed = by_key[carrier, month]
    assert changed.before is not None
    assert changed.after is not None
    assert changed.before[2] == changed.after[2] + 1
    assert by_key[other, another].before is None
    store.projections.switch(CarrierMonth)
    assert rows(store) == folded(flights(400))


def test_an_interrupted_rebuild_continues(store: ef.Store) -> None:
    """The next rebuild continues where the interrupted one ended, and progress is reported."""
    store.extend(flights(3_000), batch=20)
    store.project(CarrierMonth)
    reported: list[tuple[int, int]] = []

    def progress(position: int, head: int) -> None:
        reported.append((position, head))

    generation = store.projections.rebuild(CarrierMonth, progress=progress, stop=lambda: len(reported) >= 3)
    first = reported[-1][0]
    assert 0 < first < 3_000
    with pytest.raises(UnknownProjection, match="has no previous generation to roll back to"):
        store.projections.rollback(CarrierMonth)
    assert store.projections.rebuild(CarrierMonth, progress=progress) == generation
    assert reported[3][0] > first
    assert reported[-1][0] >= 3_000
    assert store.projections.compare(CarrierMonth).equal
    store.projections.switch(CarrierMonth)
    assert proved(store)
    acts = [r.event.act for r in store.read(ef.Query.of(tags="$projection:conformance_carrier_month"))]
    assert acts == ["rebuild", "switch"]  # to go on with it, or to find it done, is no command of its own


def test_a_generation_being_built_can_be_discarded(store: ef.Store) -> None:
    """Its tables are dropped, readers notice nothing, and there is nothing to switch to."""
    store.extend(flights(100))
    store.project(CarrierMonth)
    store.projections.rebuild(CarrierMonth)
    store.projections.discard(CarrierMonth)
    with pytest.raises(UnknownProjection, match="No new generation of conformance_carrier_month is being built"):
        store.projections.switch(CarrierMonth)
    assert len({held.place.generation for held in store.projections.checkpoints(CarrierMonth)}) == 1
    assert rows(store) == folded(flights(100))


def test_a_generation_as_of_the_past_can_be_built(store: ef.Store) -> None:
    """A generation as of a past time can be built, read, compared and verified; it cannot go live."""
    events = list(flights(300))
    store.extend(events, batch=100)
    store.project(CarrierMonth)
    past = store.projections.rebuild(CarrierMonth, at=200)
    seen = store.rows(CarrierMonth, generation=past)
    assert sorted((r.carrier, r.month, r.flights, r.delay, r.cancelled) for r in seen) == folded(events[:200])
    assert not store.projections.compare(CarrierMonth, past).equal
    assert rows(store) == folded(events)
    with pytest.raises(UnknownProjection):
        store.projections.switch(CarrierMonth)
    assert proved(store)
    with pytest.raises(InvalidProjection, match="the live or the previous one"):
        store.projections.discard(CarrierMonth, 1)
    store.projections.discard(CarrierMonth, past)
    assert {held.place.generation for held in store.projections.checkpoints(CarrierMonth)} == {1}


def test_closing_a_store_stops_its_runners(open_store: Callable[[], ef.Store]) -> None:
    """No runner of a closed store continues, and its leases are released."""
    store = open_store()
    runner = store.run(CarrierMonth)
    store.append(*flights(20))
    store.wait(CarrierMonth)
    store.close()
    assert not runner.running
    assert not runner.failed


def test_a_rebuild_under_live_writes_ends_exact(open_store: Callable[[], ef.Store]) -> None:
    """With concurrent writers, a runner, readers, a rebuild and a switch, every row is correct in the end."""
    with open_store() as store, open_store() as writing, open_store() as admin:
        store.extend(flights(400))
        stop = threading.Event()
        written = [400]

        def write() -> None:
            while not stop.is_set() and written[0] < 4_000:
                writing.append(*flights(10, written[0]))
                written[0] += 10

        writer = threading.Thread(target=write)
        with store.run(CarrierMonth) as runner:
            writer.start()
            try:
                for _ in range(2):
                    admin.projections.rebuild(CarrierMonth)
                    admin.projections.switch(CarrierMonth)
                    time.sleep(0.05)
            finally:
                stop.set()
                writer.join()
            admin.wait(CarrierMonth, timeout=20)
            assert not runner.failed
            assert rows(admin) == folded(flights(written[0]))
        assert proved(admin)


def test_a_change_that_leaves_the_rows_right_can_be_accepted(store: ef.Store) -> None:
    """After `accept`, which is recorded, the changed code continues with the existing rows."""

    class Before(ef.Projection, name="accepted"):
        carrier: str
        count: int = 0

        def evolve(self, event: Departed) -> None:
            self.count += 1

    class After(ef.Projection, name="accepted"):
        carrier: str
        count: int = 0

        def evolve(self, event: Departed | Cancelled) -> None:
            self.count += 1

    After.__qualname__ = Before.__qualname__
    store.append(Departed("a", 1, 1))
    store.project(Before)
    with pytest.raises(ProjectionChanged):
        store.project(After)
    store.projections.accept(After)
    store.append(Departed("a", 1, 1))
    store.project(After)
    assert [row.count for row in store.rows(After)] == [2]


def test_effects_are_not_rebuilt(store: ef.Store) -> None:
    """A subscription has effects, which must not be repeated."""

    class Mail(ef.Subscription, start="beginning"):
        def send(self, event: Departed) -> None: ...

    store.append(Departed("a", 1, 1))
    store.project(Mail)
    with pytest.raises(InvalidProjection, match="not repeated"):
        store.projections.rebuild(Mail)
