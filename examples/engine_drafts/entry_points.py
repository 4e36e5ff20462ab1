"""Schemes of engines and targets that other packages bring: entry points of the groups `eventfold.engines` and
`eventfold.targets`.

Knows: installed packages' entry points. Does not know: what an entry point returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from eventfold.errors import InvalidUrl, MissingExtra

Group = Literal["eventfold.engines", "eventfold.targets"]


def find_entry_point(group: Group, scheme: str) -> Callable[..., Any] | None:
    """What a package has registered for a scheme; None if none has.

    Raises MissingExtra if it cannot be loaded, InvalidUrl if several packages have registered the scheme.
    """
    from importlib.metadata import entry_points  # imported here: few addresses need it

    found = {each.dist.name if each.dist else each.value: each for each in entry_points(group=group, name=scheme)}
    if not found:
        return None
    if len(found) > 1:
        raise InvalidUrl(
            f"The scheme {scheme!r} is registered by {' and '.join(sorted(found))}.",
            "Uninstall all of these packages but one, or open the store with an engine object.",
            scheme=scheme,
        )
    ((package, entry),) = found.items()
    try:
        return entry.load()
    except Exception as error:
        raise MissingExtra(
            f"The scheme {scheme!r} is registered by the package {package}, whose {entry.value} cannot be loaded: "
            f"{type(error).__name__}: {error}.",
            f"Install what {package} needs, or another version of it.",
            extra=package,
        ) from error
