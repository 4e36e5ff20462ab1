"""Recording of changes on PostgreSQL by triggers, into a table in a schema of its own.

A row of that table has the transaction's number, so that the changes of one transaction are read together. Transactions
are given in the order of their last change: a transaction that saw another's row waited for its commit, so its last
change comes later. A row is image by `record::text`, which no ALTER TABLE can make fail.
Knows: SQL and snapshots of PostgreSQL. Does not know: events.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from eventfold.errors import SourceUnavailable
from eventfold.migrate.connection import POSTGRES_SETTINGS, Connection, connect
from eventfold.migrate.progress import Way
from eventfold.migrate.reflection import Table
from eventfold.migrate.sources.changes import (
    Backlog,
    Change,
    Image,
    Mark,
    Operation,
    Snapshot,
    Transaction,
    other_columns,
)
from eventfold.migrate.sources.source import ATTEMPTS, LOCK_TIMEOUT_S, lock_refused, refuse_missing

OPERATIONS: dict[str, Operation] = {"I": "insert", "U": "update", "D": "delete", "T": "truncate"}
LOCKED = "55P03"
TRIGGER, TRUNCATE_TRIGGER = "eventfold_record", "eventfold_record_truncate"
SNAPSHOT_ATTEMPTS, SNAPSHOT_PAUSE_S = 200, 0.05  # until a replica has no open transaction


def schema_of(name: str) -> str:
    """Return the schema in the source for a migration."""
    return f"eventfold_{name}"


class PostgresTriggers:
    """Triggers on some tables of a PostgreSQL database. `name`: of the migration."""

    way: Way = "triggers"

    def __init__(self, address: str, name: str, tables: Sequence[Table]) -> None:
        self._connection: Connection = connect(address, readonly=False)
        self._schema, self._tables = schema_of(name), {each.label: each for each in tables}

    def refuse(self) -> None:
        """Raise SourceUnavailable if rights are missing: to own the tables, and to create a schema."""
        role, may_create = self._connection.rows(
            "SELECT current_user, has_database_privilege(current_database(), 'CREATE')"
        )[0]
        missing = [] if may_create or self._has_schema() else ["create a schema in this database"]
        missing += [f"alter {label}, which it does not own" for label in not_owned(self._connection, self._tables)]
        refuse_missing(missing, role, f"GRANT CREATE ON DATABASE … TO {role}, and use the role that owns the tables.")

    def install(self) -> dict[str, str]:
        """Create schema, table and function, then the triggers of each table that has none, in one transaction each.

        What is there is not touched: a statement that waits for its lock would make writers wait.
        """
        ask, schema = self._connection, self._schema
        if not self._has_schema():
            ask.begin()
            for statement in (
                f"CREATE SCHEMA {schema}",
                f"CREATE TABLE {schema}.change (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
                'xid bigint NOT NULL, at bigint NOT NULL, label text NOT NULL, op "char" NOT NULL, '
                "before text, after text)",
                f"CREATE INDEX change_xid ON {schema}.change (xid, seq)",
                _function(schema),
            ):
                ask.run(statement)
            ask.commit()
        there = self._triggered()
        for label, table in self._tables.items():
            if label not in there:
                self._install_on(table)
        return {}

    def remove(self, undo: Mapping[str, str]) -> None:
        """Drop the triggers, one table after the other, then the schema."""
        del undo
        for table in self._tables.values():
            with_lock_timeout(
                self._connection,
                table,
                [f"DROP TRIGGER IF EXISTS {each} ON {table.sql}" for each in (TRIGGER, TRUNCATE_TRIGGER)],
            )
        self._connection.run(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE")

    def is_installed(self) -> bool:
        """Whether each table has its two triggers, which fire ALWAYS."""
        return self._has_schema() and self._triggered() == self._tables.keys()

    def snapshot(self, connection: Connection) -> Snapshot:
        """Return PostgreSQL's own snapshot of the transaction."""
        return snapshot_of(connection)

    def point(self, connection: Connection) -> str:
        """Return nothing: the snapshot says it all."""
        del connection
        return ""

    def waits(self, snapshot: Snapshot, point: str) -> bool:
        """Whether a recorded change of a transaction that the snapshot sees is still there."""
        del point
        return bool(
            self._connection.rows(
                f"SELECT 1 FROM {self._schema}.change WHERE pg_visible_in_snapshot(xid::text::xid8, %s::pg_snapshot) "
                "LIMIT 1",
                [str(snapshot)],
            )
        )

    def changes(self, limit: int) -> list[Transaction]:
        """Return transactions all of whose changes are among the first ones, which are at least `limit`."""
        ask, table = self._connection, f"{self._schema}.change"
        ask.begin(snapshot=True)
        try:
            while True:
                rows = ask.rows(
                    f"SELECT seq, xid, at, label, op, before, after FROM {table} ORDER BY seq LIMIT {limit}"  # noqa: S608
                )
                last: dict[int, int] = {}
                for row in rows:
                    last[row[1]] = row[0]
                if len(rows) == limit:  # leave out those that have changes behind these rows
                    later = ask.rows(
                        f"SELECT DISTINCT xid FROM {table} WHERE xid = ANY(%s) AND seq > %s",
                        [list(last), rows[-1][0]],  # noqa: S608
                    )
                    for (xid,) in later:
                        del last[xid]
                    if not last:
                        limit *= 4
                        continue
                return self._grouped(rows, last)
        finally:
            ask.rollback()

    def _grouped(self, rows: list[tuple[Any, ...]], last: dict[int, int]) -> list[Transaction]:
        grouped: dict[int, list[Change]] = {xid: [] for xid in sorted(last, key=last.__getitem__)}
        moments: dict[int, int] = {}
        for seq, xid, at, label, op, before, after in rows:
            if xid in grouped and (table := self._tables.get(label)) is not None:
                grouped[xid].append(_change(table, OPERATIONS[op], (seq, 0), before, after))
            moments[xid] = at
        return [
            Transaction(str(xid), xid, str(last[xid]), moments[xid], tuple(changes), True)
            for xid, changes in grouped.items()
        ]

    def acknowledge(self, transactions: Sequence[Transaction]) -> None:
        """Delete the rows of these transactions."""
        self._connection.run(
            f"DELETE FROM {self._schema}.change WHERE xid = ANY(%s)",
            [[each.unit for each in transactions]],  # noqa: S608
        )

    def backlog(self) -> Backlog:
        """Return how many changes wait, and the size of their table."""
        waiting, size = self._connection.rows(
            f"SELECT count(*), pg_total_relation_size('{self._schema}.change') FROM {self._schema}.change"  # noqa: S608
        )[0]
        return Backlog(waiting, size)

    @property
    def unrecorded(self) -> tuple[Sequence[str], Sequence[str]]:
        """Delete at the end what the triggers recorded in this transaction."""
        own = "(SELECT pg_current_xact_id()::text::bigint)"
        return (), (f"DELETE FROM {self._schema}.change WHERE xid = {own}",)  # noqa: S608

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _has_schema(self) -> bool:
        return bool(self._connection.rows("SELECT 1 FROM pg_namespace WHERE nspname = %s", [self._schema]))

    def _triggered(self) -> set[str]:
        """Return the tables that have both triggers, switched on."""
        found = dict(
            self._connection.rows(
                "SELECT n, count(*) FROM unnest(%s::text[]) AS n JOIN pg_trigger ON tgrelid = to_regclass(n) "
                f"WHERE tgname IN ('{TRIGGER}', '{TRUNCATE_TRIGGER}') AND tgenabled = 'A' GROUP BY n",
                [[each.sql for each in self._tables.values()]],
            )
        )
        return {label for label, each in self._tables.items() if found.get(each.sql) == 2}

    def _install_on(self, table: Table) -> None:
        label = table.label.replace("'", "''")
        call = f"EXECUTE FUNCTION {self._schema}.record('{label}')"
        with_lock_timeout(
            self._connection,
            table,
            [
                *(f"DROP TRIGGER IF EXISTS {each} ON {table.sql}" for each in (TRIGGER, TRUNCATE_TRIGGER)),
                f"CREATE TRIGGER {TRIGGER} AFTER INSERT OR UPDATE OR DELETE ON {table.sql} FOR EACH ROW {call}",
                f"CREATE TRIGGER {TRUNCATE_TRIGGER} AFTER TRUNCATE ON {table.sql} FOR EACH STATEMENT {call}",
                *(
                    f"ALTER TABLE {table.sql} ENABLE ALWAYS TRIGGER {each}"  # also for the role `replica`
                    for each in (TRIGGER, TRUNCATE_TRIGGER)
                ),
            ],
        )


