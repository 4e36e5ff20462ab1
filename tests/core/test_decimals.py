"""A float where a class declares a Decimal is refused for its type, not for its value."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import attrs
import pytest

import eventfold as ef
from eventfold.errors import InvalidEvent


class Line(ef.Event, type="decimals-line"):
    """Nested in others, too."""

    price: Decimal
    weight: float = 0.0
    either: Decimal | float = 0.0


class Order(ef.Event, type="decimals-order"):
    """Decimals within collections."""

    lines: tuple[Line, ...] = ()
    by_name: dict[str, list[Decimal]] = {}
    known: frozenset[Decimal] = frozenset()


@ef.event("decimals-data")
@dataclass(frozen=True)
class OfDataclass:
    """The same of another kind of class."""

    price: Decimal


@ef.event("decimals-attrs")
@attrs.frozen
class OfAttrs:
    """And of a third."""

    price: Decimal


@pytest.mark.parametrize("number", [1.5, 0.1, 2.0])
@pytest.mark.parametrize("kind", [Line, OfDataclass, OfAttrs])
def test_a_float_is_no_decimal(kind: Any, number: float) -> None:
    """Whatever its value: 1.5 would come back equal, and 0.1 would not."""
    with ef.Store("memory:") as store:
        with pytest.raises(InvalidEvent, match=f"field price is {number}") as refused:
            store.append(kind(number))
        assert refused.value.fields["field"] == "price"
        assert "Decimal('0.1')" in refused.value.remedy
        store.append(kind(Decimal("1.5")), kind(3))
        assert store.head() == 2


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (Order((Line(Decimal(1)), Line(1.5))), "lines[1].price"),  # pyright: ignore[reportArgumentType]
        (Order(by_name={"a": [Decimal(1), 0.5]}), "by_name[a][1]"),  # pyright: ignore[reportArgumentType]
        (Order(known=frozenset([0.5])), "known"),  # pyright: ignore[reportArgumentType]
    ],
    ids=["in an event", "in a dict of lists", "in a set"],
)
def test_a_float_is_no_decimal_within_others(event: Any, field: str) -> None:
    """The field is named with its place."""
    with ef.Store("memory:") as store, pytest.raises(InvalidEvent) as refused:
        store.append(event)
    assert refused.value.fields["field"] == field


def test_a_float_stays_a_float_where_it_may_be_one() -> None:
    """In a field of its own type, and in one that takes either."""
    with ef.Store("memory:") as store:
        store.append(Line(Decimal(1), 0.1, 0.25))
        (line,) = store.read()
        assert (line.event.weight, line.event.either) == (0.1, 0.25)


def test_a_decision_with_a_float_says_which_field() -> None:
    """Before the state is folded with it, which would raise what Python raises for a Decimal and a float."""

    class Total(ef.State):
        sum: Decimal = Decimal(0)

        def evolve(self, event: Line) -> None:
            self.sum += event.price

    with ef.Store("memory:") as store, pytest.raises(InvalidEvent, match="field price"):
        store.decide(_with_a_float, Total())


def _with_a_float(total: ef.State) -> Line:
    return Line(1.5)  # pyright: ignore[reportArgumentType]
