"""Schemas of older layouts are refused when opened, and upgraded by one command without changing an event."""

from __future__ import annotations

import threading
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from eventfold.core.envelope import NewEvent
from eventfold.core.query import Query
from eventfold.engines.postgres import layouts
from eventfold.engines.postgres import schema as store_schema
from eventfold.engines.postgres.roles import roles_sql
from eventfold.errors import EventfoldError, NotSupported, StoreBusy, StoreDamaged, StoreVersionMismatch
from eventfold.ports.inline import InlineRegistration
from eventfold.ports.messages import Span
from eventfold.ports.services import UpgradeResult
from tests.cli.commands import run as eventfold
from tests.engines.postgres.conftest import Open, opening, schema, server, url  # noqa: F401 (fixtures)
from tests.engines.postgres.given import Opened, event, request, soon, sql
from tests.engines.postgres.test_flips import checked
from tests.layouts.kept import LAYOUTS, as_described, described, postgres_store

ROWS = "SELECT * FROM {s}.event ORDER BY position"
SLEEPING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
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
def kept(request: pytest.FixtureRequest) -> int | str:
    """The name of a stored example."""
    return request.param


@pytest.fixture
def layout(kept: int | str) -> int:
    """The number of its layout."""
    return int(str(kept)[0])


@pytest.fixture
def old(kept: int | str, url: str, schema: str) -> str:  # noqa: F811
    """The name of a schema with a store of an older layout."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(postgres_store(kept, schema).encode())
    return schema


@pytest.fixture
def events(kept: int | str) -> list[dict[str, Any]]:
    """The events of that store, as the older version read them."""
    return described("postgres", kept)[1]


def upgraded(url: str, schema: str) -> UpgradeResult:  # noqa: F811
    """Upgrade a store whose backup exists."""
    return Opened(url, schema=schema).upgrade(copies=False)


def test_opening_is_refused_and_names_the_command(url: str, old: str) -> None:  # noqa: F811
    """The error has the address, without its password."""
    with pytest.raises(StoreVersionMismatch) as refused:
        Opened(url, schema=old).open()
    assert "eventfold upgrade " in refused.value.remedy and f"schema={old}" in refused.value.remedy
    assert "not-a-secret" not in str(refused.value)


def test_every_event_reads_and_verifies_as_before(
    url: str,  # noqa: F811
    old: str,
    kept: int | str,
    layout: int,
    opening: Open,  # noqa: F811
) -> None:
    """The rows keep their bytes and checksums, and the store its id, its epoch, its keys and registrations."""
    identity, events = described("postgres", kept)
    before = sql(url, ROWS.format(s=old))
    done = upgraded(url, old)
    assert (done.had, done.now) == (layout, store_schema.LAYOUT)
    assert sql(url, ROWS.format(s=old)) == before
    engine = opening()
    assert engine.store_id == identity["store"]
    assert [as_described(each) for each in engine.read(Query(), Span()).events] == events
    assert engine.replication.keys() == [("open a-1", 1), ("transfer t-1", 3)]
    assert engine.receipt_of("transfer t-1").last == 5
    enrolled = [InlineRegistration("balance", "c0de", ("Archived", "Restored"), "t1")]
    assert engine.inline.registrations() == ([] if kept == "1a" else enrolled)
    assert (engine.snapshots.get("app.Account [1]") is None) == (layout == 1)
    assert checked(engine) == []


def test_an_upgraded_store_takes_appends(url: str, old: str, events: list[dict[str, Any]], opening: Open) -> None:  # noqa: F811
    """They are written after the last event; a repeat of an old append is recognised, by its ids and by its key."""
    upgraded(url, old)
    engine = opening()
    assert engine.append(event("Deposited", "account:a-1")).first == len(events) + 1
    first = events[0]
    again = NewEvent(bytes.fromhex(first["id"]), "Opened", 1, bytes.fromhex(first["data"]), ("account:a-1",))
    outcomes = engine.append_many([request(again)]), engine.append_many([request(event(), key="transfer t-1")])
    assert [(each.repeated, each.first) for (each,) in outcomes] == [(True, 1), (True, 3)]
    assert len(engine.everything()) == len(events) + 1
    assert checked(engine) == []


def test_an_upgraded_schema_is_defined_like_a_new_one(url: str, old: str) -> None:  # noqa: F811
    """Every column, index, constraint, trigger and function is the same: the next upgrade finds what it expects."""
    upgraded(url, old)
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


def test_a_process_of_the_older_layout_cannot_write_afterwards(
    url: str,  # noqa: F811
    old: str,
    layout: int,
    events: list[dict[str, Any]],
) -> None:
    """Statements as it sends them fail, prepared ones too: there is no such function, or it refuses the layout."""
    given = "" if layout == 1 else f"layout => {layout}, "
    arguments = (
        "ids => ARRAY[gen_random_uuid()], types => ARRAY['Opened'], datas => ARRAY['{}'::bytea],"
        " tags => ARRAY[''], crcs => ARRAY[0]"
    ).replace("{}", "{{}}")
    append = "SELECT * FROM {s}.append(" + given + arguments + ")"
    statements = (
        append,
        "SELECT epoch FROM {s}.stage(" + given + "store => 'x', " + arguments + ")",
        "SELECT {s}.succeed(" + given.replace(" => ", " := ") + "store_id := '0', store_epoch := 2)",
    )
    expected = psycopg.errors.UndefinedFunction if layout == 1 else psycopg.Error
    message = "does not exist" if layout == 1 else f"has layout {store_schema.LAYOUT}, and this process writes {layout}"
    with psycopg.connect(url, autocommit=True) as living:
        living.execute("BEGIN")
        living.execute(append.format(s=old).encode(), prepare=True)
        living.execute("ROLLBACK")
        living.execute("SELECT 1")  # its last statement does not name the schema: it is not known to use the store
        upgraded(url, old)
        for statement in statements:
            with pytest.raises(expected, match=message):
                living.execute(statement.format(s=old).encode(), prepare=True)
        other = f"SELECT * FROM {old}.append(layout => 1, {arguments})".replace("{{}}", "{}")
        with pytest.raises(psycopg.Error, match="has layout 3, and this process writes 1") as refused:
            living.execute(other.encode())
        assert refused.value.sqlstate == "EF020"
    assert sql(url, f"SELECT max(position) FROM {old}.event") == [(len(events),)]


def test_an_upgrade_is_refused_while_a_process_of_the_older_layout_is_connected(
    url: str,  # noqa: F811
    old: str,
    layout: int,
) -> None:
    """Its idle session is recognised by its last statement, and named by its number."""
    with psycopg.connect(url, autocommit=True) as living:
        living.execute(f'SELECT * FROM "{old}".attach()'.encode())
        pid = living.info.backend_pid
        with pytest.raises(StoreBusy) as refused:
            upgraded(url, old)
        assert refused.value.fields["sessions"] == [pid]
        assert str(pid) in refused.value.what
    assert sql(url, f"SELECT layout FROM {old}.store") == [(layout,)]
    assert soon(lambda: not sql(url, f"SELECT FROM pg_stat_activity WHERE pid = {pid}"))
    assert upgraded(url, old).had == layout


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_upgrade_is_refused_while_a_process_of_this_layout_is_connected(
    url: str,  # noqa: F811
    schema: str,  # noqa: F811
    opening: Open,  # noqa: F811
    mode: str,
) -> None:
    """Its sessions share a lock as long as they are open, whatever their last statement was."""
    engine = opening(mode=mode)
    engine.append(event())
    sql(url, f"UPDATE {schema}.store SET layout = 2")
    with pytest.raises(StoreBusy, match="in use by other sessions"):
        upgraded(url, schema)
    engine.close()
    assert soon(lambda: not sql(url, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'"))
    assert upgraded(url, schema).had == 2


def test_a_process_that_opens_the_store_meanwhile_waits_for_the_upgrade(
    url: str,  # noqa: F811
    old: str,
    opening: Open,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It then finds the new layout."""
    added_to_a_step(monkeypatch, "SELECT pg_sleep(1)")
    upgrade = threading.Thread(target=upgraded, args=(url, old))
    upgrade.start()
    assert soon(lambda: sql(url, SLEEPING))
    engine = opening()
    upgrade.join(60)
    assert engine.stats()["layout"] == store_schema.LAYOUT


