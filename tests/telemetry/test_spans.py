"""Spans of single calls: append, read, state, decide, and what the events that they write carry."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, TraceState, set_span_in_context
from opentelemetry.trace.span import NonRecordingSpan, SpanContext, TraceFlags

import eventfold as ef
from eventfold import telemetry
from tests.telemetry.bank import Account, Opened, Paid, Refused, pay, refuse
from tests.telemetry.collected import Collected, attributes, context, is_child, traceparent

DATABASE = {"db.system.name": "eventfold", "db.namespace": "shop"}


def metadata(store: ef.Store) -> list[dict[str, Any]]:
    """Return the metadata of all events."""
    return [dict(each.metadata) for each in store.read(raw=True)]


def test_an_append_has_a_span_below_the_current_one_and_its_events_carry_it(
    store: ef.Store, plain: ef.Store, spans: Collected
) -> None:
    """The attributes are those of the database conventions; the metadata is the context of the span."""
    with spans.within() as caller:
        store.append(Paid(account="a-1", amount=1), Paid(account="a-2", amount=2))
    span = spans.one("append shop")
    assert (span.kind, span.status.status_code) == (SpanKind.CLIENT, StatusCode.UNSET)
    assert is_child(span, caller)
    assert attributes(span) == DATABASE | {
        "db.operation.name": "append",
        "db.operation.batch.size": 2,
        "eventfold.first": 1,
        "eventfold.last": 2,
        "eventfold.repeated": False,
    }
    assert metadata(plain) == [{"traceparent": traceparent(span)}] * 2


def test_no_span_tells_what_was_written(store: ef.Store, spans: Collected) -> None:
    """Neither payloads nor tags nor filters are in attributes, names, events or statuses: also not of errors."""
    secret = "secret-account"
    store.append(Paid(account=secret, amount=4711))
    store.state(Account(secret))
    list(store.read(ef.Query.of(tags=f"account:{secret}")))
    with pytest.raises(Refused):
        store.decide(refuse, Account(secret))
    with pytest.raises(ef.AppendConflict):
        store.append(Paid(account=secret, amount=1), unless=Account(secret))
    store.using(actor=secret).decide(pay, Account(secret), 1)
    assert {each.split()[0] for each in spans.names} == {"append", "state", "read", "decide"}
    exported = "".join(each.to_json() for each in spans.all)
    assert secret not in exported
    assert "4711" not in exported


def test_a_refused_append_has_the_code_of_its_error(store: ef.Store, spans: Collected) -> None:
    """The attribute error.type is the code, and the status has no text."""
    store.append(Paid(account="a-1", amount=1))
    with pytest.raises(ef.AppendConflict):
        store.append(Paid(account="a-1", amount=1), unless=Account("a-1"))
    span = spans.named("append shop")[1]
    assert attributes(span)["error.type"] == "append-conflict"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert not span.events


def test_a_state_has_a_span_with_what_was_read(store: ef.Store, spans: Collected) -> None:
    """`events` is how many were folded now, `scanned` up to which position the log was read."""
    store.append(*[Paid(account="a-1", amount=1)] * 3)
    with spans.within() as caller:
        assert store.state(Account("a-1")).total == 3
    span = spans.one("state Account")
    assert span.kind is SpanKind.CLIENT
    assert is_child(span, caller)
    expected = {"db.operation.name": "state", "eventfold.events": 3, "eventfold.scanned": 3}
    assert attributes(span) == DATABASE | expected
    assert spans.named("read shop") == []


def test_each_page_that_is_read_has_a_span(store: ef.Store, spans: Collected) -> None:
    """A consumer that takes long is not part of it, and a read that is given up leaves no span open."""
    store.extend(Paid(account="a-1", amount=each) for each in range(1_500))
    spans.clear()
    reading = store.read()
    assert next(reading).position == 1
    assert [attributes(each)["eventfold.events"] for each in spans.named("read shop")] == [1_000]
    with spans.within("consumer") as consumer:
        assert len(list(reading)) == 1_499
    first, second = spans.named("read shop")
    assert first.parent is None
    assert is_child(second, consumer)
    assert attributes(second)["eventfold.events"] == 500
    assert attributes(second)["eventfold.scanned"] == 1_500
    spans.clear()
    assert len(list(store.history(Account("a-1")))) == 1_500
    assert spans.names == ["read shop"] * 2


def test_a_decision_is_the_parent_of_its_reads_and_its_append(
    store: ef.Store, plain: ef.Store, spans: Collected
) -> None:
    """Its events carry the span of the decision."""
    with spans.within() as caller:
        decided = store.decide(pay, Account("a-1"), 5)
    assert decided.positions == range(1, 2)
    span = spans.one("decide pay")
    assert span.kind is SpanKind.INTERNAL
    assert is_child(span, caller)
    assert attributes(span) == {
        "eventfold.attempts": 1,
        "eventfold.first": 1,
        "eventfold.last": 1,
        "eventfold.repeated": False,
    }
    assert is_child(spans.one("read shop"), span)
    assert is_child(spans.one("append shop"), span)
    assert attributes(spans.one("append shop"))["eventfold.first"] == 1
    assert metadata(plain) == [{"traceparent": traceparent(span)}]


def test_the_spans_of_a_decision_have_their_own_times_though_they_end_after_it(
    store: ef.Store, spans: Collected
) -> None:
    """They are exported after the decision, when no other caller waits for it."""
    store.decide(pay, Account("a-1"), 5)
    read, append, decide = spans.all
    assert [each.name for each in (read, append, decide)] == ["read shop", "append shop", "decide pay"]
    times = [read.start_time, read.end_time, append.start_time, append.end_time, decide.end_time]
    assert times == sorted(cast("list[int]", times))


def test_each_conflict_of_a_decision_is_an_event_of_its_span(
    store: ef.Store, plain: ef.Store, spans: Collected
) -> None:
    """The appends that met a conflict have its code; the attempts are those that were made."""
    calls: list[int] = []

    def hesitate(account: Account) -> Paid:
        calls.append(account.total)
        if len(calls) < 3:
            plain.append(Paid(account=account.account, amount=1))
        return Paid(account=account.account, amount=10)

    decided = store.decide(hesitate, Account("a-1"))
    span = spans.one("decide hesitate")
    conflicts = [each for each in span.events if each.name == "conflict"]
    appends = spans.named("append shop")
    assert [dict(each.attributes or {}) for each in conflicts] == [{"eventfold.attempt": 1}, {"eventfold.attempt": 2}]
    assert [attributes(each).get("error.type") for each in appends] == ["append-conflict"] * 2 + [None]
    assert all(is_child(each, span) for each in appends)
    assert attributes(span)["eventfold.attempts"] == decided.attempts == 3
    assert span.status.status_code is StatusCode.UNSET


def test_a_decision_that_never_succeeds_has_the_code_of_its_last_conflict(
    store: ef.Store, plain: ef.Store, spans: Collected
) -> None:
    """And the number of its attempts."""

    def late(account: Account) -> Paid:
        plain.append(Paid(account=account.account, amount=1))
        return Paid(account=account.account, amount=10)

    with pytest.raises(ef.AppendConflict):
        store.using(attempts=2).decide(late, Account("a-1"))
    span = spans.one("decide late")
    assert attributes(span) == {"error.type": "append-conflict", "eventfold.attempts": 2}
    assert [each.name for each in span.events] == ["conflict"] * 2


def test_a_refusal_has_the_name_of_its_class(store: ef.Store, spans: Collected) -> None:
    """An error of the user's has no code."""
    with pytest.raises(Refused):
        store.decide(refuse, Account("a-1"))
    span = spans.one("decide refuse")
    assert attributes(span)["error.type"] == "Refused"
    assert span.status.status_code is StatusCode.ERROR
    assert not span.events


