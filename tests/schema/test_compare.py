"""Changes that break the reading of old events are distinguished from others, with what to write instead."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pydantic
import pytest

import eventfold as ef
from eventfold.core.registry import Registry
from eventfold.schema import Finding, build_lock, compare
from eventfold.schema.catalogue import catalogue, to_html
from eventfold.schema.entries import entries
from tests.schema import workshop, workshop_events
from tests.schema.years import shop


def changed(old: type, new: type) -> list[Finding]:
    """The findings between two classes."""
    return compare(build_lock([old]), build_lock([new]))


def event(fields: dict[str, Any], **options: Any) -> type:
    """An event class called Thing with these annotations; a value (type, default) gives a default."""
    hints = {k: v[0] if isinstance(v, tuple) else v for k, v in fields.items()}
    defaults = {k: v[1] for k, v in fields.items() if isinstance(v, tuple)}
    space = {"__annotations__": hints, "__module__": __name__, "__qualname__": "Thing"} | defaults
    return type(ef.Event)("Thing", (ef.Event,), space, type="schema-thing", **options)


class Two(Enum):
    """Two members."""

    A = "a"
    B = "b"


class Three(Enum):
    """One more."""

    A = "a"
    B = "b"
    C = "c"


class Loose(msgspec.Struct):
    """Ignores what it does not know."""

    a: int = 0
    b: int = 0


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """Refuses what it does not know."""

    a: int = 0


COMPATIBLE = [
    ({"n": int}, {"n": float}),
    ({"n": int}, {"n": int | None}),
    ({"n": int}, {"n": int, "m": (str, "x")}),
    ({"n": int, "m": str}, {"n": int}),
    ({"n": Two}, {"n": Three}),
    ({"n": (int, 0)}, {"n": int}),
    ({"n": list[int]}, {"n": tuple[float, ...]}),
    ({"n": Literal["a"]}, {"n": Literal["a", "b"]}),
    ({"n": int}, {"n": Any}),
    ({"n": int, "m": str}, {"n": int, "more": (ef.UnknownFields, {})}),
    ({"n": Annotated[int, msgspec.Meta(ge=1)]}, {"n": Annotated[int, msgspec.Meta(ge=0)]}),
    ({"n": Annotated[str, msgspec.Meta(max_length=3)]}, {"n": Annotated[str, msgspec.Meta(max_length=9)]}),
    ({"n": int}, {"n": (int, 0)}),
    ({"n": int, "more": (ef.UnknownFields, {})}, {"n": int}),
]
BREAKING = [
    ({"n": int}, {"n": str}),
    ({"n": int | None}, {"n": int}),
    ({"n": int}, {"n": int, "m": str}),
    ({"n": Three}, {"n": Two}),
    ({"n": float}, {"n": int}),
    ({"n": list[str]}, {"n": list[int]}),
    ({"n": ef.Tag}, {"n": str}),
    ({"n": ef.Tag}, {"n": Annotated[str, ef.tag("m")]}),
    ({"n": dict[str, int]}, {"n": dict[str, str]}),
    ({"n": Loose}, {"n": Strict}),
    ({"n": Annotated[int, msgspec.Meta(ge=0)]}, {"n": Annotated[int, msgspec.Meta(ge=1)]}),
    ({"n": int}, {"n": Annotated[int, msgspec.Meta(gt=0)]}),
    ({"n": list[int]}, {"n": Annotated[list[int], msgspec.Meta(max_length=3)]}),
]


@pytest.mark.parametrize(("old", "new"), COMPATIBLE)
def test_what_reads_old_events_is_compatible(old: dict[str, Any], new: dict[str, Any]) -> None:
    """A difference is noted, and none of it is breaking."""
    found = changed(event(old), event(new))
    assert found
    assert not [f for f in found if f.breaking], found


@pytest.mark.parametrize(("old", "new"), BREAKING)
def test_what_cannot_read_old_events_is_breaking(old: dict[str, Any], new: dict[str, Any]) -> None:
    """A break names the type, the version, the field, and what to write."""
    breaks = [f for f in changed(event(old), event(new)) if f.breaking]
    assert breaks
    assert all(f.type == "schema-thing" and f.version == 1 and f.write for f in breaks)


def test_a_field_may_only_go_where_unknown_fields_are_read() -> None:
    """A class that refuses what it does not know refuses its own past."""
    old, new = event({"n": int, "m": int}), event({"n": int}, forbid_unknown_fields=True)
    (found,) = [f for f in changed(old, new) if f.breaking]
    assert (found.field, "forbid_unknown_fields" in found.write) == ("m", True)
    strict = [f.what for f in changed(event({"n": int}), event({"n": int}, forbid_unknown_fields=True))]
    assert strict == ["now refuses unknown fields; scan your log for fields of earlier versions"]


class Sum(msgspec.Struct):
    """A value object."""

    cents: int
    currency: str = "EUR"


class OtherSum(msgspec.Struct):
    """The same, with another type within."""

    cents: str
    currency: str = "EUR"


def test_a_change_within_a_value_object_is_located() -> None:
    """Not `was object and is object`."""
    (found,) = changed(event({"sums": list[Sum]}), event({"sums": list[OtherSum]}))
    assert (found.field, found.what) == ("sums[].cents", "was integer and is string")


def test_another_default_is_reported_since_it_changes_what_old_events_mean() -> None:
    """It breaks no reading, and should not come unnoticed."""
    (found,) = changed(event({"n": (int, 1)}), event({"n": (int, 2)}))
    assert (found.breaking, found.what) == (False, "has the default 2, was 1: events without it get the new one")


def test_the_code_to_begin_with_reads_what_was_locked() -> None:
    """The old class is written out from the lock, and takes an event of its time as it is."""
    fields: dict[str, Any] = {
        "item": ef.Tag,
        "shop": Annotated[str, ef.tag("store")],
        "price": Sum,
        "when": datetime,
        "by": UUID,
        "kinds": list[Two],
        "total": Decimal,
        "counts": (dict[str, int], {}),
        "note": (str | None, None),
        "flag": (bool, True),
    }
    old = event(fields)
    data = (
        Registry()
        .encode(old("tea", "s-1", Sum(4), datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1), [Two.A], Decimal(1)))
        .data
    )
    (found,) = [f for f in changed(old, event({"item": ef.Tag}, version=2)) if f.code]
    names: dict[str, Any] = {"ef": ef, "msgspec": msgspec, "Any": Any, "Annotated": Annotated, "Literal": Literal}
    names |= {"UUID": UUID, "Decimal": Decimal, "datetime": datetime, "__name__": "written_from_a_stub"}
    names["SchemaThing"] = event({"item": ef.Tag}, version=2)
    exec(compile(found.code, "stub", "exec", dont_inherit=True), names)  # noqa: S102 (what a person would paste)
    kept = names["SchemaThingV1"]
    read = msgspec.json.decode(data, type=kept)
    assert (read.item, read.price, read.total, read.flag) == ("tea", {"cents": 4, "currency": "EUR"}, Decimal(1), True)
    locked, again = build_lock([old]), build_lock([kept])
    assert (
        locked["types"]["schema-thing"]["versions"]["1"]["tags"]
        == (again["types"]["schema-thing"]["versions"]["1"]["tags"])
    )


def test_a_tag_field_with_another_name_in_the_class_is_no_change() -> None:
    """The stored name and the key of the tag are the same; also a lock file that has tags by names of the class."""
    plain = event({"item": ef.Tag, "n": int})
    renamed = event({"product": (Annotated[str, ef.tag("item")], msgspec.field(name="item")), "n": int})
    again = event({"goods": (Annotated[str, ef.tag("item")], msgspec.field(name="item")), "n": int})
    assert build_lock([plain]) == build_lock([renamed])
    assert changed(plain, renamed) == changed(renamed, plain) == changed(renamed, again) == []
    earlier = build_lock([renamed])
    earlier["types"]["schema-thing"]["versions"]["1"]["tags"] = {"product": "item"}
    for now in (plain, renamed, again):
        assert compare(earlier, build_lock([now])) == []
    (found,) = compare(earlier, build_lock([event({"item": str, "n": int})]))
    assert found.breaking
    assert "was tagged 'item' and is no tag now" in found.what
    other = event({"product": (Annotated[str, ef.tag("product")], msgspec.field(name="item")), "n": int})
    assert [each.breaking for each in changed(plain, other)] == [True]


def test_a_tag_of_an_aliased_field_of_pydantic_is_locked_by_the_alias() -> None:
    """As its schema is; the catalogue shows the tag beside the field."""

    class Priced(pydantic.BaseModel):
        product: Annotated[str, ef.tag("item"), pydantic.Field(alias="item")]

    ef.event("schema-aliased")(Priced)
    version = build_lock([Priced])["types"]["schema-aliased"]["versions"]["1"]
    assert (list(version["fields"]), version["tags"]) == (["item"], {"item": "item"})


def test_no_change_is_no_finding() -> None:
    """Documentation and order change nothing."""
    assert changed(event({"n": int}), event({"n": int})) == []


def test_a_raised_version_without_an_upcaster_is_breaking() -> None:
    """The finding carries the code to begin with."""
    old, new = event({"n": int}), event({"n": str}, version=2)
    (found,) = [f for f in changed(old, new) if f.breaking]
    assert "@ef.upcast" in found.code


def test_a_type_without_a_class_is_breaking_unless_renamed() -> None:
    """An alias keeps the old name readable."""

    class Old(ef.Event, type="schema-old"):
        n: int

    class New(ef.Event, type="schema-new"):
        n: int

    class Renamed(ef.Event, type="schema-renamed", aliases=("schema-old",)):
        n: int

    assert any(f.breaking and "aliases" in f.write for f in changed(Old, New))
    assert not any(f.breaking for f in changed(Old, Renamed))


def test_the_shops_years_are_compatible_with_themselves() -> None:
    """Today's shop against its own lock has no finding; without an upcaster it has."""
    from eventfold.schema import event_classes

    lock = build_lock(event_classes([shop.__name__]))
    assert compare(lock, lock) == []
    assert set(lock["types"]["ShopOrderPlaced"]["versions"]) == {"1", "2"}


