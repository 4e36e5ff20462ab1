"""Misuse of manual operations: half-built generations, concurrent operations, rows that cannot be correct any more."""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

import eventfold as ef
from eventfold.errors import CursorMismatch, InvalidProjection, LeaseHeld, ProjectionChanged, UnknownProjection
from eventfold.ports.target import PartitionKey
from eventfold.projections import projection_definition, rebuilds
from eventfold.projections.generations import require_record
from tests.projections.flights import Cancelled, CarrierMonth, Departed, flights, folded, proved, rows


class Tangled(ef.Event):
    """An event that concerns several keys."""

    names: tuple[str, ...]
    ill: bool = False


def counting(**keywords: Any) -> type[ef.Projection]:
    """Return a class called Counting, as the current code defines it."""

    class Counting(ef.Projection, **keywords):
        carrier: str
        flights: int = 0

        def evolve(self, event: Departed) -> None:
            self.flights += 1

    Counting.__qualname__ = "Counting"
    return Counting


def test_a_generation_that_is_being_built_is_not_switched_to(store: ef.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-built rows are never shown: the error says who builds, and how far; a finished one can be switched to."""
    monkeypatch.setattr(rebuilds, "CATCH_UP_TIMEOUT_S", 0.05)
    store.extend(flights(300), batch=5)
    store.project(CarrierMonth)
    positions: list[int] = []
    generation = store.projections.rebuild(
        CarrierMonth,
        progress=lambda position, _head: positions.append(position),
        stop=lambda: bool(positions and positions[-1]),
    )
    target = store.projections.target(CarrierMonth)
    builder = target.claim(PartitionKey("carrier_month", generation), "elsewhere:1:x", 60)
    assert builder is not None
    assert builder.position < 300
    for act in (store.projections.switch, store.projections.rebuild):
        with pytest.raises(
            LeaseHeld, match=r"elsewhere:1:x is building generation \d+ of .*, and has reached position"
        ):
            act(CarrierMonth)
        assert require_record(target, "carrier_month").live == 1
    target.release(builder)
    assert store.projections.switch(CarrierMonth).live == generation
    assert rows(store) == folded(flights(300))
    assert proved(store)


def test_two_acts_at_once_lose_nothing_of_each_other(shared_url: str) -> None:
    """A record that another operation changed after it was read is not written back: it is read again."""
    with ef.Store(shared_url) as store, ef.Store(shared_url) as other:
        store.extend(flights(50))
        store.project(CarrierMonth)
        target = store.projections.target(CarrierMonth)
        stale = require_record(target, "carrier_month")
        other.projections.rebuild(CarrierMonth)
        other.projections.switch(CarrierMonth)
        with target.control("carrier_month") as tx:
            assert tx.record() != stale
        assert require_record(target, "carrier_month").live == 2

        def pause_and_resume(mine: ef.Store) -> None:
            for number in range(15):
                mine.projections.pause(CarrierMonth, f"round {number}")
                mine.projections.resume(CarrierMonth)

        threads = [threading.Thread(target=pause_and_resume, args=(each,)) for each in (store, other)]
        for thread in threads:
            thread.start()
        for number in range(6):
            store.projections.rollback(CarrierMonth)
            assert require_record(target, "carrier_month").live == (1 if number % 2 == 0 else 2)
        for thread in threads:
            thread.join()
        known = require_record(target, "carrier_month")
        assert (known.live, known.previous, known.building) == (2, 1, None)
        assert rows(store) == folded(flights(50))


def test_two_rebuilds_at_once_build_one_generation(shared_url: str) -> None:
    """The second rebuild waits for the first, or finds it finished."""
    with ef.Store(shared_url) as store, ef.Store(shared_url) as other:
        store.extend(flights(2_000))
        store.project(CarrierMonth)
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda each=each: found.append(each.projections.rebuild(CarrierMonth)))
            for each in (store, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [2, 2]
        store.projections.switch(CarrierMonth)
        assert rows(store) == folded(flights(2_000))
        assert proved(store)


def test_rows_that_cannot_be_right_are_not_accepted(either: ef.Store) -> None:
    """Other partitions, other columns, event types that only one version handles: refused, with the command to use."""
    store = either
    store.append(Departed("a", 1, 1), Cancelled("a", 2))
    store.project(counting())

    def wider() -> type[ef.Projection]:
        class Counting(ef.Projection):
            carrier: str
            flights: int = 0
            delay: int = 0

            def evolve(self, event: Departed) -> None:
                self.flights += 1

        return Counting

    def hungrier() -> type[ef.Projection]:
        class Counting(ef.Projection):
            carrier: str
            flights: int = 0

            def evolve(self, event: Departed | Cancelled) -> None:
                self.flights += 1

        return Counting

    several, wide, hungry = counting(partitions=4), wider(), hungrier()
    wide.__qualname__ = hungry.__qualname__ = "Counting"  # the same class, in a later version
    for changed, why in (
        (several, "it has 4 partitions now, but its rows were written with 1"),
        (wide, "the declaration of its tables has changed"),
        (hungry, "up to position 2 there are events"),
    ):
        with pytest.raises(ProjectionChanged, match=r"projections accept \S+ counting"):
            store.project(changed)
        with pytest.raises(ProjectionChanged, match=why) as caught:
            store.projections.accept(changed)
        assert re.search(r"eventfold projections rebuild \S+ counting --switch", str(caught.value))
        assert not list(store.read(ef.Query.of(types="$projection-acted")))
    store.projections.rebuild(several)
    store.projections.switch(several)
    assert [(row.carrier, row.flights) for row in store.rows(several)] == [("a", 1)]
    assert all(proof.proved for proof in store.projections.verify(several))


def test_a_new_kind_of_event_that_nothing_wrote_can_be_accepted(store: ef.Store) -> None:
    """The rows are correct as they are, and verify still proves the ledger."""
    store.append(Departed("a", 1, 1))
    store.project(counting())

    class Counting(ef.Projection):
        carrier: str
        flights: int = 0

        def evolve(self, event: Departed | Cancelled) -> None:
            self.flights += 1

    Counting.__qualname__ = "Counting"
    store.projections.accept(Counting)
    store.append(Cancelled("a", 1))
    store.project(Counting)
    assert store.rows(Counting) == [Counting("a", 2)]
    assert proved(store)


def test_a_rebuild_that_stopped_is_repaired_as_the_message_says(either: ef.Store) -> None:
    """A retry tries the event again; after a skip the rebuild continues; readers see the old rows throughout."""
    store, well = either, [True]

    class Moody(ef.Projection, attempts=1):
        carrier: str
        flights: int = 0

        def evolve(self, event: Departed) -> None:
            if event.delay == 7 and not well[0]:
                raise ValueError("moody")
            self.flights += 1

    store.append(Departed("a", 1, 7), Departed("b", 1, 8))
    store.project(Moody)
    well[0] = False
    for _ in range(2):
        with pytest.raises(ef.EventfoldError, match=r"moody stopped at event 1 .* skip \S+ moody 1 --because"):
            store.projections.rebuild(Moody)
    assert len(store.rows(Moody)) == 2
    store.projections.skip(Moody, 1, because="moody")
    generation = store.projections.rebuild(Moody)
    assert store.projections.compare(Moody).rows == (2, 1)
    assert [entry.state for entry in store.projections.parked(Moody, generation)] == ["skipped"]
    assert store.projections.parked(Moody) == []
    well[0] = True
    assert proved(store)


def test_one_that_fails_does_not_hold_up_the_others(either: ef.Store) -> None:
    """`project` runs all of them, then raises the first error, with the others as notes."""
    store = either

    class SickOne(ef.Projection, attempts=1):
        carrier: str

        def evolve(self, event: Departed) -> None:
            raise ValueError("sick")

    class SickTwo(SickOne):
        pass

    store.append(*flights(20))
    with pytest.raises(ef.EventfoldError, match="sick_one stopped at event 1") as caught:
        store.project(SickOne, SickTwo, CarrierMonth)
    assert rows(store) == folded(flights(20))
    (note,) = caught.value.__notes__
    assert "sick_two stopped at event 1" in note


def test_events_of_several_keys_wait_for_and_follow_each_other(either: ef.Store) -> None:
    """Parked by one key they delay their other keys, and nothing else; after a retry all waiting events follow."""
    store, well = either, [False]

    class Tangle(ef.Projection, on_error="park", attempts=1):
        name: str
        seen: str = ""

        @staticmethod
        def key(event: Tangled) -> list[str]:
            return list(event.names)

        def evolve(self, event: Tangled, recorded: ef.Recorded[Tangled]) -> None:
            if event.ill and not well[0]:
                raise ValueError("ill")
            self.seen += f"{recorded.position} "

    store.append(
        Tangled(("a",), ill=True),  # 1
        Tangled(("b",)),  # 2
        Tangled(("c",), ill=True),  # 3
        Tangled(("b",)),  # 4: no event of b waits yet
        Tangled(("a", "b")),  # 5 waits for 1, and b with it
        Tangled(("b", "d")),  # 6 waits for 5, and d with it
        Tangled(("e",)),  # 7
    )
    store.project(Tangle)
    assert [entry.position for entry in store.projections.parked(Tangle)] == [1, 3, 5, 6]
    assert [(row.name, row.seen) for row in store.rows(Tangle)] == [("b", "2 4 "), ("e", "7 ")]
    well[0] = True
    assert store.projections.retry(Tangle, 1) == 3
    store.project(Tangle)
    assert [entry.position for entry in store.projections.parked(Tangle)] == [3]
    assert [(row.name, row.seen) for row in store.rows(Tangle)] == [
        ("a", "1 5 "),
        ("b", "2 4 5 6 "),
        ("d", "6 "),
        ("e", "7 "),
    ]
    well[0] = False
    store.append(Tangled(("a",), ill=True), Tangled(("a", "b")))
    store.project(Tangle)
    store.projections.skip(Tangle, 8 + store.count(ef.Query.of(types="$projection-acted")), because="ill")
    store.project(Tangle)
    assert [entry.state for entry in store.projections.parked(Tangle)] == ["parked", "skipped"]
    assert proved(store)


def test_an_unknown_generation_is_refused_with_those_that_exist(either: ef.Store) -> None:
    """Compare, discard, rows and parked raise the same message, and nothing is recorded."""
    store = either
    store.append(*flights(5))
    store.project(CarrierMonth)
    for ask in (
        lambda: store.projections.compare(CarrierMonth, 7),
        lambda: store.projections.discard(CarrierMonth, 7),
        lambda: store.projections.parked(CarrierMonth, 7),
        lambda: store.rows(CarrierMonth, generation=7),
    ):
        with pytest.raises(UnknownProjection, match="carrier_month has no generation 7: it has 1"):
            ask()
    assert store.count() == 5


def test_a_pause_has_a_reason(either: ef.Store) -> None:
    """An operator who looks for the cause of a standstill finds it in the status."""
    either.append(*flights(1))
    either.project(CarrierMonth)
    with pytest.raises(InvalidProjection, match="no reason"):
        either.projections.pause(CarrierMonth, " ")


def test_a_wait_for_a_position_does_not_return_after_a_change_of_history(tmp_path: Path) -> None:
    """A checkpoint ahead of a restored log has "come to" any position of it, and has seen none of its new events."""
    now, backup = tmp_path / "now.db", tmp_path / "backup.db"
    target = str(tmp_path / "rows.db")

    class Beside(CarrierMonth, name="beside", target=target):
        def evolve(self, event: Departed | Cancelled) -> None:
            super().evolve(event)

    with ef.Store(str(now)) as store:
        store.append(*flights(5))
        store.engine.backup(str(backup))
        store.append(*flights(10, 5))
        store.project(Beside)
    shutil.copy(backup, tmp_path / "restored.db")
    with ef.Store(str(tmp_path / "restored.db")) as store:
        receipt = store.append(Departed("new", 1, 1))
        with pytest.raises(CursorMismatch, match=r"projections rebuild \S+ beside --switch"):
            store.rows(Beside, carrier="new", wait=receipt.last)


def test_a_class_that_moved_unchanged_is_found_at_its_new_place(store: ef.Store) -> None:
    """Later, its bare name finds the class in the module that it is in now."""
    store.append(*flights(5))
    store.project(CarrierMonth)
    target = store.projections.target(CarrierMonth)
    known = require_record(target, "carrier_month")
    with target.control("carrier_month") as tx:
        tx.save_record(msgspec.structs.replace(known, code="old.place:CarrierMonth"))
    store.project(CarrierMonth)
    assert require_record(target, "carrier_month").code == projection_definition(CarrierMonth).code
