"""The page about clusters: its commands are typed in order, with three nodes on loopback in place of three machines."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import pytest

from tests.cli.commands import run
from tests.docs.pages import ROOT, blocks
from tests.support.servers.nats import PROGRAM, _ports, needed
from tests.support.servers.postgres import _end_with_parent

PAGE = ROOT / "docs" / "how-to" / "cluster.md"
HOSTS = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
NOT_TYPED = ("pip", "eventfold dev", "export", "ssh")  # done otherwise here, or by other tests
LATER = ("127.0.0.1:4222", "$OLD", "--tls-certificate")  # these lines need other servers, which other tests have

pytestmark = needed


def shown() -> list[str]:
    """All command lines of the page, in order."""
    text = "\n".join("\n".join(block.lines) for block in blocks(PAGE) if block.language == "console")
    return [line.removeprefix("$ ") for line in text.replace("\\\n", " ").splitlines() if line.startswith("$ ")]


def exports() -> list[str]:
    """The variables that the page sets."""
    return [line.removeprefix("export ") for line in shown() if line.startswith("export ")]


def typed() -> list[str]:
    """The command lines that are typed here, in order."""
    return [line for line in shown() if not line.startswith(NOT_TYPED) and not any(each in line for each in LATER)]


class Machines:
    """Three folders in place of three machines. `ports` by host; a server is started as its user would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {host: _ports() for host in HOSTS}
        self._servers: list[subprocess.Popen[Any]] = []
        self.passwords: dict[str, str] = {}

    def localise(self, line: str) -> str:
        """Replace addresses and folders of the machines by those of this test."""
        for host, ports in self.ports.items():
            line = line.replace(f"={host}", f"=127.0.0.1:{ports.clients}:{ports.routes}:{ports.monitoring}")
            line = line.replace(f"{host}:/etc/nats/", str(self.machine(host)))
            line = line.replace(host, f"127.0.0.1:{ports.clients}")
        return line.replace("/var/lib/nats", str(self.folder / "streams"))

    def machine(self, host: str) -> Path:
        """The folder in place of a machine."""
        return self.folder / f"machine{HOSTS.index(host) + 1}"

    def start(self) -> None:
        """Start a server on each machine, with the file that was copied there."""
        for number, host in enumerate(HOSTS, start=1):
            with (self.machine(host) / "log").open("wb") as log:
                self._servers.append(
                    subprocess.Popen(
                        [str(PROGRAM), "-c", f"n{number}.conf"], cwd=self.machine(host), stdout=log, stderr=log,
                        stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent,
                    )
                )  # fmt: skip

    def stop(self) -> None:
        """End the servers."""
        for server in self._servers:
            server.kill()
            server.wait(30)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """Three empty machines."""
    made = Machines(tmp_path)
    for host in HOSTS:
        made.machine(host).mkdir()
    yield made
    made.stop()


def test_a_newcomer_gets_from_three_empty_machines_to_a_running_store(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command ends with 0, and the event that was appended is read."""
    monkeypatch.chdir(machines.folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(machines.folder / "cache"))
    known: dict[str, str] = {}  # variables of the shell
    started, read = False, list[Any]()
    for line in typed():
        words = shlex.split(Template(machines.localise(line)).safe_substitute(known))
        if words[0] == "nats-server":
            if not started:
                machines.start()
            started = True
            continue
        if words[0] == "scp":
            for source in words[1:-1]:
                shutil.copy(source, words[-1])
            continue
        assert words[0] == "eventfold", line
        ran = run(*words[1:], EVENTFOLD_URL=known.get("EVENTFOLD_URL"))
        assert ran.code == 0, f"{line}\n{ran.out}{ran.err}"
        if words[1:3] == ["cluster", "accounts"] and not known:
            passwords = ran.lines[0]["passwords"]
            known |= {"OPERATOR": passwords["operator"], "APPLICATION": passwords["application"]}
        if words[1] == "init":
            exported = next(each for each in exports() if each.startswith("EVENTFOLD_URL="))
            known["EVENTFOLD_URL"] = Template(machines.localise(exported.partition("=")[2])).substitute(known)
        if words[1] == "read":
            read = ran.lines
    assert started
    assert [event["data"] for event in read] == [{"amount": 80}]
