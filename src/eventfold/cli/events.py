"""Room: events as rows of a table, page after page in the same columns.

Knows: which columns tell an event to a person. Does not know: where events come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from eventfold.cli.lines import id_text, time_text
from eventfold.cli.screen import Column, Row, Screen
from eventfold.cli.shown import clock_text, data_text, date_text, minute_text, pairs_text, printable
from eventfold.event import Recorded

POSITION = Column("position", right=True, style="cyan")
TYPE = Column("type", elastic=True, style="bold", least=12)
TAGS = Column("tags", elastic=True, style="green", least=10)
DATA = Column("data", elastic=True, least=10)
RECORDED = Column("time UTC", style="dim")
OCCURRED = Column("occurred UTC", style="yellow")
FULL = (
    POSITION,
    Column("time"),
    Column("occurred", style="yellow"),
    TYPE,
    Column("version", right=True),
    TAGS,
    DATA,
    Column("metadata"),
    Column("id", style="dim"),
)


class Events:
    """A growing table of events. A line tells the date whenever it changes; times are UTC.

    Where events say when they occurred, that is what is shown; of those that do not, the time of recording.
    """

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.shown = 0
        self._widths: list[int] | None = None
        self._date = ""
        self._occurred = False

    def show(self, page: Sequence[Recorded[Any]]) -> None:
        """Add some events to the table."""
        if not page:
            return
        if self.screen.wide:
            self._widths = self.screen.table(FULL, [_full(each) for each in page], header=not self.shown)
        else:
            self._narrow(page)
        self.shown += len(page)

    def _narrow(self, page: Sequence[Recorded[Any]]) -> None:
        if self._widths is None:
            self._occurred = any(each.stored.occurred is not None for each in page)
            columns = self._columns
            self._widths = self.screen.table(columns, [], self._fit(page))
        for date, rows in self._days(page):
            if date != self._date:
                self._date = date
                self.screen.say(f"recorded {date}" if self._occurred else date, style="dim italic")
            self.screen.table(self._columns, rows, self._widths, header=False)

    @property
    def _columns(self) -> tuple[Column, ...]:
        return (POSITION, OCCURRED if self._occurred else RECORDED, TYPE, TAGS, DATA)

    def _fit(self, page: Sequence[Recorded[Any]]) -> list[int]:
        from eventfold.cli.screen import fitted, natural_widths

        rows = [self._row(each) for each in page]
        return fitted(self._columns, natural_widths(self._columns, rows), self.screen.console.width)

    def _days(self, page: Sequence[Recorded[Any]]) -> Iterator[tuple[str, list[Row]]]:
        for date, group in groupby(page, key=lambda each: date_text(each.stored.time)):
            yield date, [self._row(each) for each in group]

    def _row(self, recorded: Recorded[Any]) -> Row:
        stored = recorded.stored
        if self._occurred:
            time = minute_text(stored.time if stored.occurred is None else stored.occurred)
        else:
            time = clock_text(stored.time)
        return (f"{stored.position:,}", time, stored.type, " ".join(recorded.tags), data_text(recorded))


def _full(recorded: Recorded[Any]) -> Row:
    stored = recorded.stored
    return (
        f"{stored.position:,}",
        time_text(stored.time),
        "" if stored.occurred is None else time_text(stored.occurred),
        printable(stored.type),
        str(stored.version),
        printable("  ".join(recorded.tags)),
        data_text(recorded),
        pairs_text(recorded.metadata),
        id_text(stored.id),
    )
