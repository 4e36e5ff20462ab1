"""A receiver of webhooks on this machine, in place of a paging service: it checks signatures and notes times.

Knows: HTTP, the body of a message about an alert. Does not know: stores, who sends.
"""

from __future__ import annotations

import base64
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from eventfold.errors import InvalidSignature
from eventfold.webhooks import verify


class Received(NamedTuple):
    """A message: `kind` is "raised" or "cleared"; `at` is when it arrived, by the monotonic clock, in seconds."""

    kind: str
    alert: str
    text: str
    at: float


class Receiver:
    """Receives on a free port of 127.0.0.1: `with Receiver() as receiver: …`, then `receiver.wait_for("raised", 5)`."""

    def __init__(self) -> None:
        self.secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        self.messages: list[Received] = []
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, name="watch-receiver", daemon=True)

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self._server.server_port}/page"

    def take(self, body: bytes, headers: dict[str, str]) -> bool:
        """Note a message. Returns False if its signature is wrong."""
        arrived = time.monotonic()
        try:
            sent: dict[str, Any] = verify(headers, body, self.secret)
        except InvalidSignature:
            return False
        data = sent["data"]
        message = Received(sent["type"].partition(".")[2], data["alert"], data["summary"], arrived)
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()
        return True

    def wait_for(self, kind: str, timeout: float) -> Received | None:
        """Wait for the first message of a kind, for `timeout` seconds at most."""
        ends = time.monotonic() + timeout
        with self._changed:
            while True:
                found = next((each for each in self.messages if each.kind == kind), None)
                left = ends - time.monotonic()
                if found is not None or left <= 0:
                    return found
                self._changed.wait(left)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler_of(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers 204 to a message that is signed, 401 to any other."""

        def do_POST(self) -> None:
            """Take a message."""
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            is_taken = receiver.take(body, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(204 if is_taken else 401)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Write nothing: the demonstration prints what was received."""

    return Handler
