"""Followers, sync and async: iterators over the events of a log, old and new, with progress stored by name.

Knows: pages, the last event returned, when to wait. Does not know: how events are found, how progress is stored.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from operator import length_hint
from typing import Any

from eventfold.concurrency import CommitSignal, in_thread, run
from eventfold.core.event import Recorded
from eventfold.core.query import Cursor
from eventfold.errors import InvalidInput
from eventfold.log.follow import LogFollower
from eventfold.projections.follower_progress import FollowerProgress


class _FollowerBase:
    """What both modes share: which events were returned so far."""

    def __init__(self, following: LogFollower, signal: CommitSignal) -> None:
        self._following, self._signal = following, signal
        self._last: Recorded[Any] | None = None  # the last event returned of a page that is iterated over
        self._rest: Iterator[Recorded[Any]] = iter(())  # the rest of that page

    @property
    def cursor(self) -> Cursor:
        """The cursor of the last event returned. Store its text, and resume with `follow(after=…)`."""
        return self._following.cursor if self._last is None else self._following.cursor_of(self._last)

    @property
    def caught_up(self) -> bool:
        """Whether all events that the log had at the last read were returned."""
        return self._following.caught_up and not length_hint(self._rest)

    def _cursor(self, upto: Recorded[Any] | Cursor | None) -> Cursor:
        if upto is None:
            return self.cursor
        return upto if isinstance(upto, Cursor) else self._following.cursor_of(upto)


class Follower(_FollowerBase):
    """An iterator over events as they are committed: iterate over it, or over `pages()`.

    `close()`, from any thread, ends the iteration. `cursor` is its position. With a name the store keeps its progress:
    `acknowledge()` the events that you have handled.
    """

    def __init__(self, following: LogFollower, signal: CommitSignal, progress: FollowerProgress | None = None) -> None:
        super().__init__(following, signal)
        self._progress = progress

    def pages(self, timeout: float | None = None) -> Iterator[list[Recorded[Any]]]:
        """Yield pages of events, never empty; with `timeout`, [] each time no event came for so many seconds."""
        while not self._signal.closed:
            rest, before = list(self._rest), self._following.cursor  # of a page that was not iterated to its end
            self._signal.clear()
            try:
                page = rest or self._next()
                if page:
                    self._last = None
                    yield page
            except GeneratorExit:
                raise
            except BaseException:  # of a signal handler, before the page was yielded: yield it next time
                self._put_back(before)
                raise
            if not page and not self._signal.wait(timeout) and timeout is not None:
                yield []

    def _put_back(self, before: Cursor) -> None:
        if self._progress is None:
            self._following.cursor = before

    def _next(self) -> list[Recorded[Any]]:
        progress, following = self._progress, self._following
        if progress is None:
            return run(following.next_page())
        following.resume(progress.claim())
        page = run(following.next_page())
        if following.passed:
            progress.note(following.passed)
        else:
            progress.idle(following.cursor)
        return page

    def __iter__(self) -> Iterator[Recorded[Any]]:
        for page in self.pages():
            self._rest = iter(page)
            for recorded in self._rest:
                self._last = recorded
                yield recorded
                if self._signal.closed:
                    return
            self._last = None

    def acknowledge(self, upto: Recorded[Any] | Cursor | None = None) -> None:
        """Store the progress: all events returned so far were handled, or those up to `upto`, inclusive.

        In a loop over the follower that includes the current event, in a loop over its pages the whole page. Events
        that are not acknowledged are returned again when the name is followed again. Raises LeaseLost (another process
        follows the name now; nothing was stored), TargetUnavailable, InvalidInput where the follower has no name.
        """
        if self._progress is None:
            raise nameless()
        self._progress.acknowledge(self._cursor(upto))

    def close(self) -> None:
        """End the iteration after the current event. Another process can follow its name at once."""
        self._signal.close()
        if self._progress is not None:
            self._progress.release()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncFollower(_FollowerBase):
    """The async twin of `Follower`: `async for recorded in follower`."""

    def __init__(
        self,
        following: LogFollower,
        signal: CommitSignal,
        open_progress: Callable[[], Awaitable[FollowerProgress]] | None = None,
    ) -> None:
        super().__init__(following, signal)
        self._open_progress = open_progress
        self._progress: FollowerProgress | None = None

    async def pages(self, timeout: float | None = None) -> AsyncIterator[list[Recorded[Any]]]:
        """See Follower.pages."""
        while not self._signal.closed:
            rest = list(self._rest)  # of a page that was not iterated to its end
            self._signal.clear()
            page = rest or await self._next()
            if page:
                self._last = None
                yield page
            elif not await self._signal.wait_async(timeout) and timeout is not None:
                yield []

    async def _next(self) -> list[Recorded[Any]]:
        following = self._following
        if self._open_progress is None:
            return await following.next_page()
        if self._progress is None:
            self._progress = await self._open_progress()
        progress = self._progress
        following.resume(await in_thread(progress.claim))
        page = await following.next_page()
        if following.passed:
            await in_thread(progress.note, following.passed)
        else:
            await in_thread(progress.idle, following.cursor)
        return page

    async def __aiter__(self) -> AsyncIterator[Recorded[Any]]:
        async for page in self.pages():
            self._rest = iter(page)
            for recorded in self._rest:
                self._last = recorded
                yield recorded
                if self._signal.closed:
                    return
            self._last = None

    async def acknowledge(self, upto: Recorded[Any] | Cursor | None = None) -> None:
        """See Follower.acknowledge."""
        if self._open_progress is None:
            raise nameless()
        if self._progress is not None:
            await in_thread(self._progress.acknowledge, self._cursor(upto))

    def close(self) -> None:
        """See Follower.close. It is not awaited: the lease of its name is released a moment later."""
        self._signal.close()
        if self._progress is not None:
            self._progress.end()

    async def __aenter__(self) -> AsyncFollower:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
        if self._progress is not None:
            await in_thread(self._progress.release)


def nameless() -> InvalidInput:
    """Return the error for acknowledging events of a follower without a name."""
    return InvalidInput(
        "This follower has no name under which the store could keep its progress.",
        "Follow by name: store.follow(query, name=…); or store the text of its cursor yourself.",
    )
