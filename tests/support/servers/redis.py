"""A Redis server for the tests: on a free loopback port, in a new folder, removed afterwards.

Knows: where Debian puts the server's program. Does not know: eventfold.
"""

from __future__ import annotations

import atexit
import itertools
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.programs import find_program, needs_program
from tests.support.servers.postgres import _end_with_parent, _in_memory, free_port

TIMEOUT_S = 80.0  # for a server to start or to stop
PROGRAM = find_program("redis-server")
needed = needs_program("redis-server", "redis-server")
DATABASES = 4096


class RedisServer:
    """One server. `start()` and `stop()` may be repeated; a stop loses its data, unless its settings keep them."""

    def __init__(self, *settings: str) -> None:
        self.folder = tempfile.mkdtemp(prefix="eventfold-redis-", dir=_in_memory())
        self.port = free_port()
        self._settings = settings
        self._process: subprocess.Popen[Any] | None = None
        self._numbers = itertools.count()

    def start(self) -> RedisServer:
        """Start the server and wait until it answers."""
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder, "--save", "", "--databases"]
        with open(f"{self.folder}/log", "ab") as log:
            self._process = subprocess.Popen(
                [str(PROGRAM), *words, str(DATABASES), *self._settings],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                preexec_fn=_end_with_parent,
            )  # fmt: skip
        ends = time.monotonic() + TIMEOUT_S
        while time.monotonic() < ends:
            assert self._process.poll() is None, Path(f"{self.folder}/log").read_text(errors="replace")[-2000:]
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        raise RuntimeError("Redis did not become ready")

    def database(self) -> str:
        """Return the address of an unused database."""
        return f"redis://127.0.0.1:{self.port}/{next(self._numbers)}"

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Shut the server down in order, or kill it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal_number)
            self._process.wait(TIMEOUT_S)
        self._process = None

    def remove(self) -> None:
        """Stop the server and delete its files."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


_SHARED: list[RedisServer] = []


def shared() -> RedisServer:
    """Return this process's server: started at first use, removed when the process ends."""
    if not _SHARED:
        server = RedisServer().start()
        _SHARED.append(server)
        atexit.register(server.remove)
    return _SHARED[0]
