"""Capture: each recorded change becomes its event once; what was missed is an alarm, and never merged."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventfold.errors import CaptureStopped, InvalidInput, SourceUnavailable
from eventfold.migrate.mapping import Mapping, TableMapping
from eventfold.migrate.progress import TYPES
from eventfold.migrate.session import Session, recorder_of
from eventfold.migrate.sources import source as source_module
from eventfold.migrate.sources.changes import Snapshot
from eventfold.migrate.sources.pgoutput import _full
from eventfold.migrate.sources.postgres_triggers import composite_values
from eventfold.migrate.sources.sqlite_triggers import literal_values
from tests.migrate.shop import WAYS, Shop, assert_equal
from tests.support.memory import tmp_path as tmp_path  # no promise here is about a disk
from tests.support.servers import mariadb

POSTGRES = ("postgresql-triggers", "postgresql-decoding")


def opened(way: str, folder: Path) -> Iterator[tuple[Shop, Session]]:
    """Yield a shop whose rows are loaded and whose changes are recorded."""
    shop = Shop(way, folder)
    shop.fill()
    with shop.session() as session:
        shop.begin(session)
        yield shop, session
    shop.application.close()


@pytest.fixture(params=WAYS)
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Shop, Session]]:
    """A loaded shop, by each way of recording."""
    yield from opened(request.param, tmp_path)


@pytest.fixture(params=POSTGRES)
def on_postgres(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Shop, Session]]:
    """A loaded shop on PostgreSQL, by each way."""
    yield from opened(request.param, tmp_path)


def captured(session: Session) -> list[Any]:
    """Return the events of changes, in order."""
    found = [each for each in session.store.read(raw=True) if each.event.type not in TYPES]
    return [each for each in found if each.metadata["evidence"] == "change"]


def drain(session: Session) -> int:
    """Capture what was recorded, with a new capture as after a restart. Returns how many changes were read."""
    with session.capture() as capture:
        return capture.drain()


def test_changes_become_events_of_their_types(loaded: tuple[Shop, Session]) -> None:
    """A transition, a change, an insert, a delete, another key, and a row that was deleted and inserted again."""
    shop, session = loaded
    shop.run("UPDATE orders SET status = 'paid' WHERE id = 1")
    shop.run("UPDATE orders SET note = 'rang twice', total = 3 WHERE id = 1")
    shop.run("UPDATE orders SET note = 'rang twice' WHERE id = 1")  # changes nothing
    shop.run("INSERT INTO customer VALUES (7, 'Zoë', '')")
    shop.run("DELETE FROM line WHERE order_id = 19")
    shop.run("UPDATE line SET order_id = 1, number = 2 WHERE order_id = 18")
    shop.run("DELETE FROM line WHERE order_id = 17")
    shop.run("INSERT INTO line VALUES (17, 1, 'pear', 4)")
    assert drain(session) in (8, 7)  # MariaDB fires no trigger if nothing changes
    assert_equal(shop, session)
    assert [(each.event.type, each.metadata["op"]) for each in captured(session)] == [
        ("OrderPaid", "change"),
        ("OrderChanged", "change"),
        ("CustomerImported", "open"),
        ("LineRemoved", "remove"),
        ("LineRemoved", "remove"),
        ("LineImported", "open"),
        ("LineRemoved", "remove"),
        ("LineImported", "open"),
    ]
    assert captured(session)[1].event.json() == {"id": 1, "total": "3.00", "note": "rang twice"}
    assert captured(session)[0].occurred is not None
    assert drain(session) == 0
    assert session.state().phase == "capturing"


def test_changes_that_were_appended_and_not_acknowledged_are_not_appended_again(loaded: tuple[Shop, Session]) -> None:
    """As after kill -9 between the append and its acknowledgement: also where a row changed several times."""
    shop, session = loaded
    with session.capture() as capture:
        forgotten: list[Any] = []
        capture._recorder.acknowledge = forgotten.append  # pyright: ignore[reportAttributeAccessIssue]
        for total in (1, 2, 3):
            shop.run("UPDATE orders SET total = ? WHERE id = 1", total)
        shop.run("DELETE FROM line WHERE order_id = 2")
        shop.run("INSERT INTO line VALUES (2, 1, 'plum', 4)")
        assert capture.once() == 5 and forgotten
    before = len(captured(session))
    shop.run("UPDATE orders SET total = 4 WHERE id = 1")
    assert drain(session) == 6
    assert len(captured(session)) == before + 1
    assert_equal(shop, session)


def test_a_change_that_was_missed_is_an_alarm(loaded: tuple[Shop, Session]) -> None:
    """The message has both rows; nothing of it is written, what came before it is."""
    shop, session = loaded
    with session.capture() as capture:
        shop.run("UPDATE orders SET total = 9 WHERE id = 4")
        pass_over(shop, session)
        shop.run("UPDATE customer SET name = 'before' WHERE id = 1")
        shop.run("UPDATE orders SET total = 10 WHERE id = 4")
        shop.run("UPDATE customer SET name = 'after' WHERE id = 1")
        with pytest.raises(CaptureStopped, match=r"orders/4 was missed.*9\.00.*4\.50") as raised:
            capture.drain()
        assert (raised.value.fields["kind"], raised.value.fields["table"]) == ("missed", "orders")
    assert [each.event.type for each in captured(session)] == ["CustomerChanged"]
    with pytest.raises(CaptureStopped, match="was stopped"):
        drain(session)
    session.reread(["orders"], "tried")
    drain(session)
    assert_equal(shop, session)


def pass_over(shop: Shop, session: Session) -> None:
    """Let the recorded changes disappear from the source, as a writer without triggers would."""
    with session.recorder() as recorder:
        found = recorder.changes(100)
        assert found
        recorder.acknowledge(found)


def test_rows_that_were_deleted_without_a_trace_are_found_by_their_keys(loaded: tuple[Shop, Session]) -> None:
    """And those that appeared; keys that change meanwhile are no difference."""
    shop, session = loaded
    with session.capture() as capture:
        shop.run("UPDATE orders SET total = 9 WHERE id = 4")
        assert capture.compare_keys() > 0
        shop.run("DELETE FROM line WHERE order_id = 3")
        shop.run("INSERT INTO customer VALUES (8, 'Eve', NULL)")
        pass_over(shop, session)
        with pytest.raises(CaptureStopped, match=r"keys of (line|customer)") as raised:
            capture.compare_keys()
        assert raised.value.fields["kind"] == "keys"
    session.reread([], "tried")
    drain(session)
    assert_equal(shop, session)


def test_a_column_that_is_added_stops_the_capture_with_both_definitions(loaded: tuple[Shop, Session]) -> None:
    """Nothing of the changes after it is written; a mapping with the column, and reading again, go on."""
    shop, session = loaded
    shop.run("UPDATE orders SET total = 8 WHERE id = 1")
    assert drain(session) == 1
    shop.run("ALTER TABLE orders ADD COLUMN channel varchar(10)")
    shop.run("UPDATE orders SET channel = 'web', total = 9 WHERE id = 1")
    with pytest.raises(
        CaptureStopped, match=r"definition of orders was changed from[^@]*note[^@]*to[^@]*channel"
    ) as one:
        drain(session)
    assert one.value.fields["kind"] == "definition" and len(captured(session)) == 1
    tables = dict(shop.mapping.tables)
    tables["orders"] = msgspec.structs.replace(tables["orders"], keep=(*tables["orders"].keep, "channel"))
    with shop.session(msgspec.structs.replace(shop.mapping, tables=tables)) as again:
        again.reread(["orders"], "a column was added")
        shop.run("UPDATE orders SET channel = 'shop' WHERE id = 2")
        drain(again)
        assert_equal(shop, again)


def test_everything_is_removed_from_the_source(loaded: tuple[Shop, Session]) -> None:
    """Triggers, tables, functions, slot and publication; writers go on, and a new recording demands a new reading."""
    shop, session = loaded
    before = inventory(shop)
    assert before
    session.remove()
    assert not inventory(shop) and session.state().phase == "loaded"
    shop.run("UPDATE orders SET total = 8 WHERE id = 1")
    session.install(shop.way)
    with pytest.raises(InvalidInput, match="not loaded completely since recording began"), session.capture():
        pass
    session.reread([], "recording began again")
    shop.run("UPDATE orders SET total = 9 WHERE id = 1")
    drain(session)
    assert_equal(shop, session)


def inventory(shop: Shop) -> list[Any]:
    """Return what a recorder made in the source."""
    match shop.dialect:
        case "sqlite":
            return shop.application.rows("SELECT name FROM sqlite_schema WHERE name LIKE 'eventfold%'")
        case "postgresql":
            return shop.application.rows(
                "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'eventfold%%' UNION ALL "
                "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'eventfold%%' UNION ALL "
                "SELECT pubname FROM pg_publication UNION ALL SELECT slot_name FROM pg_replication_slots "
                "WHERE database = current_database() UNION ALL "
                "SELECT relname FROM pg_class WHERE relreplident = 'f' AND relkind = 'r'"
            )
        case _:
            return shop.application.rows(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() "
                "AND table_name LIKE 'eventfold%%' UNION ALL SELECT trigger_name FROM information_schema.triggers "
                "WHERE trigger_schema = DATABASE()"
            )


def test_triggers_that_were_dropped_are_noticed(tmp_path: Path) -> None:
    """Each look at the source finds out whether everything is there."""
    for shop, session in opened("postgresql-triggers", tmp_path):
        with session.capture() as capture:
            shop.run("ALTER TABLE orders DISABLE TRIGGER eventfold_record")
            capture._checked = 0.0
            with pytest.raises(CaptureStopped, match="removed or switched off"):
                capture.once()


# PostgreSQL


def test_a_transaction_is_one_append_in_the_order_of_commits(on_postgres: tuple[Shop, Session]) -> None:
    """A transaction that began earlier and commits later comes later, also if it changed a row of the other."""
    shop, session = on_postgres
    early, late = shop.connect(), shop.connect()
    early.begin()
    early.run("UPDATE customer SET name = 'early' WHERE id = 1")
    late.begin()
    late.run("UPDATE orders SET note = 'late' WHERE id = 1")
    late.run("UPDATE orders SET note = 'late' WHERE id = 2")
    late.commit()
    early.run("UPDATE orders SET note = 'early' WHERE id = 1")
    with session.capture() as capture:
        capture.drain()
        assert [each.event.json() for each in captured(session)] == [
            {"id": 1, "note": "late"},
            {"id": 2, "note": "late"},
        ]
        early.commit()
        capture.drain()
    found = captured(session)
    assert [each.stored.size for each in found] == [2, 2, 2, 2] and found[2].stored.first == found[2].position
    assert len({each.metadata["transaction"] for each in found}) == 2
    assert_equal(shop, session)
    early.close()
    late.close()


def test_a_transaction_that_is_open_across_the_load_is_captured(on_postgres: tuple[Shop, Session]) -> None:
    """Its changes are in no snapshot before its commit, whichever of its changes were made before the load."""
    shop, session = on_postgres
    other = shop.connect()
    other.begin()
    other.run("UPDATE orders SET note = 'open' WHERE id = 5")
    session.reread(["orders"], "tried with an open transaction")
    other.run("UPDATE orders SET total = 55 WHERE id = 6")
    shop.run("UPDATE orders SET note = 'after' WHERE id = 7")
    assert drain(session) == 1
    other.commit()
    assert drain(session) == 2
    assert_equal(shop, session)
    other.close()


def test_a_transaction_of_more_than_1000_events_becomes_consecutive_appends(on_postgres: tuple[Shop, Session]) -> None:
    """Each says which part it is of which transaction."""
    shop, session = on_postgres
    shop.run("INSERT INTO customer SELECT n, 'many', NULL FROM generate_series(100, 2599) AS n")
    assert drain(session) == 2_500
    found = captured(session)
    assert [len([each for each in found if each.metadata["part"] == part]) for part in ("1/3", "2/3", "3/3")] == [
        1_000,
        1_000,
        500,
    ]
    assert len({each.metadata["transaction"] for each in found}) == 1
    assert_equal(shop, session)


def test_truncate_and_the_replica_role_are_recorded(on_postgres: tuple[Shop, Session]) -> None:
    """TRUNCATE removes every row, also one that the same transaction inserted; ordinary triggers miss the role."""
    shop, session = on_postgres
    shop.run("SET session_replication_role = replica")
    shop.run("UPDATE orders SET total = 5 WHERE id = 3")
    shop.run("SET session_replication_role = origin")
    shop.application.begin()
    shop.run("INSERT INTO line VALUES (3, 9, 'fig', 1)")
    shop.run("TRUNCATE line")
    shop.run("INSERT INTO line VALUES (3, 1, 'nut', 1)")
    shop.application.commit()
    drain(session)
    assert_equal(shop, session)
    assert len(captured(session)) == 1 + 1 + 21 + 1


def test_values_that_are_stored_apart_are_complete(on_postgres: tuple[Shop, Session]) -> None:
    """An unchanged wide value (TOAST) is not in the message; with REPLICA IDENTITY FULL the row before has it."""
    shop, session = on_postgres
    shop.run("ALTER TABLE orders ALTER COLUMN note SET STORAGE EXTERNAL")
    shop.run("UPDATE orders SET note = repeat('wide ', 4000) WHERE id = 1")
    shop.run("UPDATE orders SET total = 2 WHERE id = 1")
    drain(session)
    assert_equal(shop, session)
    if shop.way == "decoding":
        shop.run("ALTER TABLE orders REPLICA IDENTITY DEFAULT")
        shop.run("UPDATE orders SET total = 3 WHERE id = 1")
        with pytest.raises(CaptureStopped, match=r"stored apart|as it was before|switched off"):
            drain(session)
        session.reread([], "the identity was changed")
        shop.run("UPDATE orders SET total = 4 WHERE id = 1")
        drain(session)
        assert_equal(shop, session)


def test_values_of_every_type_are_equal_by_each_way(loaded: tuple[Shop, Session]) -> None:
    """A row that is captured is the row that a load reads: decimals, wide numbers, times, bytes, padding, emoji."""
    shop, session = loaded
    session.remove()
    columns: dict[str, list[tuple[str, str]]] = {
        "sqlite": [
            ("n", "numeric(10,2)"), ("i", "integer"), ("f", "real"), ("t", "datetime"), ("b", "blob"), ("s", "text"),
        ],
        "postgresql": [
            ("n", "numeric(10,2)"), ("i", "bigint"), ("f", "double precision"), ("t", "timestamptz"), ("b", "bytea"),
            ("s", "text"), ("c", "char(5)"), ("o", "boolean"), ("j", "jsonb"), ("a", "text[]"), ("d", "date"),
            ("u", "uuid"), ("v", "interval"), ("r", "int4range"),
        ],
        "mariadb": [
            ("n", "decimal(10,2)"), ("i", "bigint"), ("f", "double"), ("t", "datetime(6)"), ("b", "varbinary(20)"),
            ("s", "varchar(50)"), ("c", "char(5)"), ("o", "boolean"), ("d", "date"), ("u", "bigint unsigned"),
        ],
    }  # fmt: skip
    rows: dict[str, list[str]] = {
        "sqlite": ["1.50, 9007199254740993, 0.1, '2024-01-01 00:00:00.000001', x'00ff27', 'it''s \U0001f600'"],
        "postgresql": [
            "1.50, 9007199254740993, 'NaN', '2024-01-01 12:00:00.000001+02', '\\x00ff27', "
            "E'it''s \U0001f600 \"\\\\,(\\n', "
            "'ab', true, '{\"a\": 1.5, \"b\": [null]}', '{a,\"b \\\"c\",NULL}', '2024-02-29', "
            "'00000000-0000-0000-0000-00000000002a', '1 mon 2 days', '[1,5)'",
            "-0.10, -1, '-0', NULL, '', '', '', false, NULL, '{}', NULL, NULL, NULL, NULL",
        ],
        "mariadb": [
            "1.50, 9007199254740993, 0.1e-7, '2024-01-01 00:00:00.000001', x'00ff27', "
            "'it''s \U0001f600 \\\\ \"', 'ab', 1, "
            "'2024-02-29', 18446744073709551615",
            "-0.10, -1, 3.0, NULL, '', '', '', 0, NULL, NULL",
        ],
    }
    names = [name for name, _ in columns[shop.dialect]]
    shop.run(f"CREATE TABLE kinds (id integer PRIMARY KEY, {', '.join(f'{n} {t}' for n, t in columns[shop.dialect])})")
    tables = dict(shop.mapping.tables)
    tables["kinds"] = TableMapping(
        role="entity",
        tag="kind",
        key=("id",),
        opening="KindImported",
        changed="KindChanged",
        removed="KindRemoved",
        keep=("id", *names),
    )
    for number, row in enumerate(rows[shop.dialect]):
        shop.run(f"INSERT INTO kinds VALUES ({number}, {row.replace('%', '%%')})")
    with shop.session(msgspec.structs.replace(shop.mapping, tables=tables)) as session:
        session.install(shop.way)
        session.reread([], "a table was added") if session.state().loaded else session.load()
        for number, row in enumerate(rows[shop.dialect]):
            shop.run(f"INSERT INTO kinds VALUES ({10 + number}, {row.replace('%', '%%')})")
        shop.run("UPDATE kinds SET i = 4 WHERE id = 0")
        shop.run("INSERT INTO kinds (id) VALUES (99)")
        assert drain(session) == len(rows[shop.dialect]) + 2
        assert_equal(shop, session)
        found = [row for row in shop.rows(session, "kinds") if row["id"] == 10]
        assert found[0]["n"] == "1.50" and found[0]["i"] == 9007199254740993


def test_the_parts_of_a_composite_value_are_read() -> None:
    """As PostgreSQL writes them: NULL is empty, an empty text is in quotes, quotes and backslashes are doubled."""
    assert composite_values("(1,abc,,)") == ["1", "abc", None, None]
    assert composite_values('(1,"a,b","",x)') == ["1", "a,b", "", "x"]
    assert composite_values('("say ""so""","c:\\\\d","(1,2)")') == ['say "so"', "c:\\d", "(1,2)"]
    assert composite_values("()") == [None]


