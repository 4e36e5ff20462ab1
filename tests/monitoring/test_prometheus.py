"""A real Prometheus scrapes a real server with our rules; an alert fires, is delivered, and is resolved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import ProjectionStopped
from eventfold.server.scopes import Scope
from tests.cli.commands import run
from tests.monitoring.shop import Placed, Strict
from tests.server.keys import issue
from tests.server.serving import Served
from tests.support.servers.prometheus import (
    Alertmanager,
    Prometheus,
    Receiver,
    needs_alertmanager,
    needs_prometheus,
    wait_for,
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of alerts."""
    found = Receiver()
    yield found
    found.close()


def received(receiver: Receiver, name: str, status: str) -> dict[str, Any] | None:
    """The alert with a name and a status, if it was delivered."""
    found = [each for each in receiver.alerts if each["labels"]["alertname"] == name and each["status"] == status]
    return found[-1] if found else None


@needs_prometheus
@needs_alertmanager
@pytest.mark.timeout(300)
def test_a_stopped_read_model_is_reported_and_resolved(tmp_path: Path, receiver: Receiver) -> None:
    """From the handler's error over Prometheus and Alertmanager to the receiver, and back when it is corrected."""
    path, key = tmp_path / "shop.db", issue(tmp_path, "prometheus", (Scope.METRICS,))
    rules = tmp_path / "rules.yml"
    rules.write_text(run("alert-rules").out)
    with ef.Store(str(path)) as store:
        store.append(Placed("a"), Placed("bad"))
        with pytest.raises(ProjectionStopped):
            store.project(Strict)
        with Served(tmp_path, "--store", "shop=shop.db", "--keys", "keys.db") as served:
            scrape = {
                "job_name": "eventfold",
                "authorization": {"credentials": key.key},
                "static_configs": [{"targets": [f"127.0.0.1:{served.port}"]}],
            }
            with Alertmanager(receiver) as manager, Prometheus(scrape, rules, manager) as prometheus:
                alert = wait_for(lambda: received(receiver, "EventfoldProjectionStopped", "firing"), "the alert")
                assert alert["labels"] == {
                    "alertname": "EventfoldProjectionStopped",
                    "store": "shop",
                    "projection": "metrics_strict",
                    "severity": "page",
                }
                what = "The read model metrics_strict of shop has stopped at an event."
                assert alert["annotations"]["summary"] == what
                assert "eventfold projections resume STORE metrics_strict" in alert["annotations"]["action"]
                wait_for(lambda: received(receiver, "EventfoldWatchdog", "firing"), "the watchdog")
                (target,) = prometheus.get("/api/v1/targets")["data"]["activeTargets"]
                assert (target["health"], target["lastError"]) == ("up", "")
                groups = prometheus.get("/api/v1/rules")["data"]["groups"]
                assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
                store.projections.skip(Strict, 2, "it was a test")
                store.projections.resume(Strict)
                store.project(Strict)
                wait_for(lambda: received(receiver, "EventfoldProjectionStopped", "resolved"), "its end")
