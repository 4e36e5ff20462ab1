"""Failures: a handler that fails is retried, then stops the projection or parks the event, with the reason recorded."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent, new_id
from eventfold.errors import EventNotParked, InvalidProjection, ProjectionStopped, UnknownProjection
from eventfold.ports.messages import AppendRequest
from eventfold.projections.commands import ProjectionActed
from eventfold.testing.conformance.target.flights import Departed, flights, proved

POISON: set[int] = set()  # delays at which every handler fails, for now


class Careful(ef.Projection, attempts=2):
    """A read model that stops at an event it cannot handle."""

    carrier: str
    minutes: int = 0

    def evolve(self, event: Departed) -> None:
        """Add, unless poisoned."""
        self.minutes += event.delay
        if event.delay in POISON:
            raise ValueError(f"cannot handle {event.delay}")


class Lenient(ef.Projection, on_error="park", attempts=1):
    """A read model that parks events it cannot handle, and later events of the same carrier."""

    carrier: str
    delays: list[int] = []

    def evolve(self, event: Departed) -> None:
        """Append, unless poisoned."""
        self.delays = [*self.delays, event.delay]
        if event.delay in POISON:
            raise ValueError(f"cannot handle {event.delay}")


@pytest.fixture(autouse=True)
def no_poison() -> None:
    """Start every test with handlers that do not fail."""
    POISON.clear()


def acts(store: ef.Store) -> list[str]:
    """The operator's commands in the log."""
    query = ef.Query.of(types="$projection-acted")
    return [recorded.event.act for recorded in store.read(query) if isinstance(recorded.event, ProjectionActed)]


def minutes(store: ef.Store) -> dict[str, int]:
    """The rows of Careful."""
    return {row.carrier: row.minutes for row in store.rows(Careful)}


def delays(store: ef.Store) -> dict[str, list[int]]:
    """The rows of Lenient."""
    return {row.carrier: row.delays for row in store.rows(Lenient)}


def test_a_projection_that_stops_says_where_and_why(store: ef.Store) -> None:
    """Events before the failing append are committed, none of it is; after a fix and a resume it continues."""
    POISON.add(13)
    store.append(Departed("a", 1, 1))
    store.append(Departed("a", 1, 2), Departed("a", 1, 13))
    store.append(Departed("b", 1, 4))
    where = r"stopped at event 3 \(conformance\.departed\), in evolve, after 2 attempts: ValueError"
    with pytest.raises(ProjectionStopped, match=where):
        store.project(Careful)
    assert minutes(store) == {"a": 1}
    (status,) = store.projections.status(Careful)
    assert status.state == "stopped"
    assert "Stopped at event 3" in status.sentence
    with pytest.raises(ProjectionStopped, match="cannot handle 13"):
        store.wait(Careful, timeout=1)
    POISON.clear()
    store.projections.resume(Careful)
    store.project(Careful)
    assert minutes(store) == {"a": 16, "b": 4}
    assert proved(store)
    assert acts(store) == ["resume"]


def test_an_event_may_be_skipped_with_a_reason(store: ef.Store) -> None:
    """A skipped event stays in the ledger separately, with the reason, even if later code could handle it."""
    POISON.add(13)
    store.append(Departed("a", 1, 13))
    store.append(Departed("a", 1, 2))
    with pytest.raises(ProjectionStopped):
        store.project(Careful)
    with pytest.raises(InvalidProjection, match="no reason"):
        store.projections.skip(Careful, 1, " ")
    with pytest.raises(UnknownProjection, match="has not parked event 2"):
        store.projections.skip(Careful, 2, "because")
    store.using(actor="teller-7").projections.skip(Careful, 1, "sent by mistake")
    store.project(Careful)
    assert minutes(store) == {"a": 2}
    (entry,) = store.projections.parked(Careful)
    assert (entry.position, entry.state, entry.because) == (1, "skipped", "sent by mistake")
    (proof,) = store.projections.verify(Careful)
    assert proof.proved
    assert (proof.handled, proof.skipped, proof.counted) == (1, 1, 2)
    (act,) = store.read(ef.Query.of(types="$projection-acted"))
    assert act.metadata.actor == "teller-7"
    assert act.event.facts["because"] == "sent by mistake"


