"""/metrics of the server: what it shows to whom, in both formats, and under a store that does not answer in time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from prometheus_client.openmetrics import parser as open_metrics
from starlette.testclient import TestClient

import eventfold as ef
from eventfold import monitoring
from eventfold.alerts.facts import AlertRaised, new_event_of
from eventfold.concurrency import run
from eventfold.errors import ProcessError, StoreClosed
from eventfold.log.append import submit
from eventfold.monitoring.collector import families
from eventfold.monitoring.exposition import Families, add_lines, encode, lines_of
from eventfold.monitoring.scrapes import BoundedState, Measured, Scrapes, StateNow
from eventfold.monitoring.state import Sample
from eventfold.monitoring.table import METRICS
from eventfold.ports.messages import AppendRequest
from eventfold.projections.backed_up import TAG, TYPE, BackedUp
from eventfold.server import Settings, application
from eventfold.server.scopes import Scope
from eventfold.server.settings import EventSettings, LimitSettings, MetricsSettings
from tests.monitoring.shop import Order, Paid, Placed, Reminding, Samples, Sold, mail, place, read_back
from tests.monitoring.test_rules import needs_promtool, promtool
from tests.server.keys import bearer, issue, with_keys
from tests.support.servers.postgres import shared

OPEN = Settings(events=EventSettings(accept_unknown=True))
LOCAL = "http://127.0.0.1"


def client_of(app: Any, **headers: str) -> TestClient:
    """A client of this machine."""
    return TestClient(app, base_url=LOCAL, client=("127.0.0.1", 50_000), headers=headers)


def post(client: TestClient, type: str = "Seen") -> None:
    """Append an event."""
    event: dict[str, Any] = {"type": type, "data": {}}
    response = client.post("/v1/events", json={"events": [event]})
    assert response.status_code == 201, response.text


def scraped(client: TestClient, **headers: str) -> Samples:
    """What the server shows."""
    response = client.get("/metrics", headers=headers)
    assert response.status_code == 200, response.text
    return Samples(response.text)


def parsed(text: str) -> list[Any]:
    """The families of a text in the format OpenMetrics, which must be valid."""
    module: Any = open_metrics
    return list(module.text_string_to_metric_families(text))


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Path]:
    """A store in which everything happened that has a metric of the state."""
    path = tmp_path / "shop.db"
    with ef.Store(str(path)) as store:
        store.append(Placed("a"), Placed("bad"), Paid("bad"), Placed("b"))
        store.project(Sold)
        with pytest.raises(ProcessError):
            store.run_until_idle(Reminding, mail)
        raised = AlertRaised("Lagging", "", str(uuid4()), "It lags.", "page", 1)
        run(submit(store.projections.log.appender, AppendRequest((new_event_of(raised),))))
        store.projections.record(*store.projections.verify(), store.projections.verify_log())
        store.projections.rebuild(Sold)
        with store.follow(name="listener") as follower:
            next(iter(follower))
            follower.acknowledge()
        yield path


def test_every_metric_of_the_table_is_shown_after_something_happened(busy: Path) -> None:
    """Each has a value: recorded by a process, read from the state, or of a server."""
    with monitoring.measured(ef.Store(str(busy))) as store:
        store.decide(place, Order("c"))
        with store.lock(Order("c")):
            store.append(Paid("c"))
        with pytest.raises(ProcessError):
            store.run_until_idle(mail)
        store.projections.append_fact(TYPE, TAG, BackedUp(1, 1))
        used = Samples(monitoring.collector(store))
    settings = msgspec.structs.replace(OPEN, limits=LimitSettings(calls=1))
    with client_of(application(str(busy), settings=settings)) as client:
        post(client)
        client.get("/v1/head", headers={"Host": "elsewhere.example"})
        client.app.server.hub._at_drop("too-slow")  # type: ignore[attr-defined]
        shown = scraped(client)
    names = {name.removeprefix("eventfold_") for name in used.names | shown.names}
    missing = {each.name for each in METRICS if not {each.name, f"{each.name}_count"} & names}
    assert missing == set()


def test_the_state_of_a_busy_store_is_shown_as_it_is(busy: Path) -> None:
    """Read models with parked events, a stuck process, timers, an undelivered effect, a follower, verifications."""
    with client_of(application({"shop": str(busy)}, settings=OPEN)) as client:
        found = scraped(client)
    of = {"store": "shop"}
    assert found("head_position", **of) == 12
    sold = of | {"projection": "metrics_sold"}
    assert found("projection_parked", **sold) == 1
    assert [each["state"] for each in found.of("projection_state") if each["projection"] == "metrics_sold"] == [
        "parked"
    ]
    waited = found("projection_oldest_parked_seconds", **sold)
    assert waited is not None and waited > 0
    assert found("projection_generation", **sold, role="live") == 1
    assert found("projection_generation", **sold, role="building") == 2
    assert found("process_timers", **of, process="metrics_reminding") == 2
    assert found("process_timers_overdue", **of, process="metrics_reminding") == 0
    assert found("process_stuck", **of, process="metrics_reminding") == 1
    assert found("effects_undelivered", **of, effect="metrics_mail") == 1
    lag = found("follower_lag_events", **of, name="listener")
    assert lag is not None and lag > 0
    assert found("verify_ok", **of, what="log") == 1
    assert found("verify_ok", **of, what="ledger:metrics_sold") == 1
    assert found("disk_free_bytes", **of) and found("store_bytes", **of, part="data")
    assert found("alerts", **of, alert="Lagging", severity="page", state="raised") == 1
    assert found("scrape_error", **of) == 0


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_the_state_is_read_on_every_engine(engine: str, tmp_path: Path) -> None:
    """Also where the engine of the server suspends, so that the state is read by another one; and read-only."""
    url = str(tmp_path / "shop.db") if engine == "sqlite" else shared().url(schema=f"s{uuid4().hex[:12]}")
    with ef.Store(url) as store:
        store.append(Placed("a"), Placed("bad"))
        store.project(Sold)
        with client_of(application(url, settings=Settings(read_only=True))) as client:
            found = scraped(client)
    assert found("head_position") == 2
    assert found("projection_parked", projection="metrics_sold") == 1
    assert found("scrape_error") == 0
    assert list(found.of("store_bytes"))


def test_calls_are_counted_by_route_method_and_status() -> None:
    """A route is its path in the table, never the address that was asked for; unknown methods are one."""
    with client_of(application("memory:", settings=OPEN)) as client:
        post(client)
        client.get("/v1/stores/default/events/1")
        client.get("/v1/events/1?secret=4711")
        client.get("/secret/4711")
        client.request("BREW", "/v1/head")
        found = scraped(client)
    assert found("http_requests_total", route="/events", method="POST", status="201") == 1
    assert found("http_requests_total", route="/events/{position}", method="GET", status="200") == 2
    assert found("http_requests_total", route="unmatched", method="GET", status="404") == 1
    assert found("http_requests_total", route="unmatched", method="other", status="405") == 1
    assert found("http_request_duration_seconds_count", route="/events/{position}") == 2
    assert found("appends_total", outcome="written") == 1
    assert "4711" not in found.text and "BREW" not in found.text


def test_a_key_needs_the_scope_metrics_and_sees_its_stores(tmp_path: Path) -> None:
    """Its own scope, so that Prometheus needs no right to read events; a key for some stores sees no others."""
    whole = issue(tmp_path, "prometheus", (Scope.METRICS,))
    bound = issue(tmp_path, "bound", (Scope.METRICS,), stores=("bank",))
    narrowed = issue(tmp_path, "narrowed", (Scope.METRICS,), tags=("tenant:a",))
    admin = issue(tmp_path, "admin", tuple(set(Scope) - {Scope.METRICS}))
    app = application({"bank": "memory:", "shop": "memory:"}, settings=with_keys(tmp_path, OPEN))
    with client_of(app) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers=bearer(admin)).status_code == 403
        assert client.get("/metrics", headers=bearer(narrowed)).status_code == 403
        found = scraped(client, **bearer(whole))
        assert found("head_position", store="bank") == found("head_position", store="shop") == 0
        assert found("auth_refused_total", reason="unauthenticated") == 1
        assert found("auth_refused_total", reason="forbidden") == 1
        assert found("auth_refused_total", reason="outside-scope") == 1
        assert client.get("/v1/stores/bank/head", headers=bearer(whole)).status_code == 403
        part = scraped(client, **bearer(bound))
        assert part("head_position", store="bank") == 0
        assert "shop" not in part.text and "http_requests" not in part.text


def test_programs_of_this_machine_may_scrape_without_a_key_where_the_settings_say_so(tmp_path: Path) -> None:
    """Only /metrics, only from loopback, not through a proxy, and not under another name (of a page in a browser)."""
    issue(tmp_path)
    settings = msgspec.structs.replace(with_keys(tmp_path, OPEN), metrics=MetricsSettings(loopback_without_key=True))
    with client_of(application("memory:", settings=settings)) as client:
        assert scraped(client)("head_position") == 0
        assert client.get("/v1/head").status_code == 401
        assert client.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 401
        assert client.get("/metrics", headers={"Authorization": "Bearer efk_wrong"}).status_code == 401
        assert client.get("/metrics", headers={"Host": "evil.example"}).status_code == 401
        far = TestClient(client.app, base_url=LOCAL, client=("203.0.113.9", 50_000))
        assert far.get("/metrics").status_code == 401


def test_open_metrics_is_answered_on_request_and_is_valid() -> None:
    """Both formats are read by the parsers of prometheus_client; the ending mark is there."""
    with client_of(application("memory:", settings=OPEN)) as client:
        post(client, 'a"b\\')
        response = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert response.text.endswith("# EOF\n")
        families = {each.name: each for each in parsed(response.text)}
        assert families["eventfold_events_appended"].samples[0].labels["type"] == 'a"b\\'
        assert client.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize("media", ["application/openmetrics-text", "text/plain"])
@pytest.mark.parametrize("version", ["abc", "1.x", "", "1.0.0; escaping=none", "-", "1..2", "9", "9" * 5_000])
def test_a_header_accept_that_is_malformed_is_not_an_error_of_the_server(media: str, version: str) -> None:
    """It is answered as without it."""
    with client_of(application("memory:", settings=OPEN)) as client:
        response = client.get("/metrics", headers={"Accept": f"{media}; version={version}"})
        assert response.status_code == 200
        assert "eventfold_scrape_error" in response.text


@needs_promtool
def test_promtool_accepts_what_is_shown(busy: Path) -> None:
    """Names, types and texts follow the conventions of Prometheus."""
    with client_of(application(str(busy), settings=OPEN)) as client:
        post(client)
        text = client.get("/metrics").text
    assert promtool("check", "metrics", input=text) == ""


def test_exemplars_have_the_trace_in_which_a_duration_was_observed() -> None:
    """OpenMetrics carries them; the older format leaves them out."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with monitoring.measured(ef.Store("memory:"), trace_id=lambda: trace) as store:
        store.append(Placed("a"))
        text = encode(monitoring.collector(store), "application/openmetrics-text")[0].decode()
    exemplars = [
        sample.exemplar.labels
        for family in parsed(text)
        for sample in family.samples
        if family.name == "eventfold_append_duration_seconds" and sample.exemplar
    ]
    assert exemplars == [{"trace_id": trace}]


