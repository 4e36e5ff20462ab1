"""One call of the server: the request, the store it is about, and the caller.

Knows: Starlette's request. Does not know: routes, how callers are authenticated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from eventfold.aio import AsyncStore
from eventfold.core.wire import decode
from eventfold.server.bodies import HeldBody
from eventfold.server.content import check_media_type, decompress, receive_body
from eventfold.server.scopes import Caller

if TYPE_CHECKING:
    from eventfold.server.asgi import Server
    from eventfold.server.schemas.kept import StoreSchemas

T = TypeVar("T")
JSON_TYPES = ("application/json",)
_encode = msgspec.json.Encoder().encode
_is_plain = re.compile(r"[A-Za-z0-9_.~/-]*").fullmatch  # what `quote` leaves as it is


class Call:
    """One call: what a handler receives. `store_name` is empty for routes that are of the server, not of a store."""

    __slots__ = ("_received", "caller", "request", "server", "store_name")

    def __init__(self, request: Request, server: Server, store_name: str, caller: Caller) -> None:
        self._received: bytes | bytearray | None = None
        self.request, self.server, self.store_name, self.caller = request, server, store_name, caller

    @property
    def store(self) -> AsyncStore:
        """The store that the path names."""
        return self.server.stores[self.store_name]

    @property
    def root_path(self) -> str:
        """The path where the application is mounted, or that a proxy removes; empty if neither."""
        return str(self.request.scope.get("root_path", "")).rstrip("/")

    @property
    def path(self) -> str:
        """The path of this request as the client must write it, for links: with the path where it is mounted."""
        path: str = self.request.scope["path"]
        root = self.root_path
        inside = path == root or path.startswith(f"{root}/")
        whole = (path if inside else root + path).rstrip("/")
        return whole if _is_plain(whole) else quote(whole)

    @property
    def schemas(self) -> StoreSchemas:
        """The event types of that store that are declared by JSON Schemas."""
        return self.server.schemas[self.store_name]

    def text(self) -> str:
        """The address and the body of the request as text, as far as it is text and not compressed."""
        body = "" if self._received is None else self._received.decode("utf-8", "replace").replace("\\/", "/")
        return f"{unquote(str(self.request.url))}\n{body}"

    async def receive(self, held: HeldBody) -> None:
        """Receive the body, which `raw_body` then returns: before the call takes a place among those being handled.

        Raises BodyTooLarge, UnsupportedMedia, TooManyCalls or ServerBusy if too much is received at the same time.
        """
        self._received = await receive_body(self.request, self.server.settings.limits.body_bytes, held)

    async def raw_body(self) -> bytes:
        """The body, decompressed. Raises BodyTooLarge, InvalidInput; RuntimeError if the route declares no request."""
        if self._received is None:
            raise RuntimeError(f"The route of {self.request.method} {self.request.url.path} declares no request.")
        return await decompress(self.request, self._received, self.server.settings.limits.body_bytes)

    async def body(self, kind: type[T]) -> T:
        """The body, JSON of this type. Raises InvalidInput with the path of the field at fault, and as raw_body."""
        check_media_type(self.request, JSON_TYPES)
        return decode(await self.raw_body(), kind)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value of msgspec types as a JSON response."""
    return JsonResponse(_encode(value), status, headers)


class JsonResponse(Response):
    """A body of JSON. Its headers are made at once: Starlette first looks whether others are given."""

    media_type = JSON_TYPES[0]

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Set the headers: none of those given is about the length or the type of the body."""
        self.raw_headers = [(b"content-length", b"%d" % len(self.body)), (b"content-type", b"application/json")]
        for name, value in (headers or {}).items():
            self.raw_headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))
