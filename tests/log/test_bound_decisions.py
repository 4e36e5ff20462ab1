"""A decision that is bound to a state is refused: that state would never be loaded, and nothing would be checked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import InvalidDecision


class Lent(ef.Event, type="bound-decisions.lent"):
    """A tool was lent."""

    tool: ef.Tag


class Shelf(ef.Aggregate):
    """A tool, as an aggregate."""

    tool: ef.Tag
    lent: int = 0

    def evolve(self, event: Lent) -> None:
        """Count."""
        self.lent += 1

    def lend(self) -> None:
        """Lend it once."""
        if not self.lent:
            self.record(Lent(self.tool))


class Tool(ef.State):
    """A tool, as a state."""

    tool: ef.Tag
    lent: int = 0

    def evolve(self, event: Lent) -> None:
        """Count."""
        self.lent += 1

    def lend(self) -> list[Lent]:
        """Lend it once."""
        return [] if self.lent else [Lent(self.tool)]


def lend(tool: Tool) -> list[Lent]:
    """Lend it once."""
    return tool.lend()


class Library:
    """An object of the application with a decision."""

    def lend(self, tool: Tool) -> list[Lent]:
        """Lend it once."""
        return tool.lend()


def test_a_decision_that_is_bound_to_a_state_is_refused_with_the_call_to_write() -> None:
    """A method of an aggregate or a state, and a partial that holds one."""
    calls: list[tuple[Callable[[ef.Store], Any], str]] = [
        (lambda store: store.decide(Shelf("saw").lend), r"store\.change\(Shelf\.lend, Shelf\(…\)\)"),
        (lambda store: store.decide(Shelf("saw").lend, Shelf("saw")), r"store\.change\(Shelf\.lend, Shelf\(…\)\)"),
        (lambda store: store.change(Shelf("saw").lend, Shelf("saw")), r"store\.change\(Shelf\.lend, Shelf\(…\)\)"),
        (lambda store: store.decide(Tool("saw").lend), r"store\.decide\(Tool\.lend, Tool\(…\)\)"),
        (lambda store: store.decide(partial(lend, Tool("saw"))), r"store\.decide\(lend, Tool\(…\)\)"),
        (lambda store: store.decide(partial(lend, tool=Tool("saw"))), r"store\.decide\(lend, Tool\(…\)\)"),
    ]
    with ef.Store("memory:") as store:
        store.append(Lent("saw"))
        for call, remedy in calls:
            with pytest.raises(InvalidDecision, match=f"never loaded.*{remedy}"):
                call(store)
        assert store.head() == 1


def test_a_method_of_another_object_and_of_a_class_decide() -> None:
    """They get the states as arguments."""
    with ef.Store("memory:") as store:
        assert len(store.decide(Library().lend, Tool("saw")).events) == 1
        assert len(store.decide(Tool.lend, Tool("saw")).events) == 0
        assert len(store.decide(partial(Library().lend), Tool("drill")).events) == 1
        assert len(store.change(Shelf.lend, Shelf("plane")).events) == 1
