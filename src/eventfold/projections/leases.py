"""Leases on partitions: names of their holders, renewal during long steps, which partitions a runner keeps.

A process id identifies a process only within its PID namespace, and only until the system uses the id again. So a
holder's name also has the machine's boot and the namespace of the id, and the time when the process started.
Runners cannot see idle peers. A runner with several partitions releases one periodically so that an idle runner can
claim it. Then the peer is a holder, which others see, and they release partitions until it has an equal share.
Knows: Linux's /proc, a thread for each target, the holders. Does not know: how a lease is stored, what a step does.
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

UNKNOWN = "-"  # on a system without /proc: leases of its processes have to expire
START_TIME_FIELD = (
    19  # index, after the program's name, of the start time in /proc/PID/stat, in clock ticks since the boot
)


def new_holder_id() -> str:
    """Return a unique name: machine, process id, namespace of that id, start time of the process, random digits."""
    return f"{_own_prefix()}{secrets.token_hex(3)}"


def is_held_here(holder: str) -> bool:
    """Whether a holder belongs to this process."""
    return holder.startswith(_own_prefix())


def is_dead_holder(holder: str) -> bool:
    """Whether a holder's process has certainly ended: it was of this namespace and does not exist any more.

    False for a name of another namespace or of an older release's form: that lease has to expire.
    """
    parts = holder.rsplit(":", 4)
    if len(parts) != 5 or not parts[1].isdecimal():
        return False
    _, process, namespace, began, _ = parts
    own_namespace = _namespace_id()
    if own_namespace == UNKNOWN or namespace != own_namespace:
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    now = _start_time(process)
    return UNKNOWN not in (began, now) and began != now  # if they differ, another process has its id now


def _own_prefix() -> str:
    namespace = _namespace_id()
    began = UNKNOWN if namespace == UNKNOWN else _start_time("self")
    return f"{socket.gethostname()}:{os.getpid()}:{namespace}:{began}:"


def _namespace_id() -> str:
    """Return 12 hex digits that identify the machine's boot and this process's namespaces; or UNKNOWN."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return UNKNOWN  # /proc is mounted for another namespace: its process ids are not of this one
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except (OSError, ValueError):
        return UNKNOWN
    clock = ""  # a time namespace shifts the start times that /proc shows
    with suppress(OSError):
        clock = os.readlink("/proc/self/ns/time")
    return sha256(f"{boot}\n{namespace}\n{clock}".encode()).hexdigest()[:12] if boot else UNKNOWN


def _start_time(process: str) -> str:
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[START_TIME_FIELD].decode("ascii")
    except (OSError, IndexError, ValueError):
        return UNKNOWN


class LeaseHeartbeat:
    """Renews the leases of workers of one target while their step takes longer than a third of the lease."""

    def __init__(self, target: Target, lease: float) -> None:
        self._target, self._lease = target, lease
        self._at_work: dict[PartitionLease, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    @contextmanager
    def during(self, lease: PartitionLease) -> Generator[None]:
        """Renew this lease, as often as needed, while a step runs within the context."""
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
                thread = threading.Thread(target=self._beat, name="eventfold-heartbeat", daemon=True)
                thread.start()
                self._thread = thread  # only now: an exception in between leaves no thread that cannot be joined

    def _beat(self) -> None:
        every = self._lease / 3
        while not self._stop.wait(every):
            for lease, began in tuple(self._at_work.items()):
                checkpoint = lease.checkpoint
                if checkpoint is not None and time.monotonic() - began >= every:
                    asked_at = lease.context.clock()
                    with suppress(EventfoldError):  # a lost lease or an unreachable database: the worker notices it
                        self._target.renew_lease(checkpoint, self._lease, progress=False)
                        lease.note_renewed(asked_at)

    def stop(self) -> None:
        """Stop the thread and wait for its end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()


OFFER_PAUSES = (3, 60)  # intervals: the first and the longest pause between two offers that no runner accepts


class PartitionAssignment:
    """Which partitions of one projection a runner keeps, so that runners have equal shares. Thread-safe.

    `interval`: seconds between two reads of the holders. An offer is a partition that is released for a moment.
    """

    def __init__(
        self, partitions: int, holder: str, interval: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._partitions, self._holder, self._interval, self._clock = partitions, holder, interval, clock
        self._held: set[int] = set()
        self._offered_until: dict[int, float] = {}  # by partition, when its last offer ends
        self._read_at = clock()
        self._pause = OFFER_PAUSES[0]
        self._offered_at = self._read_at
        self._lock = threading.Lock()

    def may_claim(self, partition: int) -> bool:
        """Whether this runner may claim a partition: not while it is offered to others."""
        return self._clock() >= self._offered_until.get(partition, 0.0)

    def note_held(self, partition: int, held: bool) -> None:
        """Record whether this runner holds a partition."""
        with self._lock:
            (self._held.add if held else self._held.discard)(partition)

    def should_release(self, partition: int, holders: Callable[[], Iterable[str]]) -> bool:
        """Whether to release a partition that this runner holds.

        `holders` returns those of all partitions; it is called once per interval.
        """
        with self._lock:
            now = self._clock()
            if now < self._read_at + self._interval or len(self._held) < 2 or partition != max(self._held):
                return False
            self._read_at = now
            others = set(holders()) - {"", self._holder}
            if len(self._held) > -(-self._partitions // (1 + len(others))):
                self._pause = OFFER_PAUSES[0]
                return self._release_to_others(partition, now, 3.0)
            if now < self._offered_at + self._pause * self._interval:
                return False
            self._offered_at, self._pause = now, min(self._pause * 2, OFFER_PAUSES[1])
            return self._release_to_others(partition, now, 1.5)

    def _release_to_others(self, partition: int, now: float, intervals: float) -> bool:
        self._held.discard(partition)
        self._offered_until[partition] = now + intervals * self._interval
        return True
