"""Spans of work that follows events: read models, processes, effects, timers, in this process and in others."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode

import eventfold as ef
from eventfold import telemetry
from eventfold.processes import effect
from eventfold.processes.timers import PendingTimer, TimerQueue
from eventfold.testing.clock import Clock
from tests.telemetry.bank import Bonus, Opened, Paid, Reminded, Totals, mail, mailed
from tests.telemetry.collected import Collected, attributes, context, is_child, linked, traceparent

PATIENCE_S = 60.0


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "the condition was not met"
        time.sleep(0.005)


def test_a_page_of_a_read_model_has_a_span_that_links_to_the_writers(store: ef.Store, spans: Collected) -> None:
    """One span a page with events; each writer is linked once, in the order of the log."""
    store.append(Paid(account="a-1", amount=1), Paid(account="a-1", amount=2))
    store.append(Opened(account="a-1"))
    store.append(Paid(account="a-2", amount=3))
    writers = [traceparent(each) for each in spans.all]
    store.project(Totals)
    span = spans.one("project traced_totals")
    assert span.kind is SpanKind.CONSUMER
    assert span.parent is None
    assert linked(span) == [writers[0], writers[2]]
    found = attributes(span)
    assert 0 <= found.pop("eventfold.lag_seconds") < PATIENCE_S
    assert found == {"eventfold.first": 1, "eventfold.last": 4, "eventfold.events": 3}
    spans.clear()
    store.project(Totals)
    assert spans.all == []


def test_a_page_links_to_32_writers_at_most(store: ef.Store, spans: Collected) -> None:
    """To the first ones of the page."""
    for each in range(40):
        store.append(Paid(account="a-1", amount=each))
    writers = [traceparent(each) for each in spans.all]
    store.project(Totals)
    assert linked(spans.one("project traced_totals")) == writers[:32]


def test_a_page_in_the_span_of_a_caller_is_below_it(store: ef.Store, spans: Collected) -> None:
    """`project` works in the thread of its caller."""
    store.append(Paid(account="a-1", amount=1))
    with spans.within() as caller:
        store.project(Totals)
    assert is_child(spans.one("project traced_totals"), caller)


def test_a_page_that_fails_has_the_error_of_the_handler(store: ef.Store, spans: Collected) -> None:
    """The span has the class of the error, and no links are lost."""

    class Broken(ef.Projection, name="traced_broken", on_error="stop", attempts=1):
        account: str
        total: int = 0

        def evolve(self, event: Paid) -> None:
            raise ZeroDivisionError(event.account)

    store.append(Paid(account="a-1", amount=1))
    with pytest.raises(ef.EventfoldError):
        store.project(Broken)
    failed = spans.named("project traced_broken")
    assert failed
    assert {attributes(each)["error.type"] for each in failed} == {"ZeroDivisionError"}
    assert {each.status.status_code for each in failed} == {StatusCode.ERROR}


def test_handlers_with_sql_have_the_span_of_a_page(tmp_path: Path, spans: Collected) -> None:
    """As read models of rows have."""

    class Journal(ef.SqlProjection, name="traced_journal"):
        tables = {"traced_journal": "account TEXT, amount INTEGER"}  # noqa: RUF012

        def paid(self, event: Paid, tx: ef.Transaction) -> None:
            tx.execute("INSERT INTO {traced_journal} VALUES (?, ?)", (event.account, event.amount))

    with telemetry.traced(ef.Store(str(tmp_path / "shop.db")), tracer_provider=spans.provider) as store:
        store.append(Paid(account="a-1", amount=1), Paid(account="a-1", amount=2))
        writer = spans.one("append shop")
        store.project(Journal)
        span = spans.one("project traced_journal")
        assert linked(span) == [traceparent(writer)]
        assert attributes(span)["eventfold.events"] == 2


def test_a_process_reacts_within_a_span_which_its_events_carry(
    store: ef.Store, plain: ef.Store, spans: Collected
) -> None:
    """Also its timers carry it, and what they fire; the effect of the timer's event links to the reaction."""
    clock = Clock(datetime.now(UTC))
    mailed.clear()
    with spans.within("request") as request:
        store.append(Opened(account="a-1"))
    opened = spans.one("append shop")
    spans.clear()
    store.run_until_idle(Bonus, mail, clock=clock)
    react = spans.one("react traced_bonus")
    assert react.kind is SpanKind.CONSUMER
    assert react.parent is None
    assert linked(react) == [traceparent(opened)]
    assert opened.context is not None
    assert opened.context.trace_id == request.trace_id
    found = attributes(react)
    assert 0 <= found.pop("eventfold.lag_seconds") < PATIENCE_S
    assert found == {"eventfold.position": 1, "eventfold.type": "TracedAccountOpened"}
    assert all(is_child(each, react) for each in spans.named("append shop"))
    assert len(spans.named("append shop")) == 2  # the bonus, the timer
    written = list(plain.read(raw=True))[1:]
    assert [each.type for each in written] == ["TracedPaid", "$timer-set"]
    assert [each.metadata["traceparent"] for each in written] == [traceparent(react)] * 2
    spans.clear()
    clock.advance(3_700)
    store.run_until_idle(Bonus, mail, clock=clock)
    fired = list(plain.read(raw=True))[-1]
    assert (fired.type, fired.metadata["traceparent"]) == ("TracedReminded", traceparent(react))
    assert linked(spans.one("effect traced_mail")) == [traceparent(react)]
    assert mailed == ["a-1"]


