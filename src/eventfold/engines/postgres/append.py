"""A batch of append requests as one call of the store's function `append`, and the reply to that call as outcomes.

Knows: the arguments and result codes of `append` in sql/append.sql. Does not know: connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from eventfold.core.envelope import NewEvent, Receipt, digest
from eventfold.core.moment_tags import in_utc
from eventfold.core.query import ConditionClause, Item, Query
from eventfold.engines.postgres.arrays import (
    pack_bigints,
    pack_blob,
    pack_blobs,
    pack_ints,
    pack_optional_bigints,
    pack_optional_blobs,
    pack_optional_ints,
    pack_optional_texts,
    pack_text,
    pack_texts,
    pack_uuid,
    pack_uuids,
)
from eventfold.engines.postgres.checksums import new_event_crc
from eventfold.engines.postgres.large_queries import rarest_tag_first
from eventfold.engines.postgres.schema import LAYOUT
from eventfold.ports.engine import AppendRequest, Outcome
from eventfold.ports.refusals import base_event_missing, conflict, id_reused, in_the_future

APPEND_ARGUMENTS: dict[str, str] = {  # name and type, in the order in which the SQL functions declare them
    "ids": "uuid[]",
    "types": "text[]",
    "datas": "bytea[]",
    "tags": "text[]",
    "crcs": "integer[]",
    "versions": "integer[]",
    "occurreds": "bigint[]",
    "metadatas": "bytea[]",
    "codecs": "text[]",
    "keyids": "text[]",
    "owners": "integer[]",
    "offsets": "integer[]",
    "sizes": "integer[]",
    "keys": "text[]",
    "c_requests": "integer[]",
    "c_afters": "bigint[]",
    "c_groups": "integer[]",
    "i_clauses": "integer[]",
    "i_afters": "bigint[]",
    "i_tags": "text[]",
    "i_types": "text[]",
    "m_requests": "integer[]",
    "m_groups": "integer[]",
    "m_offsets": "integer[]",
}
APPEND_OPTIONS: dict[str, str] = {  # the arguments that only `append` has, not `stage`
    "careful": "boolean",
    "early": "boolean",
    "patience": "integer",
    "furthest": "bigint",
    "c_follows": "integer[]",
    "brought": "text[]",
}
MAX_MATCHES = 4_000  # pairs of a clause and an event of the same call that matches it: more are divided into two calls
MIN_ITEMS_JUDGED_IN_SETS = 64  # items of conditions: more are judged as sets (the SQL function `judge`)
PREJUDGE_EVENTS = 1_000  # a condition that spans more events than this is also judged before the lock is taken


_ANY_EVENT = Item()


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


def call_sql(function: str, arguments: dict[str, Any]) -> str:
    """A call of the function with these arguments only: an argument that is left out costs nothing.

    `layout` is always arguments, as a literal: a store of another layout refuses the call.
    """
    types = APPEND_ARGUMENTS | APPEND_OPTIONS | {"store": "text", "words": "text[]", "seen": "uuid[]"}
    return f"{function}(layout => {LAYOUT}, {', '.join(f'{name} => %b::{types[name]}' for name in arguments)})"


def guard_epoch(function: str) -> str:
    """The call, to be made for a row `s` of the store's table only: the statement then says `s.epoch = …`.

    An argument that depends on that row keeps the planner from making the call first.
    """
    return function.replace("%b::uuid[]", "CASE WHEN s.one THEN %b::uuid[] END", 1)


def append_arguments(batch: AppendBatch) -> dict[str, Any]:
    """The arguments that describe the batch, without those that have their default for every event."""
    requests = batch.requests
    if len(requests) == len(requests[0].events) == 1:
        arguments = _one_event(requests[0].events[0])
        if requests[0].key is not None:
            arguments["keys"] = pack_text(requests[0].key)
    else:
        arguments = _event_columns(requests)
    clauses = batch.clauses()
    return arguments | _condition_columns(batch, clauses) if clauses else arguments


def _one_event(event: NewEvent) -> dict[str, Any]:
    """The columns of one event. Most appends have one, and this is faster than the general case."""
    arguments: dict[str, Any] = {
        "ids": pack_uuid(event.id),
        "types": pack_text(event.type),
        "datas": pack_blob(event.data),
        "tags": pack_text(tags := "\n".join(event.tags)),
        "crcs": pack_ints([new_event_crc(event, tags)]),
    }
    if event.version != 1:
        arguments["versions"] = pack_ints([event.version])
    if event.occurred is not None:
        arguments["occurreds"] = pack_bigints([event.occurred])
    if event.metadata is not None:
        arguments["metadatas"] = pack_blob(event.metadata)
    if event.codec != "json":
        arguments["codecs"] = pack_text(event.codec)
    if event.key is not None:
        arguments["keyids"] = pack_text(event.key)
    return arguments


def _event_columns(requests: Sequence[AppendRequest]) -> dict[str, Any]:
    events = [event for request in requests for event in request.events]
    arguments: dict[str, Any] = {
        "ids": pack_uuids([event.id for event in events]),
        "types": pack_texts([event.type for event in events]),
        "datas": pack_blobs([event.data for event in events]),
        "tags": pack_texts(tags := ["\n".join(event.tags) for event in events]),
        "crcs": pack_ints([new_event_crc(event, joined) for event, joined in zip(events, tags, strict=True)]),
        "versions": pack_optional_ints([None if event.version == 1 else event.version for event in events]),
        "occurreds": pack_optional_bigints([event.occurred for event in events]),
        "metadatas": pack_optional_blobs([event.metadata for event in events]),
        "codecs": pack_optional_texts([None if event.codec == "json" else event.codec for event in events]),
        "keyids": pack_optional_texts([event.key for event in events]),
        "keys": pack_optional_texts([request.key for request in requests]),
    }
    if len(events) > len(requests):
        arguments["owners"] = pack_ints([number for number, request in enumerate(requests, 1) for _ in request.events])
        arguments["offsets"] = pack_ints([offset for request in requests for offset in range(len(request.events))])
        arguments["sizes"] = pack_ints([len(request.events) for request in requests for _ in request.events])
    return {name: value for name, value in arguments.items() if value is not None}


def _condition_columns(batch: AppendBatch, clauses: list[tuple[int, ConditionClause]]) -> dict[str, Any]:
    follows = _after_event_numbers(batch, clauses)
    items = [
        (number, clause.after, item)
        for number, (_, clause) in enumerate(clauses, 1)
        if clause.after_event is None  # behind an event of this call there is nothing in the log to judge
        for item in clause.query.items or (_ANY_EVENT,)
    ]
    arguments: dict[str, Any] = {
        "c_requests": pack_ints([owner for owner, _ in clauses]),
        "c_afters": pack_bigints([clause.after for _, clause in clauses]),
    }
    if items:
        arguments["i_clauses"] = pack_ints([item[0] for item in items])
        arguments["i_afters"] = pack_bigints([item[1] for item in items])
        asked = [item[2] for item in items]
        tags = rarest_tag_first(asked) if len(items) > MIN_ITEMS_JUDGED_IN_SETS else [item.tags for item in asked]
        arguments["i_tags"] = pack_texts(["\n".join(each) for each in tags])
        arguments["i_types"] = pack_texts(["\n".join(item.types) for item in asked])
    if follows is not None:
        arguments["c_follows"] = pack_optional_ints(follows)
    if batch.matches:
        arguments["c_groups"] = pack_optional_ints([batch.groups.get(clause.query) for _, clause in clauses])
        arguments["m_requests"] = pack_ints([match[0] for match in batch.matches])
        arguments["m_groups"] = pack_ints([match[1] for match in batch.matches])
        arguments["m_offsets"] = pack_ints([match[2] for match in batch.matches])
    return arguments


def _after_event_numbers(batch: AppendBatch, clauses: list[tuple[int, ConditionClause]]) -> list[int | None] | None:
    """For each clause the number, in this call, of the event behind which it begins; 0 for an event not in it."""
    if all(clause.after_event is None for _, clause in clauses):
        return None
    numbers = {e.id: n for n, e in enumerate((e for request in batch.requests for e in request.events), 1)}
    return [None if clause.after_event is None else numbers.get(clause.after_event, 0) for _, clause in clauses]


def numbered_clauses(batch: AppendBatch) -> list[tuple[int, ConditionClause]]:
    """Every clause as it was requested, with the number of its request, from 1."""
    return [(number, clause) for number, request in enumerate(batch.requests, 1) for clause in request.unless]


def append_options(batch: AppendBatch, seen: int) -> dict[str, Any]:
    """The greatest `after` of the conditions, and whether to judge long conditions before the lock is taken.

    `seen`: the last position known to this engine, a hint.
    """
    clauses = [clause for _, clause in batch.clauses()]
    if not clauses:
        return {}
    furthest = max(clause.after for clause in clauses)
    looking = [clause.after for clause in clauses if clause.after_event is None]
    return (
        {"furthest": furthest, "early": True}
        if looking and min(looking) + PREJUDGE_EVENTS < seen
        else {"furthest": furthest}
    )


def has_repeated_ids(request: AppendRequest) -> bool:
    """Whether two events of the request have the same id, which no log can hold."""
    return len(request.events) > 1 and len({event.id for event in request.events}) < len(request.events)


def is_stale(request: AppendRequest, epoch: int) -> bool:
    """Whether the request's condition was read in another epoch."""
    return request.epoch is not None and request.epoch != epoch and bool(request.unless)


