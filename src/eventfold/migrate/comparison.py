"""The result of a comparison: whether rows and events are equal, how many are not, and the first differences.

Knows: kinds of differences, how they are counted and said. Does not know: how they are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from eventfold.core.counted import count_of

DifferenceKind = Literal["different", "missing", "extra", "unreadable", "doubled"]
KINDS: dict[DifferenceKind, str] = {
    "different": "different",
    "missing": "not in the events",
    "extra": "in the events only",
    "unreadable": "not readable",
    "doubled": "with the key of another row",
}
SHOWN_COLUMNS = 5


class GivenBy(msgspec.Struct, frozen=True):
    """The event that gave a value. `evidence`: how it is known; None if a decision wrote it."""

    position: int
    type: str
    time: int  # µs since 1970 UTC
    evidence: str | None = None


class ColumnDifference(msgspec.Struct, frozen=True):
    """A column whose values differ, as JSON. `by`: the event that gave ours."""

    column: str
    ours: Any
    theirs: Any
    by: GivenBy | None = None


class Difference(msgspec.Struct, frozen=True):
    """A row that is not equal. `by`: its last event; `columns`: of a different one; `reason`: of one not readable."""

    table: str
    key: str
    kind: DifferenceKind
    columns: tuple[ColumnDifference, ...] = ()
    by: GivenBy | None = None
    reason: str = ""


class TableComparison(msgspec.Struct):
    """The counts of one table. `rows`: of the source; `columns`: in how many rows each differs."""

    rows: int = 0
    counts: dict[DifferenceKind, int] = {}
    columns: dict[str, int] = {}

    @property
    def differing(self) -> int:
        """How many rows are not equal."""
        return sum(self.counts.values())


class Comparison(msgspec.Struct, frozen=True):
    """Rows and events at one watermark. `position`: up to which events were read; `point`: the source's snapshot.

    `differences`: the first ones of each kind and table. `left_out`: columns that events do not have, with the reason.
    """

    tables: dict[str, TableComparison]
    differences: tuple[Difference, ...]
    position: int
    point: str
    seconds: float
    left_out: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """The rows of the source."""
        return sum(each.rows for each in self.tables.values())

    @property
    def differing(self) -> int:
        """How many rows are not equal."""
        return sum(each.differing for each in self.tables.values())

    @property
    def equal(self) -> bool:
        """Whether every row and every column is equal."""
        return not self.differing

    @property
    def verdict(self) -> str:
        """The result as one sentence, without values."""
        if self.equal:
            of_tables = f"of {count_of(len(self.tables), 'table')}"
            return (
                f"the one row {of_tables} is equal"
                if self.rows == 1
                else f"all {self.rows:,} rows {of_tables} are equal"
            )
        parts = "; ".join(f"{label}: {said}" for label, each in self.tables.items() if (said := "".join(_said(each))))
        return f"{self.differing:,} of {count_of(self.rows, 'row')} differ: {parts}"


def _said(found: TableComparison) -> Iterator[str]:
    yield ", ".join(f"{number:,} {KINDS[kind]}" for kind, number in found.counts.items() if number)
    if found.columns:
        most = sorted(found.columns.items(), key=lambda pair: (-pair[1], pair[0]))
        more = f" and {len(most) - SHOWN_COLUMNS} more" if len(most) > SHOWN_COLUMNS else ""
        yield f" ({', '.join(f'{name} {number:,}' for name, number in most[:SHOWN_COLUMNS])}{more})"
