"""Rows in DuckDB files and Parquet folders: exactly once, readable by other programs, with errors in two sentences."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

import eventfold as ef
from eventfold.errors import InvalidUrl, MissingExtra, ProjectionStopped, TargetUnavailable
from tests.projections.flights import Departed, flights, folded, proved, rows
from tests.support.repetitions import repetitions
from tests.targets.killed import elsewhere, forking_process

COLUMNS = "SELECT carrier, month, flights, delay, cancelled FROM "


@pytest.fixture
def store(tmp_path: Path) -> ef.Store:
    """An empty store."""
    with ef.Store(str(tmp_path / "store.db")) as store:
        yield store


def other(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run another program that uses DuckDB without eventfold."""
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, check=True)


READ = f"""
import duckdb, sys, time
for attempt in range(1_000):
    try:
        print(sorted(duckdb.connect(sys.argv[1], read_only=True).execute("{COLUMNS} carrier_month").fetchall()))
        break
    except duckdb.IOException:
        time.sleep(0.05)
"""


def test_another_program_reads_the_file_beside_a_runner(store: ef.Store, tmp_path: Path) -> None:
    """An idle runner closes the file: another program opens it and sees the rows; then the runner continues."""
    kept, path = elsewhere(f"duckdb:{tmp_path}/rows.duckdb"), f"{tmp_path}/rows.duckdb"
    with store.run(kept) as runner:
        for round in range(2):
            store.append(*flights(100, round * 100))
            store.wait(kept)
            assert other(READ, path).stdout.strip() == str(folded(flights(round * 100 + 100)))
        assert not runner.failed
    assert proved(store)


HOLD = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


