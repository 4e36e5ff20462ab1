"""Followers over HTTP: woken by commits, across lost connections, restarts and silence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

import eventfold as ef
from eventfold.engines.remote import watching
from eventfold.testing.conformance.events import Noted
from tests.support.servers.cutting_proxy import CuttingProxy


def soon(holds: Callable[[], bool]) -> bool:
    """Whether a condition becomes true within a minute."""
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return holds()


def following(store: ef.Store) -> tuple[ef.store.Follower, list[int], threading.Thread]:
    """A follower in a thread, and the positions that it has seen."""
    follower, seen = store.follow(), list[int]()
    thread = threading.Thread(target=lambda: seen.extend(each.position for each in follower), daemon=True)
    thread.start()
    return follower, seen, thread


def test_a_follower_outlives_a_cut_connection(proxied: str, address: str, proxy: CuttingProxy) -> None:
    """What was committed while the connection was lost is seen afterwards, once."""
    with ef.Store(proxied) as store, ef.Store(address) as writer:
        follower, seen, thread = following(store)
        writer.append(Noted("a"))
        assert soon(lambda: seen == [1])
        for round in range(1, 4):
            proxy.leave()
            writer.append(Noted("b"))
            proxy.listen()
            assert soon(lambda: len(seen) == round + 1)  # noqa: B023
        follower.close()
        thread.join(60)
        assert seen == [1, 2, 3, 4]


def test_silence_is_noticed(proxied: str, address: str, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the connection that waits for commits falls silent, it is given up when its answer is overdue."""
    monkeypatch.setattr(watching, "WAIT_S", 0.2)
    with ef.Store(proxied, timeout=0.3, patience=30) as store, ef.Store(address) as writer:
        follower, seen, thread = following(store)
        writer.append(Noted("a"))
        assert soon(lambda: seen == [1])
        proxy.silence()
        writer.append(Noted("b"))
        time.sleep(0.3)
        proxy.heal()
        assert soon(lambda: seen == [1, 2])
        follower.close()
        thread.join(60)


def test_requests_stop_when_no_follower_is_left(proxied: str, proxy: CuttingProxy) -> None:
    """After the last follower was closed, nothing is sent any more."""
    with ef.Store(proxied) as store:
        notified = threading.Event()
        stop = store.engine.watch(notified.set)
        assert notified.wait(60)
        stop()
        time.sleep(watching.LINGER_S * 2)
        proxy.count()
        time.sleep(0.2)
        assert proxy.passed == {"request": 0, "answer": 0}


def test_a_burst_of_commits_shares_notifications(address: str) -> None:
    """A store that is written to all the time does not cost a request for each commit."""
    with ef.Store(address) as store:
        calls: list[float] = []
        stop = store.engine.watch(lambda: calls.append(time.monotonic()))
        began = time.monotonic()
        for _ in range(100):
            store.append(Noted("a"))
        assert soon(lambda: bool(calls))
        took = time.monotonic() - began
        stop()
        assert len(calls) <= took / watching.GAP_S + 2
