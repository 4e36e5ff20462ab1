"""How many calls are handled at once, and how many wait; more are refused, so that memory and delays stay small.

Knows: one event loop. Does not know: calls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from types import TracebackType

from eventfold.server.access.errors import ServerBusy

RETRY_S = 1


class Admission:
    """`async with admission:` handles one call. Raises ServerBusy if too many wait already, or after `wait_s`."""

    def __init__(self, calls: int, waiting: int, wait_s: float) -> None:
        self._free, self._most_waiting, self._wait_s = calls, waiting, wait_s
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        """Take a place, or wait for one in the order of arrival."""
        if self._free > 0 and not self._waiting:
            self._free -= 1
            return
        if len(self._waiting) >= self._most_waiting:
            raise _busy()
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(self._wait_s):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self._release()  # the place was given at the same moment
            else:
                with contextlib.suppress(ValueError):  # _release has taken it out already
                    self._waiting.remove(place)
            if isinstance(error, TimeoutError):
                raise _busy() from None
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the place to the call that waits for longest."""
        self._release()

    def _release(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1


def _busy() -> ServerBusy:
    return ServerBusy(
        "The server has as many calls as it handles at once.",
        f"Repeat the call in {RETRY_S} second; an append with event ids or a key is not written twice.",
        retry_after=RETRY_S,
    )
