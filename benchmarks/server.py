"""The group "server": `eventfold serve` over a SQLite file, with clients in processes of their own, on loopback.

Knows: which clients work at once, the bounds. Does not know: how a client speaks HTTP (http_clients.py does).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import http_clients as clients
from benchmarks.measure import Cell, Figure, Missing, Sample, interleave, percentile, rate
from benchmarks.peers import Umadb
from benchmarks.stage import Stage
from benchmarks.subject import Eventfold

GROUP = "server"
SINGLE = "one writer of the file"
CONNECTIONS = (1, 32, 128)
CONDITIONAL = "128, conditional"
GAIN, SHARE = 3.0, 0.8  # of a single writer's commits; of unconditional appends
READ, DELIVERIES, DELAY_MS, MEMORY_MB, HEALTH_MS = 150_000, 50_000, 50.0, 120.0, 50.0
FOLLOWERS, IDLE, PACE = 50, 1_000, 1_000


class Served:
    """`eventfold serve` over a file, on a free port."""

    def __init__(self, path: str) -> None:
        command = [sys.executable, "-m", "eventfold", "serve", path, "--accept-unknown", "--port", "0", "--json"]
        environment = {"EVENTFOLD_LOGS__REQUESTS": "false"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | environment
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Missing("the server did not start")
        self.url: str = json.loads(line)["url"]

    def memory(self) -> float:
        """Return the resident memory in MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        return int(found[1]) / 1_000 if found else 0.0

    def close(self) -> None:
        """End it in order."""
        self.process.terminate()
        self.process.wait(60)


