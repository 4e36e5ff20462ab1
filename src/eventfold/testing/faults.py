"""An engine that goes wrong on request, to see that whoever stands on it survives.

Knows: the port. Does not know: which engine is inside, modes, databases.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from eventfold.errors import AppendUnconfirmed, StoreBusy
from eventfold.ports.engine import AppendRequest, Capabilities, Engine, Outcome

NO_FAULT: tuple[str, Any] = ("nothing", None)


class Faulty:
    """An engine around an engine, opened by a store in its place: `ef.Store(Faulty(MemoryEngine()))`.

    Plan what befalls the next commits, in order; a commit for which nothing is planned goes through. The
    faults strike whole commits, which may hold the appends of several callers. `blocks=True` makes a store
    treat an engine that never blocks as one that does, so that async appends are combined on a thread.
    """

    def __init__(self, engine: Engine, *, blocks: bool | None = None) -> None:
        self.inner = engine
        self.name = engine.name
        self.capabilities: Capabilities = (
            engine.capabilities if blocks is None else msgspec.structs.replace(engine.capabilities, blocks=blocks)
        )
        self.commits: list[int] = []  # how many requests each commit held, faulty ones included
        self._planned: deque[tuple[str, Any]] = deque()
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return f"Faulty({self.inner!r})"

    def lose_reply(self, times: int = 1) -> Faulty:
        """The next commits are written, and their answer is lost: AppendUnconfirmed."""
        return self._plan("lose", None, times)

    def fail_before(self, error: BaseException | None = None, times: int = 1) -> Faulty:
        """The next commits are not written: `error` is raised instead (StoreBusy unless given)."""
        return self._plan("before", error or StoreBusy("Another writer held the store.", "Try again."), times)

    def fail_after(self, error: BaseException, times: int = 1) -> Faulty:
        """The next commits are written, and then `error` is raised."""
        return self._plan("after", error, times)

    def drop_request(self, times: int = 1) -> Faulty:
        """The next commits are not written, and their answer is lost: AppendUnconfirmed."""
        return self._plan("before", lost_reply_error(), times)

    def delay(self, seconds: float, times: int = 1) -> Faulty:
        """The next commits begin `seconds` later, blocking the thread that writes them."""
        return self._plan("delay", seconds, times)

    def hold(self) -> Gate:
        """The next commit waits, before it is written, until the gate returned here is opened."""
        gate = Gate()
        self._plan("hold", gate, 1)
        return gate

    def before(self, call: Callable[[], object]) -> Faulty:
        """Do something just before the next commit, such as writing to the same store as a rival would."""
        return self._plan("call", call, 1)

    def clear(self) -> Faulty:
        """Forget whatever is planned."""
        with self._lock:
            self._planned.clear()
        return self

    def _plan(self, what: str, how: Any, times: int) -> Faulty:
        with self._lock:
            self._planned.extend([(what, how)] * times)
        return self

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port; then see what was planned."""
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
        outcomes = await self.inner.append_many(requests)
        if what == "lose":
            raise lost_reply_error()
        if what == "after":
            raise how
        return outcomes


class Gate:
    """Holds one commit until it is opened. `arrived` tells when the commit stands before it."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._arrived = threading.Event()

    def arrived(self, timeout: float = 60.0) -> bool:
        """Wait, `timeout` seconds at the most, until the commit stands before the gate."""
        return self._arrived.wait(timeout)

    def open(self) -> None:
        """Let the commit through."""
        self._open.set()

    def pass_through(self, timeout: float = 120.0) -> None:
        """What the commit does: say that it is here, and wait."""
        self._arrived.set()
        self._open.wait(timeout)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *error: object) -> None:
        self.open()


def lost_reply_error() -> AppendUnconfirmed:
    """The error of an answer that did not come."""
    return AppendUnconfirmed("The answer of the store was lost.", "Repeat the identical append.")
