"""Samples of a source's rows, for guesses: some rows of a table, few distinct values, inclusion in another table.

Knows: bounded queries. Does not know: what a guess concludes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from eventfold.migrate.connection import Connection
from eventfold.migrate.kinds import kind_of
from eventfold.migrate.reflection import Table
from eventfold.migrate.values import codec_of

SAMPLED_ROWS = 200
SAMPLED_KEYS = 1000  # distinct values whose inclusion in another table is asked
MAX_STATES = 24  # a column with more distinct values is no status


class Sample(msgspec.Struct, frozen=True):
    """Some rows of a table, as selected by its codecs. `rows`: how many; `values`: by column, without NULL."""

    rows: int
    values: dict[str, list[Any]]


class Inclusion(msgspec.Struct, frozen=True):
    """How many of the sampled distinct values of some columns are keys of another table."""

    found: int
    sampled: int

    @property
    def percent(self) -> float:
        """The share in per cent; 0 if nothing was sampled."""
        return 100 * self.found / self.sampled if self.sampled else 0.0

    def __str__(self) -> str:
        return f"{self.found:,} of {self.sampled:,} sampled values ({self.percent:.4g} %)"


def sample(connection: Connection, table: Table, rows: int = SAMPLED_ROWS) -> Sample:
    """Select some rows. A table that may not be read has an empty sample."""
    if "SELECT" not in table.rights or not table.columns:
        return Sample(0, {})
    names = [each.name for each in table.columns]
    codecs = [codec_of(connection.dialect, each, kind_of(connection.dialect, each)) for each in table.columns]
    chosen = ", ".join(codec.expression.format(_name(name)) for codec, name in zip(codecs, names, strict=True))
    found = connection.rows(f"SELECT {chosen} FROM {table.sql} LIMIT {rows}")  # noqa: S608 - names are quoted
    return Sample(len(found), {name: [row[n] for row in found if row[n] is not None] for n, name in enumerate(names)})


def states(connection: Connection, table: Table, column: str) -> list[Any] | None:
    """Return the distinct values of a column, without NULL; None if there are too many for a status."""
    found = connection.rows(
        f"SELECT DISTINCT {_name(column)} FROM (SELECT {_name(column)} FROM {table.sql} LIMIT 100000) s "  # noqa: S608
        f"WHERE {_name(column)} IS NOT NULL LIMIT {MAX_STATES + 1}"
    )
    values = [row[0] for row in found]
    return None if len(values) > MAX_STATES else sorted(values, key=str)


def inclusion(
    connection: Connection, table: Table, columns: Sequence[str], other: Table, to: Sequence[str]
) -> Inclusion:
    """Ask how many distinct values of columns are keys of another table. Types that cannot be compared are text."""
    chosen = ", ".join(f"{_name(name)} AS c{n}" for n, name in enumerate(columns))
    not_null = " AND ".join(f"{_name(name)} IS NOT NULL" for name in columns)
    kinds = [(table.column(a).type, other.column(b).type) for a, b in zip(columns, to, strict=True)]
    as_text = {"postgresql": "CAST({} AS text)"}.get(connection.dialect, "{}")
    same = " AND ".join(
        f"o.{_name(b)} = s.c{n}"
        if left == right
        else f"{as_text.format(f'o.{_name(b)}')} = {as_text.format(f's.c{n}')}"
        for n, (b, (left, right)) in enumerate(zip(to, kinds, strict=True))
    )
    inner = f"SELECT DISTINCT {chosen} FROM {table.sql} WHERE {not_null} LIMIT {SAMPLED_KEYS}"  # noqa: S608
    ((sampled, found),) = connection.rows(
        f"SELECT count(*), coalesce(sum(CASE WHEN EXISTS (SELECT 1 FROM {other.sql} o WHERE {same}) "  # noqa: S608
        f"THEN 1 ELSE 0 END), 0) FROM ({inner}) s"
    )
    return Inclusion(int(found), int(sampled))


def has_duplicates(connection: Connection, table: Table, columns: Sequence[str]) -> bool:
    """Whether two rows of a sample have the same values in columns, or one of them has NULL there."""
    names = ", ".join(map(_name, columns))
    nulls = " OR ".join(f"{_name(name)} IS NULL" for name in columns)
    ((count, distinct, empty),) = connection.rows(
        f"SELECT (SELECT count(*) FROM (SELECT {names} FROM {table.sql} LIMIT 100000) a), "  # noqa: S608
        f"(SELECT count(*) FROM (SELECT DISTINCT {names} FROM (SELECT {names} FROM {table.sql} LIMIT 100000) b) c), "
        f"(SELECT count(*) FROM (SELECT 1 AS one FROM {table.sql} WHERE {nulls} LIMIT 1) d)"
    )
    return bool(count != distinct or empty)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
