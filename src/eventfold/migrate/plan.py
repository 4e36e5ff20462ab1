"""What is migrated, ready to be used: the mapping with the source's tables, their codecs, and the order of loading.

Knows: mapping, schema. Does not know: connections, stores.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from eventfold.errors import InvalidInput
from eventfold.migrate.events import TableEvents
from eventfold.migrate.mapping import Mapping, require_complete
from eventfold.migrate.reflection import Schema, Table, definition
from eventfold.migrate.table_codec import Hide, TableCodec


class Plan(msgspec.Struct, frozen=True):
    """The tables that are migrated, in the order of loading: those that are referred to come first.

    `late`: tables whose rows without a moment come after all moments, since they refer to rows that have one.
    """

    mapping: Mapping
    schema: Schema
    tables: dict[str, Table]
    events: dict[str, TableEvents]
    late: frozenset[str]

    def only(self, labels: Iterable[str]) -> Plan:
        """Return the plan of some of the tables."""
        chosen = set(labels)
        return msgspec.structs.replace(
            self,
            tables={label: each for label, each in self.tables.items() if label in chosen},
            events={label: each for label, each in self.events.items() if label in chosen},
        )

    def with_parts(self, labels: Iterable[str]) -> list[str]:
        """Return these tables and those that are parts of them, in the order of loading. Raises InvalidInput."""
        chosen = set(labels)
        unknown = sorted(chosen - self.tables.keys())
        if unknown:
            raise InvalidInput(
                f"{unknown[0]} is no table of this migration.",
                f"Its tables are {', '.join(list(self.tables)[:20])}.",
                table=unknown[0],
            )
        grown = True
        while grown:
            more = {label for label in self.tables if label not in chosen and self.mapping.tables[label].of in chosen}
            grown = bool(more)
            chosen |= more
        return [label for label in self.tables if label in chosen]

    def definitions(self) -> dict[str, str]:
        """Return the definition of each table as text."""
        return {label: definition(table) for label, table in self.tables.items()}


def plan_of(mapping: Mapping, schema: Schema, name: str, began: int, hide: Hide | None = None) -> Plan:
    """Return the plan of a mapping that is complete. Raises MappingIncomplete, InvalidInput."""
    require_complete(mapping, schema)
    by_label = {table.label: table for table in schema.tables}
    order = loading_order(mapping, by_label)
    tables = {label: by_label[label] for label in order}
    codecs = {label: TableCodec(mapping.dialect, table, mapping.tables[label], hide) for label, table in tables.items()}
    return Plan(
        mapping,
        schema,
        tables,
        {label: TableEvents(codecs[label], mapping, name, began) for label in order},
        late_tables(mapping, tables),
    )


def loading_order(mapping: Mapping, tables: dict[str, Table]) -> list[str]:
    """Return the migrated tables so that each comes after those that it refers to, as far as there is no cycle."""
    order: list[str] = []
    entered: set[str] = set()

    def visit(label: str) -> None:
        if label in entered:
            return
        entered.add(label)
        for other in referred(mapping, tables, label):
            visit(other)
        order.append(label)

    for label in sorted(mapping.migrated):
        visit(label)
    return order


def referred(mapping: Mapping, tables: dict[str, Table], label: str) -> list[str]:
    """Return the migrated tables that a table refers to, by foreign keys or by the mapping."""
    own = mapping.tables[label]
    found = {key.table for key in tables[label].foreign_keys} | {each.table for each in own.references}
    found |= {other for each in own.references for other in each.types.values()} | {own.of}
    return sorted(each for each in found if each in mapping.migrated and each != label)


def late_tables(mapping: Mapping, tables: dict[str, Table]) -> frozenset[str]:
    """Return the tables that refer, directly or not, to one whose rows have moments."""
    dated = {label for label in tables if mapping.tables[label].occurred or mapping.tables[label].dates}
    found: set[str] = set()
    grown = True
    while grown:
        more = {
            label
            for label in tables
            if label not in found and not (dated | found).isdisjoint(referred(mapping, tables, label))
        }
        grown = bool(more)
        found |= more
    return frozenset(found)
