"""A MariaDB server for the tests: a new data directory on a free loopback port, removed afterwards.

Knows: where Debian puts the server's programs. Does not know: eventfold.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.support.programs import find_program, needs_program
from tests.support.servers.postgres import _end_with_parent, _in_memory, as_unprivileged, free_port, unprivileged

TIMEOUT_S = 60.0  # for a server to start or to stop
SECRET = "not-a-secret"
PROGRAMS = tuple(map(find_program, ("mariadbd", "mariadb-install-db")))
needed = needs_program("mariadbd", "mariadb-server", lambda: None not in PROGRAMS)


class MariaServer:
    """One server. `start()` and `stop()` may be repeated."""

    def __init__(self, within: str | None = None, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="eventfold-my-", dir=within))
        self.port = free_port()
        self.settings = settings
        self._process: subprocess.Popen[Any] | None = None
        account = unprivileged()
        if account:
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        made = subprocess.run(
            [str(PROGRAMS[1]), "--no-defaults", f"--datadir={self.folder}/data", "--skip-test-db",
             "--auth-root-authentication-method=normal"],
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **as_unprivileged(self.folder),
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr

    def start(self) -> MariaServer:
        """Start the server and wait until it answers."""
        settings = {
            "datadir": f"{self.folder}/data",
            "port": str(self.port),
            "bind-address": "127.0.0.1",
            "socket": f"{self.folder}/socket",
            "pid-file": f"{self.folder}/pid",
            "innodb-buffer-pool-size": "32M",
            "innodb-log-file-size": "16M",
            **self.settings,
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(PROGRAMS[0]), "--no-defaults", *(f"--{key}={value}" for key, value in settings.items())],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                preexec_fn=lambda: _end_with_parent(signal.SIGTERM),  # it ignores SIGINT
                **as_unprivileged(self.folder),
            )  # fmt: skip
        ends = time.monotonic() + TIMEOUT_S
        while time.monotonic() < ends:
            assert self._process.poll() is None, (self.folder / "log").read_text(errors="replace")[-2000:]
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        raise RuntimeError("MariaDB did not become ready")

    def database(self) -> str:
        """Create an empty database. Returns its address as a target."""
        name = f"d{uuid4().hex[:12]}"
        self.ask(
            f"CREATE DATABASE {name} CHARACTER SET latin1"
        )  # rows must be stored exactly, whatever the database's character set
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{name}"

    def ask(self, sql: str) -> None:
        """Run a statement as root."""
        import pymysql

        with pymysql.connect(host="127.0.0.1", port=self.port, user="root", autocommit=True) as connection:
            connection.cursor().execute(sql)

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


_SHARED: list[MariaServer] = []


def shared() -> MariaServer:
    """Return this process's server: started at first use, removed when the process ends."""
    if not _SHARED:
        server = MariaServer(within=_in_memory()).start()
        _SHARED.append(server)
        atexit.register(server.remove)
    return _SHARED[0]


def remove_shared() -> None:
    """End this process's server, if there is one: for processes that end without their exit handlers."""
    while _SHARED:
        _SHARED.pop().remove()
