"""A log in memory that fails over and loses its last events, while handles on it live on.

Knows: the port. Does not know: what is remembered above it.
"""

# pyright: basic

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventfold.engines.memory import MemoryEngine
from eventfold.ports.messages import AppendRequest, Outcome


class Log(MemoryEngine):
    """The log itself: `fail_over` takes its last events away and begins another epoch."""

    def fail_over(self, lost: int) -> None:
        """Lose the last `lost` events, which were acknowledged, and what was kept of them."""

        def lose() -> None:
            self._complete_through -= lost
            self._remove_incomplete_append()
            self.epoch += 1

        self._run_locked(lose)


class Handle:
    """What one process has of it: another epoch is noticed in a call, as by a connection that is made again.

    `during` is done once, in the middle of the next read, as a failover would come between two statements.
    """

    name = "memory"

    def __init__(self, log: Log) -> None:
        self.log = log
        self.capabilities = log.capabilities
        self.epoch = log.epoch
        self.during: Any = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.log, name)
        if name not in ("head", "count", "position_at", "event_id", "boundary", "receipt_of", "snapshot", "read"):
            return found

        async def noticing(*args: Any, **named: Any) -> Any:
            answer = await found(*args, **named)
            if name == "read" and self.during is not None:
                during, self.during = self.during, None
                during()
                answer = await found(*args, **named)
            self.epoch = self.log.epoch
            return answer

        return noticing

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        outcomes = await self.log.append_many(requests)
        self.epoch = self.log.epoch
        return outcomes
