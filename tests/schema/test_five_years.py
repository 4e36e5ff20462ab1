"""A log written by five earlier versions of one module, each in a process of its own, read by today's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.errors import UndecodableEvent
from eventfold.schema import scan
from tests.schema.years import shop

YEARS = Path(__file__).parent / "years"


@pytest.fixture
def store(tmp_path: Path) -> ef.Store:
    """A store written by 2021, 2022, 2023, 2024 and 2025, in that order."""
    path = str(tmp_path / "shop.db")
    for year in range(2021, 2026):
        subprocess.run([sys.executable, str(YEARS / f"shop_{year}.py"), path], check=True, timeout=60)
    return ef.Store(path, create=False)


def test_every_year_is_read_as_todays_classes(store: ef.Store) -> None:
    """Defaults, a changed unit, a nested field, a renamed class and a split, all in one log."""
    read = [recorded.event for recorded in store.read()]
    assert [e for e in read if isinstance(e, shop.ShopOrderAccepted)] == [
        shop.ShopOrderAccepted("o-2021", shop.Money(1_000, "EUR")),
        shop.ShopOrderAccepted("o-2022", shop.Money(2_000, "EUR"), "c-1"),
        shop.ShopOrderAccepted("o-2023", shop.Money(3_000, "EUR"), "c-1"),
        shop.ShopOrderAccepted("o-2024", shop.Money(4_000, "CHF")),
        shop.ShopOrderAccepted("o-2025", shop.Money(5_000, "EUR"), "c-2"),
    ]
    assert [e for e in read if isinstance(e, (shop.Left, shop.Arrived))] == [
        shop.Left("o-2021", "Bremen"),
        shop.Arrived("o-2021", "Ulm"),
        shop.Left("o-2025", "Kiel"),
        shop.Arrived("o-2025", "Jena"),
    ]


def test_states_know_todays_classes_only(store: ef.Store) -> None:
    """A question about today's class finds what was stored under older names and versions."""
    assert store.state(shop.Revenue()).cents == {"EUR": 11_000, "CHF": 4_000}
    assert store.state(shop.Whereabouts("o-2021")).place == "Ulm"


def test_a_condition_over_todays_class_sees_events_of_older_names(store: ef.Store) -> None:
    """Two deployments, two names, one rule: an older name still conflicts."""
    with pytest.raises(ef.AppendConflict):
        store.append(shop.Left("o-2021", "x"), unless=shop.Whereabouts("o-2021"))


def test_a_scan_says_that_everything_fits(store: ef.Store) -> None:
    """Every event of every year is read, and counted by type and version."""
    result = scan(store)
    assert result.fits
    assert result.events == 8
    assert result.types["ShopOrderPlaced v1"] == 2


def test_a_scan_names_what_no_longer_fits(store: ef.Store) -> None:
    """An event whose field has the wrong type is named by type, version, field and first position."""

    class Parcel(ef.Event, type="schema-parcel"):
        parcel: ef.Tag
        weight: str

    store.append(Parcel("p", "heavy"), Parcel("q", "light"))

    class Parcel(ef.Event, type="schema-parcel"):  # type: ignore[no-redef]
        parcel: ef.Tag
        weight: int

    result = scan(store)
    assert [(m.type, m.version, m.field, m.count, m.first) for m in result.misfits] == [
        ("schema-parcel", 1, "weight", 2, 9)
    ]


def test_an_upcaster_that_raises_is_named_with_its_event() -> None:
    """The error gives the position, the type, the version and the upcaster."""

    class Old(ef.Event, type="schema-raising"):
        item: ef.Tag

    store = ef.Store("memory:")
    store.append(Old("x"))

    class New(ef.Event, type="schema-raising", version=2):
        item: ef.Tag

    def step(old: Old) -> New:
        raise KeyError("weight")

    step.__annotations__ = {"old": Old, "return": New}
    ef.upcast(step)
    with pytest.raises(UndecodableEvent, match=r"Event 1 \(schema-raising v1\) could not be upcast by .*step"):
        list(store.read())


def test_a_gap_between_versions_is_an_error() -> None:
    """A version without class or upcaster is never guessed at when others have theirs."""

    class First(ef.Event, type="schema-gap", version=2):
        item: ef.Tag

    class Last(ef.Event, type="schema-gap", version=3):
        item: ef.Tag

    def step(old: First) -> Last:
        return Last(old.item)

    step.__annotations__ = {"old": First, "return": Last}
    ef.upcast(step)
    writer = ef.Store("memory:schema-gap")

    class Zero(ef.Event, type="schema-gap-raw"):
        item: ef.Tag

    from eventfold.concurrency import run
    from eventfold.core.envelope import NewEvent, new_id
    from eventfold.ports.messages import AppendRequest

    run(writer.engine.append_many([AppendRequest((NewEvent(new_id(), "schema-gap", 1, b"{}", ()),))]))
    with pytest.raises(UndecodableEvent, match="gap"):
        list(writer.read())


def test_forks_and_circles_are_refused_when_they_are_declared() -> None:
    """One way leads on from each class, and never back."""

    class A(ef.Event, type="schema-a"):
        item: ef.Tag

    class B(ef.Event, type="schema-b"):
        item: ef.Tag

    def there(old: A) -> B:
        return B(old.item)

    def also(old: A) -> B:
        return B(old.item)

    def back(old: B) -> A:
        return A(old.item)

    for step, hints in ((there, (A, B)), (also, (A, B)), (back, (B, A))):
        step.__annotations__ = {"old": hints[0], "return": hints[1]}
    ef.upcast(there)
    with pytest.raises(ef.EventfoldError, match="two upcasters"):
        ef.upcast(also)
    with pytest.raises(ef.EventfoldError, match="leads back"):
        ef.upcast(back)
