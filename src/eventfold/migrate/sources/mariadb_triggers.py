"""Recording of changes on MariaDB or MySQL by triggers, into a table beside the others.

A number is drawn when a row is changed and seen when its transaction commits, so that a lower number may appear later.
A missing number is passed only once every transaction that was open when it was missed has ended: then it was rolled
back, or it is there. Cascades of foreign keys fire no trigger, so tables that they reach are refused.
Knows: SQL and triggers of MariaDB and MySQL. Does not know: events.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from eventfold.errors import InvalidInput, SourceUnavailable
from eventfold.migrate.connection import Connection, connect
from eventfold.migrate.progress import Way
from eventfold.migrate.reflection import Table
from eventfold.migrate.sources.changes import Backlog, Change, Image, Operation, Snapshot, Transaction
from eventfold.migrate.sources.source import ATTEMPTS, LOCK_TIMEOUT_S, lock_refused, refuse_missing
from eventfold.migrate.values import codec_of

OPERATIONS: dict[str, Operation] = {"I": "insert", "U": "update", "D": "delete"}
LOCK_WAIT = 1205
OWN = "@eventfold_writer <=> '{}'"  # whether the session is ours, and its changes are not to be captured
NOW_US = "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"
FRESH_ATTEMPTS, FRESH_PAUSE_S = (
    100,
    (0.11, 0.3),
)  # the list of transactions is renewed if none asked for it within 0.1 s
_decode = msgspec.json.decode


class MariadbTriggers:
    """Triggers on some tables of a MariaDB or MySQL database. `name`: of the migration."""

    way: Way = "triggers"

    def __init__(self, address: str, name: str, tables: Sequence[Table]) -> None:
        self._address = address
        self._connection: Connection = connect(address, readonly=False)
        self._connection.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        self._prefix, self._tables = f"eventfold_{name}", {each.label: each for each in tables}
        self._change, self._read = f"{self._prefix}_change", f"{self._prefix}_read"
        self._is_new = f'seq > (SELECT passed FROM "{self._read}")'  # noqa: S608
        self._missed: dict[int, frozenset[str]] = {}

    def refuse(self) -> None:
        """Raise InvalidInput for tables that cannot be recorded, SourceUnavailable if a right is missing."""
        for each in self._tables.values():
            if (engine := (each.engine or "").lower()) not in ("innodb", ""):
                raise InvalidInput(
                    f"The table {each.label} is of the engine {each.engine}, which has no transactions.",
                    f"Run ALTER TABLE {each.label} ENGINE=InnoDB, or set the table to ignored.",
                    table=each.label,
                    engine=engine,
                )
            reached = [key for key in each.foreign_keys if key.cascades]
            if reached and not self._cascades_fire():
                raise InvalidInput(
                    f"Rows of {each.label} are changed by a cascade from {reached[0].table}, for which "
                    f"{'MariaDB' if self._connection.dialect == 'mariadb' else 'MySQL'} fires no trigger.",
                    f"Replace the cascade of {each.label} ({', '.join(reached[0].columns)}) by statements of the "
                    "application, or migrate by another way.",
                    table=each.label,
                )
        missing = [f"see the transactions of others (PROCESS): {why}" for why in self._refused("innodb_trx")]
        missing += [
            f"create triggers on {each.label} (TRIGGER)"
            for each in self._tables.values()
            if each.rights and "TRIGGER" not in each.rights
        ]
        role = self._connection.rows("SELECT CURRENT_USER()")[0][0]
        refuse_missing(missing, role, f"GRANT PROCESS ON *.* TO {role}; GRANT CREATE, DROP, TRIGGER ON … TO {role}.")

    def install(self) -> dict[str, str]:
        """Create the two tables and the triggers."""
        ask = self._connection
        ask.run(
            f'CREATE TABLE IF NOT EXISTS "{self._change}" (seq bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, '
            "at bigint NOT NULL, label varchar(190) CHARACTER SET utf8mb4 NOT NULL, op char(1) NOT NULL, "
            '"before" longtext CHARACTER SET utf8mb4, "after" longtext CHARACTER SET utf8mb4) ENGINE=InnoDB'
        )
        ask.run(
            f'CREATE TABLE IF NOT EXISTS "{self._read}" (one tinyint PRIMARY KEY, passed bigint unsigned NOT NULL) '
            "ENGINE=InnoDB"
        )
        ask.run(f'INSERT IGNORE INTO "{self._read}" VALUES (1, 0)')
        ask.run(f"SET lock_wait_timeout = {int(LOCK_TIMEOUT_S)}")
        there = self._installed()
        for table in self._tables.values():
            wanted = dict(self._triggers(table))
            for name, statement in wanted.items():
                if name not in there:
                    self._with_attempts(table, statement)
            for name in there:  # of the table as it was defined earlier
                if there[name] == table.name and name not in wanted:
                    self._with_attempts(table, f'DROP TRIGGER IF EXISTS "{name}"')
        return {label: str(number) for label, number in self._numbers().items()}

    def remove(self, undo: Mapping[str, str]) -> None:
        """Drop the triggers and the tables."""
        del undo
        self._connection.run(f"SET lock_wait_timeout = {int(LOCK_TIMEOUT_S)}")
        by_name = {each.name: each for each in self._tables.values()}
        for name, table in self._installed().items():
            self._with_attempts(by_name.get(table), f'DROP TRIGGER IF EXISTS "{name}"')
        for each in (self._change, self._read):
            self._connection.run(f'DROP TABLE IF EXISTS "{each}"')

    def is_installed(self) -> bool:
        """Whether every trigger is there."""
        wanted = {name for table in self._tables.values() for name, _ in self._triggers(table)}
        return wanted <= self._installed().keys()

    def snapshot(self, connection: Connection) -> Snapshot:
        """Return the snapshot by the numbers that it sees: those that it does not see are open."""
        passed = connection.rows(f'SELECT passed FROM "{self._read}"')[0][0]  # noqa: S608
        seen = connection.rows(f'SELECT seq FROM "{self._change}" WHERE seq > {passed}')  # noqa: S608
        return Snapshot.of_seen([row[0] for row in seen], passed)

    def point(self, connection: Connection) -> str:
        """Return nothing: the snapshot says it all."""
        del connection
        return ""

    def waits(self, snapshot: Snapshot, point: str) -> bool:
        """Whether a recorded change that the snapshot sees is still there."""
        del point
        numbers = self._connection.rows(
            f'SELECT seq FROM "{self._change}" WHERE {self._is_new} AND seq < {snapshot.end} '  # noqa: S608
            f"ORDER BY seq LIMIT {len(snapshot.open) + 1}"
        )
        return any(snapshot.sees(row[0]) for row in numbers)

    def changes(self, limit: int) -> list[Transaction]:
        """Return the first changes, each as a transaction of its own, up to a number that may still appear."""
        passed = int(self._connection.rows(f'SELECT passed FROM "{self._read}"')[0][0])  # noqa: S608
        rows = self._rows(passed, limit)
        missing = _missing(passed, rows)
        if missing:
            end = rows[-1][0]
            active = self._active()
            for number in missing:
                known = self._missed.get(number)
                self._missed[number] = active if known is None else known & active
            rows = [row for row in self._rows(passed, limit) if row[0] <= end]  # those of transactions that had ended
            there = {row[0] for row in rows}
            open_numbers = [each for each in missing if each not in there and self._missed[each]]
            if open_numbers:
                rows = [row for row in rows if row[0] < open_numbers[0]]
        last = rows[-1][0] if rows else passed
        self._missed = {number: open_by for number, open_by in self._missed.items() if number > last}
        return [self._transaction(row) for row in rows]

    def acknowledge(self, transactions: Sequence[Transaction]) -> None:
        """Remember the number of the last of these, and delete what comes before it.

        The last one stays until the next time: to delete it would read the row behind it, and wait for the transaction
        that has written that row.
        """
        if not transactions:
            return
        ask, last = self._connection, transactions[-1].unit
        ask.begin()
        ask.run(f'UPDATE "{self._read}" SET passed = %s', [last])  # noqa: S608
        ask.run(f'DELETE FROM "{self._change}" WHERE seq < %s ORDER BY seq LIMIT {len(transactions)}', [last])  # noqa: S608
        ask.commit()

    def backlog(self) -> Backlog:
        """Return how many changes wait."""
        return Backlog(self._connection.rows(f'SELECT count(*) FROM "{self._change}" WHERE {self._is_new}')[0][0])  # noqa: S608

    @property
    def unrecorded(self) -> tuple[Sequence[str], Sequence[str]]:
        """The variable by which the triggers know our session."""
        name = self._prefix.removeprefix("eventfold_")
        return (f"SET @eventfold_writer = '{name}'",), ("SET @eventfold_writer = NULL",)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def truncated(self, undo: Mapping[str, str]) -> list[str]:
        """Return the tables that were emptied by TRUNCATE or created again since `install` returned `undo`."""
        return [label for label, number in self._numbers().items() if undo.get(label) not in (None, str(number))]

    def _rows(self, passed: int, limit: int) -> list[tuple[Any, ...]]:
        return self._connection.rows(
            f'SELECT seq, at, label, op, "before", "after" FROM "{self._change}" WHERE seq > {passed} '  # noqa: S608
            f"ORDER BY seq LIMIT {limit}"
        )

    def _active(self) -> frozenset[str]:
        """Return the ids of open transactions that write.

        The server keeps the list for up to 0.1 s. It is new enough once it has a transaction that begins here.
        """
        other = connect(self._address, readonly=False)
        try:
            own = other.rows("SELECT CONNECTION_ID()")[0][0]
            other.run("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            for _ in range(FRESH_ATTEMPTS):
                found = other.rows("SELECT trx_id, trx_mysql_thread_id FROM information_schema.innodb_trx")
                if any(thread == own for _, thread in found):
                    return frozenset(str(trx) for trx, thread in found if thread != own)
                time.sleep(random.uniform(*FRESH_PAUSE_S))  # noqa: S311
        finally:
            other.close()
        raise SourceUnavailable(
            "The server's list of open transactions is not renewed.",
            "Another program reads information_schema.innodb_trx more than ten times a second: stop it.",
        )

    def _transaction(self, row: tuple[Any, ...]) -> Transaction:
        seq, at, label, op, before, after = row
        table = self._tables.get(label)
        changes: tuple[Change, ...] = ()
        if table is not None:
            if (before is None) == (op != "I") or (after is None) == (op != "D"):
                problem = (
                    f"a change of {label} was recorded without the row, which is larger than max_allowed_packet",
                    f"raise max_allowed_packet, then run `eventfold migrate load --reread {label}`",
                )
                changes = (Change(label, OPERATIONS[op], (seq, 0), problem=problem),)
            else:
                images = [_image(self._connection, table, each) for each in (before, after)]
                changes = (Change(label, OPERATIONS[op], (seq, 0), images[0], images[1]),)
        return Transaction(str(seq), seq, str(seq), at, changes)

    def _triggers(self, table: Table) -> Iterator[tuple[str, str]]:
        old, new = _object(self._connection, table, "OLD"), _object(self._connection, table, "NEW")
        label = "'" + table.label.replace("\\", "\\\\").replace("'", "''") + "'"
        for op, when, before, after in (
            ("I", "AFTER INSERT", "NULL", new),
            ("U", "AFTER UPDATE", old, new),
            ("D", "AFTER DELETE", old, "NULL"),
        ):
            digest = hashlib.sha256(f"{table.label}\n{before}\n{after}\n{OWN}".encode()).hexdigest()[:16]
            name = f"{self._prefix[:40]}_{op}_{digest}"
            insert = f'INSERT INTO "{self._change}" (at, label, op, "before", "after")'
            values = f"VALUES ({NOW_US}, {label}, '{op}', {before}, {after})"
            own = OWN.format(self._prefix.removeprefix("eventfold_"))
            body = f"IF NOT ({own}) THEN {insert} {values}; END IF"
            yield name, f'CREATE TRIGGER "{name}" {when} ON {table.sql} FOR EACH ROW {body}'

    def _installed(self) -> dict[str, str]:
        """Return our triggers, each with the name of its table."""
        found = self._connection.rows(
            "SELECT trigger_name, event_object_table FROM information_schema.triggers WHERE trigger_schema = DATABASE()"
        )
        return {name: table for name, table in found if name.startswith(f"{self._prefix[:40]}_")}

    def _numbers(self) -> dict[str, int]:
        """Return the number of each table in InnoDB's catalogue, which TRUNCATE changes."""
        name = "innodb_sys_tables" if self._connection.dialect == "mariadb" else "innodb_tables"
        found = dict(
            self._connection.rows(
                f"SELECT name, table_id FROM information_schema.{name} WHERE name LIKE CONCAT(DATABASE(), '/%%')"  # noqa: S608
            )
        )
        database = self._connection.rows("SELECT DATABASE()")[0][0]
        return {
            label: found[inner]
            for label, each in self._tables.items()
            if (inner := f"{each.schema or database}/{each.name}") in found
        }

    def _refused(self, catalogue: str) -> list[str]:
        try:
            self._connection.rows(f"SELECT count(*) FROM information_schema.{catalogue}")  # noqa: S608
        except SourceUnavailable as error:
            return [error.what]
        return []

    def _cascades_fire(self) -> bool:
        found = self._connection.rows("SHOW VARIABLES LIKE 'enable_cascade_triggers'")
        return bool(found) and str(found[0][1]).upper() in ("ON", "1")

    def _with_attempts(self, table: Table | None, statement: str) -> None:
        for attempt in range(ATTEMPTS):
            try:
                self._connection.run(statement.replace("%", "%%"))
                return
            except SourceUnavailable as error:
                if table is None or error.fields.get("state") != LOCK_WAIT:
                    raise
                if attempt + 1 == ATTEMPTS:
                    raise lock_refused(table, error) from None


