"""Whether each store can be used: it answers in time, and its disk has space. Asked at most once a second.

Knows: stores, disks, times. Does not know: HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import msgspec

from eventfold.aio import AsyncStore
from eventfold.concurrency import in_thread
from eventfold.errors import EventfoldError
from eventfold.server.settings import Settings
from eventfold.server.store_files import file_of, free_bytes, is_writable

KEEP_SECONDS = 1.0  # an answer is given again for this long, however often it is asked for


class StoreState(msgspec.Struct, frozen=True):
    """Whether a store can be used: `code` None, or why it cannot; whether it can be written to."""

    code: str | None
    read_only: bool

    @property
    def is_ready(self) -> bool:
        """Whether it can be used."""
        return self.code is None


class Readiness:
    """The states of the stores of a server."""

    def __init__(self, stores: Mapping[str, AsyncStore], settings: Settings) -> None:
        self._stores, self._settings = stores, settings
        self._checks: dict[str, asyncio.Task[str | None]] = {}  # one for each store; also those that do not end
        self._round: asyncio.Task[dict[str, StoreState]] | None = None
        self._checked_at = 0.0

    async def states(self) -> dict[str, StoreState]:
        """The state of each store by name, at most a second old. It takes at most `health.check_seconds`."""
        now = time.monotonic()
        known = self._round
        if known is None or (known.done() and now - self._checked_at >= KEEP_SECONDS):
            self._checked_at = now
            self._round = known = asyncio.get_running_loop().create_task(self._check())
        return await asyncio.shield(known)

    async def _check(self) -> dict[str, StoreState]:
        loop = asyncio.get_running_loop()
        for name, store in self._stores.items():
            pending = self._checks.get(name)
            if pending is None or pending.done():
                self._checks[name] = loop.create_task(self._code(store))
        await asyncio.wait(self._checks.values(), timeout=self._settings.health.check_seconds)
        return {name: await self._state(name) for name in self._stores}

    async def _state(self, name: str) -> StoreState:
        check, read_only = self._checks[name], self._settings.read_only
        if not check.done():
            return StoreState("store-timeout", read_only)
        code = check.result()
        if code is None and not read_only:
            file = file_of(self._stores[name])
            read_only = file is not None and not await in_thread(is_writable, file)
        return StoreState(code, read_only)

    async def _code(self, store: AsyncStore) -> str | None:
        """Why a store cannot be used; None if it can."""
        try:
            await store.head()
            file = file_of(store)
            if file is None:
                return None
            free = await in_thread(free_bytes, file)
        except EventfoldError as error:
            return error.code
        except FileNotFoundError:  # reads go on in the open file
            return "store-not-found"
        except OSError:
            return "store-unavailable"
        is_full = free < self._settings.health.free_disk_bytes and not self._settings.read_only
        return "disk-full" if is_full else None
