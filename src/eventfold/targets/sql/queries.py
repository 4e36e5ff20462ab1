"""Queries for rows as SQL: conditions, keyset pages, counts and sums, compiled once for each shape.

Two queries of the same shape differ in their values only. Knows: conditions, SQL. Does not know: connections, how a
database compares a kind of column (statements do).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import msgspec

from eventfold.core.table import Column, Table
from eventfold.selection.branches import Branch, branches_of
from eventfold.selection.conditions import (
    EVERY_ROW,
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Missing,
    OneOf,
    OrderTerm,
    RowQuery,
)
from eventfold.selection.indexes import serving_index
from eventfold.targets.sql.statements import Statements, quote_identifier

MAX_COMPILED = 500  # shapes that are kept
MAX_JOINED = 50  # conditions joined without parentheses: SQLite's tree may be 1,000 levels deep
BRANCH = "eventfold_branch"  # the column with the number of a row's branch


class CompiledQuery(msgspec.Struct, frozen=True):
    """A query as SQL. `index`: the key or index that serves it, None if none does. `table`: for which it was made."""

    table: Table
    sql: str
    index: tuple[str, ...] | None


class QueryStatements:
    """The queries of one database. Each method returns a query and its parameters."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._compiled: dict[Any, CompiledQuery] = {}

    def find(self, table: Table, query: RowQuery) -> tuple[CompiledQuery, list[Any]]:
        """The query for the rows of a RowQuery. The columns of the table come first, others may follow."""
        values: list[Any] = []
        branches = branches_of(query)
        shape: list[Any] = ["rows", query.limit is None]
        for branch in branches:
            shape += (_shape(branch.condition, values), branch.order, branch.present)
            if query.limit is not None:
                values.append((None, query.limit))
        return self._query(table, shape, values, lambda: self._find_sql(table, query, branches), query)

    def count(self, table: Table, condition: Condition) -> tuple[CompiledQuery, list[Any]]:
        """The query for the number of rows."""
        return self._aggregate(table, condition, "count(*)", "")

    def count_by(self, table: Table, condition: Condition, column: Column) -> tuple[CompiledQuery, list[Any]]:
        """The query for each value of a column and the number of its rows."""
        shown, group = self._statements.grouped_column(table, column)
        return self._aggregate(table, condition, f"{shown}, count(*)", f" GROUP BY {group}")

    def total(self, table: Table, condition: Condition, column: Column) -> tuple[CompiledQuery, list[Any]]:
        """The query whose rows `Statements.total` adds up."""
        terms, group = self._statements.summed_column(table, column)
        return self._aggregate(table, condition, terms, group)

    def _aggregate(self, table: Table, condition: Condition, terms: str, end: str) -> tuple[CompiledQuery, list[Any]]:
        def sql() -> str:
            where, own = self._where(table, condition), self._statements.relation(table.name)
            return f"SELECT {terms} FROM {own}{where}{end}"  # noqa: S608

        values: list[Any] = []
        shape = [terms, end, _shape(condition, values)]
        return self._query(table, shape, values, sql, RowQuery(condition))

    def _query(
        self, table: Table, shape: list[Any], values: list[Any], sql: Callable[[], str], query: RowQuery
    ) -> tuple[CompiledQuery, list[Any]]:
        key = (id(table), *shape)
        compiled = self._compiled.get(key)
        if compiled is None or compiled.table is not table:
            if len(self._compiled) >= MAX_COMPILED:
                self._compiled.clear()
            indexed = self._statements.indexed_table(table)
            compiled = CompiledQuery(table, sql(), serving_index(indexed, query.condition, query.order))
            self._compiled[key] = compiled
        compared = self._statements.compared_value
        return compiled, [value if column is None else compared(column, value) for column, value in values]

    def _find_sql(self, table: Table, query: RowQuery, branches: list[Branch]) -> str:
        if len(branches) == 1:
            return self._branch_sql(
                table, branches[0], query.limit is not None, self._statements.selected_columns(table)
            )
        extra = self._statements.sorting_columns(table, [term.column for term in query.order])
        columns = ", ".join([self._statements.selected_columns(table), *extra])
        parts = [
            self._branch_sql(
                table, branch, query.limit is not None, f"{columns}, {number} AS {quote_identifier(BRANCH)}"
            )
            for number, branch in enumerate(branches)
        ]
        union = " UNION ALL ".join(f"SELECT * FROM ({part}) AS b{number}" for number, part in enumerate(parts))  # noqa: S608
        order = ", ".join([quote_identifier(BRANCH), *(self._order_term(table, each) for each in query.order)])
        return f"SELECT * FROM ({union}) AS page ORDER BY {order}"  # noqa: S608

    def _branch_sql(self, table: Table, branch: Branch, limited: bool, columns: str) -> str:
        sql = f"SELECT {columns} FROM {self._statements.relation(table.name)}"  # noqa: S608
        sql += self._where(table, branch.condition)
        if branch.order:
            sql += " ORDER BY " + ", ".join(
                self._order_term(table, each, each.column.name == branch.present) for each in branch.order
            )
        return sql + (" LIMIT ?" if limited else "")

    def _order_term(self, table: Table, term: OrderTerm, present: bool = False) -> str:
        by = self._statements.compared_column(table, term.column) + (" DESC" if term.descending else "")
        if not term.column.nullable:
            return by
        if not present:
            return f"{by} NULLS LAST"
        # No value is missing here, so both places of NULL are right: PostgreSQL uses an index of the same place only.
        name, indexed = term.column.name, set(chain.from_iterable(table.indexes))
        if term.descending:
            return f"{by} NULLS LAST" if f"-{name}" in indexed else by
        return f"{by} NULLS FIRST" if f"-{name}" in indexed and name not in indexed else by

    def _where(self, table: Table, condition: Condition) -> str:
        return "" if condition == EVERY_ROW else f" WHERE {self._condition(table, condition)}"

    def _condition(self, table: Table, condition: Condition) -> str:
        match condition:
            case AllOf(parts):
                return self._joined(table, parts, " AND ", "1 = 1")
            case AnyOf(parts):
                return self._joined(table, parts, " OR ", "1 = 0")
            case Missing(column, negated):
                return f"{self._statements.missing_column(table, column)} IS {'NOT ' if negated else ''}NULL"
            case OneOf(column, values, negated):
                return self._statements.one_of(table, column, len(values), negated)
            case Compare(column, "=", _):
                return f"{self._statements.equal_column(table, column)} = ?"
            case Compare(column, "!=", _):
                return f"{self._statements.equal_column(table, column)} <> ?"
            case Compare(column, operator, _):
                return f"{self._statements.compared_column(table, column)} {operator} ?"

    def _joined(self, table: Table, parts: tuple[Condition, ...], word: str, empty: str) -> str:
        texts = [
            text if isinstance(part, Compare | Missing | OneOf) else f"({text})"
            for part, text in ((part, self._condition(table, part)) for part in parts)
        ]
        return balanced(texts, word) if texts else empty


def balanced(texts: list[str], word: str) -> str:
    """Return the texts joined by a word, in parentheses that keep SQLite's tree of the expression flat."""
    if len(texts) <= MAX_JOINED:
        return word.join(texts)
    half = len(texts) // 2
    return f"({balanced(texts[:half], word)}){word}({balanced(texts[half:], word)})"


def _shape(condition: Condition, values: list[Any]) -> Any:
    """Return a condition without its values, which are appended to `values`, each with its column."""
    match condition:
        case Compare(column, operator, value):
            values.append((column, value))
            return column.name, operator
        case AllOf(parts):
            return "all", *[_shape(part, values) for part in parts]
        case AnyOf(parts):
            return "any", *[_shape(part, values) for part in parts]
        case Missing(column, negated):
            return column.name, "null", negated
        case OneOf(column, several, negated):
            values += [(column, value) for value in several]
            return column.name, "in", len(several), negated
