"""Encoding: classes of every kind come back equal; what would not is refused; old names and versions are read."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventfold as ef
from eventfold.core.codec import encode_metadata
from eventfold.core.envelope import NewEvent, StoredEvent
from eventfold.core.registry import Registry
from eventfold.errors import InvalidEvent, UndecodableEvent, UnknownEventType
from eventfold.testing.conformance.round_trips import Everything, Paint, Point


@ef.event("encoding.parcel", version=2)
@dataclass(frozen=True)
class Parcel:
    """A dataclass."""

    parcel: ef.Tag
    weight: Decimal
    sent: datetime | None = None
    stops: tuple[str, ...] = ()
    inner: Point | None = None


@ef.event("encoding.letter")
@attrs.frozen
class Letter:
    """An attrs class."""

    letter: ef.Tag[UUID]
    stamps: list[int]
    paint: Paint = Paint.RED


@ef.event("encoding.card")
class Card(pydantic.BaseModel, frozen=True):
    """A pydantic model."""

    card: ef.Tag
    owner: ef.Tag[UUID]
    price: Decimal
    written: datetime
    notes: dict[str, list[int]] = {}


FOREIGN: list[Any] = [
    Parcel("p-1", Decimal("1.50"), datetime(2020, 1, 1, tzinfo=UTC), ("a", "b"), Point(1, Decimal("2.0"))),
    Parcel("p-2", Decimal(3)),
    Letter(UUID(int=9), [1, 2], Paint.GREEN),
    Card(
        card="c", owner=UUID(int=7), price=Decimal("9.90"), written=datetime(2020, 1, 1, tzinfo=UTC), notes={"a": [1]}
    ),
]
TAGS = [("parcel:p-1",), ("parcel:p-2",), (f"letter:{UUID(int=9)}",), ("card:c", f"owner:{UUID(int=7)}")]


def stored(new: NewEvent, **more: Any) -> StoredEvent:
    """An encoded event in its place."""
    return msgspec.structs.replace(new, **more).at(1, 5, 0, 1)


def back(event: Any) -> Any:
    """An event after its way through the log."""
    registry = Registry()
    (decoded,) = registry.decode(stored(registry.encode(event)))
    return decoded


@pytest.mark.parametrize(
    ("event", "tags"), list(zip(FOREIGN, TAGS, strict=True)), ids=lambda value: type(value).__name__
)
def test_foreign_classes_come_back_equal(event: Any, tags: tuple[str, ...]) -> None:
    """Dataclasses, attrs classes and pydantic models are events like others: same class, equal, tagged."""
    found = back(event)
    assert found == event
    assert type(found) is type(event)
    assert Registry().encode(event).tags == tags


@pytest.mark.parametrize(
    "event",
    [
        Parcel("p", Decimal("NaN")),
        Parcel("p", "1.5"),  # type: ignore[arg-type]
        Parcel("p", Decimal(1), stops=["a"]),  # type: ignore[arg-type]
        Parcel(5, Decimal(1)),  # type: ignore[arg-type]
        Letter("no uuid", [1]),  # type: ignore[arg-type]
        Letter(UUID(int=1), ["one"]),  # type: ignore[list-item]
        Card.model_construct(card=5, owner="x", price=Decimal(1), written=datetime(2020, 1, 1)),
    ],
    ids=repr,
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_foreign_classes_are_checked_too(event: Any) -> None:
    """Values that their own constructors accept are checked before they are written."""
    with pytest.raises(InvalidEvent):
        Registry().encode(event)


def test_a_foreign_class_is_frozen_or_not_as_it_likes() -> None:
    """A mutable dataclass is an event as well: the value that it has when it is appended is stored."""

    @ef.event("encoding.mutable")
    @dataclass
    class Mutable:
        items: list[int] = dataclasses.field(default_factory=list)

    event = Mutable([1])
    new = Registry().encode(event)
    event.items.append(2)
    assert new.data == b'{"items":[1]}'


# ------------------------------------------------------------------------------------------ values

moments = st.datetimes(
    timezones=st.sampled_from(
        [UTC, ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Asia/Kathmandu")]
    ),
    min_value=datetime(1980, 1, 1),
)
points = st.builds(
    Point, st.integers(-(2**63), 2**63 - 1), st.decimals(allow_nan=False), st.none() | st.text(max_size=5)
)
everything = st.builds(
    Everything,
    text=st.text(),
    number=st.integers(-(2**63), 2**64 - 1),
    real=st.floats(allow_nan=False, allow_infinity=False),
    truth=st.booleans(),
    decimal=st.decimals(allow_nan=False),
    identity=st.uuids(),
    moment=moments,
    day=st.dates(),
    clock=st.times().map(lambda clock: clock.replace(fold=0)),
    lapse=st.timedeltas(timedelta(-100_000), timedelta(100_000)),
    raw=st.binary(),
    paint=st.sampled_from(Paint),
    point=points,
    maybe=st.none() | st.decimals(allow_nan=False),
    items=st.lists(st.decimals(allow_nan=False)),
    pair=st.tuples(st.integers(0, 9), st.text()),
    row=st.lists(st.dates()).map(tuple),
    names=st.frozensets(st.text()),
    by_name=st.dictionaries(st.text(), points),
    by_number=st.dictionaries(st.integers(-(2**53), 2**53), st.lists(st.sampled_from(Paint))),
)


@given(everything)
def test_any_event_comes_back_equal(event: Everything) -> None:
    """Whatever its fields hold, an event comes back equal in every field, decimals with their digits."""
    found = back(event)
    for name in Everything.__struct_fields__:
        before, after = getattr(event, name), getattr(found, name)
        if name == "moment":  # a moment is the same moment; its zone comes back as an offset
            assert before.astimezone(UTC) == after.astimezone(UTC)
            assert before.utcoffset() == after.utcoffset()
        else:
            assert before == after
            assert name == "names" or repr(before) == repr(after)


@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("hour", [1, 2])
def test_local_times_are_kept_when_clocks_change(hour: int, fold: int) -> None:
    """The hour that a change of clocks repeats, and the one it skips, can be stored: flights leave then, too."""
    for month, day in ((11, 3), (3, 10)):
        local = datetime(2013, month, day, hour, 30, fold=fold, tzinfo=ZoneInfo("America/New_York"))
        found = back(Parcel("p", Decimal(1), local))
        assert (found.sent.astimezone(UTC), found.sent.utcoffset()) == (local.astimezone(UTC), local.utcoffset())
        nested = back(Everything(moment=local))
        assert nested.moment.astimezone(UTC) == local.astimezone(UTC)


def test_big_integers_come_back() -> None:
    """Integers of a hundred digits come back whole."""
    assert back(Everything(number=10**100)).number == 10**100


class Loose(ef.Event, type="encoding.loose", kw_only=True):
    """Fields whose types are wide."""

    anything: Any = None
    either: int | str = 0
    maybe: list[float] | None = None


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (Loose(anything=(1, 2)), "anything is (1, 2) and would be [1, 2]"),
        (Loose(anything=Decimal("1.5")), "anything is Decimal('1.5') and would be '1.5'"),
        (Loose(anything={1: 2}), "anything is {1: 2} and would be {'1': 2}"),
        (Loose(maybe=[1.0, float("nan")]), "wrong type"),
        (Loose(either=1.5), "wrong type"),  # type: ignore[arg-type]
        (Everything(moment="2020-01-01T00:00:00Z"), "moment is '2020-01-01T00:00:00Z' and would be datetime"),  # type: ignore[arg-type]
        (Everything(paint="green"), "paint is 'green'"),  # type: ignore[arg-type]
        (Everything(raw="YQ=="), "raw is 'YQ=='"),  # type: ignore[arg-type]
        (Everything(decimal=Decimal("sNaN")), "decimal is Decimal('sNaN')"),
        (Everything(items=[Decimal("NaN")]), "items is"),
        (Everything(point=Point(1.5, Decimal(1))), "$.point.x"),  # type: ignore[arg-type]
        (Everything(names={1}), "$.names"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_come_back_otherwise_is_refused(event: Any, says: str) -> None:
    """A value that JSON would turn into another one is refused, by the name of its field."""
    with pytest.raises(InvalidEvent) as refused:
        Registry().encode(event)
    assert says in str(refused.value)


class Launched(ef.Event, type="encoding.launched"):
    """An event whose field has another name in the log."""

    crew: tuple[str, ...] = msgspec.field(name="rower")
    boat: str = "b"


def test_a_wrong_value_of_a_renamed_field_is_refused_by_both_names() -> None:
    """The name in the log, and that in the class; a field with one name is named once."""
    with pytest.raises(InvalidEvent, match=r"at `\$\.rower\[0\]` \(stored as rower, crew in the class\)\.") as refused:
        Registry().encode(Launched((4,)))  # type: ignore[arg-type]
    assert refused.value.fields["field"] == "rower[0]"
    with pytest.raises(InvalidEvent) as refused:
        Registry().encode(Launched((), 4))  # type: ignore[arg-type]
    assert "$.boat" in str(refused.value)
    assert "stored as" not in str(refused.value)


def test_a_number_may_be_given_where_it_is_exact() -> None:
    """An int for a float or a Decimal is equal to what comes back, so it is taken."""
    assert back(Everything(decimal=5)).decimal == Decimal(5)  # type: ignore[arg-type]
    assert back(Everything(real=5)).real == 5.0


# ------------------------------------------------------------------------------------------ names and versions


class Renamed(ef.Event, type="encoding.renamed", aliases=("encoding.before", "old.module.Before"), version=2):
    """An event that earlier had another name, in another module."""

    account: ef.Tag
    note: str = "default"


@pytest.mark.parametrize("name", ["encoding.renamed", "encoding.before", "old.module.Before"])
@pytest.mark.parametrize("version", [1, 2])
def test_old_names_and_versions_are_read(name: str, version: int) -> None:
    """A class reads events under its older names and versions, missing fields by their defaults, others ignored."""
    new = NewEvent(bytes(16), name, version, b'{"account":"a","gone":1}', ())
    assert Registry().decode(stored(new)) == (Renamed("a"),)


@pytest.mark.parametrize("name", ["encoding.renamed", "encoding.before", "old.module.Before"])
def test_a_newer_version_is_refused_under_every_name(name: str) -> None:
    """A version above that of the class may mean something else, even if its fields fit."""
    new = NewEvent(bytes(16), name, 3, b'{"account":"a","note":"b"}', ())
    with pytest.raises(UndecodableEvent, match="has version 3, and the newest version known here is 2"):
        Registry().decode(stored(new))


def test_new_events_have_the_new_name() -> None:
    """Aliases are for reading: what is written has the class's own name and version."""
    new = Registry().encode(Renamed("a"))
    assert (new.type, new.version) == ("encoding.renamed", 2)


