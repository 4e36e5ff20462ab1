"""A worker of a consumer over HTTP, for the tests.

Knows: the routes of consumers. Does not know: how they are served.
"""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 80.0


class Refused(Exception):
    """An answer that is a problem."""

    def __init__(self, status: int, problem: Any) -> None:
        super().__init__(f"{status}: {problem}")
        self.status, self.problem = status, problem


class Worker:
    """Calls about one consumer, on one connection. `events()` returns the deliveries of a call, as they were sent."""

    def __init__(self, url: str, name: str, headers: dict[str, str] | None = None) -> None:
        self.path = f"/v1/consumers/{name}"
        self._headers = headers or {}
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)

    def call(self, method: str, rest: str = "", body: Any = None) -> Any:
        """Call a route; `rest` follows the consumer's path. Raises Refused."""
        content = None if body is None else json.dumps(body)
        headers = self._headers if content is None else {"Content-Type": "application/json", **self._headers}
        self._connection.request(method, self.path + rest, content, headers)
        answer = self._connection.getresponse()
        found = json.loads(answer.read())
        if answer.status >= 300:
            raise Refused(answer.status, found)
        return found

    def create(self, **definition: Any) -> Any:
        """Create or change the consumer; `from_` is sent as `from`."""
        return self.call("PUT", body={name.rstrip("_"): value for name, value in definition.items()})

    def receive(self, most: int = 1, wait: float = 0.0) -> list[Any]:
        """Deliveries: token, attempt, event."""
        return self.call("POST", "/receive", {"max": most, "wait": wait})["deliveries"]

    def acknowledge(self, *deliveries: Any) -> Any:
        """Finish deliveries."""
        return self.call("POST", "/acknowledge", {"tokens": [each["token"] for each in deliveries]})

    def reject(self, *deliveries: Any, **how: Any) -> Any:
        """Give deliveries back."""
        return self.call("POST", "/reject", {"tokens": [each["token"] for each in deliveries], **how})

    def status(self) -> Any:
        """The status of the consumer."""
        return self.call("GET")

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def positions(deliveries: list[Any]) -> list[int]:
    """The positions of deliveries."""
    return [each["event"]["position"] for each in deliveries]
