"""Alerts on a store behind HTTP: the runner's rows are in a target of the client's, its facts in the server's log."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import eventfold as ef
from eventfold.server import Settings, application
from eventfold.server.settings import EventSettings
from eventfold.testing.clock import Clock
from tests.alerts.rules import CardTesting, PaymentDeclined, facts, words
from tests.support.servers.http import serving


def test_a_rule_runs_over_http(tmp_path: Path, clock: Clock) -> None:
    """It raises once, also after a restart with the same target; `store.alerts` lists and acknowledges."""
    log = str(tmp_path / "log.db")
    with ef.Store(log):
        pass
    with serving(application({"shop": log}, settings=Settings(events=EventSettings(accept_unknown=True)))) as url:
        target = f"sqlite:{tmp_path / 'rows.db'}"
        with ef.Store(f"{url}/shop", target=target) as store:
            store.run_until_idle(CardTesting, clock=clock)
            store.append(*[PaymentDeclined("c-1")] * 4)
            store.run_until_idle(CardTesting, clock=clock)
        with ef.Store(f"{url}/shop", target=target) as store:
            store.run_until_idle(CardTesting, clock=clock)
            assert words(facts(store)) == [("raised", "c-1")]
            store.alerts.acknowledge("card_testing", "c-1", until=timedelta(hours=1), because="seen", actor="ann")
            (episode,) = store.alerts.list()
            assert episode.acknowledged is not None and episode.acknowledged.actor == "ann"
            assert [each.key for each in store.alerts.replay(CardTesting)] == ["c-1"]
            clock.advance(1_000)
            store.run_until_idle(CardTesting, clock=clock)
            assert words(facts(store)) == [("raised", "c-1"), ("cleared", "c-1")]
            assert [each.name for each in store.projections.status()] == ["card_testing"]
    with ef.Store(log) as store:
        assert store.alerts.list() == [] and len(store.alerts.show("card_testing", "c-1")) == 1


def test_the_results_of_a_verification_are_recorded_over_http(tmp_path: Path) -> None:
    """The server takes the tags of `$verified` facts, as it takes those of other facts of eventfold."""
    log = str(tmp_path / "log.db")
    with ef.Store(log) as store:
        store.append(PaymentDeclined("c-1"))
    with serving(application({"shop": log})) as url, ef.Store(f"{url}/shop") as store:
        store.projections.record(store.projections.verify_log())
    with ef.Store(log) as store:
        (recorded,) = store.read(ef.Query.of("$verified"))
        assert recorded.tags == ("$verified:log",)
