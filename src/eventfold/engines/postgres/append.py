"""Room: a batch of requests as the one call that writes it, and that call's answer as outcomes.

Knows: the arguments of `append` in sql/append.sql. Does not know: connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from eventfold.core.envelope import NewEvent, Receipt, digest
from eventfold.core.moment_tags import in_utc
from eventfold.core.query import Clause, Item, Query
from eventfold.engines.postgres.arrays import (
    bigints,
    bigints_or_none,
    blob,
    blobs,
    blobs_or_none,
    ints,
    ints_or_none,
    text,
    texts,
    texts_or_none,
    uuid,
    uuids,
)
from eventfold.engines.postgres.checksums import crc_of_new
from eventfold.engines.postgres.many import walked_first
from eventfold.engines.postgres.schema import LAYOUT
from eventfold.ports.engine import AppendRequest, Outcome
from eventfold.ports.refusals import built_on_nothing, conflict, id_reused, in_the_future

ARGUMENTS: dict[str, str] = {  # name and type, in the order in which the functions in SQL declare them
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
HOW: dict[str, str] = {  # the rest of what `append` takes; `stage` does not
    "careful": "boolean",
    "early": "boolean",
    "patience": "integer",
    "furthest": "bigint",
    "c_follows": "integer[]",
    "brought": "text[]",
}
MOST_MATCHES = 4_000  # pairs of a clause and an event of the same call that it matches, before the call is cut
MANY = 64  # items of conditions: more are judged in sets, as the function `judge` has it
LONG = 1_000  # events a condition has to look through before it is judged ahead of the lock


_ANYTHING = Item()


class Batch(msgspec.Struct, frozen=True):
    """Requests that one call can judge: no event id and no key twice.

    `matches`: (request, group, number) from 1. `standing`: the positions of events in the log behind which conditions
    of these requests begin.
    """

    requests: Sequence[AppendRequest]
    groups: dict[Query, int]
    matches: list[tuple[int, int, int]]
    standing: Mapping[bytes, int] = {}

    def behind(self, *, all: bool = False) -> list[bytes]:
        """The events behind which its conditions begin: those outside this call, or `all`."""
        asked = [c.behind for request in self.requests for c in request.unless if c.behind is not None]
        if not asked or all:
            return asked
        here = {event.id for request in self.requests for event in request.events}
        return [identity for identity in asked if identity not in here]

    def clauses(self) -> list[tuple[int, Clause]]:
        """Every clause with the number of its request, from 1, in the order in which the call counts them.

        One that begins behind an event of known position begins there. What is answered names the clause as it was.
        """
        return [(number, self._placed(clause)) for number, clause in clauses_of(self)]

    def _placed(self, clause: Clause) -> Clause:
        if clause.behind is None or clause.behind not in self.standing:
            return clause
        return Clause(clause.query, max(clause.after, self.standing[clause.behind]))


def batches(requests: Sequence[AppendRequest]) -> Iterator[Batch]:
    """The requests in order, cut where one repeats another's id or key, or where too many bear on each other.

    A request that repeats its own ids, which no log can hold, stands alone.
    """
    if len(requests) == 1:
        yield Batch(requests, {}, [])
        return
    begun = 0
    ids: set[bytes] = set()
    keys: set[str | None] = set()
    for index, request in enumerate(requests):
        mine = [event.id for event in request.events]
        alone = repeats_itself(request)
        if index > begun and (alone or request.key in keys or not ids.isdisjoint(mine)):
            yield from _bearing(requests[begun:index])
            begun = index
            ids, keys = set[bytes](), set[str | None]()
        if alone:
            yield Batch([request], {}, [])
            begun = index + 1
            continue
        ids.update(mine)
        if request.key is not None:
            keys.add(request.key)
    if begun < len(requests):
        yield from _bearing(requests[begun:])


def _bearing(requests: Sequence[AppendRequest]) -> Iterator[Batch]:
    """With what each request's condition has to do with the others' events."""
    queries = dict.fromkeys(clause.query for request in requests for clause in request.unless)
    if len(requests) == 1 or not queries:
        yield Batch(requests, {}, [])
        return
    groups = {query: number for number, query in enumerate(queries, 1)}
    asked = _Asked(groups)
    matches: list[tuple[int, int, int]] = []
    for number, request in enumerate(requests, 1):
        for offset, event in enumerate(request.events):
            matches += [(number, group, offset) for group in asked.by(event)]
        if len(matches) > MOST_MATCHES and number < len(requests):
            yield from _bearing(requests[:number])
            yield from _bearing(requests[number:])
            return
    yield Batch(requests, groups if matches else {}, matches)


class _Asked:
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

    def by(self, event: NewEvent) -> list[int]:
        """The groups of the queries that mean this event."""
        maybe = self._always | self._by_type.get(event.type, {})
        for tag in {*event.tags, *map(in_utc, event.tags)}:
            if tag in self._by_tag:
                maybe = maybe | self._by_tag[tag]
        return [group for query, group in maybe.items() if query.matches(event.type, event.tags)]


def call(function: str, given: dict[str, Any]) -> str:
    """The function called with just these arguments: what most appends do not have costs them nothing.

    `layout` is always given, as a number in the text: a store of another layout refuses the call.
    """
    types = ARGUMENTS | HOW | {"store": "text", "words": "text[]", "seen": "uuid[]"}
    return f"{function}(layout => {LAYOUT}, {', '.join(f'{name} => %b::{types[name]}' for name in given)})"


def arguments(batch: Batch) -> dict[str, Any]:
    """The batch as `append` in SQL wants it, without what every event has by default."""
    requests = batch.requests
    if len(requests) == len(requests[0].events) == 1:
        given = _lone(requests[0].events[0])
        if requests[0].key is not None:
            given["keys"] = text(requests[0].key)
    else:
        given = _many(requests)
    clauses = batch.clauses()
    return given | _conditions(batch, clauses) if clauses else given


def _lone(event: NewEvent) -> dict[str, Any]:
    """One event, which most appends are, without the cost of making columns of it."""
    given: dict[str, Any] = {
        "ids": uuid(event.id),
        "types": text(event.type),
        "datas": blob(event.data),
        "tags": text(tags := "\n".join(event.tags)),
        "crcs": ints([crc_of_new(event, tags)]),
    }
    if event.version != 1:
        given["versions"] = ints([event.version])
    if event.occurred is not None:
        given["occurreds"] = bigints([event.occurred])
    if event.metadata is not None:
        given["metadatas"] = blob(event.metadata)
    if event.codec != "json":
        given["codecs"] = text(event.codec)
    if event.key is not None:
        given["keyids"] = text(event.key)
    return given


def _many(requests: Sequence[AppendRequest]) -> dict[str, Any]:
    events = [event for request in requests for event in request.events]
    given: dict[str, Any] = {
        "ids": uuids([event.id for event in events]),
        "types": texts([event.type for event in events]),
        "datas": blobs([event.data for event in events]),
        "tags": texts(tags := ["\n".join(event.tags) for event in events]),
        "crcs": ints([crc_of_new(event, joined) for event, joined in zip(events, tags, strict=True)]),
        "versions": ints_or_none([None if event.version == 1 else event.version for event in events]),
        "occurreds": bigints_or_none([event.occurred for event in events]),
        "metadatas": blobs_or_none([event.metadata for event in events]),
        "codecs": texts_or_none([None if event.codec == "json" else event.codec for event in events]),
        "keyids": texts_or_none([event.key for event in events]),
        "keys": texts_or_none([request.key for request in requests]),
    }
    if len(events) > len(requests):
        given["owners"] = ints([number for number, request in enumerate(requests, 1) for _ in request.events])
        given["offsets"] = ints([offset for request in requests for offset in range(len(request.events))])
        given["sizes"] = ints([len(request.events) for request in requests for _ in request.events])
    return {name: value for name, value in given.items() if value is not None}


def _conditions(batch: Batch, clauses: list[tuple[int, Clause]]) -> dict[str, Any]:
    follows = _follows(batch, clauses)
    items = [
        (number, clause.after, item)
        for number, (_, clause) in enumerate(clauses, 1)
        if clause.behind is None  # what stands in the log now is before what is being written
        for item in clause.query.items or (_ANYTHING,)
    ]
    given: dict[str, Any] = {
        "c_requests": ints([owner for owner, _ in clauses]),
        "c_afters": bigints([clause.after for _, clause in clauses]),
    }
    if items:
        given["i_clauses"] = ints([item[0] for item in items])
        given["i_afters"] = bigints([item[1] for item in items])
        asked = [item[2] for item in items]
        tags = walked_first(asked) if len(items) > MANY else [item.tags for item in asked]
        given["i_tags"] = texts(["\n".join(each) for each in tags])
        given["i_types"] = texts(["\n".join(item.types) for item in asked])
    if follows is not None:
        given["c_follows"] = ints_or_none(follows)
    if batch.matches:
        given["c_groups"] = ints_or_none([batch.groups.get(clause.query) for _, clause in clauses])
        given["m_requests"] = ints([match[0] for match in batch.matches])
        given["m_groups"] = ints([match[1] for match in batch.matches])
        given["m_offsets"] = ints([match[2] for match in batch.matches])
    return given


def _follows(batch: Batch, clauses: list[tuple[int, Clause]]) -> list[int | None] | None:
    """Per clause the number in this call of the event behind which it begins; 0 for one that is nowhere."""
    if all(clause.behind is None for _, clause in clauses):
        return None
    numbers = {e.id: n for n, e in enumerate((e for request in batch.requests for e in request.events), 1)}
    return [None if clause.behind is None else numbers.get(clause.behind, 0) for _, clause in clauses]


def clauses_of(batch: Batch) -> list[tuple[int, Clause]]:
    """Every clause as it was asked, with the number of its request, from 1."""
    return [(number, clause) for number, request in enumerate(batch.requests, 1) for clause in request.unless]


def how(batch: Batch, seen: int) -> dict[str, Any]:
    """What else `append` wants to know: the greatest `after`, and whether to judge what is far behind before the lock.

    `seen`: the furthest position known here; only a hint.
    """
    clauses = [clause for _, clause in batch.clauses()]
    if not clauses:
        return {}
    furthest = max(clause.after for clause in clauses)
    looking = [clause.after for clause in clauses if clause.behind is None]
    return {"furthest": furthest, "early": True} if looking and min(looking) + LONG < seen else {"furthest": furthest}


def repeats_itself(request: AppendRequest) -> bool:
    """Whether two events of one request have the same id, which no log can hold."""
    return len(request.events) > 1 and len({event.id for event in request.events}) < len(request.events)


class Answer(msgspec.Struct, frozen=True):
    """What the call returned. `outcomes` None: everything was written, adjacent, from head + 1.

    `folded`: the read models that every append keeps up, as texts (see inline.py).
    """

    head: int
    time: int
    outcomes: list[int] | None
    places: list[int | None] | None
    whats: list[int | None] | None
    folded: list[str] | None = None


class OtherEpoch(Exception):
    """The store is in another epoch than the connection knew. Nothing was written."""


def answered(rows: Sequence[Sequence[Any]]) -> Answer:
    """What the call returned. Raises OtherEpoch where it was not made."""
    if not rows:
        raise OtherEpoch
    return Answer(*rows[0])


WRITTEN, REPEATED, CONFLICT, REUSED, FUTURE, NOWHERE, LACKING = range(7)


def written(batch: Batch, answer: Answer) -> Iterator[tuple[int, int]]:
    """The requests that were written, by their place in the batch, with their first positions."""
    first = answer.head + 1
    for index, request in enumerate(batch.requests):
        if answer.outcomes is None or answer.places is None:
            yield index, first
        elif answer.outcomes[index] == WRITTEN:
            yield index, answer.places[index] or 0
        first += len(request.events)


def outcomes(batch: Batch, answer: Answer, store: str, epoch: int) -> list[Outcome | int | None]:
    """One outcome each; a repeated one as the first position of the append it repeats; None: some code is lacking."""
    if answer.outcomes is None or answer.places is None or answer.whats is None:
        first, done = answer.head + 1, list[Outcome | int | None]()
        for request in batch.requests:
            done.append(_receipt(request, first, answer.time, store, epoch))
            first += len(request.events)
        return done
    clauses = clauses_of(batch)
    starts = _starts(batch)
    result: list[Outcome | int | None] = []
    for index, request in enumerate(batch.requests):
        outcome, place, what = answer.outcomes[index], answer.places[index] or 0, answer.whats[index] or 0
        if outcome == WRITTEN:
            result.append(_receipt(request, place, answer.time, store, epoch))
        elif outcome == REPEATED:
            result.append(place)
        elif outcome == CONFLICT:
            result.append(conflict(clauses[what - 1][1], place, _number(clauses, what)))
        elif outcome == FUTURE:
            result.append(in_the_future(clauses[what - 1][1], place))
        elif outcome == LACKING:
            result.append(None)
        elif outcome == NOWHERE:
            result.append(built_on_nothing(clauses[what - 1][1], _number(clauses, what)))
        else:
            at: list[int | None] = [None] * len(request.events)
            at[what - 1 - starts[index]] = place
            result.append(id_reused(request.events, at))
    return result


def _number(clauses: list[tuple[int, Clause]], what: int) -> int:
    """Which clause of its own request, from 0, the `what`th of the call is."""
    owner = clauses[what - 1][0]
    return sum(1 for each, _ in clauses[: what - 1] if each == owner)


def _starts(batch: Batch) -> list[int]:
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
