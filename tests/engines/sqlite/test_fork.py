"""Forks: the child cannot use an inherited store, can open its own, and does not harm the parent when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import eventfold as ef
from tests.engines.sqlite.noted import assert_whole, noted

ROOT = Path(__file__).parents[3]

OPENING = """
import asyncio, os, signal, sys, threading, time
import eventfold as ef
from eventfold.errors import StoreClosed
from tests.engines.sqlite.noted import *
from tests.support.repetitions import repetitions

path = sys.argv[1]

def forked(work, leave=os._exit):
    "Run work in a child and return its process id; `leave` ends the child when work is done."
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        leave(0)
    return pid

def ended(pid):
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
"""


def run(script: str, path: str, timeout: float = 150) -> str:
    """Run the script in a program of its own, because forking a process that has threads is unsafe."""
    ran = subprocess.run(
        [sys.executable, "-c", OPENING + script, path], cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


REFUSED = """
store = ef.Store(path)
store.append(noted(1))
follower = store.follow()

def child():
    for use in (
        lambda: store.append(noted(2)),
        lambda: list(store.read()),
        lambda: store.head(),
        lambda: store.count(),
        lambda: store.tags(),
        lambda: store.stats(),
        lambda: store.backup(path + ".copy"),
        lambda: list(engine_of(store).check()),
        lambda: store.follow(),
        lambda: next(follower.pages(timeout=1)),
    ):
        try:
            use()
        except StoreClosed as refused:
            assert "fork" in refused.what and refused.remedy, refused
        else:
            raise AssertionError("an inherited store was used")
    store.close()
    store.close()

for leave in (os._exit, sys.exit):
    ended(forked(child, leave))
follower.close()
store.append(noted(3))
print(store.count())
"""


def test_an_inherited_store_is_refused_in_the_child(path: str) -> None:
    """Every call raises an error that names the fork, and closing the store in the child does nothing."""
    assert run(REFUSED, path) == "2\n"
    assert assert_whole(path) == 2


REFUSED_ASYNC = """
async def child_of(store):
    for use in (store.append(noted(2)), store.head(), store.count()):
        try:
            async with asyncio.timeout(40):
                await use
        except StoreClosed as refused:
            assert "fork" in refused.what, refused
        else:
            raise AssertionError("an inherited store was used")

async def main():
    store = ef.AsyncStore(path)
    await store.open()
    await store.append(noted(1))
    await store.count()
    return store

loop = asyncio.new_event_loop()
store = loop.run_until_complete(main())
ended(forked(lambda: asyncio.new_event_loop().run_until_complete(child_of(store))))
loop.run_until_complete(store.append(noted(3)))
print(loop.run_until_complete(store.count()))
loop.run_until_complete(store.close())
"""


def test_an_inherited_async_store_is_refused_and_does_not_wait_for_the_parents_threads(path: str) -> None:
    """The threads that worked for the parent's loop do not exist in the child: calls raise instead of waiting."""
    assert run(REFUSED_ASYNC, path) == "2\n"


OWN = """
store = ef.Store(path)
store.append(noted(0))

def child():
    with ef.Store(path) as own:
        own.append(noted(1), noted(2))
        assert own.count() >= 3

def last_closer():
    import sqlite3
    connection = sqlite3.connect(path)
    connection.execute("SELECT count(*) FROM event").fetchone()
    connection.close()

for leave in (os._exit, sys.exit) * 3:
    ended(forked(child, leave))
    ended(forked(last_closer, leave))
    store.append(noted(3))
print(store.count())
"""


def test_a_new_store_in_the_child_works_and_the_parent_keeps_its_locks(path: str) -> None:
    """Children start and end, in each way of ending, and no program believes it is the last one to use the file."""
    assert run(OWN, path) == "19\n"
    assert assert_whole(path) == 19


BUSY = """
store = ef.Store(path)
stop = threading.Event()
count = 0

def write():
    global count
    while not stop.is_set():
        store.append(*[noted(n) for n in range(20)])
        count += 20

def child():
    with ef.Store(path) as own:
        own.append(noted(1))

threads = [threading.Thread(target=write) for _ in range(3)]
for thread in threads:
    thread.start()
rounds = repetitions(6, 12)
for round in range(rounds):
    time.sleep(0.01)
    ended(forked(child, sys.exit if round % 2 else os._exit))
stop.set()
for thread in threads:
    thread.join()
assert not list(engine_of(store).check())
print(store.count() - count - rounds)
"""


def test_forks_in_the_middle_of_commits_do_no_harm(path: str) -> None:
    """Three threads are writing whenever the process forks; the children write too, and end in both ways."""
    assert run("import warnings; warnings.simplefilter('ignore')\n" + BUSY, path) == "0\n"
    assert_whole(path)


ORPHAN = """
store = ef.Store(path)
store.append(noted(1))
engine = engine_of(store)
engine._file.lock.acquire()
pid = forked(lambda: time.sleep(60))
print(pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_child_does_not_hold_the_lock_of_a_parent_that_was_killed(path: str) -> None:
    """The lock belongs to the writing process and ends with it, even if a forked child still runs."""
    ran = subprocess.Popen([sys.executable, "-c", OPENING + ORPHAN, path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert ran.stdout is not None
    orphan = int(ran.stdout.readline())
    try:
        assert ran.wait(60) == -9
        with ef.Store(path, timeout=40) as store:
            assert store.append(noted(2)).first == 2
    finally:
        os.kill(orphan, 9)
        ran.stdout.close()


HELD = """
from eventfold.engines.sqlite import pool
pool.FORK_TIMEOUT_S = 0.1
store = ef.Store(path)
store.append(noted(1))
held = engine_of(store)._file.reader()

def child():
    try:
        ef.Store(path)
    except StoreClosed as refused:
        assert "forked" in refused.what and "spawn" in refused.remedy, refused
    else:
        raise AssertionError("SQLite has no locks here")
    with ef.Store(path + ".other") as other:
        other.append(noted(1))

ended(forked(child, sys.exit))
engine_of(store)._file.pool.return_reader(held)
store.append(noted(2))
ended(forked(lambda: ef.Store(path).append(noted(3))))
print(store.count())
"""


def test_a_child_forked_in_the_middle_of_a_read_cannot_open_that_file(path: str) -> None:
    """SQLite in the child assumes locks that only the parent has, so opening is refused; other files can be opened."""
    assert run(HELD, path) == "3\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_a_pool_open_stores_of_their_own(path: str, method: str) -> None:
    """A pool created by either method writes to one file, as its parent does."""
    script = f"""
import multiprocessing
def work(n):
    with ef.Store(path) as own:
        return own.append(noted(n)).first
if __name__ == "__main__":
    with ef.Store(path) as store:
        store.append(noted(0))
        with multiprocessing.get_context({method!r}).Pool(3) as pool:
            print(sorted(pool.map(work, range(12))) == list(range(2, 14)))
"""
    if method == "spawn":  # its workers import a module, so the script has to be one
        file = Path(path).with_suffix(".py")
        file.write_text(OPENING + script)
        ran = subprocess.run(
            [sys.executable, str(file), path],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=150,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        )
        assert ran.stdout == "True\n", ran.stderr
    else:
        assert run(script, path) == "True\n"
    assert assert_whole(path) == 13
