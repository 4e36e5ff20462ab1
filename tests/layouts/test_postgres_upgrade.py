"""Schemas of older layouts are refused when opened, and upgraded by one command without changing an event."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest

from eventfold.core.envelope import NewEvent
from eventfold.core.query import Query
from eventfold.engines.postgres import layouts
from eventfold.engines.postgres import schema as store_schema
from eventfold.engines.postgres.roles import roles_sql
from eventfold.errors import EventfoldError, NotSupported, StoreVersionMismatch
from eventfold.ports.inline import InlineRegistration
from eventfold.ports.messages import Span
from tests.cli.commands import run as eventfold
from tests.engines.postgres.conftest import Open, opening, schema, server, url  # noqa: F401 (fixtures)
from tests.engines.postgres.given import Opened, event, request, sql
from tests.engines.postgres.test_flips import checked
from tests.layouts.kept import LAYOUTS, as_described, described, postgres_store

IDENTITY, EVENTS = described("postgres", 1)
ROWS = (
    'SELECT position, time, occurred, version, "offset", size, id, type, codec, tags, key, data, metadata, e.*'
    " FROM {s}.event e ORDER BY position"
)
# Every definition of a layout, without the schema's name.
DEFINITIONS = (
    "SELECT 'column', c.relname, a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull ||"
    " coalesce(pg_get_expr(d.adbin, d.adrelid), '') FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
    " LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
    " WHERE c.relnamespace = '{s}'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped"
    " UNION SELECT 'index', indexname, replace(indexdef, '{s}.', '') FROM pg_indexes WHERE schemaname = '{s}'"
    " UNION SELECT 'constraint', conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = '{s}'::regnamespace"
    " UNION SELECT 'trigger', tgname || ' on ' || c.relname,"
    " replace(pg_get_triggerdef(t.oid), '{s}.', '') || tgenabled::text"
    " FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = '{s}'::regnamespace"
    " UNION SELECT 'function', proname || pg_get_function_identity_arguments(oid),"
    " replace(pg_get_functiondef(oid), '{s}.', '') FROM pg_proc"
    " WHERE pronamespace = '{s}'::regnamespace ORDER BY 1, 2, 3"
)


@pytest.fixture(params=LAYOUTS["postgres"])
def old(request: pytest.FixtureRequest, url: str, schema: str) -> str:  # noqa: F811
    """The name of a schema with a store of an older layout."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(postgres_store(request.param, schema).encode())
    return schema


def test_opening_is_refused_and_names_the_command(url: str, old: str) -> None:  # noqa: F811
    """The error has the address, without its password."""
    with pytest.raises(StoreVersionMismatch) as refused:
        Opened(url, schema=old).open()
    assert "eventfold upgrade " in refused.value.remedy and f"schema={old}" in refused.value.remedy
    assert "not-a-secret" not in str(refused.value)


def test_every_event_reads_and_verifies_as_before(url: str, old: str, opening: Open) -> None:  # noqa: F811
    """The rows keep their bytes and checksums, and the store its id, its epoch, its keys and registrations."""
    before = [row[:13] for row in sql(url, ROWS.format(s=old))]
    sums = sql(url, f"SELECT crc FROM {old}.event ORDER BY position")
    done = Opened(url, schema=old).upgrade()
    assert (done.had, done.now) == (1, store_schema.LAYOUT)
    assert [row[:13] for row in sql(url, ROWS.format(s=old))] == before
    assert sql(url, f"SELECT checksum FROM {old}.event ORDER BY position") == sums
    engine = opening()
    assert engine.store_id == IDENTITY["store"]
    assert [as_described(each) for each in engine.read(Query(), Span()).events] == EVENTS
    assert engine.replication.keys() == [("open a-1", 1), ("transfer t-1", 3)]
    assert engine.receipt_of("transfer t-1").last == 5
    assert engine.inline.registrations() == [InlineRegistration("balance", "c0de", ("Archived", "Restored"), "t1")]
    assert engine.snapshots.get("app.Account [1]") is None


def test_an_upgraded_store_takes_appends(url: str, old: str, opening: Open) -> None:  # noqa: F811
    """They are written after the last event; a repeat of an old append is recognised, by its ids and by its key."""
    Opened(url, schema=old).upgrade()
    engine = opening()
    assert engine.append(event("Deposited", "account:a-1")).first == len(EVENTS) + 1
    first = EVENTS[0]
    again = NewEvent(bytes.fromhex(first["id"]), "Opened", 1, bytes.fromhex(first["data"]), ("account:a-1",))
    outcomes = engine.append_many([request(again)]), engine.append_many([request(event(), key="transfer t-1")])
    assert [(each.repeated, each.first) for (each,) in outcomes] == [(True, 1), (True, 3)]
    assert len(engine.everything()) == len(EVENTS) + 1
    assert checked(engine) == []


def test_an_upgraded_schema_is_defined_like_a_new_one(url: str, old: str) -> None:  # noqa: F811
    """Every column, index, constraint, trigger and function is the same: the next upgrade finds what it expects."""
    Opened(url, schema=old).upgrade()
    new = f"t{uuid4().hex}"
    fresh = Opened(url, schema=new)
    fresh.open()
    fresh.end()
    defined = [
        [tuple(str(part).replace(store, "…") for part in row) for row in sql(url, DEFINITIONS.format(s=store))]
        for store in (old, new)
    ]
    names = [[row[:2] for row in each] for each in defined]
    assert names[0] == names[1]
    assert [row for row in defined[0] if row[0] != "function"] == [row for row in defined[1] if row[0] != "function"]


