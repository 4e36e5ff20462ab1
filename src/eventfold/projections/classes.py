"""The three classes a user derives from: rows by key, handlers with SQL, subscriptions with effects.

Knows: their class keywords. Does not know: what their annotations come to (definition.py does).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from eventfold.core.annotations import read_options, set_class_options, take_options
from eventfold.core.class_data import remember_visible_names
from eventfold.core.state import refuse_hidden_methods
from eventfold.errors import InvalidProjection
from eventfold.ports.sink import Sink

Policy = Literal["stop", "park"]


class ClassOptions(msgspec.Struct, frozen=True):
    """What a class says about itself by keywords; None: the usual."""

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
    """Keep a class's keywords, and the names that were visible where it was written, for its annotations."""
    if "indexes" in terms:
        terms["indexes"] = tuple((i,) if isinstance(i, str) else tuple(i) for i in terms["indexes"])
    said = read_options(cls, ClassOptions, terms, InvalidProjection)
    if not isinstance(said.target, str | Sink | None):
        raise InvalidProjection(
            f"The target of {cls.__qualname__} is neither an address nor a sink: {said.target!r}.",
            "Give a text such as duckdb:rows.duckdb, or an object with the methods of eventfold.ports.sink.Sink.",
        )
    if said.without_key == "park" and said.on_error != "park":
        raise InvalidProjection(
            f"{cls.__qualname__} parks events without a key, and stops at all others.",
            'Say on_error="park" as well.',
        )
    if said.attempts < 1 or said.partitions < 1:
        raise InvalidProjection(f"{cls.__qualname__} has less than one attempt or partition.", "Give 1 or more.")
    set_class_options(cls, said)
    remember_visible_names(cls, sys._getframe(depth).f_locals)  # pyright: ignore[reportPrivateUsage]


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
        """Takes a projection's keywords off a msgspec struct's."""

        def __new__(mcls, _name, _bases, _namespace, **keywords):
            terms = take_options(keywords, ClassOptions)
            cls = super().__new__(mcls, _name, _bases, _namespace, **keywords)
            refuse_hidden_methods(cls, InvalidProjection)
            set_projection_options(cls, terms, 2)
            return cls

    class _Struct(msgspec.Struct, metaclass=ProjectionMeta):
        pass


class Projection(_Struct):
    """A row of a read model: fields without a default are its key, the others what `evolve` keeps up to date.

    The table has the class's name in snake_case (`name=` gives another). The key's fields are taken from an event's
    fields of the same names, unless a static method `key(event)` says otherwise: a key, a list of keys, or None for an
    event that concerns no row. Class keywords: `target` an address of another place, or a sink; `on_error` "stop" or
    "park" (the event and later ones of its key wait, others go on); `without_key="park"` sets a failing event that has
    no key, or cannot be read at all, aside alone: nothing waits for it; `attempts` before that; `indexes` names of
    fields, or tuples of them; `partitions` how many runners may share the work, ordered within a key; `version` what to
    raise when the rule changes, where it uses objects that cannot be compared between releases (the log says so).
    """

    if TYPE_CHECKING:  # any further parameters: one that names the envelope overrides it as well

        def evolve(self, event: Any, /, *more: Any, **named: Any) -> None:
            """See below."""
    else:

        def evolve(self, event: Any) -> None:
            """Take one event in. Mutates; returns None. A second parameter, if there is one, is given the Recorded."""
            raise InvalidProjection(
                f"{type(self).__name__} has no evolve method.",
                "Write def evolve(self, event: …) -> None, naming the events it is folded from.",
            )

    def keep(self) -> bool:
        """Whether the row stays after an event. One that does not is deleted; its key may begin anew later."""
        return True


class SqlProjection:
    """A read model written in SQL: every public method that takes an event is its handler.

    `tables` declares its tables: name -> the columns and constraints, as in CREATE TABLE. A handler is `def
    departed(self, event: FlightDeparted, tx: ef.Transaction) -> None`; the event may be annotated with a union, with
    `ef.Recorded[…]`, or with a list of either (then it gets a page of them at once, in order). In `tx.execute(sql, …)`
    write `{table}` for a declared table: while a rebuild runs, there are two. Keywords as in Projection;
    `on_error="park"` needs a static method `key(event)`.
    """

    tables: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__()
        set_projection_options(cls, keywords, 2)


class Subscription:
    """Side effects: every public method that takes an event is called once it is in the log, at least once, in order.

    Use the event's id (`ef.Recorded.id`) as key, so that doing it twice does no harm. `start` says from where:
    "beginning" or "now"; there is no default. Rebuilds do not touch it. Keywords otherwise as in SqlProjection.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__()
        set_projection_options(cls, keywords, 2)
