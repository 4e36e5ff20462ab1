"""The rows of a read model, read from its target by query.

Knows: the generation that readers see, slow queries. Does not know: filters of users (selection does), databases.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from eventfold.core.table import Column, Table
from eventfold.errors import InvalidFilter, ProjectionChanged, TargetUnavailable
from eventfold.ports.target import RowRefused, Target
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.fields import codec_of, fields_of
from eventfold.projections.generations import is_same_declaration, refuse_unknown, require_record
from eventfold.selection.conditions import Compare, Condition, Missing, RowQuery, top_level
from eventfold.selection.indexes import index_terms, serving_index
from eventfold.selection.source import Explanation

T = TypeVar("T")
SLOW_S = 0.1  # a query without an index that takes longer is reported
REFUSED = (RowRefused, TypeError, ValueError, OverflowError)  # a value that the target cannot compare
MAX_REPORTED = 1_000  # kinds of queries that are remembered as reported


class TargetRows:
    """See RowSource. `generation`: the one to read; None: the live one."""

    _reported: set[Any] = set()  # of this process: kinds of queries that the log has

    def __init__(
        self, definition: ProjectionDefinition, target: Callable[[], Target], generation: int | None, origin: str
    ) -> None:
        self.codec = codec_of(definition)
        self.definition, self._target, self.origin = definition, target, origin
        self.fields = fields_of(definition)
        self._generation = generation

    @property
    def target(self) -> Target:
        """The target. Raises StoreClosed once the store was closed, also for a selection that was made before."""
        return self._target()

    def reader(self) -> TargetRowReader:
        """Return the reader of the chosen or live generation. Raises UnknownProjection."""
        name, generation = self.definition.name, self._generation
        if generation is None:
            return TargetRowReader(self, require_record(self.target, name).live, pinned=False)
        refuse_unknown(self.target.checkpoints(name), name, generation)
        return TargetRowReader(self, generation, pinned=True)

    def report_slow(self, query: RowQuery, seconds: float) -> None:
        """Report a query that no index serves in the log, once for each kind of query."""
        table, definition = self.codec.table, self.definition
        served = serving_index(table, query.condition, query.order) is not None
        if served or not self.target.creates_indexes:
            return
        compared = [each for each in top_level(query.condition) if isinstance(each, Compare | Missing)]
        fixed = tuple(dict.fromkeys(each.column.name for each in compared if _is_fixed(each)))
        ranged = tuple(dict.fromkeys(each.column.name for each in compared if not _is_fixed(each)))
        rest = tuple(term for term in query.order if term.column.name not in fixed)
        order = index_terms(rest, tuple(name for name in table.key if name not in fixed))
        wanted = (*fixed, *(order or ranged[:1]))
        kind = (definition.name, fixed, ranged, tuple(map(str, query.order)))
        if not wanted or kind in self._reported or len(self._reported) >= MAX_REPORTED:
            return
        self._reported.add(kind)
        filtered, sorted_by = ", ".join((*fixed, *ranged)), ", ".join(map(str, query.order))
        logging.getLogger("eventfold").warning(
            "A query of the rows of %s took %.2f s, because no index serves it: %s. Declare indexes=[%r] on its class "
            "and rebuild it (eventfold projections rebuild STORE %s --switch).",
            definition.name,
            seconds,
            f"filter by {filtered or 'no column'}, order {sorted_by or 'any'}",
            wanted,
            definition.name,
        )


def _is_fixed(each: Compare | Missing) -> bool:
    return each.operator == "=" if isinstance(each, Compare) else not each.negated


def said(error: Exception) -> str:
    """Return the first line of what a database said."""
    return f"{error}".strip().partition("\n")[0].rstrip(".")


class TargetRowReader:
    """See RowReader. `pinned`: the caller chose the generation."""

    def __init__(self, source: TargetRows, generation: int, pinned: bool) -> None:
        self._source, self._number, self._pinned = source, generation, pinned
        self._table = source.codec.of_generation(generation)

    @property
    def generation(self) -> str:
        """See RowReader."""
        return f"generation {self._number}"

    def find(self, query: RowQuery) -> list[Any]:
        """See RowReader."""
        began = time.perf_counter()
        try:
            found = self._source.target.find(self._table, query)
        except REFUSED as error:
            raise self._refused(error) from error
        except TargetUnavailable:
            self._follow_switch(query.after is not None)
            found = self._source.target.find(self._table, query)
        if (seconds := time.perf_counter() - began) > SLOW_S:
            self._source.report_slow(query, seconds)
        return found

    def unpack(self, rows: list[Any]) -> list[Any]:
        """See RowReader."""
        unpack = self._source.codec.unpack
        return [unpack(row) for row in rows]

    def count(self, condition: Condition) -> int:
        """See RowReader."""
        return self._ask(lambda: self._source.target.count(self._table, condition))

    def count_by(self, condition: Condition, column: Column) -> list[tuple[Any, int]]:
        """See RowReader."""
        return self._ask(lambda: self._source.target.count_by(self._table, condition, column))

    def total(self, condition: Condition, column: Column) -> Any:
        """See RowReader."""
        try:
            return self._ask(lambda: self._source.target.total(self._table, condition, column))
        except InvalidFilter as error:
            if column.kind != "float" or not isinstance(error.__cause__, REFUSED):
                raise
            raise InvalidFilter(
                f"The sum of {column.name} was refused by {self._source.target.address}: {said(error.__cause__)}.",
                "Sum fewer rows, or declare the column as Decimal, which has no greatest value.",
                column=column.name,
            ) from error.__cause__

    def explain(self, query: RowQuery) -> Explanation:
        """See RowReader."""
        return self._ask(lambda: self._source.target.explain(self._table, query))

    def _ask(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except REFUSED as error:
            raise self._refused(error) from error
        except TargetUnavailable:
            self._follow_switch()
            return ask()

    def _refused(self, error: Exception) -> InvalidFilter:
        name = self._source.definition.name
        return InvalidFilter(
            f"The rows of {name} cannot be compared with these values on {self._source.target.address}: {said(error)}.",
            "Give values that the columns can store there.",
            projection=name,
        )

    def _follow_switch(self, continues: bool = False) -> None:
        """Read the generation that is live now; if it is the same one, raise ProjectionChanged or the current error.

        A switch may replace the generation, and its table may be dropped, while a query runs.
        """
        name = self._source.definition.name
        if self._pinned or (live := require_record(self._source.target, name).live) == self._number:
            self._refuse_other_code()
            raise
        if continues:
            raise InvalidFilter(
                f"The cursor is of generation {self._number} of {name}, and generation {live} is live now.",
                "Start again from the first page, without after=.",
            ) from None
        self._number, self._table = live, self._source.codec.of_generation(live)

    def _refuse_other_code(self) -> None:
        """Raise ProjectionChanged if other code made the rows, without columns that this class declares."""
        definition, target = self._source.definition, self._source.target
        made_by = [each.fingerprint for each in target.checkpoints(definition.name, self._number)]
        if not made_by or is_same_declaration(made_by[0], definition.fingerprint):
            return
        missing = [column.name for column in self._table.columns if not self._has_column(column)]
        if not missing or len(missing) == len(self._table.columns):  # with none of them, the table itself is missing
            return
        raise ProjectionChanged(
            f"The rows of {definition.name} ({self.generation}) were made by other code than this process runs, and "
            f"have no column {', '.join(missing)}.",
            "If newer code made them, deploy it here; if the class here is the newer one, rebuild the rows: "
            f"eventfold projections rebuild STORE {definition.name} --switch.",
            projection=definition.name,
            generation=self._number,
            columns=missing,
            was=made_by[0],
            fingerprint=definition.fingerprint,
        )

    def _has_column(self, column: Column) -> bool:
        part = Table(self._table.name, (column,), (column.name,))
        try:
            self._source.target.find(part, RowQuery(limit=1))
        except TargetUnavailable:
            return False
        return True
