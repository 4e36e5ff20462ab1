"""A log in memory that fails over and loses its last events, while stores on it stay open.

Knows: the port. Does not know: what is cached above it.
"""

# pyright: basic

from __future__ import annotations

from typing import Any

from eventfold.engines.memory import MemoryEngine
from eventfold.ports.wrapping import Wrapping, wrap_services


class Log(MemoryEngine):
    """The log itself: `fail_over` removes its last events and begins another epoch."""

    def fail_over(self, lost: int) -> None:
        """Lose the last `lost` events, which were acknowledged, and everything derived from them."""

        def lose() -> None:
            self._complete_through -= lost
            self._remove_incomplete_append()
            self.epoch += 1

        self._run_locked(lose)


class Handle(Wrapping):
    """The engine of one process: it notices another epoch inside a call, as a connection that is made again does.

    `during` runs once, inside the next read, as a failover happens between two statements.
    """

    epoch = 0

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.log = log
        self.epoch = log.epoch
        self.during: Any = None

    @property
    def services(self) -> Any:
        """Return the services of the log, which notice the epoch as well."""
        return wrap_services(self.log.services, self.call)

    async def call(self, method: Any, *args: Any, **named: Any) -> Any:
        """Call a method of the log, then notice its epoch."""
        answer = await method(*args, **named)
        if method == self.log.read and self.during is not None:
            during, self.during = self.during, None
            during()
            answer = await method(*args, **named)
        self.epoch = self.log.epoch
        return answer