def test_without_traces_a_process_continues_the_context_of_its_event(plain: ef.Store, spans: Collected) -> None:
    """So a trace is not lost where a process runs that knows nothing of traces."""
    clock = Clock(datetime.now(UTC))
    traced = telemetry.traced(plain, tracer_provider=spans.provider)
    traced.append(Opened(account="a-1"))
    opened = spans.all[0]
    plain.run_until_idle(Bonus, clock=clock)
    clock.advance(3_700)
    plain.run_until_idle(Bonus, clock=clock)
    found = [(each.type, each.metadata["traceparent"]) for each in plain.read(raw=True)]
    assert found == [
        (type, traceparent(opened)) for type in ("TracedAccountOpened", "TracedPaid", "$timer-set", "TracedReminded")
    ]


def test_every_process_makes_the_same_event_of_a_timer(store: ef.Store, plain: ef.Store) -> None:
    """Its bytes follow from the event that set the timer, so two runners that fire it at once write one event."""
    from eventfold import concurrency
    from eventfold.processes.timer_events import fired_event

    store.append(Opened(account="a-1"))
    store.run_until_idle(Bonus)
    timers: list[PendingTimer] = []
    for log in (store.projections, plain.projections):
        queue = TimerQueue("traced_bonus", log.log)
        concurrency.run(queue.catch_up())
        timers += queue.waiting
    assert timers[0].trace is not None
    assert len({fired_event(each.id, each.fact, each.trace) for each in timers}) == 1


def test_an_effect_runs_within_a_span(store: ef.Store, plain: ef.Store, spans: Collected) -> None:
    """What it appends by a traced store is below it; each attempt has a span, a failed one with its error."""
    attempts: list[int] = []

    @effect(start="beginning", name="traced_forward", first_delay=0.01)
    def forward(recorded: ef.Recorded[Opened]) -> None:
        attempts.append(recorded.position)
        store.append(Paid(account=recorded.event.account, amount=1), key="forward-1")
        if len(attempts) == 1:
            raise ConnectionError("a-1 cannot be reached")

    with store.run(forward):
        store.append(Opened(account="a-1"))
        until(lambda: len(spans.named("effect traced_forward")) == 2)
    opened = spans.named("append shop")[0]
    failed, done = spans.named("effect traced_forward")
    assert attributes(failed)["error.type"] == "ConnectionError"
    assert "error.type" not in attributes(done)
    assert linked(failed) == linked(done) == [traceparent(opened)]
    assert failed.parent is None
    below = [each for each in spans.named("append shop") if is_child(each, failed) or is_child(each, done)]
    assert [attributes(each)["eventfold.repeated"] for each in below] == [False, True]
    assert plain.head() == 2


def test_an_effect_may_repeat_its_append_by_a_store_without_traces(
    store: ef.Store, plain: ef.Store, spans: Collected
) -> None:
    """The second attempt runs in another span: its event, with the same id, must stay the same event."""
    import uuid

    attempts: list[int] = []

    @effect(start="beginning", name="traced_repeat", first_delay=0.01)
    def forward(recorded: ef.Recorded[Opened]) -> None:
        attempts.append(recorded.position)
        plain.append(ef.Draft(Paid(account="a-1", amount=1), id=uuid.uuid5(recorded.id, "paid")))
        if len(attempts) == 1:
            raise ConnectionError

    store.append(Opened(account="a-1"))
    with pytest.raises(ef.EventfoldError):
        store.run_until_idle(forward)
    store.run_until_idle(forward)
    assert attempts == [1, 1]
    assert plain.head() == 2


