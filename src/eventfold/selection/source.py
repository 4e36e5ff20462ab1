"""Where rows come from: what `Selection` needs of a target or of a view.

Knows: queries, columns. Does not know: databases, user classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from eventfold.core.table import Column, RowCodec
from eventfold.selection.check import TableFields
from eventfold.selection.conditions import Condition, RowQuery


class Explanation(msgspec.Struct, frozen=True):
    """How a query is answered.

    `index`: the key or the declared index that serves it, None if none does. `statement` is what the database is asked,
    `plan` its own plan, a line each; both are empty where rows are in memory.
    """

    index: tuple[str, ...] | None
    statement: str = ""
    plan: tuple[str, ...] = ()

    def __str__(self) -> str:
        served = "no index serves it" if self.index is None else f"served by the index ({', '.join(self.index)})"
        return "\n".join(line for line in (served, self.statement, *self.plan) if line)


class RowReader(Protocol):
    """The rows of one generation, read by query."""

    @property
    def generation(self) -> str:
        """The generation, as cursors name it."""
        ...

    def find(self, query: RowQuery) -> list[Any]:
        """Return the rows that a query asks for, in order, as tuples of their columns' values."""
        ...

    def unpack(self, rows: list[Any]) -> list[Any]:
        """Return the row objects."""
        ...

    def count(self, condition: Condition) -> int:
        """Return the number of rows that satisfy the condition."""
        ...

    def count_by(self, condition: Condition, column: Column) -> Sequence[tuple[Any, int]]:
        """Return each value of a column with the number of rows that have it."""
        ...

    def total(self, condition: Condition, column: Column) -> Any:
        """Return the sum of a column's numbers; None or 0 if there are none."""
        ...

    def explain(self, query: RowQuery) -> Explanation:
        """Return how a query is answered."""
        ...


class RowSource(Protocol):
    """The rows of a read model. `origin`: the id of the store."""

    fields: TableFields
    codec: RowCodec
    origin: str

    def reader(self) -> RowReader:
        """Return the reader of the generation that readers see now."""
        ...
