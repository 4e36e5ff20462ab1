"""The flights demonstration: a year of flights out of New York as a log of events, and results from that log.

`run` is the whole demonstration. The exported classes are for reading the log from the command line:
`eventfold.demo.flights:Board` and others. Knows: the chapters. Does not know: how the command line is parsed.

`source.py` describes the columns of the source; `events.py` the assumptions about missing facts.
"""

from __future__ import annotations

import sys

from eventfold.demo.flights.events import (
    FlightArrived,
    FlightCancelled,
    FlightDeparted,
    FlightDiverted,
    FlightScheduled,
    GateAssigned,
    LoadStarted,
)
from eventfold.demo.flights.models import AircraftDay, Board, FlightGate, GateDay
from eventfold.demo.flights.tables import AirportHour, CarrierMonth, CarrierMonthAsReported
from eventfold.errors import InvalidInput, MissingExtra

DATABASE = "flights.db"


def run(db: str | None = None, limit: int | None = None, as_json: bool = False) -> int:
    """Load the flights into `db` (or continue an earlier load), report results from the log, and check every figure.

    `limit`: load only this number of flights, the first by scheduled departure. `as_json`: print one JSON object in
    place of the report. Returns 0, or 1 if any figure differs from the source's. Raises EventfoldErrors: MissingExtra,
    and InvalidInput if the store has other events; it is never overwritten.
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"The limit is {limit}.", "Give 1 or more flights.", limit=limit)
    try:
        import duckdb  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import rich  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"The demonstration needs {error.name}, which is not installed.",
            "Run: pip install 'eventfold[demo]'.",
            extra="demo",
        ) from None
    import msgspec

    from eventfold.demo.flights.figures import compute_figures
    from eventfold.demo.flights.report import counting, show

    with counting() as progress:
        figures = compute_figures(db or DATABASE, limit, progress)
    if as_json:
        sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
    else:
        show(figures)
    return 1 if figures.mismatches else 0


__all__ = [
    "DATABASE",
    "AircraftDay",
    "AirportHour",
    "Board",
    "CarrierMonth",
    "CarrierMonthAsReported",
    "FlightArrived",
    "FlightCancelled",
    "FlightDeparted",
    "FlightDiverted",
    "FlightGate",
    "FlightScheduled",
    "GateAssigned",
    "GateDay",
    "LoadStarted",
    "run",
]
