"""Noticing commits, and interrupts: no commit stays unannounced, no lock stays held."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

import eventfold as ef
from eventfold.engines.sqlite import watch
from eventfold.engines.sqlite.file import File
from eventfold.engines.sqlite.watch import FileNotifier, open_notifier
from eventfold.errors import StoreClosed
from tests.engines.sqlite.noted import engine_of, noted
from tests.engines.sqlite.other import Other

DEADLINE_S = 40


def test_commits_of_another_process_ring(path: str, store: ef.Store, process: Callable[..., Other]) -> None:
    """Soon, and each of them."""
    rung = threading.Event()
    stop = engine_of(store).watch(rung.set)
    other = process()
    other(f"store = ef.Store({path!r})")
    for n in range(5):
        time.sleep(0.02)
        rung.clear()
        begun = time.monotonic()
        other(f"store.append(noted({n}))")
        assert rung.wait(DEADLINE_S)
        assert time.monotonic() - begun < DEADLINE_S / 2
    stop()


class Troubled:
    """A connection that cannot be asked for a while."""

    def __init__(self, connection: apsw.Connection, trouble: list[BaseException]) -> None:
        self._connection, self._trouble = connection, trouble

    def pragma(self, name: str) -> object:
        """Raises what is planned, then answers."""
        if self._trouble:
            raise self._trouble.pop()
        return self._connection.pragma(name)

    def close(self, force: bool = False) -> None:
        """As the other's."""
        self._connection.close(force=force)


def test_watching_outlives_trouble_with_the_file(
    path: str, store: ef.Store, monkeypatch: pytest.MonkeyPatch, process: Callable[..., Other]
) -> None:
    """A poll that fails rings, so that whoever looks is told, and is tried again."""
    monkeypatch.setattr(watch, "ERROR_RETRY_INTERVAL_S", 0.01)
    trouble: list[BaseException] = [apsw.IOError("planted"), apsw.BusyError("planted"), apsw.NoMemError("planted")]
    reader = File.reader
    monkeypatch.setattr(File, "reader", lambda self: Troubled(reader(self), trouble))
    rings = threading.Semaphore(0)
    stop = engine_of(store).watch(rings.release)
    for _ in range(3):
        assert rings.acquire(timeout=DEADLINE_S)
    monkeypatch.setattr(File, "reader", reader)
    time.sleep(0.1)
    while rings.acquire(blocking=False):
        pass
    process()(f"ef.Store({path!r}).append(noted(1))")
    assert rings.acquire(timeout=DEADLINE_S)
    assert not trouble
    stop()


def test_the_thread_is_there_while_somebody_follows(store: ef.Store) -> None:
    """It comes with the first follower, goes with the last, and comes again."""
    earlier = set(threading.enumerate())  # another test's may not have ended yet

    def watching() -> bool:
        return any(thread.name == "eventfold-watch" for thread in set(threading.enumerate()) - earlier)

    for _ in range(3):
        assert not watching()
        with store.follow() as one, store.follow() as two:
            assert list(one.pages(timeout=0.01).__next__()) == []
            two.close()
            assert watching()
        ends = time.monotonic() + DEADLINE_S
        while watching() and time.monotonic() < ends:
            time.sleep(0.01)


def test_closing_ends_followers_and_their_thread(path: str) -> None:
    """A follower that waits is told that the store was closed; no connection is left behind."""
    store = ef.Store(path)
    told: list[BaseException] = []

    def follow() -> None:
        try:
            for _ in store.follow():
                pass
        except ef.EventfoldError as error:
            told.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    store.append(noted(1))
    time.sleep(0.05)
    store.close()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert [type(each) for each in told] in ([StoreClosed], [])
    assert not engine_of(store)._file.pool.is_in_use


