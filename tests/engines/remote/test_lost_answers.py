"""Connections that break in the middle of a call: an append is written once, and the caller knows what it knows."""

from __future__ import annotations

import asyncio
import time

import pytest

import eventfold as ef
from eventfold.errors import StoreUnavailable
from eventfold.testing.conformance.events import Noted, about, deposit, draft, positions
from tests.support.servers.cutting_proxy import CuttingProxy, Direction
from tests.support.servers.many_stores import shared

SECTIONS = 8  # every byte is tried by the soak programme; here every eighth


def exchange_size(proxy: CuttingProxy, store: ef.Store, direction: Direction) -> int:
    """How many bytes an append of one event has in a direction."""
    proxy.count()
    store.append(draft(Noted("x"), 0))
    return proxy.passed[direction]


@pytest.mark.parametrize("direction", ["request", "answer"])
def test_an_append_cut_at_any_byte_is_written_once(
    proxied: str, proxy: CuttingProxy, direction: Direction, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut in its request nothing was written; cut in its answer it is AppendUnconfirmed, and the repeat writes once."""
    with ef.Store(proxied, patience=5) as store:
        size = exchange_size(proxy, store, direction)
        offsets = [*range(0, size, SECTIONS), size - 1]
        unconfirmed = 0
        for number, byte in enumerate(offsets, start=1):
            event = draft(Noted("x"), number)
            proxy.cut(direction, byte)
            try:
                store.using(attempts=1).append(event)
            except ef.AppendUnconfirmed:
                unconfirmed += 1
            proxy.heal()
            found = store.event(event.id)
            assert (found is None) == (direction == "request")
            assert store.append(event).repeated == (direction == "answer")
        assert unconfirmed == len(offsets)
        assert positions(store.read()) == list(range(1, len(offsets) + 2))
    assert "A request failed." not in caplog.text  # a client that leaves is no defect of the server


def test_a_lost_answer_is_repeated_by_the_store(proxied: str, proxy: CuttingProxy) -> None:
    """A caller without attempts=1 does not notice: its receipt is that of a first append."""
    with ef.Store(proxied) as store:
        size = exchange_size(proxy, store, "answer")
        for number in range(1, 4):
            proxy.cut("answer", size // 2)
            receipt = store.append(draft(deposit(), number), unless=about("a-1"), after=store.head())
            assert (receipt.first, receipt.repeated) == (number + 1, False)
        assert store.count() == 4


@pytest.mark.parametrize("direction", ["request", "answer"])
def test_a_read_cut_at_any_byte_is_repeated(proxied: str, proxy: CuttingProxy, direction: Direction) -> None:
    """A call that only reads is repeated by the client, at whichever byte it was cut."""
    with ef.Store(proxied) as store:
        store.append(Noted("x"))
        proxy.count()
        store.count()
        for byte in range(0, proxy.passed[direction] - 1, SECTIONS * 2):
            proxy.cut(direction, byte)
            assert store.count() == 1
            proxy.heal()


def test_a_late_answer_is_a_lost_one(proxied: str, proxy: CuttingProxy) -> None:
    """After `timeout` an append is unconfirmed, and a read is given up after `patience`; later both succeed."""
    with ef.Store(proxied, timeout=0.2, patience=0.1) as store:
        store.append(draft(Noted("a"), 1))
        proxy.slow(2.0)
        with pytest.raises(ef.AppendUnconfirmed, match="timeout"):
            store.using(attempts=1).append(draft(Noted("b"), 2))
        with pytest.raises(StoreUnavailable, match="timeout"):
            store.head()
        proxy.heal()
        assert store.append(draft(Noted("b"), 2)).first == 2
        assert store.head() == 2


def test_a_silent_connection_is_given_up(proxied: str, proxy: CuttingProxy) -> None:
    """A connection that is open at this end only costs one `timeout`, not the two hours of TCP."""
    with ef.Store(proxied, timeout=0.3, patience=20) as store:
        store.append(Noted("a"))
        proxy.silence()
        with pytest.raises(ef.AppendUnconfirmed):
            store.using(attempts=1).append(Noted("b"))
        proxy.heal()
        assert store.head() >= 1


def test_a_refused_connection_has_written_nothing(address: str) -> None:
    """Without a connection nothing was sent, so the error is not AppendUnconfirmed; patience bounds the attempts."""
    proxy = CuttingProxy(int(shared().url.rpartition(":")[2]))
    store = ef.Store(f"{proxy.url}/{address.rpartition('/')[2]}", patience=0.2)
    store.append(Noted("a"))
    proxy.close()
    with pytest.raises(StoreUnavailable, match="cannot be reached") as refused:
        store.append(Noted("b"))
    assert "Nothing was sent" in refused.value.remedy
    store.close()
    with ef.Store(address) as direct:
        assert direct.count() == 1


def test_a_server_that_is_away_is_waited_for(proxied: str, proxy: CuttingProxy) -> None:
    """Calls that begin while no connection can be made end well if the server is back within `patience`."""

    async def away_and_back() -> int:
        async with ef.AsyncStore(proxied, patience=30) as store:
            await store.append(Noted("a"))
            proxy.leave()
            call = asyncio.create_task(store.append(Noted("b")))
            await asyncio.sleep(0.3)
            assert not call.done()
            proxy.listen()
            return (await call).first

    assert asyncio.run(away_and_back()) == 2


def test_a_cancelled_append_leaves_the_store_usable(proxied: str, proxy: CuttingProxy) -> None:
    """A caller that is cancelled while its answer is awaited may repeat; the append is written once."""

    async def cancelled() -> int:
        async with ef.AsyncStore(proxied) as store:
            await store.append(Noted("a"))
            proxy.slow(0.3)
            event = draft(Noted("b"), 2)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await store.append(event)
            proxy.heal()
            await store.append(event)
            return await store.count()

    assert asyncio.run(cancelled()) == 2


def test_an_interrupt_ends_a_blocking_call(proxied: str, proxy: CuttingProxy) -> None:
    """An exception of a signal handler ends a call that waits for an answer, and later calls work."""
    import signal

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    with ef.Store(proxied) as store:
        store.append(Noted("a"))
        proxy.slow(3.0)
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            began = time.monotonic()
            with pytest.raises(Interrupted):
                store.head()
            assert time.monotonic() - began < 2.5
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        proxy.heal()
        assert store.head() == 1
