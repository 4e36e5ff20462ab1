"""One server for many tests of this process: each test adds its stores to it, and removes them.

Knows: the application. Does not know: what a test does with a store.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any
from uuid import uuid4

from eventfold.aio import AsyncStore
from eventfold.server import Settings, application
from eventfold.server.schemas.kept import StoreSchemas
from eventfold.server.settings import EventSettings
from tests.support.servers.http import serving

TIMEOUT_S = 60.0


class StoreServer:
    """A server in a thread, which accepts events of any type. It runs until the process ends."""

    def __init__(self) -> None:
        settings = Settings(events=EventSettings(accept_unknown=True))
        self.app = application({}, settings=settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.app.server.running.at_start(self._note_loop)
        self._serving = serving(self.app)
        self.url: str = self._serving.__enter__()

    async def _note_loop(self) -> None:
        self._loop = asyncio.get_running_loop()

    def add(self, address: str, **options: Any) -> str:
        """Serve another store, and return its address."""
        name = f"s{uuid4().hex}"
        store = AsyncStore(address, **options)
        self._run(store.open())
        server = self.app.server
        server.stores[name], server.schemas[name] = store, StoreSchemas(store)
        return f"{self.url}/{name}"

    def remove(self, address: str) -> None:
        """Close a store that was added."""
        server, name = self.app.server, address.rpartition("/")[2]

        async def remove() -> None:
            await server.remote.forget(name)
            del server.schemas[name]
            await server.stores.pop(name).close()

        self._run(remove())

    def _run(self, coroutine: Any) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT_S)


@cache
def shared() -> StoreServer:
    """The server of this process."""
    return StoreServer()
