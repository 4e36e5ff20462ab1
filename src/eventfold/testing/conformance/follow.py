"""Followers: catch up, then live; every event once, in order, as soon as any writer has committed it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest

import eventfold as ef
from eventfold.core.query import Query
from eventfold.errors import UnknownEventType
from eventfold.store import Store
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.events import Noted, about, amounts, deposit, deposits, positions

SOON = 60.0  # seconds in which whatever is awaited must have come


def until_caught_up(follower: Any) -> list[Any]:
    """All events that exist now."""
    found: list[Any] = []
    for page in follower.pages(timeout=0.0):
        found.extend(page)
        if not page:
            return found
    return found


def take(follower: Any, count: int) -> list[int]:
    """The positions of the next `count` events; fewer if they do not arrive soon."""
    found: list[int] = []
    end = time.monotonic() + SOON
    for page in follower.pages(timeout=0.2):
        found.extend(positions(page))
        if len(found) >= count or time.monotonic() > end:
            return found
    return found


def test_a_follower_catches_up(store: Store) -> None:
    """A follower first yields all existing events, in order, page by page."""
    store.extend(deposits(2_100))
    with store.follow() as follower:
        assert amounts(islice(follower, 2_100)) == list(range(1, 2_101))


def test_a_follower_yields_later_events(store: Store) -> None:
    """After it caught up, a follower yields new events, each once."""
    store.append(deposit())
    with store.follow() as follower:
        assert positions(until_caught_up(follower)) == [1]
        assert until_caught_up(follower) == []
        store.append(deposit(), deposit())
        assert take(follower, 2) == [2, 3]
        store.append(deposit())
        assert take(follower, 1) == [4]
        assert until_caught_up(follower) == []


def test_caught_up_is_true_at_the_end_of_the_log(store: Store) -> None:
    """`caught_up` is true if the last read reached the head of the log at that time."""
    store.extend(deposits(1_500))
    with store.follow() as follower:
        assert not follower.caught_up
        pages = iter(follower.pages(timeout=0.0))
        assert len(next(pages)) == 1_000
        assert not follower.caught_up
        assert len(next(pages)) == 500
        assert follower.caught_up


def test_a_follower_starts_after_a_position_or_cursor(store: Store) -> None:
    """`after` is exclusive: a position, a cursor or a cursor's text."""
    store.append(*deposits(5))
    for after in (3, store.cursor(3), str(store.cursor(3))):
        with store.follow(after=after) as follower:
            assert positions(until_caught_up(follower)) == [4, 5]
    with store.follow(after=store.cursor()) as follower:
        assert until_caught_up(follower) == []
        store.append(deposit())
        assert take(follower, 1) == [6]


def test_a_follower_yields_only_matching_events(store: Store) -> None:
    """A filtered follower yields the events that match, and advances past the others."""
    store.extend([deposit(f"a-{n % 3}", n) for n in range(1, 31)])
    with store.follow(about("a-1") | Query.of(types=Noted)) as follower:
        assert amounts(until_caught_up(follower)) == list(range(1, 31, 3))
        assert follower.cursor.position == 30
        store.append(deposit("a-2"), Noted(), deposit("a-2"))
        assert take(follower, 1) == [32]
        until_caught_up(follower)
        assert follower.cursor.position == 33


def test_the_cursor_moves_past_what_does_not_match(store: Store) -> None:
    """A follower without matching events still advances: its cursor reaches the head."""
    with store.follow(about("unused")) as follower:
        store.extend(deposits(2_050))
        assert until_caught_up(follower) == []
        assert follower.cursor.position == 2_050


def test_the_cursor_is_at_the_last_yielded_event(store: Store) -> None:
    """During iteration the cursor is at the current event: a follower resumed there gets the next one."""
    store.append(*deposits(4))
    with store.follow() as follower:
        for recorded in follower:
            assert follower.cursor.position == recorded.position
            if recorded.position == 2:
                break
        kept = str(follower.cursor)
    with store.follow(after=kept) as follower:
        assert positions(until_caught_up(follower)) == [3, 4]


def test_iteration_can_be_resumed(store: Store) -> None:
    """A follower whose iteration was stopped in the middle of a page continues there, by events or by pages."""
    store.append(*deposits(7))
    with store.follow() as follower:
        assert positions(islice(follower, 2)) == [1, 2]
        assert positions(islice(follower, 1)) == [3]
        assert positions(next(iter(follower.pages(timeout=0.0)))) == [4, 5, 6, 7]
        assert follower.cursor.position == 7
        store.append(deposit())
        assert positions(islice(follower, 1)) == [8]


def test_each_event_is_in_one_page(store: Store) -> None:
    """Pages are empty only at a timeout, and each event is in one page."""
    store.append(*deposits(3))
    with store.follow() as follower:
        assert [positions(page) for page in islice(follower.pages(timeout=0.01), 3)] == [[1, 2, 3], [], []]


def test_a_page_of_a_follower_never_splits_an_append(store: Store) -> None:
    """A page ends with an append: all of its matching events are in it."""
    for size in (700, 700, 700):
        store.append(*deposits(size))
    with store.follow() as follower:
        sizes = [len(page) for page in islice(follower.pages(timeout=0.0), 2)]
    assert sizes == [1_400, 700]


