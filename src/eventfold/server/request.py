"""A request whose headers are found in a dictionary: Starlette's are searched, and encoded, at each access.

Knows: Starlette's request. Does not know: what any header means.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Receive, Scope, Send


class IndexedHeaders(Headers):
    """Headers by name, in any case; of a repeated one the first value, as Starlette has it."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        super().__init__(raw=raw)
        self._first = dict(reversed(raw))

    def __getitem__(self, key: str) -> str:
        return self._first[_raw_name(key)].decode("latin-1")

    def __contains__(self, key: Any) -> bool:
        return _raw_name(key) in self._first

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a header, or the default."""
        found = self._first.get(_raw_name(key))
        return default if found is None else found.decode("latin-1")


class IndexedRequest(Request):
    """A request with such headers: those that are given, or else those of the scope."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, headers: IndexedHeaders | None = None) -> None:
        super().__init__(scope, receive, send)
        self._headers = IndexedHeaders(list(scope["headers"])) if headers is None else headers


@lru_cache(maxsize=256)  # names stand in the code: no request adds one
def _raw_name(name: str) -> bytes:
    return name.lower().encode("latin-1")
