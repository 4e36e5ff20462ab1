"""The block of writers on PostgreSQL: triggers that fire ALWAYS, and a record of refusals that no rollback undoes.

A refused statement's transaction is rolled back, and rows written by its triggers with it. Sequences are not: what
`setval` writes stays. So a refusal is written into the sequences of one place of a ring: its number, its moment, and
the bytes of its origin, eight in each sequence. It is a line in the server's log as well. The trigger lets those pass
who set `eventfold.writer` in their transaction: a guard against writers that were forgotten, not against intent.
Knows: SQL of PostgreSQL. Does not know: events, when writers are blocked.
"""

from __future__ import annotations

from collections.abc import Sequence

from eventfold.migrate.blocks.block import ADVICE, Refusal, Refusals
from eventfold.migrate.connection import Connection
from eventfold.migrate.reflection import Table
from eventfold.migrate.sources.postgres_triggers import not_owned, with_lock_timeout
from eventfold.migrate.sources.source import refuse_missing

TRIGGER, TRUNCATE_TRIGGER = "eventfold_block", "eventfold_block_truncate"
PLACES = 16  # refusals that are kept with their origin between two looks
PARTS = 24  # sequences of 8 bytes for the origin of one
FIRST_PART = 2  # after its number and its moment
OPERATIONS = {"I": "INSERT", "U": "UPDATE", "D": "DELETE", "T": "TRUNCATE"}


class PostgresBlock:
    """The block of one migration. `connection` may write."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection, self._name, self._schema = connection, name, f"eventfold_{name}_block"

    def refuse(self, tables: Sequence[Table]) -> None:
        """Raise SourceUnavailable if rights are missing: to own the tables, and to create a schema."""
        role, may_create = self._connection.rows(
            "SELECT current_user, has_database_privilege(current_database(), 'CREATE')"
        )[0]
        missing = [] if may_create or self._has_schema() else ["create a schema in this database"]
        owned = not_owned(self._connection, {each.label: each for each in tables})
        missing += [f"create triggers on {label}, which it does not own" for label in owned]
        refuse_missing(missing, role, f"GRANT CREATE ON DATABASE … TO {role}, and use the role that owns the tables.")

    def install(self, tables: Sequence[Table]) -> None:
        """Create the schema with its sequences and the function, then the triggers of each table that has none."""
        ask = self._connection
        if not self._has_schema():
            ask.begin()
            for statement in self._statements():
                ask.run(statement)
            ask.commit()
        for label in self.gaps(tables):
            self._install_on(next(each for each in tables if each.label == label))

    def remove(self, tables: Sequence[Table]) -> None:
        """Drop the triggers, and the schema after the last ones."""
        for table in tables:
            drops = [f"DROP TRIGGER IF EXISTS {each} ON {table.sql}" for each in (TRIGGER, TRUNCATE_TRIGGER)]
            with_lock_timeout(self._connection, table, drops)
        left = (
            "SELECT 1 FROM pg_trigger JOIN pg_proc p ON p.oid = tgfoid JOIN pg_namespace n ON n.oid = pronamespace "
            "WHERE nspname = %s LIMIT 1"
        )
        if not self._connection.rows(left, [self._schema]):
            self._connection.run(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE")

    def gaps(self, tables: Sequence[Table]) -> list[str]:
        """Return the tables that do not have both triggers, firing ALWAYS."""
        found = dict(
            self._connection.rows(
                "SELECT n, count(*) FROM unnest(%s::text[]) AS n JOIN pg_trigger ON tgrelid = to_regclass(n) "
                f"WHERE tgname IN ('{TRIGGER}', '{TRUNCATE_TRIGGER}') AND tgenabled = 'A' GROUP BY n",
                [[each.sql for each in tables]],
            )
        )
        return [each.label for each in tables if found.get(each.sql) != 2]

    def refusals(self, after: int) -> Refusals:
        """Return the refusals whose place in the ring was not taken by later ones."""
        if not self._has_schema():
            return Refusals(last=0)
        numbers = self._numbers()
        content = self._sequences("")
        same = {name: value for name, value in self._numbers().items() if numbers.get(name) == value}
        last = content.get("counter", 0)
        start = after if after <= last else 0  # the schema was made again meanwhile
        found: list[Refusal] = []
        for name, number in same.items():
            if number > start and content.get(name) == number:
                found.append(self._parsed(number, name.removesuffix("_0"), content))
        found.sort(key=lambda each: each.number)
        return Refusals(tuple(found), last, last - start - len(found))

    @property
    def permitted(self) -> tuple[Sequence[str], Sequence[str]]:
        """The setting of a transaction by which the triggers know ours."""
        return (f"SET LOCAL eventfold.writer = '{self._name}'",), ()

    def _parsed(self, number: int, place: str, content: dict[str, int]) -> Refusal:
        parts = [content.get(f"{place}_{part}", 0) for part in range(FIRST_PART, FIRST_PART + PARTS)]
        text = b"".join(each.to_bytes(8, "big", signed=True) for each in parts).rstrip(b"\0").decode("utf-8", "replace")
        operation, table, process, user, address, application = (text.split("\x1f") + [""] * 6)[:6]
        label = self._connection.rows(
            "SELECT CASE WHEN n.nspname = current_schema() THEN c.relname ELSE n.nspname || '.' || c.relname END "
            "FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE c.oid = coalesce(pg_partition_root(%s::oid), %s::oid)",
            [table, table],
        )
        return Refusal(
            number,
            label[0][0] if label else table,
            OPERATIONS.get(operation, operation),
            content.get(f"{place}_1", 0),
            application,
            user,
            address,
            process,
        )

    def _numbers(self) -> dict[str, int]:
        return self._sequences("AND sequencename LIKE 'r%%\\_0'")

    def _sequences(self, which: str) -> dict[str, int]:
        rows = self._connection.rows(
            f"SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = %s {which} "  # noqa: S608
            "AND last_value IS NOT NULL",
            [self._schema],
        )
        return {str(name): int(value) for name, value in rows}

    def _has_schema(self) -> bool:
        return bool(self._connection.rows("SELECT 1 FROM pg_namespace WHERE nspname = %s", [self._schema]))

    def _statements(self) -> list[str]:
        schema, last = self._schema, FIRST_PART + PARTS - 1
        return [
            f"CREATE SCHEMA {schema}",
            f"CREATE SEQUENCE {schema}.counter",
            f"DO $do$ BEGIN FOR place IN 0..{PLACES - 1} LOOP FOR part IN 0..{last} LOOP EXECUTE format("
            f"'CREATE SEQUENCE {schema}.r%%s_%%s MINVALUE -9223372036854775808 START 0', place, part); "
            "END LOOP; END LOOP; END $do$",
            _function(schema, self._name).replace("%", "%%"),
        ]

    def _install_on(self, table: Table) -> None:
        call = f"EXECUTE FUNCTION {self._schema}.refuse()"
        both = (TRIGGER, TRUNCATE_TRIGGER)
        partitions = self._connection.rows(
            "SELECT relid::regclass::text FROM pg_partition_tree(%s::regclass) WHERE level > 0", [table.sql]
        )
        with_lock_timeout(
            self._connection,
            table,
            [
                *(f"DROP TRIGGER IF EXISTS {each} ON {table.sql}" for each in both),
                f"CREATE TRIGGER {TRIGGER} BEFORE INSERT OR UPDATE OR DELETE ON {table.sql} FOR EACH ROW {call}",
                f"CREATE TRIGGER {TRUNCATE_TRIGGER} BEFORE TRUNCATE ON {table.sql} FOR EACH STATEMENT {call}",
                *(f"ALTER TABLE {table.sql} ENABLE ALWAYS TRIGGER {each}" for each in both),
                *(f"ALTER TABLE {name} ENABLE ALWAYS TRIGGER {TRIGGER}" for (name,) in partitions),
            ],
        )


def _function(schema: str, name: str) -> str:
    return f"""
