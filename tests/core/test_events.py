"""Event classes: names, versions, aliases; which fields are tags, and what their values become."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, NewType, Optional
from uuid import UUID

import msgspec
import pytest

import eventfold as ef
from eventfold.core.envelope import StoredEvent
from eventfold.core.event import (
    Metadata,
    RawEvent,
    Recorded,
    classes_named,
    declaration_of,
    known_names,
    stored_names_of,
)
from eventfold.core.registry import Registry
from eventfold.core.tags import tag_values
from eventfold.errors import InvalidEvent

AccountId = Annotated[str, ef.tag("account")]
Sku = NewType("Sku", str)


class Level(Enum):
    """Values are not the names."""

    LOW = "low-level"
    HIGH = "high-level"


class Size(IntEnum):
    """Numbers."""

    SMALL = 10


class Fruit(StrEnum):
    """Text."""

    APPLE = "apple"


class Base(ef.Event, type="events.base"):
    """A class to derive from."""

    at: ef.Tag = "x"


class Plain(Base):
    """Without a name of its own."""


class Named(Base, type="events.named", version=4, aliases=("events.older", "events.oldest")):
    """With everything."""


# ------------------------------------------------------------------------------------------ names


def test_a_class_stands_under_its_own_name() -> None:
    """Without a name, the class's name is the stored one; a derived class does not inherit its parent's."""
    assert declaration_of(Plain).type == "Plain"
    assert declaration_of(Base).type == "events.base"


def test_a_class_may_say_name_version_and_older_names() -> None:
    """Explicit name, version and aliases are used as declared; all of them lead to the class."""
    assert (declaration_of(Named).type, declaration_of(Named).version) == ("events.named", 4)
    assert declaration_of(Named).names == ("events.named", "events.older", "events.oldest")
    assert [classes_named(name) for name in declaration_of(Named).names] == [[Named]] * 3
    assert set(declaration_of(Named).names) <= set(known_names())


def test_a_class_means_those_derived_from_it() -> None:
    """Asking by a class asks for its descendants as well, under all of their names."""
    assert set(stored_names_of(Base)) >= {"events.base", "Plain", "events.named", "events.older", "events.oldest"}
    assert stored_names_of(ef.Event) == ()


def test_a_class_written_again_takes_the_place_of_its_earlier_self() -> None:
    """A notebook cell run twice, or a module reloaded, is not ambiguous."""
    namespace = {"__module__": "notebook", "__qualname__": "Cell"}
    first = type(ef.Event)("Cell", (ef.Event,), dict(namespace), type="events.cell")
    second = type(ef.Event)("Cell", (ef.Event,), dict(namespace), type="events.cell")
    assert classes_named("events.cell") == [second]
    assert first is not second


def test_a_class_that_is_gone_claims_nothing() -> None:
    """Names are free again when their classes are deleted."""

    def make() -> None:
        class Passing(ef.Event, type="events.passing"):
            pass

        assert len(classes_named("events.passing")) == 1
        assert Passing is not None

    make()
    gc.collect()
    assert classes_named("events.passing") == []


@pytest.mark.parametrize(
    "options",
    [{"type": ""}, {"type": "$x"}, {"type": "a\nb"}, {"version": 0}, {"aliases": ("",)}, {"type": "x" * 256}],
    ids=str,
)
def test_a_bad_name_or_version_is_refused_where_the_class_is_written(options: dict[str, Any]) -> None:
    """A mistake in a class shows when the class is defined, not when its first event is written."""
    with pytest.raises(InvalidEvent):
        type(ef.Event)("Bad", (ef.Event,), {"__module__": __name__, "__qualname__": "Bad"}, **options)


def test_the_decorator_takes_every_form() -> None:
    """`@ef.event`, `@ef.event()`, `@ef.event("name")` and `@ef.event("name", version=…, aliases=…)` are all meant."""

    @ef.event
    @dataclass(frozen=True)
    class One:
        a: int

    @ef.event()
    @dataclass(frozen=True)
    class Two:
        a: int

    @ef.event("events.three", version=3, aliases=("events.drei",))
    @dataclass(frozen=True)
    class Three:
        a: int

    assert [declaration_of(cls).type for cls in (One, Two, Three)] == ["One", "Two", "events.three"]
    assert (declaration_of(Three).version, declaration_of(Three).aliases) == (3, ("events.drei",))


def test_only_declared_classes_are_events() -> None:
    """An undeclared class is InvalidEvent, with the two ways to declare it."""
    with pytest.raises(InvalidEvent) as refused:
        declaration_of(int)
    assert "ef.Event" in refused.value.remedy
    assert "@ef.event" in refused.value.remedy


def test_events_are_frozen_values() -> None:
    """An event cannot be changed, is equal to its equals, and hashes like them."""
    event = Base("a")
    with pytest.raises(AttributeError):
        event.at = "b"  # type: ignore[misc]
    assert event == Base("a") != Base("b")
    assert len({event, Base("a")}) == 1
    assert repr(event) == "Base(at='a')"


# ------------------------------------------------------------------------------------------ tags


class Tagged(ef.Event, type="events.tagged", kw_only=True):
    """A tag field of every kind."""

    plain: ef.Tag = "p"
    uuid: ef.Tag[UUID] = UUID(int=1)
    number: ef.Tag[int] = 7
    level: ef.Tag[Level] = Level.LOW
    size: ef.Tag[Size] = Size.SMALL
    fruit: ef.Tag[Fruit] = Fruit.APPLE
    day: ef.Tag[date] = date(2020, 2, 29)
    several: ef.Tag[tuple[str, ...]] = ("x", "y")
    levels: ef.Tag[frozenset[Level]] = frozenset({Level.HIGH})
    maybe: ef.Tag[str] | None = None
    perhaps: Optional[ef.Tag] = "there"  # noqa: UP045 (the older spelling is meant)
    source: AccountId = "a-1"
    target: AccountId = "a-2"
    sku: Annotated[Sku, ef.tag()] = Sku("s")
    untagged: str = "not a tag"


def tags_of(event: Any, *more: str) -> tuple[str, ...]:
    """The tags an event is stored with."""
    return Registry().encode(ef.Draft(event, tags=more)).tags


def test_tag_fields_become_tags() -> None:
    """Each tag field is `key:value`: enums by value, collections several, None none, other keys as declared."""
    assert tags_of(Tagged()) == tuple(
        sorted(
            [
                "account:a-1",
                "account:a-2",
                "day:2020-02-29",
                "fruit:apple",
                "level:low-level",
                "levels:high-level",
                "number:7",
                "perhaps:there",
                "plain:p",
                "several:x",
                "several:y",
                "size:10",
                "sku:s",
                f"uuid:{UUID(int=1)}",
            ]
        )
    )


def test_an_empty_collection_is_no_tag() -> None:
    """A tag field without a value adds nothing; a draft's tags are added, doubles removed."""
    event = Tagged(several=(), levels=frozenset(), perhaps=None)
    assert not [
        tag
        for tag in tags_of(event)
        if tag.startswith(("several", "level", "perhaps", "maybe")) and tag != "level:low-level"
    ]
    assert tags_of(Base("a"), "at:a", "b:1") == ("at:a", "b:1")