def test_without_recording_only_the_state_is_shown_and_stores_are_as_they_were() -> None:
    """`metrics.record = false` leaves nothing around the stores and the routes."""
    settings = msgspec.structs.replace(OPEN, metrics=MetricsSettings(record=False))
    app = application("memory:", settings=settings)
    assert type(app.server.stores["default"]) is ef.AsyncStore
    with client_of(app) as client:
        post(client)
        found = scraped(client)
    assert found("head_position") == 1
    assert not found.names & {"eventfold_appends_total", "eventfold_http_requests_total", "eventfold_streams"}


def test_a_state_that_takes_long_is_not_waited_for_and_is_shown_later() -> None:
    """A scrape gets the last known state after its wait, with the error; what was read meanwhile is in the next one."""
    go_on, reading = threading.Event(), threading.Event()
    heads = iter((1.0, 2.0, 3.0))

    def read() -> list[Sample]:
        head = next(heads)
        if head > 1:
            reading.set()
            assert go_on.wait(60)
        return [Sample("head_position", (), head)]

    state = BoundedState(read, keep_s=0.0, wait_s=30.0)
    assert state.now().samples[0].value == 1
    late = state.now(0.01)
    assert late.is_late and late.samples[0].value == 1
    assert reading.wait(60)
    assert state.now(0.01).is_late  # no second reading begins beside the first
    go_on.set()
    found = state.now()
    assert not found.is_late and found.samples[0].value in (2, 3)


