"""Room: events as rows of a table, page after page in the same columns.

Knows: which columns tell an event to a person. Does not know: where events come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from eventfold.cli.lines import id_text, time_text
from eventfold.cli.screen import GAP, Column, Row, Screen, fitted, natural_widths
from eventfold.cli.shown import clock_text, data_text, date_text, minute_text, pairs_text, printable
from eventfold.core.event import Recorded

if TYPE_CHECKING:
    from rich.text import Text

POSITION = Column("position", right=True, style="cyan")
TYPE = Column("type", elastic=True, style="bold", least=12)
TAGS = Column("tags", elastic=True, style="green", least=10)
DATA = Column("data", elastic=True, least=10)
BOTH = Column("tags, and below them data", elastic=True, style="green", least=10)
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
    Where tags and payloads would be cut in most rows, each event has a second line for its payload.
    """

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.shown = 0
        self._widths: list[int] = []
        self._date = ""
        self._occurred = self._tall = False

    def show(self, page: Sequence[Recorded[Any]]) -> None:
        """Add some events to the table."""
        if not page:
            return
        if self.screen.wide:
            self.screen.table(FULL, [_full(each) for each in page], header=not self.shown)
        else:
            if not self.shown:
                self._begin(page)
            for date, rows in self._days(page):
                if date != self._date:
                    self._date = date
                    self.screen.say(f"recorded {date}" if self._occurred else date, style="dim italic")
                if self._tall:
                    self.screen.console.cut(line for row in rows for line in self._lines(row))
                else:
                    self.screen.table(self._columns, rows, self._widths, header=False)
        self.shown += len(page)

    @property
    def _columns(self) -> tuple[Column, ...]:
        return (POSITION, OCCURRED if self._occurred else RECORDED, TYPE, *((BOTH,) if self._tall else (TAGS, DATA)))

    def _begin(self, page: Sequence[Recorded[Any]]) -> None:
        self._occurred = any(each.stored.occurred is not None for each in page)
        rows = [self._row(each) for each in page]
        room = self.screen.console.width
        self._widths = fitted(self._columns, natural_widths(self._columns, rows), room)
        usual = sum(len(row[-1]) + len(row[-2]) for row in rows) / len(rows)
        if usual > sum(self._widths[-2:]):
            self._tall = True
            lead = fitted(
                self._columns[:3], natural_widths(self._columns[:3], [row[:3] for row in rows]), room * 5 // 8
            )
            self._widths = [*lead, room - sum(lead) - 3 * GAP]
        self.screen.table(self._columns, [], self._widths)

    def _days(self, page: Sequence[Recorded[Any]]) -> Iterator[tuple[str, list[Row]]]:
        for date, group in groupby(page, key=lambda each: date_text(each.stored.time)):
            yield date, [self._row(each) for each in group]

    def _row(self, recorded: Recorded[Any]) -> Row:
        stored = recorded.stored
        if self._occurred:
            time = minute_text(stored.time if stored.occurred is None else stored.occurred)
        else:
            time = clock_text(stored.time)
        return (
            f"{stored.position:,}",
            time,
            printable(stored.type),
            printable(" ".join(recorded.tags)),
            data_text(recorded),
        )

    def _lines(self, row: Row) -> Iterator[Text]:
        """A row as two lines: payloads stand under the types."""
        from rich.text import Text

        line = Text()
        for column, width, cell in zip(self._columns, self._widths, row, strict=False):
            piece = Text(str(cell), style=column.style)
            piece.truncate(width, overflow="ellipsis")
            piece.align("right" if column.right else "left", width)
            line = line + piece + " " * GAP
        line.rstrip()
        yield line
        if len(row[-1]):
            yield Text(" " * (sum(self._widths[:2]) + 2 * GAP)) + row[-1]


def _full(recorded: Recorded[Any]) -> Row:
    stored = recorded.stored
    return (
        f"{stored.position:,}",
        time_text(stored.time),
        "" if stored.occurred is None else time_text(stored.occurred),
        printable(stored.type),
        str(stored.version),
        printable("  ".join(recorded.tags)),
        data_text(recorded, whole=True),
        pairs_text(recorded.metadata),
        id_text(stored.id),
    )
