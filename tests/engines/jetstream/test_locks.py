"""Locks in a cluster: held by one, released, free when their process was killed or stopped for long."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import pytest

from eventfold.engines.jetstream import locks as module
from eventfold.engines.jetstream.locks import ClusterLocks
from tests.engines.jetstream.buckets import connected, until
from tests.support.servers.nats import shared

HOLDER = """
import asyncio, sys
from eventfold.engines.jetstream import locks
from eventfold.engines.jetstream.connection import ClusterConnection
from eventfold.engines.jetstream.options import parse_address
async def check(): pass
async def main():
    locks.LOCK_LEASE_S = 2
    connection = ClusterConnection(*parse_address(sys.argv[1], {}), check)
    held = locks.ClusterLocks(connection)
    assert await held.try_acquire("gate", "ann") is None
    print("held", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def is_acquired(locks: ClusterLocks, owner: str) -> Callable[[], Awaitable[bool]]:
    """Return a function that tries to acquire the lock `gate`, and returns whether it did."""

    async def acquired() -> bool:
        return await locks.try_acquire("gate", owner) is None

    return acquired


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of two seconds."""
    monkeypatch.setattr(module, "LOCK_LEASE_S", 2)


def test_a_lock_is_held_by_one_caller_of_any_process() -> None:
    """Others get the owner's text, also within the process; after the release they acquire it."""

    async def scenario() -> None:
        async with connected(2) as (one, two):
            ours, theirs = ClusterLocks(one), ClusterLocks(two)
            assert await ours.try_acquire("an account: a-1 ✓", "ann") is None
            assert await ours.try_acquire("an account: a-1 ✓", "amy") == "ann"
            assert await theirs.try_acquire("an account: a-1 ✓", "bob") == "ann"
            assert await theirs.try_acquire("another", "bob") is None
            await theirs.release("an account: a-1 ✓")
            assert await theirs.try_acquire("an account: a-1 ✓", "bob") == "ann"
            await ours.release("an account: a-1 ✓")
            await ours.release("an account: a-1 ✓")
            assert await theirs.try_acquire("an account: a-1 ✓", "bob") is None
            await theirs.close()
            assert await ours.try_acquire("another", "ann") is None
            await ours.close()

    asyncio.run(scenario())


def test_many_callers_take_turns() -> None:
    """Twelve callers on three connections hold one lock one after the other, never two at once."""

    async def scenario() -> None:
        async with connected(3) as connections:
            services = [ClusterLocks(connection) for connection in connections]
            inside, most, done = 0, 0, 0

            async def work(number: int) -> None:
                nonlocal inside, most, done
                service = services[number % 3]
                for _ in range(3):
                    await until(is_acquired(service, f"{number}"))
                    inside += 1
                    most = max(most, inside)
                    await asyncio.sleep(0.001)
                    inside -= 1
                    done += 1
                    await service.release("gate")

            await asyncio.gather(*(work(number) for number in range(12)))
            assert (most, done) == (1, 36)

    asyncio.run(scenario())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_the_lock_of_a_process_that_is_gone_is_free_after_its_lease(number: signal.Signals) -> None:
    """A killed process loses its lock, and so does one that stands still; no other has it before its lease ended."""

    async def scenario() -> None:
        async with connected() as (connection,):
            url = shared().url(connection.address.names.store, monitoring="")
            command = [sys.executable, "-c", HOLDER, url]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220
                try:
                    assert process.stdout is not None
                    assert process.stdout.readline() == "held\n"
                    locks = ClusterLocks(connection)
                    assert await locks.try_acquire("gate", "bob") == "ann"
                    os.kill(process.pid, number)
                    stopped = time.monotonic()
                    await until(is_acquired(locks, "bob"))
                    assert time.monotonic() - stopped > 1.0  # its last renewal was at most half a second before
                    await locks.close()
                finally:
                    process.kill()

    asyncio.run(scenario())


def test_a_lock_that_was_forgotten_is_acquired_again(short_leases: None) -> None:
    """If its record is gone and no other caller acquired it, the next renewal stores it again."""

    async def scenario() -> None:
        async with connected(2) as (one, two):
            ours, theirs = ClusterLocks(one), ClusterLocks(two)
            assert await ours.try_acquire("gate", "ann") is None
            await ours._leases._bucket.delete(module.lock_key("gate"))
            key = module.lock_key("gate")

            async def is_stored() -> bool:
                return await theirs._leases.holder(key) is not None

            await until(is_stored)
            assert await theirs.try_acquire("gate", "bob") == "ann"
            await ours.close()
            assert await theirs.try_acquire("gate", "bob") is None
            await theirs.close()

    asyncio.run(scenario())