def test_a_command_that_comes_too_late_names_what_happened(store: ef.Store) -> None:
    """An event that another operator retried, skipped or settled meanwhile is reported as that, not as unknown."""
    POISON.add(13)
    store.append(Departed("a", 1, 13))
    store.project(Lenient)
    store.projections.retry(Lenient, 1)
    with pytest.raises(EventNotParked, match="another command has marked it for a retry") as caught:
        store.projections.retry(Lenient, 1)
    assert (caught.value.fields["state"], caught.value.code) == ("due", "event-not-parked")
    store.project(Lenient)  # it fails again
    store.projections.skip(Lenient, 1, "sent by mistake")
    skipped = r"it was skipped \(sent by mistake\)"
    with pytest.raises(EventNotParked, match=skipped):
        store.projections.retry(Lenient, 1)
    with pytest.raises(EventNotParked, match=skipped):
        store.projections.skip(Lenient, 1, "too")
    store.append(Departed("b", 1, 13))
    store.project(Lenient)
    POISON.clear()
    store.projections.retry(Lenient)
    store.project(Lenient)
    with pytest.raises(EventNotParked, match="it was handled, also if by a retry"):
        store.projections.retry(Lenient, 3)
    with pytest.raises(EventNotParked, match=r"it has only reached position \d+"):
        store.projections.retry(Lenient, 999)


def test_parking_blocks_only_its_key_and_keeps_the_order(store: ef.Store) -> None:
    """Events of the failing key wait in order; others are handled; after a retry the rows equal the plain fold."""
    POISON.add(13)
    for number in range(60):
        store.append(Departed(f"c{number % 3}", 1, number))
    store.project(Lenient)
    assert delays(store) == {
        "c0": list(range(0, 60, 3)),
        "c1": [1, 4, 7, 10],
        "c2": list(range(2, 60, 3)),
    }
    entries = store.projections.parked(Lenient)
    assert [entry.position for entry in entries] == list(range(14, 60, 3))
    assert "cannot handle 13" in entries[0].error
    assert "waits for an earlier event of c1" in entries[1].error
    (status,) = store.projections.status(Lenient)
    assert status.state == "parked"
    assert proved(store)
    assert store.projections.retry(Lenient) == 16
    store.project(Lenient)  # still poisoned
    assert len(store.projections.parked(Lenient)) == 16
    POISON.clear()
    store.projections.retry(Lenient, 14)
    store.project(Lenient)
    assert delays(store)["c1"] == list(range(1, 60, 3))
    assert store.projections.parked(Lenient) == []
    assert proved(store)


def test_skipping_a_parked_event_unblocks_its_key(store: ef.Store) -> None:
    """After the first parked event of a key is skipped, the later ones are retried in order."""
    POISON.add(3)
    store.append(*(Departed("a", 1, number) for number in range(8)))
    store.project(Lenient)
    assert delays(store) == {"a": [0, 1, 2]}
    store.projections.skip(Lenient, 4, "never happened")
    store.project(Lenient)
    assert delays(store) == {"a": [0, 1, 2, 4, 5, 6, 7]}
    assert proved(store)


def test_an_event_that_cannot_be_read_stops_even_what_parks(store: ef.Store) -> None:
    """Its key is unknown, so later events must not pass it; after a skip by an operator the rest is handled."""
    store.append(Departed("a", 1, 1))
    broken(store)
    store.append(Departed("a", 1, 3))
    with pytest.raises(ProjectionStopped, match=r'event 2 .*UndecodableEvent.*all others wait; without_key="park"'):
        store.project(Lenient)
    assert delays(store) == {"a": [1]}
    store.projections.skip(Lenient, 2, "not an event of ours")
    store.project(Lenient)
    assert delays(store) == {"a": [1, 3]}
    assert proved(store)


