"""The server is killed while clients append through stores, and started again: nothing is lost or written twice."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path
from uuid import UUID

import pytest

import eventfold as ef
from eventfold.testing.conformance.events import Noted, draft
from tests.support.servers.http import ServerProcess

WRITERS, KILLS = 4, 2


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_doubled_when_the_server_is_killed(tmp_path: Path) -> None:
    """Threads of one store append until they have written before and after each kill.

    Their store repeats what was not confirmed. A follower sees every event once, across the restarts.
    """
    path = tmp_path / "log.db"
    acknowledged: list[UUID] = []
    unconfirmed: list[ef.Draft] = []
    stop = threading.Event()
    with ServerProcess(str(path)) as server, ef.Store(server.url, patience=60) as store:

        def write(writer: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                event = draft(Noted(f"{writer}"), writer * 1_000_000 + number)
                try:
                    store.append(event)
                except ef.AppendUnconfirmed:
                    unconfirmed.append(event)
                else:
                    acknowledged.extend([event.id] if event.id else [])

        seen: list[int] = []
        follower = store.follow()

        def follow() -> None:
            seen.extend(recorded.position for recorded in follower)

        threads = [threading.Thread(target=write, args=(n,), daemon=True) for n in range(1, WRITERS + 1)]
        threads.append(threading.Thread(target=follow, daemon=True))
        for thread in threads:
            thread.start()
        for _ in range(KILLS):
            wait_for(acknowledged, 30)
            server.stop(signal.SIGKILL)
            server.start()
        wait_for(acknowledged, 30)
        stop.set()
        for thread in threads[:-1]:
            thread.join(120)
            assert not thread.is_alive()
        for event in unconfirmed:
            store.append(event)
        last = store.head()
        wait_for(seen, last - len(seen))
        follower.close()
        threads[-1].join(60)
        assert seen == list(range(1, last + 1))
    with ef.Store(str(path)) as direct:
        written = Counter(recorded.id for recorded in direct.read(raw=True))
    assert set(written.values()) == {1}
    assert set(written) == {*acknowledged, *(event.id for event in unconfirmed)}


def wait_for(growing: list[UUID] | list[int], more: int) -> None:
    """Wait until a list has grown by so many entries."""
    end, want = threading.Event(), len(growing) + more
    for _ in range(12_000):
        if len(growing) >= want:
            return
        end.wait(0.01)
    raise AssertionError(f"{len(growing)} of {want} came")
