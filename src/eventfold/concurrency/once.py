"""Something made once, by whoever asks first, from whichever event loop it is asked.

Knows: loops and threads. Does not know: what is made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import CoroutineType
from typing import Any, Generic, TypeVar

from eventfold.concurrency.calls import Call
from eventfold.concurrency.waiting import Promise
from eventfold.core.mutex import Mutex

T = TypeVar("T")


class _Call:
    """A call that makes the thing, or is about to."""

    def __init__(self) -> None:
        self.call = Call()
        self.promise = Promise()


class AsyncOnce(Generic[T]):
    """`await once.get(make)`: the first caller makes it, the others wait. Whoever fails leaves it to the next.

    An asyncio.Lock would not do: it belongs to one loop, and a waiter on another would never be woken.
    """

    def __init__(self) -> None:
        self._made: T | None = None
        self._making: _Call | None = None
        self._mutex = Mutex()

    def get(self, make: Callable[[], Awaitable[T]]) -> CoroutineType[Any, Any, T]:
        """The thing, to be awaited. Raises what `make` raises, to the caller it was made for."""
        mine = _Call()
        return mine.call.bind(self._get(make, mine))

    async def _get(self, make: Callable[[], Awaitable[T]], mine: _Call) -> T:
        while self._made is None:
            others = self._mutex.run(self._claim, mine)
            if others is not None:
                await others.promise.wait_on_loop()
                continue
            if self._made is not None:  # made between our look and our turn
                break
            try:
                self._made = await make()
            finally:
                self._making = None
                mine.promise.set_result(None)
        return self._made

    def _claim(self, mine: _Call) -> _Call | None:
        """Who makes it, or None: then it is this call. A call that was ended by an exception makes nothing."""
        if self._making is not None and not self._making.call.has_ended():
            return self._making
        self._making = mine
        return None
