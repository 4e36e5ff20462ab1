"""Locks of a server: kept while their holder lives, released after its lease when it has died."""

from __future__ import annotations

import time

import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.engines.remote import locks as client_locks
from eventfold.engines.remote.engine import RemoteEngine
from eventfold.ports.services import require
from eventfold.server import locks as server_locks
from tests.support.servers.cutting_proxy import CuttingProxy
from tests.support.servers.many_stores import shared


def acquire(store: ef.Store, name: str, owner: str) -> str | None:
    """Try to acquire a lock."""
    return run(require(store.engine, "locks").try_acquire(name, owner))


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of half a second."""
    monkeypatch.setattr(server_locks, "LOCK_LEASE_S", 0.5)
    monkeypatch.setattr(client_locks, "RENEW_S", 0.05)


def test_a_lock_is_kept_for_longer_than_its_lease(address: str, short_leases: None) -> None:
    """A client renews the leases of its locks while it holds them."""
    with ef.Store(address) as holder, ef.Store(address) as other:
        assert acquire(holder, "gate", "ann") is None
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            assert acquire(other, "gate", "bob") == "ann"
            time.sleep(0.02)


def test_the_locks_of_a_client_that_died_are_released(address: str, short_leases: None) -> None:
    """A client that ends without releasing its locks loses them when their leases end."""
    died = ef.Store(address)
    assert acquire(died, "gate", "ann") is None
    assert isinstance(died.engine, RemoteEngine)
    died.engine._background.close()  # as if its process had been killed
    with ef.Store(address) as other:
        assert acquire(other, "gate", "bob") == "ann"
        end = time.monotonic() + 60
        while acquire(other, "gate", "bob") is not None:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_a_lost_answer_does_not_lock_out_the_caller(proxied: str, proxy: CuttingProxy) -> None:
    """The call is repeated by the client, and the server knows that it is the same caller."""
    with ef.Store(proxied) as store:
        assert store.head() == 0
        proxy.cut("answer", 40)
        assert acquire(store, "gate", "ann") is None
        assert acquire(store, "gate", "bob") == "ann"


def test_a_server_that_was_started_again_gets_its_locks_back(address: str, short_leases: None) -> None:
    """The next renewal acquires them there, if they are free."""
    remote, name = shared().app.server.remote, address.rpartition("/")[2]
    with ef.Store(address) as store:
        assert acquire(store, "gate", "ann") is None
        shared()._run(remote.forget(name))  # as a server that has ended
        end = time.monotonic() + 60
        while "gate" not in remote.locks_of(name)._leases:
            assert time.monotonic() < end
            time.sleep(0.02)
        with ef.Store(address) as other:
            assert acquire(other, "gate", "bob") == "ann"


def test_a_lock_of_a_served_file_excludes_other_processes(tmp_path: str) -> None:
    """A remote lock and a lock of a process that opens the file itself exclude each other."""
    path = f"{tmp_path}/log.db"
    url = shared().add(path)
    try:
        with ef.Store(url) as remote, ef.Store(path) as local:
            with local.lock(ef.Query.of(tags="account:a-1"), owner="ann"):
                assert acquire(remote, repr(ef.Query.of(tags="account:a-1")), "bob") == "ann"
            assert acquire(remote, repr(ef.Query.of(tags="account:a-1")), "bob") is None
    finally:
        shared().remove(url)
