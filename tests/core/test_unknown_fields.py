"""Stored fields that a class does not declare are ignored, kept or refused, as the class declares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

import eventfold as ef
from eventfold.core.registry import Registry
from eventfold.errors import InvalidEvent, UndecodableEvent


def later() -> ef.Store:
    """Return a log that a later version of the program has written to."""
    store = ef.Store("memory:")

    class Priced(ef.Event, type="unknown-priced"):
        item: ef.Tag
        amount: int
        currency: str
        parts: dict[str, list[int]]

    store.append(Priced("tea", 4, "EUR", {"a": [1, 2**70]}))
    return store


class Ignoring(ef.Event, type="unknown-ignoring"):
    """Knows two of the fields."""

    item: ef.Tag
    amount: int


class Keeping(ef.Event, type="unknown-keeping"):
    """The same, and keeps the others."""

    item: ef.Tag
    amount: int
    more: ef.UnknownFields = {}


class Refusing(ef.Event, type="unknown-refusing", forbid_unknown_fields=True):
    """The same, and will have no others."""

    item: ef.Tag
    amount: int


REST = {"currency": "EUR", "parts": {"a": [1, 2**70]}}


def read_as(cls: type) -> Any:
    """The stored event as this class."""
    with later() as store:
        (stored,) = store.read(raw=True)
        registry = Registry()
        return registry.decode_as(registry.codec(cls), stored.stored)[0]


def test_they_are_ignored_unless_something_is_said() -> None:
    """A later version's event can still be read as this class."""
    assert read_as(Ignoring) == Ignoring("tea", 4)


def test_they_are_kept_where_a_field_is_there_for_them() -> None:
    """They can be read, survive a change of another field, and are written again with the others."""
    event = read_as(Keeping)
    assert event == Keeping("tea", 4, REST)
    changed = msgspec.structs.replace(event, amount=5)
    written = Registry().encode(changed)
    assert msgspec.json.decode(written.data) == {"item": "tea", "amount": 5, **REST}
    assert Registry().decode_as(Registry().codec(Keeping), written.at(1, 0, 0, 1)) == (changed,)
    assert Registry().encode(Keeping("tea", 4)).data == b'{"item":"tea","amount":4}'


def test_they_are_refused_where_the_class_will_have_none() -> None:
    """The error names the event and the field."""
    with pytest.raises(UndecodableEvent, match="unknown field `currency`") as caught:
        read_as(Refusing)
    assert caught.value.fields["field"] == "currency"


def test_a_dataclass_keeps_them_too() -> None:
    """Any class of fields may have such a field."""

    @ef.event("unknown-other")
    @dataclass(frozen=True)
    class Other:
        n: int
        rest: ef.UnknownFields = field(default_factory=dict)

    registry = Registry()
    new = registry.encode(Other(1, {"m": [2]}))
    assert msgspec.json.decode(new.data) == {"n": 1, "m": [2]}
    assert registry.decode_as(registry.codec(Other), new.at(1, 0, 0, 1)) == (Other(1, {"m": [2]}),)


def test_what_is_kept_hides_no_field_that_is_known() -> None:
    """A stored value under the name of a field would be read as the field."""
    with pytest.raises(InvalidEvent, match="more contains amount, which the class has as a field"):
        Registry().encode(Keeping("tea", 4, {"amount": 9}))


def test_a_field_that_keeps_has_a_default() -> None:
    """Most events have no unknown fields."""

    class Bare(ef.Event, type="unknown-bare"):
        more: ef.UnknownFields

    with pytest.raises(InvalidEvent, match="more is for unknown fields and needs a default"):
        Registry().encode(Bare({}))


def test_they_are_kept_through_a_store_a_state_and_an_upcaster() -> None:
    """A fold sees them; an upcaster passes on those it chooses."""

    class Sized(ef.Event, type="unknown-sized"):
        item: ef.Tag
        more: ef.UnknownFields = {}

    class Weighed(ef.Event, type="unknown-sized", version=2):
        item: ef.Tag
        weight: int
        more: ef.UnknownFields = {}

    def weigh(old: Sized) -> Weighed:
        return Weighed(old.item, 7, old.more)

    class Seen(ef.State):
        item: ef.Tag
        sizes: list[str] = []

        def evolve(self, event: Weighed) -> None:
            self.sizes.append(event.more.get("size", ""))

    weigh.__annotations__ = {"old": Sized, "return": Weighed}
    ef.upcast(weigh)
    with ef.Store("memory:") as store:
        store.append(Sized("a", {"size": "small"}), Weighed("a", 1, {"size": "large"}), Weighed("a", 1))
        assert store.state(Seen("a")).sizes == ["small", "large", ""]
        assert [r.event.more for r in store.read()] == [{"size": "small"}, {"size": "large"}, {}]
