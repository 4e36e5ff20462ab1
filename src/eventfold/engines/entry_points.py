"""Engines and targets that other distributions bring: entry points of `eventfold.engines` and `eventfold.targets`.

The name of an entry point is the scheme of its addresses. Entry points are looked up only for schemes that are not
built in, because reading the metadata of every installed distribution takes milliseconds.
Knows: the metadata of installed distributions, signatures. Does not know: schemes that are built in, what is opened.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from eventfold.errors import InvalidUrl, MissingExtra

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Group = Literal["eventfold.engines", "eventfold.targets"]
ENGINES: Group = "eventfold.engines"
TARGETS: Group = "eventfold.targets"


class Plugin:
    """The entry point of one scheme, loaded."""

    def __init__(self, scheme: str, entry: EntryPoint) -> None:
        self.scheme, self.value = scheme, entry.value
        self.distribution = distribution_of(entry)
        try:
            self.opener: Callable[..., Any] = entry.load()
        except ImportError as error:
            self._refuse_import(error)
        except Exception as error:
            raise self._error(f"cannot be loaded ({type(error).__name__}: {error})") from error
        if not callable(self.opener):
            raise self._error(f"is a {type(self.opener).__name__}, and cannot be called")

    def open(self, address: str, **options: Any) -> Any:
        """Call the entry point. Raises InvalidUrl if it does not take these arguments, MissingExtra on an ImportError.

        Any other exception of the entry point is raised as it is.
        """
        try:
            inspect.signature(self.opener).bind(address, **options)
        except TypeError as error:
            raise self._error(f"cannot be called with (address, {', '.join(options)}): {error}") from error
        except ValueError:  # some callables written in C have no signature
            pass
        try:
            return self.opener(address, **options)
        except ImportError as error:
            self._refuse_import(error)

    def check(self, result: object, protocol: type, what: str, optional: tuple[str, ...] = ()) -> None:
        """Raise InvalidUrl, with the names that are missing, if a result lacks members of a protocol.

        `optional`: members that an object may get later, when it is opened.
        """
        if inspect.iscoroutine(result):
            result.close()  # or Python would warn that it was never awaited
            raise self._error(f"is an async function: it must return the {what} itself")
        if isinstance(result, type):
            raise self._error(f"returned the class {result.__name__}, not an object of it")
        missing = [name for name in members(protocol) if name not in optional and not _has(result, name)]
        if missing:
            raise self._error(f"returned a {type(result).__name__}, which is no {what}: it lacks {', '.join(missing)}")

    def _error(self, problem: str) -> InvalidUrl:
        return InvalidUrl(
            f"The distribution {self.distribution} registers the scheme {self.scheme!r}, and its entry point "
            f"{self.value} {problem}.",
            f"Install another version of {self.distribution}, or uninstall it and use another scheme.",
            scheme=self.scheme,
            distribution=self.distribution,
            entry_point=self.value,
        )

    def _refuse_import(self, error: ImportError) -> NoReturn:
        raise MissingExtra(
            f"The distribution {self.distribution} registers the scheme {self.scheme!r}, and its entry point "
            f"{self.value} cannot be imported: {error}.",
            f"Install what {self.distribution} needs (pip check lists it), or another version of it.",
            extra=self.distribution,
            scheme=self.scheme,
            entry_point=self.value,
        ) from error


def find_plugin(group: Group, scheme: str) -> Plugin | None:
    """The entry point of a scheme, loaded; None if no distribution registers it.

    Raises InvalidUrl if several distributions register it or its entry point is unusable, MissingExtra if its import
    fails.
    """
    entries = {distribution_of(entry): entry for entry in registered(group) if entry.name.lower() == scheme}
    if not entries:
        return None
    if len(entries) > 1:
        names = " and ".join(sorted(entries))
        raise InvalidUrl(
            f"The scheme {scheme!r} is registered by several distributions: {names}.",
            "Uninstall all of them but one, or give the object that one of them makes instead of its address.",
            scheme=scheme,
            distributions=sorted(entries),
        )
    (entry,) = entries.values()
    return Plugin(scheme, entry)


def registered(group: Group) -> list[EntryPoint]:
    """The entry points of a group, of every installed distribution."""
    from importlib.metadata import entry_points  # here: few addresses need it, and its import takes milliseconds

    return list(entry_points(group=group))


def distribution_of(entry: EntryPoint) -> str:
    """The name of the distribution that declares an entry point."""
    return entry.dist.name if entry.dist is not None else entry.value


def has_registered_scheme(address: str) -> bool:
    """Whether an address begins with a scheme that an installed distribution registers for engines."""
    scheme, colon, _ = address.partition(":")
    return bool(colon) and any(entry.name.lower() == scheme.lower() for entry in registered(ENGINES))


def suggestion(group: Group, scheme: str, built_in: tuple[str, ...]) -> str:
    """` (did you mean NAME:?)` with the most similar scheme, built in or registered; "" if none is similar."""
    near = difflib.get_close_matches(scheme, [*built_in, *(entry.name for entry in registered(group))], 1)
    return f" (did you mean {near[0]}:?)" if near else ""


def members(protocol: type) -> list[str]:
    """The names of a protocol's attributes and methods, inherited ones included."""
    names = (
        name
        for cls in protocol.__mro__
        if getattr(cls, "_is_protocol", False)
        for name in (*cls.__annotations__, *vars(cls))
        if not name.startswith("_")
    )
    return list(dict.fromkeys(names))


def _has(instance: object, name: str) -> bool:
    """Whether an object has a member. A property of its class is not called: it may raise before the object is open."""
    return hasattr(type(instance), name) or hasattr(instance, name)
