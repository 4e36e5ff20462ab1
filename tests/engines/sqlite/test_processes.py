"""Several processes, stores and modes use one file: turns are fair, stopped processes do no harm, nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.engines.sqlite import checkpoint
from eventfold.errors import StoreBusy
from tests.engines.sqlite.noted import assert_whole, engine_of, foreign, noted, raw, request
from tests.engines.sqlite.other import ROOT, Other

DEADLINE_S = 40  # bound for what should happen at once, on a machine that is busy with other work

WRITE_FOR = """
import statistics
def write_for(seconds, *, batch=1):
    count, passed, end = 0, [], time.monotonic() + seconds
    while time.monotonic() < end:
        before = store.head()
        receipt = store.append(*[noted(n) for n in range(batch)])
        count += batch
        passed.append(receipt.first - before - 1)
    return [count, statistics.median(passed)]
"""


def writers(path: str, process: Callable[..., Other], count: int, more: str = "") -> list[Other]:
    """Start processes that have the store open and can write for some time."""
    made = [process() for _ in range(count)]
    for each in made:
        each.start(f"store = ef.Store({path!r})")
    for each in made:
        each.answer()
        each(WRITE_FOR + more)
    return made


def test_two_writing_processes_take_turns(path: str, process: Callable[..., Other]) -> None:
    """Neither starves: both get a good part of the commits, and the other rarely gets several turns in between.

    Turns are counted, not seconds: on a busy machine either process may be stopped at any moment.
    """
    both = writers(path, process, 2)
    for each in both:
        each.start("write_for(3)")
    counts = [each.answer() for each in both]
    written = [count for count, _ in counts]
    assert min(written) > 0.2 * sum(written), counts
    assert max(passed for _, passed in counts) <= 2, counts
    assert assert_whole(path) == sum(written)


def test_checkpoints_under_load_from_two_processes_lose_nothing(path: str, process: Callable[..., Other]) -> None:
    """Both checkpoint every few commits, while both write and a third process reads."""
    often = "from eventfold.engines.sqlite import checkpoint; checkpoint.CHECKPOINT_PAGES = 12"
    both = writers(path, process, 2, often)
    for each in both:
        each.start("write_for(1.5, batch=3)")
    with ef.Store(path) as reader:
        seen, end = 0, time.monotonic() + 1.5
        while time.monotonic() < end:
            positions = [recorded.position for recorded in reader.read(after=seen)]
            assert positions == list(range(seen + 1, seen + 1 + len(positions)))
            seen += len(positions)
        written = sum(each.answer()[0] for each in both)
        assert reader.count() == written
        assert os.path.getsize(path + "-wal") < 4_000_000
        assert not list(engine_of(reader).check())
    assert assert_whole(path) == written


def test_a_stopped_holder_of_the_lock_makes_the_store_busy(path: str, process: Callable[..., Other]) -> None:
    """StoreBusy is raised after each timeout, with no extra thread or descriptor per attempt; later appends succeed."""
    stuck, other = process(), process()  # the other process has only the store's threads and descriptors
    stuck(f"store = ef.Store({path!r}); store.append(noted(0)); lock = engine_of(store)._file.lock; lock.acquire()")
    stuck.signal(signal.SIGSTOP)
    other(f"store = ef.Store({path!r}, timeout=0.2)")
    used = None
    for n in range(4):
        begun = time.monotonic()
        other.start("store.append(noted(9))")
        busy = other.outcome()
        assert 0.15 < time.monotonic() - begun < DEADLINE_S
        assert busy["error"] == "StoreBusy" and "Nothing was written" in busy["text"]
        now = other("[threading.active_count(), len(opened('')) if os.path.isdir('/proc/self/fd') else 0]")
        used = used or now
        assert now == used, f"busy time {n} left something behind"
    assert other("store.count()") == 1
    stuck.signal(signal.SIGCONT)
    stuck("lock.release()")
    ends = time.monotonic() + DEADLINE_S
    other.start("store.append(noted(1))")
    while other.outcome().get("error") == "StoreBusy":  # its queued attempt may still get the lock
        assert time.monotonic() < ends
        other.start("store.append(noted(1))")
    stuck("store.append(noted(2))")
    other("store.append(noted(3))")
    assert other("[recorded.event.n for recorded in store.read()]") == [0, 1, 2, 3]


def test_a_killed_holder_of_the_lock_lets_the_next_one_in_at_once(path: str, process: Callable[..., Other]) -> None:
    """The lock ends with its process."""
    holder = process()
    holder(f"store = ef.Store({path!r}); engine_of(store)._file.lock.acquire()")
    with ef.Store(path, timeout=4 * DEADLINE_S) as store:
        killer = threading.Timer(0.2, holder.kill)
        killer.start()
        begun = time.monotonic()
        store.append(noted(1))
        assert time.monotonic() - begun < DEADLINE_S
        killer.join()


def test_closing_does_not_wait_for_a_writer(path: str, process: Callable[..., Other]) -> None:
    """The last process to close makes the last checkpoint; until then the WAL file is part of the store."""
    store = ef.Store(path, timeout=4 * DEADLINE_S)
    store.append(noted(1))
    holder = process()
    holder(f"other = ef.Store({path!r}); lock = engine_of(other)._file.lock; lock.acquire()")
    begun = time.monotonic()
    store.close()
    assert time.monotonic() - begun < DEADLINE_S
    assert os.path.getsize(path + "-wal") > 0
    holder("lock.release(); other.append(noted(2)); other.close()")
    assert os.path.getsize(path + "-wal") == 0
    assert assert_whole(path) == 2


def test_a_transaction_of_another_program_is_waited_for_and_reported(path: str, process: Callable[..., Other]) -> None:
    """Programs that do not use the library's lock hold SQLite's own."""
    with ef.Store(path, timeout=0.3) as store:
        store.append(noted(1))
        other = process()
        other(f"connection = sqlite3.connect({path!r}, isolation_level=None); connection.execute('BEGIN IMMEDIATE')")
        with pytest.raises(StoreBusy, match="another program"):
            store.append(noted(2))
        assert store.count() == 1
        other("connection.execute('ROLLBACK')")
        store.append(noted(2))
        assert store.count() == 2


CROWD = """
import os, sys, time
import eventfold as ef
from tests.engines.sqlite.noted import *
path, count = sys.argv[1], int(sys.argv[2])
ready, go = os.pipe(), os.pipe()
pids = []
for n in range(count):
    pid = os.fork()
    if pid == 0:
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        try:
            with ef.Store(path) as store:
                store.append(noted(n))
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    pids.append(pid)
for _ in pids:
    os.read(ready[0], 1)
