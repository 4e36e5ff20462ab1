"""What a caller that is narrowed to tags and types may read and write. Every handler that reveals events asks here.

    query = visible_query(caller, query)            before a read, a count, a follower: the part that the caller sees
    check_condition(caller, query)                  before an append: a condition must lie within the scope as it is
    check_visible(caller, stored_or_none)           one event: not visible is the same as absent
    redact(caller, line)                            a line without data and metadata, unless READ_PAYLOAD
    check_payload(caller)                           an answer made from data: states, rows, filters over data
    check_whole_store(caller)                       an answer about the whole store, such as its size
    authored(caller, event)                         an event to append, checked, with its actor
    request_key(caller, key)                        idempotency keys: each narrowed caller has its own

A query is never filtered afterwards: what the engine is asked matches visible events only, so that counts, limits,
pages, positions of cursors and the time of an answer depend on visible events only. A query that cannot be expressed
in this way is refused: a prefix is no part of a query, so a caller that is narrowed to prefixes names a tag with one.
Knows: queries, the envelope. Does not know: HTTP, stores, how a caller was authenticated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import msgspec

from eventfold.core.envelope import NewEvent, StoredEvent, check_new
from eventfold.core.event_json import EMPTY_OBJECT, EventLine
from eventfold.core.query import Item, Query
from eventfold.core.tags import in_utc, is_moment, tag_key
from eventfold.server.access.errors import EventNotFound, Forbidden, OutsideScope
from eventfold.server.scopes import Caller, Scope

NOTHING = Query((Item(types=("$nothing",)),))  # no event has a type of this name: `$` is reserved
WITHHELD = msgspec.Raw(b'{"$withheld":true}')
MAX_ALTERNATIVES = 1_000  # of a query, after each of its items was combined with each tag of the caller
OWN_KEY_PREFIX = "caller:"


def visible_query(caller: Caller, query: Query) -> Query:
    """Return the query for the events that match and that the caller may see.

    It matches no event at all (`NOTHING`) if the types of the query and of the caller have none in common. Raises
    OutsideScope if an item names no tag of the caller's, and the caller is narrowed to prefixes.
    """
    if not caller.is_narrowed:
        return query
    items = dict[Item, None]()
    for item in query.items or (Item(),):
        types = _visible_types(caller, item.types)
        if types is None:
            continue
        for tags in _visible_tags(caller, item.tags):
            items[Item(types, tags)] = None
        if len(items) > MAX_ALTERNATIVES:
            raise OutsideScope(
                f"The query has more than {MAX_ALTERNATIVES:,} alternatives within the scope of this credential.",
                "Name fewer alternatives, or a tag that the credential is narrowed to in each of them.",
            )
    return Query(tuple(items)) if items else NOTHING


def check_condition(caller: Caller, query: Query) -> None:
    """Raise OutsideScope unless every event that could match is visible to the caller.

    A condition must not be judged otherwise: whether it fails says whether such events exist. For the same reason it
    needs the scope READ; without it, Forbidden is raised.
    """
    if Scope.READ not in caller.scopes:
        raise Forbidden(
            "A condition asks whether events exist, and this credential may not read.",
            "Append without a condition, or use a credential with the scope read.",
            scope=Scope.READ.value,
        )
    for item in query.items or (Item(),):
        if caller.types and not (item.types and set(item.types) <= set(caller.types)):
            raise OutsideScope(
                "The condition is about events whose types are not all within the scope of this credential.",
                f"Name types in every item of it, of these: {', '.join(caller.types)}.",
            )
        if _is_narrowed_to_tags(caller) and not any(has_tag_in_scope(caller, (tag,)) for tag in item.tags):
            raise _no_tag_of_scope(caller, "An item of the condition")


def is_visible(caller: Caller, type: str, tags: Sequence[str]) -> bool:
    """Whether the caller may see an event of this type with these tags."""
    if caller.types and type not in caller.types:
        return False
    return not _is_narrowed_to_tags(caller) or has_tag_in_scope(caller, tags)


def check_visible(caller: Caller, stored: StoredEvent | None) -> StoredEvent:
    """Return an event that was looked up. Raises EventNotFound if it is None, and the same if it is not visible."""
    if stored is None or not is_visible(caller, stored.type, stored.tag_set):
        raise EventNotFound("There is no such event here.", "Check the position or the id.")
    return stored


def may_read_payload(caller: Caller) -> bool:
    """Whether the caller may see data and metadata."""
    return Scope.READ_PAYLOAD in caller.scopes


def redact(caller: Caller, line: EventLine) -> EventLine:
    """Return the line; without the scope READ_PAYLOAD, with `{"$withheld": true}` as data and with empty metadata."""
    return line if may_read_payload(caller) else withheld(line)


def withheld(line: EventLine) -> EventLine:
    """Return the line with `{"$withheld": true}` as data and with empty metadata."""
    return msgspec.structs.replace(line, data=WITHHELD, metadata=EMPTY_OBJECT)


def redact_stored(caller: Caller, stored: StoredEvent) -> StoredEvent:
    """Return the envelope, withheld in the same way as a line is: for formats that are made from envelopes."""
    if may_read_payload(caller):
        return stored
    return msgspec.structs.replace(stored, data=bytes(WITHHELD), metadata=None, codec="json", key=None)


def check_writable(caller: Caller, event: NewEvent) -> None:
    """Raise OutsideScope unless the caller may append the event.

    Its type must be one of the caller's, and one of its tags within the scope. Of the keys that the scope is about
    (`tenant` of `tenant:acme`), it may have no other tag: it would appear among the events of other callers.
    """
    if caller.types and event.type not in caller.types:
        raise OutsideScope(
            f"Events of the type {event.type} are not within the scope of this credential.",
            f"Append events of these types: {', '.join(caller.types)}.",
            type=event.type,
        )
    if not _is_narrowed_to_tags(caller):
        return
    if not has_tag_in_scope(caller, event.tags):
        raise _no_tag_of_scope(caller, f"The event {event.type}")
    keys = {tag_key(text) for text in (*caller.tags, *caller.tag_prefixes)}
    for tag in event.tags:
        if tag_key(tag) in keys and not has_tag_in_scope(caller, (tag,)):
            raise OutsideScope(
                f"The event {event.type} has a tag {tag_key(tag)}… that is not within the scope of this credential.",
                "Leave that tag out, or use a credential for it.",
                type=event.type,
            )


def authored(caller: Caller, event: NewEvent) -> NewEvent:
    """Return the event as this caller appends it: it must be writable, and its metadata `actor` is the caller's name.

    Raises OutsideScope as check_writable does, and Forbidden if the event names another actor and the caller has not
    the scope IMPERSONATE. A caller without a name (no authentication) may name any actor, or none.
    """
    check_writable(caller, event)
    if not caller.name:
        return event
    values: dict[str, msgspec.Raw] = msgspec.json.decode(event.metadata or b"{}", type=dict[str, msgspec.Raw])
    own = msgspec.json.encode(caller.name)
    given = values.setdefault("actor", msgspec.Raw(own))
    if msgspec.json.decode(given) != caller.name and Scope.IMPERSONATE not in caller.scopes:
        raise Forbidden(
            f"The event {event.type} names another actor than the owner of this credential.",
            "Leave the actor out: the server sets it. Naming another needs a credential with the scope impersonate.",
            scope=Scope.IMPERSONATE.value,
        )
    # Always written again: of `{"actor": "other", "actor": "caller"}` readers of another language take the first.
    metadata = msgspec.json.encode(values, order="sorted")
    return event if metadata == event.metadata else check_new(msgspec.structs.replace(event, metadata=metadata))


def check_payload(caller: Caller) -> None:
    """Raise Forbidden unless the caller may see data and metadata: for answers that are made from them."""
    if not may_read_payload(caller):
        raise Forbidden(
            "This answer is made from the data of events, and this credential may not read it.",
            "Use a credential with the scope read-payload.",
            scope=Scope.READ_PAYLOAD.value,
        )


def check_whole_store(caller: Caller) -> None:
    """Raise OutsideScope if the caller is narrowed: for answers about a whole store that cannot be narrowed."""
    if caller.is_narrowed:
        raise OutsideScope(
            "This answer is about the whole store, and this credential is narrowed to a part of it.",
            "Use a credential that is not narrowed to tags or types.",
        )


def request_key(caller: Caller, key: str | None) -> str | None:
    """Return the request key under which an append of this caller is stored: each narrowed caller has keys of its own.

    So it cannot learn of the keys of others, nor take them. A caller that is not narrowed shares the keys of the store.
    """
    if key is None or not caller.is_narrowed:
        return key
    identity = blake2b(caller.identity.encode(), digest_size=12).hexdigest()
    return f"{OWN_KEY_PREFIX}{identity}:{blake2b(key.encode('utf-8', 'surrogatepass'), digest_size=24).hexdigest()}"


def has_tag_in_scope(caller: Caller, tags: Iterable[str]) -> bool:
    """Whether one of the tags is one that the caller is narrowed to, or starts with one of its prefixes."""
    own = {in_utc(tag) for tag in caller.tags}
    return any(in_utc(tag) in own or _starts_within(caller, tag) for tag in tags)


def _starts_within(caller: Caller, tag: str) -> bool:
    if not caller.tag_prefixes or not tag.startswith(caller.tag_prefixes):
        return False
    if not is_moment(tag):
        return True
    # A moment has many spellings, and a query for one matches all of them: only a prefix up to the key covers them.
    return any(tag.startswith(prefix) and len(prefix) <= len(tag_key(tag)) for prefix in caller.tag_prefixes)


def _is_narrowed_to_tags(caller: Caller) -> bool:
    return bool(caller.tags or caller.tag_prefixes)


def _visible_types(caller: Caller, types: tuple[str, ...]) -> tuple[str, ...] | None:
    """The types of an item that the caller may see; None if there are none."""
    if not caller.types:
        return types
    if not types:
        return caller.types
    return tuple(type for type in types if type in caller.types) or None


def _visible_tags(caller: Caller, tags: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    """The alternatives of an item's tags that match visible events only."""
    if not _is_narrowed_to_tags(caller) or has_tag_in_scope(caller, tags):
        return (tags,)
    if caller.tag_prefixes:
        raise _no_tag_of_scope(caller, "An item of the query", "; where none can be given, use a key with whole tags")
    return [tuple(sorted({*tags, own})) for own in caller.tags]


def _no_tag_of_scope(caller: Caller, what: str, other: str = "") -> OutsideScope:
    named = [*caller.tags, *(f"{prefix}…" for prefix in caller.tag_prefixes)]
    return OutsideScope(
        f"{what} has no tag within the scope of this credential.",
        f"Give it one of these tags: {', '.join(named)}{other}.",
    )
