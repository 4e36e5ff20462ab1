"""Large parts of a response are sent in pieces, so that a client that reads slowly holds little memory of the server.

A part that is sent at once is copied into the buffer of the connection as a whole, however slowly it is read. Of one
that is sent in pieces, a few are in the buffer, and the next waits until they were read.
Knows: ASGI messages. Does not know: what is sent.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PIECE_BYTES = 128 * 1024


class Pieces:
    """Middleware: no message with a part of a body is larger than PIECE_BYTES."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, and cut what it sends."""
        await self.app(scope, receive, in_pieces(send) if scope["type"] == "http" else send)


def in_pieces(send: Send) -> Send:
    """Return a `send` that cuts what it is given."""

    async def cut(message: Message) -> None:
        body = message.get("body", b"")
        if len(body) <= PIECE_BYTES:
            await send(message)
            return
        for start in range(0, len(body), PIECE_BYTES):
            piece = body[start : start + PIECE_BYTES]
            more = message.get("more_body", False) or start + PIECE_BYTES < len(body)
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    return cut
