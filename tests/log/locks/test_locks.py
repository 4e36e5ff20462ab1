"""Locks work across processes, end with the process that has them, and wait without blocking a loop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.engines.sqlite.named_locks import NamedLocks
from eventfold.errors import StoreBusy

HOLDER = """
import sys, eventfold as ef
store = ef.Store(sys.argv[1])
with store.lock(ef.Query.of(tags="gate:7"), owner="the other process"):
    print("locked", flush=True)
    sys.stdin.read()
"""
GATE = ef.Query.of(tags="gate:7")


@pytest.fixture
def lock_owner(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that has the lock of gate 7."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "s.db")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process  # type: ignore[misc]
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def test_a_lock_of_another_process_is_respected_and_named(lock_owner: subprocess.Popen[str], tmp_path: Path) -> None:
    """StoreBusy names the lock's owner."""
    store = ef.Store(str(tmp_path / "s.db"))
    with pytest.raises(StoreBusy, match="the other process"), store.lock(GATE, timeout=0.05):
        raise AssertionError("the lock was given to two owners")
    store.close()


def test_a_killed_process_releases_its_locks(lock_owner: subprocess.Popen[str], tmp_path: Path) -> None:
    """After kill -9 the lock is free."""
    os.kill(lock_owner.pid, signal.SIGKILL)
    lock_owner.wait(60)
    with ef.Store(str(tmp_path / "s.db")) as store, store.lock(GATE, timeout=60):
        pass


def test_waiting_for_a_lock_does_not_block_the_loop(lock_owner: subprocess.Popen[str], tmp_path: Path) -> None:
    """Other tasks go on while one waits."""

    async def ticked() -> int:
        ticks = 0
        async with ef.AsyncStore(str(tmp_path / "s.db")) as store:

            async def wait() -> None:
                async with store.lock(GATE, timeout=1):
                    pass

            waiting = asyncio.create_task(wait())
            while not waiting.done():
                await asyncio.sleep(0.01)
                ticks += 1
            with pytest.raises(StoreBusy):
                await waiting
        return ticks

    assert asyncio.run(ticked()) > 5


def test_locks_of_several_queries_are_taken_in_one_order(tmp_path: Path) -> None:
    """Two callers that lock the same two queries, in opposite order, do not deadlock."""
    import threading

    store = ef.Store(str(tmp_path / "s.db"))
    one, two = ef.Query.of(tags="a:1"), ef.Query.of(tags="b:2")
    done: list[int] = []

    def work(*queries: ef.Query) -> None:
        for turn in range(20):
            with store.lock(*queries, timeout=90):
                done.append(turn)

    threads = [threading.Thread(target=work, args=pair) for pair in ((one, two), (two, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 40
    store.close()


def test_a_condition_is_still_judged_under_a_lock(tmp_path: Path) -> None:
    """An append without the lock still conflicts, or makes the lock's owner conflict."""

    class Seated(ef.Event, type="lock-seated"):
        seat: ef.Tag

    seat = ef.Query.of(tags="seat:1")
    with ef.Store(str(tmp_path / "s.db")) as store, store.lock(seat):
        ef.Store(str(tmp_path / "s.db")).append(Seated("1"))
        with pytest.raises(ef.AppendConflict):
            store.append(Seated("1"), unless=seat)


@pytest.mark.parametrize("times", [1, 2, 3], ids="cancelled {} times".format)
def test_a_task_cancelled_while_a_thread_takes_its_lock_leaves_none_taken(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is cancelled, a lock that the thread takes afterwards is released after it was taken."""
    path, begun, go = str(tmp_path / "s.db"), threading.Event(), threading.Event()
    take = NamedLocks.try_acquire

    def slowly(self: NamedLocks, name: str, owner: str) -> str | None:
        begun.set()
        assert go.wait(60)
        return take(self, name, owner)

    async def hold(store: ef.AsyncStore) -> None:
        async with store.lock(GATE):
            raise AssertionError("it was cancelled before")

    async def scenario() -> None:
        async with ef.AsyncStore(path) as store:
            with monkeypatch.context() as patched:
                patched.setattr(NamedLocks, "try_acquire", slowly)
                task = asyncio.create_task(hold(store))
                assert await asyncio.to_thread(begun.wait, 60)
                for _ in range(times):
                    task.cancel()
                    await asyncio.wait([task], timeout=0.1)  # long enough to unlock too early
                go.set()
                with pytest.raises(asyncio.CancelledError):
                    await task
            async with ef.AsyncStore(path) as other, other.lock(GATE, timeout=0):
                pass
            async with store.lock(GATE, timeout=0):
                pass

    asyncio.run(scenario())


def test_a_task_cancelled_while_a_thread_unlocks_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the thread would release the lock of the next owner."""
    path, begun, go = str(tmp_path / "s.db"), threading.Event(), threading.Event()
    release = NamedLocks.release

    def slowly(self: NamedLocks, name: str) -> None:
        begun.set()
        assert go.wait(60)
        release(self, name)

    async def hold(store: ef.AsyncStore) -> None:
        async with store.lock(GATE):
            monkeypatch.setattr(NamedLocks, "release", slowly)

    async def scenario() -> None:
        async with ef.AsyncStore(path) as store:
            task = asyncio.create_task(hold(store))
            assert await asyncio.to_thread(begun.wait, 60)
            task.cancel()
            await asyncio.wait([task], timeout=0.1)
            assert not task.done()
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            monkeypatch.setattr(NamedLocks, "release", release)
            async with ef.AsyncStore(path) as other, other.lock(GATE, timeout=0):
                with pytest.raises(StoreBusy):
                    async with store.lock(GATE, timeout=0):
                        raise AssertionError("the lock was given to two owners")

    asyncio.run(scenario())


def test_a_user_without_a_name_takes_locks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers may run as a user id without a name; without a descriptor the list of users is unreadable, too."""

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    with (
        ef.Store("memory:") as store,
        store.lock(GATE),
        pytest.raises(StoreBusy, match=f"user {os.getuid()} on "),
        store.lock(GATE, timeout=0),
    ):
        pass