def test_an_unknown_type_comes_with_near_ones() -> None:
    """A type that no class has is UnknownEventType, with the names that are alike and three ways out."""
    new = NewEvent(bytes(16), "encoding.renamedd", 1, b"{}", ())
    with pytest.raises(UnknownEventType) as refused:
        Registry().decode(stored(new))
    assert "encoding.renamed" in refused.value.what
    assert refused.value.fields == {"position": 1, "type": "encoding.renamedd"}
    for way in ("Import", "alias", "raw=True"):
        assert way in refused.value.remedy


def test_a_type_claimed_twice_is_read_as_neither() -> None:
    """Two classes of one name in two places are an error that names both. Once one is freed, the other is used."""
    import gc

    def clash() -> list[type]:
        class One(ef.Event, type="encoding.claimed"):
            pass

        class Two(ef.Event, type="encoding.claimed"):
            pass

        return [One, Two]

    def message() -> str:
        try:
            return str(Registry().decode(stored(new)))
        except UnknownEventType as error:
            return error.what

    both = clash()
    new = NewEvent(bytes(16), "encoding.claimed", 1, b"{}", ())
    said = message()
    assert "clash.<locals>.One" in said
    assert "clash.<locals>.Two" in said
    both.pop()
    gc.collect()
    assert type(Registry().decode(stored(new))[0]) is both[0]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b'{"parcel":"p"}', "weight"),
        (b'{"parcel":"p","weight":1,"inner":{"x":1}}', "inner.y"),
        (b'{"parcel":"p","weight":[]}', "weight"),
        (b'{"parcel":"p","weight":1,"inner":{"x":"a","y":1}}', "inner.x"),
        (b'{"parcel":5,"weight":1}', "parcel"),
        (b"[]", ""),
        (b"{", ""),
        (b"\xff", ""),
        (b"", ""),
    ],
    ids=repr,
)
def test_a_payload_that_does_not_fit_is_named(data: bytes, field: str) -> None:
    """A payload that its class cannot read names position, type and field, and what to do."""
    with pytest.raises(UndecodableEvent) as refused:
        Registry().decode(stored(NewEvent(bytes(16), "encoding.parcel", 2, data, ())))
    assert refused.value.fields["position"] == 1
    assert refused.value.fields["type"] == "encoding.parcel"
    assert refused.value.fields["field"] == field
    assert "raw=True" in refused.value.remedy


