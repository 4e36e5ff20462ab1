"""Appends and decisions in a transaction of the user, and repeats on PostgreSQL, which compares events by itself."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

import eventfold as ef
from eventfold import telemetry
from tests.support.servers.postgres import shared
from tests.telemetry.bank import Account, Paid, Totals, pay
from tests.telemetry.collected import Collected, attributes, is_child, linked, traceparent


@pytest.fixture
def url() -> str:
    """Return the address of a store that does not exist yet."""
    return shared().url(schema=f"s{uuid4().hex[:12]}")


@pytest.fixture
def store(url: str, spans: Collected) -> Iterator[ef.Store]:
    """Return a traced store."""
    with telemetry.traced(ef.Store(url), name="shop", tracer_provider=spans.provider) as found:
        yield found


def test_what_is_staged_carries_the_span_of_its_call(url: str, store: ef.Store, spans: Collected) -> None:
    """The positions are those of the COMMIT, so the span does not have them; what is rolled back is not there."""
    plain = url.partition("?")[0]
    with spans.within() as caller, psycopg.connect(plain) as connection:
        joined = store.in_transaction(connection)
        staged = joined.append(Paid(account="a-1", amount=1), Paid(account="a-1", amount=2))
        joined.append_encoded(store.registry.encode(Paid(account="a-1", amount=4)))
        joined.decide(pay, Account("a-1"), 8)
    receipt = store.confirm(staged)
    assert receipt is not None
    first, second = spans.named("append shop")
    decided = spans.one("decide pay")
    assert all(is_child(each, caller) for each in (first, second, decided))
    assert attributes(first)["db.operation.batch.size"] == 2
    assert "eventfold.first" not in attributes(first)
    found = [each.metadata["traceparent"] for each in store.read()]
    assert found == [traceparent(each) for each in (first, first, second, decided)]
    assert store.state(Account("a-1")).total == 15


@pytest.mark.asyncio
async def test_async_connections_do_so_too(url: str, spans: Collected) -> None:
    """With the asynchronous connection of psycopg."""
    async with telemetry.traced(ef.AsyncStore(url), name="shop", tracer_provider=spans.provider) as store:
        async with await psycopg.AsyncConnection.connect(url.partition("?")[0]) as connection:
            joined = store.in_transaction(connection)
            await joined.append(Paid(account="a-1", amount=1))
            await joined.append_encoded(store.registry.encode(Paid(account="a-1", amount=2)))
            await joined.decide(pay, Account("a-1"), 4)
        found = [each.metadata["traceparent"] async for each in store.read()]
    assert found == [traceparent(each) for each in (*spans.named("append shop"), spans.one("decide pay"))]


def test_a_repeat_in_another_trace_is_a_repeat_on_postgresql(store: ef.Store, spans: Collected) -> None:
    """The comparison of events is in the database there."""
    draft = ef.Draft(Paid(account="a-1", amount=1), id=uuid4())
    assert not store.append(draft).repeated
    assert store.append(draft).repeated
    assert store.head() == 1
    assert store.decide(pay, Account("a-1"), 1).attempts == 1
    store.project(Totals)
    assert linked(spans.one("project traced_totals"))[0] == traceparent(spans.named("append shop")[0])
