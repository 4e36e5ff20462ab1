"""What is compared: which events, by which key, period and amount; and which rows outside, by which columns.

Knows: names of fields and columns, what may be combined. Does not know: where rows come from, how values are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Literal

import msgspec

from eventfold.errors import InvalidInput

Period = Literal["hour", "day", "month"]
FORMATS: dict[Period, str] = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}


class Ours(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are compared.

    `filter`  which events, as `store.search` takes it: "type:Paid data.currency=EUR". Empty: all.
    `key`     the key of a tag ("account" for the tags account:…), or the path of a field ("data.customer.id")
    `sum`     the path of a number that is added up, "data.amount"; None: events are only counted
    `by`      "hour", "day" or "month": they are also compared by period; None: altogether
    `zone`    the time zone of periods
    `time`    which time counts: "occurred" (when it occurred, else when it was recorded) or "recorded"
    `since`, `until`  only events of this time or later, and of an earlier time; None: no bound
    """

    filter: str = ""
    key: str
    sum: str | None = None
    by: Period | None = None
    zone: tzinfo = UTC
    time: Literal["occurred", "recorded"] = "occurred"
    since: datetime | None = None
    until: datetime | None = None

    def period(self, moment: datetime) -> str:
        """Return the period of a moment as text; empty without periods."""
        if self.by is None:
            return ""
        try:
            moment = moment.astimezone(self.zone)
        except OverflowError:  # 9999-12-31, which says "never", is in the year 10000 of some zones
            pass
        return moment.strftime(FORMATS[self.by])

    def contains(self, moment: datetime) -> bool:
        """Whether a moment is within the bounds: `since` inclusive, `until` exclusive."""
        return (self.since is None or moment >= self.since) and (self.until is None or moment < self.until)


class Theirs(msgspec.Struct, frozen=True, kw_only=True):
    """Where the rows outside are, and which columns are compared.

    `address`  a CSV file, a Parquet file, an http:// or https:// address that answers with JSON, or a URL of SQLAlchemy
    `key`      the column of the key
    `sum`      the column that is added up; None: rows are only counted
    `count`    a column with a number of events, of rows that are totals already; None: each row is one
    `time`     the column of the time, for periods and bounds
    `table`, `query`  of a database: a table, or a SELECT
    `items`    of JSON: the path to the list, "data.payments"; empty: the answer is the list, or one JSON a line
    `headers`  of a request
    `timeout`  in seconds, of a request
    """

    address: str
    key: str
    sum: str | None = None
    count: str | None = None
    time: str | None = None
    table: str | None = None
    query: str | None = None
    items: str = ""
    headers: Mapping[str, str] = {}
    timeout: float = 30.0


def check(ours: Ours, theirs: Theirs) -> None:
    """Raise InvalidInput where the two sides cannot be compared."""
    if (ours.sum is None) != (theirs.sum is None):
        raise InvalidInput(
            "A sum was named on one side only.", "Name both: the field of the events, and the column outside."
        )
    if ours.by is not None and theirs.time is None:
        raise InvalidInput(
            f"Rows outside cannot be compared by {ours.by} without a time.", "Name the column of their time."
        )
    if (ours.since or ours.until) and theirs.time is None:
        raise InvalidInput(
            "Bounds of time were given, and no column of the time of the rows outside.",
            "Name that column, or leave the bounds away and select the rows outside by a query.",
        )
    if ours.since and ours.until and ours.since >= ours.until:
        raise InvalidInput("The bounds of time contain nothing.", "Give a beginning that is before the end.")
