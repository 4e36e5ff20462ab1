"""Joint commits: pages of several read models, written to one target in one transaction.

A transaction of a target takes a lock that appends may need. Read models of one process that follow the log together
therefore commit together: the first one that has a page waits a moment for those that are at work on theirs, and
commits all of them. Each page keeps its own checkpoint and ledger. If anything fails, or waits long for a lock on rows,
nothing of the joint transaction is written, and every page is committed by its own thread, which meets the failure or
the lock that is its own.
Knows: threads, transactions of a target. Does not know: how a page is folded, what a failure means.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, cast

from eventfold.ports.target import Checkpoint, PartitionKey, Target, TargetTransaction

MEET_S = 0.01  # how long a page waits for the pages of other read models that are at work
CHECK_AGAIN_S = 0.5  # between checks of a page that waits: an exception may end the thread that was to commit it
MAX_EVENTS = 2_000  # in the pages of one transaction, unless it has one page only

Write = Callable[[TargetTransaction], Checkpoint]


class JointTarget(Protocol):
    """A target that can change the rows and checkpoints of several partitions in one transaction.

    `commits_jointly`: whether it is worth waiting for pages of others.
    """

    commits_jointly: bool

    def joint_transaction(self, several: bool) -> AbstractContextManager[Callable[[PartitionKey], TargetTransaction]]:
        """Begin a transaction, as `transaction` does; the function returns it for each partition.

        A crash of the database may undo the whole transaction after its commit. `several`: it writes pages of several
        partitions, and fails rather than waits long for a lock that only one of them may need.
        """
        ...


class _Page:
    """A page to commit: what writes it, and how it ended."""

    __slots__ = ("checkpoint", "events", "is_alone", "key", "write")

    def __init__(self, key: PartitionKey, events: int, write: Write) -> None:
        self.key, self.events, self.write = key, events, write
        self.checkpoint: Checkpoint | None = None  # after the commit
        self.is_alone = False  # its own thread must commit it

    @property
    def is_done(self) -> bool:
        return self.is_alone or self.checkpoint is not None


class JointCommits:
    """Commits the pages of the read models of one runner and one target."""

    def __init__(self, target: JointTarget, clock: Callable[[], float] = time.monotonic, meet: float = MEET_S) -> None:
        self._target, self._clock, self._meet = target, clock, meet
        self._expected: dict[PartitionKey, float] = {}  # when each read model began its work, or will begin it
        self._waiting: list[_Page] = []
        self._leader: threading.Thread | None = None
        self._changed = threading.Condition()

    def expect(self, key: PartitionKey, at: float) -> None:
        """Note that a read model will begin to work on a page at this time of the clock: others wait for it then."""
        with self._changed:
            self._expected[key] = at

    def leave(self, key: PartitionKey) -> None:
        """Note that a read model has ended its work: others do not wait for it."""
        with self._changed:
            if self._expected.pop(key, None) is not None:
                self._changed.notify_all()

    def commit(self, key: PartitionKey, events: int, write: Write) -> Checkpoint:
        """Commit a page of so many events, perhaps together with others. Returns what `write` returned.

        `write` may be called twice, and by another thread: it must change nothing but the transaction. Raises what
        `write` or the target raises, never because of another page.
        """
        page = _Page(key, events, write)
        with self._changed:
            self._expected.pop(key, None)
            self._waiting.append(page)
            self._changed.notify_all()
            while not page.is_done and self._leader is not None and self._leader.is_alive():
                self._changed.wait(CHECK_AGAIN_S)
            if not page.is_done:
                self._leader = threading.current_thread()
        if not page.is_done:
            self._lead(page)
        if page.checkpoint is not None:
            return page.checkpoint
        with self._target.joint_transaction(several=False) as of:
            return write(of(key))

    def _lead(self, own: _Page) -> None:
        """Commit the own page with those of others that are ready, or will be soon."""
        pages: list[_Page] = []
        moved: list[Checkpoint] = []
        try:
            with self._changed:
                self._changed.wait_for(self._has_no_one_at_work, self._meet)
                pages = self._next_pages(own)
            if len(pages) > 1:
                moved = self._write(pages)
        except Exception:  # noqa: BLE001 (each page meets its own failure when it is committed alone)
            moved = []
        finally:
            with self._changed:
                for page, checkpoint in zip(pages, moved, strict=False):
                    page.checkpoint = checkpoint
                for page in pages or [own]:
                    page.is_alone = page.checkpoint is None
                self._waiting = [page for page in self._waiting if not page.is_done]
                self._leader = None
                self._changed.notify_all()

    def _has_no_one_at_work(self) -> bool:
        now = self._clock()
        return not any(at <= now for at in self._expected.values())

    def _next_pages(self, own: _Page) -> list[_Page]:
        """Return the own page and others, in the order of their keys, which is the same in every process."""
        pages, events = [own], own.events
        for page in self._waiting:
            if page is not own and events + page.events <= MAX_EVENTS:
                pages.append(page)
                events += page.events
        return sorted(pages, key=lambda page: (page.key.name, page.key.generation, page.key.partition))

    def _write(self, pages: list[_Page]) -> list[Checkpoint]:
        with self._target.joint_transaction(several=True) as of:
            return [page.write(of(page.key)) for page in pages]


def joint_commits(target: Target) -> JointCommits | None:
    """Return an object that commits pages of this target together; None if the target cannot do that."""
    return JointCommits(cast("JointTarget", target)) if getattr(target, "commits_jointly", False) else None