def run(stage: Stage, announce: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figures of this group."""
    processes = 1 if stage.settings.quick else 2
    with ExitStack() as opened:
        served = Served(str(stage.copy(Eventfold) / "eventfold.db"))
        opened.callback(served.close)
        announce("appends over HTTP")
        yield from _appends(stage, served, processes, opened)
        if stage.wanted("wrk"):
            yield from _by_wrk(stage, served)
        announce("reads over HTTP")
        yield _reads(stage, served, opened)
        announce("followers over HTTP")
        yield from _follows(stage, served, opened)


def _clients(opened: ExitStack, function: Callable[..., None], *arguments: Any, processes: int = 1) -> list[Any]:
    started = clients.start(function, *arguments, processes=processes)
    opened.callback(clients.end, started)
    return started


def _appends(stage: Stage, served: Served, processes: int, opened: ExitStack) -> Iterator[Figure]:
    settings = stage.settings
    single = stage.open(Eventfold).caller()
    cells: dict[str, Cell] = {SINGLE: lambda: rate(single, settings.seconds)}

    def add(name: str, function: Callable[..., None], *arguments: Any, count: int) -> None:
        started = _clients(opened, function, *arguments, processes=count)
        cells[name] = lambda: clients.turn(started, settings.seconds)

    for count in CONNECTIONS:
        share = min(processes, count)
        add(f"{count}", clients.appender, served.url, settings.stored, count // share, False, count=share)
    many = 128 // processes
    add(CONDITIONAL, clients.appender, served.url, settings.stored, many, True, count=processes)
    try:
        peer = stage.open(Umadb)
        for count in CONNECTIONS:
            share = min(processes, count)
            name = f"{Umadb.name} {count}"
            add(name, clients.umadb_appender, peer.url, settings.stored, count // share, count=share)
    except Missing:
        pass
    found = interleave(cells, settings.rounds)
    for count in CONNECTIONS:
        others: dict[str, Sample | str] = {SINGLE: found[SINGLE]}
        if f"{Umadb.name} {count}" in found:
            others[Umadb.name] = found[f"{Umadb.name} {count}"]
        figure = Figure(GROUP, f"{count} connections, one event a request", "events/s", found[f"{count}"], others)
        if count == CONNECTIONS[-1]:
            gain, ahead = figure.against(SINGLE), figure.against(Umadb.name)
            text = f"≥ {GAIN:g} × {SINGLE}, ahead of {Umadb.name}"
            figure.aim(text, gain >= GAIN and not ahead < 1)
        yield figure
    figure = Figure(
        GROUP, "128 connections, each under a condition", "events/s", found[CONDITIONAL], {"128": found["128"]}
    )
    yield figure.aim(f"≥ {SHARE:g} of unconditional", figure.against("128") >= SHARE)


def _by_wrk(stage: Stage, served: Served) -> Iterator[Figure]:
    """The same by wrk, whose requests are all equal but for their ids: the server gives each event a new one."""
    program = shutil.which("wrk")
    if program is None:
        stage.missing["wrk"] = "wrk is not installed"
        return
    script = stage.folder / "append.lua"
    event = clients.scan_json(clients.Traffic(stage.settings.stored, clients.DRAWN).one()).decode()
    script.write_text(
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        f'wrk.body = [[{{"events":[{event}]}}]]\n',
        "utf-8",
    )
    values = list[float]()
    for _ in range(min(3, stage.settings.rounds)):
        seconds = max(1, round(stage.settings.seconds * 5))
        command = [program, "-t1", "-c128", f"-d{seconds}s", "-s", str(script), f"{served.url}/v1/events"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"Requests/sec:\s+([\d.]+)", text)
        assert found is not None, text
        values.append(float(found[1]))
    yield Figure(GROUP, "128 connections of wrk, one event a request", "events/s", Sample(tuple(values)), key="wrk")


def _reads(stage: Stage, served: Served, opened: ExitStack) -> Figure:
    started = _clients(opened, clients.reader, served.url)
    found = interleave({"read": lambda: clients.turn(started, stage.settings.append)}, min(5, stage.settings.rounds))
    figure = Figure(GROUP, "the whole log as NDJSON, one connection", "events/s", found["read"])
    return figure.aim(f"> {READ:,}", found["read"].median > READ)


def _follows(stage: Stage, served: Served, opened: ExitStack) -> Iterator[Figure]:
    settings, rounds = stage.settings, min(3, stage.settings.rounds)
    seconds = settings.append * 2
    followers = _clients(opened, clients.followers, served.url, FOLLOWERS, 5)
    paced = _clients(opened, clients.paced_appender, served.url, settings.stored, PACE)
    rates, delays = list[float](), list[float]()
    for _ in range(rounds):
        for child in (*followers, *paced):
            child.send(seconds)
        paced[0].answer()
        delivered, timed = followers[0].answer()
        rates.append(delivered)
        delays += timed
    figure = Figure(
        GROUP,
        f"from a request to {FOLLOWERS} followers, {PACE:,} appends/s",
        "ms at p99",
        Sample((percentile(delays, 0.99),)),
        better="lower",
    )
    figure.key = "delay"
    figure.details["deliveries"] = statistics.median(rates)
    yield figure.aim(f"< {DELAY_MS:g} ms", percentile(delays, 0.99) < DELAY_MS)
    hard = _clients(opened, clients.appender, served.url, settings.stored, 32, False)
    rates = []
    for _ in range(rounds):
        for child in (*followers, *hard):
            child.send(seconds)
        hard[0].answer()
        rates.append(followers[0].answer()[0])
    figure = Figure(GROUP, f"deliveries to {FOLLOWERS} followers beside 32 appenders", "events/s", Sample(tuple(rates)))
    yield figure.aim(f"> {DELIVERIES:,}", statistics.median(rates) > DELIVERIES)
    asking = _clients(opened, clients.health, served.url)
    crowd = _clients(opened, clients.appender, served.url, settings.stored, 128, False)
    waits = list[float]()
    for _ in range(rounds):
        for child in (*asking, *crowd):
            child.send(seconds)
        crowd[0].answer()
        waits += asking[0].answer()[1]
    figure = Figure(
        GROUP,
        "health under 128 appenders and 50 followers",
        "ms at p99",
        Sample((percentile(waits, 0.99),)),
        better="lower",
    )
    figure.details = {"p50": percentile(waits, 0.5)}
    yield figure.aim(f"< {HEALTH_MS:g} ms", percentile(waits, 0.99) < HEALTH_MS)
    idle = Served(str(stage.copy(Eventfold) / "eventfold.db"))
    opened.callback(idle.close)
    empty = idle.memory()
    count = IDLE if not settings.quick else 50
    _clients(opened, clients.followers, idle.url, count, 0)
    figure = Figure(
        GROUP, f"memory with {count:,} followers", "MB", Sample((idle.memory(),)), better="lower", key="memory"
    )
    figure.details = {"without": empty}
    yield figure.aim(f"< {MEMORY_MB:g} MB", idle.memory() < MEMORY_MB)


def _at_p99(name: str, milliseconds: list[float]) -> Figure:
    at = percentile(milliseconds, 0.99)
    details = {"p50": percentile(milliseconds, 0.5)}
    return Figure(GROUP, name, "ms at p99", Sample((at,)), better="lower", details=details)