def test_pydantic_payloads_are_named_as_well() -> None:
    """A pydantic model that refuses a payload leads to the same error."""
    with pytest.raises(UndecodableEvent) as refused:
        Registry().decode(stored(NewEvent(bytes(16), "encoding.card", 1, b'{"card":"c"}', ())))
    assert refused.value.fields["field"] == "owner"


def test_a_class_defined_later_is_found() -> None:
    """A registry that did not know a type knows it as soon as its class exists."""
    registry = Registry()
    new = NewEvent(bytes(16), "encoding.later", 1, b"{}", ())
    with pytest.raises(UnknownEventType):
        registry.decode(stored(new))

    class Later(ef.Event, type="encoding.later"):
        pass

    assert registry.decode(stored(new)) == (Later(),)


def test_a_class_with_fields_no_one_understands_is_refused() -> None:
    """A class whose annotations cannot be read is InvalidEvent when its first event is appended, with the reason."""

    class Strange(ef.Event, type="encoding.strange"):
        thing: Nowhere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(InvalidEvent) as refused:
        Registry().encode(Strange(1))
    assert "Strange" in refused.value.what
    assert "Nowhere" in refused.value.what


# ------------------------------------------------------------------------------------------ metadata


def test_metadata_is_sorted_json() -> None:
    """Equal metadata is equal bytes, whatever the order it was given in; None is left out; nothing is no bytes."""
    assert encode_metadata({"b": 1, "a": None, "A": 2}) == encode_metadata({"A": 2, "b": 1}) == b'{"A":2,"b":1}'
    assert encode_metadata({}) is encode_metadata({"a": None}) is None


