"""Events that this process has written and not imported yet, and judging appends as if they were in the replica.

An import takes longer than judging. So that the next append need not wait for it, the last few events are kept here
until that append is on its way to the servers.
Knows: what a condition over a few events in memory finds. Does not know: streams, how the replica judges.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from eventfold.concurrency.run import run
from eventfold.core.envelope import StoredEvent
from eventfold.core.query import ConditionClause, Matcher
from eventfold.ports.messages import AppendRequest, Head
from eventfold.ports.services import Judged, Replica


class PendingEvents:
    """The last events of the log, in whole appends, directly after the head of the replica."""

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []
        self.keys: list[tuple[str, int]] = []

    def add(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]]) -> None:
        """Add events that were written after those that are here."""
        self.events += events
        self.keys += keys

    def take(self) -> tuple[list[StoredEvent], list[tuple[str, int]]]:
        """Remove everything and return it."""
        taken = self.events, self.keys
        self.events, self.keys = [], []
        return taken

    def judge(self, service: Replica, requests: Sequence[AppendRequest], now: int) -> Judged | None:
        """Judge requests against the replica and these events. None: it has to be done after they are imported.

        That is so wherever a verdict is not plain acceptance, or may depend on these events in another way than by
        the types and tags of a condition.
        """
        first, last = self.events[0], self.events[-1]
        before = [self._judged_before(request, first.position - 1, last.position) for request in requests]
        asked = [request for request in before if request is not None]
        if len(asked) < len(before):
            return None
        judged = run(service.judge(asked, now))
        if judged.head.position != first.position - 1 or any(verdict is not None for verdict in judged.verdicts):
            return None
        head = Head(last.position, last.time, last.id)
        return Judged(head=head, time=max(judged.time, last.time), verdicts=judged.verdicts, keys=judged.keys)

    def _judged_before(self, request: AppendRequest, head: int, last: int) -> AppendRequest | None:
        """The request as it is judged at the replica's head; None if these events may matter to it."""
        if request.key is not None:
            return None
        ids = {event.id for event in self.events}
        if any(event.id in ids for event in request.events):
            return None
        clauses: list[ConditionClause] = []
        for clause in request.unless:
            if clause.after_event is not None or clause.after > last or self._has_match(clause):
                return None
            clauses.append(clause if clause.after <= head else replace(clause, after=head))
        return request if not clauses else replace(request, unless=tuple(clauses))

    def _has_match(self, clause: ConditionClause) -> bool:
        after = [event for event in self.events if event.position > clause.after]
        if not after or not clause.query.items:
            return bool(after)
        matches = Matcher(clause.query).matches
        return any(matches(event.type, event.tag_set) for event in after)
