"""Refused calls: the last ones for an operator to look at, numbers by reason, and a log line a second at most.

Knows: what is safe to keep of a call: its route, never its path, query or credential. Does not know: HTTP.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from datetime import UTC, datetime

import msgspec

KEPT = 1_000
LINE_EVERY_S = 1.0

logger = logging.getLogger("eventfold.server")


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """One call that was refused. `identity` is empty if no credential was recognised."""

    time: datetime
    reason: str  # the code of the error
    method: str
    route: str
    address: str
    identity: str = ""
    scope: str = ""
    request_id: str = ""


class RefusalLog:
    """The refusals since the server started: the last 1,000 of them, and how many for each reason."""

    def __init__(self) -> None:
        self.last: deque[Refused] = deque(maxlen=KEPT)
        self.counts: Counter[str] = Counter()
        self._pending: Counter[str] = Counter()
        self._next_line = 0.0

    def add(self, refused: Refused) -> None:
        """Keep one."""
        self.last.append(refused)
        self.counts[refused.reason] += 1
        self._pending[refused.reason] += 1
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY_S
            counts, self._pending = dict(self._pending), Counter()
            facts = {"address": refused.address, "route": refused.route, "identity": refused.identity, **counts}
            logger.warning("Calls were refused; the last one:", extra={"fields": facts})


def now() -> datetime:
    """Return the moment of a refusal."""
    return datetime.now(UTC)
