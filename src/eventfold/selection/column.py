"""`ef.col(Balance.total)`: a column of a read model, which is compared with values to make filters.

Type checkers see the field's type, so they report a value of another type. Knows: the fields of a class. Does not know:
tables, which comparisons a kind of column allows (check.py does).
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar, cast

from eventfold.errors import InvalidFilter
from eventfold.selection.filters import Combined, Comparison, Filter

T = TypeVar("T")


class _TextColumn(Protocol):
    """What a type checker sees of a column of texts, derived types (NewType, Literal) included."""

    model: type | None
    name: str

    @property
    def _value(self) -> str: ...


class ComparableColumn(Generic[T]):
    """A column of a read model. Comparisons with a value of its type return a Filter: `< <= > >= == !=`, and methods.

    A value of another type raises InvalidFilter when the filter is used.
    """

    __slots__ = ("model", "name")

    def __init__(self, model: type | None, name: str) -> None:
        self.model, self.name = model, name

    if TYPE_CHECKING:

        @property
        def _value(self) -> T: ...

    def __lt__(self, value: T) -> Filter:
        return Comparison(self.model, self.name, "<", value)

    def __le__(self, value: T) -> Filter:
        return Comparison(self.model, self.name, "<=", value)

    def __gt__(self, value: T) -> Filter:
        return Comparison(self.model, self.name, ">", value)

    def __ge__(self, value: T) -> Filter:
        return Comparison(self.model, self.name, ">=", value)

    def __eq__(self, value: T | None) -> Filter:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return Comparison(self.model, self.name, "=", value)

    def __ne__(self, value: T | None) -> Filter:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return Comparison(self.model, self.name, "!=", value)

    __hash__ = object.__hash__

    def between(self, low: T, high: T) -> Filter:
        """Select values from `low` to `high`, both inclusive."""
        return Combined("and", (self >= low, self <= high))

    def in_(self, values: Iterable[T | None]) -> Filter:
        """Select any of these values; None: rows without a value. No values select no row."""
        if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
            raise InvalidFilter(f"{self.name}.in_({values!r}) has no list of values.", "Give a list: .in_([…]).")
        return Comparison(self.model, self.name, "in", tuple(values))

    def prefix(self: _TextColumn, text: str) -> Filter:
        """Select texts that begin with this text."""
        return Comparison(self.model, self.name, "prefix", text)

    def is_null(self) -> Filter:
        """Select rows without a value."""
        return Comparison(self.model, self.name, "=", None)

    def __and__(self, other: Any) -> NoReturn:
        raise _unparenthesized(self.name)

    __rand__ = __or__ = __ror__ = __and__

    def __bool__(self) -> NoReturn:
        raise InvalidFilter(
            f"The column {self.name} is neither true nor false.", f"Compare it: ef.col(….{self.name}) == True."
        )

    def __repr__(self) -> str:
        return f"ef.col({'' if self.model is None else self.model.__name__}.{self.name})"


def col(field: T | None, /) -> ComparableColumn[T]:
    """Return the column of a read model's field: `ef.col(Balance.total) > Decimal(5)` is a filter for `store.rows`.

    `field` is taken from the class, not from a row. Raises InvalidFilter for anything else.
    """
    descriptor = cast("Any", field)
    if type(descriptor) is not MemberDescriptorType:
        raise InvalidFilter(
            f"ef.col takes a field of a read model's class, not {descriptor!r}.",
            "Take it from the class: ef.col(Balance.total), where Balance is the class of the rows.",
        )
    return ComparableColumn(descriptor.__objclass__, descriptor.__name__)


def _unparenthesized(name: str) -> InvalidFilter:
    return InvalidFilter(
        f"The column {name} is combined by & or | before it is compared: these bind tighter than comparisons.",
        f"Put each comparison in parentheses: (ef.col(….{name}) > 5) & (…).",
    )
