"""An append is all or nothing: its events are in order, adjacent and durable; a refused one leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

import eventfold as ef
from eventfold.core.envelope import NewEvent
from eventfold.core.event import Draft
from eventfold.errors import InvalidInput
from eventfold.store import Store
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.events import Noted, about, amounts, deposit, deposits, draft, positions

Open = Callable[[], Store]


def test_positions_are_counted_from_one(store: Store) -> None:
    """The first event is at position 1, the next at 2."""
    assert [store.append(deposit()).first, store.append(deposit()).first] == [1, 2]
    assert positions(store.read()) == [1, 2]


def test_events_of_an_append_are_adjacent_and_in_the_order_given(store: Store) -> None:
    """The events of one append have adjacent positions, in the order in which they were given."""
    store.append(deposit(amount=10))
    receipt = store.append(*deposits(5))
    assert list(receipt.positions) == [2, 3, 4, 5, 6]
    assert amounts(store.read(after=1)) == [1, 2, 3, 4, 5]


def test_every_event_has_the_boundaries_of_its_append(store: Store) -> None:
    """Each event has the first and last position of its append, whichever page or query it was read by."""
    store.append(deposit("a-1"))
    store.append(deposit("a-1"), deposit("a-2"), deposit("a-1"))
    assert [(r.first, r.last) for r in store.read()] == [(1, 1), (2, 4), (2, 4), (2, 4)]
    assert [(r.first, r.last) for r in store.read(about("a-2"))] == [(2, 4)]


def test_the_events_of_an_append_share_one_time(store: Store) -> None:
    """An append has one recorded time, in UTC, at microseconds."""
    before = datetime.now(UTC)
    store.append(*deposits(3))
    times = {recorded.time for recorded in store.read()}
    assert len(times) == 1
    (time,) = times
    assert time.tzinfo is UTC
    assert abs((time - before).total_seconds()) < 60


def test_an_event_gets_a_time_ordered_id(store: Store) -> None:
    """An event without an id of its own gets a UUID of version 7, and later events get greater ones."""
    for _ in range(3):
        store.append(deposit())
    ids = [recorded.id for recorded in store.read()]
    assert [identity.version for identity in ids] == [7, 7, 7]
    assert [identity.int >> 64 for identity in ids] == sorted(identity.int >> 64 for identity in ids)


def test_a_given_id_is_used(store: Store) -> None:
    """An id that was given, of any UUID version, is the event's id."""
    mine = UUID("9f6c1a52-9b3e-4b1c-8f1e-3a1f0c9d2e11")
    receipt = store.append(Draft(deposit(), id=mine))
    assert receipt.event_ids == (mine,)
    assert [recorded.id for recorded in store.read()] == [mine]


def test_one_invalid_event_refuses_the_whole_append(store: Store) -> None:
    """If one event of an append cannot be written, none is."""
    with pytest.raises(InvalidInput):
        store.append(deposit(), deposit(), Draft(Noted(), tags=("bad\ntag",)))
    assert store.head() == 0
    assert list(store.read()) == []


def test_a_refused_append_leaves_no_gap(store: Store) -> None:
    """Positions have no gaps: a refused append uses none, and the next append gets the next one."""
    store.append(deposit())
    for _ in range(3):
        with pytest.raises(ef.AppendConflict):
            store.append(*deposits(3), unless=about("a-1"))
    assert store.append(deposit("a-2")).first == 2
    assert positions(store.read()) == [1, 2]


def test_a_refused_append_leaves_no_trace(store: Store) -> None:
    """A refused append adds no tag, no type, no id: all of them can be used afterwards as if new."""
    store.append(deposit("a-1"))
    refused = [draft(deposit("new-1"), 1), draft(Noted("x"), 2, tags=("only:here",))]
    with pytest.raises(ef.AppendConflict):
        store.append(*refused, unless=about("a-1"))
    assert [t.tag for t in store.tags()] == ["account:a-1"]
    assert [t.type for t in store.types()] == ["conformance.deposited"]
    assert store.append(*refused).first == 2
    assert positions(store.read(about("new-1"))) == [2]
    assert positions(store.read(ef.Query.of(tags="only:here"))) == [3]


def test_another_handle_sees_an_append_as_soon_as_it_has_returned(store: Store, open_again: Open) -> None:
    """When `append` has returned, every reader sees its events, on whichever handle."""
    other = open_again()
    for number in range(1, 4):
        store.append(deposit(amount=number))
        assert amounts(other.read()) == list(range(1, number + 1))
        assert other.head() == number


