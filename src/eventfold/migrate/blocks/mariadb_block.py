"""The block of writers on MariaDB or MySQL: triggers that refuse a writer, and record it in a table of MyISAM.

Such a table has no transactions: what is inserted stays when the refused statement is rolled back. TRUNCATE fires no
trigger; capture notices it afterwards. The triggers let those pass who set the variable @eventfold_writer.
Knows: SQL of MariaDB and MySQL. Does not know: events, when writers are blocked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial

from eventfold.errors import SourceUnavailable
from eventfold.migrate.blocks.block import Refusal, Refusals, with_attempts
from eventfold.migrate.connection import Connection
from eventfold.migrate.reflection import Table
from eventfold.migrate.sources.mariadb_triggers import LOCK_WAIT, NOW_US
from eventfold.migrate.sources.source import LOCK_TIMEOUT_S, refuse_missing

OPERATIONS = {"I": "INSERT", "U": "UPDATE", "D": "DELETE"}
PROGRAM = (
    "COALESCE((SELECT MAX(attr_value) FROM performance_schema.session_connect_attrs WHERE processlist_id = "
    "CONNECTION_ID() AND attr_name IN ('program_name', '_client_name')), '')"
)


class MariadbBlock:
    """The block of one migration. `connection` may write."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection, self._name, self._refused = connection, name, f"eventfold_{name}_refused"

    def refuse(self, tables: Sequence[Table]) -> None:
        """Raise SourceUnavailable if the right to create triggers is missing."""
        role = self._connection.rows("SELECT CURRENT_USER()")[0][0]
        missing = [
            f"create triggers on {each.label} (TRIGGER)"
            for each in tables
            if each.rights and "TRIGGER" not in each.rights
        ]
        refuse_missing(missing, role, f"GRANT CREATE, DROP, TRIGGER ON … TO {role}.")

    def install(self, tables: Sequence[Table]) -> None:
        """Create the table of refusals and the triggers."""
        ask = self._connection
        ask.run(
            f'CREATE TABLE IF NOT EXISTS "{self._refused}" (number bigint NOT NULL AUTO_INCREMENT PRIMARY KEY, '
            "at bigint NOT NULL, label varchar(190) CHARACTER SET utf8mb4 NOT NULL, op char(1) NOT NULL, "
            '"user" varchar(400) CHARACTER SET utf8mb4, process bigint, application varchar(190) CHARACTER SET utf8mb4)'
            " ENGINE=MyISAM"
        )
        ask.run(f"SET lock_wait_timeout = {int(LOCK_TIMEOUT_S)}")
        there = self._installed()
        for table in tables:
            for name, statement in self._triggers(table):
                if name not in there:
                    with_attempts(table, LOCK_WAIT, partial(self._run, statement))

    def remove(self, tables: Sequence[Table]) -> None:
        """Drop the triggers, and the table of refusals after the last ones."""
        self._connection.run(f"SET lock_wait_timeout = {int(LOCK_TIMEOUT_S)}")
        for table in tables:
            for name, _ in self._triggers(table):
                with_attempts(table, LOCK_WAIT, partial(self._run, f'DROP TRIGGER IF EXISTS "{name}"'))
        if not self._installed():
            self._connection.run(f'DROP TABLE IF EXISTS "{self._refused}"')

    def gaps(self, tables: Sequence[Table]) -> list[str]:
        """Return the tables that do not have every trigger."""
        there = self._installed()
        return [each.label for each in tables if not {name for name, _ in self._triggers(each)} <= there]

    def refusals(self, after: int) -> Refusals:
        """Return the refusals."""
        try:
            rows = self._connection.rows(
                f'SELECT number, label, op, at, "user", process, application FROM "{self._refused}" '  # noqa: S608
                "WHERE number > %s ORDER BY number",
                [after],
            )
        except SourceUnavailable as error:
            if error.fields.get("state") == 1146:  # no such table
                return Refusals()
            raise
        found: list[Refusal] = []
        for number, label, op, at, user, process, application in rows:
            name, _, address = str(user or "").rpartition("@")
            found.append(Refusal(number, label, OPERATIONS[op], at, application or "", name, address, str(process)))
        return Refusals(tuple(found), found[-1].number if found else after)

    @property
    def permitted(self) -> tuple[Sequence[str], Sequence[str]]:
        """The variable by which the triggers know our session."""
        return (f"SET @eventfold_writer = '{self._name}'",), ("SET @eventfold_writer = NULL",)

    def _run(self, statement: str) -> None:
        self._connection.run(statement.replace("%", "%%"))

    def _installed(self) -> set[str]:
        found = self._connection.rows(
            "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE()"
        )
        return {name for (name,) in found if name.startswith(f"ef_block_{self._name}_")}

    def _program(self) -> str:
        """Return the expression of the client's program; the server may not collect it, or not show it."""
        try:
            self._connection.rows(f"SELECT {PROGRAM}")  # noqa: S608 - a constant
        except SourceUnavailable:
            return "''"
        return PROGRAM

    def _triggers(self, table: Table) -> Iterator[tuple[str, str]]:
        label = table.label.replace("\\", "\\\\").replace("'", "''")
        digest, program = hashlib.sha256(table.label.encode()).hexdigest()[:12], self._program()
        for op, operation in OPERATIONS.items():
            name = f"ef_block_{self._name}_{op}_{digest}"
            message = f"{label[:50]} is written by events since its cutover: this {operation} is refused"
            record = (
                f'INSERT INTO "{self._refused}" (at, label, op, "user", process, application) '
                f"VALUES ({NOW_US}, '{label}', '{op}', USER(), CONNECTION_ID(), {program});"
            )
            refuse = f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{message}';"
            yield (
                name,
                f'CREATE TRIGGER "{name}" BEFORE {operation} ON {table.sql} FOR EACH ROW '
                f"IF NOT (@eventfold_writer <=> '{self._name}') THEN {record} {refuse} END IF",
            )
