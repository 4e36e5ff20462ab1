"""Room: something made once, by whoever asks first, from whichever event loop it is asked.

Knows: loops and threads. Does not know: what is made.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """`await once.get(make)`: the first caller makes it, the others wait. Whoever fails leaves it to the next.

    An asyncio.Lock would not do: it belongs to one loop, and a waiter on another would never be woken.
    """

    def __init__(self) -> None:
        self._made: T | None = None
        self._making: Future[None] | None = None
        self._mutex = threading.Lock()

    async def get(self, make: Callable[[], Awaitable[T]]) -> T:
        """The thing. Raises what `make` raises, to the caller it was made for."""
        while self._made is None:
            with self._mutex:
                others, mine = self._making, Future[None]()
                if self._made is not None:  # made between our look and our turn
                    break
                if others is None:
                    self._making = mine
            if others is not None:
                await asyncio.shield(asyncio.wrap_future(others))
                continue
            try:
                self._made = await make()
            finally:
                self._making = None
                mine.set_result(None)
        return self._made