CREATE OR REPLACE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $refuse$
DECLARE
    number bigint; place text; origin bytea;
    application text := current_setting('application_name');
    address text := coalesce(host(inet_client_addr()), 'local');
BEGIN
    IF current_setting('eventfold.writer', true) = '{name}' THEN
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD WHEN 'TRUNCATE' THEN NULL ELSE NEW END;
    END IF;
    number := nextval('{schema}.counter');
    place := '{schema}.r' || (number % {PLACES}) || '_';
    origin := convert_to(concat_ws(chr(31), left(TG_OP, 1), TG_RELID, pg_backend_pid(), session_user, address,
        application), 'UTF8') || decode(repeat('00', {PARTS * 8}), 'hex');
    PERFORM setval((place || 0)::regclass, 0);
    PERFORM setval((place || 1)::regclass, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
    FOR part IN 0..{PARTS - 1} LOOP
        PERFORM setval((place || (part + {FIRST_PART}))::regclass,
            ('x' || encode(substr(origin, part * 8 + 1, 8), 'hex'))::bit(64)::bigint);
    END LOOP;
    PERFORM setval((place || 0)::regclass, number);
    RAISE LOG 'eventfold refused a writer: % on %.%, application_name=%, user=%, address=%, pid=%', TG_OP,
        TG_TABLE_SCHEMA, TG_TABLE_NAME, application, session_user, address, pg_backend_pid();
    RAISE EXCEPTION USING ERRCODE = 'read_only_sql_transaction',
        MESSAGE = format('%s is written by events since its cutover: this %s is refused', TG_TABLE_NAME, TG_OP),
        HINT = '{ADVICE[0].upper() + ADVICE[1:]}.';
END
$refuse$"""
