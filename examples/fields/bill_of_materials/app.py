"""Bills of materials: what contains what, who may deliver it, and what each unit was built of.

Knows: events with nested values, states, decisions. Does not know: where parts come from.

A part may be in many assemblies, an assembly has many parts: a many-to-many relationship, and a hierarchy. A part has
many suppliers, too, and a supplier many parts. Both are events with two tags, and can be asked from either side.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import msgspec

import eventfold as ef


class Substance(msgspec.Struct, frozen=True):
    name: str
    grams: float


class Specification(msgspec.Struct, frozen=True):
    """What a part is: its mass, its size in millimetres, what it is made of."""

    grams: float
    size: tuple[float, float, float]
    substances: tuple[Substance, ...] = ()


class Taken(msgspec.Struct, frozen=True):
    """Pieces of a part that went into a unit, from one lot of one supplier."""

    part: str
    pieces: int
    supplier: str
    lot: str


class PartDefined(ef.Event):
    part: ef.Tag
    name: str
    specification: Specification


class ComponentAdded(ef.Event):
    assembly: ef.Tag
    component: ef.Tag
    pieces: int
    change: str


class ComponentRemoved(ef.Event):
    assembly: ef.Tag
    component: ef.Tag
    change: str


class SupplierApproved(ef.Event):
    part: ef.Tag
    supplier: ef.Tag


class SupplierWithdrawn(ef.Event):
    part: ef.Tag
    supplier: ef.Tag
    reason: str


class UnitBuilt(ef.Event):
    """A unit, with every part that went into it; the parts are tags too, so that a recall finds their units."""

    unit: ef.Tag
    product: ef.Tag
    taken: tuple[Taken, ...]
    parts: Annotated[tuple[str, ...], ef.tag("part")]


class UnitShipped(ef.Event):
    unit: ef.Tag
    customer: ef.Tag


class Refused(Exception):
    """A rule refuses a change, or a unit."""


class Structure(ef.State):
    """All bills of materials: of each assembly its components and their pieces."""

    assemblies: dict[str, dict[str, int]] = {}

    def evolve(self, event: ComponentAdded | ComponentRemoved) -> None:
        components = self.assemblies.setdefault(event.assembly, {})
        if isinstance(event, ComponentAdded):
            components[event.component] = event.pieces
        else:
            components.pop(event.component, None)

    def explode(self, product: str, pieces: int = 1) -> Counter[str]:
        """The parts that are in a product, at all levels, and how many of each."""
        found: Counter[str] = Counter()
        if not self.assemblies.get(product):
            found[product] = pieces
        for component, each in self.assemblies.get(product, {}).items():
            found.update(self.explode(component, pieces * each))
        return found

    def contains(self, assembly: str, part: str) -> bool:
        """Whether a part is in an assembly, or is the assembly."""
        return part == assembly or any(self.contains(each, part) for each in self.assemblies.get(assembly, {}))

    def where_used(self, part: str) -> set[str]:
        """The assemblies that contain a part, at all levels."""
        direct = {assembly for assembly, components in self.assemblies.items() if part in components}
        return direct.union(*map(self.where_used, direct))


class Supply(ef.State):
    """Who may deliver a part."""

    part: ef.Tag
    suppliers: set[str] = set()

    def evolve(self, event: SupplierApproved | SupplierWithdrawn) -> None:
        (self.suppliers.add if isinstance(event, SupplierApproved) else self.suppliers.discard)(event.supplier)


class Unit(ef.State):
    """A unit: what it was built of, and who has it."""

    unit: ef.Tag
    product: str = ""
    taken: tuple[Taken, ...] = ()
    customer: str = ""

    def evolve(self, event: UnitBuilt | UnitShipped) -> None:
        if isinstance(event, UnitBuilt):
            self.product, self.taken = event.product, event.taken
        else:
            self.customer = event.customer


def add(structure: Structure, assembly: str, component: str, pieces: int, change: str) -> list[ComponentAdded]:
    """Put a component into an assembly, unless the assembly would then contain itself, at whatever depth."""
    if structure.contains(component, assembly):
        raise Refused(f"{component} contains {assembly}: {assembly} would contain itself")
    if structure.assemblies.get(assembly, {}).get(component) == pieces:
        return []
    return [ComponentAdded(assembly, component, pieces, change)]


def remove(structure: Structure, assembly: str, component: str, change: str) -> list[ComponentRemoved]:
    """Take a component out of an assembly; units that were built before keep it."""
    return (
        [ComponentRemoved(assembly, component, change)] if component in structure.assemblies.get(assembly, {}) else []
    )


def withdraw(supply: Supply, supplier: str, reason: str) -> list[SupplierWithdrawn]:
    """Accept a part from this supplier no longer."""
    return [SupplierWithdrawn(supply.part, supplier, reason)] if supplier in supply.suppliers else []


def build(unit: Unit, structure: Structure, supplies: list[Supply], product: str, lots: list[Taken]) -> list[UnitBuilt]:
    """Record a unit: exactly the parts of its bill of materials, each from a supplier that is approved for it."""
    if unit.product:
        return []
    if Counter({each.part: each.pieces for each in lots}) != structure.explode(product):
        raise Refused(f"these are not the parts of {product}")
    approved = {each.part: each.suppliers for each in supplies}
    for each in lots:
        if each.supplier not in approved.get(each.part, ()):
            raise Refused(f"{each.supplier} is not approved for {each.part}")
    return [UnitBuilt(unit.unit, product, tuple(lots), tuple(sorted(each.part for each in lots)))]


def ship(unit: Unit, customer: str) -> list[UnitShipped]:
    """Ship a unit that was built, once."""
    if not unit.product:
        raise Refused(f"{unit.unit} was not built")
    return [] if unit.customer else [UnitShipped(unit.unit, customer)]
