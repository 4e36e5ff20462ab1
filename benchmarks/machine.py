"""The machine that a run was made on: processor, memory, disk, versions, and what else it did meanwhile.

Knows: /proc, versions of packages and programs, git. Does not know: figures.
Facts that a system does not give are "unknown".
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
import statistics
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
UNKNOWN = "unknown"
PACKAGES = ("eventfold", "apsw", "msgspec", "eventsourcing", "umadb", "psycopg")


def machine(folder: Path) -> dict[str, Any]:
    """Return the facts about the machine, and about the disk that `folder` is on."""
    kind, device = _mounted(folder)
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": _memory_gib(),
        "kernel": f"{platform.system()} {platform.release()}",
        "disk": f"{kind} on {_device(device)}",
        "fdatasync_us": round(fdatasync_us(folder), 1),
        "load": load(),
    }


def versions() -> dict[str, str]:
    """Return the versions of everything that takes part."""
    found = {"python": platform.python_version()}
    found |= {name: _package(name) for name in PACKAGES}
    found["sqlite"] = _apsw_sqlite()
    found["sqlite of the standard library"] = sqlite3.sqlite_version
    found["postgresql"] = _program("postgres", "--version")
    return found


def short_name(facts: dict[str, Any]) -> str:
    """Return a name for the machine that can be part of a file's name."""
    words = re.sub(r"\([^)]*\)|@.*|\d+-core|\b(?:cpu|processor)\b", " ", facts["processor"], flags=re.IGNORECASE)
    name = "-".join(re.findall(r"[a-z0-9]+", words.lower())) or "machine"
    return f"{name}-{facts['cores']}-cores"


def commit() -> tuple[str, bool]:
    """Return the commit of the checkout, and whether files differ from it, those of earlier runs excepted."""
    head = _git("rev-parse", "HEAD")
    if not head:
        return UNKNOWN, False
    return head[:12], bool(_git("status", "--porcelain", "--", ".", ":!benchmarks/results"))


def load() -> float:
    """Return the load average of the last minute; -1 where there is none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else -1.0


def fdatasync_us(folder: Path, times: int = 50) -> float:
    """Return the µs of the fdatasync after a write of 4 KiB (fsync where there is no fdatasync), the median."""
    sync = getattr(os, "fdatasync", os.fsync)
    path = folder / "fdatasync.probe"
    waits: list[float] = []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(bytes(4096))
            start = time.perf_counter()
            sync(file.fileno())
            waits.append((time.perf_counter() - start) * 1e6)
    path.unlink()
    return statistics.median(waits)


class Disturbance:
    """What else the machine did while something was measured: begins when it is made."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._load = folder, load()
        self._sync = fdatasync_us(folder)
        self._began = time.perf_counter()
        self._busy, self._stolen, self._own = _busy_seconds(), _stolen_seconds(), _own_seconds()

    def end(self) -> dict[str, Any]:
        """Return seconds, own CPU seconds, load averages, cores that others used or the host took, and fdatasync in µs.

        `others` are all processes that are not this one or its children: a server of PostgreSQL, the kernel's threads.
        """
        seconds = time.perf_counter() - self._began
        own = _own_seconds() - self._own
        others = _busy_seconds() - self._busy - own
        return {
            "seconds": round(seconds, 1),
            "cpu": round(own, 1),
            "load": [self._load, load()],
            "others": round(max(0.0, others) / seconds, 2),
            "stolen": round((_stolen_seconds() - self._stolen) / seconds, 2),
            "fdatasync_us": [round(self._sync, 1), round(fdatasync_us(self._folder), 1)],
        }


def _stat() -> list[float]:
    """Return the seconds of all cores: user, nice, system, idle, iowait, irq, softirq, steal."""
    try:
        line = Path("/proc/stat").read_text("ascii").splitlines()[0]
    except OSError:
        return [0.0] * 8
    return [int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in line.split()[1:9]]


def _busy_seconds() -> float:
    user, nice, system, _, _, irq, soft, _ = _stat()
    return user + nice + system + irq + soft


def _stolen_seconds() -> float:
    return _stat()[7]


def _own_seconds() -> float:
    return sum(os.times()[:4])


def _git(*arguments: str) -> str:
    program = shutil.which("git")
    if not program:
        return ""
    done = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _package(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _program(name: str, argument: str) -> str:
    program = shutil.which(name) or max(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default="")
    if not program:
        return "not installed"
    done = subprocess.run([program, argument], capture_output=True, text=True, timeout=30, check=False)
    return next(iter(re.findall(r"\d+(?:\.\d+)+", done.stdout)), UNKNOWN)


def _apsw_sqlite() -> str:
    try:
        import apsw
    except ImportError:
        return "not installed"
    return apsw.sqlite_lib_version()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory_gib() -> int:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    except (ValueError, OSError):
        return 0


def _mounted(folder: Path) -> tuple[str, str]:
    """Return the kind of file system that a folder is on, and its device: of the longest mount point above it."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return UNKNOWN, UNKNOWN
    place = str(folder.resolve())
    holding = [m for m in mounts if place == m[1] or place.startswith(m[1].rstrip("/") + "/")]
    if not holding:
        return UNKNOWN, UNKNOWN
    found = max(holding, key=lambda m: len(m[1]))
    return found[2], found[0]


def _device(device: str) -> str:
    """Return the name of a block device and its driver or model, as far as the system gives them."""
    name = Path(device).name
    about = Path("/sys/block") / name
    if not about.exists():
        return device if device.startswith("/dev/") else "memory" if device == "tmpfs" else name
    words = [name]
    for fact in ("device/model", "device/vendor"):
        path = about / fact
        if path.exists() and not path.read_text("utf-8").startswith("0x"):
            words.append(path.read_text("utf-8").strip())
            break
    driver = about / "device" / "driver"
    if driver.exists():
        words.append(driver.resolve().name)
    return " ".join(words)
