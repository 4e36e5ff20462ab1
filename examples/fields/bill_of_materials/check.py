"""Explodes bills of materials in recursive SQL beside the fold, and asks a question that was added a year later.

    python -m examples.fields.bill_of_materials.check [--store URL] [--limit N]

Knows: the tables of load.py, DuckDB, the log. Does not know: how the tables became events.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

import duckdb

import eventfold as ef
from eventfold.demo.fields import Checked, Comparison, connect, main
from eventfold.demo.fields.report import numbers, table
from examples.fields.bill_of_materials.a_year_later import THRESHOLD, Affected
from examples.fields.bill_of_materials.app import (
    ComponentAdded,
    ComponentRemoved,
    PartDefined,
    Structure,
    SupplierApproved,
    SupplierWithdrawn,
    Supply,
    UnitBuilt,
)
from examples.fields.bill_of_materials.load import BEGIN, COMPONENTS, PARTS, PRODUCTS, UNITS, day, load, orders

ASKED_ON = (0, 100, 200, 300)  # days on which bills of materials are compared

_TABLES = """
CREATE TABLE parts (part VARCHAR, grams DOUBLE, lead DOUBLE);
CREATE TABLE components (assembly VARCHAR, component VARCHAR, pieces BIGINT, since DOUBLE, until DOUBLE);
CREATE TABLE units (unit VARCHAR, product VARCHAR, built DOUBLE, customer VARCHAR);
CREATE TABLE exploded (product VARCHAR, since DOUBLE, part VARCHAR, pieces BIGINT);
"""
_EXPLODE = """
INSERT INTO exploded
WITH RECURSIVE inside(part, pieces) AS (
    SELECT $product, 1::BIGINT
    UNION ALL
    SELECT c.component, i.pieces * c.pieces FROM inside i JOIN components c ON c.assembly = i.part
    WHERE c.since <= $moment AND (c.until IS NULL OR c.until > $moment)
)
SELECT $product, $moment, part, sum(pieces) FROM inside WHERE part IN (SELECT part FROM parts) GROUP BY part
"""
# Of each unit the structure that was valid last when it was built.
_BUILT = """
CREATE TABLE built AS SELECT u.unit, u.customer, e.part, e.pieces, p.grams, p.lead
FROM units u JOIN exploded e ON e.product = u.product
   AND e.since = (SELECT max(since) FROM exploded WHERE since <= u.built)
JOIN parts p ON p.part = e.part
"""


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Compare structures, masses and affected units with SQL over the tables; print the answers."""
    result = Checked()
    affected = store.state(Affected("lead"))
    structure = store.state(Structure())
    with tables(limit) as db:
        compare_structures(store, db, result.comparison)
        compare_units(store, db, affected, result.comparison)
    check_units(store, result.comparison)
    result.figures = {
        "parts": len(PARTS),
        "units": store.count(ef.Query.of(types=[UnitBuilt])),
        "affected": len(affected.units),
        "customers": len(set(affected.customers.values())),
    }
    result.add("What is in a cargo bicycle", tree_lines(structure))
    result.add("A spoke is used in", [", ".join(sorted(structure.where_used("spoke")))])
    result.add(
        f"A year later: which units have an article with more than {THRESHOLD:.1%} of lead?", affected_lines(affected)
    )
    result.add("Who may deliver a chain", supply_lines(store))
    return result


@contextmanager
def tables(limit: int | None) -> Generator[duckdb.DuckDBPyConnection]:
    """The source's tables in DuckDB, with each product exploded at each change."""
    with connect() as db:
        db.execute(_TABLES)
        db.executemany("INSERT INTO parts VALUES (?, ?, ?)", [(p[0], p[2], p[6].get("lead", 0.0)) for p in PARTS])
        db.executemany("INSERT INTO components VALUES (?, ?, ?, ?, ?)", [row[:5] for row in COMPONENTS])
        units = [
            (unit, product, (at - BEGIN) / timedelta(days=1), who) for at, unit, product, who in orders(limit or UNITS)
        ]
        db.executemany("INSERT INTO units VALUES (?, ?, ?, ?)", units)
        for moment in {*ASKED_ON, *(row[3] for row in COMPONENTS)}:
            for product in PRODUCTS:
                db.execute(_EXPLODE, {"product": product, "moment": moment})
        db.execute(_BUILT)
        yield db


