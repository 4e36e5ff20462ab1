"""The demonstration of alerts: a service is killed, and the person on call hears of it within five seconds.

`run` starts a small service as a process, watches it from this one, kills it, and measures by the clock when the alert
has arrived at a receiver of webhooks on this machine; then it starts the service again and sees the alert cleared.
Knows: the steps, what must hold. Does not know: how an alert is raised or sent (`eventfold.alerts` does).
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

import eventfold as ef
from eventfold.alerts import delivery
from eventfold.alerts.builtin import Lagging
from eventfold.demo.watch.receiver import Receiver
from eventfold.demo.watch.service import READY, CustomerTotal, OrderPlaced
from eventfold.errors import InvalidInput, StoreUnavailable

WITHIN_S = 5.0  # from the kill to the message
LAG = ef.seconds(2)  # how far the read model may be behind
START_S, CLEAR_S = 60.0, 120.0  # how long a start, and clearing, may take on a slow machine
ORDER_EVERY_S = 0.1
QUIET_S = 2.0  # how long it is watched before it is killed


class Watched(msgspec.Struct):
    """What happened: seconds on the clock; None for what did not happen in time."""

    raised_after: float | None = None  # from the kill to the message at the receiver
    reason: str = ""
    cleared_after: float | None = None  # from the second start to the message at the receiver
    messages: int = 0
    orders: int = 0
    counted: int = 0  # by the read model, at the end

    @property
    def holds(self) -> bool:
        """Whether the message came in time, the alert was cleared, each was sent once, and no order was lost."""
        in_time = self.raised_after is not None and self.raised_after <= WITHIN_S
        return in_time and self.cleared_after is not None and self.messages == 2 and self.orders == self.counted


def run(db: str | None = None, as_json: bool = False, say: Callable[[str], None] | None = None) -> int:
    """Run the demonstration in a new store, `db` or a temporary file. Returns 0 if everything held, 1 if not.

    Raises InvalidInput if the file exists.
    """
    begun = time.monotonic()

    def width() -> int:
        return shutil.get_terminal_size((80, 24)).columns

    def show(text: str) -> None:
        line = f"{time.monotonic() - begun:5.1f} s  {text}"
        sys.stdout.write(textwrap.fill(line, width(), subsequent_indent=" " * 9) + "\n")
        sys.stdout.flush()

    def show_nothing(_text: str) -> None:
        """Print nothing: there will be one JSON object."""

    tell = say or (show_nothing if as_json else show)
    if db is not None and Path(db).exists():
        raise InvalidInput(f"{db} exists.", "Give the name of a new file, or leave out --db.")
    with tempfile.TemporaryDirectory(prefix="eventfold-watch-") as folder:
        result = watch(db or str(Path(folder) / "watch.db"), tell)
    if as_json:
        sys.stdout.write(msgspec.json.encode({**msgspec.structs.asdict(result), "holds": result.holds}).decode() + "\n")
    else:
        _report(result, tell)
    return 0 if result.holds else 1


def watch(db: str, tell: Callable[[str], None]) -> Watched:
    """Kill the service and start it again, watched by this process."""
    result = Watched()
    with ef.Store(db) as store, Receiver() as receiver, _logged(tell):
        pager = delivery.webhook(receiver.url, secret=receiver.secret, name="pager", group_page=0.2)
        watched = Lagging(CustomerTotal, limit=LAG), pager, delivery.log(group_page=0.2)
        service = _start(db)
        try:
            tell(f"The service runs as process {service.pid}; customers order ten times a second.")
            store.projections.wait(CustomerTotal, timeout=START_S)
            with _customers(store), store.run(*watched):
                time.sleep(QUIET_S)  # nothing is raised while all is well
                _end(service)
                _see_raised(service.pid, receiver, result, tell)
                service = _start(db)
                _see_cleared(service.pid, receiver, result, tell)
            store.projections.wait(CustomerTotal, timeout=CLEAR_S)
        finally:
            _end(service)
        result.messages = len(receiver.messages)
        result.orders = store.count(ef.Query.of(types=["watch-order-placed"]))
        result.counted = sum(each.orders for page in store.select(CustomerTotal).pages() for each in page)
    return result


def _see_raised(killed: int, receiver: Receiver, result: Watched, tell: Callable[[str], None]) -> None:
    """Wait for the message after the process was killed."""
    at = time.monotonic()
    tell(f"kill -9 {killed}: it is dead. The pager must know within {WITHIN_S:g} seconds.")
    raised = receiver.wait_for("raised", START_S)
    if raised is not None:
        result.raised_after, result.reason = raised.at - at, raised.text
        tell(f"The pager received, {result.raised_after:.1f} s after the kill: {raised.text}")


def _see_cleared(started: int, receiver: Receiver, result: Watched, tell: Callable[[str], None]) -> None:
    """Wait for the message that the alert is cleared, after the service was started again."""
    at = time.monotonic()
    tell(f"The service runs again, as process {started}.")
    cleared = receiver.wait_for("cleared", CLEAR_S) if result.raised_after is not None else None
    if cleared is not None:
        result.cleared_after = cleared.at - at
        tell(f"The pager received, {result.cleared_after:.1f} s after the start: {cleared.text}")


def _start(db: str) -> subprocess.Popen[str]:
    """Start the service and wait until it runs."""
    program = f"from eventfold.demo.watch.service import main; main({db!r})"
    service = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    if service.stdout.readline().strip() != READY:
        _end(service)
        raise StoreUnavailable("The service did not start.", "See what it printed above.")
    return service


def _end(service: subprocess.Popen[str]) -> None:
    """Kill the service with the signal that cannot be caught."""
    service.kill()
    service.wait()
    if service.stdout is not None:
        service.stdout.close()


@contextmanager
def _customers(store: ef.Store) -> Generator[None]:
    """Place ten orders a second in a thread, until the block is left."""
    stop = threading.Event()

    def order() -> None:
        number = 0
        while not stop.wait(ORDER_EVERY_S):
            number += 1
            store.append(OrderPlaced(f"c-{number % 7}", 100 * number))

    thread = threading.Thread(target=order, name="watch-customers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _logged(tell: Callable[[str], None]) -> Generator[None]:
    """Show what is delivered to the log."""

    class Shown(logging.Handler):
        """Passes a line of the log on."""

        def emit(self, record: logging.LogRecord) -> None:
            """Show a record."""
            tell(f"The log has: {record.getMessage()}")

    logger, handler = logging.getLogger("eventfold.alerts"), Shown()
    before, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagates


def _report(result: Watched, tell: Callable[[str], None]) -> None:
    if result.raised_after is None:
        tell(f"FAILED: no message came within {START_S:g} seconds of the kill.")
    elif result.raised_after > WITHIN_S:
        tell(f"FAILED: the message came {result.raised_after:.1f} s after the kill, which is over {WITHIN_S:g} s.")
    elif result.cleared_after is None:
        tell(f"FAILED: the alert was not cleared within {CLEAR_S:g} seconds of the second start.")
    elif result.messages != 2:
        tell(f"FAILED: the pager received {result.messages} messages in place of 2.")
    elif result.orders != result.counted:
        tell(f"FAILED: {result.orders} orders were placed, and the read model has {result.counted}.")
    else:
        tell(
            f"It held: known after {result.raised_after:.1f} s, then cleared; 2 messages; "
            f"all {result.orders} orders are counted."
        )
