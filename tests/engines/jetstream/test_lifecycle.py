"""Closing, forking, signals, cancelled tasks and lost connections: nothing is left over, nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError
from nats.errors import NoServersError

import eventfold as ef
from eventfold.core.envelope import NewEvent
from eventfold.engines.jetstream import connection
from eventfold.engines.jetstream.client import RawClient, RequestFailed
from eventfold.errors import AppendUnconfirmed, StoreClosed, StoreReadOnly, StoreUnavailable
from tests.engines.jetstream.conftest import Open
from tests.engines.jetstream.writers import on_loop, session_of
from tests.support.servers.nats import Cluster, own
from tests.support.stores import new_stream

ROOT = Path(__file__).parents[3]
LIMIT_S = 30.0


def event(text: str = "") -> NewEvent:
    """An encoded event."""
    return NewEvent.of("Noted", b'{"text": "%b"}' % text.encode(), tags=["note:1"])


def sockets() -> int:
    """How many sockets this process has open."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        try:
            found += str(os.readlink(each)).startswith("socket:")
        except FileNotFoundError:  # the folder was listed with it
            continue
    return found


def test_a_closed_store_leaves_no_thread_and_no_socket(url: str, tmp_path: Path) -> None:
    """Also one with a follower, and one whose caller still waits; later calls raise StoreClosed."""
    ef.Store(url, index=str(tmp_path / "first.db")).close()  # what is loaded once is loaded
    threads, open_sockets = set(threading.enumerate()), sockets()
    errors: list[BaseException] = []
    store = ef.Store(url, index=str(tmp_path / "i.db"))

    def follow() -> None:
        try:
            for _ in store.follow(raw=True):
                pass
        except StoreClosed as error:
            errors.append(error)

    follower = threading.Thread(target=follow)
    follower.start()
    store.append_encoded(event())
    store.close()
    store.close()
    follower.join(10)
    assert len(errors) == 1 and not follower.is_alive()
    for call in (store.head, lambda: store.append_encoded(event()), lambda: list(store.read(raw=True))):
        with pytest.raises(StoreClosed):
            call()
    ends = time.monotonic() + 10
    while set(threading.enumerate()) - threads and time.monotonic() < ends:
        time.sleep(0.01)
    assert (set(threading.enumerate()) - threads, sockets()) == (set(), open_sockets)


def test_a_store_that_is_dropped_without_close_ends_its_thread(url: str, tmp_path: Path) -> None:
    """The program ends by itself, with no message on standard error."""
    program = (
        f"import eventfold as ef\nstore = ef.Store({url!r}, index={str(tmp_path / 'i.db')!r})\nprint(store.head())"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "0\n", "")


FORK = """
import os, sys
import eventfold as ef
from eventfold.core.envelope import NewEvent
from eventfold.errors import StoreClosed
store = ef.Store(sys.argv[1], index=sys.argv[2])
store.append_encoded(NewEvent.of("Noted", b"1"))
child = os.fork()
if child == 0:
    for call in (store.head, lambda: store.append_encoded(NewEvent.of("Noted", b"1"))):
        try:
            call()
        except StoreClosed as error:
            assert "forked" in error.what, error
        else:
            os._exit(1)
    store.close()
    with ef.Store(sys.argv[1], index=sys.argv[2]) as own:
        own.append_encoded(NewEvent.of("Noted", b"1"))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert store.append_encoded(NewEvent.of("Noted", b"1")).last == 3
store.close()
"""


def test_a_forked_child_cannot_use_the_store_and_does_not_harm_it(url: str, tmp_path: Path) -> None:
    """The child is refused, opens one of its own on the same index, and closes what it inherited."""
    command = [sys.executable, "-c", FORK, url, str(tmp_path / "i.db")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


INTERRUPTED = """
import signal, sys, threading, time
import eventfold as ef
from eventfold.core.envelope import NewEvent
store = ef.Store(sys.argv[1], index=sys.argv[2])
acknowledged, interrupts, attempted = 0, 0, 0
ends = time.monotonic() + 60
signal.signal(signal.SIGALRM, signal.default_int_handler)
while interrupts < 40 and time.monotonic() < ends:
    signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.0001 * (interrupts % 23))
    try:
        while True:
            attempted += 1
            store.append_encoded(NewEvent.of("Noted", b"1"))
            acknowledged += 1
            store.head()
    except KeyboardInterrupt:
        interrupts += 1
signal.setitimer(signal.ITIMER_REAL, 0)
assert interrupts == 40
assert acknowledged <= store.head() <= attempted, (acknowledged, store.head(), attempted)
store.close()
assert not [each for each in threading.enumerate() if each.name == "eventfold-nats"]
"""


def test_ctrl_c_ends_a_call_and_the_store_goes_on(url: str, tmp_path: Path) -> None:
    """Forty interrupts at different moments of appends and reads."""
    command = [sys.executable, "-c", INTERRUPTED, url, str(tmp_path / "i.db")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr


def test_cancelled_tasks_harm_no_other_task(url: str, tmp_path: Path) -> None:
    """Half of a hundred appends are cancelled at once: the others are acknowledged, and repeats write nothing twice."""

    async def work() -> None:
        async with ef.AsyncStore(url, index=str(tmp_path / "i.db")) as store:
            given = [event(str(i)) for i in range(100)]
            tasks = [asyncio.create_task(store.append_encoded(each)) for each in given]
            await asyncio.sleep(0.002)
            for each in tasks[::2]:
                each.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, ef.Receipt) for each in done[1::2])
            again = [await store.append_encoded(each) for each in given]
            assert len({each.first for each in again}) == 100 == await store.head()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.0001):
                    await store.head()
            assert await store.head() == 100
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(work())