class AppendReply(msgspec.Struct, frozen=True):
    """The row that the call returned. `outcomes` None: everything was written, without gaps, from head + 1.

    `positions`, `details`: what each outcome refers to. `registrations`: of inline projections (see inline.py).
    """

    head: int
    time: int
    outcomes: list[int] | None
    positions: list[int | None] | None
    details: list[int | None] | None
    registrations: list[str] | None = None


class EpochChanged(Exception):
    """The store is in another epoch than this connection knows. Nothing was written."""


def parse_reply(rows: Sequence[Sequence[Any]]) -> AppendReply:
    """The reply of the call. Raises EpochChanged if there is no row: the call was not made."""
    if not rows:
        raise EpochChanged
    return AppendReply(*rows[0])


WRITTEN, REPEATED, CONFLICT, ID_REUSED, BEYOND_HEAD, UNKNOWN_EVENT, CODE_MISSING = range(7)


def written_requests(batch: AppendBatch, reply: AppendReply) -> Iterator[tuple[int, int]]:
    """The requests that were written, by their index in the batch, with their first positions."""
    first = reply.head + 1
    for index, request in enumerate(batch.requests):
        if reply.outcomes is None or reply.positions is None:
            yield index, first
        elif reply.outcomes[index] == WRITTEN:
            yield index, reply.positions[index] or 0
        first += len(request.events)


