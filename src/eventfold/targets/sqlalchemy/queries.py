"""Queries for rows in SQLAlchemy Core: conditions, keyset pages, counts and sums.

Knows: conditions, Core expressions, what dialects differ in. Does not know: connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any, Literal, cast

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ClauseElement, Executable, Grouping

from eventfold.core.table import Column
from eventfold.core.value_order import FUNCTIONS, ORDER
from eventfold.selection.branches import Branch, branches_of
from eventfold.selection.conditions import AllOf, AnyOf, Compare, Condition, Missing, OneOf, OrderTerm, RowQuery
from eventfold.selection.in_memory import sum_of_decimals
from eventfold.targets.sqlalchemy.types import ExactType

BRANCH = "eventfold_branch"  # the column with the number of a row's branch
MAX_JOINED = 50  # conditions joined without parentheses: SQLite's tree may be 1,000 levels deep
NULLS_LAST = ("postgresql", "sqlite", "oracle")  # dialects that have these words; in the others NULL is the least value
Query = sa.Select[*tuple[Any, ...]]


class Explain(Executable, ClauseElement):
    """A query whose plan is returned instead of its rows."""

    inherit_cache = False

    def __init__(self, query: Query) -> None:
        self.query = query


@compiles(Explain)
def _compile_explain(element: Explain, compiler: Any, **options: Any) -> str:
    word = "EXPLAIN QUERY PLAN" if compiler.dialect.name == "sqlite" else "EXPLAIN"
    return f"{word} {compiler.process(element.query, **options)}"


class RowSelect:
    """Queries of one table of rows. `rows`: the table of its generation; `indexes`: the declared ones."""

    def __init__(self, rows: sa.Table, dialect: str, indexes: Iterable[Iterable[str]] = ()) -> None:
        self._rows, self._dialect, self._indexes = rows, dialect, set(chain.from_iterable(indexes))

    def find(self, query: RowQuery) -> Query:
        """The query for the rows of a RowQuery. The columns of the table come first, others may follow."""
        branches = branches_of(query)
        if len(branches) == 1:
            return self._branch(branches[0], query.limit, list(self._rows.c))
        parts = [
            sa.select(
                self._branch(
                    branch, query.limit, [*self._rows.c, sa.literal_column(f"{number}").label(BRANCH)]
                ).subquery()
            )
            for number, branch in enumerate(branches)
        ]
        page = sa.union_all(*parts).subquery("page")
        terms = [each for term in query.order for each in self._order_terms(page.c, term)]
        return sa.select(page).order_by(page.c[BRANCH], *terms)

    def count(self, condition: Condition) -> Query:
        """The query for the number of rows."""
        return sa.select(sa.func.count()).select_from(self._rows).where(self.condition(condition))

    def count_by(self, condition: Condition, column: Column) -> Query:
        """The query for each value of a column and the number of its rows."""
        own, by = self._rows.c[column.name], self._equal(column)
        shown = sa.type_coerce(sa.func.min(own), own.type) if self._has_order(column) else own
        return sa.select(shown, sa.func.count()).where(self.condition(condition)).group_by(by)

    def total(self, condition: Condition, column: Column) -> Query:
        """The query whose rows `add_up` adds."""
        own = self._rows.c[column.name]
        if self._dialect == "sqlite" and column.kind == "decimal":
            return sa.select(own, sa.func.count()).where(self.condition(condition)).group_by(own)
        if self._dialect == "sqlite" and column.kind == "int":
            whole = sa.type_coerce(own, sa.BigInteger())  # its sums have 64 bits, those of halves do not overflow
            halves = (sa.func.sum(whole.bitwise_rshift(32)), sa.func.sum(whole.bitwise_and(0xFFFFFFFF)))
            return sa.select(*halves).where(self.condition(condition))
        return sa.select(sa.func.sum(own)).where(self.condition(condition))

    def add_up(self, column: Column, rows: Sequence[Sequence[Any]]) -> Any:
        """The sum of a column, from the rows of that query; None if there are no values."""
        if self._dialect == "sqlite" and column.kind == "decimal":
            return sum_of_decimals((cast("Decimal", value), count) for value, count in rows if value is not None)
        if self._dialect == "sqlite" and column.kind == "int":
            high, low = rows[0]
            return None if high is None else (int(high) << 32) + int(low)
        value = rows[0][0]
        return value if value is None or column.kind != "int" else int(value)

    def condition(self, condition: Condition) -> sa.ColumnElement[bool]:
        """A condition as an expression."""
        match condition:
            case AllOf(parts):
                return _balanced("AND", list(map(self.condition, parts)))
            case AnyOf(parts):
                return _balanced("OR", list(map(self.condition, parts)))
            case Missing(column, negated):
                own = self._rows.c[column.name]
                return own.is_not(None) if negated else own.is_(None)
            case OneOf(column, values, negated):
                own = self._equal(column)
                several = [self._value(column, value) for value in values]
                return own.not_in(several) if negated else own.in_(several)
            case Compare(column, "=", value):
                return self._equal(column) == self._value(column, value)
            case Compare(column, "!=", value):
                return self._equal(column) != self._value(column, value)
            case Compare(column, operator, value):
                bound = sa.bindparam(None, self._value(column, value), type_=self._bound_type(column))
                return self._compared(self._rows.c, column).op(operator, is_comparison=True)(bound)

    def _branch(self, branch: Branch, limit: int | None, columns: Iterable[Any]) -> Query:
        terms = [
            each
            for term in branch.order
            for each in self._order_terms(self._rows.c, term, term.column.name == branch.present)
        ]
        return sa.select(*columns).where(self.condition(branch.condition)).order_by(*terms).limit(limit)

    def _order_terms(self, columns: Any, term: OrderTerm, present: bool = False) -> list[Any]:
        own = self._compared(columns, term.column)
        by = own.desc() if term.descending else own.asc()
        if not term.column.nullable:
            return [by]
        if present:
            return [self._placed(by, term)]
        if self._dialect in NULLS_LAST:
            return [by.nulls_last()]
        return [by] if term.descending else [sa.case((columns[term.column.name].is_(None), 1), else_=0), by]

    def _placed(self, by: Any, term: OrderTerm) -> Any:
        """An order of values, none of which is missing: PostgreSQL uses an index with NULL in the same place only."""
        if self._dialect != "postgresql":
            return by
        name, indexes = term.column.name, self._indexes
        if term.descending:
            return by.nulls_last() if f"-{name}" in indexes else by
        return by.nulls_first() if f"-{name}" in indexes and name not in indexes else by

    def _has_order(self, column: Column) -> bool:
        """Whether SQLite stores values of this kind as text, which a function converts to one that sorts."""
        return self._dialect == "sqlite" and column.kind in ORDER

    def _equal(self, column: Column) -> sa.ColumnElement[Any]:
        return self._compared(self._rows.c, column) if self._has_order(column) else self._rows.c[column.name]

    def _compared(self, columns: Any, column: Column) -> sa.ColumnElement[Any]:
        """The expression that sorts as the column's values do."""
        own = columns[column.name]
        if self._has_order(column):
            return sa.Function(FUNCTIONS[column.kind], own, type_=sa.Text())
        return own.collate("C") if self._dialect == "postgresql" and column.kind == "text" else own

    def _bound_type(self, column: Column) -> Any:
        return sa.Text() if self._has_order(column) else cast("ExactType", self._rows.c[column.name].type)

    def _value(self, column: Column, value: Any) -> Any:
        return ORDER[column.kind](value) if self._has_order(column) else value


def _balanced(word: Literal["AND", "OR"], parts: list[sa.ColumnElement[bool]]) -> sa.ColumnElement[bool]:
    """The parts joined, in parentheses that keep SQLite's tree of the expression flat."""
    if len(parts) <= MAX_JOINED:
        return sa.and_(sa.true(), *parts) if word == "AND" else sa.or_(sa.false(), *parts)
    half = len(parts) // 2
    left, right = (Grouping(_balanced(word, each)) for each in (parts[:half], parts[half:]))
    return Grouping(left.bool_op(word)(right))  # sa.or_ would remove the parentheses
