"""An interrupt while a read model is brought up to date is raised unchanged, and leaves nothing behind."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import eventfold as ef
from eventfold.targets.postgres import PostgresDriver
from eventfold.targets.sqlalchemy import dialects
from tests.targets.conftest import postgres_database


class SignPaid(ef.Event, type="sign.paid"):
    """Something to count."""

    order: ef.Tag


class SignTotal(ef.Projection, name="sign_total"):
    """The number of payments of an order."""

    order: str
    count: int = 0

    def evolve(self, event: SignPaid) -> None:
        """Add one."""
        self.count += 1


def test_an_interrupt_while_a_heartbeat_thread_starts_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is not that the unstarted thread cannot be joined; the next call does the work."""
    store = ef.Store("memory:")
    store.append(SignPaid("o"))
    real = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if thread.name == "eventfold-heartbeat":
            monkeypatch.undo()
            raise KeyboardInterrupt
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.project(SignTotal)
    store.project(SignTotal)
    assert store.rows(SignTotal)[0].count == 1


def test_an_interrupt_that_leaves_a_statement_under_way_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is not that the busy connection cannot roll back; the next call gets another connection."""
    address = f"postgresql{postgres_database()}"
    with ef.Store(address, pool=1) as store:
        store.append(SignPaid("o"))
        store.project(SignTotal)
        store.append(SignPaid("o"))

        def interrupted(driver: PostgresDriver, connection: Any) -> int:
            monkeypatch.undo()
            connection.pgconn.send_query(b"SELECT 1")
            raise KeyboardInterrupt

        monkeypatch.setattr(PostgresDriver, "now", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.project(SignTotal)
        store.project(SignTotal)
        assert store.rows(SignTotal)[0].count == 2


def test_an_interrupt_that_leaves_a_statement_under_way_in_sqlalchemy_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same holds for rows in a target of SQLAlchemy's."""
    with ef.Store("memory:", target=f"postgresql+psycopg{postgres_database()}") as store:
        store.append(SignPaid("o"))
        store.project(SignTotal)
        store.append(SignPaid("o"))

        def interrupted(connection: Any) -> int:
            monkeypatch.undo()
            connection.connection.driver_connection.pgconn.send_query(b"SELECT 1")
            raise KeyboardInterrupt

        monkeypatch.setattr(dialects, "now", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.project(SignTotal)
        store.project(SignTotal)
        assert store.rows(SignTotal)[0].count == 2
