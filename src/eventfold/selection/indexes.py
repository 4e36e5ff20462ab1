"""Which index of a table serves a query, as far as the declarations tell.

Knows: conditions, declared indexes. Does not know: what a database does (see `Selection.explain`).
"""

from __future__ import annotations

from eventfold.core.table import Table
from eventfold.selection.conditions import Compare, Condition, Missing, OneOf, OrderTerm, top_level

_Term = tuple[str, bool]  # a column, and whether it is descending


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
    nullable = {term.column.name for term in order if term.column.nullable}
    found: tuple[int, tuple[str, ...]] | None = None
    for index in (table.key, *table.indexes):
        columns = [(name.removeprefix("-"), name[0] == "-") for name in index]
        size = next((at for at, (name, _) in enumerate(columns) if name not in fixed), len(columns))
        rest = columns[size:]
        if index == table.key and not rest:
            return index
        sorts = bool(wanted) and _sorts(rest, wanted, table.key, nullable)
        by_range = bool(rest) and rest[0][0] in ranged
        if not (size or by_range or (sorts and not filtered)):
            continue
        score = 4 * size + 2 * by_range + sorts
        if found is None or score > found[0]:
            found = score, index
    return None if found is None else found[1]


def _sorts(rest: list[_Term], wanted: list[_Term], key: tuple[str, ...], nullable: set[str]) -> bool:
    """Whether an index on these columns, then on the key, returns rows in the wanted order, forwards or backwards.

    Backwards it returns missing values first, and queries sort them last. So it serves columns without missing values,
    and a first column that is wanted ascending: pages read its values and its missing values separately.
    """
    forwards = [*rest, *((name, False) for name in key if name not in dict(rest))]
    backwards = [(name, not down) for name, down in forwards]
    if forwards[: len(wanted)] == wanted:
        return True
    placed = wanted if wanted[0][1] else wanted[1:]
    return backwards[: len(wanted)] == wanted and nullable.isdisjoint(name for name, _ in placed)


def index_terms(order: tuple[OrderTerm, ...], key: tuple[str, ...]) -> list[str]:
    """Return the fewest columns of an index that returns rows in this order: the key follows them by itself."""
    terms = [f"{term}" for term in order]
    for size in range(len(terms)):
        names = {each.removeprefix("-") for each in terms[:size]}
        if [*terms[:size], *(name for name in key if name not in names)] == terms:
            return terms[:size]
    return terms
