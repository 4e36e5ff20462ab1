"""Alerts through crashes: at each step between an event and its stored row, and by kill -9 at random moments."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.alerts import episode_log, watcher
from eventfold.alerts.episode_log import EpisodeLog
from eventfold.projections.fold import RowCache
from eventfold.testing.clock import Clock
from tests.alerts.rules import (
    CardTesting,
    NoOrders,
    OrderPlaced,
    PaymentDeclined,
    QuietCard,
    facts,
    watching,
    words,
)
from tests.support.servers.postgres import shared

ROOT = Path(__file__).parents[2]
CARDS = [f"c-{number}" for number in range(6)]


class Crash(BaseException):
    """Stands for the end of the process: no code of the library handles it."""


@contextmanager
def crashing(monkeypatch: pytest.MonkeyPatch, step: str, at: int) -> Generator[list[int]]:
    """Crash at the `at`-th time that a step is reached. Yields a list whose number says how often it was reached."""
    reached = [0]

    def count() -> None:
        reached[0] += 1
        if reached[0] == at:
            raise Crash

    append, submit, changes = EpisodeLog.append, episode_log.write, RowCache.changes

    async def crash_before_facts(self: EpisodeLog, *arguments: Any, **keywords: Any) -> None:
        count()
        await append(self, *arguments, **keywords)

    async def crash_after_append(*arguments: Any) -> Any:
        receipt = await submit(*arguments)
        count()
        return receipt

    def crash_before_rows(self: RowCache) -> Any:
        count()
        return changes(self)

    with monkeypatch.context() as patch:
        if step == "before facts":
            patch.setattr(EpisodeLog, "append", crash_before_facts)
        elif step == "after an append":
            patch.setattr(episode_log, "write", crash_after_append)
            patch.setattr(episode_log, "MAX_FACTS", 2)  # so that a crash falls between two appends of one page
        else:
            patch.setattr(RowCache, "changes", crash_before_rows)
        yield reached


@pytest.mark.parametrize("step", ["before facts", "after an append", "before rows"])
def test_a_crash_at_any_step_loses_and_doubles_nothing(
    step: str, url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run after the crash ends with the facts of a run without one, each once, and equal rows."""
    done = False
    for at in range(1, 40):
        with ef.Store(url) as store:
            first = at == 1
            if first:
                store.run_until_idle(CardTesting, QuietCard, clock=clock)
                store.append(*map(PaymentDeclined, CARDS * 4))
            later = Clock(clock.now)
            later.advance(86_400 * at)
            with crashing(monkeypatch, step, at if first else 1 + at % 3) as reached:
                try:
                    store.run_until_idle(CardTesting, QuietCard, clock=later)
                except Crash:
                    continue
                finally:
                    done = reached[0] == 0 or at > 5
            if done:
                break
    with ef.Store(url) as store:
        store.run_until_idle(CardTesting, QuietCard, clock=Clock(datetime(2100, 1, 1, tzinfo=UTC)))
        found = facts(store)
        assert Counter(words(each for each in found if each.alert == "card_testing")) == Counter(
            [("raised", card) for card in CARDS] + [("cleared", card) for card in CARDS]
        )
        assert Counter(words(each for each in found if each.alert == "quiet_card")) == Counter(
            [("raised", card) for card in CARDS]
        )
        assert all(proof.proved for proof in store.projections.verify_rows(CardTesting))


def test_a_crash_while_a_changed_rule_is_settled_is_repeated(memory: ef.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The facts are appended in several appends, with a crash after the first: nothing is written twice."""
    memory.append(*map(PaymentDeclined, CARDS * 4))
    with crashing(monkeypatch, "after an append", 2), pytest.raises(Crash):
        memory.run_until_idle(CardTesting)
    assert len(facts(memory)) == 4 and watching(memory, "card_testing") == []
    memory.projections.verify()
    memory.run_until_idle(CardTesting)
    assert sorted(words(facts(memory))) == [("raised", card) for card in CARDS]
    assert len(watching(memory, "card_testing")) == 1


def test_a_runner_that_was_overtaken_writes_nothing_more(memory: ef.Store, clock: Clock) -> None:
    """Another runner wrote the facts first: the condition refuses the second append, which then finds nothing to do."""
    memory.run_until_idle(NoOrders, clock=clock)
    memory.append(OrderPlaced("o-1"))
    log = memory.alerts.log
    changes = [
        episode_log.Step("", watcher.Change("raised", 5, "at 5", "Nothing.", 5)),
        episode_log.Step("", watcher.Change("cleared", 9, "at 5", "Again.", 5)),
    ]
    from eventfold.concurrency import run

    one, other = EpisodeLog(log, "no_orders", "page"), EpisodeLog(log, "no_orders", "page")
    run(one.read())
    run(other.read())
    run(one.append(changes[:1]))
    run(other.append(changes[:1]))
    assert words(facts(memory)) == [("raised", "")]
    run(other.append(changes[1:]))
    run(one.append(changes))  # repeated by a runner that was killed after both facts
    assert words(facts(memory)) == [("raised", ""), ("cleared", "")]


@pytest.mark.parametrize(("engine", "lives", "longest"), [("sqlite", 15, 0.1), ("postgres", 8, 0.2)])
def test_nothing_is_lost_or_done_twice_through_kill_9(engine: str, lives: int, longest: float, tmp_path: Path) -> None:
    """Every card is raised once and cleared once, whatever moment each life ended at."""
    url = str(tmp_path / "shop.db") if engine == "sqlite" else shared().url(schema=f"s{uuid4().hex[:12]}")
    command = [sys.executable, "-W", "ignore", "-m", "tests.alerts.killed", url, str(lives), "7", str(longest)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=160)
    assert ran.stdout.strip() == str(lives), ran.stderr[-4000:]
    with ef.Store(url) as store:
        ends = time.time() + 60
        while time.time() < ends:  # the lease of the last life
            try:
                store.run_until_idle(CardTesting, QuietCard, clock=Clock(datetime(2100, 1, 1, tzinfo=UTC)))
                break
            except ef.EventfoldError as error:
                assert error.code == "projection-behind", error
        declined = Counter(r.event.card for r in store.read(ef.Query.of(types=[PaymentDeclined])))
        many = {card for card, count in declined.items() if count == 4}
        found = facts(store)
        assert len(declined) > lives / 4, "the lives were too short to prove anything"
        expected = [(what, card) for card in many for what in ("raised", "cleared")]
        assert Counter(words(each for each in found if each.alert == "card_testing")) == Counter(expected)
        assert Counter(words(each for each in found if each.alert == "quiet_card")) == Counter(
            ("raised", card) for card in declined
        )
        assert all(proof.proved for proof in store.projections.verify())
