"""Watching for commits, and interrupts: every commit is announced, and no lock stays locked."""

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


def test_commits_of_another_process_notify(path: str, store: ef.Store, process: Callable[..., Other]) -> None:
    """Each commit is announced, and soon."""
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
    """A connection whose queries fail for some time."""

    def __init__(self, connection: apsw.Connection, trouble: list[BaseException]) -> None:
        self._connection, self._trouble = connection, trouble

    def pragma(self, name: str) -> object:
        """Raise the next planned error, then answer."""
        if self._trouble:
            raise self._trouble.pop()
        return self._connection.pragma(name)

    def close(self, force: bool = False) -> None:
        """Close the real connection."""
        self._connection.close(force=force)


def test_watching_survives_errors_of_the_file(
    path: str, store: ef.Store, monkeypatch: pytest.MonkeyPatch, process: Callable[..., Other]
) -> None:
    """A failing poll notifies, so that followers see the error, and is repeated."""
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


def test_the_watch_thread_runs_while_a_follower_is_open(store: ef.Store) -> None:
    """The thread starts with the first follower, ends with the last, and starts again."""
    earlier = set(threading.enumerate())  # threads of earlier tests may not have ended yet

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
    """A waiting follower ends when the store is closed; no connection is left open."""
    store = ef.Store(path)
    raised: list[BaseException] = []

    def follow() -> None:
        try:
            for _ in store.follow():
                pass
        except ef.EventfoldError as error:
            raised.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    store.append(noted(1))
    time.sleep(0.05)
    store.close()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert [type(each) for each in raised] in ([StoreClosed], [])
    assert not engine_of(store)._file.pool.is_in_use


def test_an_idle_follower_costs_next_to_nothing(path: str, process: Callable[..., Other]) -> None:
    """It is about one percent of a core on a quiet machine; on a busy one each wake-up costs more, hence the bound.

    It runs in a process that does nothing else.
    """
    idle = process()
    idle(f"store = ef.Store({path!r}); follower = store.follow(); next(follower.pages(timeout=0.01))")
    idle("begun, used = time.monotonic(), time.process_time(); time.sleep(1)")
    share = idle("(time.process_time() - used) / (time.monotonic() - begun)")
    assert share < 0.08, share


def test_an_interrupt_while_waiting_for_the_lock_leaves_it_free(path: str, process: Callable[..., Other]) -> None:
    """Ctrl-C reaches a writer that waits for the lock: it stops waiting, and the next writer gets the lock."""
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
    """Ctrl-C comes at any moment of a loop of appends: acknowledged events exist once, and the store goes on."""
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
        # Python only prints an interrupt that is raised in a destructor, so the loop may go on without an error.
        assert writer.outcome().get("error", "KeyboardInterrupt") == "KeyboardInterrupt"
    writer("store.append(noted(7))")
    positions, count = writer("done"), writer("store.count()")
    assert len(set(positions)) == len(positions)
    assert len(positions) <= count - 1 <= len(positions) + 12
    assert writer("[str(each) for each in engine_of(store).check()]") == []
    with ef.Store(path, timeout=DEADLINE_S) as store:
        store.append(noted(8))
        assert store.count() == count + 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports writes")
def test_the_notifier_reports_a_write_and_nothing_else(tmp_path: Path) -> None:
    """A write to the file ends the wait and is reported once; waking the waiter ends it, too, without a write."""
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
    notice.wake()  # waking after closing does nothing


def test_a_commit_is_noticed_without_notifications(
    path: str, monkeypatch: pytest.MonkeyPatch, process: Callable[..., Other]
) -> None:
    """Without notifications another process's commit is found by polling, also when notifications stop later."""
    other = process()
    other(f"store = ef.Store({path!r})")
    for opener in (lambda _path: None, lambda _path: open_notifier(__file__)):
        monkeypatch.setattr(watch, "open_notifier", opener)
        rung = threading.Event()
        with ef.Store(path) as store:
            stop = engine_of(store).watch(rung.set)
            time.sleep(0.3)
            rung.clear()
            other("store.append(noted(1))")
            assert rung.wait(30)
            stop()


def test_a_missing_file_has_no_notifier(tmp_path: Path) -> None:
    """The file is polled instead."""
    assert open_notifier(str(tmp_path / "missing")) is None
