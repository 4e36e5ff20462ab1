"""What a user writes: event classes, drafts; and what a user reads: Recorded.

Knows: classes, their names and versions. Does not know: bytes (codec), which fields are tags, queries, engines.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, get_args, get_origin, overload
from uuid import UUID

import msgspec

from eventfold.core.class_data import get_class_data, set_class_data
from eventfold.core.envelope import NewEvent, StoredEvent, from_micros
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
        """Look up annotations that are text where they stand: msgspec sees names of modules, not of functions."""
        hints = namespace.get("__annotations__", {})
        for field, hint in hints.items():
            if isinstance(hint, str):
                try:
                    hints[field] = eval(hint, frame.f_globals, frame.f_locals)  # noqa: S307 (the program's own text)
                except NameError:  # a class of the module that is not there yet
                    continue


class Event(_Struct):
    """A fact, named in the past tense. Fields are its data; tag fields (`ef.Tag`) are what it is asked by.

    Frozen and compared by value. ``class X(ef.Event, type="x", version=2, aliases=("old-x",))`` gives it
    a stored name of its own, a schema version, and the older names under which it also stands in logs.
    Stored fields that it does not know are ignored; a field `more: ef.UnknownFields = {}` keeps them, and
    ``forbid_unknown_fields=True`` refuses to read such an event.
    """


class EventDeclaration(msgspec.Struct, frozen=True):
    """How a class stands in the log: its name, its schema version, its older names."""

    type: str
    version: int
    aliases: tuple[str, ...] = ()
    is_default: bool = False  # whether the name is the class's own, and was not chosen for the log

    @property
    def names(self) -> tuple[str, ...]:
        """Every name under which events of the class are stored."""
        return (self.type, *self.aliases)


_declarations: weakref.WeakKeyDictionary[type, EventDeclaration] = weakref.WeakKeyDictionary()
_by_name: dict[str, list[weakref.ref[type]]] = {}
_SOURCES = "__eventfold_sources__"  # the classes whose events are read as a class: kept as long as it is
_declarations_version = 0


def declarations_version() -> int:
    """Grows with every declared class, so that whoever caches by class knows when to look again."""
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
        # A class written again (a notebook cell, a reload) takes the place of its earlier self.
        others[:] = [r for r in others if (o := r()) is not None and not is_same_source(o, cls)]
        others.append(weakref.ref(cls))
    _declarations_version += 1


def is_same_source(a: type, b: type) -> bool:
    """Whether two classes have one place in the source: one was written again, or its module is `__main__` too."""
    if a.__qualname__ != b.__qualname__:
        return False
    if a.__module__ == b.__module__:
        return True
    return "__main__" in (a.__module__, b.__module__) and (file := _file_of(a)) is not None and file == _file_of(b)


def _file_of(cls: type) -> str | None:
    return getattr(sys.modules.get(cls.__module__), "__file__", None)


def is_name_conflict(a: type, b: type) -> bool:
    """Whether two unrelated classes of modules have one stored name and version, which neither of them was given."""
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
    """How an event class stands in the log. Raises InvalidEvent if the class is none."""
    try:
        return _declarations[cls]
    except KeyError:
        raise InvalidEvent(f"{cls.__module__}.{cls.__qualname__} is no event class.", _hint_for(cls)) from None


def _hint_for(cls: type[Any]) -> str:
    """What whoever gave this instead of an event probably meant."""
    if issubclass(cls, (list, tuple)) or "__next__" in dir(cls):
        return "Give events one by one, store.append(*events), or any number of them to store.extend(events)."
    if issubclass(cls, (NewEvent, RawEvent)):
        return "Give what has no class to store.append_encoded(NewEvent.of(type, data, …))."
    if issubclass(cls, type):
        return "Give an event, with its fields, not its class."
    if (instead := hint_for_generic(cls)) is not None:
        return instead
    return "Derive it from ef.Event, or decorate it with @ef.event."


def hint_for_generic(hint: Any) -> str | None:
    """What to write instead of `Moved[int]`, where Moved is a generic event class; None for anything else."""
    base: Any = get_origin(hint)
    if base is None and isinstance(hint, type) and "[" in hint.__name__:  # pydantic makes a class of its own
        base = next((each for each in hint.__mro__ if each in _declarations), None)
    if not isinstance(base, type) or base not in _declarations:
        return None
    given = "".join(getattr(each, "__name__", "").capitalize() for each in get_args(hint))
    name = repr(hint).rpartition(".")[2].rstrip("'>") if get_args(hint) else hint.__name__
    return (
        "An event is stored under the name of its class, without what stands in brackets. Derive a class of its own, "
        f"class {base.__name__}{given or 'OfOneKind'}({name}), and use that."
    )


def without_parameters(hint: Any) -> Any:
    """`Moved` for `Moved[Any]`, where Moved is a generic event class: as checkers want it written; else the hint."""
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
    """The living classes that read events of this stored name."""
    return [cls for ref in _by_name.get(name, ()) if (cls := ref()) is not None]


def known_names() -> list[str]:
    """Every stored name some living class reads."""
    return sorted(name for name in _by_name if classes_named(name))


def register_upcast_source(target: type, source: type) -> None:
    """Remember that events of `source` are read as `target` (see core/upcast.py)."""
    global _declarations_version
    known: list[type] = get_class_data(target, _SOURCES) or []
    if source not in known:
        set_class_data(target, _SOURCES, [*known, source])
    _declarations_version += 1


def family_of(cls: type) -> Iterator[type]:
    """The class, the classes derived from it, and the older ones that are upcast to any of them."""
    yield cls
    for derived in _derived_from(cls):
        yield from family_of(derived)
    for source in get_class_data(cls, _SOURCES) or ():
        yield from family_of(source)


def _derived_from(cls: type) -> Iterator[type]:
    """The event classes next below a class; a generic model has a class between for each kind that it is used with."""
    for each in cls.__subclasses__():
        if each in _declarations:
            yield each
        else:
            yield from _derived_from(each)


def stored_names_of(cls: type) -> tuple[str, ...]:
    """Every stored name whose events can be read as a class; of Event itself: () meaning any."""
    if cls is Event:
        return ()
    return tuple(dict.fromkeys(name for each in family_of(cls) for name in declaration_of(each).names))


@overload
def event(name: C, /) -> C: ...
@overload
def event(name: str | None = None, /, *, version: int = 1, aliases: Iterable[str] = ()) -> Callable[[C], C]: ...
def event(name: Any = None, /, *, version: int = 1, aliases: Iterable[str] = ()) -> Any:
    """Declares a dataclass, attrs class or pydantic model as an event; its name defaults to the class's."""
    if isinstance(name, type):
        _declare(name, None, version, aliases)
        return name

    def declare(cls: C) -> C:
        _declare(cls, name, version, aliases)
        return cls

    return declare