def test_an_interrupted_upgrade_changes_nothing_and_is_run_again(
    url: str,  # noqa: F811
    old: str,
    layout: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its session is ended by the server in the middle of a step."""
    before = sql(url, DEFINITIONS.format(s=old))
    met: list[BaseException] = []
    with monkeypatch.context() as patch:
        added_to_a_step(patch, "SELECT pg_sleep(60)")

        def upgrade() -> None:
            try:
                upgraded(url, old)
            except EventfoldError as error:
                met.append(error)

        running = threading.Thread(target=upgrade)
        running.start()
        assert soon(lambda: sql(url, SLEEPING))
        sql(url, f"SELECT pg_terminate_backend(pid) FROM ({SLEEPING}) x")
        running.join(60)
    assert [error.code for error in met if isinstance(error, EventfoldError)] == ["store-unavailable"]
    assert sql(url, DEFINITIONS.format(s=old)) == before
    assert upgraded(url, old).had == layout


def test_an_upgrade_that_changes_an_event_is_rolled_back(
    url: str,  # noqa: F811
    old: str,
    layout: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rows of the log are compared before the commit, all of their columns."""
    before = sql(url, ROWS.format(s=old))
    added_to_a_step(monkeypatch, f"UPDATE {old}.event SET data = '1' WHERE position = 2")
    with pytest.raises(StoreDamaged):
        upgraded(url, old)
    assert sql(url, ROWS.format(s=old)) == before
    assert sql(url, f"SELECT layout FROM {old}.store") == [(layout,)]


def test_a_store_whose_events_have_no_checksums_is_refused(url: str, schema: str) -> None:  # noqa: F811
    """Two versions of layout 1's first day wrote such stores; nothing is changed."""
    sql(url, postgres_store("1a", schema))
    sql(url, f"ALTER TABLE {schema}.event DROP COLUMN crc")
    with pytest.raises(StoreVersionMismatch, match="no checksums"):
        upgraded(url, schema)
    assert sql(url, f"SELECT layout FROM {schema}.store") == [(1,)]


def added_to_a_step(monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """Add a statement to the last step of an upgrade."""
    whole = store_schema.load_sql
    monkeypatch.setattr(
        layouts,
        "load_sql",
        lambda name, *more: whole(name, *more) + (f"; {statement}" if name == layouts.STEPS[2] else ""),
    )


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
    upgraded(url, old)
    roles: dict[str, set[str]] = {}
    for grantee, name in sql(url, granted.format(s=old)):
        roles.setdefault(grantee, set()).add(name)
    assert roles[writer] == {"append", "stage", "staged_events", "attach", "position_at"}
    assert roles[reader] == {"attach", "position_at"}
    sql(url, roles_sql(old, writer, reader))


def test_a_failing_upgrade_changes_nothing(url: str, old: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The upgrade is one transaction."""
    had = sql(url, f"SELECT layout FROM {old}.store")
    before = sql(url, DEFINITIONS.format(s=old))
    whole = store_schema.load_sql

    def failing(name: str, *more: Any) -> str:
        return whole(name, *more) + ("; SELECT 1 / 0" if name == "adopt.sql" else "")

    monkeypatch.setattr(layouts, "load_sql", failing)
    with pytest.raises(EventfoldError):
        upgraded(url, old)
    assert sql(url, f"SELECT layout FROM {old}.store") == had
    assert sql(url, DEFINITIONS.format(s=old)) == before


def test_a_store_of_the_newest_layout_is_left_as_it_is(url: str, old: str, opening: Open) -> None:  # noqa: F811
    """This also holds while it is in use; a layout without an upgrade step is refused."""
    upgraded(url, old)
    opening()
    before = sql(url, "SELECT oid FROM pg_proc ORDER BY oid")
    again = upgraded(url, old)
    assert (again.had, again.now) == (store_schema.LAYOUT, store_schema.LAYOUT)
    assert sql(url, "SELECT oid FROM pg_proc ORDER BY oid") == before
    sql(url, f"UPDATE {old}.store SET layout = 0")
    with pytest.raises(StoreVersionMismatch):
        upgraded(url, old)


def test_the_command_demands_a_backup_and_says_what_it_did(url: str, old: str, layout: int) -> None:  # noqa: F811
    """It cannot make a copy in a file here: `--no-backup` says that there is one. The newest layout needs none."""
    address = f"{url}?schema={old}"
    for flags in (["--backup", "copy.db"], []):
        refused = eventfold("upgrade", address, *flags)
        assert refused.code and "pg_dump" in refused.err and "--no-backup" in refused.err
    assert sql(url, f"SELECT layout FROM {old}.store") == [(layout,)]
    done, again = eventfold("upgrade", address, "--no-backup", "--table"), eventfold("upgrade", address, "--table")
    assert (done.code, again.code) == (0, 0)
    assert f"was upgraded from layout {layout} to {store_schema.LAYOUT}" in " ".join(done.out.split())
    assert "Nothing was changed" in " ".join(again.out.split())
    with pytest.raises(NotSupported):
        Opened(url, schema=old).upgrade("copy.db")
