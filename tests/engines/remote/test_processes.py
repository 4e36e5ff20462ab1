"""Processes of a client on a store of a server: their timers are events of eventfold, which a client may write."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent, new_id
from eventfold.engines.remote.failures import ServerRefused
from eventfold.errors import InvalidEvent
from eventfold.ports.messages import AppendRequest
from eventfold.processes import after, decide
from eventfold.server import application
from eventfold.server.scopes import Scope
from eventfold.testing.clock import Clock
from tests.server.keys import issue, with_keys
from tests.support.servers.http import serving


class Placed(ef.Event, type="remote.placed"):
    """An order."""

    order: ef.Tag


class Due(ef.Event, type="remote.due"):
    """A reminder is due."""

    order: ef.Tag


class Reminded(ef.Event, type="remote.reminded"):
    """A reminder was sent."""

    order: ef.Tag


class Order(ef.State):
    """Whether an order was reminded of."""

    order: ef.Tag
    reminded: bool = False

    def evolve(self, event: Reminded) -> None:
        """Note it."""
        self.reminded = True


def remind(order: Order) -> list[ef.Event]:
    """Remind once."""
    return [] if order.reminded else [Reminded(order.order)]


class Reminder(ef.Process, name="remote_reminder", start="beginning"):
    """Reminds of an order after a day."""

    order: ef.Tag
    placed: bool = False

    def evolve(self, event: Placed) -> None:
        """Note it."""
        self.placed = True

    def react(self, event: Placed | Due) -> Iterator[Any]:
        """Set the timer, then remind."""
        match event:
            case Placed():
                yield after(Due(self.order), days=1)
            case Due():
                yield decide(remind, Order(self.order))


def test_a_process_with_a_timer_runs_on_a_server_that_knows_its_types(tmp_path: Path) -> None:
    """The server accepts events of its modules only; timers need no module."""
    app = application(ef.AsyncStore(str(tmp_path / "log.db")), modules=[sys.modules[__name__]])
    with serving(app) as url, ef.Store(url, target=str(tmp_path / "rows.db")) as store:
        store.append(Placed("o-1"))
        store.run_until_idle(Reminder)
        (placed, timer) = store.read(raw=True)
        assert timer.type == "$timer-set"
        store.run_until_idle(Reminder, clock=Clock(placed.time + timedelta(days=2)))
        assert [each.type for each in store.read(raw=True)][2:] == ["remote.due", "remote.reminded"]
        assert store.state(Order("o-1")).reminded


def reserved(type: str, *tags: str) -> AppendRequest:
    """An append with reserved names."""
    return AppendRequest((NewEvent(new_id(), type, 1, b"{}", tags),))


def test_other_reserved_names_are_refused(tmp_path: Path) -> None:
    """A client cannot write what the server records itself, and records of operators need the scope manage."""
    path = str(tmp_path / "log.db")
    ef.Store(path).close()
    key = issue(tmp_path, "writer", (Scope.READ, Scope.READ_PAYLOAD, Scope.APPEND)).key
    with (
        serving(application(path, settings=with_keys(tmp_path), modules=[sys.modules[__name__]])) as url,
        ef.Store(url, api_key=key) as store,
    ):
        outcomes = run(
            store.engine.append_many(
                [
                    *(reserved("$schema-registered"), reserved("$key-created"), reserved("remote.due", "$schema:x")),
                    *(reserved("$projection-acted", "$projection:x"), reserved("$timer-set", "$process:x")),
                ]
            )
        )
        assert [type(outcome).__name__ for outcome in outcomes] == [
            *("InvalidEvent", "InvalidEvent", "InvalidEvent"),
            *("ServerRefused", "Receipt"),
        ]
        assert isinstance(outcomes[0], InvalidEvent)
        assert isinstance(outcomes[3], ServerRefused)
        assert outcomes[3].code == "forbidden"
        assert store.head() == 1


def test_another_actor_needs_the_scope_impersonate(tmp_path: Path) -> None:
    """The key sets the actor; a process that acts for others has the scope for it."""
    path = str(tmp_path / "log.db")
    ef.Store(path).close()
    plain = issue(tmp_path, "till", (Scope.READ, Scope.READ_PAYLOAD, Scope.APPEND)).key
    app = application(path, settings=with_keys(tmp_path), modules=[sys.modules[__name__]])
    with serving(app) as url, ef.Store(url, api_key=plain) as store:
        with pytest.raises(ServerRefused) as refused:
            store.using(actor="ann").append(Placed("o-1"))
        assert refused.value.code == "forbidden"
        store.append(Placed("o-1"))
        (recorded,) = store.read()
        assert recorded.metadata["actor"] == "till"
