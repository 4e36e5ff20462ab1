"""A maker of bicycles: parts, assemblies, changes, suppliers and a year of units. All of it is made up, and said so.

Knows: tables, which are typed, and units, which are drawn by a seed. Does not know: how they are checked. Masses are
about those of real parts; the dates of the changes, the suppliers and the customers are chosen.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import eventfold as ef
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.bill_of_materials.app import (
    ComponentAdded,
    ComponentRemoved,
    PartDefined,
    Specification,
    Structure,
    Substance,
    SupplierApproved,
    SupplierWithdrawn,
    Taken,
    UnitBuilt,
    UnitShipped,
)

BEGIN = datetime(2024, 1, 2, 8, tzinfo=UTC)
UNITS, SEED = 4_000, 2024
PRODUCTS = ("city", "cargo", "folding")
# Part, name, grams, length, width and height in mm, substances in grams.
PARTS = (
    ("frame-city", "frame, city", 2900, 1020, 110, 640, {"aluminium": 2900}),
    ("frame-cargo", "frame, cargo", 6200, 1850, 140, 640, {"steel": 6200}),
    ("frame-folding", "frame, folding", 3300, 820, 120, 520, {"aluminium": 3250, "steel": 50}),
    ("rim", "rim 28 inch", 520, 622, 622, 25, {"aluminium": 520}),
    ("hub-front", "front hub", 180, 100, 60, 60, {"aluminium": 120, "steel": 60}),
    ("hub-rear", "rear hub", 340, 135, 70, 70, {"aluminium": 220, "steel": 120}),
    ("spoke", "spoke", 6, 290, 2, 2, {"steel": 6}),
    ("nipple", "spoke nipple", 1, 12, 4, 4, {"brass": 1, "lead": 0.0004}),
    ("tyre", "tyre", 620, 700, 700, 42, {"rubber": 600, "zinc oxide": 20}),
    ("inner-tube", "inner tube", 160, 700, 700, 30, {"rubber": 160}),
    ("chain", "chain", 300, 1400, 8, 9, {"steel": 300}),
    ("crank", "crank set", 780, 180, 170, 170, {"aluminium": 700, "steel": 80}),
    ("pedal", "pedal", 190, 100, 90, 30, {"aluminium": 120, "steel": 70}),
    ("handlebar", "handlebar", 330, 620, 60, 30, {"aluminium": 330}),
    ("grip", "grip", 55, 130, 35, 35, {"rubber": 55}),
    ("lever", "brake lever", 95, 140, 40, 20, {"aluminium": 95}),
    ("caliper", "brake caliper", 170, 90, 60, 40, {"aluminium": 150, "steel": 20}),
    ("pad", "brake pad", 18, 50, 12, 10, {"rubber": 18}),
    ("saddle", "saddle", 410, 270, 160, 80, {"steel": 150, "rubber": 260}),
    ("horn-brass", "horn, brass", 92, 60, 60, 45, {"brass": 90, "lead": 1.9}),
    ("horn-steel", "horn, steel", 84, 60, 60, 45, {"steel": 84}),
    ("lamp", "lamp housing", 70, 60, 50, 50, {"polycarbonate": 70}),
    ("board-1", "circuit board", 12, 40, 30, 4, {"copper": 3, "lead": 0.15}),
    ("board-2", "circuit board, free of lead", 12, 40, 30, 4, {"copper": 3, "tin": 0.2}),
    ("cable", "cable", 25, 900, 4, 4, {"copper": 10}),
    ("box", "cargo box", 4800, 800, 600, 450, {"wood": 4500, "steel": 300}),
)
# Assembly, component, pieces, day from which on it is in, day on which it is taken out (None: it stays), change.
COMPONENTS = (
    *(
        (product, part, 1, 0, None, "first")
        for product in PRODUCTS
        for part in ("cockpit", "drive", "lights", "saddle")
    ),
    *((product, f"frame-{product}", 1, 0, None, "first") for product in PRODUCTS),
    *((product, "wheel-rear", 1, 0, None, "first") for product in PRODUCTS),
    *((product, "wheel-front", 2 if product == "cargo" else 1, 0, None, "first") for product in PRODUCTS),
    ("cargo", "box", 1, 0, None, "first"),
    *(
        (wheel, part, n, 0, None, "first")
        for wheel in ("wheel-front", "wheel-rear")
        for part, n in (("rim", 1), ("tyres", 1))
    ),
    ("wheel-front", "hub-front", 1, 0, None, "first"),
    ("wheel-rear", "hub-rear", 1, 0, None, "first"),
    *(("wheel-front", part, 32, 0, None, "first") for part in ("spoke", "nipple")),
    *(("wheel-rear", part, 32, 0, 75, "first") for part in ("spoke", "nipple")),
    *(("wheel-rear", part, 36, 75, None, "C-1: spokes broke") for part in ("spoke", "nipple")),
    ("tyres", "tyre", 1, 0, None, "first"),
    ("tyres", "inner-tube", 1, 0, None, "first"),
    *(("drive", part, n, 0, None, "first") for part, n in (("chain", 1), ("crank", 1), ("pedal", 2))),
    *(("cockpit", part, n, 0, None, "first") for part, n in (("handlebar", 1), ("grip", 2), ("brake", 2))),
    ("cockpit", "horn-brass", 1, 0, 244, "first"),
    ("cockpit", "horn-steel", 1, 244, None, "C-3: a cheaper horn"),
    *(("brake", part, n, 0, None, "first") for part, n in (("lever", 1), ("caliper", 1), ("pad", 2), ("cable", 1))),
    ("lights", "lamp", 2, 0, None, "first"),
    ("lights", "cable", 2, 0, None, "first"),
    ("lights", "board-1", 2, 0, 121, "first"),
    ("lights", "board-2", 2, 121, None, "C-2: a new supplier of boards"),
)
# Part, supplier, day from which on it is approved, day on which that ends. The last row names no part: it is rejected.
SUPPLIERS = (
    *((part[0], "alba" if n % 2 else "borea", 0, None) for n, part in enumerate(PARTS)),
    *((part[0], "cima", 30 + n, None) for n, part in enumerate(PARTS) if n % 3 == 0),
    *((part, "dorset", 0, 160) for part in ("chain", "crank", "pedal", "spoke")),
    ("mudguard", "alba", 0, None),
)


class Fact(NamedTuple):
    """A row of a table, as something that happened on a day."""

    at: datetime
    event: ef.Event


def day(number: int) -> datetime:
    """The beginning of a day, counted from the first."""
    return BEGIN + timedelta(days=number)


def engineering() -> Iterator[Fact]:
    """Yield definitions, structures and approvals, in any order."""
    for part, name, grams, length, width, height, substances in PARTS:
        made_of = tuple(Substance(*each) for each in substances.items())
        yield Fact(day(0), PartDefined(part, name, Specification(grams, (length, width, height), made_of)))
    for assembly, component, pieces, since, until, change in COMPONENTS:
        yield Fact(day(since), ComponentAdded(assembly, component, pieces, change))
        if until is not None:
            yield Fact(day(until), ComponentRemoved(assembly, component, "replaced"))
    for part, supplier, since, until in SUPPLIERS:
        yield Fact(day(since), SupplierApproved(part, supplier))
        if until is not None:
            yield Fact(day(until), SupplierWithdrawn(part, supplier, "late deliveries"))


def orders(count: int) -> list[tuple[datetime, str, str, str]]:
    """Draw when each unit is built, its name, its product and who buys it: always the same ones."""
    chance = random.Random(SEED)  # noqa: S311
    times = sorted(day(1) + timedelta(minutes=int(chance.random() * 360 * 24 * 60)) for _ in range(UNITS))
    return [
        (at, f"u-{n:05}", chance.choice(PRODUCTS), f"customer-{int(chance.random() * 900)}")
        for n, at in enumerate(times[:count], start=1)
    ]


def load(store: ef.Store, limit: int | None = None) -> LoadCount:
    """Append the tables and the first `limit` units, by time. A row of the count is a row of a table, or a unit."""
    count = LoadCount()
    write(store, _drafts(limit or UNITS, count), count)
    return count


def _drafts(units: int, count: LoadCount) -> Iterator[tuple[ef.Draft, int]]:
    parts = {part[0] for part in PARTS}
    waiting: list[tuple[datetime, int, ef.Event, int]] = []
    for at, event in engineering():
        count.read += 1
        if isinstance(event, SupplierApproved) and event.part not in parts:
            count.reject("an approval for a part that is not defined")
            continue
        waiting.append((at, len(waiting), event, 1))
    wanted = orders(units)
    changes = sorted(waiting, key=lambda each: each[:2])
    structure, approved = Structure(), dict[str, set[str]]()
    shipping: list[tuple[datetime, int, ef.Event, int]] = []
    for at, unit, product, customer in wanted:
        while changes and changes[0][0] <= at:
            moment, _, event, rows = changes.pop(0)
            note(event, structure, approved)
            yield draft(moment, event), rows
        while shipping and shipping[0][0] <= at:
            moment, _, event, rows = shipping.pop(0)
            yield draft(moment, event), rows
        taken = tuple(
            Taken(part, pieces, sorted(approved[part])[at.day % len(approved[part])], f"{part}-{at:%y%m}")
            for part, pieces in sorted(structure.explode(product).items())
        )
        count.read += 1
        yield draft(at, UnitBuilt(unit, product, taken, tuple(each.part for each in taken))), 1
        shipping.append((at + timedelta(days=3), 0, UnitShipped(unit, customer), 0))
    for moment, _, event, rows in sorted([*changes, *shipping], key=lambda each: each[0]):
        yield draft(moment, event), rows


def note(event: ef.Event, structure: Structure, approved: dict[str, set[str]]) -> None:
    """Keep up with what is in what, and who may deliver."""
    match event:
        case ComponentAdded() | ComponentRemoved():
            structure.evolve(event)
        case SupplierApproved():
            approved.setdefault(event.part, set()).add(event.supplier)
        case SupplierWithdrawn():
            approved[event.part].discard(event.supplier)
        case _:
            pass


def draft(at: datetime, event: ef.Event) -> ef.Draft:
    """An event with an id made from what it is."""
    return ef.Draft(event, id=id_from(at, type(event).__name__, repr(event)), occurred=at)
