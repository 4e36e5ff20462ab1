"""The demonstration of a cluster: a node of three is killed while a year of flights is loaded, and nothing is lost.

`run` starts three NATS servers on this machine, loads the flights into a store of theirs, and kills the leader of its
stream with kill -9 when half of them are loaded. Then it starts the node again, reads the whole log back as a new host
does, and compares it with every acknowledgement. Knows: the steps, what must hold. Does not know: how a log is
replicated (the servers do it).
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

import eventfold as ef
from eventfold.cluster.servers import LocalNodes
from eventfold.concurrency.run import run as run_coroutine
from eventfold.demo.cluster.proof import Proof, compare
from eventfold.demo.cluster.writing import Written, write_all
from eventfold.engines import open_engine
from eventfold.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from eventfold.demo.flights.source import Files, Source

STORE = "flights"
NODES = 3
CAUGHT_UP_S = 120.0  # for the node that was killed
ASK_EACH_S = 0.2
TIMEOUT_S = 60  # of an append: an election takes some seconds
Tell = Callable[[str], None]


class Survived(msgspec.Struct, kw_only=True):
    """What happened. Seconds on the clock; `pause`: the longest time without an acknowledgement, after the kill."""

    flights: int
    killed: str
    killed_at: int  # the last position acknowledged before the kill
    led_by: str  # afterwards
    written: Written
    proof: Proof
    copies: dict[str, int]  # by node: how many events it stores at the end
    seconds: dict[str, float]

    @property
    def holds(self) -> bool:
        """Whether every acknowledged event is there once, none besides, on every node, and a node was killed."""
        everything = self.written.events
        return (
            self.proof.holds
            and self.proof.events == everything
            and bool(self.killed)
            and len(self.copies) == NODES
            and set(self.copies.values()) == {everything}
        )


def run(folder: str | None = None, limit: int | None = None, as_json: bool = False) -> int:
    """Run the demonstration. `limit`: only so many flights. Returns 0 if nothing was lost, 1 if something was.

    `folder`: where servers and indexes keep their files; by default one that is removed. Raises MissingExtra,
    InvalidInput if the folder has files.
    """
    begun = time.monotonic()

    def show(text: str) -> None:
        line = f"{time.monotonic() - begun:6.1f} s  {text}"
        width = shutil.get_terminal_size((80, 24)).columns
        sys.stdout.write(textwrap.fill(line, width, subsequent_indent=" " * 10) + "\n")
        sys.stdout.flush()

    def show_nothing(_text: str) -> None:
        """Print nothing: there will be one JSON object."""

    if folder is not None and Path(folder).exists() and any(Path(folder).iterdir()):
        raise InvalidInput(f"{folder} has files.", "Give the name of a new folder, or leave out --folder.")
    tell: Tell = show_nothing if as_json else show
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)  # or the servers would go on
    with tempfile.TemporaryDirectory(prefix="eventfold-cluster-") as temporary:
        result = survive(Path(folder or temporary), limit, tell)
    result.seconds["total"] = round(time.monotonic() - begun, 1)
    if as_json:
        sys.stdout.write(msgspec.json.encode({**msgspec.structs.asdict(result), "holds": result.holds}).decode() + "\n")
    else:
        _report(result, tell)
    return 0 if result.holds else 1


def _stop(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def survive(folder: Path, limit: int | None, tell: Tell) -> Survived:
    """Load the flights into a cluster, kill a node in the middle, and compare what is there with what was written."""
    source_of, unpack = _import_source()
    seconds = dict[str, float]()
    servers = LocalNodes(folder / "nodes", NODES, port=0)
    with tempfile.TemporaryDirectory(prefix="eventfold-flights-") as unpacked:
        files = unpack(Path(unpacked))
        servers.start()
        try:
            url = f"{servers.address}/{STORE}"
            tell(f"Three NATS servers run as processes {', '.join(map(str, servers.pids().values()))}.")
            _create(url)
            (folder / "hosts").mkdir(parents=True, exist_ok=True)
            began = time.monotonic()
            with (
                ef.Store(url, index=str(folder / "hosts" / "first.db"), timeout=TIMEOUT_S) as store,
                closing(source_of(files, limit)) as source,
            ):
                flights, rows = source.flights(), source.row_count()
                killing = _Killing(servers, store, rows // 2, tell)
                tell(f"{flights:,} flights make {rows:,} events, in appends of 1,000, each on the disks of two nodes.")
                written = write_all(store, source, killing.after)
                led_by = str(store.stats()["leader"])
            seconds["load"] = round(time.monotonic() - began, 1)
            rate = written.events / seconds["load"]
            tell(f"All {written.events:,} events are acknowledged: {rate:,.0f} a second, with the pause.")
            killing.start_again()
            copies = _copies(servers, written.events)
            began = time.monotonic()
            tell("Another host, without an index, reads the whole log from the cluster.")
            other = str(folder / "hosts" / "second.db")
            with ef.Store(url, index=other, copies="none", timeout=TIMEOUT_S) as store:
                proof = compare(store, written.receipts)
            seconds["proof"] = round(time.monotonic() - began, 1)
        finally:
            servers.stop()
    return Survived(
        flights=flights, killed=killing.node, killed_at=killing.position, led_by=led_by, written=written, proof=proof,
        copies=copies, seconds=seconds,
    )  # fmt: skip


class _Killing:
    """Kills the leader of the store's stream once half of the events are acknowledged."""

    def __init__(self, servers: LocalNodes, store: ef.Store, half: int, tell: Tell) -> None:
        self.node, self.position = "", 0
        self._servers, self._store, self._half, self._tell = servers, store, half, tell

    def after(self, position: int) -> bool:
        """Called with the last acknowledged position. Returns whether a node was killed now."""
        if self.node or position < self._half:
            return False
        self.node, self.position = str(self._store.stats()["leader"]), position
        pid = self._servers.kill(self.node)
        self._tell(f"kill -9 {pid}: {self.node} led the stream, at {position:,} events. The loading goes on.")
        return True

    def start_again(self) -> None:
        """Start the node that was killed."""
        self._servers.start_again(self.node)
        self._tell(f"{self.node} runs again, and catches up.")


