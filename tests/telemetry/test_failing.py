"""Telemetry that fails or blocks: no call of a store fails with it, and no other caller waits for it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Sampler

import eventfold as ef
from eventfold import telemetry
from tests.telemetry.bank import Account, Bonus, Opened, Paid, Totals, pay

WAIT_S = 60.0


class Raising(SpanExporter):
    """An exporter that raises."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Raise."""
        raise ConnectionError("there is no collector")


class RaisingProcessor(SpanProcessor):
    """A processor that raises where a span begins, or where it ends."""

    def __init__(self, where: str) -> None:
        self.where = where

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        """Raise, or not."""
        if self.where == "start":
            raise ValueError(self.where)

    def on_end(self, span: ReadableSpan) -> None:
        """Raise, or not."""
        if self.where == "end":
            raise ValueError(self.where)


class RaisingSampler(Sampler):
    """A sampler that raises."""

    def should_sample(self, *args: Any, **named: Any) -> Any:
        """Raise."""
        raise ValueError("sampler")

    def get_description(self) -> str:
        """Return a name."""
        return "raising"


def failing(how: str) -> TracerProvider:
    """Return a provider that fails."""
    provider = TracerProvider(sampler=RaisingSampler() if how == "sampler" else None)
    if how != "sampler":
        provider.add_span_processor(SimpleSpanProcessor(Raising()) if how == "exporter" else RaisingProcessor(how))
    return provider


@pytest.mark.parametrize("how", ["exporter", "start", "end", "sampler"])
def test_telemetry_that_raises_fails_no_call(
    how: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is written, folded and handled; a failure is logged once, that of an exporter by the SDK."""
    monkeypatch.setattr("eventfold.telemetry.spans._failed_before", [])
    with telemetry.traced(ef.Store("memory:"), tracer_provider=failing(how)) as store:
        store.append(Opened(account="a-1"))
        assert store.decide(pay, Account("a-1"), 5).positions == range(2, 3)
        assert store.state(Account("a-1")).total == 5
        store.project(Totals)
        store.run_until_idle(Bonus)
        assert [each.type for each in store.read(raw=True)][:3] == ["TracedAccountOpened", "TracedPaid", "TracedPaid"]
        assert store.rows(Totals, account="a-1")[0].total == 5
    logged = [each.name for each in caplog.records if each.levelname in ("WARNING", "ERROR")]
    assert logged.count("eventfold") == (0 if how == "exporter" else 1)
    assert logged


class Blocking(SpanExporter):
    """An exporter that blocks until it is released."""

    def __init__(self) -> None:
        self.reached, self.released = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Block."""
        self.reached.set()
        self.released.wait(WAIT_S)
        return SpanExportResult.SUCCESS


def test_an_exporter_that_blocks_makes_no_append_wait() -> None:
    """With a BatchSpanProcessor, which exports in a thread of its own and drops what it cannot hold."""
    exporter, provider = Blocking(), TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=8, max_export_batch_size=4))
    with telemetry.traced(ef.Store("memory:"), tracer_provider=provider) as store:
        try:
            for each in range(100):
                store.append(Paid(account="a-1", amount=each))
            assert exporter.reached.wait(WAIT_S)
            assert store.head() == 100
            assert not exporter.released.is_set()
        finally:
            exporter.released.set()
    provider.shutdown()


def test_an_exporter_that_blocks_one_decision_does_not_block_others_over_the_same_state(tmp_path: Path) -> None:
    """A SimpleSpanProcessor exports where a span ends: that is after the decision has left the pipeline."""
    exporter, provider = Blocking(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with ef.Store(str(tmp_path / "shop.db")) as plain:
        store = telemetry.traced(plain, tracer_provider=provider)
        blocked = threading.Thread(target=lambda: store.decide(pay, Account("a-1"), 1))
        blocked.start()
        try:
            assert exporter.reached.wait(WAIT_S)
            done = threading.Thread(target=lambda: plain.decide(pay, Account("a-1"), 2))
            done.start()
            done.join(WAIT_S)
            assert not done.is_alive()
            assert blocked.is_alive()
            assert plain.state(Account("a-1")).total == 3
        finally:
            exporter.released.set()
            blocked.join(WAIT_S)


def test_an_import_of_the_library_loads_no_telemetry() -> None:
    """Neither does a store that is not traced."""
    code = "import sys, eventfold as ef; ef.Store('memory:').head(); print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_without_the_extra_an_error_says_what_to_install() -> None:
    """Two sentences instead of an ImportError."""
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from eventfold import telemetry\n"
        "try: telemetry.traced\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S)
    assert done.stdout == (
        "MissingExtra Traces need the package 'opentelemetry-api', which is not installed. "
        "Install the extra: pip install 'eventfold[telemetry]'\n"
    )