def test_change_and_extend_have_the_spans_of_decide_and_append(store: ef.Store, spans: Collected) -> None:
    """`change` is a decision, each batch of `extend` an append; an empty one has none."""

    class Till(ef.Aggregate):
        account: ef.Tag

        def evolve(self, event: Paid) -> None: ...

        def take(self, amount: int) -> None:
            self.record(Paid(account=self.account, amount=amount))

    store.change(Till.take, Till("a-1"), 5)
    assert spans.names == ["read shop", "append shop", "decide Till.take"]
    spans.clear()
    assert store.extend((Paid(account="a-1", amount=each) for each in range(5)), batch=2) == 5
    assert [attributes(each).get("db.operation.batch.size") for each in spans.all] == [2, 2, None]
    assert store.extend([]) == 0
    assert len(spans.all) == 3


def test_a_key_that_was_used_is_seen_as_repeated(store: ef.Store, spans: Collected) -> None:
    """The receipt is that of the first time, under whichever trace."""
    for _ in range(2):
        store.append(Paid(account="a-1", amount=1), key="k-1")
    assert [attributes(each)["eventfold.repeated"] for each in spans.all] == [False, True]


def test_events_that_are_in_the_log_are_repeated_in_another_trace(
    store: ef.Store, plain: ef.Store, spans: Collected
) -> None:
    """The context of the first time is used, since other metadata would make them other events: by every call."""

    def fifth(account: Account) -> ef.Draft[Paid]:
        return known[4]

    known = [ef.Draft(Paid(account="a-1", amount=each), id=uuid4()) for each in range(5)]
    first = store.append(*known[:2])
    assert store.append(*known[:2]).repeated
    assert store.append(*known[:2]).first == first.first
    encoded = store.registry.encode(ef.Draft(Opened(account="a-1"), id=uuid4()))
    assert not store.append_encoded(encoded).repeated
    assert store.append_encoded(encoded).repeated
    for _ in range(2):
        assert store.extend(iter(known[2:4]), batch=1) == 2
        store.decide(fifth, Account("a-1"))
    assert plain.head() == 6
    before = [(each.id, each.metadata) for each in plain.read()]
    store.append(*known[:2])
    assert [(each.id, each.metadata) for each in plain.read()] == before


