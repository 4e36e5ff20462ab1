"""Room: a batch of requests as the one call that writes it, and that call's answer as outcomes.

Knows: the arguments of `append` in sql/append.sql. Does not know: connections.
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

APPEND_ARGUMENTS: dict[str, str] = {  # name and type, in the order in which the functions in SQL declare them
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
APPEND_OPTIONS: dict[str, str] = {  # the rest of what `append` takes; `stage` does not
    "careful": "boolean",
    "early": "boolean",
    "patience": "integer",
    "furthest": "bigint",
    "c_follows": "integer[]",
    "brought": "text[]",
}
MAX_MATCHES = 4_000  # pairs of a clause and an event of the same call that it matches, before the call is cut
MIN_ITEMS_JUDGED_IN_SETS = 64  # items of conditions: more are judged in sets, as the function `judge` has it
PREJUDGE_EVENTS = 1_000  # events a condition has to look through before it is judged ahead of the lock


_ANY_EVENT = Item()


class AppendBatch(msgspec.Struct, frozen=True):
    """Requests that one call can judge: no event id and no key twice.

    `matches`: (request, group, number) from 1. `standing`: the positions of events in the log behind which conditions
    of these requests begin.
    """

    requests: Sequence[AppendRequest]
    groups: dict[Query, int]
    matches: list[tuple[int, int, int]]
    positions: Mapping[bytes, int] = {}

    def after_event_ids(self, *, all: bool = False) -> list[bytes]:
        """The events behind which its conditions begin: those outside this call, or `all`."""
        asked = [c.after_event for request in self.requests for c in request.unless if c.after_event is not None]
        if not asked or all:
            return asked
        here = {event.id for request in self.requests for event in request.events}
        return [identity for identity in asked if identity not in here]

    def clauses(self) -> list[tuple[int, ConditionClause]]:
        """Every clause with the number of its request, from 1, in the order in which the call counts them.

        One that begins behind an event of known position begins there. What is answered names the clause as it was.
        """
        return [(number, self._with_position(clause)) for number, clause in numbered_clauses(self)]

    def _with_position(self, clause: ConditionClause) -> ConditionClause:
        if clause.after_event is None or clause.after_event not in self.positions:
            return clause
        return ConditionClause(clause.query, max(clause.after, self.positions[clause.after_event]))


def split_batches(requests: Sequence[AppendRequest]) -> Iterator[AppendBatch]:
    """The requests in order, cut where one repeats another's id or key, or where too many bear on each other.

    A request that repeats its own ids, which no log can hold, stands alone.
    """
    if len(requests) == 1:
        yield AppendBatch(requests, {}, [])
        return
    begun = 0
    ids: set[bytes] = set()
    keys: set[str | None] = set()
    for index, request in enumerate(requests):
        mine = [event.id for event in request.events]
        alone = has_repeated_ids(request)
        if index > begun and (alone or request.key in keys or not ids.isdisjoint(mine)):
            yield from _split_by_matches(requests[begun:index])
            begun = index
            ids, keys = set[bytes](), set[str | None]()
        if alone:
            yield AppendBatch([request], {}, [])
            begun = index + 1
            continue
        ids.update(mine)
        if request.key is not None:
            keys.add(request.key)
    if begun < len(requests):
        yield from _split_by_matches(requests[begun:])


def _split_by_matches(requests: Sequence[AppendRequest]) -> Iterator[AppendBatch]:
    """With what each request's condition has to do with the others' events."""
    queries = dict.fromkeys(clause.query for request in requests for clause in request.unless)
    if len(requests) == 1 or not queries:
        yield AppendBatch(requests, {}, [])
        return
    groups = {query: number for number, query in enumerate(queries, 1)}
    asked = _QueryIndex(groups)
    matches: list[tuple[int, int, int]] = []
    for number, request in enumerate(requests, 1):
        for offset, event in enumerate(request.events):
            matches += [(number, group, offset) for group in asked.groups_matching(event)]
        if len(matches) > MAX_MATCHES and number < len(requests):
            yield from _split_by_matches(requests[:number])
            yield from _split_by_matches(requests[number:])
            return
    yield AppendBatch(requests, groups if matches else {}, matches)


class _QueryIndex:
    """Which of some queries an event matches, found by its tags and type rather than by trying all."""

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
        """The groups of the queries that mean this event."""
        maybe = self._always | self._by_type.get(event.type, {})
        for tag in {*event.tags, *map(in_utc, event.tags)}:
            if tag in self._by_tag:
                maybe = maybe | self._by_tag[tag]
        return [group for query, group in maybe.items() if query.matches(event.type, event.tags)]


def call_sql(function: str, given: dict[str, Any]) -> str:
    """The function called with just these arguments: what most appends do not have costs them nothing.

    `layout` is always given, as a number in the text: a store of another layout refuses the call.
    """
    types = APPEND_ARGUMENTS | APPEND_OPTIONS | {"store": "text", "words": "text[]", "seen": "uuid[]"}
    return f"{function}(layout => {LAYOUT}, {', '.join(f'{name} => %b::{types[name]}' for name in given)})"


def guard_epoch(function: str) -> str:
    """The call, to be made for a row `s` of the store's table only: the statement then says `s.epoch = …`.

    An argument that depends on that row keeps the planner from making the call first.
    """
    return function.replace("%b::uuid[]", "CASE WHEN s.one THEN %b::uuid[] END", 1)


def append_arguments(batch: AppendBatch) -> dict[str, Any]:
    """The batch as `append` in SQL wants it, without what every event has by default."""
    requests = batch.requests
    if len(requests) == len(requests[0].events) == 1:
        given = _one_event(requests[0].events[0])
        if requests[0].key is not None:
            given["keys"] = pack_text(requests[0].key)
    else:
        given = _event_columns(requests)
    clauses = batch.clauses()
    return given | _condition_columns(batch, clauses) if clauses else given


def _one_event(event: NewEvent) -> dict[str, Any]:
    """One event, which most appends are, without the cost of making columns of it."""
    given: dict[str, Any] = {
        "ids": pack_uuid(event.id),
        "types": pack_text(event.type),
        "datas": pack_blob(event.data),
        "tags": pack_text(tags := "\n".join(event.tags)),
        "crcs": pack_ints([new_event_crc(event, tags)]),
    }
    if event.version != 1:
        given["versions"] = pack_ints([event.version])
    if event.occurred is not None:
        given["occurreds"] = pack_bigints([event.occurred])
    if event.metadata is not None:
        given["metadatas"] = pack_blob(event.metadata)
    if event.codec != "json":
        given["codecs"] = pack_text(event.codec)
    if event.key is not None:
        given["keyids"] = pack_text(event.key)
    return given


def _event_columns(requests: Sequence[AppendRequest]) -> dict[str, Any]:
    events = [event for request in requests for event in request.events]
    given: dict[str, Any] = {
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
        given["owners"] = pack_ints([number for number, request in enumerate(requests, 1) for _ in request.events])
        given["offsets"] = pack_ints([offset for request in requests for offset in range(len(request.events))])
        given["sizes"] = pack_ints([len(request.events) for request in requests for _ in request.events])
    return {name: value for name, value in given.items() if value is not None}


def _condition_columns(batch: AppendBatch, clauses: list[tuple[int, ConditionClause]]) -> dict[str, Any]:
    follows = _after_event_numbers(batch, clauses)
    items = [
        (number, clause.after, item)
        for number, (_, clause) in enumerate(clauses, 1)
        if clause.after_event is None  # what stands in the log now is before what is being written
        for item in clause.query.items or (_ANY_EVENT,)
    ]
    given: dict[str, Any] = {
        "c_requests": pack_ints([owner for owner, _ in clauses]),
        "c_afters": pack_bigints([clause.after for _, clause in clauses]),
    }
    if items:
        given["i_clauses"] = pack_ints([item[0] for item in items])
        given["i_afters"] = pack_bigints([item[1] for item in items])
        asked = [item[2] for item in items]
        tags = rarest_tag_first(asked) if len(items) > MIN_ITEMS_JUDGED_IN_SETS else [item.tags for item in asked]
        given["i_tags"] = pack_texts(["\n".join(each) for each in tags])
        given["i_types"] = pack_texts(["\n".join(item.types) for item in asked])
    if follows is not None:
        given["c_follows"] = pack_optional_ints(follows)
    if batch.matches:
        given["c_groups"] = pack_optional_ints([batch.groups.get(clause.query) for _, clause in clauses])
        given["m_requests"] = pack_ints([match[0] for match in batch.matches])
        given["m_groups"] = pack_ints([match[1] for match in batch.matches])
        given["m_offsets"] = pack_ints([match[2] for match in batch.matches])
    return given


def _after_event_numbers(batch: AppendBatch, clauses: list[tuple[int, ConditionClause]]) -> list[int | None] | None:
    """Per clause the number in this call of the event behind which it begins; 0 for one that is nowhere."""
    if all(clause.after_event is None for _, clause in clauses):
        return None
    numbers = {e.id: n for n, e in enumerate((e for request in batch.requests for e in request.events), 1)}
    return [None if clause.after_event is None else numbers.get(clause.after_event, 0) for _, clause in clauses]


def numbered_clauses(batch: AppendBatch) -> list[tuple[int, ConditionClause]]:
    """Every clause as it was asked, with the number of its request, from 1."""
    return [(number, clause) for number, request in enumerate(batch.requests, 1) for clause in request.unless]


def append_options(batch: AppendBatch, seen: int) -> dict[str, Any]:
    """What else `append` wants to know: the greatest `after`, and whether to judge what is far behind before the lock.

    `seen`: the furthest position known here; only a hint.
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
    """Whether two events of one request have the same id, which no log can hold."""
    return len(request.events) > 1 and len({event.id for event in request.events}) < len(request.events)


