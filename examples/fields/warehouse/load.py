"""Reads the shop's orders and stock corrections, and writes what the warehouse made of them.

Knows: the columns of the source, how they become moves. Does not know: any rule. The demand is real, the supply is
generated: supply.py says how.

- The file is two sheets end to end, and they overlap: 22,523 lines of 1-9 December 2010 stand in it twice.
- A line of an order has a price and a positive quantity. Goods without price and customer are a correction of the
  stock, of either sign, in the shop's own words, often without any. 60 lines of goods were given to customers without a
  price: whether they left this warehouse is not known, so they are counted and left out.
- 172 codes come in both cases (85099B, 85099b): they are one product. Codes that are not five digits and at most two
  letters are postage, fees and the like.
- Sales and corrections do not add up to a stock, and no opening stock is known: what is written off beyond the
  generated stock is listed, not repaired. The same correction stands twice under two numbers (556690 and 556691): two
  facts.
- Times are those of a shop in London, in minutes.
"""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Any, overload
from zoneinfo import ZoneInfo

import msgspec

import eventfold as ef
from eventfold.demo.data import open_source
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.warehouse.supply import Happened, Move, Warehouse

SOURCE = "online-retail"
LONDON = ZoneInfo("Europe/London")
SECOND_SHEET = 525_461  # rows of the file before it
GOODS = re.compile(r"\d{5}[A-Z]{0,2}")
NO_WORDS = "(no words)"


def load(store: ef.Store, limit: int | None = None) -> LoadCount:
    """Write the history of the warehouse; a second run writes nothing. `limit`: only the first rows of the file.

    Launch lots depend on the sales of four weeks, so a store that has another number of rows is refused: EventIdReused.
    """
    count = LoadCount()
    warehouse = Warehouse(read_moves(limit, count))
    write(store, drafts(warehouse.history()), count)
    return count


def read_moves(limit: int | None = None, count: LoadCount | None = None) -> Moves:
    """Read the moves of the source in order of time; `count` counts the rows."""
    count = count or LoadCount()
    sheets: dict[str, bool] = {}
    moves = Moves()
    with open_source(SOURCE) as opened:
        rows = csv.reader(io.TextIOWrapper(opened, "utf-8", newline=""))
        next(rows)
        for number, (invoice, code, words, quantity, at, price, customer, _) in enumerate(islice(rows, limit)):
            count.read += 1
            second = number >= SECOND_SHEET
            units, product, is_free = int(quantity), code.upper(), float(price) == 0
            if sheets.setdefault(invoice, second) != second:
                count.repeated += 1
            elif reason := _rejection(invoice, product, units, is_free, customer):
                count.reject(reason)
            else:
                reason = (words.strip() or NO_WORDS) if is_free else None
                moves.add(Move(_clock(at), invoice, customer.removesuffix(".0"), product, units, reason))
    moves.sort()
    return moves


class Moves(Sequence[Move]):
    """Moves as numbers of their values: a million tuples would take 200 MB."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._values: list[Any] = []
        self._columns = array("i")
        self._order = array("i")

    def add(self, move: Move) -> None:
        """Add a move; `sort` gives it its place."""
        for value in move:
            number = self._numbers.setdefault(value, len(self._values))
            if number == len(self._values):
                self._values.append(value)
            self._columns.append(number)

    def sort(self) -> None:
        """Bring the moves into the order of time; equal times stay in the order of the file."""
        moments = self._columns[:: len(Move._fields)]
        self._order = array("i", sorted(range(len(moments)), key=lambda number: self._values[moments[number]]))

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Move]:
        values, columns, width = self._values, self._columns, len(Move._fields)
        for number in self._order:
            place = number * width
            yield Move._make([values[each] for each in columns[place : place + width]])

    @overload
    def __getitem__(self, index: int) -> Move: ...
    @overload
    def __getitem__(self, index: slice) -> list[Move]: ...
    def __getitem__(self, index: int | slice) -> Move | list[Move]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        place = self._order[index] * len(Move._fields)
        return Move(*(self._values[number] for number in self._columns[place : place + len(Move._fields)]))


def _rejection(invoice: str, product: str, units: int, is_free: bool, customer: str) -> str:
    """Why a row is no move of goods; "" if it is one."""
    if not GOODS.fullmatch(product):
        return "postage, fees and other codes without goods"
    if not invoice.isdigit():
        return "lines of credit notes: nothing says that the goods came back"
    if is_free and customer:
        return "goods given to a customer without a price"
    return "a quantity below zero with a price" if units <= 0 and not is_free else ""


@cache
def _clock(text: str) -> datetime:
    """The shop's clock: 12/1/2009 7:45, month first."""
    return datetime.strptime(text, "%m/%d/%Y %H:%M")


@cache
def utc(clock: datetime) -> datetime:
    """A time of the shop's clock in UTC."""
    return clock.replace(tzinfo=LONDON).astimezone(UTC)


def drafts(history: Iterable[Happened]) -> Iterator[tuple[ef.Draft, int]]:
    """Events with ids of time, fields, and a number where all of them are equal; and the rows that each stands for."""
    seen: Counter[tuple[str, bytes]] = Counter()
    now = datetime.min
    for at, events, move in history:
        if at != now:
            now = at
            seen.clear()
        for number, event in enumerate(events):
            what = (type(event).__name__, msgspec.json.encode(event))
            seen[what] += 1
            occurred = utc(at)
            yield (
                ef.Draft(event, id=id_from(occurred, *what, seen[what]), occurred=occurred),
                int(move is not None and not number),
            )