def test_a_process_of_the_older_layout_cannot_write_afterwards(url: str, old: str) -> None:  # noqa: F811
    """Statements as eventfold of layout 1 sends them fail: the functions they call do not exist any more."""
    arguments = (
        "ids => ARRAY[gen_random_uuid()], types => ARRAY['Opened'], datas => ARRAY['{}'::bytea],"
        " tags => ARRAY[''], crcs => ARRAY[0]"
    ).replace("{}", "{{}}")
    statements = (
        "SELECT * FROM {s}.append(" + arguments + ")",
        "SELECT epoch FROM {s}.stage(store => '" + IDENTITY["store"] + "', " + arguments + ")",
        f"SELECT {{s}}.succeed('{'0' * 32}', 2)",
    )
    with psycopg.connect(url, autocommit=True) as living:
        living.execute(f"BEGIN; {statements[0].format(s=old)}; ROLLBACK".encode())
        Opened(url, schema=old).upgrade()
        for statement in statements:
            with pytest.raises(psycopg.errors.UndefinedFunction):
                living.execute(statement.format(s=old).encode())
        other = statements[0].format(s=old).replace("append(", "append(layout => 1, ")
        with pytest.raises(psycopg.Error, match="has layout 2, and this process writes 1") as refused:
            living.execute(other.encode())
        assert refused.value.sqlstate == "EF020"
    assert sql(url, f"SELECT max(position) FROM {old}.event") == [(len(EVENTS),)]


def test_roles_keep_their_rights(url: str, old: str, opening: Open) -> None:  # noqa: F811
    """A writer that was granted the functions of the older layout is granted their successors."""
    writer, reader = f"w{uuid4().hex[:8]}", f"r{uuid4().hex[:8]}"
    granted = "SELECT grantee, routine_name FROM information_schema.routine_privileges WHERE routine_schema = '{s}'"
    signatures = sql(url, f"SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = '{old}'::regnamespace")
    sql(url, f"CREATE ROLE {writer}", f"CREATE ROLE {reader}")
    for (signature,) in signatures:
        if any(f".{name}(" in signature for name in ("append", "stage", "attach", "position_at")):
            sql(url, f"GRANT EXECUTE ON FUNCTION {signature} TO {writer}")
        if any(f".{name}(" in signature for name in ("attach", "position_at")):
            sql(url, f"GRANT EXECUTE ON FUNCTION {signature} TO {reader}")
    Opened(url, schema=old).upgrade()
    roles: dict[str, set[str]] = {}
    for grantee, name in sql(url, granted.format(s=old)):
        roles.setdefault(grantee, set()).add(name)
    assert roles[writer] == {"append", "stage", "staged_events", "attach", "position_at"}
    assert roles[reader] == {"attach", "position_at"}
    sql(url, roles_sql(old, writer, reader))


def test_a_failing_upgrade_changes_nothing(url: str, old: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The upgrade is one transaction."""
    before = sql(url, DEFINITIONS.format(s=old))
    whole = store_schema.load_sql

    def failing(name: str, *more: Any) -> str:
        return whole(name, *more) + ("; SELECT 1 / 0" if name == "adopt.sql" else "")

    monkeypatch.setattr(layouts, "load_sql", failing)
    with pytest.raises(EventfoldError):
        Opened(url, schema=old).upgrade()
    assert sql(url, f"SELECT layout FROM {old}.store") == [(1,)]
    assert sql(url, DEFINITIONS.format(s=old)) == before


def test_a_store_of_the_newest_layout_is_left_as_it_is(url: str, old: str, opening: Open) -> None:  # noqa: F811
    """This also holds while it is in use; a layout without an upgrade step is refused."""
    Opened(url, schema=old).upgrade()
    opening()
    before = sql(url, "SELECT oid FROM pg_proc ORDER BY oid")
    again = Opened(url, schema=old).upgrade()
    assert (again.had, again.now) == (store_schema.LAYOUT, store_schema.LAYOUT)
    assert sql(url, "SELECT oid FROM pg_proc ORDER BY oid") == before
    sql(url, f"UPDATE {old}.store SET layout = 0")
    with pytest.raises(StoreVersionMismatch):
        Opened(url, schema=old).upgrade()


def test_the_command_says_what_it_did(url: str, old: str) -> None:  # noqa: F811
    """It cannot make a copy in a file here."""
    address = f"{url}?schema={old}"
    assert "pg_dump" in eventfold("upgrade", address, "--backup", "copy.db").err
    done, again = eventfold("upgrade", address, "--table"), eventfold("upgrade", address, "--table")
    assert (done.code, again.code) == (0, 0)
    assert "was upgraded from layout 1 to 2" in " ".join(done.out.split())
    assert "Nothing was changed" in " ".join(again.out.split())
    with pytest.raises(NotSupported):
        Opened(url, schema=old).upgrade("copy.db")
