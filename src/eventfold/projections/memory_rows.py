"""The rows of a view, read by query in memory.

Knows: rows as objects and as tuples. Does not know: how they were folded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eventfold.core.table import Column
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.fields import codec_of, fields_of
from eventfold.selection import in_memory
from eventfold.selection.conditions import Condition, RowQuery
from eventfold.selection.indexes import serving_index
from eventfold.selection.source import Explanation


class MemoryRows:
    """See RowSource and RowReader. `generation`: how cursors name the view."""

    def __init__(self, definition: ProjectionDefinition, rows: Mapping[Any, Any], generation: str, origin: str) -> None:
        self.codec, self.fields = codec_of(definition), fields_of(definition)
        self.generation, self.origin = generation, origin
        self._rows = rows

    def reader(self) -> MemoryRows:
        """See RowSource."""
        return self

    def find(self, query: RowQuery) -> list[Any]:
        """See RowReader. Each tuple ends with the row object."""
        return in_memory.find(self._tuples(), self.codec.table, query)

    def unpack(self, rows: list[Any]) -> list[Any]:
        """See RowReader."""
        return [row[-1] for row in rows]

    def count(self, condition: Condition) -> int:
        """See RowReader."""
        return sum(map(in_memory.test_of(self.codec.table, condition), self._tuples()))

    def count_by(self, condition: Condition, column: Column) -> list[tuple[Any, int]]:
        """See RowReader."""
        return in_memory.count_by(self._tuples(), self.codec.table, condition, column)

    def total(self, condition: Condition, column: Column) -> Any:
        """See RowReader."""
        test, at = in_memory.test_of(self.codec.table, condition), self.codec.table.fields.index(column.name)
        return in_memory.total(column, (row[at] for row in self._tuples() if test(row)))

    def explain(self, query: RowQuery) -> Explanation:
        """See RowReader: every row is read, so only an index that a table would use is named."""
        return Explanation(serving_index(self.codec.table, query.condition, query.order))

    def _tuples(self) -> Iterator[Sequence[Any]]:
        pack = self.codec.pack
        return ((*pack(row), row) for row in self._rows.values())
