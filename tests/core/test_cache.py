"""The cache of folded states: bounded, never older than before, and tolerant of unhashable keys."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import eventfold as ef
from eventfold.log.state_cache import StateCache


class Counted(ef.State):
    """A state with a number to tell copies apart."""

    count: int = 0

    def evolve(self, event: ef.Event) -> None:
        """Count one event."""


def test_a_state_is_kept_with_its_position() -> None:
    """A stored state is returned; for any other the cache returns None."""
    cache = StateCache()
    cache.put("a", Counted(1), 5, 1)
    assert cache.get("a", 1) == (Counted(1), 5)
    assert cache.get("b", 1) is None


def test_an_older_state_never_replaces_a_later_one() -> None:
    """Of two threads that caught up, the state of the later position stays, in either order."""
    cache = StateCache()
    cache.put("a", Counted(2), 9, 1)
    cache.put("a", Counted(1), 5, 1)
    assert cache.get("a", 1) == (Counted(2), 9)
    cache.put("a", Counted(3), 10, 1)
    assert cache.get("a", 1) == (Counted(3), 10)


def test_a_state_is_believed_in_its_own_epoch_only() -> None:
    """In another epoch a state is not found, and one folded there replaces it, even at a lower position."""
    cache = StateCache()
    cache.put("a", Counted(2), 9, 1)
    assert cache.get("a", 2) is None
    assert cache.get_trusted("a", 2) is None
    cache.put("a", Counted(1), 5, 2)
    assert cache.get("a", 2) == (Counted(1), 5)
    assert cache.get("a", 1) is None


def test_the_cache_is_bounded() -> None:
    """At most `size` states are kept; the oldest entries are removed first."""
    cache = StateCache(3)
    for number in range(6):
        cache.put(number, Counted(number), 1, 1)
    assert [number for number in range(6) if cache.get(number, 1)] == [3, 4, 5]
    cache.put(3, Counted(3), 2, 1)
    cache.put(6, Counted(6), 1, 1)
    assert [number for number in range(7) if cache.get(number, 1)] == [3, 5, 6]


def test_a_cache_of_nothing_keeps_nothing() -> None:
    """`size=0` is no cache."""
    cache = StateCache(0)
    cache.put("a", Counted(1), 5, 1)
    assert cache.get("a", 1) is None


def test_a_question_that_cannot_be_a_key_is_not_kept() -> None:
    """A state with an unhashable question is folded each time, without an error."""
    cache = StateCache()
    cache.put(("x", [1]), Counted(1), 5, 1)
    assert cache.get(("x", [1]), 1) is None


class Tagged(ef.Event, type="cache.tagged"):
    """Has a tag."""

    account: ef.Tag


class ByList(ef.State):
    """Asked by a list, which cannot be hashed."""

    account: ef.Tag[list[str]]
    count: int = 0

    def evolve(self, event: Tagged) -> None:
        """Take one event in."""
        self.count += 1


def test_a_question_by_a_list_works_throughout() -> None:
    """A State asked by a list is folded, decided over, and asked of the result like any other."""
    with ef.Store("memory:") as store:
        store.append(Tagged("a"), Tagged("b"), Tagged("c"))
        assert store.state(ByList(["a", "b"])).count == 2
        done = store.decide(lambda state: [Tagged("a")], ByList(["a", "b"]))
        assert done.state(ByList(["a", "b"])).count == 3
        assert len(list(store.history(ByList(["c"])))) == 1


class Packed(ef.Event, type="cache.packed"):
    """Has a field that can be changed behind the log's back."""

    box: ef.Tag
    items: list[str]


class Box(ef.Aggregate):
    """Keeps the very list that its event brings."""

    box: ef.Tag
    items: list[str] = []

    def pack(self, items: list[str]) -> None:
        """Records the caller's list."""
        self.record(Packed(self.box, items))

    def evolve(self, event: Packed) -> None:
        """Takes it as it is."""
        self.items = event.items


def pack(box: Box, items: list[str]) -> Packed:
    """Decides by a function."""
    return Packed(box.box, items)


@pytest.mark.parametrize("decision", [pack, Box.pack])
def test_what_a_caller_does_to_its_own_list_changes_no_remembered_state(decision: Any) -> None:
    """Events passed in and returned belong to the caller; cached states are folded from copies."""
    mine = ["tea"]
    with ef.Store("memory:") as store:
        done = store.decide(decision, Box("b-1"), mine)
        mine.append("never packed")
        done.events[0].event.items.append("nor this")
        done.state(Box("b-1")).items.append("nor that")
        assert store.state(Box("b-1")).items == ["tea"]
        assert done.state(Box("b-1")).items == ["tea"]


def test_threads_may_use_it_at_once() -> None:
    """Many threads putting and getting at once leave it bounded and whole."""
    cache = StateCache(10)

    def work(seed: int) -> None:
        for number in range(500):
            cache.put((seed * number) % 37, Counted(number), number, 1)
            cache.get(number % 37, 1)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(cache.get(number, 1) is not None for number in range(37)) <= 10
