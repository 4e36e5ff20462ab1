"""Stores that are not used: which files they keep open, after `max_idle` seconds and when descriptors run out."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.errors import InvalidInput, StoreDamaged
from tests.engines.sqlite.noted import Noted, assert_whole, engine_of, noted, opened

ROOT = Path(__file__).parents[3]
IDLE_S = 0.1
DEADLINE_S = 60

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted by /proc")


class Count(ef.Projection):
    """The number of events of each `who`."""

    who: str
    n: int = 0

    def evolve(self, event: Noted) -> None:
        """Add one."""
        self.n += 1


def wait_until_idle(path: str) -> None:
    """Wait until no file in a store's folder is open in this process."""
    ends = time.monotonic() + DEADLINE_S
    while opened(os.path.dirname(path)):
        assert time.monotonic() < ends, opened(os.path.dirname(path))
        time.sleep(0.01)


def test_an_idle_store_has_nothing_open_and_opens_itself_again(path: str) -> None:
    """Events, rows and locks work again after each reopening; remembered states stay correct."""
    with ef.Store(path, max_idle=IDLE_S) as store:
        for n in range(1, 4):
            store.append(noted(n, "a"))
            store.project(Count)
            assert [row.n for row in store.rows(Count)] == [n]
            wait_until_idle(path)
        assert [recorded.event.n for recorded in store.read()] == [1, 2, 3]
        with store.lock(ef.Query.of(tags="who:a")):
            assert store.count() == 3
        with ef.Store(path) as other:
            wait = other.append(noted(4, "a")).last
        assert store.head() == wait == 4
    assert assert_whole(path) == 4


STAYS_OPEN = """
import os, sys, threading
import eventfold as ef
from tests.engines.sqlite.noted import noted, opened
folder = os.path.dirname(sys.argv[1])
with ef.Store(sys.argv[1]) as store:
    store.append(noted(1))
    before = len(opened(folder))
    assert before and threading.enumerate() == [threading.main_thread()], threading.enumerate()
    assert store.count() == 1 and len(opened(folder)) == before
"""


def test_a_store_without_max_idle_stays_open(path: str) -> None:
    """Only `close` closes it, and no thread is started for that: the process has no other threads."""
    ran = subprocess.run(
        [sys.executable, "-c", STAYS_OPEN, path], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert ran.returncode == 0, ran.stderr


def test_a_store_with_a_waiting_follower_is_not_idle(path: str) -> None:
    """A waiting follower receives an event that another store appends, however long that takes."""
    with ef.Store(path, max_idle=IDLE_S) as store, ef.Store(path) as other, store.follow() as follower:
        pages = follower.pages(timeout=DEADLINE_S)
        other.append(noted(1))
        assert len(next(pages)) == 1
        time.sleep(3 * IDLE_S)
        assert not engine_of(store)._file.close_while_idle()
        other.append(noted(2))
        assert len(next(pages)) == 1


def test_threads_that_use_a_store_while_it_closes_itself_get_right_answers(path: str) -> None:
    """It closes itself between any two calls, as often as possible."""
    with ef.Store(path, max_idle=1000) as store:
        file = engine_of(store)._file
        rested = 0
        for n in range(1, 200):
            store.append(noted(n))
            rested += file.close_while_idle()
            assert store.count() == n
        assert rested > 100


def test_no_thread_writes_before_the_file_is_reopened_completely(path: str) -> None:
    """Reopening forgets cached names: within the transaction of another thread it would forget what that created."""
    begun, forgets = threading.Event(), threading.Event()
    with ef.Store(path, max_idle=60.0) as store:
        store.append(noted(1))
        file = engine_of(store)._file
        assert file.close_while_idle()
        forget = file.on_reopen

        def forget_late() -> None:
            begun.set()
            forgets.wait(DEADLINE_S)
            forget()

        file.on_reopen = forget_late
        reader = threading.Thread(target=store.head)
        reader.start()
        assert begun.wait(DEADLINE_S)
        writer = threading.Thread(target=store.append, args=(noted(2),))
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
        forgets.set()
        for thread in (reader, writer):
            thread.join()
        assert store.head() == 2
    assert assert_whole(path) == 2


def test_a_file_that_was_replaced_meanwhile_is_noticed(path: str, tmp_path: Path) -> None:
    """Another file at the path of an idle store is not used in its place."""
    with ef.Store(path, max_idle=1000) as store:
        store.append(noted(1))
        store.backup(str(tmp_path / "copy"))
        assert engine_of(store)._file.close_while_idle()
        os.replace(tmp_path / "copy", path)
        with pytest.raises(StoreDamaged, match="replaced"):
            store.count()


@pytest.mark.parametrize("wrong", [0, -1, True, "5", float("nan")])
def test_an_invalid_max_idle_is_refused(path: str, wrong: object) -> None:
    """The refusal comes before a file is created."""
    with pytest.raises(InvalidInput, match="max_idle"):
        ef.Store(path, max_idle=wrong)
    assert not os.path.exists(path)


MANY = """
import os, resource, shutil, sys, time
import eventfold as ef
from tests.engines.sqlite.noted import noted
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
folder, options = sys.argv[1], eval(sys.argv[2])
ef.Store(f"{folder}/0.db").close()
for n in range(1, 500):
    shutil.copyfile(f"{folder}/0.db", f"{folder}/{n}.db")
before = len(os.listdir("/proc/self/fd"))
stores = [ef.Store(f"{folder}/{n}.db", durability="normal", **options) for n in range(500)]
for n, store in enumerate(stores[::10]):
    store.append(noted(n))
assert sum(store.count() for store in stores) == 50
if options:
    ends = time.monotonic() + 60
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < ends:
        time.sleep(0.05)
    print(len(os.listdir("/proc/self/fd")) - before)
for store in stores:
    store.close()
print(len(os.listdir("/proc/self/fd")) - before)
"""


@pytest.mark.parametrize("options", [{}, {"max_idle": 0.5}], ids=["default", "max_idle"])
def test_five_hundred_stores_fit_into_a_thousand_descriptors(tmp_path: Path, options: dict[str, float]) -> None:
    """With `max_idle` nothing stays open after it; without it, the stores unused for longest are closed."""
    ran = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path), repr(options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.split()) == {"0"}


def test_an_error_without_free_descriptors_names_the_limit(path: str) -> None:
    """No store was idle: the error names the limit, and is not StoreNotFound.

    It runs in a process of its own: a store that an earlier test left open in this one would free descriptors.
    """
    command = [sys.executable, "-m", "tests.without_descriptors", path]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("StoreUnavailable: ")
    assert "file descriptor" in ran.stdout and "ulimit -n" in ran.stdout