def test_a_file_that_another_process_has_open_is_waited_for(
    store: ef.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a timeout the error names the holder; once the file is free, the runner continues without a gap."""
    kept, path = elsewhere(f"duckdb:{tmp_path}/rows.duckdb"), f"{tmp_path}/rows.duckdb"
    monkeypatch.setattr("eventfold.targets.duckdb.connection.LOCK_TIMEOUT_S", 0.1)
    store.append(*flights(50))
    holding = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holding.stdin is not None and holding.stdout is not None
    try:
        assert holding.stdout.readline() == "held\n"
        with pytest.raises(TargetUnavailable, match=rf"held by process {holding.pid} .*one process at a time"):
            store.project(kept)
    finally:
        holding.stdin.close()
        holding.wait(60)
        holding.stdout.close()
    store.project(kept)
    assert rows(store, kept) == folded(flights(50))


def test_unusable_addresses_are_refused(store: ef.Store, tmp_path: Path) -> None:
    """Not a DuckDB file, the log itself, a missing folder, a file in place of a folder, unknown options."""
    store.append(*flights(5))
    (tmp_path / "notes.txt").write_text("not a database, and never was one")
    for address, words in {
        f"duckdb:{tmp_path}/notes.txt": "notes.txt is not a DuckDB file",
        f"duckdb:{tmp_path}/nowhere/rows.duckdb": "nowhere/rows.duckdb cannot be used",
        f"parquet:{tmp_path}/notes.txt": "notes.txt cannot be used",
    }.items():
        with pytest.raises(TargetUnavailable, match=words):
            store.project(elsewhere(address))
    for address, words in {
        f"duckdb:{tmp_path}/store.db": "is the log itself",
        "duckdb:": "names no path",
        f"parquet:{tmp_path}?every=often": "every=often",
        f"parquet:{tmp_path}?often=1": "often=1",
        "ducksdb:rows": "duckdb:PATH",
        "postgresql+psycopg+sync://h/d": "SQLAlchemy cannot use the address",
    }.items():
        with pytest.raises(InvalidUrl, match=words):
            store.project(elsewhere(address))
    assert store.count() == 5


def test_without_the_package_the_extra_is_named(
    store: ef.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the package to install."""
    for name in [name for name in sys.modules if name.startswith("eventfold.targets.duckdb")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    for address in (f"duckdb:{tmp_path}/rows.duckdb", f"parquet:{tmp_path}"):
        with pytest.raises(MissingExtra, match=r'pip install "eventfold\[duckdb\]"'):
            store.project(elsewhere(address))


class DuckPriced(ef.Event):
    """Something has a price."""

    thing: ef.Tag
    price: Decimal


def test_a_decimal_that_would_be_rounded_stops_the_projection(store: ef.Store, tmp_path: Path) -> None:
    """DuckDB rounds decimals that do not fit its column; here such an event fails, and nothing is written."""

    class DuckPrice(ef.Projection, target=f"duckdb:{tmp_path}/rows.duckdb", attempts=1):
        thing: str
        price: Decimal = Decimal(0)

        def evolve(self, event: DuckPriced) -> None:
            self.price = event.price

    store.append(DuckPriced("a", Decimal("1234567890123456789.0123456789")))
    store.append(DuckPriced("a", Decimal("0.00000000001")))
    with pytest.raises(ProjectionStopped, match="stopped at event 2"):
        store.project(DuckPrice)
    assert [row.price for row in store.rows(DuckPrice)] == [Decimal("1234567890123456789.0123456789")]


def test_handlers_write_duckdbs_own_sql(store: ef.Store, tmp_path: Path) -> None:
    """Also rebuilt, compared and switched; a statement whose result is a count of changes returns no rows."""

    class DuckDelays(ef.SqlProjection, target=f"duckdb:{tmp_path}/rows.duckdb"):
        tables = {"duck_delays": "carrier VARCHAR, seen TIMESTAMPTZ, minutes BIGINT"}

        def departed(self, recorded: ef.Recorded[Departed], tx: ef.Transaction) -> None:
            given = (recorded.event.carrier, recorded.time, recorded.event.delay)
            assert tx.execute("INSERT INTO {duck_delays} VALUES (?, ?, ?)", given) == []

    store.append(*flights(30))
    store.project(DuckDelays)
    store.projections.rebuild(DuckDelays)
    assert store.projections.compare(DuckDelays).equal
    store.projections.switch(DuckDelays)
    assert proved(store)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("kind", ["duckdb", "parquet"])
def test_killed_runners_skip_and_repeat_nothing(kind: str, store: ef.Store, tmp_path: Path) -> None:
    """Runners are killed in a transaction or while a snapshot is written: the rows equal the plain fold."""
    address = f"duckdb:{tmp_path}/rows.duckdb" if kind == "duckdb" else f"parquet:{tmp_path}/rows?every=0"
    kept, chance, written = elsewhere(address), random.Random(4), 0
    store.project(kept)
    parent = forking_process(str(tmp_path / "store.db"), address)
    assert parent.stdin is not None and parent.stdout is not None
    positions: set[int] = set()
    try:
        ends = time.monotonic() + 120
        for number in range(repetitions(20, 30)):
            store.extend(flights(200, written), batch=8)
            written += 200
            parent.stdin.write("\n")
            parent.stdin.flush()
            child = int(parent.stdout.readline())
            while number % 2 and time.monotonic() < ends:  # once it works, however long that takes
                if max(held.position for held in store.projections.checkpoints(kept)) > max(positions, default=0):
                    break
                time.sleep(0.002)
            time.sleep(chance.random() * 0.4)
            os.kill(child, signal.SIGKILL)
            positions.update(held.position for held in store.projections.checkpoints(kept))
            if kind == "parquet":  # complete in any case
                duckdb.sql(f"{COLUMNS} '{tmp_path}/rows/carrier_month.parquet'").fetchall()
    finally:
        parent.stdin.close()
        parent.wait(60)
        parent.stdout.close()
    assert len(positions) > 8  # they were killed while working, not before
    store.project(kept)
    assert rows(store, kept) == folded(flights(written))
    assert proved(store)
    if kind == "parquet":
        assert parquet(tmp_path / "rows") == folded(flights(written))
        assert not list((tmp_path / "rows").glob(".*.tmp"))


# Parquet


def parquet(folder: Path) -> list[tuple[object, ...]]:
    """The rows of the file, as any program reads them."""
    with duckdb.connect(":memory:") as reader:
        return reader.execute(f"{COLUMNS} '{folder}/carrier_month.parquet'").fetchall()


def metadata_of(folder: Path) -> dict[str, str]:
    """The metadata of the file."""
    sql = "SELECT key::VARCHAR, value::VARCHAR FROM parquet_kv_metadata(?)"
    with duckdb.connect(":memory:") as reader:
        return dict(reader.execute(sql, [f"{folder}/carrier_month.parquet"]).fetchall())


def test_the_parquet_file_has_the_rows_and_their_position(store: ef.Store, tmp_path: Path) -> None:
    """It is written when the projection has caught up, with store, generation and position, if rows changed."""
    kept, folder = elsewhere(f"parquet:{tmp_path}/rows"), tmp_path / "rows"
    store.append(*flights(40))
    store.project(kept)
    assert parquet(folder) == folded(flights(40)) == rows(store, kept)
    metadata = metadata_of(folder)
    assert (metadata["eventfold.position"], metadata["eventfold.generation"]) == ("40", "1")
    assert metadata["eventfold.store"] == store.projections.checkpoints(kept)[0].store
    before = (folder / "carrier_month.parquet").stat().st_ino
    store.project(kept)
    assert (folder / "carrier_month.parquet").stat().st_ino == before


def test_the_parquet_file_follows_switch_rollback_and_remove(store: ef.Store, tmp_path: Path) -> None:
    """The file has what readers see; a deleted or damaged file is written again."""
    kept, folder = elsewhere(f"parquet:{tmp_path}/rows"), tmp_path / "rows"
    store.append(*flights(40))
    store.project(kept)
    store.projections.rebuild(kept)
    assert metadata_of(folder)["eventfold.generation"] == "1"
    store.projections.switch(kept)
    assert metadata_of(folder)["eventfold.generation"] == "2"
    store.projections.rollback(kept)
    assert metadata_of(folder)["eventfold.generation"] == "1"
    (folder / "carrier_month.parquet").write_bytes(b"spoilt")
    store.project(kept)
    assert parquet(folder) == folded(flights(40))
    store.projections.remove(kept)
    assert not (folder / "carrier_month.parquet").exists()


def test_readers_never_see_a_partial_file(store: ef.Store, tmp_path: Path) -> None:
    """While a runner writes a snapshot after every page, readers find complete ones, each later than the last."""
    kept, folder = elsewhere(f"parquet:{tmp_path}/rows?every=0"), tmp_path / "rows"
    store.project(kept)
    stop, read, written = threading.Event(), threading.Event(), [0]
    copy = tmp_path / "copy"
    copy.mkdir()
    seen: list[int] = []

    def write() -> None:
        """Append, and wait if the reader is far behind: on a busy machine the runner would never catch up."""
        while not stop.is_set():
            read.clear()
            if written[0] - (seen[-1] if seen else 0) > 100:
                read.wait(1.0)
                continue
            store.append(*flights(10, written[0]))
            written[0] += 10

    writer = threading.Thread(target=write)
    with store.run(kept):
        writer.start()
        try:
            ends = time.monotonic() + 120
            while len(set(seen)) < 5 and time.monotonic() < ends:
                # In one query: DuckDB may reopen a file in a second one, and then finds a later one.
                shutil.copyfile(folder / "carrier_month.parquet", copy / "carrier_month.parquet")
                found = parquet(copy)
                seen.append(sum(row[2] + row[4] for row in found))  # type: ignore[operator]
                read.set()
                assert found == folded(flights(seen[-1]))
        finally:
            stop.set()
            read.set()
            writer.join()
        store.wait(kept, timeout=120)
    assert seen == sorted(seen) and len(set(seen)) >= 5
    assert parquet(folder) == folded(flights(written[0]))
