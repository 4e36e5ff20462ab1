"""`eventfold serve` in a process of its own, and raw connections to it.

Knows: the command's first line of output, sockets. Does not know: routes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.cli.commands import COMMAND, environment

PATIENCE = 90.0  # seconds that anything may take on a loaded machine


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Served:
    """A running `eventfold serve`; its log is in the file `server.log` of the folder."""

    def __init__(self, folder: Path, *words: str, port: int = 0, **variables: str) -> None:
        self.folder, self.log_file = folder, folder / "server.log"
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "serve", "--json", "--port", str(port), *words],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(variables),
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log()
        self.announced: dict[str, Any] = json.loads(line)
        self.url: str = self.announced["url"]
        self.port = int(self.url.rpartition(":")[2]) if self.url.startswith("http") else 0

    def log(self) -> str:
        """What it has logged."""
        return self.log_file.read_text("utf-8")

    def connect(self, timeout: float = PATIENCE) -> socket.socket:
        """A new connection."""
        if self.url.startswith("unix:"):
            found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            found.settimeout(timeout)
            found.connect(os.path.relpath(self.folder / self.url.removeprefix("unix:")))
            return found
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def ask(self, head: str, body: bytes = b"") -> Answer:
        """The response to a request on a new connection; `head` begins with the method and may have more lines."""
        first, *more = head.split("\n")
        lines = [f"{first} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *more]
        if body:
            lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
        with self.connect() as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            return read_answer(connection)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)

    def memory_kib(self) -> int:
        """The resident memory of the process."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("the process has ended")

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.wait(timeout=PATIENCE)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server ends the connection, or resets it."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while more := connection.recv(65536):
            found += more
    return found


def read_answer(connection: socket.socket) -> Answer:
    """The only response on a connection that the server then ends."""
    return parse_answer(read_all(connection))


def parse_answer(raw: bytes) -> Answer:
    """A response from its bytes."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin1").split("\r\n")
    assert status.startswith("HTTP/1.1 "), raw[:200]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join(_chunks(body))
    return Answer(int(status.split()[1]), headers, body)


def _chunks(body: bytes) -> list[bytes]:
    found = list[bytes]()
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        found.append(rest[:length])
        body = rest[length + 2 :]
        if not length:
            break
    return found


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition is true."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, f"it did not happen: {what}"
        time.sleep(0.01)