def test_the_state_is_read_before_the_next_scrape_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """After two scrapes the third finds what was read shortly before; when no third comes, nothing more is read."""
    monkeypatch.setattr("eventfold.monitoring.scrapes.EXPECTED_S", (0.0, 60.0))
    monkeypatch.setattr("eventfold.monitoring.scrapes.AHEAD_S", 0.0)
    reads: list[float] = []
    store = Measured("shop", None, lambda: pytest.fail("it is replaced"))
    store.state = BoundedState(lambda: [Sample("head_position", (), len(reads))] if not reads.append(1) else [], 0.0)
    scrapes = Scrapes([store])
    scrapes.states()
    time.sleep(0.2)
    scrapes.states()
    ends = time.monotonic() + 60
    while len(reads) < 3:
        assert time.monotonic() < ends, "it was not read ahead"
        time.sleep(0.01)
    scrapes.close()
    time.sleep(0.3)
    assert len(reads) == 3


def test_a_scrape_reads_the_state_once_however_long_it_takes_to_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that has ended, and is too old, before the scrape begins to wait for it is not repeated."""
    reads: list[float] = []
    store = Measured("shop", None, lambda: pytest.fail("it is replaced"))
    store.state = BoundedState(lambda: [Sample("head_position", (), len(reads))] if not reads.append(1) else [], 0.0)
    begin = store.state.begin

    def begin_and_end(ahead_s: float = 0.0) -> threading.Event | None:
        running = begin(ahead_s)
        assert running is not None and running.wait(60)
        return running

    monkeypatch.setattr(store.state, "begin", begin_and_end)
    ((_, found),) = Scrapes([store]).states()
    assert len(reads) == 1 and not found.is_late


def test_a_state_is_kept_for_its_time() -> None:
    """Many scrapes at once read the store once."""
    calls: list[int] = []
    state = BoundedState(lambda: [Sample("head_position", (), len(calls))] if not calls.append(1) else [], keep_s=3_600)
    threads = [threading.Thread(target=state.now) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert len(calls) == 1
    assert state.now().samples[0].value == 1


def test_a_store_that_cannot_be_read_is_an_error_without_old_figures(caplog: pytest.LogCaptureFixture) -> None:
    """No figure is better than one of a store that has gone; the log of the program says why."""
    answers: list[list[Sample] | Exception] = [[Sample("head_position", (), 1)], StoreClosed("Closed.", "Open it.")]

    def read() -> list[Sample]:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    state = BoundedState(read, keep_s=0.0, wait_s=60.0)
    assert not state.now().is_late
    failed = state.now()
    assert failed.is_late and not failed.samples
    assert "Closed." in caplog.text


@pytest.mark.parametrize("name", ["a", 'q"uote', "back\\slash", "line\nbreak", "\\n", "é", "{}", 'x"} 1 #'])
@pytest.mark.parametrize("value", [0.0, 1.0, 1795960309.121406, 2e20, 1e-7])
def test_lines_written_ahead_say_the_same_as_those_of_prometheus_client(name: str, value: float) -> None:
    """They are read back with the same labels and value, in both formats."""
    sample = Sample("projection_state", (name, "current"), value)
    store = Measured(name, None, lambda: pytest.fail("it is not read"))
    theirs = encode(Families(families([(store, StateNow([sample], False, 0.0))])))[0].decode()
    ours = add_lines(b"", [lines_of(name, [sample])]).decode()
    key = ("eventfold_projection_state", frozenset({"store": name, "projection": name, "state": "current"}.items()))
    assert read_back(ours)[key] == read_back(theirs)[key] == value
    (family,) = parsed(add_lines(b"# EOF\n", [lines_of(name, [sample])]).decode())
    assert (family.samples[0].labels["projection"], family.samples[0].value) == (name, value)


def test_a_scrape_of_a_store_whose_file_was_replaced_asks_for_it_to_be_opened_again(tmp_path: Path) -> None:
    """Otherwise a server that only Prometheus calls would have no figures until it is started again."""
    path, other = tmp_path / "shop.db", tmp_path / "other.db"
    for each in (path, other):
        ef.Store(str(each)).close()
    app = application(str(path), settings=OPEN)
    with client_of(app) as client:
        assert client.get("/metrics").status_code == 200
        assert not app.server.running.damaged.is_set()
        other.replace(path)
        ends = time.monotonic() + 20
        while not app.server.running.damaged.is_set():
            assert time.monotonic() < ends
            time.sleep(0.3)
            assert client.get("/metrics").status_code == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_was_forked_while_a_state_was_read_reads_it_again() -> None:
    """The thread that read is not in the child: to wait for it would delay each scrape, and all would be late."""
    goes_on, calls = threading.Event(), list[int]()

    def read() -> list[Sample]:
        calls.append(1)
        if len(calls) == 1:
            goes_on.wait(20)
        return []

    state = BoundedState(read)
    assert state.now(0.01).is_late
    child = os.fork()
    if not child:
        os._exit(int(state.now(10).is_late))
    goes_on.set()
    assert os.waitpid(child, 0)[1] == 0


def test_a_warning_of_the_library_is_a_line_in_the_format_of_the_server() -> None:
    """A program that reads the log as JSON can read each line, also that of a store whose state cannot be read."""
    code = (
        "import logging\n"
        "from eventfold.server.logs import configure_logs\n"
        "from eventfold.server.settings import LogSettings\n"
        "configure_logs(LogSettings(format='json'))\n"
        "logging.getLogger('eventfold.monitoring').warning('The state of a store cannot be read.')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert msgspec.json.decode(done.stderr)["message"] == "The state of a store cannot be read."
