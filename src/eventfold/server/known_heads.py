"""Heads of requests that came before: the same bytes are not parsed again.

Clients send the same head with each request, but for the length of the body. A head is kept if nothing about it is
unusual: POST to a path that ends with /events, HTTP/1.1, one Host, one Content-Length, nothing about the connection.
Knows: httptools' parser. Does not know: connections, routes, what a header means for an application.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import httptools
from starlette.types import Scope

from eventfold.server.exchange import RAW_HEADER
from eventfold.server.request import IndexedHeaders

MAX_HEADS = 1_024
MAX_HEAD_BYTES = 1_024
MAX_BODY_BYTES = 32_768  # with its head it comes in one piece, and answers are small
_FIRST_LINE = re.compile(rb"POST /[!-~]{0,300}/events HTTP/1\.1\r\n")
# What changes how the connection goes on, or how the body is read, or who the client is.
_UNUSUAL = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"x-forwarded-for", b"x-forwarded-proto"))


class KnownHead:
    """A head: what a scope has of it, its headers, the ids that it gives the request, the bytes that its body has.

    `route` is for who uses it: where the requests with this head go.
    """

    __slots__ = ("headers", "length", "request_ids", "route", "scope")

    def __init__(self, scope: Scope, headers: IndexedHeaders, request_ids: list[str], length: int) -> None:
        self.scope, self.headers, self.request_ids, self.length = scope, headers, request_ids, length
        self.route: Any = None


class KnownHeads:
    """Heads by their bytes; the one that was added first is dropped for a new one.

    `most_bytes`, `most_headers`: of a head that a connection accepts. `root_path`: what the paths of scopes begin with,
    as uvicorn has it.
    """

    def __init__(self, most_bytes: int, most_headers: int, root_path: str = "") -> None:
        self._most_bytes, self._most_headers = min(most_bytes, MAX_HEAD_BYTES), most_headers
        self._root_path = root_path
        self._heads = dict[bytes, KnownHead]()

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._heads)

    def forget(self) -> None:
        """Drop all of them, with their routes."""
        self._heads.clear()

    def find(self, data: bytes) -> tuple[KnownHead, bytes] | None:
        """Return the head and the body of a request, if the data is one whole request with a usual head."""
        end = data.find(b"\r\n\r\n") + 4
        head = data[:end]
        known = self._heads.get(head) or self._learn(head)
        return None if known is None or len(data) - end != known.length else (known, data[end:])

    def _learn(self, head: bytes) -> KnownHead | None:
        if len(head) > self._most_bytes or _FIRST_LINE.match(head) is None:
            return None
        known = self._parsed(head)
        if known is not None:
            if len(self._heads) >= MAX_HEADS:
                del self._heads[next(iter(self._heads))]
            self._heads[head] = known
        return known

    def _parsed(self, head: bytes) -> KnownHead | None:
        """Parse a head, as the parser of a connection does."""
        parsed = _Parsed()
        parser = httptools.HttpRequestParser(parsed)
        try:
            parser.feed_data(head)
            if not parsed.is_complete or parser.get_http_version() != "1.1" or not parser.should_keep_alive():
                return None
            url = httptools.parse_url(parsed.url)
            path = url.path.decode("ascii")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, UnicodeDecodeError):
            return None
        names = [name for name, _value in parsed.headers]
        lengths = [value for name, value in parsed.headers if name == b"content-length"]
        if len(names) > self._most_headers or names.count(b"host") != 1 or not _UNUSUAL.isdisjoint(names):
            return None
        if len(lengths) != 1 or not lengths[0].isdigit():
            return None
        length = int(lengths[0])
        if not 0 < length <= MAX_BODY_BYTES:
            return None
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "path": self._root_path + (unquote(path) if "%" in path else path),
            "raw_path": self._root_path.encode("ascii") + url.path,
            "query_string": url.query or b"",
            "root_path": self._root_path,
            "headers": parsed.headers,
        }
        request_ids = [value.decode("latin-1") for name, value in parsed.headers if name == RAW_HEADER]
        return KnownHead(scope, IndexedHeaders(parsed.headers), request_ids, length)


class _Parsed:
    """What the parser finds."""

    def __init__(self) -> None:
        self.url, self.headers, self.is_complete = b"", list[tuple[bytes, bytes]](), False

    def on_url(self, url: bytes) -> None:
        """Keep a part of the address."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Note that this is the whole head."""
        self.is_complete = True
