"""Append requests cut into batches that one call can judge, with the matches of their conditions and their events.

Knows: requests, conditions. Does not know: SQL, the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from eventfold.core.envelope import NewEvent
from eventfold.core.query import ConditionClause, Query
from eventfold.core.tags import in_utc
from eventfold.ports.messages import AppendRequest

MAX_MATCHES = 4_000  # pairs of a clause and an event of the same call that matches it: more are divided into two calls


class AppendBatch(msgspec.Struct, frozen=True):
    """Requests that one call can judge: no event id and no request key occurs twice.

    `groups`: the distinct queries of the conditions, numbered from 1. `matches`: (request, group, offset of the event
    in its request) for each event that matches a query. `positions`: of stored events behind which conditions begin.
    """

    requests: Sequence[AppendRequest]
    groups: dict[Query, int]
    matches: list[tuple[int, int, int]]
    positions: Mapping[bytes, int] = {}

    def after_event_ids(self, *, all: bool = False) -> list[bytes]:
        """The ids of events behind which conditions begin: those not in this call, or `all`."""
        asked = [c.after_event for request in self.requests for c in request.unless if c.after_event is not None]
        if not asked or all:
            return asked
        here = {event.id for request in self.requests for event in request.events}
        return [identity for identity in asked if identity not in here]

    def clauses(self) -> list[tuple[int, ConditionClause]]:
        """Every clause with the number of its request, from 1, in the order of the call's arguments.

        A clause that begins behind an event of known position begins at that position. The reply refers to the clause
        as it was requested.
        """
        return [(number, self._with_position(clause)) for number, clause in numbered_clauses(self)]

    def _with_position(self, clause: ConditionClause) -> ConditionClause:
        if clause.after_event is None or clause.after_event not in self.positions:
            return clause
        return ConditionClause(clause.query, max(clause.after, self.positions[clause.after_event]))


def split_batches(requests: Sequence[AppendRequest]) -> Iterator[AppendBatch]:
    """The requests in order, divided before a repeated id or key, or where too many match each other's conditions.

    A request with a repeated id, which no log can hold, is a batch of its own.
    """
    if len(requests) == 1:
        yield AppendBatch(requests, {}, [])
        return
    begun = 0
    ids: set[bytes] = set()
    keys: set[str | None] = set()
    for index, request in enumerate(requests):
        own_ids = [event.id for event in request.events]
        alone = has_repeated_ids(request)
        if index > begun and (alone or request.key in keys or not ids.isdisjoint(own_ids)):
            yield from _split_by_matches(requests[begun:index])
            begun = index
            ids, keys = set[bytes](), set[str | None]()
        if alone:
            yield AppendBatch([request], {}, [])
            begun = index + 1
            continue
        ids.update(own_ids)
        if request.key is not None:
            keys.add(request.key)
    if begun < len(requests):
        yield from _split_by_matches(requests[begun:])


def _split_by_matches(requests: Sequence[AppendRequest]) -> Iterator[AppendBatch]:
    """Batches with the matches of each request's events and the other requests' conditions."""
    queries = dict.fromkeys(clause.query for request in requests for clause in request.unless)
    if len(requests) == 1 or not queries:
        yield AppendBatch(requests, {}, [])
        return
    groups = {query: number for number, query in enumerate(queries, 1)}
    index = _QueryIndex(groups)
    matches: list[tuple[int, int, int]] = []
    for number, request in enumerate(requests, 1):
        for offset, event in enumerate(request.events):
            matches += [(number, group, offset) for group in index.groups_matching(event)]
        if len(matches) > MAX_MATCHES and number < len(requests):
            yield from _split_by_matches(requests[:number])
            yield from _split_by_matches(requests[number:])
            return
    yield AppendBatch(requests, groups if matches else {}, matches)


class _QueryIndex:
    """Finds which of several queries an event matches, by its tags and type instead of by trying all."""

    def __init__(self, groups: dict[Query, int]) -> None:
        self._by_tag: dict[str, dict[Query, int]] = {}
        self._by_type: dict[str, dict[Query, int]] = {}
        self._always: dict[Query, int] = {}
        for query, group in groups.items():
            if not query.items:
                self._always[query] = group
            for item in query.items:
                if item.tags:
                    self._by_tag.setdefault(item.tags[0], {})[query] = group
                for name in () if item.tags else item.types:
                    self._by_type.setdefault(name, {})[query] = group

    def groups_matching(self, event: NewEvent) -> list[int]:
        """The numbers of the queries that this event matches."""
        maybe = self._always | self._by_type.get(event.type, {})
        for tag in {*event.tags, *map(in_utc, event.tags)}:
            if tag in self._by_tag:
                maybe = maybe | self._by_tag[tag]
        return [group for query, group in maybe.items() if query.matches(event.type, event.tags)]


def numbered_clauses(batch: AppendBatch) -> list[tuple[int, ConditionClause]]:
    """Every clause as it was requested, with the number of its request, from 1."""
    return [(number, clause) for number, request in enumerate(batch.requests, 1) for clause in request.unless]


def has_repeated_ids(request: AppendRequest) -> bool:
    """Whether two events of the request have the same id, which no log can hold."""
    return len(request.events) > 1 and len({event.id for event in request.events}) < len(request.events)


def is_stale(request: AppendRequest, epoch: int) -> bool:
    """Whether the request's condition was read in another epoch."""
    return request.epoch is not None and request.epoch != epoch and bool(request.unless)