def test_an_event_without_tag_fields_has_no_tags() -> None:
    """Tags are optional."""

    class Untagged(ef.Event, type="events.untagged"):
        text: str = ""

    assert tags_of(Untagged()) == ()


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("a", ["a"]),
        (5, ["5"]),
        (None, []),
        (Level.HIGH, ["high-level"]),
        (Fruit.APPLE, ["apple"]),
        ([1, ("b", None), {"c"}], ["1", "b", "c"]),
        (datetime(2020, 1, 1, tzinfo=UTC), ["2020-01-01T00:00:00+00:00"]),
    ],
    ids=repr,
)
def test_values_become_text(value: Any, texts: list[str]) -> None:
    """A value's text does not depend on how its class is called or written."""
    assert list(tag_values(value)) == texts


@pytest.mark.parametrize(
    "value", [True, 1.5, Decimal(1), b"a", object(), {"a": 1}], ids=lambda value: type(value).__name__
)
def test_other_values_are_no_tags(value: Any) -> None:
    """A value without one obvious text is refused: a boolean, a fraction, bytes, any other."""
    with pytest.raises(InvalidEvent):
        list(tag_values(value))


@pytest.mark.parametrize("key", ["", "$own", "a\nb", "k" * 256])
def test_a_bad_tag_key_is_refused_where_it_is_written(key: str) -> None:
    """A key no tag could have is refused by `ef.tag`."""
    with pytest.raises(InvalidEvent):
        ef.tag(key)


# ------------------------------------------------------------------------------------------ what is read


def test_a_recorded_event_reads_as_a_line() -> None:
    """The repr tells position, event, time and metadata."""
    stored = StoredEvent(
        2, UUID(int=5).bytes, "events.base", 1, b"{}", "", 1_795_000_000_000_001, None, b'{"actor":"teller-7"}'
    )
    recorded = Recorded(stored, Base("a"))
    assert repr(recorded) == "<#2 Base(at='a') at 2026-11-18 11:06:40.000001Z actor='teller-7'>"
    assert (recorded.id, recorded.version, recorded.tags, recorded.occurred) == (UUID(int=5), 1, (), None)
    assert recorded.time == datetime(2026, 11, 18, 11, 6, 40, 1, tzinfo=UTC)


def test_metadata_is_a_dict_with_three_names() -> None:
    """The well-known keys are attributes too, None where absent."""
    metadata = Metadata({"actor": "a", "x": 1})
    assert (metadata.actor, metadata.correlation_id, metadata.causation_id, metadata["x"]) == ("a", None, None, 1)


def test_raw_events_give_their_json() -> None:
    """A raw event's data can be looked at as JSON, if it is that."""
    assert RawEvent("t", 1, "json", b'{"a":[1]}').json() == {"a": [1]}
    for raw in (RawEvent("t", 1, "cbor", b"\x01"), RawEvent("t", 1, "json", b"{")):
        with pytest.raises(InvalidEvent):
            raw.json()


def test_a_raw_event_cannot_be_changed() -> None:
    """Raw events are immutable and hashable: assignment to a field raises AttributeError."""
    raw = RawEvent("t", 1, "json", b"{}")
    with pytest.raises(AttributeError):
        raw.data = b"[]"  # pyright: ignore[reportAttributeAccessIssue]
    assert {raw, RawEvent("t", 1, "json", b"{}")} == {raw}


def test_an_event_class_keeps_msgspecs_options() -> None:
    """Options of msgspec pass through: keyword-only fields, renamed fields, no defaults stored."""

    class Options(ef.Event, type="events.options", kw_only=True, rename="camel", omit_defaults=True):
        first_name: ef.Tag
        last_name: str = "x"

    new = Registry().encode(Options(first_name="ada"))
    assert new.data == b'{"firstName":"ada"}'
    assert new.tags == ("first_name:ada",)
    assert msgspec.structs.fields(Options)[0].encode_name == "firstName"