class Draft(msgspec.Struct, Generic[E_co], frozen=True):
    """An event with more to say: `store.append(ef.Draft(event, occurred=…))`.

    `id` your own UUID, for appends that can be repeated safely; `occurred` when it happened in the
    business's time (an aware datetime); `tags` beside those of its fields; `metadata` beside the context's.
    """

    event: E_co
    id: UUID | None = None
    occurred: datetime | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] | None = None


def event_of(given: Any) -> Any:
    """The event itself, of a draft or of an event."""
    return given.event if isinstance(given, Draft) else given  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


class Metadata(dict[str, Any]):
    """Who, why, caused by what: a plain dict with three well-known keys as attributes."""

    @property
    def actor(self) -> str | None:
        """Who made it happen."""
        return self.get("actor")

    @property
    def correlation_id(self) -> str | None:
        """What belongs together: the same for everything one request set off."""
        return self.get("correlation_id")

    @property
    def causation_id(self) -> str | None:
        """The id of the event or command that caused this one."""
        return self.get("causation_id")


class RawEvent(msgspec.Struct, frozen=True):
    """An event read without its class: `data` are the bytes that were written, untouched."""

    type: str
    version: int
    codec: str
    data: bytes

    def json(self) -> Any:
        """The data as JSON values. Raises InvalidEvent if the payload is not JSON."""
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


class Recorded(msgspec.Struct, Generic[E_co], frozen=True, gc=False):
    """An event as it stands in the log. Envelope fields are converted when asked for.

    `event`     the typed event, or a RawEvent where it was read raw.
    `position`  from 1, without gaps; `first` and `last` bound the append it was part of, inclusive.
    `time`      when it was recorded; `occurred` when it happened, where its writer said so; both UTC.
    """

    stored: StoredEvent
    event: E_co

    if not TYPE_CHECKING:

        def __class_getitem__(cls, event: Any) -> types.GenericAlias:
            """As Generic has it, which would keep the event class in a cache of `typing`."""
            return types.GenericAlias(cls, event)

    @property
    def position(self) -> int:
        """Its place in the log, from 1."""
        return self.stored.position

    @property
    def id(self) -> UUID:
        """Its id."""
        return UUID(bytes=self.stored.id)

    @property
    def type(self) -> str:
        """The name it was stored under."""
        return self.stored.type

    @property
    def version(self) -> int:
        """The schema version it was stored with."""
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
        """When it happened, in UTC, where its writer said so."""
        return None if self.stored.occurred is None else from_micros(self.stored.occurred)

    @property
    def metadata(self) -> Metadata:
        """Who, why, caused by what."""
        return Metadata(msgspec.json.decode(self.stored.metadata)) if self.stored.metadata else Metadata()

    @property
    def first(self) -> int:
        """The first position of the append it was part of."""
        return self.stored.first

    @property
    def last(self) -> int:
        """The last position of the append it was part of."""
        return self.stored.last

    def __repr__(self) -> str:
        moment = self.time.strftime("%Y-%m-%d %H:%M:%S.%fZ")
        extra = "".join(f" {key}={value!r}" for key, value in self.metadata.items())
        return f"<#{self.position} {self.event!r} at {moment}{extra}>"
