"""Locks of cancelled callers are released at once, not when the store is closed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import eventfold as ef
from eventfold.engines.postgres.connection import AsyncConnection

GATE = ef.Query.of(tags="gate:7")


@pytest.mark.parametrize("statement", ["pg_try_advisory_lock", "set_config('application_name'", "pg_advisory_unlock"])
@pytest.mark.parametrize("answered", [False, True], ids=["before the server answers", "afterwards"])
def test_a_task_cancelled_at_a_lock_leaves_none_taken(
    statement: str, answered: bool, url: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is cancelled while the lock is taken or released: another store gets it within a moment."""
    fetch = AsyncConnection.fetch

    async def scenario() -> None:
        reached = asyncio.Event()

        async def slowly(self: AsyncConnection, sql: str, *args: Any, **kwargs: Any) -> Any:
            if statement not in sql:
                return await fetch(self, sql, *args, **kwargs)
            rows = await fetch(self, sql, *args, **kwargs) if answered else None
            reached.set()
            await asyncio.sleep(600)
            return rows

        async def hold(store: ef.AsyncStore) -> None:
            async with store.lock(GATE):
                pass

        async with (
            ef.AsyncStore(url, schema=schema) as store,
            ef.AsyncStore(url, schema=schema) as other,
        ):
            with monkeypatch.context() as patched:
                patched.setattr(AsyncConnection, "fetch", slowly)
                task = asyncio.create_task(hold(store))
                await asyncio.wait_for(reached.wait(), 60)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            async with other.lock(GATE, timeout=60):
                pass
            async with store.lock(GATE, timeout=60):
                pass

    asyncio.run(scenario())
