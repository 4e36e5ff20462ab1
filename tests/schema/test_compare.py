"""What breaks the reading of old events is told from what does not, with what to write instead."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

import eventfold as ef
from eventfold.schema import Finding, compare, lock_of
from eventfold.schema.catalogue import as_html, catalogue
from tests.schema.years import shop


def changed(old: type, new: type) -> list[Finding]:
    """The findings between two classes."""
    return compare(lock_of([old]), lock_of([new]))


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
    ({"n": int, "m": str}, {"n": int, "more": (ef.Unknown, {})}),
    ({"n": int, "more": (ef.Unknown, {})}, {"n": int}),
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
    assert strict == ["refuses unknown fields from now on; scan your log for fields of former years"]


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
    from eventfold.schema import types_of

    lock = lock_of(types_of([shop.__name__]))
    assert compare(lock, lock) == []
    assert set(lock["types"]["ShopOrderPlaced"]["versions"]) == {"1", "2"}


def test_the_catalogue_shows_fields_tags_deciders_and_folders() -> None:
    """A person finds who decides an event and who folds it; the HTML page escapes what it shows."""
    page = catalogue([shop.__name__])
    assert "## ShopOrderAccepted v3" in page
    assert "Decided by `accept`. Folded by `Revenue`." in page
    assert "| `order` | string | yes | `order:…` |" in page
    assert "Read as OrderV2 v2 → ShopOrderAccepted v3." in page
    html = as_html(page)
    assert '<h2 id="shoporderaccepted-v3">' in html
    assert "<code>accept</code>" in html