def is_stale(request: AppendRequest, epoch: int) -> bool:
    """Whether the request's condition was read in another epoch."""
    return request.epoch is not None and request.epoch != epoch and bool(request.unless)


class AppendReply(msgspec.Struct, frozen=True):
    """What the call returned. `outcomes` None: everything was written, adjacent, from head + 1.

    `folded`: the read models that every append keeps up, as texts (see inline.py).
    """

    head: int
    time: int
    outcomes: list[int] | None
    positions: list[int | None] | None
    details: list[int | None] | None
    registrations: list[str] | None = None


class EpochChanged(Exception):
    """The store is in another epoch than the connection knew. Nothing was written."""


def parse_reply(rows: Sequence[Sequence[Any]]) -> AppendReply:
    """What the call returned. Raises OtherEpoch where it was not made."""
    if not rows:
        raise EpochChanged
    return AppendReply(*rows[0])


WRITTEN, REPEATED, CONFLICT, ID_REUSED, BEYOND_HEAD, UNKNOWN_EVENT, CODE_MISSING = range(7)


def written_requests(batch: AppendBatch, answer: AppendReply) -> Iterator[tuple[int, int]]:
    """The requests that were written, by their place in the batch, with their first positions."""
    first = answer.head + 1
    for index, request in enumerate(batch.requests):
        if answer.outcomes is None or answer.positions is None:
            yield index, first
        elif answer.outcomes[index] == WRITTEN:
            yield index, answer.positions[index] or 0
        first += len(request.events)


