"""Whose lease may be taken over at once: that of a process which has certainly ended, and no other."""

# pyright: basic

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.projections import leases
from eventfold.projections.leases import is_dead_holder, is_held_here, new_holder_id
from tests.support.programs import Missing

ROOT = Path(__file__).parents[2]
NAMESPACED = ["unshare", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
on_linux = pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="process ids are placed by Linux's /proc")

HOLDER = "from eventfold.projections.leases import new_holder_id; print(new_holder_id(), flush=True)"


def ended() -> str:
    """Return the holder id of a process of this namespace that has ended."""
    return subprocess.run([sys.executable, "-c", HOLDER], capture_output=True, text=True, check=True).stdout.strip()


def test_all_holder_ids_differ_and_show_whether_they_are_of_this_process() -> None:
    """Two ids of this process differ; both are held here, and another process's id is not."""
    first, second = new_holder_id(), new_holder_id()
    assert first != second
    assert is_held_here(first)
    assert is_held_here(second)
    assert not is_held_here(ended())


@on_linux
def test_a_process_that_has_ended_is_dead_and_one_that_lives_is_not() -> None:
    """Both processes are of this machine, boot and namespace."""
    assert is_dead_holder(ended())
    assert not is_dead_holder(new_holder_id())


@on_linux
def test_a_process_id_that_was_given_again_does_not_stand_for_the_first() -> None:
    """Another process has the process id now: the one that began at another time has ended."""
    host, process, place, began, chance = new_holder_id().rsplit(":", 4)
    assert is_dead_holder(f"{host}:{process}:{place}:{int(began) - 1}:{chance}")
    assert not is_dead_holder(f"{host}:{process}:{place}:-:{chance}"), "when it began is not known"


def test_of_another_place_nothing_is_known() -> None:
    """Another boot or namespace, a system without /proc, an id of an older release: wait until the lease expires."""
    host, _, place, began, chance = new_holder_id().rsplit(":", 4)
    gone = ended().rsplit(":", 4)[1]
    for other in (
        f"{host}:{gone}:{'0' * 12}:{began}:{chance}",
        f"{host}:{gone}:-:-:{chance}",
        f"{socket.gethostname()}:{gone}:abc123",
        f"{host}:x:{place}:{began}:{chance}",
        f"{host}:{10**30}:{place}:{began}:{chance}",
        "append",
        "",
    ):
        assert not is_dead_holder(other), other


def test_without_proc_nothing_is_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS, or if /proc belongs to another namespace: ids are created, and no process counts as ended."""
    gone = ended()
    monkeypatch.setattr(os, "readlink", lambda path: "0" if path == "/proc/self" else os.fsdecode(path))
    mine = new_holder_id()
    assert mine.rsplit(":", 4)[2:4] == [leases.UNKNOWN, leases.UNKNOWN]
    assert is_held_here(mine)
    assert not is_dead_holder(mine)
    assert not is_dead_holder(gone)
    assert not is_dead_holder(mine.replace(f":{os.getpid()}:", f":{gone.rsplit(':', 4)[1]}:"))


HOLDS = """
import os, socket, sys
socket.sethostname("container")
import eventfold as ef
store = ef.Store(sys.argv[1])
store.projections.catalog.lease = 60.0
follower = store.follow(name="mails", after=0, raw=True)
print(next(iter(follower)).position, os.getpid(), flush=True)
sys.stdin.readline()
"""

LOOKS = """
import os, socket, sys
socket.sethostname("container")
import eventfold as ef
from eventfold.errors import LeaseHeld
from eventfold.projections.leases import is_dead_holder
from tests.support.programs import Missing
store = ef.Store(sys.argv[1])
(held,) = store.projections.checkpoints("mails")
assert held.holder.startswith("container:"), held.holder
alive = int(held.holder.split(":")[1])
try:
    os.kill(alive, 0)
    seen = True
except ProcessLookupError:
    seen = False
try:
    next(iter(store.follow(name="mails", raw=True)))
    taken = True
except LeaseHeld:
    taken = False
print(seen, is_dead_holder(held.holder), taken, flush=True)
"""


class Letter(ef.Event, type="holders.letter"):
    """An event to follow."""

    n: int = 0


def contained(code: str, path: str, others: int = 0) -> list[str]:
    """Run a program in its own container: PID and host name namespaces. `others`: processes begun in it before."""
    script = "/bin/true & wait; " * others + '"$0" -c "$1" "$2"; :'
    return [*NAMESPACED, "sh", "-c", script, sys.executable, code, path]


@pytest.fixture
def namespaces() -> None:
    """Skip where this machine and user cannot create namespaces."""
    if shutil.which("unshare") is None:
        raise Missing("unshare", "util-linux")
    if subprocess.run([*NAMESPACED, "true"], capture_output=True, check=False).returncode:
        raise Missing("PID and UTS namespaces of a user's own")


@pytest.mark.usefixtures("namespaces")
def test_a_living_holder_in_another_container_of_the_same_name_keeps_its_lease(tmp_path: Path) -> None:
    """No process has its id in the other container, though their host names are the same."""
    path = str(tmp_path / "store.db")
    with ef.Store(path) as store:
        store.append(Letter(1), Letter(2))
    environment: dict[str, Any] = {"env": {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, "cwd": ROOT}
    with subprocess.Popen(
        contained(HOLDS, path, others=20), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **environment
    ) as holding:
        assert holding.stdin is not None
        assert holding.stdout is not None
        try:
            assert holding.stdout.readline().split()[0] == "1"
            looked = subprocess.run(
                contained(LOOKS, path), capture_output=True, text=True, timeout=60, check=False, **environment
            )
            assert looked.stdout.split() == ["False", "False", "False"], looked.stderr
        finally:
            holding.kill()
