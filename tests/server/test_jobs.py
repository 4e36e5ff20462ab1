"""Jobs over HTTP: rebuilds and verifications, their progress, a stop, and a server that ends meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from eventfold import Query, Store
from eventfold.aio import AsyncStore
from eventfold.projections.admin import ProjectionAdmin
from eventfold.server import application
from eventfold.server.jobs import board
from tests.server.bank import Balance, Deposited

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A store with a read model over 300 deposits."""
    path = str(tmp_path / "bank.db")
    with Store(path) as store:
        store.extend([Deposited(f"a-{number % 7}", Decimal(1)) for number in range(300)])
        store.project(Balance)
    return path


def serving(path: str) -> TestClient:
    """A server over that store."""
    return TestClient(application(AsyncStore(path), modules=["tests.server.bank"]))


def begin(client: TestClient, path: str, **body: Any) -> Any:
    """Begin a job; returns it."""
    answer = client.post(path, json={"reason": "because", **body})
    assert answer.status_code == 202, answer.text
    assert client.get(answer.headers["location"]).json()["id"] == answer.json()["id"]
    return answer.json()


def ended(client: TestClient, job: str) -> Any:
    """Wait until a job has ended; returns it."""
    deadline = time.monotonic() + 60
    while (found := client.get(f"/v1/jobs/{job}").json())["state"] == "running":
        assert time.monotonic() < deadline, "the job did not end"
        time.sleep(0.01)
    return found


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Rebuilds wait after their first page until this is set, or until they are to stop."""
    go_on, rebuild = threading.Event(), ProjectionAdmin.rebuild

    def waiting(self: ProjectionAdmin, projection: Any, **options: Any) -> int:
        progress, stop = options["progress"], options["stop"]

        def reported(done: int, all: int) -> None:
            progress(done, all)
            while not (go_on.is_set() or stop()):
                time.sleep(0.005)

        return rebuild(self, projection, **(options | {"progress": reported}))

    monkeypatch.setattr(ProjectionAdmin, "rebuild", waiting)
    yield go_on
    go_on.set()


def test_a_read_model_is_rebuilt_and_made_live(path: str) -> None:
    """The job says who began it and why, and how it ended."""
    with serving(path) as client:
        job = begin(client, "/v1/projections/bank_balance/rebuild", actor="eve", switch=True)
        assert (job["kind"], job["projection"], job["actor"], job["reason"]) == (
            "rebuild",
            "bank_balance",
            "eve",
            "because",
        )
        found = ended(client, job["id"])
        assert (found["state"], found["verdict"]) == ("done", "Generation 2 was built and is live.")
        assert client.get("/v1/projections/bank_balance").json()["status"]["generation"] == 2
        assert [each["id"] for each in client.get("/v1/jobs").json()["jobs"]] == [job["id"]]


def test_a_store_is_verified_and_the_results_are_kept_in_the_log(path: str) -> None:
    """The log, each ledger and, if asked for, each row."""
    with serving(path) as client:
        found = ended(client, begin(client, "/v1/jobs", rows=True, actor="eve")["id"])
        assert (found["state"], found["proved"], found["projection"]) == ("done", True, "")
        of_one = ended(client, begin(client, "/v1/projections/bank_balance/verify")["id"])
        assert (of_one["state"], of_one["proved"]) == ("done", True)
    with Store(path) as store:
        facts = [
            (each.event.subject, each.event.kind, each.metadata.actor) for each in store.read(Query.of("$verified"))
        ]
    assert facts == [
        ("log", "log", "eve"),
        ("bank_balance", "rows", "eve"),
        ("bank_balance", "ledger", "eve"),
        ("bank_balance", "ledger", None),
    ]


def test_a_job_shows_its_progress_and_is_stopped(path: str, held: threading.Event) -> None:
    """A rebuild that is begun again continues where it stopped."""
    with serving(path) as client:
        job = begin(client, "/v1/projections/bank_balance/rebuild")["id"]
        deadline = time.monotonic() + 60
        while not (found := client.get(f"/v1/jobs/{job}").json())["done"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert (found["state"], found["all"]) == ("running", 302)  # the events of the job itself are in the log too
        stopped = client.post(f"/v1/jobs/{job}/stop", json={"reason": "too slow", "actor": "bob"}).json()
        assert stopped["state"] in ("stopped", "running")
        assert ended(client, job)["state"] == "stopped"
        assert client.post(f"/v1/jobs/{job}/stop", json={"reason": "again"}).json()["state"] == "stopped"
        held.set()
        again = ended(client, begin(client, "/v1/projections/bank_balance/rebuild")["id"])
        assert again["verdict"] == "Generation 2 was built."


def test_a_job_goes_on_when_the_server_is_started_again(path: str, held: threading.Event) -> None:
    """It is not ended in the log by a server that ends; the next one continues it."""
    with serving(path) as client:
        job = begin(client, "/v1/projections/bank_balance/rebuild", switch=True)["id"]
        while not client.get(f"/v1/jobs/{job}").json()["done"]:
            time.sleep(0.01)
    with Store(path) as store:
        assert store.count(Query.of("$job-ended")) == 0
    held.set()
    with serving(path) as client:
        found = ended(client, job)
        assert (found["state"], found["verdict"]) == ("done", "Generation 2 was built and is live.")


def test_of_two_servers_one_runs_a_job_and_the_other_takes_over_when_that_has_ended(
    path: str, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the other one neither runs it nor ends it in the log."""
    monkeypatch.setattr(board, "CLAIM_S", 0.05)
    with contextlib.ExitStack() as stack:
        first = contextlib.ExitStack()
        client = first.enter_context(serving(path))
        job = begin(client, "/v1/projections/bank_balance/rebuild", switch=True)["id"]
        while not client.get(f"/v1/jobs/{job}").json()["done"]:
            time.sleep(0.01)
        other = stack.enter_context(serving(path))
        assert other.get(f"/v1/jobs/{job}").json()["state"] == "waiting"
        refused = other.post(f"/v1/jobs/{job}/stop", json={"reason": "no"})
        assert (refused.status_code, refused.json()["code"]) == (409, "lease-held")
        assert client.get(f"/v1/jobs/{job}").json()["state"] == "running"
        first.close()
        held.set()
        deadline = time.monotonic() + 60
        while (found := other.get(f"/v1/jobs/{job}").json())["state"] in ("waiting", "running"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert (found["state"], found["verdict"]) == ("done", "Generation 2 was built and is live.")
    with Store(path) as store:
        assert store.count(Query.of("$job-ended")) == 1


def test_a_job_that_no_server_can_continue_waits_and_can_be_stopped(path: str, held: threading.Event) -> None:
    """A server without the class of the read model."""
    with serving(path) as client:
        job = begin(client, "/v1/projections/bank_balance/rebuild")["id"]
    with TestClient(application(AsyncStore(path))) as client:
        assert client.get(f"/v1/jobs/{job}").json()["state"] == "waiting"
        assert client.post(f"/v1/jobs/{job}/stop", json={"reason": "gone"}).json()["state"] == "stopped"


def test_a_rebuild_that_fails_says_why(path: str) -> None:
    """A failure of a handler is the verdict, not a failure of the server."""
    with Store(path) as store:
        store.projections.target(Balance)
    with serving(path) as client, pytest.MonkeyPatch.context() as patched:
        patched.setattr(ProjectionAdmin, "rebuild", fail)
        found = ended(client, begin(client, "/v1/projections/bank_balance/rebuild")["id"])
    assert found["state"] == "failed"
    assert "its log has the cause" in found["verdict"]


def fail(*_: Any, **__: Any) -> int:
    """A defect."""
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    ("url", "body", "status"),
    [
        ("/v1/projections/nothing/rebuild", {"reason": "x"}, 404),
        ("/v1/projections/nothing/verify", {"reason": "x"}, 404),
        ("/v1/projections/bank_balance/rebuild", {}, 422),
        ("/v1/projections/bank_balance/rebuild", {"reason": "x", "at": 3, "switch": True}, 422),
        ("/v1/projections/bank_balance/rebuild", {"reason": "x", "at": "soon"}, 422),
        ("/v1/jobs", {"reason": "x", "kind": "rebuild"}, 422),
        ("/v1/jobs/0123/stop", {"reason": "x"}, 404),
    ],
)
def test_a_job_that_cannot_be_begun_is_refused(path: str, url: str, body: dict[str, Any], status: int) -> None:
    """And nothing is written."""
    with serving(path) as client:
        assert client.post(url, json=body).status_code == status
        assert client.get("/v1/jobs/0123").status_code == 404
        assert client.get("/v1/jobs").json() == {"jobs": []}


def test_more_jobs_than_a_server_runs_are_refused_for_now(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the time after which to try again."""
    go_on, verify = threading.Event(), ProjectionAdmin.verify

    def waiting(self: ProjectionAdmin, *named: Any, **options: Any) -> Any:
        assert go_on.wait(60)
        return verify(self, *named, **options)

    monkeypatch.setattr(ProjectionAdmin, "verify", waiting)
    with serving(path) as client:
        jobs = [begin(client, "/v1/jobs")["id"] for _ in range(4)]
        answer = client.post("/v1/jobs", json={"reason": "x"})
        assert (answer.status_code, answer.json()["title"]) == (503, "4 jobs are running.")
        assert answer.headers["retry-after"] == "30"
        go_on.set()
        assert [ended(client, job)["state"] for job in jobs] == ["done"] * 4
