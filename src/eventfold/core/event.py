"""Event classes and drafts, which users append, and Recorded, which they read.

Knows: classes, their names and versions. Does not know: bytes (codec), which fields are tags, queries, engines.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast, get_args, get_origin, overload
from uuid import UUID

import msgspec

from eventfold.core.class_data import get_class_data, set_class_data
from eventfold.core.envelope import NewEvent, StoredEvent, from_micros
from eventfold.core.event_rows import stored_event
from eventfold.core.tags import check_name
from eventfold.errors import InvalidEvent

C = TypeVar("C", bound=type)


if TYPE_CHECKING:
    from typing_extensions import TypeVar as _DefaultTypeVar
    from typing_extensions import dataclass_transform

    E_co = _DefaultTypeVar("E_co", covariant=True, default=Any)  # so that `ef.Recorded` alone is a type

    @dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
    class EventMeta(type):
        """What a type checker sees of the metaclass."""

        def __new__(
            mcls,
            name: str,
            bases: tuple[type, ...],
            namespace: dict[str, Any],
            *,
            type: str | None = None,
            version: int = 1,
            aliases: Iterable[str] = (),
            kw_only: bool = False,
            forbid_unknown_fields: bool = False,
        ) -> EventMeta: ...

    class _Struct(metaclass=EventMeta):
        __struct_fields__: ClassVar[tuple[str, ...]]

else:
    E_co = TypeVar("E_co", covariant=True)

    class EventMeta(msgspec.StructMeta):
        """Adds ``type=``, ``version=`` and ``aliases=`` to a frozen msgspec struct."""

        def __new__(mcls, name, bases, namespace, *, type=None, version=1, aliases=(), **options):
            options.setdefault("frozen", True)
            if "<locals>" in namespace.get("__qualname__", ""):
                _resolve(namespace, sys._getframe(1))
            cls = super().__new__(mcls, name, bases, namespace, **options)
            if namespace.get("__module__") != __name__:
                _declare(cls, type, version, aliases)
            return cls

    class _Struct(msgspec.Struct, metaclass=EventMeta):
        pass

    def _resolve(namespace, frame):
        """Evaluate annotations that are text in the scope of the class: msgspec sees no local names."""
        hints = namespace.get("__annotations__", {})
        for field, hint in hints.items():
            if isinstance(hint, str):
                try:
                    hints[field] = eval(hint, frame.f_globals, frame.f_locals)  # noqa: S307 (the program's own text)
                except NameError:  # a class of the module that is not there yet
                    continue


class Event(_Struct):
    """The base class of events: facts, named in the past tense. Queries find events by their tag fields (`ef.Tag`).

    Events are frozen and compared by value. ``class X(ef.Event, type="x", version=2, aliases=("old-x",))`` sets the
    stored name (default: the name of the class), the schema version (default: 1), and older stored names that the class
    also reads. Stored fields that the class does not have are ignored; a field `more: ef.UnknownFields = {}` keeps
    them, and ``forbid_unknown_fields=True`` refuses to read such an event.
    """


class EventDeclaration(msgspec.Struct, frozen=True):
    """How the events of a class are stored: under which name and schema version; and the older names that it reads."""

    type: str
    version: int
    aliases: tuple[str, ...] = ()
    is_default: bool = False  # whether the stored name is that of the class, and no type= was given

    @property
    def names(self) -> tuple[str, ...]:
        """Every stored name that the class reads."""
        return (self.type, *self.aliases)


_declarations: weakref.WeakKeyDictionary[type, EventDeclaration] = weakref.WeakKeyDictionary()
_by_name: dict[str, list[weakref.ref[type]]] = {}
_SOURCES = "__eventfold_sources__"  # the classes that are upcast to a class; stored on that class
_declarations_version = 0


def declarations_version() -> int:
    """Return a number that grows with every declared class; caches of data about classes are checked against it."""
    return _declarations_version


def _declare(cls: type, given: str | None, version: int, aliases: Iterable[str]) -> None:
    global _declarations_version
    name = cls.__name__ if given is None else given
    check_name("event type", name, reserved=cls.__module__.startswith("eventfold."))
    if version < 1:
        raise InvalidEvent(
            f"{cls.__qualname__} has version {version}.", "Versions are counted from 1.", type=name, version=version
        )
    declared = EventDeclaration(name, version, tuple(check_name("event type", a) for a in aliases), given is None)
    _declarations[cls] = declared
    for each in declared.names:
        others = _by_name.setdefault(each, [])
        # A class that is defined again (a notebook cell, a reload) replaces its earlier definition.
        others[:] = [r for r in others if (o := r()) is not None and not is_same_source(o, cls)]
        others.append(weakref.ref(cls))
    _declarations_version += 1


def is_same_source(a: type, b: type) -> bool:
    """Whether two classes have one place in the source: one was defined again, or its module also is `__main__`."""
    if a.__qualname__ != b.__qualname__:
        return False
    if a.__module__ == b.__module__:
        return True
    return "__main__" in (a.__module__, b.__module__) and (file := _file_of(a)) is not None and file == _file_of(b)


def _file_of(cls: type) -> str | None:
    return getattr(sys.modules.get(cls.__module__), "__file__", None)


def is_name_conflict(a: type, b: type) -> bool:
    """Whether two unrelated classes at module level have one stored name and version by default, without `type=`."""
    mine, other = declaration_of(a), declaration_of(b)
    return (
        (mine.type, mine.version) == (other.type, other.version)
        and mine.is_default
        and other.is_default
        and "<locals>" not in a.__qualname__ + b.__qualname__
        and not issubclass(a, b)
        and not issubclass(b, a)
        and not is_same_source(a, b)
    )


def declaration_of(cls: type) -> EventDeclaration:
    """Return the declaration of an event class. Raises InvalidEvent if the class is not an event class."""
    try:
        return _declarations[cls]
    except KeyError:
        raise InvalidEvent(f"{cls.__module__}.{cls.__qualname__} is not an event class.", _hint_for(cls)) from None


def _hint_for(cls: type[Any]) -> str:
    """Return a remedy for an append of an object of this class, which is not an event class."""
    if issubclass(cls, (list, tuple)) or "__next__" in dir(cls):
        return "Give events one by one, store.append(*events), or any number of them to store.extend(events)."
    if issubclass(cls, (NewEvent, RawEvent)):
        return "Append events without a class by store.append_encoded(NewEvent.of(type, data, …))."
    if issubclass(cls, type):
        return "Give an event, with its fields, not its class."
    if (instead := hint_for_generic(cls)) is not None:
        return instead
    return "Derive it from ef.Event, or decorate it with @ef.event."


def hint_for_generic(hint: Any) -> str | None:
    """Return what to write instead of `Moved[int]`, where Moved is a generic event class; None for anything else."""
    base: Any = get_origin(hint)
    if base is None and isinstance(hint, type) and "[" in hint.__name__:  # pydantic makes a class of its own
        base = next((each for each in hint.__mro__ if each in _declarations), None)
    if not isinstance(base, type) or base not in _declarations:
        return None
    given = "".join(getattr(each, "__name__", "").capitalize() for each in get_args(hint))
    name = repr(hint).rpartition(".")[2].rstrip("'>") if get_args(hint) else hint.__name__
    return (
        "An event is stored under the name of its class, without the type in brackets. Derive a class of its own, "
        f"class {base.__name__}{given or 'OfOneKind'}({name}), and use that."
    )


def without_parameters(hint: Any) -> Any:
    """Return `Moved` for `Moved[Any]`, as type checkers want generic event classes written; for others, the hint."""
    base: Any = get_origin(hint)
    arguments: tuple[Any, ...] = get_args(hint)
    if isinstance(hint, type) and "[" in hint.__name__:  # pydantic makes a class of its own
        base = next((each for each in hint.__mro__ if each in _declarations), None)
        arguments = getattr(hint, "__pydantic_generic_metadata__", {}).get("args", ())
    is_any = bool(arguments) and all(each in (Any, object) for each in arguments)
    return base if is_any and isinstance(base, type) and base in _declarations else hint


def is_event_class(cls: type) -> bool:
    """Whether a class was declared as an event."""
    return cls in _declarations


def classes_named(name: str) -> list[type]:
    """Return the classes that read events of this stored name, without those that were freed."""
    return [cls for ref in _by_name.get(name, ()) if (cls := ref()) is not None]


def known_names() -> list[str]:
    """Return every stored name that some class reads."""
    return sorted(name for name in _by_name if classes_named(name))


def declared_classes() -> list[type]:
    """Return every event class that is declared now, without those that were freed or defined again, by stored name."""
    return list(dict.fromkeys(cls for name in sorted(_by_name) for cls in classes_named(name)))


def register_upcast_source(target: type, source: type) -> None:
    """Record that events of `source` are read as `target` (see core/upcast.py)."""
    global _declarations_version
    known: list[type] = get_class_data(target, _SOURCES) or []
    if source not in known:
        set_class_data(target, _SOURCES, [*known, source])
    _declarations_version += 1


def family_of(cls: type) -> Iterator[type]:
    """Iterate over a class, the classes derived from it, and the older ones that are upcast to any of them."""
    yield cls
    for derived in _derived_from(cls):
        yield from family_of(derived)
    for source in get_class_data(cls, _SOURCES) or ():
        yield from family_of(source)


def _derived_from(cls: type) -> Iterator[type]:
    """Iterate over the event classes directly below a class.

    Below a generic pydantic model, pydantic puts a class for each type that it is used with: these are skipped.
    """
    for each in cls.__subclasses__():
        if each in _declarations:
            yield each
        else:
            yield from _derived_from(each)


def stored_names_of(cls: type) -> tuple[str, ...]:
    """Return every stored name whose events can be read as a class; for Event itself (), which means any."""
    if cls is Event:
        return ()
    return tuple(dict.fromkeys(name for each in family_of(cls) for name in declaration_of(each).names))


@overload
def event(name: C, /) -> C: ...
@overload
def event(name: str | None = None, /, *, version: int = 1, aliases: Iterable[str] = ()) -> Callable[[C], C]: ...
def event(name: Any = None, /, *, version: int = 1, aliases: Iterable[str] = ()) -> Any:
    """Declare a dataclass, attrs class or pydantic model as an event class, under the name of the class by default.

    A decorator, with or without arguments: `@ef.event` or `@ef.event("order-placed", version=2, aliases=("placed",))`.
    Raises InvalidEvent on an invalid name or version.
    """
    if isinstance(name, type):
        _declare(name, None, version, aliases)
        return name

    def declare(cls: C) -> C:
        _declare(cls, name, version, aliases)
        return cls

    return declare


class Draft(msgspec.Struct, Generic[E_co], frozen=True, repr_omit_defaults=True):
    """An event with parts of its envelope: `store.append(ef.Draft(event, occurred=…))`.

    `id` is your own UUID, with which the append can be repeated safely; `occurred` the moment in business time at which
    it happened (an aware datetime); `tags` are added to those of its fields, and `metadata` to that of the context.
    """

    event: E_co
    id: UUID | None = None
    occurred: datetime | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] | None = None


def event_of(given: Any) -> Any:
    """Return the event of a draft, or an event itself."""
    return given.event if isinstance(given, Draft) else given  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


class Metadata(dict[str, Any]):
    """The metadata of an event: a plain dict with three well-known keys as attributes, None if absent."""

    @property
    def actor(self) -> str | None:
        """The user or service that caused the event."""
        return self.get("actor")

    @property
    def correlation_id(self) -> str | None:
        """An id that all events caused by one request share."""
        return self.get("correlation_id")

    @property
    def causation_id(self) -> str | None:
        """The id of the event or command that caused this one."""
        return self.get("causation_id")


class RawEvent(msgspec.Struct, frozen=True):
    """An event that was read without its class: `data` are the bytes as they were written."""

    type: str
    version: int
    codec: str
    data: bytes

    def json(self) -> Any:
        """Return the data as JSON values. Raises InvalidEvent if the payload is not JSON."""
        if self.codec != "json":
            raise InvalidEvent(
                f"The payload of this {self.type} is {self.codec}, not JSON.",
                "Use its bytes, `.data`.",
                codec=self.codec,
            )
        try:
            return msgspec.json.decode(self.data)
        except msgspec.DecodeError as error:
            raise InvalidEvent(
                f"The payload of this {self.type} is not valid JSON ({error}).", "Use its bytes, `.data`."
            ) from None


class Recorded(msgspec.Struct, Generic[E_co], frozen=True, gc=False, eq=False):
    """An event that was read from the log, with its envelope. Envelope fields are converted when they are accessed.

    `event`     the typed event, or a RawEvent if it was read with `raw=True`.
    `position`  from 1, without gaps; `first` and `last` are the inclusive bounds of the append that wrote it.
    `time`      when it was recorded; `occurred` when it happened, if its writer gave that; both in UTC.
    """

    stored: StoredEvent
    event: E_co

    if not TYPE_CHECKING:

        def __class_getitem__(cls, event: Any) -> types.GenericAlias:
            """Like Generic's, which would keep the event class alive in a cache of `typing`."""
            return types.GenericAlias(cls, event)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recorded):
            return NotImplemented
        theirs = cast("Recorded[Any]", other)
        return self.stored == theirs.stored and self.event == theirs.event

    __hash__ = None  # pyright: ignore[reportAssignmentType] (a StoredEvent has no hash)

    def __reduce__(self) -> tuple[Any, ...]:
        return Recorded, (self.stored, self.event)

    @property
    def position(self) -> int:
        """Its position in the log, from 1."""
        return self.stored.position

    @property
    def id(self) -> UUID:
        """Its id."""
        return UUID(bytes=self.stored.id)

    @property
    def type(self) -> str:
        """The name under which it was stored."""
        return self.stored.type

    @property
    def version(self) -> int:
        """The schema version with which it was stored."""
        return self.stored.version

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags, sorted."""
        return self.stored.tag_set

    @property
    def time(self) -> datetime:
        """When it was recorded, in UTC; never decreasing along the log."""
        return from_micros(self.stored.time)

    @property
    def occurred(self) -> datetime | None:
        """When it happened, in UTC; None if its writer did not give it."""
        return None if self.stored.occurred is None else from_micros(self.stored.occurred)

    @property
    def metadata(self) -> Metadata:
        """Its metadata, empty if it has none."""
        return Metadata(msgspec.json.decode(self.stored.metadata)) if self.stored.metadata else Metadata()

    @property
    def first(self) -> int:
        """The first position of the append that wrote it."""
        return self.stored.first

    @property
    def last(self) -> int:
        """The last position of the append that wrote it."""
        return self.stored.last

    def __repr__(self) -> str:
        moment = self.time.strftime("%Y-%m-%d %H:%M:%S.%fZ")
        extra = "".join(f" {key}={value!r}" for key, value in self.metadata.items())
        return f"<#{self.position} {self.event!r} at {moment}{extra}>"


class RecordedRow(Recorded[E_co], frozen=True, gc=False, eq=False):
    """A Recorded that is a row of an engine until its envelope is first asked for. `types`: see `stored_event`."""

    _types: Mapping[int, str]

    if not TYPE_CHECKING:

        @property
        def stored(self) -> StoredEvent:
            """The encoded event."""
            found = _envelope.__get__(self)
            if type(found) is tuple:
                found = stored_event(found, self._types)
                _envelope.__set__(self, found)
            return found

        @property
        def position(self) -> int:
            """Its position in the log, from 1."""
            found = _envelope.__get__(self)
            return found[0] if type(found) is tuple else found.position


_envelope: Any = Recorded.__dict__["stored"]  # the attribute itself, which RecordedRow hides
