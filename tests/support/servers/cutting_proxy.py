"""A TCP proxy on loopback: it cuts a connection at a byte of a request or an answer, delays answers, or falls silent.

Knows: bytes in two directions. Does not know: any protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Literal

CHUNK = 65536
TIMEOUT_S = 60.0
Direction = Literal["request", "answer"]


class CuttingProxy:
    """A proxy in front of a server, with an event loop in a thread of its own.

    `cut(direction, byte)`: of the next bytes in this direction `byte` pass, then the connection is cut.
    `slow(seconds)`: answers wait for so long.
    `silence()`: nothing passes any more, and no connection is closed; `heal()` ends both.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._left: dict[Direction, int | None] = {"request": None, "answer": None}
        self.passed: dict[Direction, int] = {"request": 0, "answer": 0}
        self.connections = 0
        self._delay_s = 0.0
        self._is_silent = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cutting-proxy", daemon=True)
        self._thread.start()
        self.port = 0
        self.listen()

    @property
    def url(self) -> str:
        """The address of the server behind the proxy."""
        return f"http://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Accept connections, on the same port as before."""
        starting = asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(TIMEOUT_S)
        self.port = self._server.sockets[0].getsockname()[1]

    def leave(self) -> None:
        """Accept no connection, and cut those that are open."""

        async def leave() -> None:
            self._server.close()
            for writer in tuple(self._writers):
                writer.transport.abort()

        asyncio.run_coroutine_threadsafe(leave(), self._loop).result(TIMEOUT_S)

    def cut(self, direction: Direction, byte: int) -> None:
        """Cut the connection on which `byte` more bytes have passed in this direction."""
        self._left[direction] = byte

    def slow(self, seconds: float) -> None:
        """Let each answer wait."""
        self._delay_s = seconds

    def silence(self) -> None:
        """Let nothing pass, as a network does whose cable was pulled."""
        self._is_silent = True

    def heal(self) -> None:
        """Let everything pass again, on new connections."""
        self._left = {"request": None, "answer": None}
        self._delay_s, self._is_silent = 0.0, False

    def count(self) -> None:
        """Count the bytes of both directions from now on."""
        self.passed = {"request": 0, "answer": 0}

    def close(self) -> None:
        """Stop listening, and cut everything."""

        self.leave()

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        self._loop.close()

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        both = (writer, there_writer)
        self._writers.update(both)
        pumps = [
            asyncio.ensure_future(self._pump("request", reader, there_writer)),
            asyncio.ensure_future(self._pump("answer", there_reader, writer)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for each in both:
            each.transport.abort()
            self._writers.discard(each)

    async def _pump(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if direction == "answer" and self._delay_s:
                    await asyncio.sleep(self._delay_s)
                if self._is_silent:
                    await asyncio.Event().wait()
                left = self._left[direction]
                if left is not None:
                    self._left[direction] = left - len(data) if len(data) <= left else None
                    data = data[:left]
                self.passed[direction] += len(data)
                writer.write(data)
                await writer.drain()
                if left is not None and self._left[direction] is None:
                    return
