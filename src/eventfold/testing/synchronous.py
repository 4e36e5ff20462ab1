"""Async objects with a synchronous interface, so that a test is written once for sync and async stores.

Knows: coroutines, async generators, one event loop on a thread. Does not know: what any method does.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Protocol, TypeVar

from eventfold import concurrency

T = TypeVar("T")
CALL_TIMEOUT_S = 60.0  # a call that takes longer hangs


class Runner(Protocol):
    """Runs coroutines while the caller waits."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the result of the coroutine, or raise its error."""
        ...

    def each(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Iterate over an async iterator."""
        ...


class DirectRunner:
    """Runs coroutines that never suspend, in the caller's thread: the port, as sync stores use it."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the result of the coroutine, or raise its error."""
        return concurrency.run(coroutine)

    def each(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Raise TypeError: the port has no async iterators."""
        raise TypeError(f"{items!r} needs a loop")


class LoopRunner:
    """An event loop on a thread of its own. `run` waits for a coroutine there, in the caller's context."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="eventfold-test-loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the result of the coroutine, or raise its error; TimeoutError after a minute."""

        async def in_context() -> T:
            # A task of its own, so that the caller's `with store.context(…)` applies to it.
            return await asyncio.get_running_loop().create_task(coroutine, context=here)

        here = contextvars.copy_context()
        return asyncio.run_coroutine_threadsafe(in_context(), self.loop).result(CALL_TIMEOUT_S)

    def each(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Iterate over an async iterator, and close it with this generator."""
        end = object()

        async def following() -> Any:
            return await anext(items, end)

        try:
            while (item := self.run(following())) is not end:
                yield item
        finally:
            close = getattr(items, "aclose", None)
            if close is not None and self.loop.is_running():
                self.run(close())

    def close(self) -> None:
        """Stop the loop and its thread. Closing twice is harmless."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(CALL_TIMEOUT_S)
            self.loop.close()


class Synchronous:
    """A synchronous wrapper of an async object: its methods return results, its async iterators are iterators.

    `Synchronous(AsyncStore("memory:"), LoopRunner())` can be used as a `Store`. Returned views and followers are
    wrapped in the same way; other results are returned unchanged.
    """

    def __init__(self, inner: Any, runner: Runner) -> None:
        self._inner, self._runner = inner, runner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        return self._wrap_method(attribute) if callable(attribute) and not inspect.isclass(attribute) else attribute

    def _wrap_method(self, method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._wrap_result(method(*args, **kwargs))

        return call

    def _wrap_result(self, result: Any) -> Any:
        if inspect.iscoroutine(result):
            return self._wrap_result(self._runner.run(result))
        if inspect.isasyncgen(result):
            return self._runner.each(result)
        if hasattr(result, "__aenter__") or result is self._inner:
            return self if result is self._inner else Synchronous(result, self._runner)
        return result

    def __enter__(self) -> Synchronous:
        self._runner.run(self._inner.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self._runner.run(self._inner.__aexit__(*error))

    def __iter__(self) -> Iterator[Any]:
        return self._runner.each(aiter(self._inner))

    def __repr__(self) -> str:
        return repr(self._inner)
