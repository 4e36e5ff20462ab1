"""The trades that the exchange repeats: real ones of the E-mini future if their file is here, else drawn ones.

Knows: the columns of the file, a random walk. Does not know: orders, events.

The file has time, price and size of each trade, in the order of trading; several trades share a millisecond. Times are
without a zone: trading begins at 17:00 on a Sunday and is busiest from 08:30 on, so they are taken to be Chicago's.
Prices are multiples of 0.25, here whole ticks. Who bought is not in it: the tick rule says that a trade above the last
other price was bought, below it sold. The contract's month is not in it either: it is taken to be September 2013.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from eventfold.demo.data import open_source
from eventfold.demo.exchange.matching import Side
from eventfold.errors import DataMissing

CHICAGO = ZoneInfo("America/Chicago")
START = datetime(2013, 9, 3, 10, 30, tzinfo=CHICAGO)  # both kinds of trades begin here
NEAR, FAR = "ESU3", "ESZ3"  # September and December 2013; trades of the second one are always drawn
SEED = 20130903
FIRST_PRICE = {NEAR: 6000, FAR: 5980}  # of drawn trades: ticks of 0.25
PER_SECOND = {NEAR: 12.0, FAR: 1.2}  # drawn trades
MOVES = 0.12  # the part of drawn trades at another price than the one before
MORE = 0.55  # the chance of one contract more: sizes are geometric, 2.2 on average


class Tick(NamedTuple):
    """One trade: `side` is that of the order which came and met the other."""

    instrument: str
    at: datetime
    side: Side
    price: int
    size: int


def drawn(instrument: str, until: datetime) -> Iterator[Tick]:
    """Draw trades: exponential times, a random walk of the price, geometric sizes. They are always the same ones."""
    chance = random.Random(f"{SEED}/{instrument}/trades")  # noqa: S311
    at, price, side = START, FIRST_PRICE[instrument], "buy"
    while True:
        at += timedelta(milliseconds=round(chance.expovariate(PER_SECOND[instrument]) * 1000))
        if at >= until:
            return
        if chance.random() < MOVES:
            side = "buy" if chance.random() < 0.5 else "sell"
            price += 1 if side == "buy" else -1
        size = 1
        while chance.random() < MORE:
            size += 1
        yield Tick(instrument, at, side, price, size)


def recorded(until: datetime) -> Iterator[Tick]:
    """Yield the real trades since START. Raises DataMissing, DataChanged."""
    begin, end = (f"{moment.astimezone(CHICAGO):%Y-%m-%d %H:%M:%S}" for moment in (START, until))
    with open_source("emini") as opened:
        price, last, side = "0", 0, "buy"
        for line in map(bytes.decode, opened):
            if line < begin or line[0] == "D":
                price = line.split(",")[1]
                continue
            if line >= end:
                return
            last = last or round(float(price) * 4)
            time, price, size = line.split(",")
            ticks = round(float(price) * 4)
            side = "buy" if ticks > last else "sell" if ticks < last else side
            last = ticks
            yield Tick(NEAR, datetime.fromisoformat(time).replace(tzinfo=CHICAGO), side, ticks, int(size))


def trades_until(until: datetime, real: bool | None = None) -> tuple[bool, list[Tick]]:
    """Return whether the trades of the near month are real, and those of both months by time.

    `real`: True raises DataMissing if the file is not here, False draws them anyway, None takes what there is.
    """
    near: list[Tick] | None = None
    if real is not False:
        try:
            near = list(recorded(until))
        except DataMissing:
            if real:
                raise
    merged = [*(near if near is not None else drawn(NEAR, until)), *drawn(FAR, until)]
    return near is not None, sorted(merged, key=lambda tick: tick.at)  # stable: the order within a millisecond stays
