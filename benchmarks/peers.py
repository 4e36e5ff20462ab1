"""The peers, each used as its own documentation says: `eventsourcing` and the `umadb` server.

Knows: their public APIs. Does not know: eventfold, rounds, tables. A peer that is not installed, or does not
start, raises `measure.Missing` with a sentence to show in its place.

What is compared: `eventsourcing` as an application with typed events (its aggregates) on SQLite, and as a bare recorder
that receives ready bytes; where SQLite lacks a feature (append conditions, subscriptions) its in-memory recorder. It
maintains one index, (originator, version), and no tags, ids or times of recording, so it does less work. `umadb` is a
server of its own (Rust), with its default fsync, and its Python client.
"""

from __future__ import annotations

import importlib
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec

from benchmarks.measure import Missing
from benchmarks.traffic import MOMENT, NEW, TYPE, Scan, Traffic, scans

INSTALL = "not installed (pip install eventsourcing umadb)"


def package(name: str) -> Any:
    """Return a peer's module. Raises Missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"{INSTALL}; {error}") from error


class Eventsourcing:
    """An `eventsourcing` application on SQLite: aggregates in, aggregates out."""

    name = "eventsourcing"

    def __init__(self, folder: Path | None, stored: int, env: dict[str, str] | None = None) -> None:
        package("eventsourcing")
        package((env or {}).get("PERSISTENCE_MODULE", "eventsourcing.sqlite"))  # its driver may be missing
        from benchmarks import parcels  # defines the aggregate, so it needs the package

        self.parcels = parcels
        env = {"IS_SNAPSHOTTING_ENABLED": "n", **(env or {})}
        if folder is not None:
            env |= {
                "PERSISTENCE_MODULE": "eventsourcing.sqlite",
                "SQLITE_DBNAME": str(folder / "eventsourcing.db"),
                "SQLITE_LOCK_TIMEOUT": "60",
            }
        self.app = parcels.application(env)
        self.traffic = Traffic(stored)

    @staticmethod
    def seed(folder: Path, stored: int) -> None:
        """Write the stored events to a new file."""
        contender = Eventsourcing(folder, stored)
        contender.fill(stored)
        contender.close()

    def fill(self, stored: int) -> None:
        """Write the stored events: each parcel's are spread over the log, as with all contenders."""
        known: dict[str, Any] = {}
        for block in _blocks(stored):
            touched: dict[str, Any] = {}
            for each in block:
                touched[each.parcel] = known[each.parcel] = self.scanned(known.get(each.parcel), each)
            self.app.save(*touched.values())

    def scanned(self, parcel: Any, each: Scan) -> Any:
        """Return an aggregate with one more event to save."""
        if parcel is None:
            return self.parcels.Parcel(each.parcel, each.depot, each.weight, MOMENT, each.note)
        parcel.scan(each.depot, each.weight, MOMENT, each.note)
        return parcel

    def caller(self, events: int = 1) -> Callable[[], Any]:
        """Return a caller: each call saves `events` new events, to a parcel that is new once in ten events.

        The aggregates are in memory, none is loaded first.
        """
        one, save, scanned = self.traffic.one, self.app.save, self.scanned
        parcel: Any = None
        age = 0

        def call() -> None:
            nonlocal parcel, age
            for _ in range(events):
                if age % max(NEW, events) == 0:
                    parcel = None
                parcel = scanned(parcel, one())
                age += 1
            save(parcel)

        return call

    def recorder_caller(self, events: int = 1) -> Callable[[], Any]:
        """Return a caller of the bare recorder: ready bytes in, no domain objects."""
        stored_event = package("eventsourcing.persistence").StoredEvent
        insert = self.app.recorder.insert_events
        payload = payload_of(self.traffic.one())
        topic = "benchmarks.parcels:Parcel.Scanned"
        originator = uuid4()
        version = 0

        def call() -> None:
            nonlocal originator, version
            if version >= max(NEW, events):
                originator, version = uuid4(), 0
            insert([stored_event(originator, version + n, topic, payload) for n in range(1, events + 1)])
            version += events

        return call

    def entity(self, events: int) -> UUID:
        """Write a parcel with so many events. Returns its id."""
        parcel: Any = None
        for _ in range(events):
            parcel = self.scanned(parcel, self.traffic.one())
        self.app.save(parcel)
        return parcel.id

    def load(self, identity: UUID) -> Any:
        """Return the folded aggregate."""
        return self.app.repository.get(identity)

    def command(self, identity: UUID) -> Callable[[], Any]:
        """Return a command on an aggregate: load, decide, save."""

        def call() -> None:
            parcel: Any = self.app.repository.get(identity)
            parcel.scan("d-001", parcel.weight + 1, MOMENT, "")
            self.app.save(parcel)

        return call

    def everything(self) -> Iterator[Any]:
        """Yield the whole log as domain events, a page of 1,000 at a time."""
        start = 1
        while True:
            page = self.app.recorder.select_notifications(start, 1000)
            for notification in page:
                yield self.app.mapper.to_domain_event(notification)
            if len(page) < 1000:
                return
            start = page[-1].id + 1

    def subscription(self, after: int | None) -> Any:
        """Return typed events from a position on, as they come; only the memory and PostgreSQL recorders support it."""
        return package("eventsourcing.projection").ApplicationSubscription(self.app, gt=after)

    def close(self) -> None:
        """Close the application."""
        self.app.close()


