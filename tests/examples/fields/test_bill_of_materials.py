"""Bills of materials: a hierarchy without cycles, approved suppliers, units as built, a question added a year later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.demo.fields import change_byte, contend, damage_of, forge
from examples.fields.bill_of_materials.a_year_later import Affected
from examples.fields.bill_of_materials.app import (
    ComponentAdded,
    ComponentRemoved,
    PartDefined,
    Refused,
    Structure,
    SupplierApproved,
    SupplierWithdrawn,
    Supply,
    Taken,
    Unit,
    UnitBuilt,
    UnitShipped,
    add,
    build,
    remove,
    ship,
    withdraw,
)
from examples.fields.bill_of_materials.check import check
from examples.fields.bill_of_materials.load import day, load
from tests.support.servers.postgres import shared

UNITS = 400


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ef.Store]:
    """A store with the tables and some units."""
    with ef.Store(str(tmp_path / "parts.db")) as opened:
        assert load(opened, UNITS).is_complete
        yield opened


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new store."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    return shared().url(schema=f"s{uuid4().hex[:12]}")


def test_a_second_load_writes_nothing(store: ef.Store) -> None:
    """Ids are made from the rows; the row that names no part is rejected again."""
    head = store.head()
    again = load(store, UNITS)
    assert again.is_complete
    assert (again.loaded, again.events, store.head()) == (0, 0, head)
    assert sum(again.rejected.values()) == 1


def test_structures_units_and_substances_are_those_of_recursive_sql(store: ef.Store) -> None:
    """Each product on some days, each unit's mass, each unit with lead; and the report fits 80 columns."""
    checked = check(store, UNITS)
    assert checked.comparison.mismatches == []
    assert checked.comparison.compared > 2 * UNITS
    assert max(len(line) for _, lines in checked.chapters for line in lines) <= 80


def test_a_question_added_later_is_answered_for_the_units_built_before(store: ef.Store) -> None:
    """Units with the brass horn are found, with their customers, though no event names the question."""
    found = store.state(Affected("lead"))
    assert set(found.articles) == {"horn-brass", "board-1"}
    built = [each.event for each in store.read(ef.Query.of(types=[UnitBuilt]))]
    assert set(found.units) == {each.unit for each in built if {"horn-brass", "board-1"} & {*each.parts}}
    assert set(found.customers) == set(found.units)
    assert store.state(Affected("asbestos")).units == {}
    recalled = store.read(ef.Query.of(types=[UnitBuilt], tags=["part:horn-brass"]))
    assert {each.event.unit for each in recalled} == {u for u, parts in found.units.items() if "horn-brass" in parts}


def test_a_unit_keeps_the_structure_of_its_day(store: ef.Store) -> None:
    """The bill of materials of the past is folded until that day; a change of today is no change of it."""
    then = store.state(Structure(), occurred_until=day(10)).explode("city")
    now = store.state(Structure()).explode("city")
    assert (then["spoke"], now["spoke"]) == (64, 68)
    assert then["horn-brass"] == 1 and now["horn-brass"] == 0
    first = next(iter(store.read(ef.Query.of(types=[UnitBuilt], tags=["product:city"])))).event
    assert {each.part: each.pieces for each in first.taken} == then


def test_nested_values_come_back_as_they_were_written(store: ef.Store) -> None:
    """A specification has substances, each with its grams; they are typed when they are read."""
    (defined,) = store.read(ef.Query.of(types=[PartDefined], tags=["part:horn-brass"]))
    specification = defined.event.specification
    assert specification.size == (60, 60, 45)
    assert {each.name: each.grams for each in specification.substances} == {"brass": 90, "lead": 1.9}


def test_forged_units_are_found(store: ef.Store) -> None:
    """One of other parts than its bill of materials, and one with a part of an unapproved supplier."""
    real = next(iter(store.read(ef.Query.of(types=[UnitBuilt]), backwards=True))).event
    forge(store, UnitBuilt("u-x", real.product, real.taken[1:], real.parts[1:]))
    taken = (Taken(real.taken[0].part, real.taken[0].pieces, "nowhere", "l-1"), *real.taken[1:])
    forge(store, UnitBuilt("u-y", real.product, taken, real.parts))
    found = [each.figure for each in check(store, UNITS).comparison.mismatches]
    assert "u-x was built of other parts" in found
    assert "u-y has a part of an unapproved supplier" in found


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    """The engine's check of its log names the position."""
    path = tmp_path / "parts.db"
    with ef.Store(str(path)) as opened:
        load(opened, 10)
    assert damage_of(str(path)).flaws == ()
    change_byte(path, 3)
    assert 3 in [flaw.position for flaw in damage_of(str(path)).flaws]


