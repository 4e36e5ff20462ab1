"""Addresses of files and of memory, as SQLite, SQLAlchemy and eventfold write them.

Knows: how addresses are written. Does not know: engines, targets, files.
"""

from __future__ import annotations

import os
import re
from typing import Any, cast

from eventfold.errors import InvalidUrl

MEMORY = ":memory:"  # as sqlite3 writes it


def address_text(address: Any, called: str) -> str:
    """An address (str or path object) as text. Raises InvalidUrl for other types; `called` names the address."""
    if isinstance(address, os.PathLike):
        address = os.fspath(address)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(address, str):
        return address
    kind = type(cast(object, address)).__name__
    if address is None:
        remedy = 'Give a path or a URL; "memory:" for a log in memory. Perhaps a setting is missing.'
    elif isinstance(address, bytes):
        remedy = "Give text: os.fsdecode(…) makes a path of bytes."
    else:
        remedy = 'Give a path as text, "memory:", "postgresql://…", or an engine.'
    raise InvalidUrl(f"{called} is {address!r} ({kind}), not an address.", remedy, kind=kind)


def without_secrets(address: str) -> str:
    """An address as it may be shown: without a password, the key of a server, and the password of a system account."""
    hidden = re.sub(r"(://[^:/@]*):[^/?#\s]*@", r"\1:…@", address)
    hidden = re.sub(r"([?&]system=[^:&#\s]*:)[^&#\s]*", r"\1…", hidden)
    return re.sub(r"^(https?://)[^@/]*@", r"\1…@", hidden, flags=re.IGNORECASE)


def file_path(rest: str, scheme: str, address: str) -> str:
    """The path behind `sqlite:` or `file:`, or `:memory:`.

    `sqlite:///x.db` is a relative path and `sqlite:////x.db` an absolute one, as in SQLAlchemy; `sqlite:PATH` is the
    path as it stands. `file:` is a URI, whose `file:///x.db` is absolute. Raises InvalidUrl on parameters (`?mode=ro`).
    """
    uri = rest.startswith("//")
    if (uri or scheme == "file") and "?" in rest:
        raise InvalidUrl(
            f"The address {address!r} has parameters ({rest.partition('?')[2]}), which are not supported.",
            'Write the path alone, and readonly=True for mode=ro, create=False for mode=rw, "memory:" for mode=memory.',
            url=address,
        )
    if scheme == "file":
        from urllib.parse import unquote  # imported here: few addresses are URIs

        return unquote(rest.removeprefix("//localhost") if uri else rest).removeprefix("//")
    if rest == "//":
        return MEMORY
    return rest[3:] if rest.startswith("///") else rest.removeprefix("//")
