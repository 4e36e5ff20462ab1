"""A client of Server-Sent Events for the tests, on a blocking socket.

Knows: HTTP/1.1 as far as a stream needs it, the format text/event-stream. Does not know: eventfold.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

TIMEOUT_S = 60.0


@dataclass
class Message:
    """A dispatched event of the stream. `id` is the client's last event id when it came."""

    event: str
    id: str
    data: Any


class Stream:
    """An open stream: its status, and an iterator over its messages. `retry` and `comments` are noted on the way."""

    def __init__(
        self,
        url: str,
        path: str = "/v1/follow",
        *,
        headers: dict[str, str] | None = None,
        receive_bytes: int = 0,
        **query: Any,
    ) -> None:
        at = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(at.hostname), at.port, timeout=TIMEOUT_S)
        if receive_bytes:
            self._connection.sock = socket.socket()
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            self._connection.sock.settimeout(TIMEOUT_S)
            self._connection.sock.connect((str(at.hostname), at.port))
        names = {name.rstrip("_"): value for name, value in query.items()}
        self._connection.request("GET", f"{path}?{urlencode(names, doseq=True)}", headers=headers or {})
        self.response = self._connection.getresponse()
        self.status = self.response.status
        self.last_id, self.retry, self.comments = "", 0, 0
        self._messages = self._parse()

    def _parse(self) -> Iterator[Message]:
        name, data = "message", list[str]()
        for raw in self.response:
            line = raw.decode().rstrip("\n")
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match field:
                case "" if line:
                    self.comments += 1
                case "":
                    if data:
                        yield Message(name, self.last_id, json.loads("\n".join(data)))
                    name, data = "message", []
                case "id":
                    self.last_id = value
                case "event":
                    name = value
                case "data":
                    data.append(value)
                case "retry":
                    self.retry = int(value)
                case _:
                    raise AssertionError(line)

    def __iter__(self) -> Iterator[Message]:
        return self._messages

    def next(self) -> Message:
        """The next message."""
        return next(self._messages)

    def until(self, event: str) -> list[Message]:
        """The messages up to the first one of this name, inclusive."""
        found: list[Message] = []
        for message in self._messages:
            found.append(message)
            if message.event == event:
                return found
        raise AssertionError(f"the stream ended without {event}: {found[-3:]}")

    def events(self, count: int) -> list[Message]:
        """The next `count` messages named event; others between them are left out."""
        found: list[Message] = []
        while len(found) < count:
            message = self.next()
            if message.event == "event":
                found.append(message)
        return found

    def problem(self) -> Any:
        """The JSON of a response that is no stream."""
        return json.loads(self.response.read())

    def close(self) -> None:
        """End the connection."""
        self.response.close()
        self._connection.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
