"""Room: waking followers: one thread and one connection of its own per engine, while anyone watches and a moment more.

Knows: LISTEN, and what to do where it is not to be had: look at the head. Does not know: followers. Writers notify
only while a listener holds the shared lock, so that a store nobody follows pays nothing.

Never too seldom: it rings once whenever it begins or begins again to listen, and it looks at the head by itself
every few seconds, should a notification ever be lost on the way.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import psycopg

from eventfold.concurrency.waiting import Flag
from eventfold.concurrency.watchers import call_all
from eventfold.core.mutex import Mutex
from eventfold.engines.postgres.connection import PAUSES
from eventfold.engines.postgres.options import Address, channel_of, listening_lock_of, quoted

LINGER = 0.25  # seconds the connection stays when nobody follows: one follower after the other needs one, not each
HEARTBEAT = 2.0  # seconds without a notification after which the head is looked at
BEHIND = 0.01  # seconds between looks at a replica that has not got yet what was announced
Ring = Callable[[], None]
Connection = psycopg.Connection[tuple[Any, ...]]


class Listener:
    """Rings every bell soon after anyone commits to the store.

    `primary` is listened to; `replica`, where reads go to one, is waited for before ringing, since a reader woken
    early would find nothing and sleep again. `poll`: seconds between looks, where the server cannot notify.
    """

    def __init__(self, primary: Address, replica: Address | None, head: str, schema: str, poll: float | None) -> None:
        self._primary, self._replica = primary, replica
        self._head, self._poll = head, poll
        self._begin = (
            f"LISTEN {quoted(channel_of(schema))}",
            f"SELECT pg_advisory_lock_shared({listening_lock_of(schema)})",
        )
        self._bells: list[Ring] = []
        self._mutex = Mutex()
        self._thread: threading.Thread | None = None
        self._stopping = Flag()
        self._seen = -1
        self.mode = "idle"

    def watch(self, ring: Ring) -> Callable[[], None]:
        """See the port."""
        self._mutex.run(self._add, ring)
        return lambda: self._mutex.run(self._remove, ring)

    def _add(self, ring: Ring) -> None:
        self._bells.append(ring)
        if self._thread is None:
            self._stopping.set()  # of a thread that was started when an exception fell, before it could be kept
            self._stopping = Flag()
            thread = threading.Thread(target=self._live, args=(self._stopping,), name="eventfold-listener", daemon=True)
            thread.start()
            self._thread = thread  # only now: an exception in between leaves no thread that cannot be joined

    def _remove(self, ring: Ring) -> None:
        if ring in self._bells:
            self._bells.remove(ring)

    def _end_unused(self, stopping: Flag) -> None:
        """End the thread that this flag stops, unless somebody follows again."""
        if not (self._bells and self._stopping is stopping):
            stopping.set()
            if self._stopping is stopping:
                self._thread, self.mode = None, "idle"

    def close(self) -> None:
        """End the thread, after a last ring."""
        self._ring()
        self._bells.clear()
        thread = self._mutex.run(self._end)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=HEARTBEAT + 1)

    def _end(self) -> threading.Thread | None:
        self._stopping.set()
        self.mode = "idle"
        ended, self._thread = self._thread, None
        return ended

    def _ring(self) -> None:
        call_all(tuple(self._bells))

    def _live(self, stopping: Flag) -> None:
        attempt = 0
        while not stopping.is_set():
            began = time.monotonic()
            try:
                with _connected(self._primary) as primary, _connected(self._replica) as replica:
                    assert primary is not None
                    self._attend(primary, replica, stopping)
            except psycopg.Error:
                # Whoever follows finds out by reading what is wrong; here it is only tried again.
                self.mode = "away"
                attempt = 0 if time.monotonic() - began > HEARTBEAT else attempt + 1
                self._ring()
                if not self._bells:
                    self._mutex.run(self._end_unused, stopping)
                stopping.wait(PAUSES[min(attempt, len(PAUSES) - 1)])

    def _attend(self, primary: Connection, replica: Connection | None, stopping: Flag) -> None:
        for statement in self._begin if self._poll is None else ():
            primary.execute(statement.encode())
        self.mode = "listening" if self._poll is None else "polling"
        self._seen = -1  # a server that took over may have less
        self._look(primary)
        self._announce(replica, stopping)
        looked = used = time.monotonic()
        while not stopping.is_set():
            used = time.monotonic() if self._bells else used
            if time.monotonic() - used > LINGER:
                self._mutex.run(self._end_unused, stopping)
                continue
            if self._poll is not None:
                stopping.wait(self._poll)
                grown = self._look(primary)
            else:
                grown = self._hear(primary)
                if not grown and time.monotonic() - looked > HEARTBEAT:
                    grown = self._look(primary)
                    looked = time.monotonic()
            if grown:
                looked = time.monotonic()
                self._announce(replica, stopping)

    def _hear(self, primary: Connection) -> bool:
        """Whether something was announced within a moment. Anybody may notify; only numbers tell us how far."""
        heard = list(primary.notifies(timeout=0.25, stop_after=1))
        for notification in heard:
            if notification.payload.isdecimal():
                self._seen = max(self._seen, int(notification.payload))
        return bool(heard)

    def _look(self, connection: Connection) -> bool:
        """Whether the log has changed since the last look: grown, or, where it was restored, become shorter."""
        head = _head(connection, self._head)
        changed, self._seen = head != self._seen, head
        return changed

    def _announce(self, replica: Connection | None, stopping: Flag) -> None:
        self._ring()
        while replica is not None and not stopping.is_set():
            behind = _head(replica, self._head) < self._seen
            self._ring()
            if not behind:
                return
            stopping.wait(BEHIND)


@contextlib.contextmanager
def _connected(address: Address | None) -> Generator[Connection | None]:
    if address is None:
        yield None
        return
    with psycopg.Connection.connect(autocommit=True, **address.parameters) as connection:
        connection.prepare_threshold = None
        yield connection


def _head(connection: Connection, statement: str) -> int:
    row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else 0
