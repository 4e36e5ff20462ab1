"""A receipt identifies the acknowledged events, as a proof for later."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

import eventfold as ef
from eventfold.core.envelope import StoredEvent, digest, from_micros
from eventfold.store import Store
from eventfold.testing.conformance.events import Noted, about, deposit, deposits, draft

WHEN = datetime(1815, 12, 10, tzinfo=UTC)


def test_a_receipt_names_the_store_and_the_positions(store: Store) -> None:
    """A receipt has the store's id and epoch, the positions, and the ids of the events in order."""
    store.append(deposit())
    receipt = store.append(*deposits(3))
    events = list(store.read(after=1))
    assert (receipt.store, receipt.epoch) == (store.engine.store_id, store.engine.epoch)
    assert (receipt.first, receipt.last, receipt.positions) == (2, 4, range(2, 5))
    assert receipt.event_ids == tuple(recorded.id for recorded in events)
    assert receipt.ids == tuple(recorded.stored.id for recorded in events)
    assert not receipt.repeated


def test_a_receipt_has_the_recorded_time(store: Store) -> None:
    """`time`, in µs since 1970 UTC, is the recorded time of the events."""
    receipt = store.append(*deposits(3))
    assert {recorded.time for recorded in store.read()} == {from_micros(receipt.time)}


def test_a_receipts_digest_is_that_of_the_events_in_the_log(store: Store, reopen: Callable[[], Store]) -> None:
    """The digest can be computed again from the log, also after reopening, as a proof."""
    receipts = [
        store.append(*deposits(3)),
        store.append(draft(Noted("ä\u0000"), 7, tags=("x:ä", "b:1"), metadata={"actor": "é"}, occurred=WHEN)),
        store.append(Noted()),
    ]
    for handle in (lambda: store, reopen):
        log = handle()
        for receipt in receipts:
            events = [recorded.stored for recorded in log.read(after=receipt.first - 1, until=receipt.last)]
            assert digest(events) == receipt.digest
            assert expected_digest(events) == receipt.digest


def expected_digest(events: Sequence[StoredEvent]) -> str:
    """The digest as specified, by an independent implementation."""
    text = bytearray()
    for event in events:
        text += event.id
        metadata, key = event.metadata or b"", event.key or ""
        for part in (event.type, event.data, event.tags, metadata, event.codec, key):
            raw = part if isinstance(part, bytes) else part.encode("utf-8")
            text += bytes([len(raw) >> 24 & 255, len(raw) >> 16 & 255, len(raw) >> 8 & 255, len(raw) & 255]) + raw
        text += bytes([event.version >> shift & 255 for shift in (24, 16, 8, 0)])
        occurred = 2**63 if event.occurred is None else event.occurred % 2**64  # two's complement
        text += bytes([occurred >> shift & 255 for shift in range(56, -8, -8)])
    return hashlib.sha256(text).hexdigest()


CHANGES: dict[str, Callable[[], Sequence[Any]]] = {
    "data": lambda: [draft(deposit(amount=2), 1), draft(Noted(), 2)],
    "tags": lambda: [draft(deposit(), 1, tags=("x:1",)), draft(Noted(), 2)],
    "metadata": lambda: [draft(deposit(), 1, metadata={"actor": "a"}), draft(Noted(), 2)],
    "occurred": lambda: [draft(deposit(), 1, occurred=WHEN), draft(Noted(), 2)],
    "an id": lambda: [draft(deposit(), 3), draft(Noted(), 2)],
    "the order": lambda: [draft(Noted(), 2), draft(deposit(), 1)],
    "one event less": lambda: [draft(deposit(), 1)],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_digest_depends_on_everything_a_writer_chose(store: Store, change: Callable[[], Sequence[Any]]) -> None:
    """Equal events have an equal digest in every store; any other choice of the writer changes it."""
    with ef.Store("memory:") as one, ef.Store("memory:") as two:
        one.append(Noted())  # positions and times are the store's, and not in the digest
        digests = [each.append(draft(deposit(), 1), draft(Noted(), 2)).digest for each in (one, two)]
    assert len(set(digests)) == 1
    assert store.append(*change()).digest not in digests


def test_a_repeats_receipt_is_the_first_one(store: Store) -> None:
    """The receipt of a repeat equals the first one except for `repeated`."""
    from msgspec.structs import replace

    first = store.append(draft(deposit(), 1), key="k")
    assert store.append(draft(deposit(), 1)) == replace(first, repeated=True)
    assert store.append(deposit(), key="k") == replace(first, repeated=True)
    assert store.receipt("k") == first


def test_a_receipt_cannot_be_changed(store: Store) -> None:
    """A receipt is a frozen, hashable value that is compared by value."""
    receipt = store.append(deposit())
    with pytest.raises(AttributeError):
        receipt.first = 9  # type: ignore[misc]
    assert hash(receipt) == hash(store.append(deposit("a-2"), unless=about("a-2")).__class__(**as_dict(receipt)))


def as_dict(receipt: Any) -> dict[str, Any]:
    """The fields of a receipt."""
    return {name: getattr(receipt, name) for name in receipt.__struct_fields__}
