"""The filter language: a line of text selects the rows that its meaning says, and each mistake is named."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest

import eventfold as ef
from eventfold.errors import InvalidFilter
from eventfold.projections.definition import projection_definition
from eventfold.projections.fields import fields_of
from eventfold.search import filter_of_text


class Size(Enum):
    """An enum."""

    SMALL = "s"
    LARGE = "l"


class Kept(ef.Event, type="search.kept"):
    """An event with a value of each kind."""

    item: str
    owner: str | None
    total: Decimal
    count: int
    at: datetime
    day: date
    size: Size
    done: bool
    ref: UUID


class Item(ef.Projection, name="search_item"):
    """A row of it."""

    item: str
    owner: str | None = None
    total: Decimal = Decimal(0)
    count: int = 0
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    day: date = date(2026, 1, 1)
    size: Size = Size.SMALL
    done: bool = False
    ref: UUID = UUID(int=0)
    tags: tuple[str, ...] = ()

    def evolve(self, event: Kept) -> None:
        """Store it."""
        self.owner, self.total, self.count, self.at = event.owner, event.total, event.count, event.at
        self.day, self.size, self.done, self.ref = event.day, event.size, event.done, event.ref


@pytest.fixture(scope="module")
def store() -> ef.Store:
    """Four rows: a, b, c, d."""
    opened = ef.Store("memory:")
    for number, (item, owner) in enumerate([("a", "ann"), ("b", "bob b"), ("c", None), ("d", "null")]):
        opened.append(
            Kept(
                item,
                owner,
                Decimal(number) - Decimal("1.5"),
                number,
                datetime(2026, 6, 1 + number, 23, 59, tzinfo=UTC),
                date(2026, 6, 1 + number),
                Size.LARGE if number > 1 else Size.SMALL,
                number == 3,
                UUID(int=number),
            )
        )
    opened.project(Item)
    return opened


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("total>0", "cd"),
        ("total > 0", "cd"),
        ("total>=-0.5", "bcd"),
        ("total:-1.5..0.5", "abc"),
        ("total<0 count>0", "b"),
        ("total<0 AND count>0", "b"),
        ("count=0 OR count:2,3", "acd"),
        ("-count:2,3", "ab"),
        ("NOT count:2,3", "ab"),
        ("~(count:2 OR count:3)", "ab"),
        ("count!=2,3", "ab"),
        ("owner:ann", "a"),
        ('owner:"bob b"', "b"),
        ("owner:b*", "b"),
        ("owner=null", "c"),
        ("owner!=null", "abd"),
        ('owner="null"', "d"),
        ('owner:"b*"', ""),
        ("has:owner", "abd"),
        ("-has:owner", "c"),
        ("-owner:ann", "bcd"),
        ("(owner:ann OR size:l) -done:true", "ac"),
        ("size:s", "ab"),
        ("count=2,3", "cd"),
        ("owner=b*", "b"),
        ("done=TRUE", "d"),
        ("day>2026-06-02", "cd"),
        ("day:2026-06-02..2026-06-03", "bc"),
        ("at:2026-06-02", "b"),
        ("at>2026-06-02", "cd"),
        ("at>=2026-06-02", "bcd"),
        ("at<=2026-06-02", "ab"),
        ("at<2026-06-02", "a"),
        ("at:2026-06-01..2026-06-03", "abc"),
        ("at>=2026-06-02T23:59Z", "bcd"),
        ("at=2026-06-03T01:59+02:00", "b"),
        ("ref:00000000-0000-0000-0000-000000000002", "c"),
        ("item>b", "cd"),
    ],
)
def test_a_text_selects_what_it_says(store: ef.Store, text: str, expected: str) -> None:
    """Comparisons, lists, ranges, prefixes, missing values, and, or, not; a date is the whole day of a moment."""
    found = store.rows(Item, filter_of_text(text, fields_of(projection_definition(Item))))
    assert "".join(row.item for row in found) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "at its end"),
        ("total", "no comparison after 'total'"),
        ("total>", "no value"),
        ("total>five", "'five' is no value of the column total. Write 12.50"),
        ("totl>5", "no column 'totl'. Did you mean total"),
        ("tags:x", "stored as JSON"),
        ("owner~an", "owner:an\\*"),
        ("total>1,2", "a list or with null"),
        ("owner>null", "a list or with null"),
        ("(total>5", "no closing parenthesis"),
        ("total>5)", "nothing that can follow"),
        ("total>5 OR", "at its end"),
        ("at>2026-06-01T12:00", "no value of the column at"),
        ("total:nan", "NaN"),
        ('owner:"ann', "a quote that is not closed"),
        ("total~5", "total:5, total>5"),
        ("total:5..", "Write total>=5"),
        ("total:..5", "Write total<=5"),
        ("size:nonsense", "Size.SMALL"),
        ("(" * 100 + "total>5", "deeper than 50"),
        ("x" * 20_000, "longer than"),
    ],
)
def test_a_mistake_is_named(store: ef.Store, text: str, why: str) -> None:
    """The error says where the text is wrong, and what to write."""
    with pytest.raises(InvalidFilter, match=why):
        store.rows(Item, filter_of_text(text, fields_of(projection_definition(Item))))
