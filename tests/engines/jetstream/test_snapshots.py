"""Snapshots in a cluster: any key, any size that the parts of a record can have, never a wrong one."""

from __future__ import annotations

import asyncio
import os

import pytest
from msgspec.structs import replace

from eventfold.core.snapshot import Snapshot
from eventfold.engines.jetstream import snapshots as module
from eventfold.engines.jetstream.snapshots import ClusterSnapshots, may_begin_with, record_name
from eventfold.errors import StoreUnavailable
from tests.engines.jetstream.buckets import connected, until

ONE = Snapshot("f" * 24, 1, b"0123456789abcdef", b'{"total":1}')
KEYS = ["bank.Account ['a-1']", "a.b *>\n", "日本 ✓", "k", "x" * 240, "x" * 241, "日" * 4_000, "long " * 900]


def test_keys_of_any_form_are_read_back() -> None:
    """Spaces, wildcards, other scripts and lengths beyond those of a subject; each key has its own snapshot."""

    async def scenario() -> None:
        async with connected(2) as (one, two):
            ours, theirs = ClusterSnapshots(one), ClusterSnapshots(two)
            for position, key in enumerate(KEYS, 1):
                await ours.put(key, replace(ONE, position=position))
            for position, key in enumerate(KEYS, 1):
                assert await theirs.get(key) == replace(ONE, position=position), key
            assert await theirs.get("x" * 242) is None
            assert await theirs.delete_prefix("x" * 240) == 2
            assert await theirs.get("x" * 241) is None
            assert await theirs.delete_prefix("日") == 2
            assert await ours.delete_prefix("日") == 0
            assert await ours.delete_prefix() == len(KEYS) - 4

    asyncio.run(scenario())


def test_a_large_snapshot_has_parts() -> None:
    """A state of several megabytes is stored in parts; a smaller one replaces it, and deletion leaves no part."""

    async def scenario() -> None:
        async with connected(2) as (one, two):
            ours, theirs = ClusterSnapshots(one), ClusterSnapshots(two)
            large = replace(ONE, state=os.urandom(3_000_000))
            await ours.put("k", large)
            assert await theirs.get("k") == large
            await ours.put("k", ONE)
            assert await theirs.get("k") == ONE
            assert await theirs.delete_prefix() == 1

            async def is_empty() -> bool:
                return not await ours._bucket.keys(lambda _: True)

            await until(is_empty)

    asyncio.run(scenario())


def test_parts_of_two_writers_are_no_snapshot() -> None:
    """If one writer replaced some parts only, the key has no snapshot until the next is stored."""

    async def scenario() -> None:
        async with connected() as (connection,):
            snapshots = ClusterSnapshots(connection)
            await snapshots.put("k", replace(ONE, state=os.urandom(1_500_000)))
            name = record_name("k")
            entry = await snapshots._bucket.get(f"{name}.1")
            assert entry.value is not None
            await snapshots._bucket.put(f"{name}.1", entry.value[:-1] + b"?")
            assert await snapshots.get("k") is None
            await snapshots._bucket.delete(f"{name}.1")
            assert await snapshots.get("k") is None
            await snapshots._bucket.put(f"{name}.0", b"not what a writer stores")
            assert await snapshots.get("k") is None
            await snapshots.put("k", ONE)
            assert await snapshots.get("k") == ONE

    asyncio.run(scenario())


def test_a_snapshot_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises StoreUnavailable, after which callers go on without it; the one that was there stays."""
    monkeypatch.setattr(module, "MAX_PARTS", 2)

    async def scenario() -> None:
        async with connected() as (connection,):
            snapshots = ClusterSnapshots(connection)
            await snapshots.put("k", ONE)
            with pytest.raises(StoreUnavailable, match="larger than"):
                await snapshots.put("k", replace(ONE, state=bytes(2_000_000)))
            with pytest.raises(StoreUnavailable, match="larger than"):
                await snapshots.put("k" * 400_000, ONE)
            assert await snapshots.get("k") == ONE

    asyncio.run(scenario())


def test_names_tell_which_keys_may_have_a_prefix() -> None:
    """A record is read for deletion only if its key may have the prefix; none is missed."""
    for key in KEYS:
        for prefix in ("", key[:1], key[:200], key):
            assert may_begin_with(f"{record_name(key)}.0", prefix), (key, prefix)
        assert not may_begin_with(f"{record_name(key)}.0", "?")


def test_a_missing_bucket_is_named() -> None:
    """Without its bucket a call raises an error that names it, and tells how to create it."""

    async def scenario() -> None:
        async with connected(buckets=()) as (connection,):
            snapshots = ClusterSnapshots(connection)
            with pytest.raises(StoreUnavailable, match="_snapshots"):
                await snapshots.get("k")

    asyncio.run(scenario())
