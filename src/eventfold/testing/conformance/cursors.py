"""A cursor is progress that can be verified: it names its store and the event at its position, and is opaque text."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

import eventfold as ef
from eventfold.core.query import Cursor
from eventfold.errors import CursorMismatch, InvalidQuery, PositionBeyondHead
from eventfold.store import Store
from eventfold.testing.conformance.events import Account, about, deposit, deposits, positions


def test_a_cursor_is_at_the_head_or_at_a_position(store: Store) -> None:
    """`cursor()` is at the last event, `cursor(position)` at that one; at 0 in an empty log."""
    assert store.cursor().position == 0
    store.append(*deposits(3))
    assert (store.cursor().position, store.cursor(2).position, store.cursor(0).position) == (3, 2, 0)
    assert store.cursor().event_id == [r.id.hex for r in store.read()][-1]
    assert store.cursor().store == store.engine.store_id


def test_a_cursor_round_trips_as_text(store: Store) -> None:
    """A cursor's text is one short word, and is parsed to an equal cursor."""
    store.append(*deposits(3))
    for position in range(4):
        cursor = store.cursor(position)
        text = str(cursor)
        assert Cursor.parse(text) == cursor
        assert text.isascii()
        assert not set(text) & set(" \t\r\n/+='\"<>&?#")
        assert len(text) < 255


def test_a_cursor_stays_valid(store: Store, reopen: Callable[[], Store]) -> None:
    """A cursor is valid as long as its event exists: after further appends, after reopening."""
    store.append(*deposits(3))
    kept = str(store.cursor())
    store.append(*deposits(2))
    again = reopen()
    assert again.verify(kept) == 3
    assert positions(again.read(after=Cursor.parse(kept))) == [4, 5]


def test_verify_returns_the_position(store: Store) -> None:
    """`verify` takes a cursor or its text and returns the position, if this history contains it."""
    store.append(*deposits(3))
    assert (store.verify(store.cursor(2)), store.verify(str(store.cursor(0)))) == (2, 0)


def test_a_cursor_of_another_store_is_refused(store: Store) -> None:
    """Every use of a cursor of another store is CursorMismatch, even at an equal position."""
    store.append(*deposits(3))
    with ef.Store("memory:") as other:
        other.append(*deposits(3))
        for position in (0, 3):
            refused_everywhere(store, other.cursor(position))


def test_a_cursor_at_lost_history_is_refused(store: Store) -> None:
    """A cursor whose position has another event, or none, is CursorMismatch: the store was restored or replaced."""
    from msgspec.structs import replace

    store.append(*deposits(3))
    good = store.cursor(2)
    refused_everywhere(store, replace(good, event_id="0" * 32))
    refused_everywhere(store, replace(good, position=3))
    refused_everywhere(store, replace(good, position=4))


def refused_everywhere(store: Store, cursor: Cursor) -> None:
    """Assert that every use of this cursor is refused, with two sentences, and changes nothing."""
    head = store.head()
    uses: list[Callable[[], Any]] = [
        lambda: store.verify(cursor),
        lambda: store.verify(str(cursor)),
        lambda: list(store.read(after=cursor)),
        lambda: store.append(deposit(), unless=ef.Query(), after=cursor),
        lambda: next(iter(store.follow(after=cursor))),
        lambda: next(iter(store.follow(after=str(cursor)))),
    ]
    for use in uses:
        with pytest.raises(CursorMismatch) as refused:
            use()
        assert refused.value.what.endswith(".")
        assert refused.value.remedy.endswith(".")
    assert store.head() == head


NO_CURSORS = (
    "",
    "3",
    "efc1_",
    "efc1_!!!!",
    "efc2_abc",
    "efc1_" + "A" * 40,
    "efc1_YS5iLmMuZA",
    "é",
    "efc1_ŷ",
    " efc1_",
    "efc1_Li4u",
)


def test_text_that_is_no_cursor_is_refused(store: Store) -> None:
    """Text that is not a cursor is CursorMismatch, not an error of a decoder."""
    store.append(deposit())
    for text in NO_CURSORS:
        with pytest.raises(CursorMismatch):
            store.verify(text)
        with pytest.raises(CursorMismatch):
            next(iter(store.follow(after=text)))


def test_a_cursor_beyond_the_head_cannot_be_created(store: Store) -> None:
    """`cursor(position)` of a position that does not exist, or is negative, is InvalidQuery."""
    store.append(deposit())
    for position in (2, 1_000, -1):
        with pytest.raises(InvalidQuery):
            store.cursor(position)


def test_a_follower_of_a_replaced_store_is_refused(store: Store) -> None:
    """A follower that resumes with a cursor of a store that was replaced raises CursorMismatch immediately."""
    with ef.Store("memory:") as before:
        before.append(*deposits(5))
        with before.follow() as follower:
            next(iter(follower.pages(timeout=0.0)))
            kept = str(follower.cursor)
    store.append(*deposits(9))
    with store.follow(after=kept) as follower, pytest.raises(CursorMismatch):
        next(iter(follower.pages(timeout=0.0)))


BEYOND: dict[str, Callable[[Store, int], Any]] = {
    "read after": lambda s, n: list(s.read(after=n)),
    "read after, of a type": lambda s, n: list(s.read(ef.Query.of(types="conformance.never"), after=n)),
    "read after, backwards": lambda s, n: list(s.read(after=n, backwards=True)),
    "read after, up to an earlier one": lambda s, n: list(s.read(after=n, until=1)),
    "read until": lambda s, n: list(s.read(until=n)),
    "read until, backwards": lambda s, n: list(s.read(until=n, backwards=True)),
    "count after": lambda s, n: s.count(after=n),
    "count until": lambda s, n: s.count(until=n),
    "state": lambda s, n: s.state(Account("a-1"), at=n),
    "state, occurred until": lambda s, n: s.state(Account("a-1"), at=n, occurred_until=datetime.now(UTC)),
    "history": lambda s, n: list(s.history(Account("a-1"), until=n)),
    "cursor": lambda s, n: s.cursor(n),
    "follow": lambda s, n: next(iter(s.follow(after=n))),
    "condition of several": lambda s, n: s.append(deposit(), unless=[(about("a-1"), 3), (about("x"), n)]),
    "condition": lambda s, n: s.append(deposit(), unless=about("a-1"), after=n),
}


def test_a_position_beyond_the_head_is_refused_everywhere(store: Store) -> None:
    """A position beyond the head is PositionBeyondHead in every call, and nothing is written.

    It is probably of another store, or of lost history. The head itself is accepted.
    """
    store.append(*deposits(3))
    for name, asked in BEYOND.items():
        for position in (4, 1_000_000, 2**63 - 1, 2**63, 2**70):
            with pytest.raises(PositionBeyondHead) as refused:
                asked(store, position)
            assert refused.value.fields == {"position": position, "head": 3}, name
        assert store.head() == 3, name
    for name, asked in BEYOND.items():
        if name != "follow":  # it would wait for the next event
            asked(store, store.head())


def test_a_cursor_beyond_the_head_is_a_cursor_of_lost_history(store: Store) -> None:
    """A cursor is verified by the event at its position: beyond the head it is CursorMismatch too."""
    store.append(*deposits(3))
    lost = msgspec.structs.replace(store.cursor(), position=4)
    asked: list[Callable[[], Any]] = [
        lambda: list(store.read(after=lost)),
        lambda: store.verify(lost),
        lambda: next(iter(store.follow(after=lost))),
        lambda: store.append(deposit(), unless=about("a-1"), after=lost),
    ]
    for ask in asked:
        with pytest.raises(CursorMismatch):
            ask()
