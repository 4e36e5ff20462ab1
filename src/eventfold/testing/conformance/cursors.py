"""A cursor is progress that can be checked: it names its store and the event it stands at, and is opaque text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import CursorMismatch
from eventfold.query import Cursor
from eventfold.store import Store
from eventfold.testing.conformance.events import deposit, deposits, positions


def test_a_cursor_stands_at_the_head(store: Store) -> None:
    """`cursor()` stands at the last event; `cursor(position)` at that one; at 0 in an empty log."""
    assert store.cursor().position == 0
    store.append(*deposits(3))
    assert (store.cursor().position, store.cursor(2).position, store.cursor(0).position) == (3, 2, 0)
    assert store.cursor().event_id == [r.id.hex for r in store.read()][-1]
    assert store.cursor().store == store.engine.store_id


def test_a_cursor_is_text_and_back(store: Store) -> None:
    """A cursor's text is short, one word, and gives the same cursor back."""
    store.append(*deposits(3))
    for position in range(4):
        cursor = store.cursor(position)
        text = str(cursor)
        assert Cursor.parse(text) == cursor
        assert text.isascii()
        assert not set(text) & set(" \t\r\n/+='\"<>&?#")
        assert len(text) < 255


def test_a_cursor_stays_good(store: Store, reopen: Callable[[], Store]) -> None:
    """A cursor is good for as long as its event is there: after further appends, after reopening."""
    store.append(*deposits(3))
    kept = str(store.cursor())
    store.append(*deposits(2))
    again = reopen()
    assert again.verify(kept) == 3
    assert positions(again.read(after=Cursor.parse(kept))) == [4, 5]


def test_verify_gives_the_position(store: Store) -> None:
    """`verify` takes a cursor or its text and gives the position, if this history holds it."""
    store.append(*deposits(3))
    assert (store.verify(store.cursor(2)), store.verify(str(store.cursor(0)))) == (2, 0)


def test_a_cursor_of_another_store_is_refused(store: Store) -> None:
    """Wherever a cursor may be given, one of another store is CursorMismatch, even at an equal position."""
    store.append(*deposits(3))
    with ef.Store("memory:") as other:
        other.append(*deposits(3))
        for position in (0, 3):
            refused_everywhere(store, other.cursor(position))


def test_a_cursor_at_lost_history_is_refused(store: Store) -> None:
    """A cursor whose position holds another event, or none, is CursorMismatch: the store was restored or replaced."""
    from msgspec.structs import replace

    store.append(*deposits(3))
    good = store.cursor(2)
    refused_everywhere(store, replace(good, event_id="0" * 32))
    refused_everywhere(store, replace(good, position=3))
    refused_everywhere(store, replace(good, position=4))


def refused_everywhere(store: Store, cursor: Cursor) -> None:
    """Each way of using a cursor refuses this one, with two sentences, having done nothing."""
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
        assert refused.value.now.endswith(".")
    assert store.head() == head


@pytest.mark.parametrize(
    "text",
    [
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
    ],
)
def test_text_that_is_no_cursor_is_refused(store: Store, text: str) -> None:
    """Text that no follower gave is CursorMismatch, not an error of some decoder."""
    store.append(deposit())
    with pytest.raises(CursorMismatch):
        store.verify(text)
    with pytest.raises(CursorMismatch):
        next(iter(store.follow(after=text)))


def test_a_cursor_of_the_future_cannot_be_had(store: Store) -> None:
    """`cursor(position)` of a position that is not there is CursorMismatch."""
    store.append(deposit())
    for position in (2, 1_000, -1):
        with pytest.raises(CursorMismatch):
            store.cursor(position)


def test_a_follower_notices_that_its_history_is_gone(store: Store) -> None:
    """A follower resumed with a cursor of a store that has since been replaced is told so, at once."""
    with ef.Store("memory:") as before:
        before.append(*deposits(5))
        with before.follow() as follower:
            next(iter(follower.pages(timeout=0.0)))
            kept = str(follower.cursor)
    store.append(*deposits(9))
    with store.follow(after=kept) as follower, pytest.raises(CursorMismatch):
        next(iter(follower.pages(timeout=0.0)))
