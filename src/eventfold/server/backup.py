"""Backups over HTTP: a consistent copy of a store, as a stream of bytes.

Knows: that a copy is a file. Does not know: how it is made (backup_copy.py).
"""

from __future__ import annotations

import asyncio
import os
from typing import BinaryIO

from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from eventfold.concurrency import in_thread
from eventfold.server.access.errors import ServerBusy
from eventfold.server.backup_copy import backup_copy
from eventfold.server.call import Call
from eventfold.server.route import Route
from eventfold.server.scopes import Scope
from eventfold.server.visibility import check_payload, check_whole_store

CHUNK_BYTES = 256 * 1024
MEDIA = "application/vnd.sqlite3"


class BackupResponse(Response):
    """The bytes of a copy, which is gone when the response ends in any way."""

    def __init__(self, copy: BinaryIO, name: str) -> None:
        size = os.fstat(copy.fileno()).st_size  # a client notices a transfer that was cut off by the length
        headers = {
            "Content-Length": str(size),
            "Content-Disposition": f'attachment; filename="{name}.db"',
            "Cache-Control": "no-store",
        }
        super().__init__(None, 200, headers, MEDIA)
        self._copy = copy

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Send the copy; stop when the client has gone."""
        gone = asyncio.get_running_loop().create_task(_disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while chunk := await in_thread(self._copy.read, CHUNK_BYTES):
                if gone.done():
                    return
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._copy.close()
            gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


async def backup(call: Call) -> Response:
    """Answer with a copy of the store, which begins a new epoch. One copy of a store is made at a time."""
    check_whole_store(call.caller)
    check_payload(call.caller)
    server, name = call.server, call.store_name
    if name in server.copying:
        raise ServerBusy(
            "A copy of this store is being made.", "Repeat the request when it is complete.", retry_after=5
        )
    server.copying.add(name)
    try:
        copy = await backup_copy(call.store, server.settings.backup.folder)
    finally:
        server.copying.discard(name)
    shown = "".join(each if each.isascii() and (each.isalnum() or each in "-_.") else "_" for each in name)
    return BackupResponse(copy, shown)


ROUTES = (
    Route(
        method="GET",
        path="/backup",
        handler=backup,
        scope=Scope.ADMIN,
        summary="A consistent copy of the store, as a SQLite file",
        media=(MEDIA,),
        errors=(501, 507),
    ),
)
