"""A log in memory that fails over and loses its last events, while handles on it live on.

Knows: the port. Does not know: what is remembered above it.
"""

# pyright: basic

from __future__ import annotations

from typing import Any

from eventfold.engines.memory import MemoryEngine
from eventfold.ports.wrapping import Wrapping, wrap_services


class Log(MemoryEngine):
    """The log itself: `fail_over` takes its last events away and begins another epoch."""

    def fail_over(self, lost: int) -> None:
        """Lose the last `lost` events, which were acknowledged, and what was kept of them."""

        def lose() -> None:
            self._complete_through -= lost
            self._remove_incomplete_append()
            self.epoch += 1

        self._run_locked(lose)


class Handle(Wrapping):
    """What one process has of it: another epoch is noticed in a call, as by a connection that is made again.

    `during` is done once, in the middle of the next read, as a failover would come between two statements.
    """

    epoch = 0

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.log = log
        self.epoch = log.epoch
        self.during: Any = None

    @property
    def services(self) -> Any:
        """Those of the log, noticing as well."""
        return wrap_services(self.log.services, self.call)

    async def call(self, method: Any, *args: Any, **named: Any) -> Any:
        """Notice the epoch of the log after each call."""
        answer = await method(*args, **named)
        if method == self.log.read and self.during is not None:
            during, self.during = self.during, None
            during()
            answer = await method(*args, **named)
        self.epoch = self.log.epoch
        return answer
