"""Events as rows of a table, page after page in the same columns.

Knows: the columns that show an event. Does not know: where events come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from eventfold.cli.formatting import (
    escape_control,
    format_date,
    format_minute,
    format_pairs,
    format_payload,
    format_time_of_day,
)
from eventfold.cli.output import COLUMN_GAP, Column, Output, Row, fit_widths, natural_widths
from eventfold.core.event import Recorded
from eventfold.core.event_json import format_id, format_time

if TYPE_CHECKING:
    from rich.text import Text

POSITION = Column("position", align_right=True, style="cyan")
TYPE = Column("type", elastic=True, style="bold", min_width=12)
TAGS = Column("tags", elastic=True, style="green", min_width=10)
DATA = Column("data", elastic=True, min_width=10)
TAGS_AND_DATA = Column("tags, and data below them", elastic=True, style="green", min_width=10)
RECORDED = Column("time UTC", style="dim")
OCCURRED = Column("occurred UTC", style="yellow")
WIDE_COLUMNS = (
    POSITION,
    Column("time"),
    Column("occurred", style="yellow"),
    TYPE,
    Column("version", align_right=True),
    TAGS,
    DATA,
    Column("metadata"),
    Column("id", style="dim"),
)


class EventTable:
    """A growing table of events. A line of its own shows the date whenever it changes; times are UTC.

    If any event of the first page has an `occurred` time, the table shows `occurred`, or the recorded time of events
    without it. If tags and payloads would be truncated in most rows, each event gets a second line for its payload.
    """

    def __init__(self, output: Output) -> None:
        self.output = output
        self.row_count = 0
        self._widths: list[int] = []
        self._last_date = ""
        self._show_occurred = self._two_lines = False

    def print_page(self, page: Sequence[Recorded[Any]]) -> None:
        """Print more events."""
        if not page:
            return
        if self.output.is_wide:
            self.output.print_table(WIDE_COLUMNS, [_wide_row(each) for each in page], header=not self.row_count)
        else:
            if not self.row_count:
                self._choose_layout(page)
            for date, rows in self._rows_by_day(page):
                if date != self._last_date:
                    self._last_date = date
                    self.output.print(f"recorded {date}" if self._show_occurred else date, style="dim italic")
                if self._two_lines:
                    self.output.console.print_lines(line for row in rows for line in self._two_line_row(row))
                else:
                    self.output.print_table(self._columns, rows, self._widths, header=False)
        self.row_count += len(page)

    @property
    def _columns(self) -> tuple[Column, ...]:
        return (
            POSITION,
            OCCURRED if self._show_occurred else RECORDED,
            TYPE,
            *((TAGS_AND_DATA,) if self._two_lines else (TAGS, DATA)),
        )

    def _choose_layout(self, page: Sequence[Recorded[Any]]) -> None:
        self._show_occurred = any(each.stored.occurred is not None for each in page)
        rows = [self._row(each) for each in page]
        total = self.output.console.width
        self._widths = fit_widths(self._columns, natural_widths(self._columns, rows), total)
        usual = sum(len(row[-1]) + len(row[-2]) for row in rows) / len(rows)
        if usual > sum(self._widths[-2:]):
            self._two_lines = True
            lead = fit_widths(
                self._columns[:3], natural_widths(self._columns[:3], [row[:3] for row in rows]), total * 5 // 8
            )
            self._widths = [*lead, total - sum(lead) - 3 * COLUMN_GAP]
        self.output.print_table(self._columns, [], self._widths)

    def _rows_by_day(self, page: Sequence[Recorded[Any]]) -> Iterator[tuple[str, list[Row]]]:
        for date, group in groupby(page, key=lambda each: format_date(each.stored.time)):
            yield date, [self._row(each) for each in group]

    def _row(self, recorded: Recorded[Any]) -> Row:
        stored = recorded.stored
        if self._show_occurred:
            time = format_minute(stored.time if stored.occurred is None else stored.occurred)
        else:
            time = format_time_of_day(stored.time)
        return (
            f"{stored.position:,}",
            time,
            escape_control(stored.type),
            escape_control(" ".join(recorded.tags)),
            format_payload(recorded),
        )

    def _two_line_row(self, row: Row) -> Iterator[Text]:
        """A row as two lines: the payload is below the type."""
        from rich.text import Text

        line = Text()
        for column, width, cell in zip(self._columns, self._widths, row, strict=False):
            piece = Text(str(cell), style=column.style)
            piece.truncate(width, overflow="ellipsis")
            piece.align("right" if column.align_right else "left", width)
            line = line + piece + " " * COLUMN_GAP
        line.rstrip()
        yield line
        if len(row[-1]):
            yield Text(" " * (sum(self._widths[:2]) + 2 * COLUMN_GAP)) + row[-1]


def _wide_row(recorded: Recorded[Any]) -> Row:
    stored = recorded.stored
    return (
        f"{stored.position:,}",
        format_time(stored.time),
        "" if stored.occurred is None else format_time(stored.occurred),
        escape_control(stored.type),
        str(stored.version),
        escape_control("  ".join(recorded.tags)),
        format_payload(recorded, whole=True),
        format_pairs(recorded.metadata),
        format_id(stored.id),
    )
