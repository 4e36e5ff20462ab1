"""A page of rows as a sequence of ranges, each of which an index can answer, in the order of the rows.

"After (a, b, key)" is first the rows with the same a and b and a later key, then those with the same a and a later b,
then those with a later a. One condition with OR says the same, but databases answer it by reading from the first row
on. Missing values are last, so they are ranges of their own. Knows: conditions. Does not know: databases.
"""

from __future__ import annotations

from typing import Any

import msgspec

from eventfold.selection.conditions import AllOf, AnyOf, Compare, Condition, Missing, OneOf, OrderTerm, RowQuery

MAX_VALUES = 5_000  # of the filter in all branches; beyond, a page is one condition: databases bound the parameters


class Branch(msgspec.Struct, frozen=True):
    """A range of a page: its rows satisfy the condition and come in this order, after those of earlier branches.

    `order` leaves out columns that are the same in all rows of the branch. `present`: the column that is never missing
    here though it is nullable; "" if there is none.
    """

    condition: Condition
    order: tuple[OrderTerm, ...]
    present: str = ""


_Place = tuple[list[Condition], tuple[OrderTerm, ...], str]  # conditions, order, `present` of a branch


def branches_of(query: RowQuery) -> list[Branch]:
    """Return the branches of a query. A query of which all rows are wanted has one, unless it has `after`.

    Each branch repeats the filter. A filter of many values is not repeated: then there is one branch.
    """
    order, places = query.order, list[_Place]()
    if query.after is None:
        if query.limit is None or not order or not order[0].column.nullable or order[0].descending:
            return [Branch(query.condition, order)]
        return _present_and_missing(query, [], order)
    for size in range(len(order) - 1, -1, -1):
        term, value = order[size], query.after[size]
        same = [_same(each, at) for each, at in zip(order[:size], query.after[:size], strict=True)]
        if value is None:
            continue  # nothing comes after a missing value
        later = Compare(term.column, "<" if term.descending else ">", value)
        places.append(([*same, later], order[size:], term.column.name if term.column.nullable else ""))
        if term.column.nullable:
            places.append(([*same, Missing(term.column)], order[size + 1 :], ""))
    if len(places) > 1 and len(places) * _count_values(query.condition) > MAX_VALUES:
        return [Branch(_all(query, [AnyOf(tuple(AllOf(tuple(parts)) for parts, _, _ in places))]), order)]
    return [Branch(_all(query, parts), by, present) for parts, by, present in places]


def _count_values(condition: Condition) -> int:
    match condition:
        case AllOf(parts) | AnyOf(parts):
            return sum(map(_count_values, parts))
        case OneOf(_, values):
            return len(values)
        case _:
            return 1


def _present_and_missing(query: RowQuery, same: list[Condition], order: tuple[OrderTerm, ...]) -> list[Branch]:
    column = order[0].column
    return [
        Branch(_all(query, [*same, Missing(column, negated=True)]), order, column.name),
        Branch(_all(query, [*same, Missing(column)]), order[1:]),
    ]


def _same(term: OrderTerm, value: Any) -> Condition:
    return Missing(term.column) if value is None else Compare(term.column, "=", value)


def _all(query: RowQuery, parts: list[Condition]) -> Condition:
    own = query.condition
    return AllOf((*(own.parts if isinstance(own, AllOf) else (own,)), *parts))
