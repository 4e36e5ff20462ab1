"""An HTTP server for the tests, on a free loopback port: an application in a thread, or a store in a process.

Knows: uvicorn, eventfold's application. Does not know: routes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from tests.support.servers.postgres import _end_with_parent

TIMEOUT_S = 80.0  # for a server to start or to stop
ROOT = Path(__file__).parents[3]


def bound_socket() -> socket.socket:
    """A socket that is bound to a free port of the loopback interface; the server listens on it."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", 0))
    return found


def configured(app: Any, **options: Any) -> uvicorn.Server:
    """A server of an application as production runs it: uvloop and httptools, no access log."""
    settings: dict[str, Any] = {"log_level": "error", "access_log": False, "lifespan": "on", "http": "httptools"}
    merged: dict[str, Any] = {**settings, "timeout_graceful_shutdown": 10, **options}
    return uvicorn.Server(uvicorn.Config(app, **merged))


@contextmanager
def serving(app: Any, **options: Any) -> Generator[str]:
    """Run an ASGI application in a thread; yields its address, like http://127.0.0.1:41234. `options`: of uvicorn."""
    with bound_socket() as listener:
        port = listener.getsockname()[1]
        server = configured(app, **options)
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]), name="http-server", daemon=True)
        thread.start()
        try:
            ends = time.monotonic() + TIMEOUT_S
            while not server.started:
                assert thread.is_alive(), "the server ended before it began to listen"
                assert time.monotonic() < ends, "the server did not begin to listen"
                time.sleep(0.005)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(TIMEOUT_S)
            assert not thread.is_alive(), "the server did not end"


class ServerProcess:
    """A store served by a process of its own, which can be killed and started again on the same port."""

    def __init__(self, url: str) -> None:
        self.store = url
        with bound_socket() as free:
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> ServerProcess:
        """Start the server and wait until it accepts connections."""
        paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.servers.http", self.store, str(self.port)],
            cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True, preexec_fn=_end_with_parent,
        )  # fmt: skip
        ends = time.monotonic() + TIMEOUT_S
        while time.monotonic() < ends:
            if self._process.poll() is not None:
                _, text = self._process.communicate()
                raise RuntimeError(f"the server ended: {text.decode(errors='replace')[-2000:]}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        raise RuntimeError("the server did not accept connections")

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Shut the server down in order, or kill it."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal_number)
            self._process.communicate(timeout=TIMEOUT_S)
        self._process = None

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop(signal.SIGKILL)


def main(url: str, port: int) -> None:
    """Serve one store until a signal ends this process."""
    import eventfold as ef
    from eventfold.server import Settings, application
    from eventfold.server.settings import EventSettings

    ef.Store(url).close()  # it may not exist yet
    settings = Settings(events=EventSettings(accept_unknown=True))
    configured(application(url, settings=settings), host="127.0.0.1", port=port).run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
