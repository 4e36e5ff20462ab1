"""Histories that a source already has: tables of well-known packages, recognised by their columns, and read as changes.

Knows: the list of packages. Does not know: events.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from eventfold.errors import InvalidInput
from eventfold.migrate.connection import Connection
from eventfold.migrate.histories import (
    auditlog,
    continuum,
    postgresql_audit,
    reversion,
    roundup,
    simple_history,
    states,
    system_versioned,
    trac,
)
from eventfold.migrate.histories.change import Change, Package
from eventfold.migrate.mapping import History
from eventfold.migrate.reflection import Schema

PACKAGES: tuple[Package, ...] = tuple(
    cast("Any", each)
    for each in (
        simple_history, reversion, auditlog, continuum, postgresql_audit, trac, roundup, system_versioned, states,
    )
)  # fmt: skip


def recognise(schema: Schema) -> dict[str, History]:
    """Return the history tables of a source, by label."""
    found: dict[str, History] = {}
    for package in PACKAGES:
        found = package.recognise(schema) | found
    return found


def changes(connection: Connection, schema: Schema, label: str, history: History) -> Iterator[Change]:
    """Yield what a history table says, the changes of one row in the order of time.

    A query stays open meanwhile: on a server, call it within a transaction. Raises MigrationError for a row that cannot
    be read, InvalidInput for a package that is not known.
    """
    for package in PACKAGES:
        if history.package == package.NAME:
            return package.read(connection, schema, label, history)
    known = ", ".join(package.NAME for package in PACKAGES)
    raise InvalidInput(f"{history.package} is no package whose history is known.", f"Known are {known}.")


__all__ = ["Change", "changes", "recognise"]
