"""Finding a projection's class by its address, MODULE:NAME.

Knows: imports, the current directory. Does not know: what is done with the class.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eventfold.errors import InvalidProjection
from eventfold.projections.classes import Projection, SqlProjection, Subscription


def declaring_module(found: Any) -> str | None:
    """The module in which a projection or subscription was declared; None for anything else."""
    bases = (Projection, SqlProjection, Subscription)
    if isinstance(found, type):
        return found.__module__ if issubclass(found, bases) and found not in bases else None
    return type(found).__module__ if isinstance(found, bases[1:]) else None


def load(
    address: str, home: Callable[[Any], str | None] = declaring_module, what: str = "a projection or subscription"
) -> list[Any]:
    """What is to be run at MODULE:NAME: a class, an instance, or a list of them; MODULE alone: all it declares.

    `home` tells in which module something was declared, None where it cannot be run. Raises InvalidProjection if there
    is nothing of the kind.
    """
    module_name, _, name = address.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
        found: Any = module
        for part in name.split(".") if name else ():
            found = getattr(found, part)
    except Exception as error:  # importing runs the user's module, which may raise anything
        raise InvalidProjection(
            f"There is nothing to run at {address!r}: {error}.",
            "Give MODULE:NAME, as in myapp.models:CarrierMonth, from a directory where that module can be imported.",
            code=address,
        ) from error
    if not name:
        declared: list[Any] = list(vars(module).values())
        found = [each for each in declared if home(each) == module_name]
    several: list[Any] = [*found] if isinstance(found, list | tuple) else [found]  # pyright: ignore[reportUnknownArgumentType]
    if not several or not all(map(home, several)):
        raise InvalidProjection(
            f"{address} is nothing that can be run.",
            f"Name {what}, a list of such, or a module that declares some.",
            code=address,
        )
    return several
