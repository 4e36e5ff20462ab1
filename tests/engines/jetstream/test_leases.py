"""Leases: one holder at a time, renewed while it lives, free when it does not, without comparing clocks."""

from __future__ import annotations

import asyncio
import time

from eventfold.engines.jetstream.buckets import Bucket
from eventfold.engines.jetstream.connection import ClusterConnection
from eventfold.engines.jetstream.leases import Lease, Leases, Record
from tests.engines.jetstream.buckets import connected, until


def leases_of(connection: ClusterConnection, ttl_s: int = 1, *, reacquires: bool = False) -> tuple[Leases, list[str]]:
    """Return leases on the bucket of locks, and the keys of those that will be lost."""
    lost: list[str] = []
    bucket = Bucket(connection, connection.address.names.bucket("locks"), 2.0)
    return Leases(bucket, ttl_s, lost=lambda lease: lost.append(lease.key), reacquires=reacquires), lost


async def acquired(leases: Leases, key: str, note: str) -> Lease:
    """Acquire a lease, as soon as it is free."""
    found: list[Lease | Record] = []

    async def is_acquired() -> bool:
        found.append(await leases.acquire(key, note))
        return isinstance(found[-1], Lease)

    await until(is_acquired)
    lease = found[-1]
    assert isinstance(lease, Lease)
    return lease


def test_a_lease_has_one_holder_and_is_kept_by_renewals() -> None:
    """Beyond its TTL others read who holds it; after its release it is theirs, and nothing is left of it."""

    async def scenario() -> None:
        async with connected(2) as (one, two):
            (holder, lost), (other, _) = leases_of(one), leases_of(two)
            lease = await holder.acquire("writer", "ann")
            assert isinstance(lease, Lease)
            end = time.monotonic() + 1.6
            while time.monotonic() < end:
                found = await other.acquire("writer", "bob")
                assert isinstance(found, Record)
                assert found.note == "ann"
                await asyncio.sleep(0.05)
            assert lease.is_held()
            assert lease.renewed > 3
            await holder.release(lease)
            assert not lease.is_held()
            theirs = await other.acquire("writer", "bob")
            assert isinstance(theirs, Lease)
            assert await holder.holder("writer") is not None
            await other.release(theirs)
            assert await holder.holder("writer") is None
            bucket = Bucket(one, one.address.names.bucket("locks"))

            async def is_empty() -> bool:
                return not await bucket.keys(lambda _: True)

            await until(is_empty)
            assert lost == []

    asyncio.run(scenario())


def test_a_lease_of_a_lost_holder_ends_by_the_servers_clock() -> None:
    """A holder that renews no more has lost its lease before another caller can have it, and is called back."""

    async def scenario() -> None:
        async with connected(2) as (one, two):
            (holder, lost), (other, _) = leases_of(one, 2), leases_of(two, 2)
            lease = await holder.acquire("writer", "ann")
            assert isinstance(lease, Lease)

            async def fail(*_: object, **__: object) -> None:
                await asyncio.sleep(60)

            holder._bucket.put = fail  # type: ignore[method-assign]  # as if the network lost what it sends
            held: list[bool] = []

            async def is_taken() -> bool:
                held.append(lease.is_held())
                return isinstance(await other.acquire("writer", "bob"), Lease)

            await until(is_taken)
            assert not lease.is_held()
            assert held[0]
            await until(lambda: lost == ["writer"])
            await other.close()

    asyncio.run(scenario())


def test_fifty_callers_at_once_are_one_holder() -> None:
    """Of callers on three connections exactly one acquires a free lease; the others read its name."""

    async def scenario() -> None:
        async with connected(3) as connections:
            each = [leases_of(connection)[0] for connection in connections]
            for attempt in range(5):
                found = await asyncio.gather(*(each[n % 3].acquire(f"k{attempt}", f"{n}") for n in range(50)))
                holders = [lease.record.note for lease in found if isinstance(lease, Lease)]
                assert len(holders) == 1
                assert {record.note for record in found if isinstance(record, Record)} == set(holders)
            for leases in each:
                await leases.close()

    asyncio.run(scenario())


def test_a_lease_is_taken_from_a_holder_only_under_the_revision_that_was_read() -> None:
    """Instead of a holder that does not answer, a caller replaces its record, unless it was renewed meanwhile."""

    async def scenario() -> None:
        async with connected(2) as (one, two):
            (holder, lost), (other, _) = leases_of(one), leases_of(two)
            lease = await holder.acquire("writer", "ann")
            assert isinstance(lease, Lease)
            read = await other.holder("writer")
            assert read is not None
            await until(lambda: lease.renewed > 1)
            refused = await other.acquire("writer", "bob", instead_of=read[1].revision)
            assert isinstance(refused, Record)

            async def is_taken() -> bool:
                read = await other.holder("writer")
                assert read is not None
                return isinstance(await other.acquire("writer", "bob", instead_of=read[1].revision), Lease)

            await until(is_taken)
            await until(lambda: lost == ["writer"])
            assert not lease.is_held()
            await holder.release(lease)  # has no effect on the new holder's
            read = await holder.holder("writer")
            assert read is not None
            assert read[0] == "bob"
            await other.close()

    asyncio.run(scenario())


def test_a_cancelled_attempt_leaves_no_lease() -> None:
    """A caller that is cancelled at any moment holds nothing afterwards."""

    async def scenario() -> None:
        async with connected(2) as (one, two):
            (holder, _), (other, _) = leases_of(one, 10), leases_of(two, 10)
            for delay_ms in range(6):
                task = asyncio.create_task(holder.acquire("writer", "ann"))
                await asyncio.sleep(delay_ms / 1_000)
                if task.cancel():
                    await asyncio.wait([task])
                if not task.cancelled() and isinstance(task.result(), Lease):
                    await holder.close()
                lease = await acquired(other, "writer", "bob")
                await other.release(lease)

    asyncio.run(scenario())