def with_lock_timeout(connection: Connection, table: Table, statements: Sequence[str]) -> None:
    """Run statements that need a table's lock in one transaction, which waits for it only shortly, and is repeated.

    Others wait behind a statement that waits for a lock: so it gives up, and tries again later.
    """
    for attempt in range(ATTEMPTS):
        connection.begin()
        try:
            connection.run(f"SET LOCAL lock_timeout = '{int(LOCK_TIMEOUT_S * 1000)}ms'")
            for each in statements:
                connection.run(each)
            connection.commit()
            return
        except SourceUnavailable as error:
            connection.rollback()
            if error.fields.get("state") != LOCKED:
                raise
            if attempt + 1 == ATTEMPTS:
                raise lock_refused(table, error) from None
            time.sleep(LOCK_TIMEOUT_S / 4)


def not_owned(connection: Connection, tables: Mapping[str, Table]) -> list[str]:
    """Return the tables that the connection's role may not alter."""
    if not tables:
        return []
    found = connection.rows(
        "SELECT n FROM unnest(%s::text[]) AS n JOIN pg_class ON oid = n::regclass "
        "WHERE NOT pg_has_role(relowner, 'USAGE')",
        [[each.sql for each in tables.values()]],
    )
    refused = {each[0] for each in found}
    return [label for label, each in tables.items() if each.sql in refused]


