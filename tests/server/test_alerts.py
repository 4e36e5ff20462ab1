"""Alerts over HTTP: what is raised, what was not delivered, acknowledge and snooze with an actor and an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.alerts import delivery
from eventfold.alerts.delivery.settings import TargetSettings
from eventfold.errors import InvalidInput, ProcessError
from eventfold.server import Settings, application
from eventfold.server.settings import ServerSettings
from tests.alerts.delivery.facts import HOUR, cleared, micros, raised, record, until
from tests.alerts.delivery.receiving import SECRET, receiving
from tests.server.keys import bearer, issue, with_keys

CREATE = ServerSettings(create=True)
UNTIL = "2099-01-31T18:00:00Z"


class HeartbeatSeen(ef.Event):
    """What the rule of these tests watches."""

    machine: ef.Tag


class Quiet(ef.Alert, name="card_testing"):
    """A rule, so that the store knows the alert."""

    machine: ef.Tag
    seen: ef.Rate = ef.rate(per=ef.minutes(5), more_than=9)

    def evolve(self, event: HeartbeatSeen) -> None:
        """Count."""
        self.seen.add()


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A store in which one card is raised and one is cleared, and whose target refuses."""
    url = str(tmp_path / "shop.db")
    with ef.Store(url) as store:
        store.run_until_idle(Quiet)
        first, second = raised("c-1", micros(), "card_testing"), raised("c-2", micros(), "card_testing")
        record(store, first, second, cleared(second, micros()))
        refusing = delivery.webhook("http://127.0.0.1:9/", secret=None, name="pager", attempts=1)
        with pytest.raises(ProcessError):
            store.run_until_idle(refusing, clock=lambda: micros() + HOUR)
    return url


def test_what_is_raised_is_listed_acknowledged_and_snoozed(path: str) -> None:
    """With the target that refuses; without a credential the call names the actor."""
    with TestClient(application(path)) as client:
        listed = client.get("/v1/alerts").json()
        (episode,), (target,) = listed["episodes"], listed["targets"]
        assert (episode["alert"], episode["key"], episode["state"]) == ("card_testing", "c-1", "raised")
        assert target["target"] == "pager" and target["failed"] == 1 and "could not be reached" in target["error"]
        assert len(client.get("/v1/alerts?cleared=true").json()["episodes"]) == 2
        (of_key,) = client.get("/v1/alerts/card_testing?key=c-2").json()["episodes"]
        assert of_key["state"] == "cleared" and of_key["until"] is not None

        body: dict[str, Any] = {"key": "c-1", "until": UNTIL, "reason": "the bank calls back", "actor": "ann"}
        done = client.post("/v1/alerts/card_testing/acknowledge", json=body)
        assert done.status_code == 200 and done.json()["act"] == "acknowledge"
        (episode,) = client.get("/v1/alerts").json()["episodes"]
        assert episode["state"] == "acknowledged" and episode["acknowledged"]["actor"] == "ann"
        body = {"until": UNTIL, "reason": "known", "actor": "ann"}
        assert client.post("/v1/alerts/card_testing/snooze", json=body).status_code == 200
        assert client.get("/v1/alerts").json()["episodes"][0]["state"] == "snoozed"


@pytest.mark.parametrize(
    ("call", "body", "status", "says"),
    [
        ("card_testing/acknowledge", {"key": "c-2", "until": UNTIL, "reason": "x", "actor": "ann"}, 404, "no open"),
        ("card_tasting/snooze", {"until": UNTIL, "reason": "x", "actor": "ann"}, 404, "no alert"),
        ("card_testing/snooze", {"until": UNTIL, "reason": "x"}, 422, "actor"),
        ("card_testing/snooze", {"until": "2001-01-01T00:00:00Z", "reason": "x", "actor": "ann"}, 422, "has passed"),
        ("card_testing/snooze", {"until": "2099-01-31T18:00:00", "reason": "x", "actor": "ann"}, 422, "until"),
        ("card_testing/snooze", {"until": UNTIL, "actor": "ann"}, 422, "reason"),
    ],
)
def test_a_mistake_is_named(path: str, call: str, body: dict[str, Any], status: int, says: str) -> None:
    """With its status, in two sentences; nothing is written."""
    with TestClient(application(path)) as client:
        before = client.get("/v1/head").json()
        answer = client.post(f"/v1/alerts/{call}", json=body)
        assert answer.status_code == status and says in str(answer.json())
        assert client.get("/v1/head").json() == before


def test_the_owner_of_a_key_is_the_actor(path: str, tmp_path: Path) -> None:
    """Another one cannot be named without a right to do so."""
    settings = with_keys(tmp_path)
    key = bearer(issue(tmp_path, "bob"))
    with TestClient(application(path, settings=settings)) as client:
        body: dict[str, Any] = {"key": "c-1", "until": UNTIL, "reason": "mine"}
        assert client.post("/v1/alerts/card_testing/acknowledge", json=body, headers=key).status_code == 200
        (episode,) = client.get("/v1/alerts", headers=key).json()["episodes"]
        assert episode["acknowledged"]["actor"] == "bob"
        assert client.get("/v1/alerts").status_code == 401


def test_a_server_delivers_to_the_targets_of_its_settings(tmp_path: Path) -> None:
    """For each of its stores, whose name is in the message; a read-only server sends nothing."""
    url = str(tmp_path / "shop.db")
    with receiving() as receiver, ef.Store(url) as store:
        target = TargetSettings(to="webhook", url=receiver.url, secret=SECRET, group_page=0.0)
        settings = Settings(deliver={"pager": target})
        with TestClient(application({"shop": url}, settings=settings)):
            record(store, raised("c-1", micros()))
            until(lambda: receiver.states() == ["raised c-1"])
            assert receiver.received[0][1]["data"]["store"] == "shop"
        read_only = msgspec.structs.replace(settings, read_only=True)
        with TestClient(application({"shop": url}, settings=read_only)) as client:
            record(store, raised("c-2", micros()))
            assert len(client.get("/v1/alerts").json()["episodes"]) == 2
        assert receiver.states() == ["raised c-1"]


def test_a_target_that_cannot_be_used_is_named_when_the_server_starts(tmp_path: Path) -> None:
    """With the key of the setting."""
    settings = Settings(deliver={"pager": TargetSettings(to="webhook")})
    with (
        pytest.raises(InvalidInput, match=r"deliver\.pager is webhook, and has no url"),
        TestClient(application(str(tmp_path / "shop.db"), settings=msgspec.structs.replace(settings, server=CREATE))),
    ):
        pass