class Nested(msgspec.Struct, frozen=True):
    """Sets further down."""

    names: frozenset[str]


@ef.event("encoding.sets")
@dataclass(frozen=True)
class Sets:
    """Sets of several element types, also nested."""

    paints: frozenset[Paint]
    mixed: frozenset[int | str | None]
    deep: dict[int, list[Nested]]
    sets: frozenset[frozenset[str]]
    maybe: set[tuple[str, int]] | None = None


names = frozenset("abcdefgh")
SETS = [
    Sets(
        frozenset(Paint),
        frozenset({1, "a", None, "b"}),
        {2: [Nested(names)], 1: []},
        frozenset({names, frozenset("x")}),
        {("a", 1), ("b", 2)},
    )
]


@pytest.mark.parametrize("event", SETS)
def test_sets_come_back_from_everywhere(event: Any) -> None:
    """Sets of enums, of mixed values, of sets, within dicts and structs come back equal."""
    assert back(event) == event


def test_the_order_of_insertion_into_a_nested_set_does_not_change_the_bytes() -> None:
    """A set in a struct in a list in a dict is encoded in the same order, in whichever order it was filled."""

    def filled(names: list[str]) -> Sets:
        return Sets(frozenset(), frozenset(names), {1: [Nested(frozenset(names))]}, frozenset({frozenset(names)}))

    letters = [chr(number) for number in range(ord("a"), ord("a") + 26)]
    one, other = filled(letters), filled(letters[::-1])
    data = Registry().encode(one).data
    assert data == Registry().encode(other).data
    assert msgspec.json.decode(data)["deep"] == {"1": [{"names": letters}]}


def test_an_equal_event_is_equal_bytes() -> None:
    """An event encoded twice is the same bytes, in any process: that is what makes a repeat a repeat."""
    import subprocess
    import sys

    code = (
        "from eventfold.core.registry import Registry\n"
        "from eventfold.testing.conformance.round_trips import Everything\n"
        "from tests.core.test_encoding import SETS\n"
        "events = [Everything(names=frozenset('abcdefgh'), by_number={3: [], 1: []}), *SETS]\n"
        "print(*[Registry().encode(event).data.decode() for event in events])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1
