"""The three base classes of the read side: rows by key, handlers with SQL, subscriptions with effects.

Knows: their class keywords. Does not know: what their annotations mean (see definition.py).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import msgspec

from eventfold.core.annotations import read_options, set_class_options, take_options
from eventfold.core.class_data import remember_visible_names
from eventfold.core.state import refuse_hidden_methods
from eventfold.errors import InvalidProjection
from eventfold.ports.sink import Sink

Policy = Literal["stop", "park"]


class ClassOptions(msgspec.Struct, frozen=True):
    """The keywords of a class statement. None: the default."""

    name: str | None = None
    target: Any = None
    on_error: Policy = "stop"
    without_key: Policy = "stop"
    attempts: int = 3
    partitions: int = 1
    indexes: tuple[tuple[str, ...], ...] = ()
    start: Literal["beginning", "now"] | None = None
    version: str | int | None = None


def set_projection_options(cls: type, terms: dict[str, Any], depth: int) -> None:
    """Store a class's keywords, and the names that are visible where it is declared, for its annotations.

    `depth`: how many stack frames above this call the class statement is. Raises InvalidProjection.
    """
    if "indexes" in terms:
        terms["indexes"] = _indexes_of(cls, terms["indexes"])
    options = read_options(cls, ClassOptions, terms, InvalidProjection)
    if not isinstance(options.target, str | Sink | None):
        raise InvalidProjection(
            f"The target of {cls.__qualname__} is neither an address nor a sink: {options.target!r}.",
            "Give a text such as duckdb:rows.duckdb, or an object with the methods of eventfold.ports.sink.Sink.",
        )
    if options.without_key == "park" and options.on_error != "park":
        raise InvalidProjection(
            f"{cls.__qualname__} parks failing events without a key, but stops at all other failing events.",
            'Give on_error="park" as well.',
        )
    if options.attempts < 1 or options.partitions < 1:
        raise InvalidProjection(f"{cls.__qualname__} has less than one attempt or partition.", "Give 1 or more.")
    set_class_options(cls, options)
    remember_visible_names(cls, sys._getframe(depth).f_locals)  # pyright: ignore[reportPrivateUsage]


def _indexes_of(cls: type, given: Any) -> tuple[tuple[str, ...], ...]:
    """Return declared indexes as tuples of names. Raises InvalidProjection."""
    if not isinstance(given, list | tuple):
        raise _invalid_indexes(cls, f"{given!r} is no list of indexes")
    found: list[tuple[str, ...]] = []
    for each in cast("Sequence[Any]", given):
        index = tuple(cast("Sequence[Any]", each)) if isinstance(each, list | tuple) else (each,)
        if not index or not all(isinstance(name, str) and name for name in index):
            raise _invalid_indexes(cls, f"{each!r} names no fields")
        if len({name.removeprefix("-") for name in index}) < len(index):
            raise _invalid_indexes(cls, f"{each!r} names a field twice")
        if index in found:
            raise _invalid_indexes(cls, f"{each!r} is declared twice")
        found.append(index)
    return tuple(found)


def _invalid_indexes(cls: type, why: str) -> InvalidProjection:
    return InvalidProjection(
        f"The indexes of {cls.__qualname__} are invalid: {why}.",
        'Give a list of names of fields or tuples of them, each index once: indexes=[("owner", "-total"), "day"].',
    )


if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

    @dataclass_transform(field_specifiers=(msgspec.field,))
    class ProjectionMeta(type):
        """What a type checker sees of the metaclass."""

        def __new__(
            mcls,
            class_name: str,
            bases: tuple[type, ...],
            namespace: dict[str, Any],
            /,
            *,
            name: str | None = None,
            target: str | Sink | None = None,
            on_error: Policy = "stop",
            without_key: Policy = "stop",
            attempts: int = 3,
            partitions: int = 1,
            indexes: Any = (),
            version: str | int | None = None,
            **keywords: Any,
        ) -> ProjectionMeta: ...

    class _Struct(metaclass=ProjectionMeta):
        __struct_fields__: ClassVar[tuple[str, ...]]
        __struct_defaults__: ClassVar[tuple[Any, ...]]

else:

    class ProjectionMeta(msgspec.StructMeta):
        """The metaclass that separates a projection's keywords from those of a msgspec struct."""

        def __new__(mcls, _name, _bases, _namespace, **keywords):
            terms = take_options(keywords, ClassOptions)
            cls = super().__new__(mcls, _name, _bases, _namespace, **keywords)
            refuse_hidden_methods(cls, InvalidProjection)
            set_projection_options(cls, terms, 2)
            return cls

    class _Struct(msgspec.Struct, metaclass=ProjectionMeta):
        pass


class Projection(_Struct):
    """A row of a read model: fields without a default are its key, `evolve` updates the others.

    The table has the class's name in snake_case (`name=` gives another). The key's values are an event's fields of the
    same names, unless a static method `key(event)` or `key(event, recorded)` returns them: a key, a list of keys, or
    None for an event that concerns no row. Class keywords: `target`: the address of another database, or a sink.
    `on_error`: "stop" or "park" (a failing event and later ones of its key wait, other keys continue).
    `without_key="park"`: park a failing event that has no key or cannot be decoded; no event waits for it. `attempts`:
    how often to handle an event before it is parked or stops the projection. `indexes`: names of fields, or tuples of
    them, `-` before a name: descending. `partitions`: how many runners may share the work; events are in order within
    a key. `version`: a value to change when the rule changes, where it uses objects that cannot be compared between
    releases (a warning in Python's log names them).
    """

    if TYPE_CHECKING:  # any further parameters: an evolve with a parameter for the Recorded is a valid override as well

        def evolve(self, event: Any, /, *more: Any, **named: Any) -> None:
            """See below."""
    else:

        def evolve(self, event: Any) -> None:
            """Apply one event to the row, in place. If it has a second parameter, that is the event's Recorded."""
            raise InvalidProjection(
                f"{type(self).__name__} has no evolve method.",
                "Write def evolve(self, event: …) -> None, and annotate the event with the classes that it handles.",
            )

    def keep(self) -> bool:
        """Whether the row stays after an event. Otherwise it is deleted; a later event may create it again."""
        return True


class SqlProjection:
    """A read model written in SQL: every public method that takes an event is a handler.

    `tables` declares its tables: name -> the columns and constraints, as in CREATE TABLE. A handler is `def
    departed(self, event: FlightDeparted, tx: ef.Transaction) -> None`; the event may be annotated with a union, with
    `ef.Recorded[…]`, or with a list of either (then it is called with a page of events, in order). In
    `tx.execute(sql, …)` write `{table}` for a declared table, since there are two of them while a rebuild runs.
    Keywords as in Projection; `on_error="park"` needs a static method `key(event)` or `key(event, recorded)`.
    """

    tables: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__()
        set_projection_options(cls, keywords, 2)


class Subscription:
    """Side effects: public methods that take an event are called with each one in the log, at least once, in order.

    Use the event's id (`ef.Recorded.id`) as idempotency key, so that a repeated call does no harm. `start`: "beginning"
    or "now"; there is no default. It is never rebuilt. Other keywords as in SqlProjection.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__()
        set_projection_options(cls, keywords, 2)
