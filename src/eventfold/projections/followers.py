"""Followers, as a user holds them, in either mode: events as they come, and progress by name.

Knows: pages, the event in hand, when to wait. Does not know: how events are found, how progress is kept.
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


class _Given:
    """What both modes know: which events have been given so far."""

    def __init__(self, following: LogFollower, bell: CommitSignal) -> None:
        self._following, self._bell = following, bell
        self._given: Recorded[Any] | None = None  # the last event of a page that is being given one by one
        self._rest: Iterator[Recorded[Any]] = iter(())  # and what is left of that page

    @property
    def cursor(self) -> Cursor:
        """How far the events already given reach: keep its text, and resume with `follow(after=…)`."""
        return self._following.cursor if self._given is None else self._following.cursor_of(self._given)

    @property
    def caught_up(self) -> bool:
        """Whether the events given so far are all there were when it last looked."""
        return self._following.caught_up and not length_hint(self._rest)

    def _cursor(self, upto: Recorded[Any] | Cursor | None) -> Cursor:
        if upto is None:
            return self.cursor
        return upto if isinstance(upto, Cursor) else self._following.cursor_of(upto)


class Follower(_Given):
    """Events as they come: iterate over it, or over `pages()`; `cursor` says how far you are. Close it to end.

    Iterating ends when it is closed, from any thread. `timeout` (seconds) of `pages` yields [] when nothing came. With
    a name its progress is kept in the store: `acknowledge()` what you have dealt with.
    """

    def __init__(self, following: LogFollower, bell: CommitSignal, kept: FollowerProgress | None = None) -> None:
        super().__init__(following, bell)
        self._kept = kept

    def pages(self, timeout: float | None = None) -> Iterator[list[Recorded[Any]]]:
        """Pages of events, never empty; with `timeout`, an empty one whenever nothing came for so long."""
        while not self._bell.closed:
            rest, before = list(self._rest), self._following.cursor  # of a page that was left half way
            self._bell.clear()
            try:
                page = rest or self._next()
                if page:
                    self._given = None
                    yield page
            except GeneratorExit:
                raise
            except BaseException:  # of a signal's handler, before the page was given: it is still to be
                self._put_back(before)
                raise
            if not page and not self._bell.wait(timeout) and timeout is not None:
                yield []

    def _put_back(self, before: Cursor) -> None:
        if self._kept is None:
            self._following.cursor = before

    def _next(self) -> list[Recorded[Any]]:
        kept, following = self._kept, self._following
        if kept is None:
            return run(following.next_page())
        following.resume(kept.take())
        page = run(following.next_page())
        if following.passed:
            kept.note(following.passed)
        else:
            kept.idle(following.cursor)
        return page

    def __iter__(self) -> Iterator[Recorded[Any]]:
        for page in self.pages():
            self._rest = iter(page)
            for recorded in self._rest:
                self._given = recorded
                yield recorded
                if self._bell.closed:
                    return
            self._given = None

    def acknowledge(self, upto: Recorded[Any] | Cursor | None = None) -> None:
        """Keep the progress: all events given so far have been dealt with; or those up to and including one.

        In the loop over a follower that includes the event in hand, in the loop over its pages the whole page. What
        is given and not acknowledged comes again when the name is followed again. Raises LeaseLost (somebody else
        follows it now; nothing was kept), TargetUnavailable, InvalidInput where the follower has no name.
        """
        if self._kept is None:
            raise nameless()
        self._kept.acknowledge(self._cursor(upto))

    def close(self) -> None:
        """End the iteration after the event in hand; its name may be followed by somebody else at once."""
        self._bell.close()
        if self._kept is not None:
            self._kept.release()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncFollower(_Given):
    """The twin of `Follower`: `async for recorded in follower`."""

    def __init__(
        self,
        following: LogFollower,
        bell: CommitSignal,
        keeping: Callable[[], Awaitable[FollowerProgress]] | None = None,
    ) -> None:
        super().__init__(following, bell)
        self._keeping = keeping
        self._kept: FollowerProgress | None = None

    async def pages(self, timeout: float | None = None) -> AsyncIterator[list[Recorded[Any]]]:
        """See Follower.pages."""
        while not self._bell.closed:
            rest = list(self._rest)  # of a page that was left half way
            self._bell.clear()
            page = rest or await self._next()
            if page:
                self._given = None
                yield page
            elif not await self._bell.wait_async(timeout) and timeout is not None:
                yield []

    async def _next(self) -> list[Recorded[Any]]:
        following = self._following
        if self._keeping is None:
            return await following.next_page()
        if self._kept is None:
            self._kept = await self._keeping()
        kept = self._kept
        following.resume(await in_thread(kept.take))
        page = await following.next_page()
        if following.passed:
            await in_thread(kept.note, following.passed)
        else:
            await in_thread(kept.idle, following.cursor)
        return page

    async def __aiter__(self) -> AsyncIterator[Recorded[Any]]:
        async for page in self.pages():
            self._rest = iter(page)
            for recorded in self._rest:
                self._given = recorded
                yield recorded
                if self._bell.closed:
                    return
            self._given = None

    async def acknowledge(self, upto: Recorded[Any] | Cursor | None = None) -> None:
        """See Follower.acknowledge."""
        if self._keeping is None:
            raise nameless()
        if self._kept is not None:
            await in_thread(self._kept.acknowledge, self._cursor(upto))

    def close(self) -> None:
        """See Follower.close. Not awaited: it rings a bell, and a name is free a moment later."""
        self._bell.close()
        if self._kept is not None:
            self._kept.end()

    async def __aenter__(self) -> AsyncFollower:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
        if self._kept is not None:
            await in_thread(self._kept.release)


def nameless() -> InvalidInput:
    """The error for progress that is to be kept without a name."""
    return InvalidInput(
        "This follower has no name, so there is nowhere to keep its progress.",
        "Follow by name: store.follow(query, name=…); or keep the text of its cursor yourself.",
    )
