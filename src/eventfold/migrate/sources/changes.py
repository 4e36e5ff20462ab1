"""Changes of rows as a source recorded them, in transactions; and which of them a snapshot of the source sees.

An image of a row has of each column what a query of its expression (values.py) gives, or PostgreSQL's text of that.
Knows: order, visibility. Does not know: databases, events.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from eventfold.core.counted import count_of
from eventfold.errors import InvalidInput

Operation = Literal["insert", "update", "delete", "truncate"]
Image = dict[str, Any]
Mark = tuple[int, ...]  # orders the changes of one row: of a later change it is greater


class Change(msgspec.Struct, frozen=True):
    """A change of one row; a TRUNCATE changes all rows of a table, and has no images.

    `before`: the row as it was, None for an insert; `after`: as it is, None for a delete. `problem`: why there are no
    images, and what to do.
    """

    table: str
    operation: Operation
    mark: Mark
    before: Image | None = None
    after: Image | None = None
    problem: tuple[str, str] | None = None


class Transaction(msgspec.Struct, frozen=True):
    """Changes that the source committed together; where it cannot tell, one change.

    `unit` is what a Snapshot judges: the transaction's number, or the change's own. `at`: when, µs since 1970 UTC.
    `point`: how far the source is read with this transaction. `is_whole`: whether it is a transaction of the source.
    """

    id: str
    unit: int
    point: str
    at: int | None
    changes: tuple[Change, ...]
    is_whole: bool = False


class Snapshot(msgspec.Struct, frozen=True):
    """Which units of change a snapshot of the source sees: those below `lowest`, and below `end` if not in `open`.

    As text it is `lowest:end:open,…`, which is also how PostgreSQL writes its snapshots.
    """

    lowest: int
    end: int
    open: frozenset[int] = frozenset()

    @classmethod
    def of_seen(cls, seen: Iterable[int], passed: int = 0) -> Snapshot:
        """Return the snapshot that sees these numbers, and all up to `passed`, inclusive."""
        numbers = {each for each in seen if each > passed}
        last = max(numbers, default=passed)
        missing = frozenset(each for each in range(passed + 1, last) if each not in numbers)
        return cls(min(missing, default=last + 1), last + 1, missing)

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Return the snapshot that a text means. Raises InvalidInput."""
        try:
            lowest, end, others = text.split(":")
            return cls(int(lowest), int(end), frozenset(map(int, filter(None, others.split(",")))))
        except ValueError:
            raise InvalidInput(f"{text!r} is no snapshot of a source.", "Begin the load again.") from None

    def sees(self, unit: int) -> bool:
        """Whether a change with this number was committed before the snapshot."""
        return unit < self.lowest or (unit < self.end and unit not in self.open)

    def __str__(self) -> str:
        return f"{self.lowest}:{self.end}:{','.join(map(str, sorted(self.open)))}"


class Backlog(msgspec.Struct, frozen=True):
    """What the source keeps for us: changes that wait, if it can count them, and bytes; `limit`: of these bytes."""

    waiting: int = 0
    retained: int = 0
    limit: int | None = None


def other_columns(label: str, found: int, known: int) -> tuple[str, str]:
    """Return the problem of a change whose row has not the columns that are known."""
    return (
        f"a change of {label} was recorded with {count_of(found, 'column')}, and the table had {known} when capture "
        "was installed",
        f"run `eventfold migrate inspect` again, then `eventfold migrate load --reread {label}`",
    )