@pytest.fixture
def alone() -> Iterator[Cluster]:
    """A server that the test may stop."""
    with own(1) as cluster:
        yield cluster


def test_a_store_goes_on_after_the_server_was_started_again(alone: Cluster, tmp_path: Path) -> None:
    """Calls wait for it within their timeout; a follower goes on by itself."""
    url = new_stream(alone)
    store = ef.Store(url, index=str(tmp_path / "i.db"))
    store.append_encoded(event("1"))
    follower = iter(store.follow(raw=True))
    assert next(follower).position == 1
    alone.nodes[0].kill()
    with ThreadPoolExecutor(1) as threads:
        appending = threads.submit(store.append_encoded, event("2"))
        time.sleep(0.3)  # it is repeated while nothing listens
        alone.start()
        assert appending.result(LIMIT_S).last == 2
        assert next(follower).position == 2
        alone.nodes[0].stop()
        reading = threads.submit(store.head)
        time.sleep(0.3)
        alone.start()
        assert reading.result(LIMIT_S) == 2
    store.close()


def test_a_call_fails_in_its_time_while_no_server_runs(alone: Cluster, tmp_path: Path) -> None:
    """A read and an append: nothing was sent, and the error says so."""
    store = ef.Store(new_stream(alone), index=str(tmp_path / "i.db"), timeout=1.0)
    store.append_encoded(event())
    alone.nodes[0].kill()
    for call in (store.head, lambda: store.append_encoded(event())):
        began = time.monotonic()
        with pytest.raises(ef.EventfoldError) as raised:
            call()
        assert raised.value.code in ("store-unavailable", "append-unconfirmed"), raised.value
        assert time.monotonic() - began < 15
    store.close()


class Refused(RawClient):
    """A client that no server accepts. Closing it does not end, and suppresses one cancellation, as nats-py may."""

    async def connect(self, *_: Any, **__: Any) -> None:
        """Refuse."""
        raise NoServersError

    async def close(self) -> None:
        """Wait until the test is over."""
        with contextlib.suppress(asyncio.CancelledError):
            while connection.RawClient is Refused:  # noqa: ASYNC110 (another thread ends it)
                await asyncio.sleep(0.05)


