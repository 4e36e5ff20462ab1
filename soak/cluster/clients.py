"""The clients of a round on a cluster: writers in both modes, followers, a runner of a read model; each in its process.

A client works until the file `stop` is there, and then ends what it has begun. Knows: the public calls of a store. Does
not know: faults, and which answers are right.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import eventfold as ef
from eventfold.errors import EventfoldError, StoreDamaged
from soak import children
from soak.cluster.facts import PerGroup
from soak.cluster.network import Host
from soak.cluster.record import Recorder, count_acknowledged
from soak.cluster.stores import AsyncLog, SyncLog
from soak.cluster.workload import work

LONGEST_S = 400.0  # a client that was forgotten ends by itself
LAST_CALLS_S = 60.0  # for clients to end when they are asked to
PAUSE_S = 0.2


@dataclass(frozen=True)
class Place:
    """Where clients work: the store, the folder of their records, and the index file of each host."""

    url: str
    folder: Path
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def on(self, host: str) -> dict[str, Any]:
        """Return the options of a process on a host: processes of one host share its index."""
        return self.options | {"index": str(self.folder / f"index-{host}.db")}

    @property
    def stop(self) -> Path:
        """The file that ends the clients."""
        return self.folder / "stop"

    def is_over(self) -> Callable[[], bool]:
        """Return the condition on which a client ends."""
        ends = time.monotonic() + LONGEST_S
        return lambda: self.stop.exists() or time.monotonic() > ends


@contextlib.asynccontextmanager
async def opened(place: Place, host: str) -> AsyncGenerator[ef.AsyncStore]:
    """Yield the store, opened with retries while it is unreachable, as a supervisor restarts a program."""
    over = place.is_over()
    while True:
        try:
            store = await ef.AsyncStore(place.url, **place.on(host)).open()
            break
        except StoreDamaged:  # of an index or a node: nothing is damaged in these rounds
            raise
        except EventfoldError:
            if over():
                raise
            await asyncio.sleep(PAUSE_S)
    async with store:
        yield store


def write_async(place: Place, name: str, seed: str, host: str = "h1", tasks: int = 3, pace: float = 0.0) -> None:
    """Append in tasks of one event loop."""

    async def main() -> None:
        recorder, over = Recorder(place.folder, name), place.is_over()
        async with opened(place, host) as store:
            log = AsyncLog(store)
            await asyncio.gather(
                *(work(log, recorder, f"{name}-{task}", f"{seed}/{task}", over, pace) for task in range(tasks))
            )

    asyncio.run(main())


def write(place: Place, name: str, seed: str, host: str = "h1", threads: int = 2, pace: float = 0.0) -> None:
    """Append with a Store, from threads."""

    async def main(store: ef.Store) -> None:
        recorder, over, log = Recorder(place.folder, name), place.is_over(), SyncLog(store)
        await asyncio.gather(
            *(work(log, recorder, f"{name}-{thread}", f"{seed}/{thread}", over, pace) for thread in range(threads))
        )

    over = place.is_over()
    while True:
        try:
            store = ef.Store(place.url, **place.on(host))
            break
        except StoreDamaged:
            raise
        except EventfoldError:
            if over():
                raise
            time.sleep(PAUSE_S)
    with store:
        asyncio.run(main(store))


def follow(place: Place, name: str, host: str = "h1") -> None:
    """Follow from the beginning, and after an error from the last cursor. Every page is recorded."""
    recorder, over = Recorder(place.folder, name), place.is_over()
    cursor: Any = 0
    while not over():
        try:
            with ef.Store(place.url, **place.on(host)) as store, store.follow(after=cursor) as follower:
                fresh = True
                for page in follower.pages(timeout=PAUSE_S):
                    if page:
                        recorder.seen(name, page, fresh=fresh)
                        fresh, cursor = False, follower.cursor
                    if over():
                        return
        except StoreDamaged as error:
            recorder.foreign(error)
            return
        except EventfoldError:
            time.sleep(PAUSE_S)
        except Exception as error:  # noqa: BLE001 - an error of another library is a violation
            recorder.foreign(error)
            return


def project(place: Place, host: str = "h1") -> None:
    """Run the read model, in a database beside the index."""
    recorder, over = Recorder(place.folder, "runner"), place.is_over()
    while not over():
        try:
            with ef.Store(place.url, **place.on(host)) as store, store.run(PerGroup) as running:
                while not over():
                    running.wait(PAUSE_S)
        except StoreDamaged as error:
            recorder.foreign(error)
            return
        except EventfoldError:
            time.sleep(PAUSE_S)
        except Exception as error:  # noqa: BLE001
            recorder.foreign(error)
            return


@dataclass
class Crowd:
    """The clients of a round."""

    place: Place
    pids: list[int] = field(default_factory=list[int])

    def add(self, function: Callable[..., object], *arguments: Any, within: Host | None = None, name: str) -> int:
        """Start a client, on a host of the network if one is given."""

        def run() -> None:
            if within is not None:
                within.enter()
            function(self.place, *arguments)

        self.pids.append(children.fork(self.place.folder, run, name=name))
        return self.pids[-1]

    def kill(self, pid: int) -> None:
        """Kill one client."""
        self.pids.remove(pid)
        children.kill([pid])

    def acknowledged(self) -> int:
        """Return how many appends were acknowledged so far."""
        return count_acknowledged(self.place.folder)

    def await_progress(self, appends: int, seconds: float) -> bool:
        """Wait until so many more appends were acknowledged. Returns whether they were, within the time."""
        wanted, ends = self.acknowledged() + appends, time.monotonic() + seconds
        while self.acknowledged() < wanted:
            if time.monotonic() > ends:
                return False
            time.sleep(0.03)
        return True

    def end(self) -> int:
        """Let all clients end. Returns how many failed, or had to be killed."""
        self.place.stop.touch()
        failed = children.wait(self.pids, LAST_CALLS_S)
        self.pids.clear()
        return len(failed)
