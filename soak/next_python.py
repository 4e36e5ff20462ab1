"""The quick part of the test suite under the Python of the next Debian release, in a root made by debootstrap.

Knows: debootstrap, chroot, pip. Does not know: what the tests test.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from soak import machine
from soak.rounds import Round
from tests.support.programs import find_program

RELEASE, VERSION = "trixie", "3.13"
PACKAGES = "python3,python3-venv"
EXTRAS = "postgres,sqlalchemy,duckdb,redis,cli,testing"  # the flights of `demo` have no wheel to download
ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / RELEASE  # not removed: a second run only installs and tests
MADE = "made"  # a file beside the new root, written when it is complete
PROJECT = ("src", "tests", "soak", "docs", "examples", "scripts", "benchmarks")
IGNORED = shutil.ignore_patterns("__pycache__", "*.db")
QUICK = ("tests/core", "tests/log", "tests/model", "tests/snapshots", "tests/testing", "tests/engines/sqlite")


class Failed(Exception):
    """A step failed: its command, and the end of its output."""


def suite(turn: Round) -> None:
    """Make the root if it does not exist, install the project and its development tools, run the tests."""
    turn.count("suites")  # counted also where a step fails: it would fail again
    root, wheels = PLACE / "root", PLACE / "wheels"
    try:
        _make_root(root)
        _download(wheels)
        _mount(root)
        _install(root, wheels)
        version = _within(root, "/venv/bin/python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
        if version != VERSION:
            raise Failed(f"{RELEASE} has Python {version}, not {VERSION}")
        printed = _within(root, "/venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *QUICK)
    except Failed as failed:
        turn.findings.add(str(failed))
        return
    (PLACE / "pytest.log").write_text(printed, "utf-8")
    for number, outcome in re.findall(r"(\d+) (passed|skipped|failed|error)", printed.splitlines()[-1]):
        turn.count(outcome, int(number))
    if not turn.counts["passed"]:
        turn.findings.add("pytest ran no test")


def _make_root(root: Path) -> None:
    done = root.with_name(MADE)
    if done.exists():
        return
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    debootstrap = find_program("debootstrap") or "debootstrap"
    _run([debootstrap, "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(root)])
    done.touch()


def _download(wheels: Path) -> None:
    """Download packages for the other Python with this one's pip, which knows the configured index."""
    shutil.rmtree(wheels, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    _run([*pip, "wheel", "--no-deps", "-w", str(wheels), str(ROOT)])
    (wheel,) = wheels.glob("*.whl")
    others = ["--python-version", VERSION, "--only-binary=:all:", "-c", "constraints.txt", "-d", str(wheels)]
    _run([*pip, "download", *others, "--group", "dev", f"{wheel}[{EXTRAS}]", "pip"])


def _mount(root: Path) -> None:
    """Mount only for the processes of this round: the mounts end with it."""
    machine.command("mount", "-t", "proc", "proc", str(root / "proc"))
    machine.command("mount", "-t", "tmpfs", "none", str(root / "dev/shm"))


def _install(root: Path, wheels: Path) -> None:
    for path in (root / "project", root / "wheels", root / "venv"):
        shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(wheels, root / "wheels")
    for name in PROJECT:
        shutil.copytree(ROOT / name, root / "project" / name, ignore=IGNORED)
    for path in (path for path in ROOT.iterdir() if path.is_file()):
        shutil.copy2(path, root / "project" / path.name)
    (wheel,) = wheels.glob("eventfold-*.whl")
    _within(root, "python3", "-m", "venv", "/venv")
    pip = ["/venv/bin/python", "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    offline = ["--no-index", "-f", "/wheels"]  # only the downloaded wheels
    _within(root, *pip, *offline, "--upgrade", "pip")
    _within(root, *pip, *offline, "--group", "dev", f"/wheels/{wheel.name}[{EXTRAS}]")


def _within(root: Path, *words: str) -> str:
    path = "PATH=/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    clean = ["env", "-i", "--chdir=/project", path, "HOME=/root", "LANG=C.UTF-8"]
    return _run(["chroot", str(root), *clean, *words])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if not line.startswith("WARNING")]
        raise Failed(f"{' '.join(command)}: " + "\n".join(said)[-2000:])
    return done.stdout
