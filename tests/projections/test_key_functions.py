"""The `key` of a read model gets an event, and its envelope if it has a second parameter; any other form is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import InvalidProjection, InvalidState
from tests.projections.flights import proved


class Visited(ef.Event, type="key-functions.visited"):
    """A page was visited."""

    page: ef.Tag


class ByActor(ef.Projection, name="key_functions_by_actor", partitions=3):
    """Visits by who made them, which only the envelope knows."""

    actor: str
    visits: int = 0

    @staticmethod
    def key(event: Visited, recorded: ef.Recorded[Visited]) -> str | list[str] | None:
        """Return who made the visit; all who share a session; or no one."""
        assert recorded.event is event
        actor = recorded.metadata.actor or ""
        return actor.split("+") if "+" in actor else actor or None

    def evolve(self, event: Visited) -> None:
        """Count."""
        self.visits += 1


class ByActorWhole(ByActor, name="key_functions_whole"):
    """The same in one partition."""


class ByActorInline(ByActor, name="key_functions_inline"):
    """The same, within appends."""


class Handled(ef.Subscription, start="beginning", name="key_functions_handled", on_error="park", attempts=1):
    """Calls that wait for an earlier one of the same actor."""

    done: list[str] = []

    @staticmethod
    def key(event: Visited, recorded: ef.Recorded[Visited]) -> str:
        """Return who made the visit."""
        return recorded.metadata.actor or ""

    def visited(self, event: Visited) -> None:
        """Fail at one page."""
        if event.page == "broken":
            raise ValueError(event.page)
        self.done.append(event.page)


def visits(store: ef.Store) -> None:
    """Append visits of three actors, of two at once, and of none."""
    for actor, pages in (("ann", 3), ("bob", 2), ("ann+cid", 1)):
        with store.context(actor=actor):
            store.append(*[Visited(f"p{n}") for n in range(pages)])
    store.append(Visited("p9"))


def counted(rows: list[Any]) -> dict[str, int]:
    """Return the visits by actor."""
    return {row.actor: row.visits for row in rows}


def test_a_key_with_two_parameters_gets_the_envelope(either: ef.Store) -> None:
    """In tables, in partitions, in a rebuild and in a view; one actor, several or none for an event."""
    visits(either)
    for projection in (ByActor, ByActorWhole):
        either.project(projection)
        assert counted(either.rows(projection)) == {"ann": 4, "bob": 2, "cid": 1}
        assert counted(either.view(projection).rows()) == {"ann": 4, "bob": 2, "cid": 1}
        either.projections.rebuild(projection)
        assert counted(either.rows(projection)) == {"ann": 4, "bob": 2, "cid": 1}
    assert proved(either)


def test_a_key_with_two_parameters_gets_the_envelope_within_an_append(shared_url: str) -> None:
    """The rows are there when the append returns."""
    with ef.Store(shared_url, inline=[ByActorInline]) as store:
        visits(store)
        assert counted(store.rows(ByActorInline)) == {"ann": 4, "bob": 2, "cid": 1}


def test_events_wait_for_one_that_is_parked_by_a_key_of_the_envelope(store: ef.Store) -> None:
    """Later events of the same actor wait; those of another one are handled."""
    Handled.done.clear()
    for actor, page in (("ann", "broken"), ("ann", "p1"), ("bob", "p2")):
        with store.context(actor=actor):
            store.append(Visited(page))
    store.project(Handled)
    assert Handled.done == ["p2"]
    assert [parked.position for parked in store.projections.parked(Handled)] == [1, 2]


def two_and_more(event: Visited, recorded: ef.Recorded[Visited], more: int) -> str:
    """Take a parameter too many."""
    return event.page


def nothing() -> str:
    """Take no event."""
    return ""


async def awaited(event: Visited) -> str:
    """Return a coroutine."""
    return event.page


def envelope_alone(recorded: ef.Recorded[Visited]) -> str:
    """Take the envelope as the event."""
    return recorded.event.page


def method(self: Any, event: Visited) -> str:
    """Take a row, which is not known yet."""
    return event.page


@pytest.mark.parametrize(
    ("key", "match"),
    [
        (staticmethod(two_and_more), "takes more than an event and its envelope"),
        (staticmethod(nothing), "takes no event"),
        (staticmethod(awaited), "coroutine"),
        (staticmethod(envelope_alone), "gets the event alone"),
        (method, "no static method.*Write @staticmethod"),
        (classmethod(method), "no static method.*Write @staticmethod"),
    ],
)
def test_a_key_that_could_not_be_called_is_refused_before_the_first_event(key: Callable[..., Any], match: str) -> None:
    """Not at the first event, which may come much later; the error says what to write."""

    class Wrong(ef.Projection, name="key_functions_wrong"):
        page: str
        visits: int = 0

        def evolve(self, event: Visited) -> None: ...

    Wrong.key = key  # type: ignore[attr-defined]
    with ef.Store("memory:") as store, pytest.raises(InvalidProjection, match=match) as error:
        store.project(Wrong)
    assert error.value.code == "invalid-projection"


def test_a_key_with_a_default_or_of_another_callable_gets_the_event_alone() -> None:
    """A default stays; a callable without a readable signature takes one value."""
    from operator import attrgetter

    class Defaulted(ef.Projection, name="key_functions_defaulted"):
        page: str
        visits: int = 0

        @staticmethod
        def key(event: Visited, prefix: str = "page-") -> str:
            return prefix + event.page

        def evolve(self, event: Visited) -> None:
            self.visits += 1

    class Getter(ef.Projection, name="key_functions_getter"):
        name: str
        visits: int = 0
        key = staticmethod(attrgetter("page"))

        def evolve(self, event: Visited) -> None:
            self.visits += 1

    with ef.Store("memory:") as store:
        store.append(Visited("a"))
        store.project(Defaulted, Getter)
        assert [row.page for row in store.rows(Defaulted)] == ["page-a"]
        assert [row.name for row in store.rows(Getter)] == ["a"]


def test_an_evolve_that_could_not_be_called_is_refused_before_the_first_event() -> None:
    """Of rows as of states: a third parameter, a coroutine, an envelope or a list as its event."""

    class Three(ef.Projection, name="key_functions_three"):
        page: str

        def evolve(self, event: Visited, recorded: ef.Recorded[Visited], more: int) -> None: ...

    class Awaited(ef.Projection, name="key_functions_awaited"):
        page: str

        async def evolve(self, event: Visited) -> None: ...

    class Envelope(ef.Projection, name="key_functions_envelope"):
        page: str

        def evolve(self, event: ef.Recorded[Visited]) -> None: ...

    class Batch(ef.Projection, name="key_functions_batch"):
        page: str

        def evolve(self, event: list[Visited]) -> None: ...

    class Seen(ef.State):
        page: ef.Tag

        async def evolve(self, event: Visited) -> None: ...

    with ef.Store("memory:") as store:
        for wrong, match in (
            (Three, "takes more than an event and its envelope"),
            (Awaited, "coroutine"),
            (Envelope, "not an event class.*second parameter gets the event's ef.Recorded"),
            (Batch, "not an event class"),
        ):
            with pytest.raises(InvalidProjection, match=match):
                store.project(wrong)
        with pytest.raises(InvalidState, match="coroutine"):
            store.state(Seen("p"))
