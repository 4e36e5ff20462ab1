"""What a source can guarantee, and what in it needs attention: cascades, triggers that write, rights, types.

Knows: schemas, guesses. Does not know: how findings are printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from eventfold.migrate.evidence import Guess
from eventfold.migrate.reflection import Schema, Table

NEEDED = ("SELECT", "TRIGGER")
BY_ROW = "changes are captured by triggers, row by row: a transaction is not one append"
REPLACED = (
    "REPLACE hides the delete from triggers unless the writer sets recursive_triggers: rows are also compared by key"
)
BY_TRANSACTION = (
    "one transaction is one append; one of more than 1,000 events becomes consecutive appends that carry its id, and "
    "only whole transactions are compared"
)
Kind = Literal[
    "guarantee", "rights", "cascade", "trigger", "routine", "history", "personal", "type", "reference", "undecided"
]


class Finding(msgspec.Struct, frozen=True):
    """One thing that a person should know: of what kind, of which table or column, as a sentence."""

    kind: Kind
    subject: str
    text: str


def findings(schema: Schema, guesses: dict[str, Guess]) -> list[Finding]:
    """Return everything worth knowing, the most general first."""
    return [
        *_guarantees(schema),
        *_rights(schema),
        *_cascades(schema),
        *_triggers(schema),
        *(
            Finding("routine", each.name, f"this {each.kind} writes to {_named(each.writes)}")
            for each in schema.routines
        ),
        *_of_tables(schema, guesses),
    ]


def _named(writes: tuple[str, ...]) -> str:
    return ", ".join("tables that its text does not name" if each == "?" else each for each in writes)


# ---------------------------------------------------------------------------------------- what the source promises


def _guarantees(schema: Schema) -> Iterator[Finding]:
    match schema.dialect:
        case "postgresql":
            yield from _of_postgres(schema)
        case "sqlite":
            yield Finding("guarantee", "sqlite", BY_ROW)
            yield Finding("guarantee", "sqlite", REPLACED)
        case _:
            yield Finding("guarantee", schema.dialect, BY_ROW)
            yield Finding("guarantee", schema.dialect, "a cascade fires no trigger: what one reaches is refused")
            for table in schema.tables:
                if (table.engine or "InnoDB").lower() != "innodb":
                    text = f"its engine {table.engine} has no transactions, so that no snapshot of it is consistent"
                    yield Finding("guarantee", table.label, text)


def _of_postgres(schema: Schema) -> Iterator[Finding]:
    level = schema.settings.get("wal_level", "")
    if level == "logical" and {"superuser", "replication"} & set(schema.rights):
        text = "changes can be captured by logical decoding, in the order of commits, TRUNCATE included"
    elif level == "logical":
        text = "wal_level is logical, but the role may not replicate: changes are captured by triggers"
    else:
        text = f"wal_level is {level}: changes are captured by triggers (logical decoding needs wal_level = logical)"
    yield Finding("guarantee", "postgresql", text)
    yield Finding("guarantee", "postgresql", BY_TRANSACTION)
    if schema.settings.get("max_slot_wal_keep_size") == "-1":
        text = "max_slot_wal_keep_size is not set: a replication slot that is not read fills the disk"
        yield Finding("guarantee", "postgresql", text)
    for table in schema.tables:
        wide = [each.name for each in table.columns if each.is_wide]
        if wide and table.replica_identity != "full":
            text = (
                f"{', '.join(wide[:6])} may be stored apart, and a change that does not touch them leaves them out: "
                "decoding needs REPLICA IDENTITY FULL"
            )
            yield Finding("guarantee", table.label, text)


def _rights(schema: Schema) -> Iterator[Finding]:
    for right, what in (("SELECT", "it cannot be read"), ("TRIGGER", "its changes cannot be captured by triggers")):
        lacking = [table.label for table in schema.tables if right not in table.rights]
        if lacking and len(lacking) == len(schema.tables) > 1:
            yield Finding("rights", schema.role or "the role", f"the right {right} is missing on all tables: {what}")
        else:
            for label in lacking:
                yield Finding("rights", label, f"{schema.role} does not have the right {right}: {what}")
    if schema.dialect != "sqlite" and "create" not in schema.rights:
        text = "the role may not create a schema or a table, which capture by triggers needs"
        yield Finding("rights", schema.role, text)


def _cascades(schema: Schema) -> Iterator[Finding]:
    for table in schema.tables:
        for key in table.foreign_keys:
            if key.cascades:
                actions = [f"ON {on} {action}" for on, action in (("DELETE", key.on_delete), ("UPDATE", key.on_update))]
                said = " ".join(each for each in actions if not each.endswith(("NO ACTION", "RESTRICT")))
                text = f"a change of {key.table} reaches its rows ({', '.join(key.columns)} {said})"
                yield Finding("cascade", table.label, text)


def _triggers(schema: Schema) -> Iterator[Finding]:
    for table in schema.tables:
        for each in table.triggers:
            if each.writes:
                text = f"its trigger {each.name} ({each.on}) writes to {_named(each.writes)}"
                yield Finding("trigger", table.label, text)


# ---------------------------------------------------------------------------------------- what the tables need


def _of_tables(schema: Schema, guesses: dict[str, Guess]) -> Iterator[Finding]:
    for table in schema.tables:
        guess = guesses[table.label]
        own = guess.mapping
        if own.history is not None:
            of = f" of {own.history.of}" if own.history.of else ""
            yield Finding("history", table.label, f"{own.history.package}: it proves changes{of}")
        if own.role == "undecided":
            yield Finding("undecided", table.label, own.because[0] if own.because else "nothing says what it is")
        for each in guess.references:
            if each.refused:
                yield Finding("reference", table.label, f"{each.because}: it is not taken for a reference")
        if own.is_migrated:
            yield from _of_columns(table, guess)


def _of_columns(table: Table, guess: Guess) -> Iterator[Finding]:
    """Yield one finding for each reason, with the columns that it is the reason for."""
    reasons: tuple[tuple[Kind, dict[str, str]], ...] = (
        ("personal", guess.columns.personal),
        ("type", guess.columns.cautions),
    )
    for kind, said in reasons:
        for text in dict.fromkeys(said.values()):
            names = [column for column, why in said.items() if why == text]
            yield Finding(kind, table.label, f"{', '.join(names)}: {text}")
