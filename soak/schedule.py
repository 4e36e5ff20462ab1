"""Rounds spread over processes, limited in time, resumable: each result is written when its round ends.

Knows: forked workers, deadlines, one file of JSON lines. Does not know: what a round does.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soak import machine
from soak.facts import configure
from soak.rounds import Family, Round
from tests.support.servers import mariadb, postgres

Line = dict[str, Any]
TICK = 0.01  # seconds between two checks of the workers


@dataclass
class Settings:
    """The options of a run."""

    seed: int
    scale: float
    jobs: int
    minutes: float
    results: Path
    kept: Path
    server: str


@dataclass
class _Worker:
    family: Family
    index: int
    pid: int
    folder: Path
    began: float


def seed_of(settings: Settings, family: Family, index: int) -> str:
    """Return the seed of one round."""
    return f"{settings.seed}:{family.name}:{index}"


class Schedule:
    """Starts rounds of the families in turn until each has its number of faults, or the time is over."""

    def __init__(self, families: Sequence[Family], settings: Settings) -> None:
        self._families, self._settings = families, settings
        self._ends = time.monotonic() + settings.minutes * 60
        self._workers: list[_Worker] = []
        self.lines: list[Line] = self._known()
        self._next = {family.name: 0 for family in families}

    def _known(self) -> list[Line]:
        """Read the results of an earlier run with the same seed."""
        if not self._settings.results.exists():
            return []
        text = self._settings.results.read_text().splitlines()
        found = [json.loads(line) for line in text if line.endswith("}")]
        return [line for line in found if line["seed"].partition(":")[0] == str(self._settings.seed)]

    def run(self, only: int | None = None) -> None:
        """Run everything; with `only`, repeat one round of each family."""
        if only is not None:
            for family in self._families:
                self._start(family, only)
            while self._workers:
                self._reap()
            return
        for family in self._families:
            self._run_family(family)
        while self._workers:
            self._reap()

    def _run_family(self, family: Family) -> None:
        wanted = max(1, round(family.total * self._settings.scale))
        rounds = 0
        while time.monotonic() < self._ends:
            done = [line for line in self.lines if line["family"] == family.name]
            have = sum(line["counts"].get(family.unit, 0) for line in done)
            each = have / len(done) if done else 1.0
            working = [worker for worker in self._workers if worker.family is family]
            if have + len(working) * max(each, 1.0) >= wanted or rounds > wanted * 3:
                if have >= wanted or not working or len(self._workers) < self._settings.jobs:
                    return  # running workers are waited for together with the next family
            elif len(self._workers) < self._settings.jobs:
                index = self._free_index(family, done)
                self._start(family, index)
                rounds += 1
                continue
            self._reap()

    def _free_index(self, family: Family, done: list[Line]) -> int:
        taken = {line["index"] for line in done} | {w.index for w in self._workers if w.family is family}
        while self._next[family.name] in taken:
            self._next[family.name] += 1
        return self._next[family.name]

    def _start(self, family: Family, index: int) -> None:
        folder = machine.scratch() / f"{family.name}-{index}-{os.getpid()}"
        folder.mkdir(parents=True)
        pid = os.fork()
        if pid == 0:
            _work(family, index, folder, self._settings)
        self._workers.append(_Worker(family, index, pid, folder, time.monotonic()))

    def _reap(self) -> None:
        time.sleep(TICK)
        for worker in list(self._workers):
            found, _ = os.waitpid(worker.pid, os.WNOHANG)
            late = time.monotonic() - worker.began > worker.family.longest
            if not found and not late:
                continue
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if not found:
                    os.killpg(worker.pid, signal.SIGUSR1)  # each process writes its stack
                    time.sleep(0.5)
                os.killpg(worker.pid, signal.SIGKILL)
            if not found:
                os.waitpid(worker.pid, 0)
            self._workers.remove(worker)
            self._record(worker, late=late and not found)

    def _record(self, worker: _Worker, *, late: bool) -> None:
        result = worker.folder / "result.json"
        try:
            line: Line = json.loads(result.read_text())
        except (OSError, ValueError):
            line = {"counts": {}, "violations": ["the round ended without a result"]}
        if late:
            line["violations"] = [f"the round hung: it was ended after {worker.family.longest:g} s"]
        seconds = round(time.monotonic() - worker.began, 2)
        seed = seed_of(self._settings, worker.family, worker.index)
        line |= {"family": worker.family.name, "index": worker.index, "seed": seed, "seconds": seconds}
        if line["violations"]:
            line["kept"] = str(self._keep(worker))
        shutil.rmtree(worker.folder, ignore_errors=True)
        self.lines.append(line)
        self._settings.results.parent.mkdir(parents=True, exist_ok=True)
        with self._settings.results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if line["violations"]:
            print(f"{worker.family.name} {worker.index}: {line['violations'][0][:300]}", flush=True)

    def _keep(self, worker: _Worker) -> Path:
        kept = self._settings.kept / f"{worker.family.name}-{worker.index}"
        shutil.rmtree(kept, ignore_errors=True)
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(worker.folder, kept, symlinks=True, ignore_dangling_symlinks=True)
        return kept


def _work(family: Family, index: int, folder: Path, settings: Settings) -> None:
    """Run a round in a process group, and where permitted a mount namespace, of its own."""
    code = 1
    try:
        os.setsid()
        errors = os.open(folder / "worker.stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(errors, 2)
        faulthandler.enable(errors)
        faulthandler.register(signal.SIGUSR1, file=errors)
        machine.end_with_parent()
        if family.root:
            machine.own_mounts()
        configure(folder)
        turn = Round(family.name, index, seed_of(settings, family, index), folder, settings.server)
        try:
            family.run(turn)
        except Exception as error:  # noqa: BLE001 - a round that fails to run is a result as well
            traceback.print_exc()
            turn.findings.add(f"the round failed: {type(error).__name__}: {error}")
        (folder / "result.json").write_text(json.dumps({"counts": turn.counts, "violations": turn.findings.problems}))
        code = 0
    finally:
        sys.stderr.flush()
        try:
            for module in (postgres, mariadb):
                module.remove_shared()
        finally:
            os._exit(code)


def totals(lines: Sequence[Line]) -> dict[str, Counter[str]]:
    """Return the counts of each family: its faults, rounds, violations and seconds."""
    found: dict[str, Counter[str]] = {}
    for line in lines:
        count = found.setdefault(line["family"], Counter())
        count.update(line["counts"])
        count["rounds"] += 1
        count["violations"] += bool(line["violations"])
        count["milliseconds"] += int(line["seconds"] * 1000)
    return found
