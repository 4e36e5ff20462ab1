"""An engine that injects planned faults, to test the code that uses it.

Knows: the port. Does not know: which engine is wrapped, sync or async mode, databases.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from eventfold.core.renamed import refuse_old_attributes
from eventfold.errors import AppendUnconfirmed, StoreBusy
from eventfold.ports.engine import Engine
from eventfold.ports.messages import AppendRequest, Outcome
from eventfold.ports.wrapping import Wrapping

NO_FAULT: tuple[str, Any] = ("nothing", None)


@refuse_old_attributes("Faulty")
class Faulty(Wrapping):
    """A wrapper of an engine that fails as planned: `ef.Store(Faulty(MemoryEngine()))`.

    Each fault is for one of the next commits, in order; a commit without a planned fault succeeds. A fault applies to
    a whole commit, which may contain the appends of several callers. `blocks=True` makes a store treat an engine that
    never blocks as one that does, so that async appends are committed in groups on a thread.
    """

    def __init__(self, engine: Engine, *, blocks: bool | None = None) -> None:
        super().__init__(engine)
        if blocks is not None:
            self.capabilities = msgspec.structs.replace(engine.capabilities, blocks=blocks)
        self.commits: list[int] = []  # the number of requests in each commit, failed ones included
        self._planned: deque[tuple[str, Any]] = deque()
        self._lock = threading.Lock()

    def lose_reply(self, times: int = 1) -> Faulty:
        """The next commits are written, and their reply is lost: AppendUnconfirmed."""
        return self._plan("lose", None, times)

    def fail_before(self, error: BaseException | None = None, times: int = 1) -> Faulty:
        """The next commits are not written: `error` is raised instead (default: StoreBusy)."""
        return self._plan("before", error or StoreBusy("Another writer held the store.", "Try again."), times)

    def fail_after(self, error: BaseException, times: int = 1) -> Faulty:
        """The next commits are written, and then `error` is raised."""
        return self._plan("after", error, times)

    def drop_request(self, times: int = 1) -> Faulty:
        """The next commits are not written, and their reply is lost: AppendUnconfirmed."""
        return self._plan("before", lost_reply_error(), times)

    def delay(self, seconds: float, times: int = 1) -> Faulty:
        """The next commits start `seconds` later, and block the thread that writes them."""
        return self._plan("delay", seconds, times)

    def hold(self) -> Gate:
        """The next commit waits before it is written, until the returned gate is opened."""
        gate = Gate()
        self._plan("hold", gate, 1)
        return gate

    def before(self, call: Callable[[], object]) -> Faulty:
        """Call a function just before the next commit, for example one that writes to the same store."""
        return self._plan("call", call, 1)

    def clear(self) -> Faulty:
        """Remove all planned faults."""
        with self._lock:
            self._planned.clear()
        return self

    def _plan(self, what: str, how: Any, times: int) -> Faulty:
        with self._lock:
            self._planned.extend([(what, how)] * times)
        return self

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See Engine.append_many; applies the next planned fault."""
        with self._lock:
            self.commits.append(len(requests))
            what, how = self._planned.popleft() if self._planned else NO_FAULT
        if what == "before":
            raise how
        if what == "delay":
            time.sleep(how)
        elif what == "hold":
            how.pass_through()
        elif what == "call":
            how()
        outcomes = await super().append_many(requests)
        if what == "lose":
            raise lost_reply_error()
        if what == "after":
            raise how
        return outcomes


class Gate:
    """Blocks one commit until it is opened; `arrived` waits until the commit has reached it."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._arrived = threading.Event()

    def arrived(self, timeout: float = 60.0) -> bool:
        """Wait until the commit has reached the gate, at most `timeout` seconds."""
        return self._arrived.wait(timeout)

    def open(self) -> None:
        """Let the commit continue."""
        self._open.set()

    def pass_through(self, timeout: float = 120.0) -> None:
        """Called by the commit: report arrival, and wait until the gate is open."""
        self._arrived.set()
        self._open.wait(timeout)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *error: object) -> None:
        self.open()


def lost_reply_error() -> AppendUnconfirmed:
    """The error for a reply that was lost."""
    return AppendUnconfirmed("The reply of the store was lost.", "Repeat the identical append.")