def broken(store: ef.Store) -> None:
    """Write an event that no class can read."""
    event = NewEvent(new_id(), "conformance.departed", 1, b'{"carrier": 5}', ("carrier:5",))
    run(store.engine.append_many([request(event)]))


def test_an_event_that_cannot_be_read_may_be_parked_alone(store: ef.Store) -> None:
    """With the class's option no event waits for it; it is listed with its error, and can be skipped and verified."""

    class Alone(Lenient, on_error="park", without_key="park", attempts=1, name="alone"):
        def evolve(self, event: Departed) -> None:
            super().evolve(event)

    store.append(Departed("a", 1, 1))
    broken(store)
    broken(store)
    store.append(Departed("a", 1, 3))
    store.project(Alone)
    assert [row.delays for row in store.rows(Alone)] == [[1, 3]]
    found = store.projections.parked(Alone)
    assert [(entry.position, entry.key) for entry in found] == [(2, "(event 2 alone)"), (3, "(event 3 alone)")]
    assert "UndecodableEvent" in found[0].error
    assert store.projections.status(Alone)[0].state == "parked"
    assert proved(store)
    assert store.projections.retry(Alone, 2) == 1
    store.project(Alone)  # it still cannot be read
    assert len(store.projections.parked(Alone)) == 2
    store.projections.skip(Alone, 2, "not ours")
    store.project(Alone)
    assert [entry.state for entry in store.projections.parked(Alone)] == ["skipped", "parked"]
    assert proved(store)


def test_a_handler_that_fails_at_an_event_without_a_key_parks_it_alone(store: ef.Store) -> None:
    """An event without a key blocks no key."""

    class Loose(ef.SqlProjection, on_error="park", without_key="park", attempts=1):
        tables = {"loose": "carrier TEXT, delay INTEGER"}

        @staticmethod
        def key(event: Departed) -> str | None:
            return event.carrier if event.month else None

        def take(self, event: Departed, tx: ef.Transaction) -> None:
            if event.delay in POISON:
                raise ValueError("cannot handle it")
            tx.execute(f"INSERT INTO {{loose}} VALUES ('{event.carrier}', {event.delay})")  # noqa: S608

    POISON.add(13)
    store.append(Departed("a", 0, 13))
    store.append(Departed("a", 0, 2))
    store.append(Departed("a", 1, 3))
    store.project(Loose)
    assert [entry.position for entry in store.projections.parked(Loose)] == [1]
    POISON.clear()
    store.projections.retry(Loose)
    store.project(Loose)
    assert store.projections.parked(Loose) == []
    assert proved(store)


@pytest.mark.parametrize("policy", ["stop", "park"])
def test_a_split_projection_is_proved_around_what_no_class_could_read(store: ef.Store, policy: str) -> None:
    """Every partition gets the event, since its key is unknown: one skip applies to all, and each is verified."""

    class Halves(Lenient, on_error="park", without_key=policy, attempts=1, name="halves", partitions=2):  # type: ignore[arg-type]
        def evolve(self, event: Departed) -> None:
            super().evolve(event)

    store.append(*(Departed(f"c{n}", 1, n) for n in range(6)))
    broken(store)
    store.append(*(Departed(f"c{n}", 1, n) for n in range(6)))
    if policy == "stop":
        for _ in range(2):  # one of them is in the way of the other
            with pytest.raises(ProjectionStopped):
                store.project(Halves)
            store.projections.skip(Halves, 7, "of no class")
    store.project(Halves)
    assert {row.carrier: row.delays for row in store.rows(Halves)} == {f"c{n}": [n, n] for n in range(6)}
    proofs = store.projections.verify(Halves)
    assert [proof.proved for proof in proofs] == [True, True]
    assert sum(proof.skipped + proof.parked for proof in proofs) == 2


def request(event: NewEvent) -> AppendRequest:
    """An append of one raw event."""
    return AppendRequest((event,))


