"""`inspect`: a source's schema with guesses becomes migration.toml and events.py, or the difference to what is there.

A file that was edited is never written: the difference is returned, and what is new is in it. A file that is as
eventfold wrote it is replaced. Knows: the order of steps, files. Does not know: how a guess is made, terminals.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from eventfold.errors import InvalidInput
from eventfold.migrate.connection import Connection, opened, shown
from eventfold.migrate.evidence import Guess, guess
from eventfold.migrate.generated import events_text
from eventfold.migrate.guarantees import Finding, findings
from eventfold.migrate.hidden import KEY_NAME, make_key
from eventfold.migrate.histories.gaps import find_gaps
from eventfold.migrate.mapping import (
    FILE_NAME,
    Mapping,
    TableMapping,
    Treatment,
    missing,
    read_mapping,
)
from eventfold.migrate.mapping_text import is_edited, mapping_text
from eventfold.migrate.reflection import Schema, fingerprint, reflect

EVENTS_NAME = "events.py"
Outcome = Literal["written", "unchanged", "replaced", "kept"]


class File(msgspec.Struct, frozen=True):
    """What became of a file. `difference`: of one that was kept, as a unified diff to what inspect would write."""

    path: str
    outcome: Outcome
    difference: str = ""


class Inspection(msgspec.Struct, frozen=True):
    """The result. `open`: what is not decided, each by its name; it stops the load."""

    source: str
    dialect: str
    version: str
    tables: int
    roles: dict[str, int]
    findings: list[Finding]
    files: list[File]
    open: list[str]


class Decisions(msgspec.Struct, frozen=True, kw_only=True):
    """What is done with columns, from the command line: names such as customer.email."""

    keep: Sequence[str] = ()
    hide: Sequence[str] = ()
    drop: Sequence[str] = ()


def inspect(address: str, folder: Path, decisions: Decisions | None = None) -> Inspection:
    """Inspect a source, and write migration.toml and events.py into a folder.

    Raises InvalidInput, also for a column to decide that the source does not have, SourceUnavailable, MissingExtra.
    """
    with opened(address) as connection:
        schema, guesses = examine(connection)
        gaps = _gaps(connection, schema, guesses)
    proposed = propose(schema, guesses, shown(address))
    path = folder / FILE_NAME
    if path.exists() and is_edited(path.read_text("utf-8")):
        valid = read_mapping(path)  # raises InvalidInput where it is not
        if decisions is not None and any((decisions.keep, decisions.hide, decisions.drop)):
            raise InvalidInput(f"{path} was edited.", "Move the columns there into keep, hide or drop.", path=str(path))
    else:
        earlier = read_mapping(path) if path.exists() else None
        proposed = decide(_with_earlier(proposed, earlier), decisions or Decisions())
        valid = proposed
    text = mapping_text(proposed)
    folder.mkdir(parents=True, exist_ok=True)
    files = [write_unless_edited(path, text)]
    files.append(write_unless_edited(folder / EVENTS_NAME, events_text(valid, schema)))
    if any(each.hide for each in valid.tables.values()):
        make_key(folder)
    roles: dict[str, int] = {}
    for each in valid.tables.values():
        roles[each.role] = roles.get(each.role, 0) + 1
    return Inspection(
        source=shown(address),
        dialect=schema.dialect,
        version=schema.version,
        tables=len(schema.tables),
        roles=roles,
        findings=[*findings(schema, guesses), *gaps],
        files=files,
        open=missing(valid, schema),
    )


def examine(connection: Connection) -> tuple[Schema, dict[str, Guess]]:
    """Return the schema of a source and a guess for each table."""
    schema = reflect(connection)
    return schema, guess(connection, schema)


def _gaps(connection: Connection, schema: Schema, guesses: dict[str, Guess]) -> list[Finding]:
    """Compare a sample of rows with their histories: a difference is what passed by the package."""
    found: list[Finding] = []
    connection.begin(snapshot=True)
    try:
        for label, each in guesses.items():
            history = each.mapping.history
            if history is None or "SELECT" not in schema.table(label).rights:
                continue
            gaps = find_gaps(connection, schema, label, history)
            if gaps.differing:
                text = (
                    f"{gaps.differing} of {gaps.compared} compared rows are not as {history.package} says, so that "
                    f"changes are missing there; first {gaps.first}"
                )
                found.append(Finding("history", label, text))
    finally:
        connection.rollback()
    return found


def propose(schema: Schema, guesses: dict[str, Guess], source: str) -> Mapping:
    """Return the mapping that the guesses amount to."""
    return Mapping(
        source=source,
        dialect=schema.dialect,
        fingerprint=fingerprint(schema.tables),
        tables={table.label: guesses[table.label].mapping for table in schema.tables},
    )


def decide(mapping: Mapping, decisions: Decisions) -> Mapping:
    """Return a mapping with columns moved to what is done with them. Raises InvalidInput for a name that is none."""
    tables = dict(mapping.tables)
    given: tuple[tuple[Treatment, Sequence[str]], ...] = (
        ("keep", decisions.keep), ("hide", decisions.hide), ("drop", decisions.drop),
    )  # fmt: skip
    for treatment, names in given:
        for name in names:
            label, column = _split(tables, name)
            tables[label] = _moved(tables[label], label, column, treatment)
    found = msgspec.structs.replace(mapping, tables=tables)
    if any(each.hide for each in tables.values()) and not found.hide_key:
        found = msgspec.structs.replace(found, hide_key=f"file:{KEY_NAME}")
    return found


def _split(tables: dict[str, TableMapping], name: str) -> tuple[str, str]:
    label, _, column = name.rpartition(".")
    own = tables.get(label)
    if own is None or own.treatment(column) is None:
        raise InvalidInput(
            f"{name} is no column that becomes part of events.", "Write TABLE.COLUMN, as migration.toml has them."
        )
    return label, column


def _moved(own: TableMapping, label: str, column: str, treatment: Treatment) -> TableMapping:
    if treatment == "drop" and column in own.key:
        raise InvalidInput(f"{label}.{column} is part of the key.", "Keep it, or hide it.")
    lists = {
        name: tuple(c for c in getattr(own, name) if c != column) for name in ("keep", "hide", "drop", "undecided")
    }
    lists[treatment] = (*lists[treatment], column)
    used = own.transition is not None and own.transition.column == column and treatment != "keep"
    return msgspec.structs.replace(
        own,
        **lists,
        transition=None if used else own.transition,
        dates={name: event for name, event in own.dates.items() if name != column or treatment == "keep"},
        no_fact=tuple(name for name in own.no_fact if name != column or treatment == "keep"),
    )


def _with_earlier(proposed: Mapping, earlier: Mapping | None) -> Mapping:
    """Return the proposal with what was decided of columns in a run before, by options."""
    if earlier is None:
        return proposed
    tables = dict(proposed.tables)
    for label, before in earlier.tables.items():
        own = tables.get(label)
        if own is None or not own.is_migrated:
            continue
        for column in own.undecided:
            treatment = before.treatment(column)
            if treatment in ("keep", "hide", "drop"):
                tables[label] = _moved(tables[label], label, column, treatment)
    return msgspec.structs.replace(proposed, tables=tables, hide_key=earlier.hide_key)


# ---------------------------------------------------------------------------------------- files


def write_unless_edited(path: Path, text: str) -> File:
    """Write a file, or return the difference if the one that is there was edited."""
    try:
        present = path.read_text("utf-8")
    except FileNotFoundError:
        _replace(path, text)
        return File(str(path), "written")
    if present == text:
        return File(str(path), "unchanged")
    if not is_edited(present):
        _replace(path, text)
        return File(str(path), "replaced", _difference(path.name, present, text))
    return File(str(path), "kept", _difference(path.name, present, text))


def _difference(name: str, present: str, text: str) -> str:
    lines = difflib.unified_diff(
        _without_digest(present), _without_digest(text), f"{name} (yours)", f"{name} (of inspect)", lineterm=""
    )
    return "\n".join(lines)


def _without_digest(text: str) -> list[str]:
    lines = text.splitlines()
    return lines[1:] if lines and lines[0].startswith("# written by eventfold") else lines


def _replace(path: Path, text: str) -> None:
    """Write a file as a whole: a process that is killed leaves the old one or the new one."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".new-", delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)
