"""A TCP proxy on loopback that can lose what passes through it.

Knows: bytes in two directions. Does not know: any protocol, except for one word to wait for.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time

CHUNK = 65536
TIMEOUT_S = 30.0  # for the server's answer that will be lost


class Proxy:
    """A proxy in front of a server. `lose_answer(word)`: the next request with this word passes, its answer does not;
    `lose_request(word)`: the request does not pass either. In both cases the connection is cut.

    `is_refusing`: new connections are cut at once. `round_trips`: how often an answer has followed a request, or
    several requests that were sent together.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._word: bytes | None = None
        self._through = True
        self._open: list[socket.socket] = []
        self.lost = threading.Event()
        self.is_refusing = False
        self.round_trips = 0
        self._asking: set[socket.socket] = set()  # clients that have sent something since the last answer
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def lose_answer(self, word: bytes) -> None:
        """Lose the answer to the next request with this word."""
        self._plan(word, through=True)

    def lose_request(self, word: bytes) -> None:
        """Lose the next request with this word."""
        self._plan(word, through=False)

    def _plan(self, word: bytes, *, through: bool) -> None:
        self.lost.clear()
        self._through = through
        self._word = word

    def cut(self) -> None:
        """Cut every connection now."""
        for each in self._open:
            _close(each)

    def close(self) -> None:
        """Stop listening and cut everything."""
        _close(self._listening)
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self.is_refusing:
                    _close(client)
                    continue
                server = socket.create_connection(("127.0.0.1", self._to))
                self._open += [client, server]
                events = threading.Event(), threading.Event()
                threading.Thread(target=self._requests, args=(client, server, *events), daemon=True).start()
                threading.Thread(target=self._answers, args=(server, client, *events), daemon=True).start()

    def _requests(
        self, client: socket.socket, server: socket.socket, deaf: threading.Event, answered: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(CHUNK):
                if self._word is not None and self._word in data:
                    self._word = None
                    deaf.set()
                    if self._through:
                        server.sendall(data)
                        _forward_until(answered, client, server)  # so that the server has run the request
                        time.sleep(0.2)  # for the server's work after the first bytes of its answer
                    self.lost.set()
                    break
                self._asking.add(client)
                server.sendall(data)
        _close(client)
        _close(server)

    def _answers(
        self, server: socket.socket, client: socket.socket, deaf: threading.Event, answered: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(CHUNK):
                if deaf.is_set():
                    answered.set()
                else:
                    if client in self._asking:
                        self._asking.discard(client)
                        self.round_trips += 1
                    client.sendall(data)


def _forward_until(answered: threading.Event, client: socket.socket, server: socket.socket) -> None:
    """Forward what the client sends behind a request, such as the rest of a pipeline, until the server answers."""
    deadline = time.monotonic() + TIMEOUT_S
    while not answered.is_set() and time.monotonic() < deadline:
        if select.select([client], [], [], 0.02)[0]:
            data = client.recv(CHUNK)
            if not data:
                return
            server.sendall(data)


def _close(it: socket.socket) -> None:
    with contextlib.suppress(OSError):
        it.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        it.close()
