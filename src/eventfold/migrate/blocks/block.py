"""What a block of writers promises: to refuse every writer but ours, to remember who was refused, and to be lifted.

A block is made of triggers, so that it holds for every client of the database. Once `install` has returned, no open
transaction has written to the tables, since making a trigger waits for those that did.
Knows: the order of its calls. Does not know: any database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from eventfold.errors import SourceUnavailable
from eventfold.migrate.reflection import Table
from eventfold.migrate.sources.source import ATTEMPTS, lock_refused

ADVICE = "write through the new application, or lift the block: eventfold migrate rollback"


class Refusal(msgspec.Struct, frozen=True):
    """A write that was refused. `at`: µs since 1970 UTC. Empty texts: the database does not say."""

    number: int
    table: str
    operation: str
    at: int
    application: str = ""
    user: str = ""
    address: str = ""
    process: str = ""


class Refusals(msgspec.Struct, frozen=True):
    """Refused writes. `last`: the number of the last one; `lost`: how many were counted, and their origin not kept."""

    found: tuple[Refusal, ...] = ()
    last: int = 0
    lost: int = 0


class Block(Protocol):
    """Refuses the writers of some tables of one source."""

    def refuse(self, tables: Sequence[Table]) -> None:
        """Raise SourceUnavailable that names missing rights, InvalidInput for tables that cannot be blocked."""
        ...

    def install(self, tables: Sequence[Table]) -> None:
        """Block the writers of these tables. Safe to repeat, also after it was interrupted."""
        ...

    def remove(self, tables: Sequence[Table]) -> None:
        """Lift the block of these tables. Safe to repeat."""
        ...

    def gaps(self, tables: Sequence[Table]) -> list[str]:
        """Return the labels of tables whose block is not complete: it was dropped, or switched off."""
        ...

    def refusals(self, after: int) -> Refusals:
        """Return the writes that were refused after that number."""
        ...

    @property
    def permitted(self) -> tuple[Sequence[str], Sequence[str]]:
        """Statements at the beginning and at the end of a transaction that the block lets pass."""
        ...


def with_attempts(table: Table, locked: object, run: Callable[[], None]) -> None:
    """Run a statement that needs a table's lock; `locked` is the state of the error if it was not to be had."""
    for attempt in range(ATTEMPTS):
        try:
            run()
            return
        except SourceUnavailable as error:
            if error.fields.get("state") != locked:
                raise
            if attempt + 1 == ATTEMPTS:
                raise lock_refused(table, error) from None
            time.sleep(0.5)
