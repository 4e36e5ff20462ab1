"""Metadata has the actor, the reason and the cause of events; a context sets it for all events written inside."""

# Mistakes are made here on purpose.
# pyright: basic

from __future__ import annotations

import contextvars
import threading
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

import eventfold as ef
from eventfold.errors import InvalidEvent
from eventfold.store import Store
from eventfold.testing.conformance.events import Account, Noted, deposit, withdraw


def last(store: Store) -> dict[str, Any]:
    """The metadata of the newest event."""
    (recorded,) = store.read(backwards=True, limit=1)
    return recorded.metadata


def test_an_event_without_metadata_has_an_empty_dict(store: Store) -> None:
    """An event written without metadata has an empty dict, and None for the well-known keys."""
    store.append(Noted())
    (recorded,) = store.read()
    assert recorded.metadata == {}
    assert (recorded.metadata.actor, recorded.metadata.correlation_id, recorded.metadata.causation_id) == (
        None,
        None,
        None,
    )


def test_a_context_covers_what_is_written_inside(store: Store) -> None:
    """All events written inside `with store.context(…)` have its metadata; events outside do not."""
    with store.context(actor="teller-7", correlation_id="c-1", causation_id="e-1", counter=4):
        store.append(Noted("a"), Noted("b"))
        store.extend([Noted("c")])
        store.decide(lambda account: [deposit(account.account)], Account("a-1"))
    store.append(Noted("d"))
    *inside, outside = [recorded.metadata for recorded in store.read()]
    assert inside == [{"actor": "teller-7", "correlation_id": "c-1", "causation_id": "e-1", "counter": 4}] * 4
    assert (inside[0].actor, inside[0].correlation_id, inside[0].causation_id) == ("teller-7", "c-1", "e-1")
    assert outside == {}


def test_contexts_nest(store: Store) -> None:
    """An inner context adds to the outer one and overrides it; None removes a key; exiting restores the outer one."""
    with store.context(actor="a", counter=1):
        with store.context(actor="b", shift="late"):
            store.append(Noted())
            assert last(store) == {"actor": "b", "counter": 1, "shift": "late"}
        with store.context(counter=None):
            store.append(Noted())
            assert last(store) == {"actor": "a"}
        store.append(Noted())
        assert last(store) == {"actor": "a", "counter": 1}


def test_a_context_ends_with_an_error(store: Store) -> None:
    """An exception in the block ends the context too."""
    with pytest.raises(ZeroDivisionError), store.context(actor="a"):
        raise ZeroDivisionError
    store.append(Noted())
    assert last(store) == {}


def test_options_override_the_context_and_a_draft_overrides_both(store: Store) -> None:
    """Precedence: the draft's own metadata, then `using`, then the context."""
    with store.context(a="context", b="context", c="context"):
        store.using(b="using", c="using").append(ef.Draft(Noted(), metadata={"c": "draft"}), Noted())
    assert [recorded.metadata for recorded in store.read()] == [
        {"a": "context", "b": "using", "c": "draft"},
        {"a": "context", "b": "using", "c": "using"},
    ]


def test_options_make_a_view(store: Store) -> None:
    """`using` does not change the store on which it is called; views can be refined."""
    view = store.using(actor="a").using(counter=2)
    view.append(Noted())
    assert last(view) == {"actor": "a", "counter": 2}
    store.append(Noted())
    assert last(store) == {}


def test_a_decision_carries_the_metadata(store: Store) -> None:
    """The events of a decision have the metadata of the caller, in the log and in the result."""
    store.append(deposit("a-1", 5))
    done = store.using(actor="me").decide(withdraw, Account("a-1"), deposit().amount)
    assert done.events[0].metadata == last(store) == {"actor": "me"}


def test_a_thread_inherits_a_context_that_is_copied_to_it(store: Store) -> None:
    """A thread that runs in a copy of the context has its metadata; other threads have none."""

    def write(text: str) -> None:
        store.append(Noted(text))

    with store.context(actor="a"):
        here = contextvars.copy_context()
        threads = [
            threading.Thread(target=here.run, args=(write, "copied")),
            threading.Thread(target=write, args=("bare",)),
        ]
        for thread in threads:
            thread.start()
            thread.join()
    found = {recorded.event.text: recorded.metadata for recorded in store.read()}
    assert found == {"copied": {"actor": "a"}, "bare": {}}


def test_a_context_may_be_exited_in_a_copy(store: Store) -> None:
    """Frameworks enter and exit it in different copies of a context: no error, and no metadata remains."""
    manager = store.context(actor="a")
    contextvars.copy_context().run(manager.__enter__)
    store.append(Noted("outside"))
    contextvars.copy_context().run(manager.__exit__, None, None, None)
    manager, entered = store.context(actor="b"), contextvars.copy_context()
    entered.run(manager.__enter__)
    entered.run(store.append, Noted("inside"))
    copied = entered.copy()
    copied.run(manager.__exit__, None, None, None)
    copied.run(store.append, Noted("left"))
    found = {recorded.event.text: recorded.metadata for recorded in store.read()}
    assert found == {"outside": {}, "inside": {"actor": "b"}, "left": {}}


def test_contexts_of_threads_do_not_mix(store: Store) -> None:
    """Threads that write at the same time each have their own metadata."""

    def write(number: int) -> None:
        with store.context(actor=f"t-{number}"):
            for _ in range(10):
                store.append(Noted(f"t-{number}"))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = list(store.read())
    assert len(found) == 40
    assert all(recorded.metadata == {"actor": recorded.event.text} for recorded in found)


def test_any_json_value_is_stored(store: Store) -> None:
    """Metadata may have text, numbers, booleans, lists and dicts; ids and times become text."""
    store.using(
        text="ä\u0000\n", number=1.5, big=2**53, yes=True, many=[1, [2]], deep={"a": {"b": None}}, id=UUID(int=5)
    ).append(Noted())
    store.using(when=datetime(2020, 1, 1, tzinfo=UTC)).append(Noted())
    first, second = [recorded.metadata for recorded in store.read()]
    assert first == {
        "text": "ä\u0000\n",
        "number": 1.5,
        "big": 2**53,
        "yes": True,
        "many": [1, [2]],
        "deep": {"a": {"b": None}},
        "id": str(UUID(int=5)),
    }
    assert second == {"when": "2020-01-01T00:00:00+00:00"}


@pytest.mark.parametrize("value", [object(), {1j: 2}, lambda: 1], ids=["object", "complex", "function"])
def test_metadata_without_a_json_form_is_refused(store: Store, value: Any) -> None:
    """Metadata without a JSON form is InvalidEvent, and nothing is written."""
    with pytest.raises(InvalidEvent):
        store.using(bad=value).append(Noted())
    with pytest.raises(InvalidEvent):
        store.append(Noted(), ef.Draft(Noted(), metadata={"bad": value}))
    with pytest.raises(InvalidEvent), store.context(bad=value):
        store.append(Noted())
    assert store.head() == 0


def test_changing_read_metadata_changes_nothing_else(store: Store) -> None:
    """Changing metadata that was read changes neither the log nor other readers' metadata."""
    store.using(actor="a").append(Noted())
    (recorded,) = store.read()
    recorded.metadata["actor"] = "b"
    assert recorded.metadata == last(store) == {"actor": "a"}
