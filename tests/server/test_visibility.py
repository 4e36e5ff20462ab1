"""What a narrowed caller sees and writes: pure functions over queries, conditions and events.

Knows: visibility.py, and the memory engine as the judge of what a query matches. Does not know: HTTP.
"""

from __future__ import annotations

import itertools

import msgspec
import pytest

import eventfold as ef
from eventfold.core.event_json import to_line
from eventfold.core.query import Query
from eventfold.server import visibility
from eventfold.server.access.errors import EventNotFound, Forbidden, OutsideScope
from eventfold.server.scopes import Caller, Scope

ALL = frozenset(Scope)
TYPES = ("Opened", "Closed", "Noted")
TAGS = ("tenant:acme", "tenant:other", "account:a-1", "account:b-1", "plain")


def caller(*, scopes: frozenset[Scope] = ALL, **narrowing: tuple[str, ...]) -> Caller:
    """A caller with these scopes, narrowed so."""
    return Caller(name="teller", identity="key:1", scopes=scopes, **narrowing)  # pyright: ignore[reportArgumentType]


def event(type: str, *tags: str, **metadata: str) -> ef.NewEvent:
    """An event without a class."""
    return ef.NewEvent.of(type, b'{"secret":1}', tags=tags, metadata=metadata)


NARROWINGS = (
    {"tags": ("tenant:acme",)},
    {"tags": ("tenant:acme", "plain")},
    {"tag_prefixes": ("account:a",)},
    {"tags": ("tenant:acme",), "tag_prefixes": ("account:",)},
    {"types": ("Opened", "Noted")},
    {"types": ("Opened",), "tags": ("tenant:acme",)},
    {"types": ("Closed",), "tag_prefixes": ("account:a",)},
)
QUERIES = (
    Query(),
    Query.of(types="Opened"),
    Query.of(types=["Opened", "Closed"], tags="account:a-1"),
    Query.of(tags=["account:a-1", "tenant:other"]),
    Query.of(tags="tenant:other") | Query.of(types="Noted", tags="tenant:acme"),
    Query.of(tags="plain"),
    Query.of(types="Closed", tags=["account:b-1"]),
)


@pytest.mark.parametrize("narrowing", NARROWINGS, ids=str)
def test_a_visible_query_matches_exactly_the_visible_events_or_is_refused(
    narrowing: dict[str, tuple[str, ...]],
) -> None:
    """For every event that can be made of five tags and three types, both definitions agree."""
    who = caller(**narrowing)
    answered = 0
    for query in QUERIES:
        try:
            seen = visibility.visible_query(who, query)
        except OutsideScope:
            assert "tag_prefixes" in narrowing
            continue
        answered += 1
        for type, count in itertools.product(TYPES, range(len(TAGS) + 1)):
            for tags in itertools.combinations(TAGS, count):
                wanted = query.matches(type, tags) and visibility.is_visible(who, type, tags)
                assert seen.matches(type, tags) == wanted, (query, type, tags)
    assert answered


@pytest.mark.parametrize("narrowing", NARROWINGS, ids=str)
def test_a_condition_is_accepted_only_if_every_event_it_could_match_is_visible(
    narrowing: dict[str, tuple[str, ...]],
) -> None:
    """An accepted condition matches no event that the caller may not see."""
    who = caller(**narrowing)
    for query in QUERIES:
        matched = [
            (type, tags)
            for type, count in itertools.product(TYPES, range(len(TAGS) + 1))
            for tags in itertools.combinations(TAGS, count)
            if query.matches(type, tags)
        ]
        try:
            visibility.check_condition(who, query)
        except OutsideScope:
            continue
        assert all(visibility.is_visible(who, type, tags) for type, tags in matched)
    with pytest.raises(OutsideScope):
        visibility.check_condition(who, Query())


def test_a_condition_within_the_scope_is_accepted() -> None:
    """Types and tags of the credential may be asked about; a credential that is not narrowed may ask anything."""
    who = caller(types=("Opened", "Closed"), tag_prefixes=("account:",))
    visibility.check_condition(who, Query.of(types="Opened", tags="account:b-1"))
    visibility.check_condition(caller(), Query())
    with pytest.raises(Forbidden):
        visibility.check_condition(caller(scopes=frozenset({Scope.APPEND})), Query.of(types="Opened"))


