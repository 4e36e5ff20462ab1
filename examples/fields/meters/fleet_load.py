"""The valve seats: 48 replacements in 41 diesel engines, and four forecasts on the way.

Knows: the numbers, the calendar that is chosen. Does not know: how a forecast is made.

- The numbers are facts: diesel engines of W. Nelson and N. Doganaksoy, also in R's `survival`. They are the age in days
  at each replacement, and at the last look. Two seats of engine 328 were replaced on one day.
- Chosen: the last look is 1989-01-01 for all engines, so that each was installed its last age before. Engine 409 is
  retired then, too, and is not older than 389 days.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import eventfold as ef
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.meters.seats import FLEET, EngineInstalled, Fleet, SeatReplaced, expected, forecast

LAST_LOOK = datetime(1989, 1, 1, tzinfo=UTC)
HORIZON_DAYS = 90
FORECAST_BEFORE_DAYS = (360, 270, 180, 90)  # the last look
# Engine: ages at replacements, then the age at the last look.
AGES = {
    "251": "761", "252": "759", "327": "98 667", "328": "326 653 653 667", "329": "665", "330": "84 667",
    "331": "87 663", "389": "646 653", "390": "92 653", "391": "651", "392": "258 328 377 621 650",
    "393": "61 539 648", "394": "254 276 298 640 644", "395": "76 538 642", "396": "635 641",
    "397": "349 404 561 649", "398": "631", "399": "596", "400": "120 479 614", "401": "323 449 582",
    "402": "139 139 589", "403": "593", "404": "573 589", "405": "165 408 604 606", "406": "249 594",
    "407": "344 497 613", "408": "265 586 595", "409": "166 206 348 389", "410": "601", "411": "410 581 601",
    "412": "611", "413": "608", "414": "587", "415": "367 603", "416": "202 563 570 585", "417": "587",
    "418": "578", "419": "578", "420": "586", "421": "585", "422": "582",
}  # fmt: skip


def drafts() -> Iterator[tuple[ef.Draft[Any], int]]:
    """Yield installations and replacements, engine by engine."""
    for engine, text in AGES.items():
        *ages, last = map(int, text.split())
        installed = LAST_LOOK - timedelta(days=last)
        first = EngineInstalled(FLEET, engine, installed)
        yield ef.Draft(first, id=id_from(installed, "seats", engine), occurred=installed), 0
        for number, age in enumerate(ages, 1):
            at = installed + timedelta(days=age)
            replaced = SeatReplaced(FLEET, engine, number, at)
            yield ef.Draft(replaced, id=id_from(at, "seats", engine, number), occurred=at), 0


def load(store: ef.Store, count: LoadCount) -> None:
    """Append what happened, and make the forecasts, each from what was known at its moment."""
    happened = sorted(drafts(), key=lambda each: str(each[0].occurred))
    write(store, happened, count)
    for before in FORECAST_BEFORE_DAYS:
        as_of = LAST_LOOK - timedelta(days=before)
        then = store.state(Fleet(FLEET), occurred_until=as_of)
        replacements, constant = expected(then, as_of, HORIZON_DAYS)
        made = store.decide(forecast, Fleet(FLEET), as_of, HORIZON_DAYS, replacements, constant)
        count.events, count.made = count.events + len(made.events), count.made + len(made.events)
