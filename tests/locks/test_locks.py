"""Locks hold across processes, end with the process that held them, and wait without blocking a loop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.errors import StoreBusy

HOLDER = """
import sys, eventfold as ef
store = ef.Store(sys.argv[1])
with store.lock(ef.Query.of(tags="gate:7"), owner="the other process"):
    print("held", flush=True)
    sys.stdin.read()
"""
GATE = ef.Query.of(tags="gate:7")


@pytest.fixture
def held(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock of gate 7."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "s.db")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process  # type: ignore[misc]
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def test_a_lock_of_another_process_is_respected_and_named(held: subprocess.Popen[str], tmp_path: Path) -> None:
    """StoreBusy says who has it."""
    store = ef.Store(str(tmp_path / "s.db"))
    with pytest.raises(StoreBusy, match="the other process"), store.lock(GATE, timeout=0.05):
        raise AssertionError("it was given away twice")
    store.close()


def test_a_killed_process_lets_go_of_its_locks(held: subprocess.Popen[str], tmp_path: Path) -> None:
    """kill -9, and the lock is free."""
    os.kill(held.pid, signal.SIGKILL)
    held.wait(10)
    with ef.Store(str(tmp_path / "s.db")) as store, store.lock(GATE, timeout=5):
        pass


def test_waiting_for_a_lock_does_not_block_the_loop(held: subprocess.Popen[str], tmp_path: Path) -> None:
    """Other tasks go on while one waits."""

    async def ticked() -> int:
        ticks = 0
        async with ef.AsyncStore(str(tmp_path / "s.db")) as store:

            async def wait() -> None:
                async with store.lock(GATE, timeout=0.3):
                    pass

            waiting = asyncio.create_task(wait())
            while not waiting.done():
                await asyncio.sleep(0.01)
                ticks += 1
            with pytest.raises(StoreBusy):
                await waiting
        return ticks

    assert asyncio.run(ticked()) > 5


def test_locks_of_several_questions_are_taken_in_one_order(tmp_path: Path) -> None:
    """Two who lock the same two questions, named the other way round, never wait in a circle."""
    import threading

    store = ef.Store(str(tmp_path / "s.db"))
    one, two = ef.Query.of(tags="a:1"), ef.Query.of(tags="b:2")
    done: list[int] = []

    def work(*asked: ef.Query) -> None:
        for turn in range(20):
            with store.lock(*asked, timeout=30):
                done.append(turn)

    threads = [threading.Thread(target=work, args=pair) for pair in ((one, two), (two, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 40
    store.close()


def test_the_condition_stays_the_safety(tmp_path: Path) -> None:
    """Whoever decides without the lock is still refused, or refuses the one who has it."""

    class Seated(ef.Event, type="lock-seated"):
        seat: ef.Tag

    seat = ef.Query.of(tags="seat:1")
    with ef.Store(str(tmp_path / "s.db")) as store, store.lock(seat):
        ef.Store(str(tmp_path / "s.db")).append(Seated("1"))
        with pytest.raises(ef.AppendConflict):
            store.append(Seated("1"), unless=seat)
