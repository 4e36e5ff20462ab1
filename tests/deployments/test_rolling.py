"""The program of the page on availability is replaced by a newer version, process by process, under load.

Knows: the page, processes. Does not know: how a store drains.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from tests.docs.pages import ROOT, blocks
from tests.support.servers import nats, postgres
from tests.support.stores import new_stream, remove_stream

PAGE = ROOT / "docs" / "explanation" / "availability.md"
PROCESSES = 4
TIMEOUT_S = 60.0
CATCH_UP = """
import json
with ef.Store(sys.argv[1], target=os.environ.get("ROWS")) as store:
    store.project(Balance)
    assert all(proof.proved for proof in store.projections.verify(Balance))
    log = [(each.position, each.event.account, each.event.currency) for each in store.read()]
    print(json.dumps([log, store.head(), {row.account: row.cents for row in store.rows(Balance)}]))
"""


def programs(folder: Path) -> tuple[Path, Path]:
    """Write the page's program, and a version of it whose event has one more field."""
    (old,) = ("\n".join(block.lines) for block in blocks(PAGE) if block.language == "python")
    new = old.replace(
        "    cents: int\n\n\nclass Balance", '    cents: int\n    currency: str = "EUR"\n\n\nclass Balance'
    ).replace("Deposited(account, int(cents))", 'Deposited(account, int(cents), "CHF")')
    assert new != old
    (folder / "old.py").write_text(old)
    (folder / "new.py").write_text(new)
    return folder / "old.py", folder / "new.py"


class Process:
    """One process of the application. One request at a time is sent to it."""

    def __init__(self, program: Path, url: str) -> None:
        environment = os.environ | {"RUN": "1", "PYTHONPATH": str(ROOT / "src")}
        self._process = subprocess.Popen(
            [sys.executable, str(program), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self.mutex = threading.Lock()

    def ask(self, request: str) -> int | None:
        """Send a request and return the position in the answer; None if the process ends without an answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.stdin.closed:
            return None
        try:
            self._process.stdin.write(f"{request}\n".encode())
            self._process.stdin.flush()
        except OSError:
            return None
        answer = self._process.stdout.readline().split()  # empty at the end of the process
        return int(answer[1]) if answer else None

    def end(self, *, kill: bool = False) -> int:
        """Send SIGTERM, or kill -9, and return the exit code."""
        self._process.kill() if kill else self._process.terminate()
        code = self._process.wait(TIMEOUT_S)
        with self.mutex:
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # a request that the process did not take
                    if pipe is not None:
                        pipe.close()
        return code


class Balancer:
    """Sends requests from several threads to the processes there are. What is not answered is sent to another."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.answered: dict[str, tuple[int, str]] = {}  # position and account of each event, by the key of the request
        self.repeated = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,), daemon=True) for n in range(2 * PROCESSES)]

    def start(self) -> None:
        """Start the load."""
        for thread in self._threads:
            thread.start()

    def _send(self, number: int) -> None:
        for turn in itertools.count():
            if self._stop.is_set():
                return
            key, account = str(uuid4()), f"a-{number}"
            while key not in self.answered:
                process = self.processes[(number + turn) % len(self.processes)]
                turn += 1
                with process.mutex:
                    position = process.ask(f"{key} {account} 1")
                if position is None:
                    self.repeated += 1
                else:
                    self.answered[key] = position, account

    def await_answers(self, more: int = 40) -> None:
        """Wait until so many more requests were answered."""
        have, ends = len(self.answered), time.monotonic() + TIMEOUT_S
        while len(self.answered) < have + more:
            assert time.monotonic() < ends, "requests are not answered any more"
            time.sleep(0.01)

    def replace(self, index: int, program: Path, url: str, *, kill: bool = False) -> int:
        """Start a process of another version, send new requests to it, and end the old one. Returns its exit code."""
        old = self.processes[index]
        self.processes[index] = Process(program, url)
        code = old.end(kill=kill)
        self.await_answers()
        return code

    def stop(self) -> None:
        """End the load."""
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        assert not any(thread.is_alive() for thread in self._threads)


@pytest.fixture(params=["sqlite", "postgres", pytest.param("nats", marks=nats.needed)])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty store. In the environment: where its rows are, if it cannot have them itself."""
    if request.param == "nats":
        monkeypatch.setenv("ROWS", f"sqlite:{tmp_path / 'rows.db'}")
    if request.param == "sqlite":
        yield str(tmp_path / "store.db")
    elif request.param == "postgres":
        yield postgres.shared().url(schema=f"deployed_{uuid4().hex[:12]}")
    else:
        made = new_stream(nats.shared())
        yield f"{made}{'&' if '?' in made else '?'}index={tmp_path / 'index.db'}"
        remove_stream(made)


@pytest.mark.timeout(240)
def test_an_application_is_replaced_process_by_process_without_a_refused_append(url: str, tmp_path: Path) -> None:
    """Three processes drain, the last is killed: each request is answered once it is sent again, and written once."""
    old, new = programs(tmp_path)
    ef.Store(url).close()
    balancer = Balancer()
    balancer.processes = [Process(old, url) for _ in range(PROCESSES)]
    try:
        balancer.start()
        balancer.await_answers()
        codes = [balancer.replace(index, new, url) for index in range(PROCESSES - 1)]
        balancer.replace(PROCESSES - 1, new, url, kill=True)
        balancer.stop()
        codes += [process.end() for process in balancer.processes]
    finally:
        for process in balancer.processes:
            process.end(kill=True)
    assert codes == [0] * (2 * PROCESSES - 1)
    log, head, rows = _read(new, url)
    assert len(log) == head == len(balancer.answered), "an append is missing, or was written twice"
    assert [(position, account) for position, account, _ in log] == sorted(balancer.answered.values())
    assert {currency for *_, currency in log} == {"EUR", "CHF"}, "both versions have written"
    assert rows == Counter(account for _, account, _ in log)


def _read(new: Path, url: str) -> tuple[list[tuple[int, str, str]], int, dict[str, int]]:
    """Let the read model of the newer version catch up where the processes left it, and prove it.

    Returns the log as (position, account, currency), its head, and the balances.
    """
    check = new.with_name("check.py")
    check.write_text(f"{new.read_text()}\n{CATCH_UP}")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(check), url]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60).stdout)
