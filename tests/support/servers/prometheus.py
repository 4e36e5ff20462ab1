"""Prometheus and Alertmanager for the tests: on free loopback ports, in folders of their own, and a receiver of alerts.

Knows: their programs and settings. Does not know: eventfold.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.programs import find_program, needs_program
from tests.support.servers.postgres import _end_with_parent, free_port

TIMEOUT_S = 80.0  # for a server to start or to stop
needs_prometheus = needs_program("prometheus", "prometheus")
needs_alertmanager = needs_program("prometheus-alertmanager", "prometheus-alertmanager")


class Receiver:
    """An HTTP server that takes the messages of Alertmanager's webhook. `alerts`: every alert that it was sent."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        received = self.alerts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.extend(json.loads(body)["alerts"])
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Write nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, name="alert-receiver", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(TIMEOUT_S)


class _Program:
    """A program with a folder of its own, which is ready when `path` answers."""

    def __init__(self, name: str, settings: dict[str, Any], path: str, *words: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"eventfold-{name}-"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (self.folder / "settings.yml").write_text(json.dumps(settings))  # JSON is YAML
        command = [
            str(find_program(name)),
            f"--config.file={self.folder / 'settings.yml'}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            *words,
        ]
        if name == "prometheus":
            command[2] = f"--storage.tsdb.path={self.folder / 'data'}"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent
            )
        self._wait_until_ready(path)

    def _wait_until_ready(self, path: str) -> None:
        ends = time.monotonic() + TIMEOUT_S
        while time.monotonic() < ends:
            assert self._process.poll() is None, self.log()
            try:
                with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise RuntimeError(f"it did not become ready: {self.log()}")

    def get(self, path: str) -> Any:
        """Return the JSON at a path."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def log(self) -> str:
        """Return the end of what it logged."""
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def close(self) -> None:
        """End the process, and delete its folder."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(TIMEOUT_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Alertmanager(_Program):
    """An Alertmanager that sends every alert at once to a receiver."""

    def __init__(self, receiver: Receiver) -> None:
        settings = {
            "route": {"receiver": "test", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"},
            "receivers": [{"name": "test", "webhook_configs": [{"url": receiver.url, "send_resolved": True}]}],
        }
        super().__init__("prometheus-alertmanager", settings, "/-/ready", "--cluster.listen-address=")

    def __enter__(self) -> Alertmanager:
        return self


class Prometheus(_Program):
    """A Prometheus that scrapes targets and evaluates a file of rules each second."""

    def __init__(self, scrape: dict[str, Any], rules: Path, alertmanager: Alertmanager) -> None:
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [scrape],
            "alerting": {
                "alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager.port}"]}]}],
            },
        }
        super().__init__("prometheus", settings, "/-/ready", "--rules.alert.resend-delay=1s")

    def __enter__(self) -> Prometheus:
        return self


def wait_for(condition: Callable[[], Any], what: str, timeout: float = TIMEOUT_S) -> Any:
    """Wait until a condition is true, and return its value."""
    ends = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < ends, f"{what} did not come"
        time.sleep(0.1)
    return found