def test_a_subscription_has_the_spans_of_an_effect(store: ef.Store, spans: Collected) -> None:
    """One for each event, whether its handler takes the event or the event with its envelope."""
    seen: list[Any] = []

    class Notes(ef.Subscription, name="traced_notes", start="beginning"):
        def opened(self, event: Opened) -> None:
            seen.append(event)

        def paid(self, event: ef.Recorded[Paid]) -> None:
            seen.append(event.position)

    store.append(Opened(account="a-1"), Paid(account="a-1", amount=1))
    writer = spans.one("append shop")
    store.project(Notes)
    assert seen == [Opened(account="a-1"), 2]
    assert [linked(each) for each in spans.named("effect traced_notes")] == [[traceparent(writer)]] * 2


def test_the_threads_of_a_runner_have_spans_of_their_own(store: ef.Store, spans: Collected) -> None:
    """They are not below the span in which the runner was started, and several threads do not mix theirs."""

    class Other(ef.Projection, name="traced_other"):
        account: str
        count: int = 0

        def evolve(self, event: Paid) -> None:
            self.count += 1

    with spans.within("start"), store.run(Totals, Other, Bonus) as running:
        with spans.within("request") as request:
            receipt = store.append(Opened(account="a-1"), Paid(account="a-1", amount=1))
        until(lambda: store.rows(Totals, account="a-1", total=6) != [])
        store.wait(Other, receipt.last)
        assert not running.failed
    writer = traceparent(spans.named("append shop")[0])
    for name in ("project traced_totals", "project traced_other", "react traced_bonus"):
        first = spans.named(name)[0]
        assert first.parent is None
        assert linked(first)[0] == writer
        assert context(first).trace_id != request.trace_id


def test_callers_in_one_commit_keep_their_own_spans(tmp_path: Path, spans: Collected) -> None:
    """Threads whose appends share a commit: each event carries the span of its own caller."""
    with telemetry.traced(ef.Store(str(tmp_path / "shop.db")), tracer_provider=spans.provider) as store:
        callers: dict[str, int] = {}
        barrier = threading.Barrier(8)

        def work(name: str) -> None:
            barrier.wait()
            with spans.within(name) as caller:
                callers[name] = caller.trace_id
                for amount in range(20):
                    store.append(Paid(account=name, amount=amount))

        threads = [threading.Thread(target=work, args=(f"t-{each}",)) for each in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = [(each.event.account, each.metadata["traceparent"].split("-")[1]) for each in store.read()]
    assert len(found) == 160
    assert all(trace == f"{callers[account]:032x}" for account, trace in found)
    assert len({each.context.span_id for each in spans.named("append shop") if each.context}) == 160


PROJECT = """
import json, sys
import eventfold as ef
from eventfold import telemetry
from tests.telemetry.bank import Bonus, Totals
from tests.telemetry.collected import Collected, linked, traceparent

spans = Collected()
with telemetry.traced(ef.Store(sys.argv[1]), tracer_provider=spans.provider) as store:
    store.project(Totals)
    store.run_until_idle(Bonus)
    print(json.dumps([[each.name, linked(each), each.parent is None] for each in spans.all]))
"""


def test_what_one_process_writes_another_one_projects_with_links_to_its_trace(tmp_path: Path, spans: Collected) -> None:
    """The context travels in the log: read models and processes of another program link to the request."""
    path = str(tmp_path / "shop.db")
    with telemetry.traced(ef.Store(path), tracer_provider=spans.provider) as store, spans.within("request") as request:
        store.append(Paid(account="a-1", amount=1), Opened(account="a-1"))
    done = subprocess.run(
        [sys.executable, "-c", PROJECT, path],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    writer = traceparent(spans.one("append shop"))
    assert writer.split("-")[1] == f"{request.trace_id:032x}"
    found = {name: links for name, links, is_root in json.loads(done.stdout) if is_root}
    assert found == {"project traced_totals": [writer], "react traced_bonus": [writer]}


def test_a_snapshot_of_timers_keeps_their_context(tmp_path: Path, spans: Collected) -> None:
    """One that an older version wrote, without contexts, can be read."""
    from eventfold.processes import timers

    with telemetry.traced(ef.Store(str(tmp_path / "shop.db")), tracer_provider=spans.provider) as store:
        store.append(Opened(account="a-1"))
        store.run_until_idle(Bonus)
        queue = TimerQueue("traced_bonus", store.projections.log)
        from eventfold import concurrency

        concurrency.run(queue.catch_up())
        (timer,) = queue.waiting
        encoded = timers.msgspec.json.encode([timer])
        assert timers._unpack(encoded) == [timer]  # pyright: ignore[reportPrivateUsage]
        old = json.loads(encoded)
        del old[0]["trace"]
        assert timers._unpack(json.dumps(old).encode())[0].trace is None  # pyright: ignore[reportPrivateUsage]
        assert timer.fact.due - timedelta(hours=1) / timedelta(microseconds=1) > 0
        assert Reminded(account="a-1").account in timer.fact.key