def snapshot_of(connection: Connection) -> Snapshot:
    """Return the snapshot of a transaction. On a replica wait for one without open transactions.

    A replica's snapshot does not list open transactions. Raises SourceUnavailable if there are always some.
    """
    for _ in range(SNAPSHOT_ATTEMPTS):
        text, on_replica = connection.rows("SELECT pg_current_snapshot()::text, pg_is_in_recovery()")[0]
        found = Snapshot.parse(text)
        if not on_replica or found.lowest == found.end:
            return found
        connection.rollback()
        time.sleep(SNAPSHOT_PAUSE_S)
        connection.begin(snapshot=True)
    raise SourceUnavailable(
        f"{connection.address} is a replica that always has open transactions, so it is not known what it shows.",
        "Load from the primary: leave --replica away.",
    )


def _function(schema: str) -> str:
    settings = " ".join(f"SET {name} = '{value}'" for name, value in POSTGRES_SETTINGS.items())
    return f"""
CREATE OR REPLACE FUNCTION {schema}.record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog {settings} AS $record$
BEGIN
    INSERT INTO {schema}.change (xid, at, label, op, before, after) VALUES (
        pg_current_xact_id()::text::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
        TG_ARGV[0], substr(TG_OP, 1, 1)::"char",
        CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN OLD::text END,
        CASE WHEN TG_OP IN ('INSERT', 'UPDATE') THEN NEW::text END
    );
    RETURN NULL;
END
$record$"""


def _change(table: Table, op: Operation, mark: Mark, before: str | None, after: str | None) -> Change:
    images: list[Image | None] = []
    for text in (before, after):
        values = None if text is None else composite_values(text)
        if values is not None and len(values) != len(table.columns):
            problem = other_columns(table.label, len(values), len(table.columns))
            return Change(table.label, op, mark, problem=problem)
        images.append(
            None if values is None else {each.name: value for each, value in zip(table.columns, values, strict=True)}
        )
    return Change(table.label, op, mark, images[0], images[1])


def composite_values(text: str) -> list[str | None]:
    """Return the values of a composite value as PostgreSQL writes it: NULL is empty, others may be in quotes."""
    body = text[1:-1]
    if '"' not in body and "\\" not in body:
        return [each or None for each in body.split(",")]
    found: list[str | None] = []
    at, end = 0, len(body)
    while at <= end:
        if at < end and body[at] == '"':
            parts: list[str] = []
            at += 1
            while True:
                stop = at
                while body[stop] not in '"\\':
                    stop += 1
                parts.append(body[at:stop])
                if body[stop] == "\\" or body[stop + 1 : stop + 2] == '"':
                    parts.append(body[stop + 1])  # a doubled quotation mark or backslash stands for one
                    at = stop + 2
                    continue
                at = stop + 1
                break
            found.append("".join(parts))
            at += 1
        else:
            stop = body.find(",", at)
            stop = end if stop < 0 else stop
            found.append(body[at:stop] or None)
            at = stop + 1
    return found
