"""A moment that is given where a position belongs is refused by name, with the parameters that take moments."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.errors import InvalidInput, PositionBeyondHead
from tests.projections.modes import opened

MOMENT: Any = datetime(2026, 1, 1, tzinfo=UTC)


class Lent(ef.Event, type="moments.lent"):
    """A tool was lent."""

    tool: ef.Tag


class Loans(ef.Projection, name="moments_loans"):
    """Loans by tool."""

    tool: str
    loans: int = 0

    def evolve(self, event: Lent) -> None:
        """Count."""
        self.loans += 1


class OtherLoans(Loans, name="moments_other_loans"):
    """The same, as another read model."""


class Tool(ef.State):
    """One tool."""

    tool: ef.Tag
    loans: int = 0

    def evolve(self, event: Lent) -> None:
        """Count."""
        self.loans += 1


QUERY = ef.Query.of(types=Lent)
CALLS: list[tuple[str, Callable[[ef.Store, Any], object]]] = [
    ("after=", lambda store, at: list(store.read(after=at))),
    ("after=", lambda store, at: store.count(after=at)),
    ("after=", lambda store, at: list(store.history(Tool("saw"), after=at))),
    ("after=", lambda store, at: store.append(Lent("saw"), unless=QUERY, after=at)),
    ("is a moment", lambda store, at: store.append(Lent("saw"), unless=[(QUERY, at)])),
    ("is a moment", lambda store, at: store.cursor(at)),
    ("position=", lambda store, at: store.wait(Loans, at)),
    ("position=", lambda store, at: store.projections.retry(Loans, at)),
    ("position=", lambda store, at: store.projections.skip(Loans, at, "no reason")),
    ("wait=", lambda store, at: store.rows(Loans, wait=at)),
]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_moment_is_refused_where_a_position_belongs(mode: str) -> None:
    """With the name of the parameter, and with those that take moments."""
    with opened(f"memory:{uuid4().hex}", mode) as store:
        store.append(Lent("saw"), Lent("saw"))
        store.project(Loans)
        for named, call in CALLS:
            for given in (MOMENT, date(2026, 1, 1)):
                with pytest.raises(InvalidInput, match=r"where a position is expected.*since= and until=") as error:
                    call(store, given)
                assert named in error.value.what
        assert store.head() == 2


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_what_is_no_earlier_view_is_refused_with_at(mode: str) -> None:
    """A moment, a position, and a view of another read model, whose rows would be continued as those of this one."""
    with opened(f"memory:{uuid4().hex}", mode) as store:
        store.append(Lent("saw"))
        other: Any = store.view(OtherLoans)
        for given in (MOMENT, date(2026, 1, 1), 1, other):
            with pytest.raises(InvalidInput, match=r"is no view of Loans.*use at="):
                store.view(Loans, since=given)
        assert store.view(Loans, since=store.view(Loans))["saw"].loans == 1


def test_other_values_are_refused_where_cursors_queries_and_tags_belong() -> None:
    """A moment is neither a cursor, nor a query, nor a tag; a position beyond the head begins no history."""
    with ef.Store("memory:") as store:
        store.append(Lent("saw"))
        for call, match in (
            (lambda: store.verify(MOMENT), "is no cursor"),
            (lambda: store.search("", within=MOMENT), "is no query"),
            (lambda: store.select(Loans, wait=MOMENT).count(), "wait=.*a moment"),
            (lambda: store.search("").page(after=MOMENT), "after=.*a moment"),
            (lambda: store.tags(after=MOMENT), "after=datetime"),
            (lambda: store.tag_names(after=MOMENT), "after=datetime"),
            (lambda: store.tag_keys(MOMENT), "prefix=datetime"),
        ):
            with pytest.raises(InvalidInput, match=match):
                call()
        with pytest.raises(PositionBeyondHead):
            list(store.history(Tool("saw"), after=9))
