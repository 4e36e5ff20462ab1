"""Values that databases cannot hold as they are: stored exactly, or refused with read model, column and value."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import InvalidProjection, ProjectionStopped

TEXTS = [
    "nul \0 here",
    "\0",
    "\1",
    "\1\1",
    "\1\2",
    "\0\1\2",
    "\\u0000",
    "\\\0",
    "\ufeffbom",
    "\uffff",
    "\U0010ffff",
    "",
]


class Said(ef.Event, type="unfit-said"):
    """A text was sent in a chat channel."""

    channel: int
    text: str


class Last(ef.Projection, name="unfit_last", indexes=["text"], version=1):
    """The last text of a chat channel, as text and as JSON."""

    channel: int
    text: str = ""
    more: dict[str, str] = {}  # noqa: RUF012

    def evolve(self, event: Said) -> None:
        """Take the text."""
        self.text, self.more = event.text, {event.text: event.text}


class ByText(ef.Projection, name="unfit_by_text", version=1):
    """How often a text was said."""

    text: str
    times: int = 0

    def evolve(self, event: Said) -> None:
        """Once more."""
        self.times += 1


def test_any_text_can_be_a_column_a_key_and_a_filter(store: ef.Store) -> None:
    """PostgreSQL cannot hold U+0000: it is stored all the same, and no two texts become one."""
    store.append(*[Said(number, text) for number, text in enumerate(TEXTS)])
    store.append(*[Said(99, text) for text in TEXTS])
    for cls in (Last, ByText):
        store.project(cls)
    rows = {row.channel: row for row in store.rows(Last)}
    assert [(rows[n].text, rows[n].more) for n in range(len(TEXTS))] == [(text, {text: text}) for text in TEXTS]
    assert {row.text: row.times for row in store.rows(ByText)} == dict.fromkeys(TEXTS, 2)
    for number, text in enumerate(TEXTS):
        assert number in [row.channel for row in store.rows(Last, text=text)], repr(text)
        assert [row.times for row in store.rows(ByText, text=text)] == [2], repr(text)
    assert all(proof.proved for proof in store.projections.verify_rows(Last, ByText))


class Set(ef.Event, type="unfit-set"):
    """A value was set, of the kind that `kind` names."""

    item: str
    kind: str


VALUES: dict[str, Any] = {"large": 1 << 63, "small": -(1 << 63) - 1, "least": -(1 << 63), "surrogate": "\ud800"}


class Column(ef.Projection, name="unfit_column", on_error="park", attempts=1, version=1):
    """Values in columns."""

    item: str
    number: int = 0
    text: str = ""

    def evolve(self, event: Set) -> None:
        """Assign a value that may not fit."""
        value = VALUES[event.kind]
        if isinstance(value, int):
            self.number = value
        else:
            self.text = value


class Number(ef.Projection, name="unfit_number", on_error="park", attempts=1, version=1):
    """Values as keys."""

    number: int
    times: int = 0

    def evolve(self, event: Set) -> None:
        """Once more."""
        self.times += 1

    @staticmethod
    def key(event: Set) -> Any:
        """Return a key that may not fit."""
        value = VALUES[event.kind]
        return value if isinstance(value, int) else None


@pytest.fixture
def given(store: ef.Store) -> ef.Store:
    """Return a store in which one value fits and the others do not."""
    store.append(*[Set(kind, kind) for kind in VALUES])
    return store


def test_an_unfit_value_is_parked_with_its_column(given: ef.Store) -> None:
    """It is not an outage of the database: the event is parked, and the others are folded."""
    given.project(Column, Number)
    assert {row.item: row.number for row in given.rows(Column)} == {"least": -(1 << 63)}
    parked = {entry.key: entry.error for entry in given.projections.parked(Column)}
    assert sorted(parked) == ["large", "small", "surrogate"]
    for kind, column in (("large", "number"), ("small", "number"), ("surrogate", "text")):
        assert f"unfit_column cannot store {VALUES[kind]!r} in its column {column}" in parked[kind]
    assert [row.number for row in given.rows(Number)] == [-(1 << 63)]
    errors = [entry.error for entry in given.projections.parked(Number)]
    assert len(errors) == 2
    for kind in ("large", "small"):
        assert any(f"unfit_number cannot store {VALUES[kind]} in its column number" in error for error in errors)
    assert all(proof.proved for proof in given.projections.verify(Column, Number))


OTHERS: dict[str, tuple[str, Any]] = {
    "decimal for int": ("count", Decimal("9.99")),
    "float for int": ("count", 9.99),
    "list for int": ("count", [1]),
    "bool for int": ("count", True),
    "float for decimal": ("price", 0.1 + 0.2),
    "text for decimal": ("price", "x"),
    "datetime for date": ("day", datetime(2026, 1, 1, tzinfo=UTC)),
    "text for date": ("day", "2026-01-01"),
    "date for text": ("text", date(2026, 1, 1)),
    "int for bool": ("done", 1),
    "date for datetime": ("moment", date(2026, 1, 1)),
}


class Typed(ef.Projection, name="unfit_typed", on_error="park", attempts=1, version=1):
    """A read model with columns of several types."""

    item: str
    count: int = 0
    price: Decimal = Decimal(0)
    day: date = date.min
    text: str = ""
    done: bool = False
    moment: datetime = datetime.min.replace(tzinfo=UTC)
    rate: float = 0.0

    def evolve(self, event: Set) -> None:
        """Assign a value of another type; a whole number fits float and Decimal."""
        column, value = OTHERS.get(event.item, ("rate", 2))
        setattr(self, column, value)
        self.price = 3 if column == "rate" else self.price  # type: ignore[assignment]


def test_a_value_of_another_type_than_its_column_is_refused_by_name(store: ef.Store) -> None:
    """Everywhere alike: PostgreSQL rounded 9.99 for an int to 10, and SQLite kept a text that no Decimal is."""
    store.append(*[Set(item, item) for item in OTHERS], Set("good", "good"))
    store.project(Typed)
    (row,) = store.rows(Typed)
    assert (row.item, row.rate, row.price) == ("good", 2.0, 3)
    errors = [entry.error for entry in store.projections.parked(Typed)]
    assert len(errors) == len(OTHERS)
    for column, value in OTHERS.values():
        said = f"unfit_typed cannot store {value!r} in its column {column}: the column is of kind"
        assert any(said in error for error in errors), (column, value)


class Stops(ef.Projection, name="unfit_stops", attempts=1, version=1):
    """A read model that stops at a value that does not fit."""

    item: str
    number: int = 0

    def evolve(self, event: Set) -> None:
        """Assign a number that is too large."""
        self.number = 1 << 64


def test_a_stopped_read_model_names_the_unfit_value(given: ef.Store) -> None:
    """The error has the read model, the column and the value."""
    with pytest.raises(ProjectionStopped, match=f"unfit_stops cannot store {1 << 64} in its column number"):
        given.project(Stops)


def test_a_filter_that_no_row_can_be_equal_to_is_refused(given: ef.Store) -> None:
    """The error is the same on every target."""
    given.project(Column)
    for where in ({"number": 1 << 63}, {"text": "\ud800"}, {"item": "\udfff"}):
        ((name, value),) = where.items()
        with pytest.raises(
            InvalidProjection, match=f"The column {name} of unfit_column cannot be compared with"
        ) as refused:
            given.rows(Column, where)
        assert refused.value.fields["column"] == name
        assert refused.value.fields["value"] == repr(value)


def test_a_limit_that_is_no_number_of_rows_is_refused(given: ef.Store) -> None:
    """This holds on every target: SQLite takes -1 for all rows, and PostgreSQL takes a text."""
    given.project(Column)
    for limit in (-1, "1", 1.0, True, 1 << 63):
        with pytest.raises(InvalidProjection, match="is not a number of rows"):
            given.rows(Column, limit=limit)  # type: ignore[arg-type]
    assert given.rows(Column, limit=0) == []
    assert len(given.rows(Column, limit=1)) == 1


class Priced(ef.Event, type="unfit-priced"):
    """A price."""

    item: str
    price: Decimal


class Price(ef.Projection, name="unfit_price", on_error="park", attempts=1, version=1):
    """Prices."""

    item: str
    price: Decimal = Decimal(0)

    def evolve(self, event: Priced) -> None:
        """Take it."""
        self.price = event.price


def test_a_decimal_is_kept_exactly_or_refused_by_name(store: ef.Store) -> None:
    """Each database has its own range; none rounds silently, and the error is not taken for an outage."""
    prices = [Decimal("1E+200000"), Decimal("1E-20000"), Decimal("1E+70"), Decimal("1E-35"), Decimal("0.1")]
    store.append(*[Priced(f"p{number}", price) for number, price in enumerate(prices)])
    store.project(Price)
    kept = {row.item: row.price for row in store.rows(Price)}
    parked = {entry.key: entry.error for entry in store.projections.parked(Price)}
    for number, price in enumerate(prices):
        if f"p{number}" in parked:
            assert f"unfit_price cannot store {price!r} in its column price" in parked[f"p{number}"]
        else:
            assert kept[f"p{number}"] == price
    assert kept["p4"] == Decimal("0.1")
    with_price = store.rows(Price, price=Decimal("0.1"))
    assert [row.item for row in with_price] == ["p4"]
    try:
        found = store.rows(Price, price=prices[0])
    except InvalidProjection as refused:
        assert "price" in str(refused)
    else:
        assert [row.item for row in found] in ([], ["p0"])


class At(ef.Event, type="unfit-at"):
    """Something happened at a moment."""

    item: str
    at: datetime


class Moment(ef.Projection, name="unfit_moment", on_error="park", attempts=1, version=1):
    """Moments in columns."""

    item: str
    at: datetime | None = None

    def evolve(self, event: At) -> None:
        """Take the moment."""
        self.at = event.at


class ByMoment(ef.Projection, name="unfit_by_moment", on_error="park", attempts=1, version=1):
    """Moments as keys."""

    at: datetime
    n: int = 0

    def evolve(self, event: At) -> None:
        """Once more."""
        self.n += 1


def test_a_moment_of_no_year_is_refused_by_name(store: ef.Store) -> None:
    """Databases would store it and not return it; the first and the last moment of the calendar are stored."""
    west, east = timezone(timedelta(hours=-5)), timezone(timedelta(hours=5))
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    bad = {"late": datetime.max.replace(tzinfo=west), "early": datetime.min.replace(tzinfo=east)}
    store.append(*[At(item, at) for item, at in ({"first": first, "last": last} | bad).items()])
    store.project(Moment, ByMoment)
    assert {row.item: row.at for row in store.rows(Moment)} == {"first": first, "last": last}
    assert [row.at for row in store.rows(ByMoment)] == [first, last]
    errors = {entry.key: entry.error for entry in store.projections.parked(Moment)}
    assert sorted(errors) == ["early", "late"]
    for item, at in bad.items():
        assert f"unfit_moment cannot store {at!r} in its column at" in errors[item]
        with pytest.raises(InvalidProjection, match="The column at of unfit_moment cannot be compared with"):
            store.rows(Moment, at=at)
    errors_of_keys = [entry.error for entry in store.projections.parked(ByMoment)]
    assert len(errors_of_keys) == 2
    assert all("unfit_by_moment cannot store" in error and "in its column at" in error for error in errors_of_keys)