def test_two_handles_write_one_log(store: Store, open_again: Open) -> None:
    """Appends through several handles are one log, in the order in which they returned."""
    other = open_again()
    for number in range(1, 7):
        (store if number % 2 else other).append(deposit(amount=number))
    assert amounts(store.read()) == amounts(other.read()) == [1, 2, 3, 4, 5, 6]


def test_acknowledged_events_survive_reopening(store: Store, reopen: Open) -> None:
    """All acknowledged events exist after the store was closed and reopened, with ids, times and append boundaries."""
    store.append(*deposits(3))
    store.append(
        draft(Noted("n"), 9, tags=("x:1",), metadata={"actor": "me"}, occurred=datetime(2020, 1, 1, tzinfo=UTC))
    )
    before = [recorded.stored for recorded in store.read()]
    again = reopen()
    assert [recorded.stored for recorded in again.read()] == before
    assert again.append(deposit()).first == 5


def test_a_store_keeps_its_identity(store: Store, reopen: Open) -> None:
    """A store has an id of 32 hex digits and an epoch, and keeps both when it is reopened."""
    identity, epoch = store.engine.store_id, store.engine.epoch
    assert len(identity) == 32
    assert int(identity, 16) > 0
    again = reopen()
    assert (again.engine.store_id, again.engine.epoch) == (identity, epoch)


def test_an_append_may_have_a_thousand_events(store: Store) -> None:
    """One append may have 1,000 events, which are written as one append."""
    receipt = store.append(*deposits(1_000))
    assert (receipt.first, receipt.last, len(receipt.ids)) == (1, 1_000, 1_000)
    assert amounts(store.read()) == list(range(1, 1_001))
    assert {(r.first, r.last) for r in store.read()} == {(1, 1_000)}


def test_extend_writes_any_number_in_batches(store: Store) -> None:
    """`extend` takes an iterable of any length, writes it in order in atomic batches, and reports progress."""
    counts: list[int] = []
    assert store.extend((deposit(amount=n) for n in range(25)), batch=10, progress=counts.append) == 25
    assert counts == [10, 20, 25]
    assert amounts(store.read()) == list(range(25))
    assert sorted({(r.first, r.last) for r in store.read()}) == [(1, 10), (11, 20), (21, 25)]


def test_extend_with_nothing_writes_nothing(store: Store) -> None:
    """`extend` without events raises no error and writes nothing."""
    assert store.extend([]) == 0
    assert store.head() == 0


def test_extend_stops_at_the_first_bad_event(store: Store) -> None:
    """`extend` stops at the first batch that cannot be written; the batches before it stay."""
    events = [*deposits(4), Draft(Noted(), tags=("",)), *deposits(4)]
    with pytest.raises(InvalidInput):
        store.extend(events, batch=2)
    assert amounts(store.read()) == [1, 2, 3, 4]


@pytest.mark.parametrize("batch", [0, -1, 1_001])
def test_extend_refuses_an_invalid_batch_size(store: Store, batch: int) -> None:
    """`extend` refuses batches of fewer than 1 or more than 1,000 events: InvalidInput, and nothing is written."""
    with pytest.raises(InvalidInput):
        store.extend(deposits(1_001), batch=batch)
    assert store.head() == 0


def test_extend_refuses_a_command_id(store: Store) -> None:
    """`extend` makes several appends, so a command id, which is for one append, is refused."""
    with pytest.raises(InvalidInput):
        store.using(command_id="import-1").extend(deposits(3), batch=2)
    assert store.head() == 0


def test_a_store_has_no_method_that_changes_events(store: Store) -> None:
    """The log is immutable: neither a store nor its engine has a method that changes or removes an event."""
    words = ("update", "delete", "remove", "truncate", "replace", "purge", "rewrite")
    names = [name for thing in (Store, ef.AsyncStore, type(store.engine)) for name in dir(thing) if name[0] != "_"]
    assert not [name for name in names if any(word in name.lower() for word in words)]


def test_an_empty_store_is_empty(store: Store) -> None:
    """A new store has no events, no types, no tags, and its head is 0."""
    assert (store.head(), store.count(), list(store.read()), store.types(), store.tags()) == (0, 0, [], [], [])


def test_stores_at_different_places_are_different(store: Store, engine_under_test: EngineUnderTest) -> None:
    """Two stores share nothing: neither ids nor events."""
    store.append(deposit())
    with ef.Store("memory:") as other:
        assert other.engine.store_id != store.engine.store_id
        assert other.head() == 0