def test_events_that_were_written_without_traces_are_repeated_with_them(store: ef.Store, plain: ef.Store) -> None:
    """And events that differ in something else are refused, as without traces."""
    draft = ef.Draft(Paid(account="a-1", amount=1), id=uuid4())
    plain.append(draft)
    assert store.append(draft).repeated
    with pytest.raises(ef.EventfoldError) as refused:
        store.append(ef.Draft(Paid(account="a-1", amount=2), id=draft.id))
    assert refused.value.code == "event-id-reused"
    assert plain.head() == 1


def test_without_a_span_events_carry_nothing(plain: ef.Store) -> None:
    """While no provider is set nothing is traced, and the store is as it was."""
    store = telemetry.traced(plain)
    store.append(Paid(account="a-1", amount=1))
    store.append_encoded(store.registry.encode(Paid(account="a-1", amount=1)))
    store.decide(pay, Account("a-1"), 1)
    assert store.state(Account("a-1")).total == 3
    assert metadata(plain) == [{}] * 3


def test_a_context_of_another_process_is_carried_though_nothing_is_recorded_here(plain: ef.Store) -> None:
    """Without an SDK the current context is still the one that events carry, with its tracestate."""
    from opentelemetry import context as current

    state = TraceState([("vendor", "x")])
    remote = SpanContext(0xABC, 0xDEF, True, TraceFlags(1), state)
    store = telemetry.traced(plain)
    token = current.attach(set_span_in_context(NonRecordingSpan(remote)))
    try:
        store.append(Paid(account="a-1", amount=1))
        store.decide(pay, Account("a-1"), 1)
    finally:
        current.detach(token)
    assert metadata(plain) == [{"traceparent": traceparent(remote), "tracestate": "vendor=x"}] * 2


def test_what_is_not_sampled_is_not_exported_and_its_context_says_so(plain: ef.Store) -> None:
    """The flags of the context keep the decision of the sampler for those who continue the trace."""
    spans = Collected(ALWAYS_OFF)
    store = telemetry.traced(plain, tracer_provider=spans.provider)
    store.append(Paid(account="a-1", amount=1))
    store.decide(pay, Account("a-1"), 1)
    list(store.read())
    assert spans.all == []
    flags = [int(each["traceparent"][-2:], 16) & TraceFlags.SAMPLED for each in metadata(plain)]
    assert flags == [0, 0]


