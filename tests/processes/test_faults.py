"""Processes, timers and effects on a store with lost replies, failed commits and outages."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.core.backoff import Backoff
from eventfold.engines.memory import MemoryEngine
from eventfold.engines.sqlite import SqliteEngine
from eventfold.errors import EventfoldError, StoreBusy, StoreFull
from eventfold.processes import effect
from eventfold.testing.clock import Clock
from eventfold.testing.faults import Faulty
from tests.processes.shop import OrderPlaced, Paid, Payment, Reminded, ReminderDue, Reserved

ORDERS = 12
sent: list[tuple[str, str]] = []


@effect(start="beginning", name="fault_mail", attempts=100)
def tell(event: ef.Recorded[Reminded]) -> None:
    """Sends a mail, and every now and then loses the line to the mail server after it was sent."""
    sent.append((str(event.id), event.event.order))
    if len(sent) % 5 == 4:
        raise OSError("the line went dead")


def plan(faulty: Faulty, chance: random.Random) -> None:
    """What befalls the next commits."""
    for _ in range(chance.randrange(1, 4)):
        match chance.randrange(6):
            case 0:
                faulty.lose_reply(chance.randrange(1, 12))
            case 1:
                faulty.drop_request(chance.randrange(1, 12))
            case 2:
                faulty.fail_before(StoreFull("The disk is full.", "Free space."))
            case 3:
                faulty.fail_before(StoreBusy("Another process writes.", "Try again."), times=2)
            case _:
                faulty.before(lambda: None)  # one that goes through


@pytest.mark.filterwarnings("ignore:fault_mail handles shop-reminded, which the log does not have")
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_whatever_gets_lost_everything_happens_once(
    kind: str, seed: int, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each order is reserved, each timer fires once; what is paid in time is not reminded of; no mail is lost."""
    monkeypatch.setattr("eventfold.log.append.UNCONFIRMED_BACKOFF", Backoff(0.0, 0.0))  # faults here are simulated
    chance = random.Random(seed)
    sent.clear()
    faulty = Faulty(MemoryEngine() if kind == "memory" else SqliteEngine(str(tmp_path / "shop.db")))
    with ef.Store(faulty) as store:
        failed = 0

        def go_on() -> None:
            nonlocal failed
            try:
                store.run_until_idle(Payment, tell, clock=clock)
            except EventfoldError:
                failed += 1
                faulty.clear()
                for name in (
                    "shop_payment",
                    "fault_mail",
                ):  # stuck after too many attempts: an operator retries it
                    if store.projections.parked(name):
                        store.projections.retry(name)

        for number in range(ORDERS):
            store.append(OrderPlaced(f"o-{number}"))
            plan(faulty, chance)
            go_on()
            faulty.clear()
        for number in range(0, ORDERS, 3):
            store.append(Paid(f"o-{number}"))
        for _ in range(30):  # what is paid is heard of before any timer is due
            go_on()
        clock.advance(60)
        for _ in range(20):
            plan(faulty, chance)
            go_on()
            faulty.clear()
        for _ in range(30):
            go_on()
        assert failed, "nothing went wrong at all"
        store.run_until_idle(Payment, tell, clock=clock)
        events = [recorded.event for recorded in store.read(ef.Query.of(types=[Reserved, ReminderDue, Reminded]))]
    unpaid = {f"o-{number}": 1 for number in range(ORDERS) if number % 3}
    assert Counter(e.order for e in events if isinstance(e, Reserved)) == {f"o-{n}": 1 for n in range(ORDERS)}
    assert Counter(e.order for e in events if isinstance(e, ReminderDue)) == unpaid
    assert Counter(e.order for e in events if isinstance(e, Reminded)) == unpaid
    assert {order for _, order in sent} == unpaid.keys()
    assert len({identity for identity, _ in sent}) == len(unpaid), "every repeated mail has the id of the first"
