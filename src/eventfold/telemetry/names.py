"""How spans call a store: by its file, its database, or its name on a server; never by credentials or folders.

Knows: the forms of addresses. Does not know: stores.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from eventfold.ports.engine import Engine


def name_of_engine(engine: Engine) -> str:
    """Return the name of an engine's store."""
    if engine.default_target:
        return name_of_address(engine.default_target)
    address = re.search(r"'([^']*)'", repr(engine))
    return name_of_address(address[1]) if address else engine.name


def name_of_url(url: Any) -> str:
    """Return the name of the store at what an AsyncStore was given: an address, a path, or an engine."""
    return name_of_address(os.fspath(url)) if isinstance(url, str | os.PathLike) else name_of_engine(url)


def name_of_address(address: str) -> str:
    """Return the name of the store at an address: "shop" for shop.db, postgresql://host/shop, https://host/shop."""
    scheme, colon, rest = address.partition(":")
    scheme = scheme.lower()
    if scheme in ("http", "https"):
        parts = urlsplit(address)
        last = unquote(parts.path.rstrip("/").rpartition("/")[2])
        return last if last not in ("", "v1") else parts.hostname or "remote"
    if scheme in ("postgres", "postgresql"):
        parts = urlsplit(address)
        named = parse_qs(parts.query).get("dbname", [])
        return named[-1] if named else unquote(parts.path.strip("/")) or "postgres"
    if scheme == "memory":
        return rest or "memory"
    if "=" in address and not os.path.exists(address):  # libpq's form, which may have a password
        found = re.search(r"\bdbname=(\w+)", address)
        return found[1] if found else "postgres"
    if colon and scheme not in ("sqlite", "file") and len(scheme) > 1:
        return scheme  # of another engine: what stands behind it is not known
    last = re.split(r"[/\\]", address.partition("?")[0].rstrip("/"))[-1]
    return re.sub(r"\.(db|sqlite3?)$", "", last.rpartition(":")[2]) or "store"
