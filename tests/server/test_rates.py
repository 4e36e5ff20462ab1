"""Rates and places: how many calls are accepted, who waits, and what is refused."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.server import application
from eventfold.server.access import rates
from eventfold.server.access.errors import ServerBusy
from eventfold.server.access.rates import Rate
from eventfold.server.admission import Admission
from tests.server.keys import bearer, issue, with_keys


class Clock:
    """A clock that stands still."""

    now = 1_000.0

    def __call__(self) -> float:
        """The time in seconds."""
        return self.now


@pytest.mark.parametrize("pause", [0.0, 0.4, 0.9, 0.99])
def test_no_moving_period_has_more_calls_than_the_limit(pause: float) -> None:
    """A caller that calls as often as it may, from the end of a second on, gets no more, and not much less."""
    clock = Clock()
    rate = Rate("100/second", clock)
    _advance(clock, pause)
    accepted = [clock.now for _ in range(6_000) if not _advance(clock, 0.001) and rate.add("k") == 0.0]
    for start in accepted:
        assert sum(start <= each < start + 1 for each in accepted) <= 100
    assert len(accepted) >= 6 * 90


def _advance(clock: Clock, seconds: float) -> None:
    clock.now += seconds


@pytest.mark.parametrize("limit", ["1/second", "3/second", "60/minute", "1/hour"])
def test_a_call_after_the_announced_wait_is_accepted(limit: str) -> None:
    """Not one much earlier."""
    clock = Clock()
    rate = Rate(limit, clock)
    for _ in range(5):
        while not (wait := rate.add("k")):
            pass
        assert rate.is_spent("k") == wait
        clock.now += wait * 0.9
        assert rate.is_spent("k") > 0
        clock.now += wait * 0.1 + 0.0001
        assert rate.is_spent("k") == 0


def test_callers_do_not_count_against_each_other_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry that was not used for longest is dropped."""
    monkeypatch.setattr(rates, "MAX_ENTRIES", 100)
    rate = Rate("1/hour", Clock())
    assert [rate.add(f"k{number}") for number in range(100)] == [0.0] * 100
    assert rate.add("k0") > 0
    assert rate.add("new") == 0.0
    assert rate.add("k0") > 0
    assert rate.add("k1") == 0.0


@pytest.mark.asyncio
async def test_calls_wait_in_order_and_too_many_are_refused() -> None:
    """Two at once, three wait, a sixth is refused; a place that is given back goes to who waits longest."""
    admission, order, go = Admission(2, 3, 60), list[int](), asyncio.Event()

    async def call(number: int) -> None:
        async with admission:
            order.append(number)
            await go.wait()

    calls = [asyncio.create_task(call(number)) for number in range(5)]
    await asyncio.sleep(0)  # each task runs until it has a place or waits
    with pytest.raises(ServerBusy):
        await call(9)
    calls[3].cancel()
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert order == [0, 1, 2, 4]
    async with admission, admission:
        pass


@pytest.mark.asyncio
async def test_no_place_is_lost_by_calls_that_are_cancelled_or_time_out() -> None:
    """Whenever a call is cancelled, afterwards as many places are free as before."""
    for delay in range(12):
        admission = Admission(1, 10, 0.02)

        async def call(used: Admission = admission) -> None:
            async with used:
                await asyncio.sleep(0.005)

        calls = [asyncio.create_task(call()) for _ in range(8)]
        for _, each in zip(range(delay), itertools.cycle(calls), strict=False):
            await asyncio.sleep(0.001)
            each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        async with asyncio.timeout(60), admission:
            assert not admission._waiting
            assert admission._free == 0


def test_a_key_and_an_address_have_a_rate(tmp_path: Path) -> None:
    """429 says when to come back; another key is not affected."""
    ef.Store(str(tmp_path / "bank.db")).close()
    one, other = bearer(issue(tmp_path, "one")), bearer(issue(tmp_path, "other"))
    settings = with_keys(tmp_path, rate_per_key="3/hour", refusals_per_address="2/hour")
    with TestClient(application(str(tmp_path / "bank.db"), settings=settings)) as client:
        assert [client.get("/v1/head", headers=one).status_code for _ in range(4)] == [200, 200, 200, 429]
        refused = client.get("/v1/head", headers=one)
        assert int(refused.headers["Retry-After"]) > 0
        assert refused.json()["code"] == "too-many-calls"
        assert client.get("/v1/head", headers=other).status_code == 200
        wrong = {"Authorization": "Bearer efk_wrong"}
        assert [client.get("/v1/head", headers=wrong).status_code for _ in range(3)] == [401, 401, 429]
        assert client.get("/v1/head", headers=other).status_code == 200  # a key that is known goes on
        assert client.get("/healthz").status_code == 200
    settings = with_keys(tmp_path, rate_per_address="2/hour")
    with TestClient(application(str(tmp_path / "bank.db"), settings=settings)) as client:
        assert [client.get("/v1/head", headers=each).status_code for each in (one, other, one)] == [200, 200, 429]
