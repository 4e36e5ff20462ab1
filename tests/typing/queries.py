"""Queries of read models as type checkers see them: columns have the types of fields, wrong values are mistakes.

Checked, never imported. An ignored line is a mistake that has to be reported.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Literal, NewType, assert_type
from uuid import UUID

import eventfold as ef
from eventfold.selection import ComparableColumn, Explanation, Filter, Rows

Owner = NewType("Owner", str)


class Size(Enum):
    """A column of an enum."""

    SMALL = "s"
    LARGE = "l"


class Paid(ef.Event, type="typing.queries.paid"):
    """An event."""

    account: str


class Balance(ef.Projection, indexes=[("owner", "-total")]):
    """A read model."""

    account: str
    owner: Owner = Owner("")
    total: Decimal = Decimal(0)
    count: int = 0
    ratio: float = 0.0
    closed: datetime | None = None
    day: date | None = None
    ref: UUID | None = None
    size: Size = Size.SMALL
    kind: Literal["a", "b"] = "a"
    done: bool = False

    def evolve(self, event: Paid) -> None:
        """Count."""
        self.count += 1


class Other(ef.Projection):
    """Another read model."""

    account: str

    def evolve(self, event: Paid) -> None:
        """Do nothing."""


def use(store: ef.Store) -> None:
    """Comparisons make filters, which rows, select and views take."""
    assert_type(ef.col(Balance.total), ComparableColumn[Decimal])
    assert_type(ef.col(Balance.closed), ComparableColumn[datetime])
    wanted = ef.col(Balance.total) > Decimal(5)
    assert_type(wanted, Filter)
    assert_type(wanted & ~(ef.col(Balance.owner) == Owner("ann")) | ef.col(Balance.closed).is_null(), Filter)
    assert_type(ef.col(Balance.owner).prefix("a"), Filter)
    assert_type(ef.col(Balance.kind).prefix("a"), Filter)
    assert_type(ef.col(Balance.ref).in_([UUID(int=1), None]), Filter)
    assert_type(ef.col(Balance.closed) == None, Filter)  # noqa: E711
    assert_type(ef.col(Balance.size) != Size.LARGE, Filter)
    assert_type(ef.col(Balance.ratio) >= 1, Filter)
    assert_type(ef.col(Balance.day).between(date(2026, 1, 1), date(2026, 2, 1)), Filter)
    rows = store.rows(Balance, wanted, {"kind": "a"}, owner="ann", order="-total", limit=5)
    assert_type(rows, Rows[Balance])
    assert_type(rows[0].total, Decimal)
    assert_type(rows.next, str | None)
    assert_type(store.rows(Balance, order=["owner", "-total"], limit=5, after=rows.next), Rows[Balance])
    selection = store.select(Balance, wanted, order="owner")
    assert_type(selection.count(), int)
    assert_type(selection.first(), Balance | None)
    assert_type(selection.sum(ef.col(Balance.total)), Decimal)
    assert_type(selection.sum(ef.col(Balance.count)), int)
    assert_type(selection.max(ef.col(Balance.closed)), datetime | None)
    assert_type(selection.count_by(ef.col(Balance.size)), dict[Size | None, int])
    assert_type(selection.explain(), Explanation)
    for page in selection.pages(10):
        assert_type(page, Rows[Balance])
    assert_type(store.view(Balance, at=3).rows(wanted), Rows[Balance])
    assert_type(store.view(Balance).select(wanted).exists(), bool)


async def use_async(store: ef.AsyncStore) -> None:
    """The same, awaited."""
    assert_type(await store.rows(Balance, ef.col(Balance.total) > Decimal(5), limit=5), Rows[Balance])
    selection = store.select(Balance)
    assert_type(await selection.sum(ef.col(Balance.total)), Decimal)
    assert_type(await selection.first(), Balance | None)
    async for page in selection.pages():
        assert_type(page[0], Balance)


def mistakes(store: ef.Store) -> None:
    """Each of these lines is wrong, and both checkers say so."""
    _ = ef.col(Balance.totl)  # type: ignore
    _ = ef.col(Balance.total) > 5.0  # type: ignore
    _ = ef.col(Balance.total) > "5"  # type: ignore
    store.rows(Balance, ef.col(Balance.total) == "5")  # type: ignore
    _ = ef.col(Balance.closed) > None  # type: ignore
    _ = ef.col(Balance.closed) > "2026-01-01"  # type: ignore
    ef.col(Balance.count).between(1, "2")  # type: ignore
    ef.col(Balance.count).in_(["1"])  # type: ignore
    ef.col(Balance.count).prefix("1")  # type: ignore
    store.rows(Balance, ef.col(Balance.size) == "s")  # type: ignore
    store.rows(Balance, ef.col(Balance.ref) == "00000000-0000-0000-0000-000000000001")  # type: ignore
    store.rows(Balance, "total > 5")  # type: ignore
    store.rows(Balance, limit="5")  # type: ignore
    store.select(Balance).sum(ef.col(Balance.owner))  # type: ignore
    _ = store.select(Balance).first().total  # type: ignore
    _ = (ef.col(Balance.total) > Decimal(5)) & True  # type: ignore
