"""Traces of an AsyncStore: the same spans, and a context of its own for each task."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest
from opentelemetry.trace import get_current_span

import eventfold as ef
from eventfold import telemetry
from tests.telemetry.bank import Account, Bonus, Paid, Refused, Totals, pay, refuse
from tests.telemetry.collected import Collected, attributes, is_child, linked, traceparent

pytestmark = pytest.mark.asyncio


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, spans: Collected) -> ef.AsyncStore:
    """Return a traced AsyncStore that is not open yet."""
    url = f"memory:{uuid4().hex}" if request.param == "memory" else str(tmp_path / "shop.db")
    return telemetry.traced(ef.AsyncStore(url), name="shop", tracer_provider=spans.provider)


async def test_an_async_store_has_the_same_spans(store: ef.AsyncStore, spans: Collected) -> None:
    """Appends, reads, states and decisions, with their parents."""
    async with store as opened:
        assert opened is store
        with spans.within() as caller:
            await store.append(Paid(account="a-1", amount=1), Paid(account="a-1", amount=2))
            await store.append_encoded(store.registry.encode(Paid(account="a-1", amount=3)))
            assert await store.extend([Paid(account="a-1", amount=4)] * 3, batch=2) == 3
            decided = await store.decide(pay, Account("a-1"), 5)
            assert (await store.state(Account("a-1"))).total == 23
            assert [each.position async for each in store.read()] == [1, 2, 3, 4, 5, 6, 7]
            assert [step.state.total async for step in store.history(Account("a-1"))][-1] == 23
        decide = spans.one("decide pay")
        below = [each for each in spans.all if is_child(each, caller)]
        assert [each.name for each in below] == [
            "append shop",
            "append shop",
            "append shop",
            "append shop",
            "decide pay",
            "state Account",
            "read shop",
            "read shop",
        ]
        assert [each.name for each in spans.all if is_child(each, decide)] == ["read shop", "append shop"]
        assert attributes(decide)["eventfold.first"] == decided.positions[0]
        with pytest.raises(Refused):
            await store.decide(refuse, Account("a-1"))
        assert attributes(spans.one("decide refuse"))["error.type"] == "Refused"
        with pytest.raises(ef.AppendConflict):
            await store.append(Paid(account="a-1", amount=1), unless=Account("a-1"))
        assert attributes(spans.all[-1])["error.type"] == "append-conflict"


async def test_tasks_keep_their_own_context(store: ef.AsyncStore, spans: Collected) -> None:
    """Concurrent appends share commits, and each event carries the trace of its own task."""
    traces: dict[str, str] = {}

    async def work(name: str) -> None:
        with spans.within(name) as caller:
            traces[name] = f"{caller.trace_id:032x}"
            for amount in range(5):
                await store.append(Paid(account=name, amount=amount))
                await asyncio.sleep(0)
                assert get_current_span().get_span_context() == caller

    async with store:
        await asyncio.gather(*[work(f"t-{each}") for each in range(16)])
        found = [(each.event.account, each.metadata["traceparent"].split("-")[1]) async for each in store.read()]
    assert len(found) == 80
    assert all(traces[account] == trace for account, trace in found)


async def test_a_cancelled_append_ends_its_span(store: ef.AsyncStore, spans: Collected) -> None:
    """The span has the name of the class of the cancellation, or the append was finished before."""
    async with store:
        task = asyncio.create_task(store.append(Paid(account="a-1", amount=1)))
        await asyncio.sleep(0)
        task.cancel()
        result = (await asyncio.gather(task, return_exceptions=True))[0]
        found = attributes(spans.one("append shop"))
        assert found.get("error.type") == ("CancelledError" if isinstance(result, BaseException) else None)
        assert not get_current_span().get_span_context().is_valid


async def test_read_models_and_processes_of_an_async_store_have_spans(store: ef.AsyncStore, spans: Collected) -> None:
    """They run in threads, with links to the tasks that wrote the events."""
    async with store:
        await store.append(Paid(account="a-1", amount=1))
        writer = spans.one("append shop")
        with spans.within() as caller:
            await store.project(Totals)
        span = spans.one("project traced_totals")
        assert linked(span) == [traceparent(writer)]
        assert is_child(span, caller)
        async with store.run(Totals, Bonus) as running:
            receipt = await store.append(Paid(account="a-1", amount=2))
            await store.wait(Totals, receipt.last)
            assert not running.failed
        later = spans.named("project traced_totals")[-1]
        assert linked(later) == [traceparent(spans.named("append shop")[-1])]
        assert later.parent is None


async def test_events_in_the_log_are_repeated_in_another_trace(store: ef.AsyncStore, spans: Collected) -> None:
    """With the context of the first time."""
    draft = ef.Draft(Paid(account="a-1", amount=1), id=uuid4())
    async with store:
        assert not (await store.append(draft)).repeated
        assert (await store.append(draft)).repeated
        assert await store.extend([draft]) == 1
        assert await store.head() == 1
    assert "error.type" not in attributes(spans.all[-1])


async def test_a_traced_view_and_the_store_are_one(tmp_path: Path, spans: Collected) -> None:
    """Whichever is used first opens both, and either closes both."""
    plain = ef.AsyncStore(str(tmp_path / "shop.db"))
    store = telemetry.traced(plain, tracer_provider=spans.provider)
    assert "Traced" in repr(store)
    await plain.append(Paid(account="a-1", amount=1))
    assert store.engine is plain.engine
    again = telemetry.traced(store, name="again", tracer_provider=spans.provider)
    await again.append(Paid(account="a-1", amount=1))
    assert [each.position async for each in again.read()] == [1, 2]
    assert spans.names == ["append again", "read again"]
    await store.close()
    with pytest.raises(ef.EventfoldError):
        await plain.append(Paid(account="a-1", amount=1))
