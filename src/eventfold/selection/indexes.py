"""Which index of a table serves a query, as far as the declarations tell.

Knows: conditions, declared indexes. Does not know: what a database does (see `Selection.explain`).
"""

from __future__ import annotations

from eventfold.core.table import Table
from eventfold.selection.conditions import Compare, Condition, Missing, OneOf, OrderTerm, top_level


def serving_index(table: Table, condition: Condition, order: tuple[OrderTerm, ...]) -> tuple[str, ...] | None:
    """Return the key or the index that finds the rows, or returns them in this order; None if there is none.

    One that finds rows by columns with a fixed value, or by a range, serves even if the rows found must be sorted. One
    that only returns them in this order serves if there is no filter, which might select few of the rows it passes.
    """
    fixed, ranged, filtered = set[str](), set[str](), False
    for each in top_level(condition):
        filtered = True
        match each:
            case Compare(column, "=", _):
                fixed.add(column.name)
            case Missing(column, negated=False):
                fixed.add(column.name)
            case Compare(column, "<" | "<=" | ">" | ">=", _) | OneOf(column, _, negated=False):
                ranged.add(column.name)
            case _:
                pass
    wanted = [(term.column.name, term.descending) for term in order if term.column.name not in fixed]
    found: tuple[int, tuple[str, ...]] | None = None
    for index in (table.key, *table.indexes):
        columns = [(name.removeprefix("-"), name[0] == "-") for name in index]
        size = next((at for at, (name, _) in enumerate(columns) if name not in fixed), len(columns))
        rest = columns[size:]
        if index == table.key and not rest:
            return index
        sorts = bool(wanted) and _sorts(rest, wanted, table.key)
        by_range = bool(rest) and rest[0][0] in ranged
        if not (size or by_range or (sorts and not filtered)):
            continue
        score = 4 * size + 2 * by_range + sorts
        if found is None or score > found[0]:
            found = score, index
    return None if found is None else found[1]


def _sorts(rest: list[tuple[str, bool]], wanted: list[tuple[str, bool]], key: tuple[str, ...]) -> bool:
    """Whether an index on these columns, then on the key, returns rows in the wanted order, forwards or backwards."""
    full = [*rest, *((name, False) for name in key if name not in dict(rest))]
    backwards = [(name, not down) for name, down in full]
    first = len(rest) or 1
    return any(each[: len(wanted)][:first] == wanted[:first] for each in (full, backwards))