class EventsourcingMemory:
    """The only `eventsourcing` store, except PostgreSQL's, with append conditions: in memory, not durable."""

    name = "eventsourcing memory"

    def __init__(self, folder: Path | None, stored: int) -> None:
        package("eventsourcing")
        self.api = package("eventsourcing.dcb.api")
        self.recorder = package("eventsourcing.dcb.popo").InMemoryDCBRecorder()
        for block in _blocks(stored):
            self.recorder.append([self._event(each) for each in block])
        self.traffic = Traffic(stored)
        self.numbers = itertools.count()

    def _event(self, each: Scan, parcel: str | None = None) -> Any:
        return self.api.DCBEvent(TYPE, payload_of(each), [f"parcel:{parcel or each.parcel}", f"depot:{each.depot}"])

    def conditional(self) -> Callable[[], Any]:
        """Return a caller that owns a parcel and appends unless another caller has written to it since."""
        api, recorder, parcel = self.api, self.recorder, f"own-{next(self.numbers)}"
        query = api.DCBQuery([api.DCBQueryItem([TYPE], [f"parcel:{parcel}"])])
        after: int | None = None

        def call() -> None:
            nonlocal after
            condition = api.DCBAppendCondition(query, after)
            after = recorder.append([self._event(self.traffic.one(), parcel)], condition)

        return call

    def close(self) -> None:
        """Drop everything."""
        self.recorder.events.clear()


class Umadb:
    """The `umadb` server on a loopback port of its own, and one client, which its callers share.

    (One client for all was never slower than a client each, with 8, 32 and 512 callers.)
    """

    name = "umadb"

    def __init__(self, folder: Path, stored: int) -> None:
        self.umadb = package("umadb")
        self.process, self.url = start_server(folder / "umadb.db")
        try:
            self.client = connect(self.umadb, self.url, self.process)
        except BaseException:
            self.close()
            raise
        self.traffic = Traffic(stored)
        self.numbers = itertools.count()

    @staticmethod
    def seed(folder: Path, stored: int) -> None:
        """Write the stored events."""
        contender = Umadb(folder, stored)
        try:
            for block in _blocks(stored):
                contender.client.append([contender._event(each) for each in block])
        finally:
            contender.close()

    def _event(self, each: Scan, parcel: str | None = None) -> Any:
        return self.umadb.Event(
            TYPE, payload_of(each), [f"parcel:{parcel or each.parcel}", f"depot:{each.depot}"], uuid4()
        )

    def caller(self, events: int = 1) -> Callable[[], Any]:
        """Return a caller: each call appends `events` new events, encoded in the call."""
        append, event, traffic = self.client.append, self._event, self.traffic
        if events == 1:
            return lambda: append([event(traffic.one())])
        return lambda: append([event(each) for each in traffic.some(events)])

    def conditional(self) -> Callable[[], Any]:
        """Return a caller that owns a parcel and appends unless another caller has written to it since."""
        umadb, append, parcel = self.umadb, self.client.append, f"own-{next(self.numbers)}"
        query = umadb.Query([umadb.QueryItem([TYPE], [f"parcel:{parcel}"])])
        after: int | None = None

        def call() -> None:
            nonlocal after
            after = append([self._event(self.traffic.one(), parcel)], umadb.AppendCondition(query, after))

        return call

    def entity(self, events: int) -> Any:
        """Write a parcel with so many events. Returns its query."""
        parcel = f"long-{next(self.numbers)}"
        for block in range(0, events, 500):
            self.client.append([self._event(self.traffic.one(), parcel) for _ in range(min(500, events - block))])
        return self.umadb.Query([self.umadb.QueryItem([TYPE], [f"parcel:{parcel}"])])

    def load(self, query: Any) -> Any:
        """Decode a parcel's events into typed objects and fold them by hand: umadb has no fold."""
        weight = count = 0
        for each in self.client.read(query):
            weight = DECODE(each.event.data).weight
            count += 1
        return weight, count

    def everything(self) -> Iterator[Any]:
        """Yield the whole log as typed objects."""
        for each in self.client.read():
            yield DECODE(each.event.data)

    def subscription(self, after: int | None) -> Any:
        """Return events from a position on, as they come."""
        return self.client.subscribe(after=after)

    def close(self) -> None:
        """Stop the server, by its process."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


class Payload(msgspec.Struct, frozen=True):
    """The event as umadb's users would store it: a struct of their own."""

    parcel: str
    depot: str
    weight: int
    scanned: Any
    note: str


_ENCODE = msgspec.json.Encoder().encode
DECODE = msgspec.json.Decoder(Payload).decode


def payload_of(each: Scan) -> bytes:
    """Return the 200 bytes of an event."""
    return _ENCODE(Payload(each.parcel, each.depot, each.weight, MOMENT, each.note))


def start_server(database: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start the umadb server of the package, on a free loopback port."""
    program = Path(sys.executable).with_name("umadb")
    if not program.exists():
        raise Missing("its server is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [str(program), "--listen", address, "--db-path", str(database)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("UMADB_")}
    try:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean)
    except OSError as error:
        raise Missing(f"its server does not start ({error})") from error
    return process, f"http://{address}"


def connect(umadb: Any, url: str, process: subprocess.Popen[bytes], patience: float = 10.0) -> Any:
    """Return a client, once the server answers."""
    end = time.monotonic() + patience
    while True:
        try:
            client = umadb.Client(url)
            client.head()
            return client
        except (RuntimeError, OSError) as error:  # umadb.TransportError is a RuntimeError
            if process.poll() is not None or time.monotonic() > end:
                raise Missing(f"its server does not answer ({error})") from error
            time.sleep(0.05)


def _blocks(stored: int, size: int = 500) -> Iterator[tuple[Scan, ...]]:
    everything = scans(0, stored)
    return (everything[start : start + size] for start in range(0, stored, size))