def test_no_assembly_contains_itself_while_32_tasks_try(url: str) -> None:
    """Each of 32 tasks puts the next assembly into its own: a ring, if the condition is left out."""
    is_ring = {}
    for conditional in (True, False):
        names = [f"{conditional}-{n}" for n in range(32)]
        with ef.Store(url) as opened:
            opened.append(ComponentAdded(f"start-{conditional}", names[0], 1, "first"))
        tasks = [(Structure(), name, names[(n + 1) % 32], 1, "at once") for n, name in enumerate(names)]
        done = contend(url, add, tasks, Refused, conditional=conditional)
        with ef.Store(url) as opened:
            assemblies = opened.state(Structure()).assemblies
        part, steps = names[0], 0
        while (following := next(iter(assemblies.get(part, {})), None)) not in (None, names[0]) and steps < 64:
            part, steps = str(following), steps + 1
        is_ring[conditional] = following == names[0]
        assert done.refused == (1 if conditional else 0)
    assert is_ring == {True: False, False: True}


def build_or_withdraw(unit: Unit, structure: Structure, supplies: list[Supply], ends: bool) -> list[ef.Event]:
    """One of 32 tasks withdraws the supplier, the others build with its parts."""
    if ends:
        return [*withdraw(supplies[0], "alba", "a recall")]
    return [*build(unit, structure, supplies, unit.unit[:1], [Taken(supplies[0].part, 2, "alba", "l-1")])]


def test_no_unit_has_a_part_of_a_withdrawn_supplier_while_32_tasks_build(url: str) -> None:
    """After the withdrawal no unit is built with the part. Without the condition some are."""
    late = {}
    for conditional, product in ((True, "a"), (False, "b")):
        part = f"part-{product}"
        with ef.Store(url) as opened:
            opened.append(ComponentAdded(product, part, 2, "first"), SupplierApproved(part, "alba"))
        tasks = [(Unit(f"{product}-{n}"), Structure(), [Supply(part)], n == 0) for n in range(32)]
        contend(url, build_or_withdraw, tasks, Refused, conditional=conditional)
        with ef.Store(url) as opened:
            query = ef.Query.of(types=[UnitBuilt, SupplierWithdrawn], tags=[f"part:{part}"])
            kinds = [each.type for each in opened.read(query)]
            late[conditional] = kinds[kinds.index("SupplierWithdrawn") + 1 :]
    assert late[True] == []
    assert late[False] != []


def test_rules_of_units_and_changes() -> None:
    """Exactly the parts, once; shipped once, and only if built; a change that changes nothing writes nothing."""
    with ef.Store("memory:") as opened:
        opened.decide(add, Structure(), "bike", "wheel", 2, "first")
        assert opened.decide(add, Structure(), "bike", "wheel", 2, "again").events == ()
        with pytest.raises(Refused, match="would contain itself"):
            opened.decide(add, Structure(), "wheel", "bike", 1, "wrong")
        with pytest.raises(Refused, match="would contain itself"):
            opened.decide(add, Structure(), "bike", "bike", 1, "wrong")
        opened.append(SupplierApproved("wheel", "alba"))
        question = Unit("u-1"), Structure(), [Supply("wheel")], "bike"
        with pytest.raises(Refused, match="not the parts"):
            opened.decide(build, *question, [Taken("wheel", 1, "alba", "l-1")])
        with pytest.raises(Refused, match="not approved"):
            opened.decide(build, *question, [Taken("wheel", 2, "borea", "l-1")])
        with pytest.raises(Refused, match="not built"):
            opened.decide(ship, Unit("u-1"), "ann")
        assert len(opened.decide(build, *question, [Taken("wheel", 2, "alba", "l-1")]).events) == 1
        assert opened.decide(build, *question, [Taken("wheel", 2, "alba", "l-1")]).events == ()
        (shipped,) = opened.decide(ship, Unit("u-1"), "ann").events
        assert shipped.event == UnitShipped("u-1", "ann")
        assert opened.decide(ship, Unit("u-1"), "bob").events == ()
        (removed,) = opened.decide(remove, Structure(), "bike", "wheel", "C-1").events
        assert isinstance(removed.event, ComponentRemoved)
        assert opened.state(Unit("u-1")).taken[0].pieces == 2
        assert opened.state(Structure()).where_used("wheel") == set()