os.write(go[1], b"x" * count)
print([status for pid in pids if (status := os.waitpid(pid, 0)[1])])
"""


def test_fifty_processes_may_open_a_store_that_is_not_there_yet(path: str) -> None:
    """One of them creates the store, and all of them write to it, all at once."""
    ran = subprocess.run(
        [sys.executable, "-c", CROWD, path, "50"], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert ran.stdout == "[]\n", ran.stderr
    assert assert_whole(path) == 50


def test_opening_waits_for_the_process_that_is_creating_the_store(path: str, process: Callable[..., Other]) -> None:
    """A file that is empty because another process is creating the store is no error."""
    open(path, "x").close()
    creator = process()
    creator(
        f"from eventfold.engines.sqlite.writer_lock import WriterLock; lock = WriterLock({path!r}, 60); lock.acquire()"
    )
    opener = process()
    opener.start(f"store = ef.Store({path!r}, create=False)")
    time.sleep(0.3)
    creator("from eventfold.engines.sqlite import schema; from eventfold.engines.sqlite.schema import create_identity")
    creator(f"import apsw; c = apsw.Connection({path!r}); c.pragma('journal_mode', 'wal')")
    creator("c.execute('BEGIN'); c.execute(schema.CREATE); create_identity(c)")
    creator("c.pragma('application_id', schema.APPLICATION_ID); c.pragma('user_version', schema.LAYOUT)")
    creator("c.execute('COMMIT'); lock.release()")
    opener.answer()
    assert opener("store.append(noted(1)).first") == 1


# ------------------------------------------------------------------------------------------ within one process


def test_stores_of_both_modes_share_a_file(path: str) -> None:
    """Two Stores and two AsyncStores in one process write, also under conditions, without losing an event."""

    def through(store: ef.Store, name: str) -> None:
        mine, last = ef.Query.of(tags=f"who:{name}"), 0
        for n in range(30):
            last = store.append(noted(n, name), unless=mine, after=last).last

    async def tasks() -> None:
        async with ef.AsyncStore(path) as one, ef.AsyncStore(path) as two:

            async def task(store: ef.AsyncStore, name: str) -> None:
                mine, last = ef.Query.of(tags=f"who:{name}"), 0
                for n in range(30):
                    last = (await store.append(noted(n, name), unless=mine, after=last)).last

            await asyncio.gather(*[task(store, f"t{n}") for n, store in enumerate((one, two, one, two))])

    with ef.Store(path) as one, ef.Store(path) as two:
        threads = [threading.Thread(target=through, args=(s, f"s{n}")) for n, s in enumerate((one, two, one, two))]
        threads.append(threading.Thread(target=lambda: asyncio.run(tasks())))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in [f"{mode}{n}" for mode in "st" for n in range(4)]:
            assert [each.event.n for each in one.read(ef.Query.of(tags=f"who:{name}"))] == list(range(30))
    assert assert_whole(path) == 240


def test_closing_while_others_read_raises_store_closed_in_them(path: str) -> None:
    """Readers of a store that is closed meanwhile raise StoreClosed, and return their connections."""
    store = ef.Store(path)
    store.extend(noted(n) for n in range(3_000))
    raised: list[BaseException] = []

    def read() -> None:
        try:
            while True:
                for _ in store.read():
                    pass
        except ef.EventfoldError as error:
            raised.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    store.close()
    store.close()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert [type(each).__name__ for each in raised] == ["StoreClosed"] * 4
    pool = engine_of(store)._file.pool
    assert not pool.is_in_use and not pool._readers and not pool._writers


def test_a_stored_error_keeps_no_snapshot_open(path: str) -> None:
    """The connection of a failed read is not left in an old snapshot for the next reader."""
    with ef.Store(path) as store:
        store.append(noted(1))
        run(engine_of(store).append_many([request(raw(2, type="Unknown"))]))
        errors: list[BaseException] = []
        connection = engine_of(store)._file.reader()

        def fail(connection: object) -> None:
            connection.execute("SELECT * FROM event").fetchone()  # type: ignore[attr-defined]
            raise ef.EventfoldError("It failed.", "Look.")

        engine_of(store)._file.pool.return_reader(connection)
        try:
            engine_of(store)._run_read(fail)
        except ef.EventfoldError as error:
            errors.append(error)
        run(engine_of(store).append_many([request(raw(3))]))
        assert store.head() == 3 and errors


def test_the_lock_file_has_the_rights_of_the_store(path: str) -> None:
    """Every user who may write to the store may wait for its lock."""
    store = ef.Store(path)
    store.append(noted(1))
    store.close()
    os.remove(path + ".lock")
    os.chmod(path, 0o660)
    with ef.Store(path) as store:
        store.append(noted(2))
    assert os.stat(path + ".lock").st_mode & 0o777 == 0o660


def test_a_removed_lock_file_is_made_again_and_shared_again(path: str, process: Callable[..., Other]) -> None:
    """Until every process has noticed the removal, SQLite's own lock keeps writers apart."""
    other = process()
    other(f"store = ef.Store({path!r})")
    with ef.Store(path) as store:
        for n in range(4):
            store.append(noted(n))
            os.remove(path + ".lock")
            other(f"store.append(noted({n}))")
            store.append(noted(n))
        inode = os.stat(path + ".lock").st_ino
        assert os.fstat(engine_of(store)._file.lock._file or -1).st_ino == inode
    assert assert_whole(path) == 12