def decode_outcomes(batch: AppendBatch, reply: AppendReply, store: str, epoch: int) -> list[Outcome | int | None]:
    """One outcome a request. An integer: the first position of the append it repeats. None: inline code is missing."""
    if reply.outcomes is None or reply.positions is None or reply.details is None:
        first, done = reply.head + 1, list[Outcome | int | None]()
        for request in batch.requests:
            done.append(_receipt(request, first, reply.time, store, epoch))
            first += len(request.events)
        return done
    clauses = numbered_clauses(batch)
    starts = _event_offsets(batch)
    result: list[Outcome | int | None] = []
    for index, request in enumerate(batch.requests):
        outcome, position, number = reply.outcomes[index], reply.positions[index] or 0, reply.details[index] or 0
        if outcome == WRITTEN:
            result.append(_receipt(request, position, reply.time, store, epoch))
        elif outcome == REPEATED:
            result.append(position)
        elif outcome == CONFLICT:
            result.append(conflict(clauses[number - 1][1], position, _clause_index(clauses, number)))
        elif outcome == BEYOND_HEAD:
            result.append(in_the_future(clauses[number - 1][1], position))
        elif outcome == CODE_MISSING:
            result.append(None)
        elif outcome == UNKNOWN_EVENT:
            result.append(base_event_missing(clauses[number - 1][1], _clause_index(clauses, number)))
        else:
            at: list[int | None] = [None] * len(request.events)
            at[number - 1 - starts[index]] = position
            result.append(id_reused(request.events, at))
    return result


def _clause_index(clauses: list[tuple[int, ConditionClause]], number: int) -> int:
    """The index, within its request, of the clause that has this number in the call."""
    owner = clauses[number - 1][0]
    return sum(1 for each, _ in clauses[: number - 1] if each == owner)


def _event_offsets(batch: AppendBatch) -> list[int]:
    """How many events of the call come before those of each request."""
    starts, count = list[int](), 0
    for request in batch.requests:
        starts.append(count)
        count += len(request.events)
    return starts


def _receipt(request: AppendRequest, first: int, time: int, store: str, epoch: int) -> Receipt:
    return Receipt(
        store=store,
        epoch=epoch,
        first=first,
        last=first + len(request.events) - 1,
        time=time,
        ids=tuple([event.id for event in request.events]),
        digest=digest(request.events),
    )