def _import_source() -> tuple[type[Source], Callable[[Path], Files]]:
    """The flights. Raises MissingExtra."""
    try:
        from eventfold.demo.flights.source import Source, unpack
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"The demonstration needs {error.name}, which is not installed.",
            "Run: pip install 'eventfold[demo,jetstream]'.",
            extra="demo",
        ) from None
    return Source, unpack


def _create(url: str) -> None:
    engine = open_engine(url, "sync", True, {})
    creation = engine.services.creation
    assert creation is not None
    run_coroutine(creation())


def _copies(servers: LocalNodes, wanted: int) -> dict[str, int]:
    """How many events of the store each node has, when all have caught up, or the time is over."""
    ends = time.monotonic() + CAUGHT_UP_S
    found: dict[str, int] = {}
    while time.monotonic() < ends:
        found = servers.messages(f"EF_{STORE}")
        if len(found) == NODES and set(found.values()) == {wanted}:
            break
        time.sleep(ASK_EACH_S)
    return found


def _report(result: Survived, tell: Tell) -> None:
    proof, written = result.proof, result.written
    stored = ", ".join(f"{name} {count:,}" for name, count in sorted(result.copies.items()))
    tell(f"{written.appends:,} acknowledged appends were compared, event by event, with {proof.events:,} events.")
    tell(f"Missing: {proof.missing}; changed: {proof.changed}; not acknowledged: {proof.unknown}; stored: {stored}.")
    tell(
        f"After the kill no append was acknowledged for {written.pause:.1f} s, until the servers had elected "
        f"{result.led_by}; {written.repeated} were repeated with the same ids."
    )
    if result.holds:
        tell("Nothing was lost, and nothing is there twice.")
    else:
        tell("FAILED: the log is not what was acknowledged.")


__all__ = ["Survived", "run", "survive"]