def compare_structures(store: ef.Store, db: duckdb.DuckDBPyConnection, comparison: Comparison) -> None:
    """Each product at some days: its parts at all levels, by the fold as of then and by recursive SQL."""
    for number in ASKED_ON:
        structure = store.state(Structure(), occurred_until=day(number))
        for product in PRODUCTS:
            sql = "SELECT part, pieces FROM exploded WHERE product = ? AND since = ?"
            name = f"pieces in a {product} bicycle on day {number}"
            comparison.figures(name, structure.explode(product), dict(db.execute(sql, [product, number]).fetchall()))


def compare_units(store: ef.Store, db: duckdb.DuckDBPyConnection, affected: Affected, comparison: Comparison) -> None:
    """The mass of every unit, the pieces of every part in all units, the units with lead, and who has them."""
    grams = {each.event.part: each.event.specification.grams for each in store.read(ef.Query.of(types=[PartDefined]))}
    masses: dict[str, float] = {}
    pieces: Counter[str] = Counter()
    for recorded in store.read(ef.Query.of(types=[UnitBuilt])):
        event: UnitBuilt = recorded.event
        masses[event.unit] = sum(grams[each.part] * each.pieces for each in event.taken)
        pieces.update({each.part: each.pieces for each in event.taken})
    by_unit = "SELECT unit, sum(grams * pieces) FROM built GROUP BY unit"
    by_part = "SELECT part, sum(pieces)::BIGINT FROM built GROUP BY part"
    with_lead = "SELECT DISTINCT unit, customer FROM built WHERE lead > $most * grams"
    comparison.figures("grams of a unit", masses, dict(db.execute(by_unit).fetchall()))
    comparison.figures("pieces in all units", pieces, dict(db.execute(by_part).fetchall()))
    found = dict(db.execute(with_lead, {"most": THRESHOLD}).fetchall())
    comparison.figures("has a unit with lead", {unit: affected.customers.get(unit) for unit in affected.units}, found)


def check_units(store: ef.Store, comparison: Comparison) -> None:
    """Every unit in the log whose parts were not those of its bill of materials, or from an unapproved supplier."""
    structure, approved = Structure(), set[tuple[str, str]]()
    types = [ComponentAdded, ComponentRemoved, SupplierApproved, SupplierWithdrawn, UnitBuilt]
    for recorded in store.read(ef.Query.of(types=types)):
        match recorded.event:
            case SupplierApproved(part=part, supplier=supplier):
                approved.add((part, supplier))
            case SupplierWithdrawn(part=part, supplier=supplier):
                approved.discard((part, supplier))
            case UnitBuilt() as built:
                comparison.compared += 1
                if Counter({each.part: each.pieces for each in built.taken}) != structure.explode(built.product):
                    comparison.finding(f"{built.unit} was built of other parts", recorded.position)
                if any((each.part, each.supplier) not in approved for each in built.taken):
                    comparison.finding(f"{built.unit} has a part of an unapproved supplier", recorded.position)
            case change:
                structure.evolve(change)


def tree_lines(structure: Structure, assembly: str = "cargo", depth: int = 0) -> list[str]:
    """An assembly as a tree."""
    lines: list[str] = []
    for component, pieces in structure.assemblies.get(assembly, {}).items():
        lines.append(f"{'  ' * depth}{pieces:>3} × {component}")
        lines += tree_lines(structure, component, depth + 2)
    return lines


def affected_lines(found: Affected) -> list[str]:
    """The articles, the units and the customers."""
    articles = Counter(part for parts in found.units.values() for part in parts)
    shares = [(part, 100 * share, articles[part]) for part, share in sorted(found.articles.items())]
    customers = len(set(found.customers.values()))
    return [
        *numbers({"units": len(found.units), "shipped": len(found.customers), "customers to inform": customers}),
        "",
        *table(("article", "% of lead", "in units"), shares),
    ]


def supply_lines(store: ef.Store) -> list[str]:
    """The suppliers of a chain at the beginning of the year, and at its end."""
    rows = [
        (f"{day(n):%d %B}", ", ".join(sorted(store.state(Supply("chain"), occurred_until=day(n)).suppliers)))
        for n in (1, 359)
    ]
    return table(("on", "suppliers"), rows)


if __name__ == "__main__":
    sys.exit(main("bill_of_materials", load, check))
