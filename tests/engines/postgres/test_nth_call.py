"""Every round trip of every kind of append is cut in turn: each request's outcome agrees with the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import psycopg
import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent, Receipt
from eventfold.core.query import ConditionClause
from eventfold.engines.postgres.connection import AsyncConnection, SyncConnection
from eventfold.errors import AppendUnconfirmed, EventfoldError, EventIdReused
from eventfold.ports.messages import AppendRequest
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.given import event, request, sql, tagged
from tests.projections.inline.bank import InlineBalance, InlineMoved

MAX_ROUND_TRIPS = 40  # upper bound of the round trips of one call


class Cut:
    """Cuts the connection at the nth round trip from now on: before it is sent, or before its answer is read.

    `away`: the server is unreachable from then on, until the next plan.
    """

    def __init__(self) -> None:
        self.left: int | None = None
        self.sent = self.away = False

    def at(self, number: int, *, sent: bool, away: bool) -> None:
        """Plan the cut."""
        self.left, self.sent, self.away = number, sent, away

    def restore(self) -> bool:
        """Make everything work again. Returns whether the cut has happened."""
        happened, self.left = self.left == 0, None
        return happened

    def now(self) -> bool:
        """Count a round trip. Called before each one."""
        if self.left:
            self.left -= 1
            return self.left == 0
        return self.left == 0 and self.away

    def wrap(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method of a connection that may be cut."""

        async def cut(link: SyncConnection | AsyncConnection, *args: Any, **kwargs: Any) -> Any:
            if not self.now():
                return await method(link, *args, **kwargs)
            if self.sent:
                self.sent = False
                await method(link, *args, **kwargs)
            await link.close()
            raise psycopg.OperationalError("the connection was cut, as planted")

        return cut


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cut]:
    """A plan for every connection of this process."""
    planned = Cut()
    for kind in (SyncConnection, AsyncConnection):
        for name in ("fetch", "execute_script", "begin_and_fetch", "write_and_commit"):
            if hasattr(kind, name):
                monkeypatch.setattr(kind, name, planned.wrap(getattr(kind, name)))
    yield planned
    planned.restore()


def plain() -> AppendRequest:
    """Return a new request under a condition that holds."""
    new = event("Noted", "n:1")
    return AppendRequest((new,), (ConditionClause(tagged(f"never:{new.id.hex()}"), 0),))


def behind(other: AppendRequest) -> AppendRequest:
    """Return a new request whose condition starts after another one's event."""
    new = event("Noted", "n:2")
    return AppendRequest((new,), (ConditionClause(tagged(f"never:{new.id.hex()}"), 0, other.events[-1].id),))


def twice(new: NewEvent) -> AppendRequest:
    """Return a request that no log can accept."""
    return AppendRequest((new, new))


# Each builds the requests of one call from one that is already in the log, under a key.
Calls = Callable[[AppendRequest], Sequence[AppendRequest]]
CALLS: dict[str, Calls] = {
    "one": lambda _: [plain()],
    "repeated and new": lambda old: [old, plain()],
    "known by its key, and new": lambda old: [request(event(), key=old.key), plain()],
    "an id used for something else": lambda old: [
        AppendRequest((msgspec.structs.replace(old.events[0], data=b"{}"),)),
        plain(),
    ],
    "two parts": lambda old: [first := plain(), plain(), first, old],
    "with one that has an id twice": lambda _: [plain(), twice(event()), plain()],
    "behind one of the call": lambda _: [first := plain(), behind(first)],
    "behind one that is repeated": lambda old: [old, behind(old), plain()],
}


def positions_of(url: str, schema: str, append_request: AppendRequest) -> list[int]:
    """Return the positions of a request's events in the log."""
    ids = [each.id.hex() for each in append_request.events]
    found = f"SELECT position FROM {schema}.event WHERE id = ANY (%s::uuid[]) ORDER BY position"
    return [row[0] for row in sql(url, found, values=[ids])]


def fits(outcome: Receipt | EventfoldError, there: list[int]) -> bool:
    """Return whether an outcome is correct for a request whose events have these positions."""
    if isinstance(outcome, Receipt):
        return there == list(outcome.positions)
    return isinstance(outcome, (AppendUnconfirmed, EventIdReused)) or not there


def check(
    url: str, schema: str, requests: Sequence[AppendRequest], call: Callable[[], Any], old: AppendRequest
) -> None:
    """Make a call that is cut, and compare its outcomes with the log."""
    try:
        outcomes = call()
    except EventfoldError as error:
        outcomes = [error] * len(requests)
        requests = [each for each in requests if each.events != old.events]  # that one was written before
    for each, outcome in zip(requests, outcomes, strict=False):
        assert fits(outcome, positions_of(url, schema, each)) or (outcome.repeated and each.key), (each, outcome)


HOW = {"request lost": (False, False), "answer lost": (True, False), "server away": (True, True)}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", CALLS)
def test_outcomes_agree_with_the_log(url: str, schema: str, opening: Open, cut: Cut, kind: str, how: str) -> None:
    """Whichever round trip is lost, the outcome is AppendUnconfirmed or correct; repeating the call completes it."""
    sent, away = HOW[how]
    engine = opening(mode="async" if how == "answer lost" else "sync", patience=0)
    old = request(event("Noted", "n:0"), key="old")
    engine.append_many([old])
    for number in range(1, MAX_ROUND_TRIPS):
        requests = CALLS[kind](old)
        cut.at(number, sent=sent, away=away)
        check(url, schema, requests, lambda batch=requests: engine.append_many(batch), old)
        if not cut.restore():
            break
        for each, outcome in zip(requests, engine.append_many(requests), strict=True):
            assert fits(outcome, positions_of(url, schema, each)) or each.key, outcome
    assert 1 < number < MAX_ROUND_TRIPS - 1, "at least one round trip was cut, and every one"


@pytest.mark.parametrize("how", HOW)
def test_outcomes_agree_with_the_log_with_inline_read_models(url: str, schema: str, cut: Cut, how: str) -> None:
    """A read model is in the transaction as well; rows and events both exist, or neither."""
    sent, away = HOW[how]
    with ef.Store(url, schema=schema, inline=[InlineBalance], patience=0) as store:
        old = AppendRequest((store.registry.encode(InlineMoved("a", 1)),))
        run(store.engine.append_many([old]))
        for number in range(1, MAX_ROUND_TRIPS):
            requests = [old, AppendRequest((store.registry.encode(InlineMoved("a", 1)),))]
            cut.at(number, sent=sent, away=away)
            check(url, schema, requests, lambda batch=requests: run(store.engine.append_many(batch)), old)
            if not cut.restore():
                break
            run(store.engine.append_many(requests))
            (rows,) = store.rows(InlineBalance)
            assert rows.moves == store.head() == number + 1
        assert 1 < number < MAX_ROUND_TRIPS - 1


def test_whether_a_joined_append_was_committed_is_unknown_while_the_server_is_away(
    url: str, opening: Open, cut: Cut
) -> None:
    """`confirm` returns the receipt, None, or AppendUnconfirmed: never an error that says that nothing was written."""
    engine = opening(patience=0)
    engine.append(event())
    with psycopg.connect(url) as connection:
        (staged,) = engine.transactions.stage(connection, [request(event())])
    cut.at(1, sent=False, away=True)
    with pytest.raises(AppendUnconfirmed):
        engine.transactions.confirm(staged)
    assert cut.restore()
    assert engine.transactions.confirm(staged).first == 2