def test_encoded_events_are_stored_unchanged(store: Store) -> None:
    """An event without a class is appended encoded and read raw byte for byte; a class, if there is one, decodes it."""
    moment = datetime(1999, 12, 31, 23, 59, 59, 5, tzinfo=UTC)
    identity = UUID(int=(7 << 76) | (2 << 62) | 1)
    given = [
        NewEvent.of("conformance.unheard-of", b'{"b": 1, "a":\t2}', version=7, tags=["k:2", "k:1", "k:2"], id=identity),
        NewEvent.of(
            "conformance.sealed", b"\x00\xff", codec="aes", key="key-1", metadata={"actor": "x"}, occurred=moment
        ),
        NewEvent.of("conformance.deposited", b'{"account":"a-1","amount":"5"}', tags=["account:a-1"]),
    ]
    receipt = store.append_encoded(*given)
    assert (receipt.first, receipt.last, receipt.ids) == (1, 3, tuple(new.id for new in given))
    found = [recorded.stored for recorded in store.read(raw=True)]
    assert all(stored.is_same_as(new) for stored, new in zip(found, given, strict=True))
    assert (found[0].data, found[0].tag_set, found[1].codec, found[1].key) == (
        given[0].data,
        ("k:1", "k:2"),
        "aes",
        "key-1",
    )
    assert store.engine.services.lookups is None or store.event(identity, raw=True) is not None
    (recorded,) = store.read(about("a-1"))
    assert recorded.event == deposit("a-1", 5)
    assert store.append_encoded(*given).repeated


def test_encoded_events_keep_conditions_keys_and_metadata(store: Store) -> None:
    """Conditions, request keys and the context's metadata apply to encoded events; their own metadata overrides."""
    new = NewEvent.of("conformance.unheard-of", b"{}", tags=["account:a-1"], metadata={"actor": "own"})
    with store.context(actor="context", request="r-1"):
        first = store.append_encoded(new, unless=about("a-1"), key="k")
    (recorded,) = store.read(raw=True)
    assert recorded.metadata == {"actor": "own", "request": "r-1"}
    assert store.append_encoded(NewEvent.of("conformance.other", b"{}"), key="k").first == first.first
    with pytest.raises(ef.AppendConflict):
        store.append_encoded(NewEvent.of("conformance.other", b"{}"), unless=about("a-1"))
    assert store.head() == 1


NEW = NewEvent.of("conformance.unheard-of", b"{}")
ENCODED_WRONG: dict[str, Callable[[], Any]] = {
    "no events": list,
    "too many": lambda: [NEW] * 1_001,
    "an object": lambda: [deposit()],
    "a draft": lambda: [draft(deposit(), 1)],
    "a short id": lambda: [replace(NEW, id=b"short")],
    "a text as id": lambda: [replace(NEW, id="x" * 16)],
    "a type of ours": lambda: [replace(NEW, type="$projection-acted")],
    "an empty type": lambda: [replace(NEW, type="")],
    "version 0": lambda: [replace(NEW, version=0)],
    "a version that is too large": lambda: [replace(NEW, version=2**31)],
    "text as data": lambda: [replace(NEW, data="{}")],
    "data that is no JSON": lambda: [replace(NEW, data=b"{")],
    "tags that are not sorted": lambda: [replace(NEW, tags=("b", "a"))],
    "a tag twice": lambda: [replace(NEW, tags=("a", "a"))],
    "a tag of ours": lambda: [replace(NEW, tags=("$process:x",))],
    "a tag of two lines": lambda: [replace(NEW, tags=("a\nb",))],
    "too many tags": lambda: [replace(NEW, tags=tuple(f"t{n:03}" for n in range(65)))],
    "metadata that is no object": lambda: [replace(NEW, metadata=b"[1]")],
    "occurred as a datetime": lambda: [replace(NEW, occurred=datetime.now(UTC))],
    "occurred beyond all years": lambda: [replace(NEW, occurred=2**62)],
    "an empty codec": lambda: [replace(NEW, codec="")],
    "an empty key id": lambda: [replace(NEW, key="")],
    "too large": lambda: [replace(NEW, codec="raw", data=bytes(1_000_001))],
}


def test_encoded_events_are_checked(store: Store) -> None:
    """An invalid encoded event is refused before anything is written: InvalidInput."""
    for name, wrong in ENCODED_WRONG.items():
        with pytest.raises(InvalidInput):
            store.append_encoded(*wrong())
        assert store.head() == 0, name
    with pytest.raises(InvalidInput):
        store.append(NEW)
    assert store.head() == 0
