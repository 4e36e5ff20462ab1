"""Source: the invoices of Online Retail II, read from the file of the package, each whole, in the order of the file.

Knows: the columns and their traps. Does not know: events, stores, SQL.

A British wholesaler of giftware, 1 December 2009 to 9 December 2011, 1,067,371 lines. What was found in them:

- The file is two sheets, one after the other, and they overlap: 22,523 lines of 1 to 9 December 2010 are in both. These
  are all lines of 1,088 invoices, 7 of which have their lines in another order the second time. Other lines stand twice
  within an invoice, rightly (11,812). So an id of invoice and line number would differ between the two copies of seven
  invoices, an id of the line's content would lose 11,812 lines, and the invoice is one event, its lines sorted.
- Lines of invoices that were written at the same minute are mixed, so an invoice is complete only once the file has
  reached a later time (`GAP`). 76 invoices carry two times, up to nine
  minutes apart: the first one counts.
- An invoice has up to 1,114 lines. Its number begins with C for a credit note, with A for an adjustment of bad debts.
- 3,393 lines with a negative quantity are no credit notes: they have no price, and are corrections of the stock, most
  with a reason in the column of the description ("damages", "thrown away").
- 23 % of the lines have no customer. Prices have up to three decimals. Times are those of London.
- 172 codes of goods occur with a small letter at the end as well (85099B, 85099b): `fold` makes them one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from eventfold.demo.data import open_source
from eventfold.demo.fields import LoadCount

SOURCE = "online-retail"
LONDON = ZoneInfo("Europe/London")
GAP = timedelta(minutes=15)  # an invoice is complete once a line is later than its last one by more than this
SHEET_ROWS = 525_461  # of the first sheet
CUT = "of invoices that the limit cuts"
GOODS = re.compile(r"\d{5}|DCGS|SP1002|PADS")  # the beginning of the code of goods; other codes are services and fees


class Line(NamedTuple):
    """One line of an invoice. `quantity` is negative on credit notes; `price` is that of one piece, in pounds."""

    code: str
    words: str
    quantity: int
    price: Decimal

    @property
    def amount(self) -> Decimal:
        """What the line adds to the invoice, in pounds."""
        return self.quantity * self.price


class Invoice(NamedTuple):
    """An invoice, a credit note or an adjustment, with its lines sorted. `at` is its time, in UTC."""

    number: str
    at: datetime
    customer: str | None
    country: str
    lines: tuple[Line, ...]

    @property
    def is_credit(self) -> bool:
        """Whether it is a credit note."""
        return self.number.startswith("C")

    @property
    def is_priced(self) -> bool:
        """Whether any line has a price: an invoice without one is a correction of the stock."""
        return any(line.price for line in self.lines)


class _Open:
    """An invoice of which more lines may follow."""

    def __init__(self, row: list[str], clock: datetime) -> None:
        self.number, self.first, self.last = row[0], clock, clock
        self.customer, self.country = row[6].removesuffix(".0") or None, row[7]
        self.lines: list[Line] = []

    def whole(self) -> Invoice:
        return Invoice(self.number, in_utc(self.first), self.customer, self.country, tuple(sorted(self.lines)))


def invoices(count: LoadCount, limit: int | None = None) -> Iterator[Invoice]:
    """Yield the invoices by the place of their first line; an invoice of both sheets is yielded twice, equal.

    `limit`: read only so many lines. Invoices that may have more lines behind the limit are left out, and their lines
    counted as rejected. `count.read` is increased by every line. Raises DataMissing, DataChanged.
    """
    waiting: dict[str, _Open] = {}
    now = datetime(1970, 1, 2)
    for row in rows(limit):
        count.read += 1
        clock = clock_of(row[4])
        if clock < now - timedelta(days=1):  # the second sheet begins
            yield from _taken(waiting, None)
        elif clock != now:
            yield from _taken(waiting, clock - GAP)
        now = clock
        invoice = waiting.get(row[0])
        if invoice is None:
            invoice = waiting[row[0]] = _Open(row, clock)
        invoice.last = max(invoice.last, clock)
        invoice.lines.append(Line(row[1], row[2].strip(), int(row[3]), price_of(row[5])))
    if limit is None or count.read < limit:
        yield from _taken(waiting, None)
    else:
        cut = [each for each in waiting.values() if each.last >= now - GAP]
        yield from [each.whole() for each in waiting.values() if each.last < now - GAP]
        count.reject(CUT, sum(len(each.lines) for each in cut))


def _taken(waiting: dict[str, _Open], before: datetime | None) -> Iterator[Invoice]:
    """Take the invoices from the front that have no line at or after a time (None: all)."""
    while waiting:
        number = next(iter(waiting))
        if before is not None and waiting[number].last >= before:
            return
        yield waiting.pop(number).whole()


def rows(limit: int | None = None) -> Iterator[list[str]]:
    """Yield the lines of the file as texts, without its header; at most `limit`."""
    with open_source(SOURCE) as opened:
        reader = csv.reader(io.TextIOWrapper(opened, "utf-8", newline=""))
        next(reader)
        for number, row in enumerate(reader):
            if limit is not None and number >= limit:
                return
            yield row


@lru_cache(maxsize=4_096)
def clock_of(text: str) -> datetime:
    """The time of a line, on the clock of London: 12/1/2009 7:45 is the first of December."""
    day, _, time = text.partition(" ")
    month, date, year = day.split("/")
    hour, _, minute = time.partition(":")
    return datetime(int(year), int(month), int(date), int(hour), int(minute))


@lru_cache(maxsize=4_096)
def price_of(text: str) -> Decimal:
    """A price in pounds; texts of prices are few."""
    return Decimal(text)


@lru_cache(maxsize=4_096)
def in_utc(clock: datetime) -> datetime:
    """A time on the clock of London, in UTC."""
    return clock.replace(tzinfo=LONDON).astimezone(UTC)


def fold(code: str) -> str:
    """A code of goods with a capital letter at its end."""
    return code.upper() if is_goods(code) else code


def is_goods(code: str) -> bool:
    """Whether a code is one of goods, and not of carriage, fees, vouchers, discounts or corrections."""
    return GOODS.match(code.upper()) is not None
