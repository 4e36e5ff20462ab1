"""A batch of append requests as one call of the store's function `append`, and the reply to that call as outcomes.

Knows: the arguments and result codes of `append` in sql/append.sql. Does not know: connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from eventfold.core.envelope import NewEvent, Receipt, digest
from eventfold.core.query import ConditionClause, Item
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
from eventfold.engines.postgres.batch import AppendBatch, numbered_clauses
from eventfold.engines.postgres.checksums import new_event_crc
from eventfold.engines.postgres.large_queries import rarest_tag_first
from eventfold.engines.postgres.schema import LAYOUT
from eventfold.ports.messages import AppendRequest, Outcome
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
MIN_ITEMS_JUDGED_IN_SETS = 64  # items of conditions: more are judged as sets (the SQL function `judge`)
PREJUDGE_EVENTS = 1_000  # a condition that spans more events than this is also judged before the lock is taken


_ANY_EVENT = Item()


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