def decode_outcomes(batch: AppendBatch, answer: AppendReply, store: str, epoch: int) -> list[Outcome | int | None]:
    """One outcome each; a repeated one as the first position of the append it repeats; None: some code is lacking."""
    if answer.outcomes is None or answer.positions is None or answer.details is None:
        first, done = answer.head + 1, list[Outcome | int | None]()
        for request in batch.requests:
            done.append(_receipt(request, first, answer.time, store, epoch))
            first += len(request.events)
        return done
    clauses = numbered_clauses(batch)
    starts = _event_offsets(batch)
    result: list[Outcome | int | None] = []
    for index, request in enumerate(batch.requests):
        outcome, place, what = answer.outcomes[index], answer.positions[index] or 0, answer.details[index] or 0
        if outcome == WRITTEN:
            result.append(_receipt(request, place, answer.time, store, epoch))
        elif outcome == REPEATED:
            result.append(place)
        elif outcome == CONFLICT:
            result.append(conflict(clauses[what - 1][1], place, _clause_index(clauses, what)))
        elif outcome == BEYOND_HEAD:
            result.append(in_the_future(clauses[what - 1][1], place))
        elif outcome == CODE_MISSING:
            result.append(None)
        elif outcome == UNKNOWN_EVENT:
            result.append(base_event_missing(clauses[what - 1][1], _clause_index(clauses, what)))
        else:
            at: list[int | None] = [None] * len(request.events)
            at[what - 1 - starts[index]] = place
            result.append(id_reused(request.events, at))
    return result


def _clause_index(clauses: list[tuple[int, ConditionClause]], what: int) -> int:
    """Which clause of its own request, from 0, the `what`th of the call is."""
    owner = clauses[what - 1][0]
    return sum(1 for each, _ in clauses[: what - 1] if each == owner)


def _event_offsets(batch: AppendBatch) -> list[int]:
    """How many events of the call stand before each request's."""
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
