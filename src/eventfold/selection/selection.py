"""`store.select(…)`: rows of a read model that are asked for when a method is called.

Knows: the methods. Does not know: how a source finds rows, threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from eventfold.core.table import Column
from eventfold.errors import InvalidFilter
from eventfold.selection.check import condition_of, order_of, refuse_limit
from eventfold.selection.column import ComparableColumn
from eventfold.selection.conditions import AllOf, Condition, Missing, OrderTerm, RowQuery
from eventfold.selection.cursor import CursorScope
from eventfold.selection.rows import Rows
from eventfold.selection.source import Explanation, RowReader, RowSource

M = TypeVar("M")
T = TypeVar("T")
N = TypeVar("N", int, float, Decimal)
PAGE = 500
ZERO: Mapping[str, Any] = {"int": 0, "float": 0.0, "decimal": Decimal(0)}


class Selection(Generic[M]):
    """Rows of a read model, by filters and order. Each method asks again, and raises what Store.rows raises."""

    def __init__(
        self, source: RowSource, filters: Sequence[Any], equal: Mapping[str, Any], order: str | Sequence[str]
    ) -> None:
        self._source = source
        self._condition = condition_of(source.fields, filters, equal)
        self._order = order_of(source.fields, order)

    def rows(self, limit: int | None = None, after: str | None = None) -> Rows[M]:
        """Return the rows, at most `limit`, after the cursor `after`. See Store.rows."""
        refuse_limit(limit)
        reader = self._source.reader()
        start = None if after is None else self._scope(reader).read(after)
        wanted = None if limit is None else limit + 1  # one more shows whether there is a next page
        found = reader.find(RowQuery(self._condition, self._order, start, wanted))
        if limit is None or len(found) <= limit or not limit:
            return Rows(reader.unpack(found[:limit]))
        del found[limit:]
        return Rows(reader.unpack(found), partial(self._cursor, reader, found[-1]))

    def _scope(self, reader: RowReader) -> CursorScope:
        fields = self._source.fields
        return CursorScope(fields.name, reader.generation, self._order, self._condition, self._source.origin)

    def _cursor(self, reader: RowReader, row: Sequence[Any]) -> str:
        names = self._source.codec.table.fields
        return self._scope(reader).write([row[names.index(term.column.name)] for term in self._order])

    def pages(self, size: int = PAGE) -> Iterator[Rows[M]]:
        """Iterate over all rows in pages of `size`, each read when it is needed. There is no empty page.

        A row that does not change meanwhile is in exactly one page. Raises InvalidFilter if another generation of the
        read model goes live meanwhile.
        """
        refuse_limit(size)
        if not size:
            raise InvalidFilter(f"A page of {size} rows is never the last.", "Give a size of 1 or more.")
        page = self.rows(size)
        while page:
            yield page
            if page.next is None:
                return
            page = self.rows(size, page.next)

    def first(self) -> M | None:
        """Return the first row in the order; None if there is none."""
        return next(iter(self.rows(1)), None)

    def exists(self) -> bool:
        """Whether there is any such row."""
        return bool(self._source.reader().find(RowQuery(self._condition, (), None, 1)))

    def count(self) -> int:
        """Return the number of rows."""
        return self._source.reader().count(self._condition)

    def count_by(self, column: ComparableColumn[T]) -> dict[T | None, int]:
        """Return the number of rows for each value of a column; None: of those without a value."""
        found = self._column(column)
        counted = self._source.reader().count_by(self._condition, found)
        decode = self._decoder(found)
        return {decode(value): count for value, count in counted}

    def sum(self, column: ComparableColumn[N]) -> N:
        """Return the sum of a column of numbers, 0 if there are none. Whole numbers and decimals are added exactly."""
        found = self._column(column)
        if found.kind not in ZERO:
            raise InvalidFilter(
                f"The column {found.name} has no numbers, so it has no sum.", "Give a column of int, float or Decimal."
            )
        return self._source.reader().total(self._condition, found) or ZERO[found.kind]

    def min(self, column: ComparableColumn[T]) -> T | None:
        """Return the least value of a column; None if no row has a value."""
        return self._extreme(column, descending=False)

    def max(self, column: ComparableColumn[T]) -> T | None:
        """Return the greatest value of a column; None if no row has a value."""
        return self._extreme(column, descending=True)

    def explain(self) -> Explanation:
        """Return how the first page is found: which index serves it, the statement, and the plan of the database."""
        return self._source.reader().explain(RowQuery(self._condition, self._order, None, PAGE + 1))

    def _extreme(self, column: ComparableColumn[Any], descending: bool) -> Any:
        found = self._column(column)
        condition: Condition = AllOf((self._condition, Missing(found, negated=True)))
        present = msgspec.structs.replace(found, nullable=False)  # by the condition, so that an index may serve
        rows = self._source.reader().find(RowQuery(condition, (OrderTerm(present, descending),), None, 1))
        at = self._source.codec.table.fields.index(found.name)
        return self._decoder(found)(rows[0][at]) if rows else None

    def _column(self, column: Any) -> Column:
        return self._source.fields.column_of(column)

    def _decoder(self, column: Column) -> Callable[[Any], Any]:
        codec = self._source.codec
        decode = codec.decoders[codec.table.fields.index(column.name)]
        return lambda value: value if decode is None or value is None else decode(value)
