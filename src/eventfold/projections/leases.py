"""Leases on partitions: names of their holders, renewal while a step takes long, which partitions a runner keeps.

A process id says nothing outside the PID namespace that gave it, and nothing for long: it is given again. So a
holder's name says where the id was given (this boot of this machine, this namespace) and when the process began.
Runners cannot see idle peers. A runner with several partitions releases one periodically so that an idle runner can
claim it; from then on the other one is seen, and is given its share.
Knows: Linux's /proc, a thread for each target, who holds what. Does not know: how a lease is stored, what a step does.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from hashlib import sha256

from eventfold.errors import EventfoldError
from eventfold.ports.target import Target
from eventfold.projections.partition_lease import PartitionLease

UNKNOWN = "-"  # of a system without /proc: its leases are waited for until they expire
START = 19  # the field of /proc/PID/stat behind the program's name: when it began, in clock ticks since the boot


def new_holder_id() -> str:
    """A name unlike any other: machine, process id, where that id was given, when the process began, chance."""
    return f"{_own_prefix()}{secrets.token_hex(3)}"


def is_held_here(holder: str) -> bool:
    """Whether a holder is of this very process."""
    return holder.startswith(_own_prefix())


def is_dead_holder(holder: str) -> bool:
    """Whether a holder was a process that has certainly ended: one of this namespace that is no more.

    A name of another form, as older releases gave it, or of another place tells nothing: its lease is waited for.
    """
    parts = holder.rsplit(":", 4)
    if len(parts) != 5 or not parts[1].isdecimal():
        return False
    _, process, place, began, _ = parts
    here = _namespace_id()
    if here == UNKNOWN or place != here:
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    now = _start_time(process)
    return UNKNOWN not in (began, now) and began != now  # another process has its id


def _own_prefix() -> str:
    place = _namespace_id()
    began = UNKNOWN if place == UNKNOWN else _start_time("self")
    return f"{socket.gethostname()}:{os.getpid()}:{place}:{began}:"


def _namespace_id() -> str:
    """Where this process's id was given: 12 hex digits of the boot's and the namespaces' identity; or UNKNOWN."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return UNKNOWN  # /proc is another namespace's: its numbers are not ours
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except (OSError, ValueError):
        return UNKNOWN
    clock = ""  # a time namespace shifts when processes seem to have begun
    with suppress(OSError):
        clock = os.readlink("/proc/self/ns/time")
    return sha256(f"{boot}\n{namespace}\n{clock}".encode()).hexdigest()[:12] if boot else UNKNOWN


def _start_time(process: str) -> str:
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[START].decode("ascii")
    except (OSError, IndexError, ValueError):
        return UNKNOWN


class LeaseHeartbeat:
    """Keeps the leases of those that are at work in one target, while a step takes longer than a third of a lease."""

    def __init__(self, target: Target, lease: float) -> None:
        self._target, self._lease = target, lease
        self._at_work: dict[PartitionLease, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    @contextmanager
    def during(self, lease: PartitionLease) -> Generator[None]:
        """Around a step."""
        try:
            self._at_work[lease] = time.monotonic()
            if self._thread is None:
                self._start()
            yield
        finally:
            self._at_work.pop(lease, None)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._beat, name="eventfold-heart", daemon=True)
                thread.start()
                self._thread = thread  # only now: an exception in between leaves no thread that cannot be joined

    def _beat(self) -> None:
        every = self._lease / 3
        while not self._stop.wait(every):
            for lease, began in tuple(self._at_work.items()):
                checkpoint = lease.checkpoint
                if checkpoint is not None and time.monotonic() - began >= every:
                    asked = lease.context.clock()
                    with suppress(EventfoldError):  # lost, or the database is away: whoever is at work finds out itself
                        self._target.renew_lease(checkpoint, self._lease, progress=False)
                        lease.note_renewed(asked)

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()


OFFERS = (3, 60)  # looks between two offers: at first, and at the most, where nobody takes any


class PartitionAssignment:
    """One runner's part in one projection of several partitions. Safe under threads; `look` in seconds."""

    def __init__(self, partitions: int, holder: str, look: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._partitions, self._holder, self._look, self._clock = partitions, holder, look, clock
        self._mine: set[int] = set()
        self._away: dict[int, float] = {}  # partitions that were let go, and until when they are left to others
        self._looked = clock()
        self._pause = OFFERS[0]
        self._offered = self._looked
        self._lock = threading.Lock()

    def may_claim(self, partition: int) -> bool:
        """Whether this partition may be taken: not while it is offered to others."""
        return self._clock() >= self._away.get(partition, 0.0)

    def note_held(self, partition: int, held: bool) -> None:
        """Note whether this runner has a partition."""
        with self._lock:
            (self._mine.add if held else self._mine.discard)(partition)

    def should_release(self, partition: int, holders: Callable[[], Iterable[str]]) -> bool:
        """Whether a partition that this runner has is to be let go of now. `holders` of all, asked once a look."""
        with self._lock:
            now = self._clock()
            if now < self._looked + self._look or len(self._mine) < 2 or partition != max(self._mine):
                return False
            self._looked = now
            others = set(holders()) - {"", self._holder}
            if len(self._mine) > -(-self._partitions // (1 + len(others))):
                self._pause = OFFERS[0]
                return self._let_go(partition, now, 3.0)
            if now < self._offered + self._pause * self._look:
                return False
            self._offered, self._pause = now, min(self._pause * 2, OFFERS[1])
            return self._let_go(partition, now, 1.5)

    def _let_go(self, partition: int, now: float, looks: float) -> bool:
        self._mine.discard(partition)
        self._away[partition] = now + looks * self._look
        return True
