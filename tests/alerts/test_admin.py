"""`store.alerts`: what is open, the history, acknowledge, snooze, and a rule replayed over the past."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import eventfold as ef
from eventfold.alerts.facts import AlertCleared, Note, OpenEpisodes, new_event_of
from eventfold.errors import InvalidInput, UnknownAlert
from eventfold.ports.messages import AppendRequest
from eventfold.testing.clock import Clock
from tests.alerts.rules import CardTesting, NoOrders, OrderPlaced, PaymentDeclined, QuietCard, facts

HOUR = timedelta(hours=1)


def _raised(store: ef.Store, clock: Clock) -> None:
    """Raise two keys of one alert and the only row of another."""
    store.run_until_idle(CardTesting, NoOrders, clock=clock)
    store.append(*[PaymentDeclined("c-1")] * 4, *[PaymentDeclined("c-2")] * 4, OrderPlaced("o-1"))
    store.run_until_idle(CardTesting, clock=clock)
    later = Clock(clock.now + 2 * HOUR)
    store.run_until_idle(NoOrders, clock=later)


def test_open_episodes_are_listed_newest_first(store: ef.Store, clock: Clock) -> None:
    """Of one alert by name or class, or of all; those that have ended are listed if asked for."""
    _raised(store, clock)
    alerts = store.alerts
    assert alerts.names() == ["card_testing", "no_orders"]
    assert [(each.alert, each.key) for each in alerts.list()] == [
        ("no_orders", ""),
        ("card_testing", "c-2"),
        ("card_testing", "c-1"),
    ]
    assert [each.key for each in alerts.list(CardTesting, limit=1)] == ["c-2"]
    store.run_until_idle(CardTesting, clock=Clock(clock.now + HOUR))
    assert alerts.list("card_testing") == []
    both = alerts.list("card_testing", open_only=False)
    assert {each.key for each in both} == {"c-1", "c-2"} and not any(each.is_open for each in both)
    (of_key,) = alerts.show("card_testing", "c-1")
    assert of_key == next(each for each in both if each.key == "c-1")
    assert of_key.cleared_because == "The rule is satisfied again."
    assert len(alerts.show("card_testing")) == 2 and alerts.show(CardTesting, "c-9") == []


def test_acknowledging_names_who_why_and_until_when(store: ef.Store, clock: Clock) -> None:
    """The actor is the metadata of the fact; the episode shows the acknowledgement while it lasts."""
    _raised(store, clock)
    alerts = store.using(actor="ann").alerts
    end = datetime.now(UTC) + 5 * HOUR
    alerts.acknowledge("card_testing", "c-1", until=end, because="the bank is down")
    alerts.acknowledge(NoOrders, until=HOUR, because="a holiday", actor="bob")
    state = alerts.open()
    note = {each.key: each.acknowledged for each in state.open.values()}
    assert (note["c-1"], note["c-2"]) == (Note("ann", "the bank is down", _micros(end)), None)
    assert note[""] is not None and note[""].actor == "bob"
    of_key = alerts.show("card_testing", "c-1")[0]
    assert of_key.is_acknowledged(_micros(end) - 1) and not of_key.is_acknowledged(_micros(end))
    assert state.state_of(of_key, _micros(end) - 1) == "acknowledged"
    assert state.state_of(of_key, _micros(end)) == "raised"


def test_snoozing_silences_a_key_or_a_whole_alert(store: ef.Store, clock: Clock) -> None:
    """The episode stays open; its state says that no messages are sent until then."""
    _raised(store, clock)
    with store.context(actor="ann"):
        store.alerts.snooze("card_testing", "c-1", until=HOUR, because="known")
        store.alerts.snooze("no_orders", until=2 * HOUR, because="closed today")
    state = store.state(OpenEpisodes(""))
    now = _micros(datetime.now(UTC))
    found = {(each.alert, each.key): state.state_of(each, now) for each in state.open.values()}
    assert found == {
        ("card_testing", "c-1"): "snoozed",
        ("card_testing", "c-2"): "raised",
        ("no_orders", ""): "snoozed",
    }
    assert {state.state_of(each, now + 3 * 3_600_000_000) for each in state.open.values()} == {"raised"}


def test_a_rule_that_is_run_no_more_is_retired(store: ef.Store, clock: Clock) -> None:
    """Its open episodes end, each once, with who, why and the reason; a rule that still has its rows is refused."""
    _raised(store, clock)
    alerts = store.using(actor="ann").alerts
    with pytest.raises(InvalidInput, match="projections remove"):
        alerts.retire("card_testing", because="replaced")
    store.projections.remove("card_testing")
    assert len(alerts.list("card_testing")) == 2, "removed only, it stays open"
    assert alerts.retire("card_testing", because="replaced by stolen_cards") == ["c-1", "c-2"]
    assert alerts.retire("card_testing", because="again") == []
    assert [each.key for each in alerts.list()] == [""], "the other alert stays open"
    cleared = [each for each in store.read() if each.type == "$alert-cleared"]
    assert [(each.event.key, each.metadata["actor"]) for each in cleared] == [("c-1", "ann"), ("c-2", "ann")]
    assert {each.event.reason for each in cleared} == {"The rule was retired: replaced by stolen_cards"}


def test_retiring_goes_on_after_another_runner_wrote_a_fact(memory: ef.Store, clock: Clock) -> None:
    """A fact that comes between the look and the append is a conflict: the episodes are read again."""
    _raised(memory, clock)
    memory.projections.remove("card_testing")
    engine = memory.engine
    append_many, raced = engine.append_many, list[bool]()

    async def race(requests: Any) -> Any:
        if not raced and requests[0].events[0].type == "$alert-cleared":
            raced.append(True)
            cleared = AlertCleared("card_testing", "c-1", memory.alerts.list()[-1].episode, "satisfied", 1)
            await append_many([AppendRequest((new_event_of(cleared),))])
        return await append_many(requests)

    engine.append_many = race  # type: ignore[method-assign]
    assert memory.alerts.retire("card_testing", because="replaced", actor="ann") == ["c-2"]
    assert raced
    assert len([each for each in memory.read() if each.type == "$alert-cleared"]) == 2


def test_refusals_say_what_is_missing(memory: ef.Store, clock: Clock) -> None:
    """No actor, no reason, an end that has passed, an unknown alert, a key that is not raised."""
    _raised(memory, clock)
    alerts = memory.alerts
    with pytest.raises(InvalidInput, match="need an actor"):
        alerts.acknowledge("card_testing", "c-1", until=HOUR, because="x")
    with pytest.raises(InvalidInput, match="No reason"):
        alerts.snooze("card_testing", until=HOUR, because=" ", actor="ann")
    with pytest.raises(InvalidInput, match="has passed"):
        alerts.snooze("card_testing", until=datetime(2020, 1, 1, tzinfo=UTC), because="x", actor="ann")
    with pytest.raises(InvalidInput, match="not after now"):
        alerts.snooze("card_testing", until=-HOUR, because="x", actor="ann")
    with pytest.raises(UnknownAlert, match=r"no alert 'card_testin'. Did you mean card_testing\?"):
        alerts.list("card_testin")
    with pytest.raises(UnknownAlert, match=r"no open episode of 'c-9'. Open ones: c-1, c-2"):
        alerts.acknowledge("card_testing", "c-9", until=HOUR, because="x", actor="ann")
    with pytest.raises(InvalidInput, match="until is a duration that ends outside"):
        alerts.snooze("card_testing", until=timedelta.max, because="x", actor="ann")
    with pytest.raises(InvalidInput, match="since is a duration that ends outside"):
        alerts.replay(CardTesting, since=timedelta(days=999_999))
    for key in (5, "\ud800"):
        with pytest.raises(InvalidInput, match=r"key is .*, which is no text that can be stored"):
            alerts.snooze("card_testing", key, until=HOUR, because="x", actor="ann")  # type: ignore[arg-type] # pyright: ignore
    with pytest.raises(InvalidInput, match="because is"):
        alerts.snooze("card_testing", until=HOUR, because="x\ud800", actor="ann")
    assert len(facts(memory)) == 3


def test_a_replay_says_what_a_rule_would_have_raised_and_writes_nothing() -> None:
    """The episodes are those that a runner writes, with the moments; `since` leaves out earlier ones."""
    clock = Clock()
    begin = clock.now
    with ef.Store("memory:", clock=clock) as store:
        store.run_until_idle(CardTesting, QuietCard, clock=clock)
        for _ in range(3):
            store.append(*[PaymentDeclined("c-1")] * 5)
            clock.advance(7_000)
            store.run_until_idle(CardTesting, QuietCard, clock=clock)
        head = store.head()
        for rule in (CardTesting, QuietCard):
            found = store.alerts.replay(rule, until=clock.now)
            written = store.alerts.list(rule, open_only=False)[::-1]
            assert [(each.key, each.at, each.cleared_at, each.reason) for each in found] == [
                (each.key, each.at, each.cleared_at, each.reason) for each in written
            ]
            assert len(found) == 3
        assert len(store.alerts.replay(CardTesting, since=begin + timedelta(seconds=1), until=clock.now)) == 2
        assert len(store.alerts.replay(CardTesting, until=begin + timedelta(seconds=8_000))) == 2
        assert len(store.alerts.replay(NoOrders, since=begin, until=clock.now)) == 1, "no order has ever come"
        assert store.head() == head


def test_the_async_store_has_the_same_methods() -> None:
    """Each is awaited, and the actor of the store is written."""

    async def steps() -> None:
        async with ef.AsyncStore("memory:") as store:
            await store.run_until_idle(CardTesting)
            await store.append(*[PaymentDeclined("c-1")] * 4)
            await store.run_until_idle(CardTesting)
            alerts = store.using(actor="ann").alerts
            assert await alerts.names() == ["card_testing"]
            await alerts.acknowledge(CardTesting, "c-1", until=HOUR, because="seen")
            await alerts.snooze(CardTesting, until=HOUR, because="seen")
            (open_one,) = await alerts.list()
            assert open_one.acknowledged is not None and open_one.acknowledged.actor == "ann"
            assert [each.key for each in await alerts.show(CardTesting, "c-1")] == ["c-1"]
            assert len((await alerts.open()).snoozes) == 1
            assert [each.key for each in await alerts.replay(CardTesting)] == ["c-1"]

    asyncio.run(steps())


def _micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
