"""Files of older layouts are refused when opened, and upgraded by one command without changing an event."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.core.envelope import NewEvent, new_id
from eventfold.core.query import Query
from eventfold.engines.sqlite import SqliteEngine, schema, upgrade
from eventfold.errors import NotAStore, StoreBusy, StoreDamaged, StoreFull, StoreVersionMismatch
from eventfold.ports.inline import InlineRegistration
from eventfold.ports.messages import AppendRequest, Span
from tests.cli.commands import run as eventfold
from tests.engines.sqlite.faulty import faulty_disk, full
from tests.engines.sqlite.noted import raw, request, written
from tests.layouts.kept import LAYOUTS, as_described, described, sqlite_store

EVENTS = described("sqlite", 1)[1]  # of layout 2 the same, with other ids
ROWS = "SELECT * FROM event ORDER BY position"


@pytest.fixture(params=LAYOUTS["sqlite"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of an older layout."""
    return sqlite_store(request.param, str(tmp_path / "bank.db"))


def rows(path: str, sql: str = ROWS) -> list[tuple[Any, ...]]:
    """Return rows by SQL from outside the library."""
    connection = apsw.Connection(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def layout_of(path: str) -> int:
    """Return the number of the file's layout."""
    return rows(path, "PRAGMA user_version")[0][0]


def upgraded(path: str, *more: Any, **options: Any) -> Any:
    """Upgrade a store as a program does."""
    return run(SqliteEngine(path, timeout=0.2).upgrade(*more, **options))


@pytest.mark.parametrize("options", [{}, {"readonly": True}, {"create": False}])
def test_opening_is_refused_and_names_the_command(old: str, options: dict[str, Any]) -> None:
    """It is refused with any option, and the file is left as it is."""
    before = Path(old).read_bytes()
    with pytest.raises(StoreVersionMismatch) as refused:
        ef.Store(old, **options)
    assert f"eventfold upgrade {old}" in refused.value.remedy
    assert refused.value.fields["layout"] == layout_of(old)
    assert Path(old).read_bytes() == before


def test_every_event_reads_and_verifies_as_before(old: str) -> None:
    """The rows keep their bytes and checksums, and the store its id, its epoch, its keys and registrations."""
    layout = layout_of(old)
    identity, events = described("sqlite", layout)
    before = rows(old), rows(old, "SELECT * FROM request ORDER BY key")
    done = upgraded(old)
    assert (done.had, done.now) == (layout, schema.LAYOUT)
    assert (rows(old), rows(old, "SELECT * FROM request ORDER BY key")) == before
    with ef.Store(old, create=False) as store:
        assert {"store": store.engine.store_id, "epoch": store.engine.epoch} == identity
        read = run(store.engine.read(Query(), Span())).events
        assert [as_described(event) for event in read] == events
        assert [key for key, _ in run(store.engine.services.replication.keys())] == ["open a-1", "transfer t-1"]
        assert run(store.engine.receipt_of("transfer t-1")).first == 3
        assert run(store.engine.services.inline.registrations()) == [
            InlineRegistration("balance", "c0de", ("Archived", "Restored"), "t1")
        ]
        assert list(store.engine.check()) == []


def test_an_upgraded_store_takes_appends(old: str) -> None:
    """They are written after the last event; a repeat of an old append is recognised."""
    was = described("sqlite", layout_of(old))[1]
    upgraded(old)
    with ef.Store(old) as store:
        new = NewEvent(new_id(), "Deposited", 1, b'{"amount":2}', ("account:a-1",))
        (receipt,) = run(store.engine.append_many([AppendRequest((new,))]))
        assert receipt.first == len(EVENTS) + 1
        first = was[0]
        again = NewEvent(bytes.fromhex(first["id"]), "Opened", 1, bytes.fromhex(first["data"]), ("account:a-1",))
        (repeat,) = run(store.engine.append_many([AppendRequest((again,))]))
        assert repeat.repeated and repeat.first == 1
        assert list(store.engine.check()) == []


def test_an_upgraded_file_is_defined_like_a_new_one(old: str, tmp_path: Path) -> None:
    """Every table, index and trigger is the same: the next upgrade finds what it expects."""
    upgraded(old)
    new = str(tmp_path / "new.db")
    ef.Store(new).close()
    assert set(rows(old, schema.DEFINITIONS)) == set(rows(new, schema.DEFINITIONS))


def test_the_store_before_the_upgrade_is_copied_beside_it(old: str) -> None:
    """It has the old layout and the old events; none is written where none is requested."""
    before, layout = rows(old), layout_of(old)
    done = upgraded(old)
    assert done.backup == f"{old}.layout-{layout}"
    assert (layout_of(done.backup), rows(done.backup)) == (layout, before)
    assert upgraded(done.backup, copies=False).backup is None
    assert layout_of(done.backup) == schema.LAYOUT


def test_the_copy_of_an_interrupted_upgrade_does_not_prevent_the_next(old: str, tmp_path: Path) -> None:
    """The next copy gets a number; a chosen name is refused if a file with it exists."""
    layout = layout_of(old)
    Path(f"{old}.layout-{layout}").write_text("left behind")
    with pytest.raises(NotAStore, match="exists already"):
        upgraded(old, f"{old}.layout-{layout}")
    assert layout_of(old) == layout
    assert upgraded(old).backup == f"{old}.layout-{layout}.2"


def test_a_store_of_the_newest_layout_is_left_as_it_is(old: str) -> None:
    """This also holds while it is in use."""
    upgraded(old)
    with ef.Store(old):
        again = upgraded(old)
    assert (again.had, again.now, again.backup) == (schema.LAYOUT, schema.LAYOUT, None)


def test_a_file_that_is_open_elsewhere_is_not_upgraded(old: str) -> None:
    """Any connection that has read it counts, as an old eventfold keeps one: it could write by the old rules later."""
    layout = layout_of(old)
    other = apsw.Connection(old)
    other.execute("SELECT count(*) FROM event").fetchall()
    with pytest.raises(StoreBusy, match="open in another process"):
        upgraded(old)
    assert layout_of(old) == layout
    other.close()
    assert upgraded(old).had == layout


@pytest.mark.parametrize("point", ["first", "last"])
def test_a_killed_upgrade_leaves_the_old_layout_whole(old: str, point: str) -> None:
    """Killed before the first step or right before COMMIT, the store is unchanged, and can be upgraded later."""
    before, layout = rows(old), layout_of(old)
    dying = f"""
import os, signal, sys
from eventfold.concurrency.run import run
from eventfold.engines.sqlite import SqliteEngine, upgrade
def dies(*given):
    if {point!r} == "last":
        whole(*given)
    os.kill(os.getpid(), signal.SIGKILL)
if {point!r} == "last":
    whole, upgrade.check_definitions = upgrade.check_definitions, dies
else:
    upgrade.STEPS[{layout}] = dies
run(SqliteEngine({old!r}).upgrade())
"""
    killed = subprocess.run([sys.executable, "-c", dying], capture_output=True, timeout=60)
    assert killed.returncode == -9, killed.stderr.decode()
    assert (layout_of(old), rows(old)) == (layout, before)
    assert upgraded(old).had == layout
    with ef.Store(old) as store:
        assert store.head() == len(EVENTS)
        assert list(store.engine.check()) == []


def test_a_step_that_fails_changes_nothing(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step raises SQLite's error of a full disk, or does not create what this version expects."""

    def full(_connection: Any) -> None:
        raise apsw.FullError("disk full")

    layout = layout_of(old)
    with monkeypatch.context() as patch:
        patch.setitem(upgrade.STEPS, layout, full)
        with pytest.raises(StoreFull):
            upgraded(old)
    monkeypatch.setitem(upgrade.STEPS, schema.LAYOUT - 1, lambda connection: connection.execute("DROP TABLE snapshot"))
    with pytest.raises(StoreDamaged, match="definition of"):
        upgraded(old)
    assert layout_of(old) == layout and len(rows(old, "SELECT * FROM snapshot")) == 1


def test_an_upgrade_without_space_changes_nothing(old: str) -> None:
    """At each of its writes: two sentences say so and name the command; with space it succeeds."""
    layout, before = layout_of(old), rows(old)
    refused = 0
    with faulty_disk() as disk:
        for after in range(0, 200, 3):
            disk.refuse("write wal", full, after)
            try:
                assert run(SqliteEngine(old).upgrade(copies=False)).had == layout
            except StoreFull as error:
                refused += 1
                assert "Nothing was changed" in error.remedy and "eventfold upgrade" in error.remedy
            else:
                break
            disk.repair()
            assert (layout_of(old), rows(old)) == (layout, before)
    assert refused
    with ef.Store(old) as store:
        assert store.head() == len(EVENTS)
        assert list(store.engine.check()) == []


def test_a_store_upgraded_by_a_newer_version_is_refused_when_it_is_opened_again(tmp_path: Path) -> None:
    """The file was closed for idleness meanwhile: the process may not write by its own rules, nor read."""
    path = str(tmp_path / "log.db")
    engine = SqliteEngine(path, max_idle=60.0)
    run(engine.open())
    assert engine._file.close_while_idle()
    for layout, error in ((schema.LAYOUT + 1, StoreVersionMismatch), (schema.LAYOUT - 1, StoreVersionMismatch)):
        rows(path, f"PRAGMA user_version = {layout}")
        for _ in range(2):
            with pytest.raises(error):
                run(engine.head())
            with pytest.raises(error):
                run(engine.append_many([request(raw(1, "a:1"))]))
    rows(path, f"PRAGMA user_version = {schema.LAYOUT}")
    written(run(engine.append_many([request(raw(1, "a:1"))]))[0])
    run(engine.close())


def test_a_process_of_an_older_layout_appends_nothing_after_the_upgrade(old: str) -> None:
    """It had closed the file while idle, so the upgrade was not refused: SQLite refuses what it writes and reads."""
    codec = "codec" if layout_of(old) < 3 else "encoding"
    columns = f'position, id, type, version, data, tags, time, occurred, metadata, "offset", size, {codec}, key, crc'
    position = len(EVENTS) + 1
    untagged = (position, new_id(), 1, 1, b"{}", "", 1, None, None, None, None, None, None, 1)
    upgraded(old)
    connection = apsw.Connection(old)
    try:
        for statement, values in (
            (f"INSERT INTO event ({columns}) VALUES ({','.join('?' * 14)})", untagged),
            (f"SELECT {columns} FROM event WHERE position = ?", (1,)),
        ):
            with pytest.raises(apsw.SQLError, match=codec):
                connection.execute(statement, values)
    finally:
        connection.close()
    with ef.Store(old) as store:
        assert store.head() == len(EVENTS)
        assert list(store.engine.check()) == []


def test_the_command_reports_what_it_did(old: str) -> None:
    """It prints what it did, on the first run and on the second, and refuses an address without a layout."""
    layout = layout_of(old)
    done, again = eventfold("upgrade", old, "--table"), eventfold("upgrade", old, "--table")
    assert (done.code, again.code) == (0, 0)
    assert f"was upgraded from layout {layout} to {schema.LAYOUT}" in " ".join(
        done.out.split()
    ) and f"bank.db.layout-{layout}" in "".join(done.out.split())
    assert "Nothing was changed" in " ".join(again.out.split())
    (line,) = eventfold("upgrade", old, "--json").lines
    assert line == {"had": schema.LAYOUT, "layout": schema.LAYOUT, "backup": None}
    refused = eventfold("upgrade", "memory:")
    assert refused.code == 1 and "no older layout" in refused.err
    assert eventfold("upgrade", f"{old}.none").code == 4
    assert not os.path.exists(f"{old}.none")
