"""Live streams of the server: deliveries a second, the time from append to delivery, and memory by followers.

    python -m benchmarks.server_live [--followers 50] [--rate 1000] [--seconds 6] [--only deliveries|idle|catch-up]

`eventfold serve` runs in a process of its own. The followers are raw sockets in one client process, which counts events
and reads the time that the writer put into each; the writer appends single events to the same file from another
process. So a delivery is an event that a client has received. CPU seconds of the server are given beside: all these
processes share the machine.
Knows: the route /v1/follow. Does not know: goals of other groups.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import eventfold as ef

THREADS = 16
TIME = re.compile(rb'"at":(\d+)')
REQUEST = b"GET /v1/follow%b HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"


@contextmanager
def served(path: Path) -> Iterator[tuple[int, int]]:
    """A server of a store in a process: its port and its process id."""
    command = [sys.executable, "-m", "eventfold", "serve", str(path), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found is not None, line
        yield int(found[1]), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Follower(asyncio.Protocol):
    """One stream, counted; every eighth follower also reads the times in it."""

    def __init__(self, query: bytes, times: list[int] | None) -> None:
        self._query, self._times = query, times
        self.events = 0
        self.caught_up = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(REQUEST % self._query)

    def data_received(self, data: bytes) -> None:
        """Count the events; one that is cut in two by the socket is counted by its first line."""
        self.events += data.count(b"event: event\n")
        if not self.caught_up.done() and b"caught-up" in data:
            self.caught_up.set_result(None)
        if self._times is not None:
            now = time.time_ns()
            self._times.extend(now - int(found) for found in TIME.findall(data))


async def followers(port: int, count: int, query: bytes = b"", times: list[int] | None = None) -> list[Follower]:
    """Open so many streams and wait until all are caught up."""
    loop, found = asyncio.get_running_loop(), list[Follower]()
    for number in range(count):
        _, one = await loop.create_connection(
            lambda number=number: Follower(query, times if number % 8 == 0 else None), "127.0.0.1", port
        )
        found.append(one)
    async with asyncio.timeout(120):
        await asyncio.gather(*(one.caught_up for one in found))
    return found


def write(path: str, rate: int, seconds: float) -> None:
    """Append `rate` events a second, one by one, in threads: the program of the writer's process."""
    with ef.Store(path) as store:
        began = time.perf_counter()

        def work(first: int) -> None:
            for number in range(first, int(rate * seconds), THREADS):
                pause = began + number / rate - time.perf_counter()
                if pause > 0:
                    time.sleep(pause)
                data = b'{"at":%d,"pad":"%s"}' % (time.time_ns(), b"x" * 100)
                store.append_encoded(ef.NewEvent.of("Ticked", data, tags=["k:1"]))

        threads = [threading.Thread(target=work, args=(first,)) for first in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(int(rate * seconds), time.perf_counter() - began, flush=True)


async def deliveries(path: Path, port: int, pid: int, count: int, rate: int, seconds: float) -> None:
    """Appends at a rate, to so many followers of the same filter."""
    times: list[int] = []
    found = await followers(port, count, times=times)
    before = cpu_seconds(pid)
    command = [sys.executable, "-m", "benchmarks.server_live", "--write", str(path), str(rate), str(seconds)]
    writer = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    written, took = (await writer.communicate())[0].split()
    await asyncio.sleep(1)
    delivered = sum(one.events for one in found)
    cpu = cpu_seconds(pid) - before
    times.sort()
    at = [times[min(len(times) - 1, int(len(times) * share))] / 1e6 for share in (0.5, 0.99, 0.999)]
    appends, each = int(written) / float(took), delivered / float(took)
    print(f"{count} followers, {appends:,.0f} appends/s: {each:,.0f} deliveries/s of {appends * count:,.0f}")
    print(f"append to client: p50 {at[0]:.1f} ms, p99 {at[1]:.1f} ms, p99.9 {at[2]:.1f} ms")
    print(f"server: {cpu / float(took):.0%} of a core, {delivered / cpu:,.0f} deliveries per CPU second")
    for one in found:
        one.transport.abort()


async def idle(port: int, pid: int, counts: tuple[int, ...]) -> None:
    """Memory of the server with idle followers, of the same filter and of one filter each."""
    empty = resident_mib(pid)
    print(f"0 followers: {empty:.1f} MiB resident")
    for own in (False, True):
        found: list[Follower] = []
        for count in counts:
            while len(found) < count:
                query = b"?tags=user:%d" % len(found) if own else b""
                found += await followers(port, 1, query)
            used = resident_mib(pid)
            kind = "filters" if own else "followers of one filter"
            print(f"{count:,} {kind}: {used:.1f} MiB resident, {(used - empty) * 1024 / count:.1f} KiB each")
        for one in found:
            one.transport.abort()
        await asyncio.sleep(1)


async def catch_up(path: Path, port: int, pid: int, events: int, count: int) -> None:
    """So many followers that begin at the first event of a log at the same time."""
    with ef.Store(str(path)) as store:
        data = b'{"at":1,"pad":"%s"}' % (b"x" * 100)
        while store.head() < events:
            store.append_encoded(*(ef.NewEvent.of("Ticked", data, tags=["k:1"]) for _ in range(1_000)))
    before, began = cpu_seconds(pid), time.perf_counter()
    found = await followers(port, count, b"?from=0")
    took, cpu = time.perf_counter() - began, cpu_seconds(pid) - before
    read = sum(one.events for one in found)
    print(f"{count} followers from the first event: {read / took:,.0f} events/s, {read / cpu:,.0f} per CPU second")
    for one in found:
        one.transport.abort()


async def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--followers", type=int, default=50)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--only", choices=["deliveries", "idle", "catch-up"])
    parser.add_argument("--write", nargs=3)
    asked = parser.parse_args()
    if asked.write:
        write(asked.write[0], int(asked.write[1]), float(asked.write[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "live.db"
        ef.Store(str(path)).close()
        with served(path) as (port, pid):
            if asked.only in (None, "idle"):
                await idle(port, pid, (1_000, 2_000))
            if asked.only in (None, "deliveries"):
                await deliveries(path, port, pid, asked.followers, asked.rate, asked.seconds)
            if asked.only in (None, "catch-up"):
                await catch_up(path, port, pid, 50_000, 4)


if __name__ == "__main__":
    asyncio.run(main())
