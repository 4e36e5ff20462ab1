"""Room: finding a projection's class by its address, MODULE:NAME.

Knows: imports, the current directory. Does not know: what is done with the class.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from eventfold.errors import InvalidProjection
from eventfold.projection.classes import Projection, SqlProjection, Subscription
from eventfold.projection.plan import Kept


def load(address: str) -> list[Kept]:
    """The projections at MODULE:NAME: a class, an instance, or a list of them; MODULE alone: all it declares.

    Raises InvalidProjection if there is nothing of the kind.
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
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidProjection(
            f"There is no projection at {address!r}: {error}.",
            "Give MODULE:NAME, as in myapp.models:CarrierMonth, from a directory where that module can be imported.",
            code=address,
        ) from error
    if not name:
        declared: list[Any] = list(vars(module).values())
        found = [each for each in declared if _is_kept(each) and getattr(each, "__module__", "") == module_name]
    several: list[Any] = [*found] if isinstance(found, list | tuple) else [found]  # pyright: ignore[reportUnknownArgumentType]
    if not several or not all(map(_is_kept, several)):
        raise InvalidProjection(
            f"{address} is no projection.",
            "Name a class derived from ef.Projection, ef.SqlProjection or ef.Subscription, or a list of such.",
            code=address,
        )
    return several


def _is_kept(found: Any) -> bool:
    bases = (Projection, SqlProjection, Subscription)
    if isinstance(found, type):
        return issubclass(found, bases) and found not in bases
    return isinstance(found, bases[1:])
