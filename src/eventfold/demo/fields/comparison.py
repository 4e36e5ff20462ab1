"""Comparison of figures from the log with the same figures asked of the source by DuckDB, key by key.

Knows: mappings, DuckDB's connection. Does not know: any example, events.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from eventfold.errors import MissingExtra

if TYPE_CHECKING:
    import duckdb

SHOWN = 10  # differences


class Mismatch(msgspec.Struct, frozen=True):
    """A figure on which the events and the source do not agree; None where one of them does not have it."""

    figure: str
    events: Any
    source: Any


class Comparison:
    """Compares figure after figure; `compared` counts them, `mismatches` has those that differ."""

    def __init__(self) -> None:
        self.compared = 0
        self.mismatches: list[Mismatch] = []

    def figures(self, name: str | Callable[[Any], str], events: Mapping[Any, Any], source: Mapping[Any, Any]) -> None:
        """Compare two results key by key; a key that one of them lacks is a mismatch too.

        `name`: what the figures are, in words, before the key; or a function that makes the words of a key.
        """
        for key in sorted(events.keys() | source.keys(), key=_sort_key):
            self.compared += 1
            from_events, from_source = events.get(key), source.get(key)
            if from_events != from_source:
                words = f"{name}, {_words(key)}" if isinstance(name, str) else name(key)
                self.mismatches.append(Mismatch(words, from_events, from_source))

    def figure(self, name: str, events: Any, source: Any) -> None:
        """Compare one figure."""
        self.compared += 1
        if events != source:
            self.mismatches.append(Mismatch(name, events, source))

    def finding(self, name: str, events: Any) -> None:
        """Record a breach that the events themselves show, such as a forged event: it counts as a mismatch."""
        self.mismatches.append(Mismatch(name, events, None))

    def lines(self) -> list[str]:
        """The result in words: one line, and the first differences."""
        if not self.mismatches:
            return [f"✓ {self.compared:,} figures were computed again by SQL: all of them agree."]
        first = [
            f"✗ {each.figure}: {each.events} in the events, {each.source} in the source"
            for each in self.mismatches[:SHOWN]
        ]
        return [f"✗ {len(self.mismatches):,} of {self.compared:,} figures differ.", *first]


def _sort_key(key: Any) -> tuple[str, ...]:
    given = cast("tuple[Any, ...]", key) if isinstance(key, tuple) else (key,)
    return tuple(map(str, given))


def _words(key: Any) -> str:
    return " ".join(_sort_key(key))


def connect(memory_mb: int = 160) -> duckdb.DuckDBPyConnection:
    """Open an in-memory DuckDB with one thread and little memory. Raises MissingExtra without the extra `demo`."""
    return _opened(":memory:", memory_mb)


def connect_file(memory_mb: int = 100) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB in a temporary file, which is removed with the connection: its tables may exceed its memory."""
    folder = tempfile.mkdtemp(prefix="eventfold-duckdb-")
    connection = _opened(str(Path(folder) / "figures.duckdb"), memory_mb)
    weakref.finalize(connection, shutil.rmtree, folder, ignore_errors=True)
    return connection


def _opened(path: str, memory_mb: int) -> duckdb.DuckDBPyConnection:
    try:
        import duckdb
    except ModuleNotFoundError:
        raise MissingExtra(
            "The figures are asked a second time in DuckDB, which is not installed.",
            "Run: pip install 'eventfold[demo]'.",
            extra="demo",
        ) from None
    connection = duckdb.connect(path)
    connection.execute(f"SET threads = 1; SET memory_limit = '{memory_mb}MB'; SET TimeZone = 'UTC'")
    return connection