def test_followers_are_independent(store: Store) -> None:
    """Each follower yields every event that matches its query."""
    with store.follow() as one, store.follow(about("a-2")) as two, store.follow(after=0) as three:
        store.append(deposit("a-1"), deposit("a-2"))
        assert take(one, 2) == [1, 2]
        assert take(two, 1) == [2]
        store.append(deposit("a-2"))
        assert (take(one, 1), take(two, 1), take(three, 3)) == ([3], [3], [1, 2, 3])


def following(follower: Any, found: list[int]) -> threading.Thread:
    """Start a thread that follows until the follower is closed."""

    def run() -> None:
        found.extend(recorded.position for recorded in follower)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def soon(holds: Callable[[], bool]) -> bool:
    """Whether a condition becomes true within SOON seconds."""
    end = time.monotonic() + SOON
    while not holds() and time.monotonic() < end:
        time.sleep(0.002)
    return holds()


def test_a_waiting_follower_is_woken(store: Store, engine_under_test: EngineUnderTest) -> None:
    """A waiting follower is woken by an append through its own handle, and by one through another."""
    other = engine_under_test.rival()
    found: list[int] = []
    with store.follow() as follower:
        thread = following(follower, found)
        for count, writer in enumerate((store, other, store, other, other), start=1):
            writer.append(deposit())
            assert soon(lambda: len(found) == count)  # noqa: B023
        follower.close()
        thread.join(SOON)
    assert not thread.is_alive()
    assert found == [1, 2, 3, 4, 5]


def test_a_follower_misses_nothing_while_others_write(store: Store, engine_under_test: EngineUnderTest) -> None:
    """With concurrent writers a follower yields positions 1, 2, 3 … without gap, repeat or disorder."""
    found: list[int] = []
    writers = [threading.Thread(target=write, args=(engine_under_test.rival(), n)) for n in range(3)]
    with store.follow() as follower:
        thread = following(follower, found)
        for each in writers:
            each.start()
        for each in writers:
            each.join(SOON)
        assert soon(lambda: len(found) >= 3 * 40)
        follower.close()
        thread.join(SOON)
    assert found == list(range(1, 3 * 40 + 1))


def write(store: Store, number: int) -> None:
    """Append forty events, one to four at a time."""
    for size in (1, 2, 3, 4) * 4:
        store.append(*deposits(size, f"w-{number}"))


@pytest.mark.parametrize("waiting", [False, True], ids=["busy", "waiting"])
def test_closing_ends_the_iteration(store: Store, waiting: bool) -> None:
    """Closing a follower from another thread ends its iteration, whether it waits or has more events."""
    store.extend(deposits(10 if waiting else 1_500))
    found: list[int] = []
    follower = store.follow()
    if waiting:
        thread = following(follower, found)
        assert soon(lambda: len(found) == 10)
        follower.close()
        thread.join(SOON)
        assert not thread.is_alive()
    else:
        for recorded in follower:
            found.append(recorded.position)
            if recorded.position == 3:
                follower.close()
        assert found == [1, 2, 3]
        assert follower.cursor.position == 3
    assert list(follower) == []
    follower.close()


def test_a_follower_stops_at_an_event_that_it_cannot_decode(store: Store, port: Any) -> None:
    """An unknown type stops a typed follower and is never skipped, at every attempt; a raw follower yields it."""
    from eventfold.testing.conformance.reading import unknown

    unknown(store, port, b"{}", "conformance.never-known")
    store.append(deposit())
    with store.follow() as follower:
        for _ in range(2):
            with pytest.raises(UnknownEventType):
                next(iter(follower))
        assert follower.cursor.position == 0
    with store.follow(raw=True) as follower:
        assert positions(until_caught_up(follower)) == [1, 2]


def test_a_follower_of_an_empty_log_waits(store: Store) -> None:
    """An empty log can be followed: the follower yields its first event."""
    with store.follow() as follower:
        assert until_caught_up(follower) == []
        assert follower.caught_up
        store.append(deposit())
        assert take(follower, 1) == [1]


def test_a_follower_buffers_at_most_a_page(store: Store) -> None:
    """Memory is bounded: a slow reader gets one page at a time; no queue grows with the log."""
    store.extend(deposits(3_500))
    with store.follow() as follower:
        pages: Iterator[list[Any]] = iter(follower.pages(timeout=0.0))
        first = next(pages)
        store.extend(deposits(1_500))
        sizes = [len(first), *[len(next(pages)) for _ in range(3)]]
    assert sum(sizes) >= 4_000
    assert max(sizes) < 2_000  # a page, and the rest of an append that it would cut


def test_following_from_beyond_the_head_is_refused(store: Store) -> None:
    """A follower cannot start after a position that does not exist yet, with a name or without."""
    store.append(deposit())
    with store.follow(after=5) as follower, pytest.raises(ef.EventfoldError) as refused:
        next(iter(follower))
    assert refused.value.code == "position-beyond-head"
