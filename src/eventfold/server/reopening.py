"""The application that a server runs, replaced by a new one when a file of its stores was replaced.

An open store refuses to go on when its file was moved, or a backup was put in its place: what it knows about the log
may be of another file. So all stores are opened again, by a new application, which takes over the calls that come from
then on. Calls in progress end with the old one; followers are asked to connect again, and their cursors are verified.
Knows: applications, calls in progress. Does not know: sockets, signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable

from starlette.types import Receive, Scope, Send

from eventfold.errors import EventfoldError
from eventfold.server.asgi import Application

log = logging.getLogger("eventfold.server")
RETRY_SECONDS = 1.0  # between two attempts to open the stores again


class Reopening:
    """An ASGI application: the one that `make` returned last. `opened` is called when its stores were opened."""

    def __init__(self, make: Callable[[], Application], opened: Callable[[], None] = lambda: None) -> None:
        self._make, self._opened = make, opened
        self.app = make()
        self._calls: Counter[Application] = Counter()
        self._call_ended = asyncio.Event()
        self._at_replacement: list[Callable[[], None]] = []

    def at_replacement(self, action: Callable[[], None]) -> None:
        """Call this function when another application takes over the calls: what it keeps of the old one is to go."""
        self._at_replacement.append(action)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application of now."""
        app = self.begin_call()
        try:
            await app(scope, receive, send)
        finally:
            self.end_call(app)

    def begin_call(self) -> Application:
        """Return the application of now: it stays open until the call has ended."""
        self._calls[self.app] += 1
        return self.app

    def end_call(self, app: Application) -> None:
        """End a call of an application that begin_call returned."""
        if app in self._calls:  # else it was replaced, and this call was not waited for any more
            self._calls[app] -= 1
        self._call_ended.set()

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None, None]:
        """Open the stores, open them again whenever that is necessary, and close them at the end."""
        try:
            await self.app.server.running.start()
            self.app.server.running.reopens = True
            self._opened()
            watching = asyncio.get_running_loop().create_task(self._watch())
            try:
                yield
            finally:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching
        finally:
            await self.app.server.running.stop()

    async def _watch(self) -> None:
        while True:
            running = self.app.server.running
            await running.damaged.wait()
            running.damaged.clear()
            if await running.has_lost_a_store():
                await self._open_again()
            await asyncio.sleep(RETRY_SECONDS)

    async def _open_again(self) -> None:
        new = self._make()
        try:
            await new.server.running.start()
        except EventfoldError as error:
            log.error("A store was replaced and cannot be opened again yet.", extra={"fields": {"code": error.code}})
            await new.server.running.stop()
            self.app.server.running.reopens = False  # until then an answer says what is wrong
            self.app.server.running.damaged.set()
            return
        new.server.running.reopens = True
        old, self.app = self.app, new
        for action in self._at_replacement:
            action()
        log.warning("A store was replaced while it was open. All stores were opened again.")
        old.server.running.stopping.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(new.server.settings.server.shutdown_seconds):
                while self._calls[old]:
                    self._call_ended.clear()
                    await self._call_ended.wait()
        del self._calls[old]
        await old.server.running.stop()
        del old
        self._opened()