def test_a_call_ends_in_its_time_while_a_connection_is_being_closed(
    opening: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time limit ends the closing of a connection that was refused, and with it the call."""
    store = opening(timeout=0.5)
    closed = session_of(store).connection.client.close
    monkeypatch.setattr(connection, "RawClient", Refused)
    on_loop(store, closed)
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(store.head)
        try:
            with pytest.raises(StoreUnavailable):
                calling.result(5.0)
        finally:
            monkeypatch.undo()
    assert store.append_encoded(event()).first == 1


def test_a_store_is_closed_although_its_connection_does_not_close(opening: Open) -> None:
    """A peer that is gone takes no more, and what was sent to it is waited for: for a short time."""
    store = opening()
    client, began = session_of(store).connection.client, time.monotonic()
    close = client.close

    async def never() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            await close()

    client.close = never  # type: ignore[method-assign]
    store.close()
    assert time.monotonic() - began < 8
    assert not session_of(store).loop._thread.is_alive()  # type: ignore[union-attr]


def test_calls_that_connect_at_once_make_one_connection(opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node is left, outside of the check after a connect, while another call finds the connection closed."""
    store = opening()
    made: list[RawClient] = []

    class Counted(RawClient):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    async def connect_twice() -> None:
        here = session_of(store).connection
        await here.client.close()
        async with asyncio.timeout(LIMIT_S) as limit:
            await asyncio.gather(here._connected(limit), here._connected(limit))

    monkeypatch.setattr(connection, "RawClient", Counted)
    on_loop(store, connect_twice)
    assert len(made) == 1
    assert store.append_encoded(event()).first == 1


def test_a_large_append_ends_in_its_time_while_the_server_takes_nothing(alone: Cluster, tmp_path: Path) -> None:
    """The server is stopped, and the network takes only a part of what is sent; later the store goes on."""
    store = ef.Store(new_stream(alone), index=str(tmp_path / "i.db"), timeout=2.0)
    large = [NewEvent.of("Noted", b'"%b"' % (b"x" * 900_000)) for _ in range(20)]
    alone.nodes[0].pause()
    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(store.using(attempts=1).append_encoded, *large)
        try:
            with pytest.raises(AppendUnconfirmed):
                calling.result(10.0)
        finally:
            alone.nodes[0].resume()
    assert store.append_encoded(event()).first in (1, 21)
    store.close()


def test_what_an_account_may_not_do_is_asked_again_after_a_new_connection(
    opening: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is lost later does not mean "not permitted, nothing was written" any more."""
    store = opening()
    session, refused = session_of(store), 'nats: Permissions Violation for Publish to "%s"'
    subject = session.address.names.subject("Noted").decode()
    on_loop(store, lambda: session.connection._on_error(NatsError(refused % subject)))
    with pytest.raises(StoreReadOnly):
        session.connection.refuse_if_not_permitted(subject)
    on_loop(store, session.connection.client.force_reconnect)
    publish, lost = session.writer._publish, [RequestFailed("the answer was lost")]

    async def lose(*arguments: Any) -> Any:
        answer = await publish(*arguments)
        if lost:
            raise lost.pop()
        return answer

    monkeypatch.setattr(session.writer, "_publish", lose)
    assert store.append_encoded(event()).first == 1


def test_a_connection_that_has_just_ended_is_a_failed_request(opening: Open) -> None:
    """The driver does not know it yet, and its transport refuses to write: no error of the driver gets through."""
    store = opening()
    client = session_of(store).connection.client

    async def ask_at_once() -> None:
        client.abort()
        with pytest.raises(RequestFailed) as failed:
            await client.ask(b"$JS.API.INFO", b"", 1.0)
        assert not failed.value.was_sent
        client.send_soon(b"PING\r\n")

    on_loop(store, ask_at_once)
    assert store.append_encoded(event()).first == 1


def test_the_client_of_nats_has_what_is_used_of_it() -> None:
    """Attributes and methods that are not public: a new version of nats-py must still have them, as they were."""
    import inspect

    parameters = list(inspect.signature(Client._process_msg).parameters)  # pyright: ignore[reportPrivateUsage]
    assert parameters == ["self", "sid", "subject", "reply", "data", "headers"]
    client = RawClient()
    for name in ("_pending", "_transport", "_send_command", "_flush_pending", "_server_info", "_attempt_reconnect"):
        assert hasattr(client, name), name
    assert "self._io_writer" in inspect.getsource(TcpTransport)


def test_an_event_that_a_replica_leaves_out_is_read_from_the_leader(
    opening: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A gap and a changed bit in the answer of a replica: both are healed, counted and logged, never skipped."""
    store = opening()
    store.append_encoded(*[event(str(i)) for i in range(12)])
    original, answers = RawClient.ask_many, iter(["3", "5", "", ""])

    async def spoiling(self: RawClient, subject: bytes, payload: bytes, received: Any, failed: Any) -> bytes:
        """Leave out sequence 3 in the first answer, and change a bit of sequence 5 in the second."""
        spoilt = next(answers)

        def receive(at: bytes, data: bytes, headers: bytes) -> None:
            if spoilt and f"\r\nNats-Sequence: {spoilt}\r\n".encode() in headers:
                if spoilt == "3":
                    return
                data = bytes([data[0] ^ 1]) + data[1:]
            received(at, data, headers)

        return await original(self, subject, payload, receive, failed)

    monkeypatch.setattr(RawClient, "ask_many", spoiling)
    reader = opening()
    assert [each.position for each in reader.read(raw=True)] == list(range(1, 13))
    assert reader.stats()["healed"] == 2
    assert "sequence 3" in caplog.text and "sequence 5" in caplog.text


def test_an_event_that_no_node_has_is_an_error(opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names node, stream and sequence, and what is before it can be read no further than that."""
    from eventfold.engines.jetstream import reader as reading
    from eventfold.errors import StoreDamaged

    store = opening()
    for i in range(6):
        store.append_encoded(event(str(i)))
    decode = reading.decode_event

    def damaged(sequence: int, headers: bytes, payload: bytes) -> object:
        return decode(sequence, headers, payload + b"x" if sequence == 4 else payload)

    monkeypatch.setattr(reading, "decode_event", damaged)
    other = opening()
    with pytest.raises(StoreDamaged, match="sequence 4") as raised:
        other.head()
    assert (raised.value.fields["sequence"], raised.value.fields["stream"][:3]) == (4, "EF_")
    assert raised.value.fields["node"].startswith("n")