def test_the_catalogue_shows_fields_tags_deciders_and_folders() -> None:
    """A person finds who decides an event and who folds it; the HTML page escapes what it shows."""
    page = catalogue([shop.__name__])
    assert "## ShopOrderAccepted v3" in page
    assert "Decided by `accept`. Folded by `Revenue`." in page
    assert "| `order` | string | yes | `order:…` |" in page
    assert "Read as OrderV2 v2 → ShopOrderAccepted v3." in page
    html = to_html(page)
    assert '<h2 id="shoporderaccepted-v3">' in html
    assert "<code>accept</code>" in html


def test_the_catalogue_as_data_says_what_the_page_says() -> None:
    """Who makes and takes an event; an old version has its way to the newest one instead."""
    found = {(each.type, each.version): each for each in entries([workshop.__name__, workshop_events.__name__])}
    taken = found["workshop-job-taken", 1]
    assert (taken.decided_by, taken.folded_by) == (("Job.take",), ("Job", "Supervision"))
    assert (taken.projected_by, taken.reacted_by) == (("JobCounts", "Jobs"), ("Supervision",))
    assert taken.is_current
    old = next(each for each in entries([shop.__name__]) if each.source.endswith(".OrderV1"))
    assert (old.decided_by, old.folded_by, old.is_current) == ((), (), False)
    assert old.read_as[-1] == "ShopOrderAccepted v3"


def test_the_catalogue_finds_all_who_have_to_do_with_an_event() -> None:
    """Functions, aggregates, processes that decide it; states, read models, subscriptions, effects that take it."""
    page = catalogue([workshop.__name__, workshop_events.__name__])
    said = {part.partition(" ")[0]: part for part in page.split("## ")[1:]}
    taken, finished, overdue = (said[f"workshop-job-{each}"] for each in ("taken", "finished", "overdue"))
    assert (
        "Decided by `Job.take`. Folded by `Job`, `Supervision`. Projected by `JobCounts`, `Jobs`. "
        "Reacted to by `Supervision`." in taken
    )
    assert (
        "Decided by `finish`, `give_up`. Folded by `Job`. Projected by `Jobs`. Reacted to by `Caller`, `bill`."
        in finished
    )
    assert "Decided by `Supervision.react`. Folded by nothing here. Reacted to by `Supervision`." in overdue
    assert "| `tools` | list of string | no |  |" in finished
    assert "A worker \\| something took a job. |" in page
    assert "<td>A worker | something took a job.</td></tr>" in to_html(page)
