"""uvicorn's HTTP protocol, with a way to end a connection whose client reads nothing.

`transport.close()` first sends what is buffered, which never ends if the client does not read; and an ASGI
application has no way to end its connection. So the scope of each request gets the extension `eventfold.abort`.
Knows: uvicorn's protocol. Does not know: streams.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from eventfold.server.live.stream import ABORT


class AbortableProtocol(HttpToolsProtocol):
    """For `uvicorn.Config(…, http=AbortableProtocol)`."""

    def on_message_begin(self) -> None:
        """Add the extension to the scope of the request that begins."""
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # pyright: ignore[reportAssignmentType]
        scope.setdefault("extensions", {})[ABORT] = self.transport.abort