def test_other_metadata_stays(store: ef.Store, plain: ef.Store, spans: Collected) -> None:
    """The context of a span is one more entry; one that the caller sets itself wins."""
    with store.context(actor="ann"):
        store.using(reason="test").append(Paid(account="a-1", amount=1))
    store.using(traceparent="own").append(Paid(account="a-1", amount=1))
    span = spans.named("append shop")[0]
    assert metadata(plain) == [
        {"actor": "ann", "reason": "test", "traceparent": traceparent(span)},
        {"traceparent": "own"},
    ]


def test_a_traced_store_is_a_store(tmp_path: Path, spans: Collected) -> None:
    """It is of the class of the given store, is closed with it, and tracing it again replaces the traces."""

    class Own(ef.Store):
        def rename(self) -> str:
            return "renamed"

    with telemetry.traced(Own(str(tmp_path / "own.db")), name="own", tracer_provider=spans.provider) as own:
        assert own.rename() == "renamed"
        assert isinstance(own.using(actor="ann"), Own)
        own.append(Paid(account="a-1", amount=1))
        again = telemetry.traced(own, name="again", tracer_provider=spans.provider)
        again.append(Paid(account="a-1", amount=1))
        list(again.read())
    assert spans.names == ["append own", "append again", "read again"]
    with pytest.raises(ef.EventfoldError) as closed:
        again.append(Paid(account="a-1", amount=1))
    assert closed.value.code == "store-closed"
    assert attributes(spans.all[-1])["error.type"] == "store-closed"
    with pytest.raises(ef.InvalidInput, match="no store"):
        telemetry.traced(cast(Any, "shop.db"))
    with ef.Store("memory:") as plain:
        with pytest.raises(ef.InvalidInput, match="no provider"):
            telemetry.traced(plain, tracer_provider=cast(Any, 5))
        with pytest.raises(ef.InvalidInput, match="no text"):
            telemetry.traced(plain, name=cast(Any, 5))


def test_the_current_span_is_that_of_the_call(store: ef.Store, spans: Collected) -> None:
    """A decision function runs in the span of the decision, and afterwards the caller's span is current again."""
    from opentelemetry.trace import get_current_span

    seen: list[int] = []

    def look(account: Account) -> list[Paid]:
        seen.append(get_current_span().get_span_context().span_id)
        return []

    with spans.within() as caller:
        store.decide(look, Account("a-1"))
        assert get_current_span().get_span_context() == caller
    assert seen == [context(spans.one("decide look")).span_id]


def test_methods_of_an_own_class_are_called_with_traces_as_without(spans: Collected) -> None:
    """Those that it replaces are not left out, and what they call by super() has the spans."""
    called: list[str] = []

    class Own(ef.Store):
        def append(self, *events: Any, **options: Any) -> ef.Receipt:
            called.append("append")
            return super().append(*events, **options)

        def extend(self, events: Any, **options: Any) -> int:
            called.append("extend")
            return super().extend(events, **options)

        def decide(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
            called.append("decide")
            return super().decide(function, *args, **kwargs)

        def state(self, question: Any, **bounds: Any) -> Any:
            called.append("state")
            return super().state(question, **bounds)

        def read(self, *args: Any, **bounds: Any) -> Any:
            called.append("read")
            return super().read(*args, **bounds)

    with Own("memory:") as own:
        for _ in range(2):
            own = telemetry.traced(own, name="own", tracer_provider=spans.provider)
        own.append(Paid(account="a-1", amount=1))
        own.extend([Paid(account="a-1", amount=1)])
        own.decide(pay, Account("a-1"), 2)
        own.state(Account("a-1"))
        list(own.read())
    assert called == ["append", "extend", "decide", "state", "read"]
    inside = ["read own", "append own", "decide pay"]
    assert spans.names == ["append own", "append own", *inside, "state Account", "read own"]
