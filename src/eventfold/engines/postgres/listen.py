"""Notification of commits: one thread with one connection per engine, while there are callbacks.

Uses LISTEN, or polls the head where a pooler prevents LISTEN. Writers notify only while a listener holds a shared
advisory lock, so that appends to a store without followers cost nothing more. No commit is missed: callbacks are called
whenever listening begins or begins again, and the head is read every few seconds, in case a notification was lost.

Knows: LISTEN, the head. Does not know: followers.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import psycopg

from eventfold.concurrency.waiting import Flag
from eventfold.concurrency.wakeup import call_all
from eventfold.core.mutex import Mutex
from eventfold.engines.postgres.options import ServerAddress, listener_lock_arguments, notify_channel, quote_identifier
from eventfold.engines.postgres.pool import RECONNECT_DELAYS_S

LINGER_S = 0.25  # how long the connection stays open without callbacks, for the next follower
HEAD_CHECK_INTERVAL_S = 2.0  # without a notification, the head is read after this time
REPLICA_POLL_S = 0.01  # between reads of the head of a replica that has not received the commit yet
Notify = Callable[[], None]
PsycopgConnection = psycopg.Connection[tuple[Any, ...]]


class Listener:
    """Calls every callback soon after a commit of any process.

    Listens on `primary`. Where reads go to a `replica`, callbacks are also called when the replica has received the
    commit: a reader that is woken earlier finds nothing. `poll`: seconds between reads of the head, if LISTEN does not
    work.
    """

    def __init__(
        self, primary: ServerAddress, replica: ServerAddress | None, head: str, schema: str, poll: float | None
    ) -> None:
        self._primary, self._replica = primary, replica
        self._head_sql, self._poll_interval_s = head, poll
        self._listen_statements = (
            f"LISTEN {quote_identifier(notify_channel(schema))}",
            f"SELECT pg_advisory_lock_shared({listener_lock_arguments(schema)})",
        )
        self._callbacks: list[Notify] = []
        self._mutex = Mutex()
        self._thread: threading.Thread | None = None
        self._stopping = Flag()
        self._last_head = -1
        self.mode = "idle"

    def watch(self, notify: Notify) -> Callable[[], None]:
        """See the port."""
        self._mutex.run(self._add, notify)
        return lambda: self._mutex.run(self._remove, notify)

    def _add(self, notify: Notify) -> None:
        self._callbacks.append(notify)
        if self._thread is None:
            self._stopping.set()  # a thread whose start was interrupted before it was assigned
            self._stopping = Flag()
            thread = threading.Thread(target=self._run, args=(self._stopping,), name="eventfold-listener", daemon=True)
            thread.start()
            self._thread = thread  # after the start: only a started thread can be joined

    def _remove(self, notify: Notify) -> None:
        if notify in self._callbacks:
            self._callbacks.remove(notify)

    def _stop_if_unused(self, stopping: Flag) -> None:
        """Stop the thread of this flag, unless there are callbacks again."""
        if not (self._callbacks and self._stopping is stopping):
            stopping.set()
            if self._stopping is stopping:
                self._thread, self.mode = None, "idle"

    def close(self) -> None:
        """Call the callbacks once more, then stop the thread."""
        self._notify()
        self._callbacks.clear()
        thread = self._mutex.run(self._stop)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=HEAD_CHECK_INTERVAL_S + 1)

    def _stop(self) -> threading.Thread | None:
        self._stopping.set()
        self.mode = "idle"
        ended, self._thread = self._thread, None
        return ended

    def _notify(self) -> None:
        call_all(tuple(self._callbacks))

    def _run(self, stopping: Flag) -> None:
        attempt = 0
        while not stopping.is_set():
            began = time.monotonic()
            try:
                with _connect(self._primary) as primary, _connect(self._replica) as replica:
                    assert primary is not None
                    self._listen(primary, replica, stopping)
            except psycopg.Error:
                # Followers learn the reason from their own reads; here the connection is only retried.
                self.mode = "away"
                attempt = 0 if time.monotonic() - began > HEAD_CHECK_INTERVAL_S else attempt + 1
                self._notify()
                if not self._callbacks:
                    self._mutex.run(self._stop_if_unused, stopping)
                stopping.wait(RECONNECT_DELAYS_S[min(attempt, len(RECONNECT_DELAYS_S) - 1)])

    def _listen(self, primary: PsycopgConnection, replica: PsycopgConnection | None, stopping: Flag) -> None:
        for statement in self._listen_statements if self._poll_interval_s is None else ():
            primary.execute(statement.encode())
        self.mode = "listening" if self._poll_interval_s is None else "polling"
        self._last_head = -1  # a server that was promoted may have fewer events
        self._has_head_changed(primary)
        self._announce_commit(replica, stopping)
        looked = used = time.monotonic()
        while not stopping.is_set():
            used = time.monotonic() if self._callbacks else used
            if time.monotonic() - used > LINGER_S:
                self._mutex.run(self._stop_if_unused, stopping)
                continue
            if self._poll_interval_s is not None:
                stopping.wait(self._poll_interval_s)
                grown = self._has_head_changed(primary)
            else:
                grown = self._wait_for_notification(primary)
                if not grown and time.monotonic() - looked > HEAD_CHECK_INTERVAL_S:
                    grown = self._has_head_changed(primary)
                    looked = time.monotonic()
            if grown:
                looked = time.monotonic()
                self._announce_commit(replica, stopping)

    def _wait_for_notification(self, primary: PsycopgConnection) -> bool:
        """Whether a notification came within a quarter of a second. Only numeric payloads are positions."""
        heard = list(primary.notifies(timeout=0.25, stop_after=1))
        for notification in heard:
            if notification.payload.isdecimal():
                self._last_head = max(self._last_head, int(notification.payload))
        return bool(heard)

    def _has_head_changed(self, connection: PsycopgConnection) -> bool:
        """Whether the head has changed: the log has grown or, after a restore, become shorter."""
        head = _fetch_head(connection, self._head_sql)
        changed, self._last_head = head != self._last_head, head
        return changed

    def _announce_commit(self, replica: PsycopgConnection | None, stopping: Flag) -> None:
        self._notify()
        while replica is not None and not stopping.is_set():
            behind = _fetch_head(replica, self._head_sql) < self._last_head
            self._notify()
            if not behind:
                return
            stopping.wait(REPLICA_POLL_S)


@contextlib.contextmanager
def _connect(address: ServerAddress | None) -> Generator[PsycopgConnection | None]:
    if address is None:
        yield None
        return
    with psycopg.Connection.connect(autocommit=True, **address.parameters) as connection:
        connection.prepare_threshold = None
        yield connection


def _fetch_head(connection: PsycopgConnection, statement: str) -> int:
    row = connection.execute(statement.encode()).fetchone()
    return row[0] if row else 0