def test_a_query_without_a_common_type_matches_nothing() -> None:
    """It is not widened to every event, and it is no error, since an error would say that the type exists."""
    seen = visibility.visible_query(caller(types=("Opened",)), Query.of(types="Closed"))
    assert seen.items
    with ef.Store("memory:") as store:
        store.append_encoded(event("Closed"), event("Opened"))
        assert store.count(seen) == 0
        assert store.count(visibility.visible_query(caller(types=("Opened",)), Query())) == 1


def test_a_moment_is_within_a_prefix_only_by_its_key() -> None:
    """A query for a moment matches its other spellings, which may start otherwise."""
    at = "at:2026-11-29T23:30:00+00:00"
    assert visibility.has_tag_in_scope(caller(tag_prefixes=("at:",)), [at])
    assert not visibility.has_tag_in_scope(caller(tag_prefixes=("at:2026-11-29",)), [at])
    assert visibility.has_tag_in_scope(caller(tags=("at:2026-11-30T00:30:00+01:00",)), [at])


def test_an_invisible_event_is_as_absent_as_one_that_does_not_exist() -> None:
    """Both raise the same error with the same text."""
    with ef.Store("memory:") as store:
        store.append_encoded(event("Opened", "tenant:other"))
        (stored,) = [recorded.stored for recorded in store.read(raw=True)]
    messages = set[str]()
    for found in (stored, None):
        with pytest.raises(EventNotFound) as raised:
            visibility.check_visible(caller(tags=("tenant:acme",)), found)
        messages.add(str(raised.value))
    assert len(messages) == 1
    assert visibility.check_visible(caller(tags=("tenant:other",)), stored) is stored


def test_a_writer_stays_within_its_tags() -> None:
    """It needs a tag of its scope, and may have no tag of another tenant, who would see the event."""
    who = caller(tags=("tenant:acme",), types=("Opened",))
    visibility.check_writable(who, event("Opened", "tenant:acme", "order:7"))
    for refused in (
        event("Closed", "tenant:acme"),
        event("Opened", "order:7"),
        event("Opened"),
        event("Opened", "tenant:acme", "tenant:other"),
    ):
        with pytest.raises(OutsideScope):
            visibility.check_writable(who, refused)


def test_the_credential_sets_the_actor() -> None:
    """An event without an actor gets the caller's name; another actor needs the scope impersonate."""
    plain = caller(scopes=frozenset({Scope.APPEND}))
    written = visibility.authored(plain, event("Opened", channel="web"))
    assert msgspec.json.decode(written.metadata or b"") == {"actor": "teller", "channel": "web"}
    own = event("Opened", actor="teller")
    assert visibility.authored(plain, own) is own
    with pytest.raises(Forbidden):
        visibility.authored(plain, event("Opened", actor="director"))
    for twice in (b'{"actor":"director","actor":"teller"}', b'{"\\u0061ctor":"director","actor":"teller"}'):
        seen = visibility.authored(plain, msgspec.structs.replace(own, metadata=twice)).metadata
        assert seen == b'{"actor":"teller"}'
    other = event("Opened", actor="director")
    assert visibility.authored(caller(), other) is other


def test_data_and_metadata_are_withheld_without_the_scope_read_payload() -> None:
    """Neither a line nor an envelope has a byte of them."""
    with ef.Store("memory:") as store:
        store.append_encoded(event("Opened", note="secret"))
        (stored,) = [recorded.stored for recorded in store.read(raw=True)]
    reader = caller(scopes=frozenset({Scope.READ}))
    assert b"secret" not in msgspec.json.encode(visibility.redact(reader, to_line(stored)))
    hidden = visibility.redact_stored(reader, stored)
    assert b"secret" not in hidden.data
    assert hidden.metadata is None
    assert visibility.redact_stored(caller(), stored) is stored
    with pytest.raises(Forbidden):
        visibility.check_payload(reader)


def test_narrowed_callers_have_request_keys_of_their_own() -> None:
    """Two of them with the same key do not meet, and callers that are not narrowed share the keys of the store."""
    first = caller(tags=("tenant:acme",))
    second = msgspec.structs.replace(first, identity="key:2")
    assert visibility.request_key(first, "k") != visibility.request_key(second, "k")
    assert visibility.request_key(first, "k") == visibility.request_key(first, "k")
    assert len(visibility.request_key(first, "k" * 255) or "") <= 255
    assert visibility.request_key(caller(), "k") == "k"
    assert visibility.request_key(first, None) is None