def test_a_row_that_the_database_refuses_is_the_events_fault(open_store: Callable[[], ef.Store]) -> None:
    """A value that its column cannot store fails only its event; the other events of the page are handled."""

    class Typed(ef.Projection, on_error="park", attempts=1):
        carrier: str
        number: int = 0

        def evolve(self, event: Departed) -> None:
            self.number = "many" if event.delay == 13 else event.delay  # type: ignore[assignment]

    with open_store() as store:
        store.extend([Departed(f"c{n}", 1, n) for n in range(30)], batch=4)
        store.project(Typed)
        assert {row.carrier for row in store.rows(Typed)} == {f"c{n}" for n in range(30) if n != 13}
        (entry,) = store.projections.parked(Typed)
        assert entry.key == "c13"
        assert proved(store)


def test_a_transient_failure_is_retried(store: ef.Store) -> None:
    """A failure that does not recur has no lasting effect."""
    left = [2]

    class Flaky(ef.SqlProjection, attempts=3):
        tables = {"flaky": "carrier TEXT NOT NULL, n INTEGER NOT NULL"}

        def take(self, event: Departed, tx: ef.Transaction) -> None:
            tx.execute(f"INSERT INTO {{flaky}} VALUES ('{event.carrier}', {event.delay})")  # noqa: S608
            if event.delay == 5 and left[0]:
                left[0] -= 1
                raise ConnectionError("away for a moment")

    store.append(*(Departed("a", 1, number) for number in range(10)))
    store.project(Flaky)
    assert left == [0]
    assert proved(store)


def test_an_evolve_that_returns_something_is_refused(store: ef.Store) -> None:
    """A returned value would be ignored silently."""

    class Returns(ef.Projection, attempts=1):
        carrier: str
        count: int = 0

        def evolve(self, event: Departed) -> None:
            return ef.Query()  # type: ignore[return-value]

    store.append(Departed("a", 1, 1))
    with pytest.raises(ProjectionStopped, match="has to change self"):
        store.project(Returns)
    with pytest.raises(InvalidProjection, match="has to change self"):
        store.view(Returns)


def test_a_paused_projection_does_not_move(store: ef.Store) -> None:
    """No runner or call advances it until it is resumed; the reason is in its status."""
    store.extend(flights(50))
    store.project(Careful)
    store.projections.pause(Careful, "the accountants are looking")
    store.append(Departed("z", 1, 1))
    with pytest.raises(ProjectionStopped, match="paused"):
        store.project(Careful)
    (status,) = store.projections.status(Careful)
    assert status.sentence == "Paused: the accountants are looking."
    store.projections.resume(Careful)
    store.project(Careful)
    assert minutes(store)["z"] == 1
    assert acts(store) == ["pause", "resume"]


def test_a_runner_notices_operators_commands(open_store: Callable[[], ef.Store]) -> None:
    """A running runner notices stop, pause, resume and retry within about a second."""
    POISON.add(13)
    with open_store() as store, open_store() as admin:
        with store.run(Careful, Lenient) as runner:
            store.append(Departed("a", 1, 13), Departed("b", 1, 1))
            until(lambda: admin.projections.status(Careful)[0].state == "stopped")
            until(lambda: len(admin.projections.parked(Lenient)) == 1)
            POISON.clear()
            admin.projections.resume(Careful)
            admin.projections.retry(Lenient)
            assert admin.wait(Careful, timeout=5)
            until(lambda: not admin.projections.parked(Lenient))
            assert delays(admin) == {"a": [13], "b": [1]}
            assert not runner.failed
        assert proved(admin)


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until a condition becomes true."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_the_reason_of_a_stop_is_stored_as_data(store: ef.Store) -> None:
    """The checkpoint has position, type, handler, error and attempts, as JSON for programs."""
    POISON.add(13)
    store.append(Departed("a", 1, 13))
    with pytest.raises(ProjectionStopped) as raised:
        store.project(Careful)
    assert raised.value.fields["position"] == 1
    (held,) = store.projections.checkpoints(Careful)
    why = msgspec.json.decode(held.stopped)
    assert why["type"] == "conformance.departed"
    assert why["handler"] == "evolve"
