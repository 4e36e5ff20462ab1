"""PgBouncer in transaction mode in front of a PostgreSQL server of the tests, where the program is installed.

Knows: its settings. Does not know: eventfold.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from tests.support.programs import Missing, find_program
from tests.support.servers.postgres import (
    PASSWORD,
    SUPERUSER,
    TIMEOUT_S,
    PostgresServer,
    as_unprivileged,
    free_port,
    unprivileged,
)

PROGRAM = find_program("pgbouncer")


@contextlib.contextmanager
def before(server: PostgresServer, servers: int = 3) -> Generator[int]:
    """Yield the port of a PgBouncer in transaction mode with so many server connections."""
    if PROGRAM is None:
        raise Missing("pgbouncer", "pgbouncer")
    port, account = free_port(), unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="eventfold-bouncer-"))
    (folder / "users").write_text(f'"{SUPERUSER}" "{PASSWORD}"\n')
    (folder / "ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = plain\nauth_file = {folder}/users\npool_mode = transaction\n"
        f"default_pool_size = {servers}\nunix_socket_dir =\nlogfile = {folder}/log\npidfile = {folder}/pid\n"
        "server_round_robin = 1\n"
    )
    for path in (folder, *folder.iterdir()):
        if account:
            os.chown(path, account.pw_uid, account.pw_gid)
    process = subprocess.Popen(
        [PROGRAM, folder / "ini"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_unprivileged(folder)
    )
    try:
        _wait_for(port, process, folder)
        yield port
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"PgBouncer did not start: {(folder / 'log').read_text()}")
