"""A receiver of webhooks on loopback: checks signatures, answers as a test says, can be slow or away."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from eventfold.errors import InvalidSignature
from eventfold.webhooks import verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOKEN = "T0KEN-1234567890"


class Receiver:
    """`received`: the ids and bodies of the requests; `answer`: the status; `blocked`: not answered while it is set.

    `quote`: is said beside an error; `announced`: bytes that the answer says to have, and does not send.
    """

    def __init__(self, port: int = 0) -> None:
        self.answer = 204
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.unsigned: list[str] = []
        self.quote = ""
        self.announced = 0
        self.blocked = threading.Event()
        self.blocking = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.handle(self)

            def log_message(self, format: str, *args: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                receiver.lost += 1  # the client was killed

        self.lost = 0
        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/hooks/{TOKEN}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        """Record a request and answer it."""
        body = request.rfile.read(int(request.headers["content-length"]))
        self.blocking.set()
        while self.blocked.is_set():
            threading.Event().wait(0.01)
        try:
            verify(dict(request.headers), body, SECRET)
        except InvalidSignature as error:
            self.unsigned.append(str(error))
        if self.answer < 300:
            self.received.append((request.headers["webhook-id"], json.loads(body)))
        said = b"" if self.answer == 204 else f"no hook at {request.path}{self.quote}".encode()
        request.send_response(self.answer)
        request.send_header("content-length", str(self.announced or len(said)))
        request.end_headers()
        request.wfile.write(said)
        if self.announced:
            request.connection.settimeout(5.0)
            request.connection.recv(1)  # until the client has gone

    def states(self) -> list[str]:
        """What was received: `raised c-1`, in order."""
        return [
            f"{body['data']['state']} {' '.join(each['key'] for each in body['data']['episodes'])}".strip()
            for _, body in self.received
        ]

    def close(self) -> None:
        """Stop serving: connections are refused."""
        self.blocked.clear()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def receiving(port: int = 0) -> Generator[Receiver]:
    """Run a receiver."""
    receiver = Receiver(port)
    try:
        yield receiver
    finally:
        receiver.close()