def test_the_wal_stays_bounded_while_readers_never_pause(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlapping readers do not prevent the write-ahead log from being reused."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_PAGES", 50)
    with ef.Store(path) as store:
        store.extend(noted(n) for n in range(500))
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                store.count(ef.Query.of(tags="who:w-1"))
                for _ in store.read(limit=300):
                    pass

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        largest = 0
        for n in range(120):
            store.append(*[noted(n) for _ in range(10)])
            largest = max(largest, os.path.getsize(path + "-wal"))
        stop.set()
        for reader in readers:
            reader.join()
    assert largest < 2_500_000, largest


def test_a_long_snapshot_of_another_program_lets_the_log_grow_and_then_shrink(
    path: str, monkeypatch: pytest.MonkeyPatch, process: Callable[..., Other]
) -> None:
    """The log grows by what is written, not by attempts to checkpoint; after the reader ends, the log is reused."""
    monkeypatch.setattr(checkpoint, "CHECKPOINT_PAGES", 40)
    with ef.Store(path) as store:
        store.append(noted(0))
        other = process()
        other(f"reader = sqlite3.connect({path!r}, isolation_level=None); reader.execute('BEGIN')")
        assert other("reader.execute('SELECT count(*) FROM event').fetchone()[0]") == 1
        begun = time.monotonic()
        for n in range(120):
            store.append(noted(n))
        assert time.monotonic() - begun < DEADLINE_S
        grown = os.path.getsize(path + "-wal")
        assert other("reader.execute('SELECT count(*) FROM event').fetchone()[0]") == 1
        other("reader.execute('ROLLBACK')")
        for n in range(80):
            store.append(noted(n))
        assert os.path.getsize(path + "-wal") <= grown + 40 * 4200
        assert engine_of(store)._file.wal_pages < 100
        assert foreign(path, "SELECT count(*) FROM event") == [(201,)]


def test_a_reader_with_readonly_sees_what_others_write(path: str, tmp_path: Path) -> None:
    """readonly=True reads a store that others write; it never creates one."""
    with ef.Store(path) as store, ef.Store(path, readonly=True) as reader:
        for n in range(3):
            store.append(noted(n))
            assert reader.count() == n + 1
        with pytest.raises(ef.EventfoldError) as raised:
            reader.append(noted(9))
        assert type(raised.value).__name__ == "StoreReadOnly"
    with pytest.raises(ef.EventfoldError):
        ef.Store(str(tmp_path / "none.db"), readonly=True)
    assert not (tmp_path / "none.db").exists()
