"""A PostgreSQL cluster as the how-to describes it: etcd on three machines, Patroni with PostgreSQL on two of them.

Each machine is a folder and free loopback ports. The files are taken from the page itself; only addresses, folders and
passwords differ, and where a test has little time, how soon a lost primary is replaced.

Knows: the page, the programs, Patroni's REST interface. Does not know: eventfold.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from tests.docs.pages import ROOT, blocks
from tests.support.programs import Missing, find_program
from tests.support.servers.postgres import (
    TIMEOUT_S,
    _children,
    _end_with_parent,
    _running,
    as_unprivileged,
    free_port,
    programs,
    unprivileged,
)

PAGE = ROOT / "docs" / "how-to" / "postgresql-standby.md"
NAMES = ("a", "b", "c")  # the third has a vote only
PASSWORDS = {"change-me-1": "not-a-secret-1", "change-me-2": "not-a-secret-2", "change-me-3": "not-a-secret-3"}
USER, PASSWORD, DATABASE = "shop", "not-a-secret", "shop"
# Of the page, and for a test that has half a minute: a lost primary is replaced after at most this time.
SOON = {"ttl: 20": "ttl: 7", "loop_wait: 5": "loop_wait: 1", "retry_timeout: 5": "retry_timeout: 3"}
_OWN = re.compile(r"(?m)^ *(?:listen|connect_address|name|ETCD_\w*URLS|ETCD_NAME)[:=].*$")


class Machine:
    """One machine of the cluster: its files, and the processes that run."""

    def __init__(self, cluster: PatroniCluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.number = NAMES.index(name) + 1
        self.folder = cluster.folder / name
        self.folder.mkdir()
        account = unprivileged()
        if account:
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        self.has_database = name != NAMES[-1]
        self._etcd: subprocess.Popen[Any] | None = None
        self._patroni: subprocess.Popen[Any] | None = None
        self._etcd_settings = dict(
            line.split("=", 1) for line in self._own(cluster.page["sh"]).splitlines() if line.startswith("ETCD_")
        ) | {"ETCD_DATA_DIR": str(self.folder / "etcd")}
        if self.has_database:
            (self.folder / "patroni.yml").write_text(self._own(cluster.page["yaml"]))

    def _own(self, text: str) -> str:
        """The page's file of the first machine as this machine's."""
        text = _OWN.sub(
            lambda line: re.sub(r"(name: |NAME=)a$", rf"\g<1>{self.name}", line[0]).replace(
                "192.0.2.1", f"192.0.2.{self.number}"
            ),
            text,
        )
        text = re.sub(r"192\.0\.2\.(\d):(\d+)", lambda m: f"127.0.0.1:{self.cluster.port(int(m[1]), int(m[2]))}", text)
        for word, meaning in {
            **PASSWORDS,
            **self.cluster.settings,
            "192.0.2.0/24": "127.0.0.0/8",
            "/usr/lib/postgresql/15/bin": str(programs()),
            "/var/lib/postgresql/15/shop": str(self.folder / "data"),
            "/var/lib/postgresql/15-shop.pgpass": str(self.folder / "pgpass"),
            "/run/postgresql": str(self.folder),
        }.items():
            text = text.replace(word, meaning)
        return text

    @property
    def port(self) -> int:
        """Where its PostgreSQL listens."""
        return self.cluster.port(self.number, 5432)

    @property
    def rest(self) -> str:
        """Where its Patroni answers."""
        return f"http://127.0.0.1:{self.cluster.port(self.number, 8008)}"

    def start(self) -> None:
        """Start what does not run. Does not wait."""
        if self._etcd is None:
            environment = {"PATH": os.environ.get("PATH", ""), **self._etcd_settings}
            self._etcd = self._run("etcd", environment, "--logger=zap", "--log-level=warn")
            if (self.folder / "etcd").exists():
                environment["ETCD_INITIAL_CLUSTER_STATE"] = "existing"
        if self._patroni is None and self.has_database:
            self._patroni = self._run("patroni", {}, str(self.folder / "patroni.yml"))

    def _run(self, program: str, environment: dict[str, str], *arguments: str) -> subprocess.Popen[Any]:
        found = find_program(program)
        if found is None:
            raise Missing(program, {"etcd": "etcd-server"}.get(program, program))
        options = as_unprivileged(self.folder)
        options["env"] = options.get("env", dict(os.environ)) | environment
        with (self.folder / f"{program}.log").open("ab") as log:
            return subprocess.Popen(
                [found, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
                preexec_fn=_end_with_parent, **options,
            )  # fmt: skip

    def server_pids(self) -> list[int]:
        """The processes of its PostgreSQL server; none if it does not run."""
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            pid = int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
            if _running(pid) and Path(f"/proc/{pid}/cmdline").read_bytes().find(str(self.folder).encode()) >= 0:
                return [pid, *_children(pid)]
        return []

    def kill(self) -> None:
        """Send kill -9 to everything that runs on this machine: what the loss of the machine does."""
        started = [process for process in (self._patroni, self._etcd) if process is not None]
        pids = [*self.server_pids(), *(process.pid for process in started)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in started:
            process.wait(TIMEOUT_S)
        wait_for(lambda: not any(map(_running, pids)), f"the processes of {self.name} to end")
        self._patroni = self._etcd = None

    def kill_server(self) -> None:
        """Send kill -9 to PostgreSQL only: a crash. Patroni decides what follows."""
        for pid in self.server_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def log(self) -> str:
        """The end of its logs."""
        return "\n".join(
            f"{path.name}:\n{path.read_text(errors='replace')[-3000:]}" for path in self.folder.glob("*.log")
        )


class PatroniCluster:
    """Three machines. `settings`: what is replaced in the page's files."""

    def __init__(self, within: str | None = None, settings: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="eventfold-ha-", dir=within))
        self.folder.chmod(0o755)
        self.settings = settings or {}
        self._ports: dict[tuple[int, int], int] = {}
        self.page: dict[str, str] = {}
        for block in blocks(PAGE):
            self.page.setdefault(block.language, "\n".join(block.lines) + "\n")
        self.machines = {name: Machine(self, name) for name in NAMES}

    def port(self, machine: int, port: int) -> int:
        """The loopback port that stands for this port of this machine."""
        if (machine, port) not in self._ports:
            self._ports[machine, port] = free_port()
        return self._ports[machine, port]

    def start(self) -> PatroniCluster:
        """Start all machines, and wait for a primary with a synchronous standby."""
        try:
            for machine in self.machines.values():
                machine.start()
            self.await_standby()
            self._create_database()
        except BaseException:
            self.remove()
            raise
        return self

    def _create_database(self) -> None:
        where = f"postgresql://postgres:not-a-secret-1@127.0.0.1:{self.primary().port}/postgres"
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'".encode())
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER {USER}".encode())

    def url(self, *, user: str = USER, password: str = PASSWORD, **options: str) -> str:
        """An address with both servers, that leads to the one that takes writes."""
        hosts = ",".join(f"127.0.0.1:{m.port}" for m in self.machines.values() if m.has_database)
        extra = "".join(f"&{key}={value}" for key, value in options.items())
        return f"postgresql://{user}:{password}@{hosts}/{DATABASE}?target_session_attrs=read-write{extra}"

    def members(self) -> list[dict[str, Any]]:
        """What Patroni knows of its members, by any machine that answers; none if no machine does."""
        for machine in self.machines.values():
            if machine.has_database:
                with (
                    contextlib.suppress(OSError, ValueError),
                    urllib.request.urlopen(f"{machine.rest}/cluster", timeout=2) as reply,
                ):
                    found: list[dict[str, Any]] = json.loads(reply.read())["members"]
                    return found
        return []

    def find(self, role: str) -> Machine | None:
        """The machine with a role (`leader`, `sync_standby`) whose server runs."""
        for member in self.members():
            if member["role"] == role and member["state"] in ("running", "streaming"):
                return self.machines[member["name"]]
        return None

    def primary(self) -> Machine:
        """The machine of the primary."""
        found = self.find("leader")
        assert found is not None, "there is no primary"
        return found

    def await_standby(self) -> None:
        """Wait for a primary with a synchronous standby that Patroni would promote."""
        wait_for(lambda: self.find("leader") and self.find("sync_standby"), "a synchronous standby", self.log)

    def switch_over(self) -> None:
        """Make the standby the primary as an operator does (`patronictl switchover`); returns when that is done."""
        leader = self.primary()
        body = json.dumps({"leader": leader.name}).encode()
        request = urllib.request.Request(f"{leader.rest}/switchover", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            assert reply.status == 200, reply.read()

    def log(self) -> str:
        """The end of all logs."""
        return "\n".join(f"--- {machine.name}\n{machine.log()}" for machine in self.machines.values())

    def remove(self) -> None:
        """End everything and delete the files."""
        for machine in self.machines.values():
            machine.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_for(true: Callable[[], object], what: str, log: Callable[[], str] | None = None) -> None:
    """Wait until something is true. Raises AssertionError after a time."""
    ends = time.monotonic() + TIMEOUT_S
    while not true():
        assert time.monotonic() < ends, f"waited in vain for {what}\n{log() if log else ''}"
        time.sleep(0.05)
