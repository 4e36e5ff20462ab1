"""Whose meter it is: names in a table beside the log, in rows that can be deleted (GDPR, article 17).

The log has a random id for the holder of a meter, and never a name. An erasure writes its event first and then deletes
the row, so that one that was interrupted is completed by the next call. Readings and bills stay; whose they were is not
known any more. Knows: a table, the meters of app.py by their ids. Does not know: readings, bills.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from uuid import uuid4

import eventfold as ef


class MeterAssigned(ef.Event):
    """A meter measures for a holder from now on."""

    meter: ef.Tag
    holder: ef.Tag


class HolderErased(ef.Event):
    """Who the holder was is not kept any more."""

    holder: ef.Tag
    by: str


class Holder(ef.State):
    """A holder, as the log knows them."""

    holder: ef.Tag
    meters: list[str] = []
    is_erased: bool = False

    def evolve(self, event: MeterAssigned | HolderErased) -> None:
        """Add a meter, or the erasure."""
        if isinstance(event, MeterAssigned):
            self.meters.append(event.meter)
        else:
            self.is_erased = True


class Erased(Exception):
    """A holder who was erased gets no meter."""


def assign(holder: Holder, meter: str) -> list[MeterAssigned]:
    """Give a meter to a holder."""
    if holder.is_erased:
        raise Erased(holder.holder)
    return [] if meter in holder.meters else [MeterAssigned(meter, holder.holder)]


def erase(holder: Holder, by: str) -> list[HolderErased]:
    """Record the erasure, once."""
    return [] if holder.is_erased else [HolderErased(holder.holder, by)]


class Names:
    """The names of holders by their ids, in a file of their own. Its backups have to be deleted, too."""

    def __init__(self, path: Path | str) -> None:
        self._rows = sqlite3.connect(path)
        self._rows.execute("CREATE TABLE IF NOT EXISTS holders (holder TEXT PRIMARY KEY, name TEXT NOT NULL)")
        self._rows.execute("PRAGMA secure_delete = ON")  # deleted rows are overwritten

    def add(self, name: str) -> str:
        """Keep a name, and return the id by which the log knows its holder."""
        holder = uuid4().hex
        with self._rows:
            self._rows.execute("INSERT INTO holders VALUES (?, ?)", (holder, name))
        return holder

    def of(self, holder: str) -> str | None:
        """The name of a holder; None if they were erased."""
        row = self._rows.execute("SELECT name FROM holders WHERE holder = ?", (holder,)).fetchone()
        return None if row is None else str(row[0])

    def erase(self, store: ef.Store, holder: str, by: str) -> None:
        """Erase who a holder is."""
        store.decide(erase, Holder(holder), by)
        with self._rows:
            self._rows.execute("DELETE FROM holders WHERE holder = ?", (holder,))

    def close(self) -> None:
        """Close the file."""
        self._rows.close()