def _missing(passed: int, rows: Sequence[tuple[Any, ...]]) -> list[int]:
    if not rows:
        return []
    there = {row[0] for row in rows}
    return [each for each in range(passed + 1, rows[-1][0]) if each not in there]


def _object(connection: Connection, table: Table, of: str) -> str:
    """Return the expression of an image: a JSON object, with bytes as hexadecimal digits."""
    parts: list[str] = []
    for each in table.columns:
        codec = codec_of(connection.dialect, each)
        name = '"' + each.name.replace('"', '""') + '"'
        value = codec.expression.format(f"{of}.{name}")
        literal = "'" + each.name.replace("\\", "\\\\").replace("'", "''") + "'"
        parts += [literal, f"HEX({value})" if codec.kind == "bytes" else f"CAST({value} AS CHAR CHARACTER SET utf8mb4)"]
    return f"JSON_OBJECT({', '.join(parts)})"


def _image(connection: Connection, table: Table, text: str | None) -> Image | None:
    if text is None:
        return None
    image: Image = _decode(text)
    for each in table.columns:
        value = image.get(each.name)
        kind = codec_of(connection.dialect, each).kind
        if value is not None and kind in ("bytes", "boolean"):
            image[each.name] = bytes.fromhex(value) if kind == "bytes" else int(value)
    return image
