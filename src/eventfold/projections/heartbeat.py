"""Signs of life for whoever is long at one step, so that a slow handler is not taken for a dead one.

Without them a handler that needs longer than its lease would lose it, and another runner would begin the same event,
and lose it too: effects would be done again and again, and nothing would ever be done with. Knows: a thread for each
target. Does not know: what a step does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

from eventfold.errors import EventfoldError
from eventfold.ports.target import Target
from eventfold.projections.worker import PartitionWorker


class LeaseHeartbeat:
    """Keeps the leases of those that are at work in one target, while a step takes longer than a third of a lease."""

    def __init__(self, target: Target, lease: float) -> None:
        self._target, self._lease = target, lease
        self._at_work: dict[PartitionWorker, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    @contextmanager
    def during(self, work: PartitionWorker) -> Generator[None]:
        """Around a step."""
        try:
            self._at_work[work] = time.monotonic()
            if self._thread is None:
                self._start()
            yield
        finally:
            self._at_work.pop(work, None)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._beat, name="eventfold-heart", daemon=True)
                thread.start()
                self._thread = thread  # only now: an exception in between leaves no thread that cannot be joined

    def _beat(self) -> None:
        every = self._lease / 3
        while not self._stop.wait(every):
            for work, began in tuple(self._at_work.items()):
                held = work.held
                if held is not None and time.monotonic() - began >= every:
                    asked = work.means.clock()
                    with suppress(EventfoldError):  # lost, or the database is away: whoever is at work finds out itself
                        self._target.renew_lease(held, self._lease, quietly=True)
                        work.renewed(asked)

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
