"""Recording of changes on PostgreSQL by logical decoding: a replication slot, read by plain SQL as `pgoutput` messages.

Transactions come in the order of their commits, TRUNCATE included, and no statement of the application takes longer for
a trigger. In return the server keeps its write-ahead log until it is read, and each table needs REPLICA IDENTITY FULL,
so that a change has the row as it was before. What was read is acknowledged by advancing the slot after the append.
Knows: slots, publications. Does not know: the format of messages (pgoutput.py), events.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from eventfold.errors import InvalidInput, SourceUnavailable
from eventfold.migrate.connection import Connection, connect
from eventfold.migrate.progress import Way
from eventfold.migrate.reflection import Table
from eventfold.migrate.sources.changes import Backlog, Snapshot, Transaction
from eventfold.migrate.sources.pgoutput import Decoder, lsn_text
from eventfold.migrate.sources.postgres_triggers import not_owned, snapshot_of, with_lock_timeout
from eventfold.migrate.sources.source import refuse_missing

IDENTITIES = {"d": "DEFAULT", "f": "FULL", "n": "NOTHING"}
SLOT_TIMEOUT_S = 60  # how long making the slot may wait for open transactions
WAL_HEADERS_BYTES = (24, 40)  # of a page of the log, and of the first page of a file
IDLE_S = 1.0  # without changes of these tables the slot is advanced this often, so that the log of others is released


class PostgresDecoding:
    """A slot and a publication of some tables of a PostgreSQL database. `name`: of the migration."""

    way: Way = "decoding"

    def __init__(self, address: str, name: str, tables: Sequence[Table]) -> None:
        self._connection: Connection = connect(address, readonly=False)
        self._tables = {each.label: each for each in tables}
        default, database = self._connection.rows(
            "SELECT current_schema(), oid FROM pg_database WHERE datname = current_database()"
        )[0]
        self.slot = f"eventfold_{name}_{database}"  # a server's databases share the names of slots
        self._decoder = Decoder({(each.schema or default, each.name): each.label for each in tables}, self.slot)
        self._advanced = float("-inf")

    def refuse(self) -> None:
        """Raise InvalidInput if the server does not write what decoding needs, SourceUnavailable for missing rights."""
        ask = self._connection
        level, free, role, may_create, replicates = ask.rows(
            "SELECT current_setting('wal_level'), current_setting('max_replication_slots')::int - "
            "(SELECT count(*) FROM pg_replication_slots), current_user, "
            "has_database_privilege(current_database(), 'CREATE'), "
            "(SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user)"
        )[0]
        if level != "logical":
            raise InvalidInput(
                f"The server's wal_level is {level}, and decoding needs logical.",
                "Set wal_level = logical and restart the server, or capture by triggers: --by triggers.",
                wal_level=level,
            )
        if free < 1 and not self._has_slot():
            raise InvalidInput(
                "The server has no free replication slot.",
                "Raise max_replication_slots and restart the server, or capture by triggers: --by triggers.",
            )
        missing = [] if replicates else ["use replication slots (REPLICATION)"]
        missing += [] if may_create else ["create a publication in this database (CREATE)"]
        missing += [f"alter {label}, which it does not own" for label in not_owned(ask, self._tables)]
        remedy = (
            f"ALTER ROLE {role} REPLICATION; GRANT CREATE ON DATABASE … TO {role}; use the role that owns the tables."
        )
        refuse_missing(missing, role, remedy)

    def install(self) -> dict[str, str]:
        """Set the replica identities, make the publication and then the slot. Returns the identities as they were."""
        ask = self._connection
        undo: dict[str, str] = {}
        for label, identity in self._identities().items():
            if identity != "FULL":
                undo[label] = identity
                table = self._tables[label]
                with_lock_timeout(ask, table, [f"ALTER TABLE {table.sql} REPLICA IDENTITY FULL"])
        if not ask.rows("SELECT 1 FROM pg_publication WHERE pubname = %s", [self.slot]):
            names = ", ".join(each.sql for each in self._tables.values())
            ask.run(f"CREATE PUBLICATION {self.slot} FOR TABLE {names} WITH (publish_via_partition_root = true)")
        if not self._has_slot():
            ask.run(f"SET statement_timeout = '{SLOT_TIMEOUT_S}s'")
            try:
                ask.rows("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [self.slot])
            except SourceUnavailable as error:
                raise SourceUnavailable(
                    f"No replication slot was made within {SLOT_TIMEOUT_S} s: {error.what}",
                    "It waits for transactions that are open: end long ones, and run the command again.",
                ) from None
            finally:
                ask.run("SET statement_timeout = 0")
        return undo

    def remove(self, undo: Mapping[str, str]) -> None:
        """Drop the slot first, which lets the server release its log; then the publication; restore the identities."""
        ask = self._connection
        if self._has_slot():
            ask.rows("SELECT pg_drop_replication_slot(%s)", [self.slot])
        ask.run(f"DROP PUBLICATION IF EXISTS {self.slot}")
        for label, identity in undo.items():
            if (table := self._tables.get(label)) is not None:
                with_lock_timeout(ask, table, [f"ALTER TABLE {table.sql} REPLICA IDENTITY {identity}"])

    def is_installed(self) -> bool:
        """Whether slot and publication are there, with every table, and every table has its identity."""
        published = self._connection.rows(
            "SELECT count(*) FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid "
            "WHERE pubname = %s AND prrelid = ANY(%s::regclass[])",
            [self.slot, [each.sql for each in self._tables.values()]],
        )[0][0]
        return (
            self._has_slot()
            and published == len(self._tables)
            and all(each == "FULL" for each in self._identities().values())
        )

    def snapshot(self, connection: Connection) -> Snapshot:
        """Return PostgreSQL's own snapshot of the transaction."""
        return snapshot_of(connection)

    def point(self, connection: Connection) -> str:
        """Return up to where the server has written its log: what is committed is before that."""
        point, block = connection.rows(
            "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END "
            "- '0/0'::pg_lsn)::bigint, current_setting('wal_block_size')::int"
        )[0]
        if point % block in WAL_HEADERS_BYTES:  # the place of the next record, which may not be written for long
            point -= point % block
        return lsn_text(point)

    def waits(self, snapshot: Snapshot, point: str) -> bool:
        """Whether the slot was not advanced up to the point yet."""
        del snapshot
        self._refuse_lost()
        return bool(
            self._connection.rows(
                "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND confirmed_flush_lsn < %s::pg_lsn",
                [self.slot, point],
            )
        )

    def changes(self, limit: int) -> list[Transaction]:
        """Return the next transactions: the last one is complete, however many changes it has."""
        self._refuse_lost()
        flushed, near = self._connection.rows(
            "SELECT pg_current_wal_flush_lsn()::text, pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        )[0]
        rows = self._connection.rows(
            "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, %s, 'proto_version', '1', "
            "'publication_names', %s, 'messages', 'true')",
            [self.slot, limit, self.slot],
        )
        found = self._decoder.transactions((bytes(row[0]) for row in rows), near)
        if not rows and time.monotonic() - self._advanced > IDLE_S:
            self._advance(flushed)  # every commit up to there was looked at just now
        return found

    def acknowledge(self, transactions: Sequence[Transaction]) -> None:
        """Advance the slot behind the last of these."""
        if transactions:
            self._advance(transactions[-1].point)

    def backlog(self) -> Backlog:
        """Return the bytes of write-ahead log that the slot makes the server keep, and what the server permits."""
        found = self._connection.rows(
            "SELECT coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint, "
            "(SELECT CASE WHEN setting::bigint < 0 THEN NULL ELSE setting::bigint * 1048576 END "
            "FROM pg_settings WHERE name = 'max_slot_wal_keep_size') "
            "FROM pg_replication_slots WHERE slot_name = %s",
            [self.slot],
        )
        return Backlog(0, found[0][0], found[0][1]) if found else Backlog()

    @property
    def unrecorded(self) -> tuple[Sequence[str], Sequence[str]]:
        """A message in the server's log, which belongs to the transaction: the decoder leaves its changes out."""
        return (f"SELECT pg_logical_emit_message(true, '{self.slot}', '')",), ()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _advance(self, point: str) -> None:
        self._connection.rows("SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", [self.slot, point])
        self._advanced = time.monotonic()

    def _has_slot(self) -> bool:
        return bool(self._connection.rows("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", [self.slot]))

    def _identities(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for label, table in self._tables.items():
            identity, index = self._connection.rows(
                "SELECT relreplident, (SELECT quote_ident(relname) FROM pg_index JOIN pg_class i ON i.oid = indexrelid "
                "WHERE indrelid = c.oid AND indisreplident) FROM pg_class c WHERE oid = %s::regclass",
                [table.sql],
            )[0]
            code = identity.decode() if isinstance(identity, bytes) else identity
            found[label] = IDENTITIES.get(code) or f"USING INDEX {index}"
        return found

    def _refuse_lost(self) -> None:
        found = self._connection.rows("SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s", [self.slot])
        if not found or found[0][0] == "lost":
            what = (
                "is not there any more" if not found else "was given up by the server, which kept too much log for it"
            )
            raise SourceUnavailable(
                f"The replication slot {self.slot} {what}, so changes are missed.",
                "Run `eventfold migrate capture --remove` and `--install`, then `load --reread` with all tables.",
                slot=self.slot,
            )