def test_literals_of_sqlite_are_read() -> None:
    """As `quote` writes them."""
    assert literal_values("NULL,1,-2.5,'it''s, so',X'00FF',9.0e+999,''") == [
        None, 1, -2.5, "it's, so", b"\x00\xff", float("inf"), "",
    ]  # fmt: skip


def test_what_a_snapshot_sees_is_exact() -> None:
    """Also where numbers are missing: of transactions that were open, or rolled back."""
    found = Snapshot.of_seen([3, 4, 7], passed=1)
    assert [each for each in range(9) if found.sees(each)] == [0, 1, 3, 4, 7]
    assert Snapshot.parse(str(found)) == found
    assert Snapshot.parse("10:20:12,14").sees(13) and not Snapshot.parse("10:20:12,14").sees(14)
    assert not Snapshot.of_seen([], 0).sees(1)
    with pytest.raises(InvalidInput):
        Snapshot.parse("x")


def test_transaction_ids_of_32_bits_are_extended() -> None:
    """To the nearest one: also to one that began after the id that is known, and across an overflow."""
    assert _full(105, 100) == 105 and _full(95, 100) == 95
    assert _full(3, (1 << 32) - 2) == (1 << 32) + 3
    assert _full((1 << 32) - 2, (1 << 32) + 5) == (1 << 32) - 2