def test_an_idle_follower_costs_next_to_nothing(path: str, process: Callable[..., Other]) -> None:
    """About one percent of a core on a quiet machine, where neighbours do not make every wake-up dearer.

    In a process that does nothing else.
    """
    idle = process()
    idle(f"store = ef.Store({path!r}); follower = store.follow(); next(follower.pages(timeout=0.01))")
    idle("begun, used = time.monotonic(), time.process_time(); time.sleep(1)")
    share = idle("(time.process_time() - used) / (time.monotonic() - begun)")
    assert share < 0.08, share


def test_an_interrupt_while_waiting_for_the_lock_leaves_it_free(path: str, process: Callable[..., Other]) -> None:
    """Ctrl-C hits a writer in the queue: it leaves, and whoever is next gets the lock."""
    holder, waiting = process(), process()
    holder(f"store = ef.Store({path!r}); lock = engine_of(store)._file.lock; lock.acquire()")
    waiting(f"store = ef.Store({path!r}, timeout={4 * DEADLINE_S})")
    waiting.begin("store.append(noted(1))")
    time.sleep(0.4)
    begun = time.monotonic()
    waiting.signal(signal.SIGINT)
    outcome = waiting.outcome()
    assert time.monotonic() - begun < DEADLINE_S, "it waited once more"
    assert outcome["error"] == "KeyboardInterrupt", outcome
    holder("lock.release()")
    time.sleep(0.1)
    holder("store.append(noted(2))")
    waiting("store.append(noted(3))")
    assert holder("[each.event.n for each in store.read()]") == [2, 3]


def test_an_interrupt_in_the_middle_of_appends_loses_and_doubles_nothing(
    path: str, process: Callable[..., Other]
) -> None:
    """Ctrl-C at any moment of a loop of appends: what was acknowledged is there once, and the store goes on."""
    writer = process()
    writer(f"store = ef.Store({path!r}); done = []")
    writer("""
def loop():
    for n in range(100_000):
        done.append(store.append(noted(n)).first)
""")
    for _ in range(12):
        writer.begin("loop()")
        time.sleep(0.03)
        writer.signal(signal.SIGINT)
        # An interrupt that meets a destructor is no error of the loop's.
        assert writer.outcome().get("error", "KeyboardInterrupt") == "KeyboardInterrupt"
    writer("store.append(noted(7))")
    positions, count = writer("done"), writer("store.count()")
    assert len(set(positions)) == len(positions)
    assert len(positions) <= count - 1 <= len(positions) + 12
    assert writer("[str(each) for each in engine_of(store).check()]") == []
    with ef.Store(path, timeout=DEADLINE_S) as store:
        store.append(noted(8))
        assert store.count() == count + 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_the_system_tells_of_a_write_and_of_nothing_else(tmp_path: Path) -> None:
    """A write to the file ends the wait and is told once; being woken ends it, too, and is no write."""
    path = tmp_path / "log"
    path.write_bytes(b"")
    notice = FileNotifier(str(path))
    try:
        assert not notice.wait(0.01)
        path.write_bytes(b"something")
        assert notice.wait(30)
        assert not notice.wait(0.01)
        threading.Timer(0.05, notice.wake).start()
        assert not notice.wait(30)
    finally:
        notice.close()
    notice.wake()  # whoever wakes it may come too late


def test_where_nobody_tells_it_is_still_noticed(
    path: str, monkeypatch: pytest.MonkeyPatch, process: Callable[..., Other]
) -> None:
    """Without notices another process's commit is found by asking, and so it is once notices fall silent."""
    other = process()
    other(f"store = ef.Store({path!r})")
    for told in (lambda _path: None, lambda _path: open_notifier(__file__)):
        monkeypatch.setattr(watch, "open_notifier", told)
        rung = threading.Event()
        with ef.Store(path) as store:
            stop = engine_of(store).watch(rung.set)
            time.sleep(0.3)
            rung.clear()
            other("store.append(noted(1))")
            assert rung.wait(30)
            stop()


def test_there_is_no_notice_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Then it is asked for now and then."""
    assert open_notifier(str(tmp_path / "missing")) is None
