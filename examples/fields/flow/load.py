"""Loads the flow: hourly means of a sensor, litres a second, as `river` has them (given by Tecnojest s.r.l.).

Knows: the file. Does not know: rules.

- 1,268 readings between 2022-03-20T11:00+01:00 and 2022-05-16T22:00+02:00. Offsets change on 27 March: they are read.
- 111 of the 1,379 hours are missing, in ten gaps; none of them is a zero. A gap becomes `SensorFellSilent`.
- The median is 102.34; the lows rest at 24.24 to 24.26, where only the branch behind a valve flows.
Nothing is generated.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import BinaryIO, cast

import eventfold as ef
from eventfold.demo.data import open_source
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.flow.app import (
    BRANCH,
    Anomalies,
    AnomalyRaised,
    FlowReported,
    OutsideBand,
    SensorFellSilent,
    raise_anomaly,
)

SOURCE = "water-flow"
HOUR = timedelta(hours=1)


def rows(limit: int | None = None) -> Iterator[tuple[datetime, Decimal]]:
    """Yield time and flow of each reading."""
    with io.TextIOWrapper(cast("BinaryIO", open_source(SOURCE)), "utf-8") as lines:
        for time, litres in islice(csv.reader(lines), 1, None if limit is None else limit + 1):
            yield datetime.fromisoformat(time), Decimal(litres)


def drafts(count: LoadCount, limit: int | None = None) -> Iterator[tuple[ef.Draft, int]]:
    """Yield the events with the number of rows that each stands for. A reading without a number is rejected."""
    last: datetime | None = None
    for at, litres in rows(limit):
        count.read += 1
        if not litres.is_finite():
            count.reject("reading is no number")
            continue
        if last is not None and at - last > HOUR:
            silent = SensorFellSilent(BRANCH, last, at, (at - last) // HOUR - 1)
            yield ef.Draft(silent, id=id_from(last, SOURCE, "silent", last.isoformat()), occurred=at), 0
        yield ef.Draft(FlowReported(BRANCH, litres), id=id_from(at, SOURCE, at.isoformat()), occurred=at), 1
        last = at


def load(store: ef.Store, limit: int | None = None) -> LoadCount:
    """Append every reading and every gap that is not in the store."""
    count = LoadCount()
    write(store, drafts(count, limit), count)
    raised = raise_anomalies(store, OutsideBand)
    count.events, count.made = count.events + raised, count.made + raised
    return count


def raise_anomalies(store: ef.Store, rule: type[ef.Alert]) -> int:
    """Raise an anomaly for each episode of a rule that has none yet; returns how many were raised."""
    raised = 0
    for episode in store.alerts.replay(rule):
        since = datetime.fromtimestamp(episode.at / 1e6, UTC)
        name = f"{rule.__name__}-{since:%Y%m%dT%H%M}"
        anomaly = AnomalyRaised(BRANCH, name, rule.__name__, since, episode.reason)
        raised += len(store.decide(raise_anomaly, Anomalies(BRANCH), anomaly).events)
    return raised