def test_rights_that_are_missing_are_named(tmp_path: Path) -> None:
    """Before anything is changed in the source; and no message shows a password."""
    for way in POSTGRES:
        shop = Shop(way, tmp_path / way if (tmp_path / way).mkdir() is None else tmp_path)
        role = f"r{abs(hash(shop.address)) % 10**9}"
        shop.run(f"CREATE ROLE {role} LOGIN PASSWORD 'tell-no-one'")
        with shop.session() as session:
            tables = list(session.plan.tables.values())
        address = shop.address.replace("eventfold:not-a-secret", f"{role}:tell-no-one")
        recorder = recorder_of(address, "postgresql", "migration", tables, shop.way)
        with pytest.raises(SourceUnavailable) as raised:
            recorder.refuse()
        assert "alter orders" in str(raised.value) and role in str(raised.value)
        assert ("slots" in str(raised.value)) == (way == "postgresql-decoding")
        assert "tell-no-one" not in str(raised.value)
        recorder.close()
        shop.application.close()


def test_a_table_that_is_locked_is_named_and_others_do_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installing gives up its place in the queue after a short time, tries again, and then goes on where it was."""
    from eventfold.migrate.sources import postgres_triggers

    shop = Shop("postgresql-triggers", tmp_path)
    monkeypatch.setattr(postgres_triggers, "LOCK_TIMEOUT_S", 0.1)
    monkeypatch.setattr(postgres_triggers, "ATTEMPTS", 2)
    assert source_module.LOCK_TIMEOUT_S > 0.1
    other = shop.connect()
    other.begin()
    other.run("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
    with shop.session() as session:
        with pytest.raises(SourceUnavailable, match="orders was locked by others"):
            session.install(shop.way)
        other.rollback()
        session.install(shop.way)
        with session.recorder() as recorder:
            assert recorder.is_installed()
    other.close()
    shop.application.close()


def test_what_a_slot_keeps_is_shown_and_a_lost_slot_is_an_alarm(tmp_path: Path) -> None:
    """Bytes grow while nothing is read, and shrink when it is; a slot that is gone stops the capture."""
    for shop, session in opened("postgresql-decoding", tmp_path):
        with session.recorder() as recorder:
            before = recorder.backlog().retained
            shop.run("INSERT INTO customer SELECT n, 'many', NULL FROM generate_series(100, 5000) AS n")
            assert recorder.backlog().retained > before + 100_000
        drain(session)
        with session.recorder() as recorder:
            shop.run(f"SELECT pg_drop_replication_slot('{recorder.slot}')")  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(CaptureStopped, match="not there any more") as raised:
            drain(session)
        assert raised.value.fields["kind"] == "slot"
        session.remove()
        session.install("decoding")
        session.reread([], "the slot was dropped")
        drain(session)
        assert_equal(shop, session)


def test_a_server_without_logical_decoding_is_refused(tmp_path: Path) -> None:
    """It names the setting, and the other way."""
    shop = Shop("postgresql-triggers", tmp_path)
    with shop.session() as session, pytest.raises(InvalidInput, match="wal_level is replica"):
        session.install("decoding")
    shop.application.close()


# MariaDB


@mariadb.needed
def test_an_uncommitted_lower_number_is_never_passed(tmp_path: Path) -> None:
    """A transaction holds a lower number open while later ones commit; one that is rolled back is passed."""
    for shop, session in opened("mariadb", tmp_path):
        slow, gone = shop.connect(), shop.connect()
        slow.begin()
        slow.run("UPDATE orders SET note = 'slow' WHERE id = 1")
        shop.run("UPDATE orders SET note = 'quick' WHERE id = 2")
        with session.capture() as capture:
            for _ in range(3):
                assert capture.drain() == 0
            shop.run("UPDATE orders SET note = 'quick' WHERE id = 3")
            assert capture.drain() == 0
            assert capture.compare_keys() == 0  # not while changes are open
            slow.commit()
            assert capture.drain() == 3
            assert [each.event.json()["id"] for each in captured(session)] == [1, 2, 3]
            gone.begin()
            gone.run("UPDATE orders SET note = 'gone' WHERE id = 4")
            shop.run("UPDATE orders SET note = 'quick' WHERE id = 5")
            assert capture.drain() == 0
            gone.rollback()
            assert capture.drain() == 1
            shop.run("UPDATE orders SET note = 'lower' WHERE id = 6")
            slow.begin()
            slow.run("UPDATE orders SET note = 'higher' WHERE id = 7")
            assert capture.drain() == 1  # it does not wait for the higher number when it deletes the lower one
            slow.commit()
            assert capture.drain() == 1
        assert_equal(shop, session)
        slow.close()
        gone.close()


@mariadb.needed
def test_limits_of_mariadb_are_refused_with_an_error(tmp_path: Path) -> None:
    """Cascades, engines without transactions, TRUNCATE, and a role that may not see transactions."""
    for shop, session in opened("mariadb", tmp_path):
        shop.run("SET foreign_key_checks = 0")
        shop.run("TRUNCATE line")
        with pytest.raises(CaptureStopped, match="line was emptied by TRUNCATE"):
            drain(session)
        session.reread(["line"], "it was truncated")
        drain(session)
        assert_equal(shop, session)
        shop.run("CREATE TABLE part (id integer PRIMARY KEY, o integer, FOREIGN KEY (o) REFERENCES orders (id) "
                 "ON DELETE CASCADE)")  # fmt: skip
        shop.run("CREATE TABLE flat (id integer PRIMARY KEY) ENGINE=MyISAM")
        for table, what in (("part", "cascade from orders"), ("flat", "no transactions")):
            tables = dict(shop.mapping.tables)
            columns = ("id", "o") if table == "part" else ("id",)
            others = {"part", "flat"} - {table}
            tables[table] = TableMapping(role="entity", tag=table, key=("id",), opening="A", changed="B", keep=columns)
            tables |= {each: TableMapping(role="ignored") for each in others}
            changed = Mapping(dialect="mariadb", tables=tables)
            with shop.session(changed) as other, pytest.raises(InvalidInput, match=what):
                other.install()
        name = shop.address.rpartition("/")[2]
        mariadb.shared().ask("CREATE OR REPLACE USER limited@localhost")
        mariadb.shared().ask(f"GRANT SELECT ON {name}.* TO limited@localhost")
        address = shop.address.replace("root@", "limited@")
        recorder = recorder_of(address, "mariadb", "migration", list(session.plan.tables.values()), None)
        with pytest.raises(SourceUnavailable, match="PROCESS"):
            recorder.refuse()
        recorder.close()


# SQLite


def test_replace_is_a_change_of_the_row_with_the_same_key(tmp_path: Path) -> None:
    """And an ignored insert is nothing; a row that is replaced because of another constraint is found by its key."""
    for shop, session in opened("sqlite", tmp_path):
        shop.run("CREATE UNIQUE INDEX one_email ON customer (email)")
        session.install()
        shop.run("INSERT OR REPLACE INTO customer VALUES (1, 'Replaced', 'r@example.com')")
        shop.run("INSERT OR IGNORE INTO customer VALUES (1, 'Ignored', 'i@example.com')")
        shop.run(
            "INSERT INTO customer VALUES (1, 'Up', 'u@example.com') ON CONFLICT (id) DO UPDATE SET name = 'Upsert'"
        )
        shop.run("REPLACE INTO customer VALUES (77, 'New', 'n@example.com'), (2, 'Two', '2@example.com')")
        drain(session)
        assert_equal(shop, session)
        assert [each.event.type for each in captured(session)] == [
            "CustomerChanged",
            "CustomerChanged",
            "CustomerImported",
            "CustomerChanged",
        ]
        shop.run("PRAGMA recursive_triggers = ON")
        shop.run("REPLACE INTO customer VALUES (77, 'Newer', 'n@example.com')")
        drain(session)
        assert_equal(shop, session)
        shop.run("PRAGMA recursive_triggers = OFF")
        shop.run("REPLACE INTO customer VALUES (78, 'Other', 'n@example.com')")  # deletes 77 without a trigger
        what = r"keys of customer.*1 rows were deleted without a trace: 77"
        with session.capture() as capture, pytest.raises(CaptureStopped, match=what):
            capture.compare_keys()


def test_a_capture_goes_on_under_load(loaded: tuple[Shop, Session]) -> None:
    """Several writers change the same rows while it runs; afterwards every row is equal."""
    shop, session = loaded

    def write(seed: int) -> None:
        connection = shop.connect()
        try:
            for number in range(40):
                order = (seed * 7 + number) % 20
                connection.begin()
                connection.run(f"UPDATE orders SET total = {number}.25, note = 'w{seed}' WHERE id = {order}")
                if number % 4 == 0:
                    connection.run(f"DELETE FROM line WHERE order_id = {order} AND number > 1")
                    connection.run(f"INSERT INTO line VALUES ({order}, {2 + seed}, 'x', {number})")
                if number % 5 == 4:
                    connection.rollback()
                else:
                    connection.commit()
        except SourceUnavailable:  # a deadlock, or the same key: the database refused it
            connection.rollback()
        finally:
            connection.close()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
    for each in threads:
        each.start()
    ends = time.monotonic() + 60
    with session.capture() as capture:
        while any(each.is_alive() for each in threads):
            assert time.monotonic() < ends
            capture.once()
        for each in threads:
            each.join()
        capture.drain()
        capture.compare_keys()
    assert captured(session)
    assert_equal(shop, session)
