"""Read models and processes over HTTP: status, rows, acts with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from eventfold import Query, Store
from eventfold.aio import AsyncStore
from eventfold.errors import ProcessError
from eventfold.server import application
from eventfold.server.projections import visible_status
from eventfold.server.scopes import Caller, Scope
from tests.server.bank import Balance, Deposited, Opened, Review

OWNERS = ("ann", "bob", "")


@pytest.fixture
def path(tmp_path: Any) -> str:
    """A store with a read model of three accounts, one of whose events is parked, and a process that is stuck."""
    path = str(tmp_path / "bank.db")
    with Store(path) as store:
        for number, owner in enumerate(OWNERS):
            store.append(Opened(f"a-{number}", owner), Deposited(f"a-{number}", Decimal(10 * number)))
        store.append(Deposited("a-1", Decimal(13)))
        store.project(Balance)
        with pytest.raises(ProcessError, match="no owner"):
            store.run_until_idle(Review)
    return path


@pytest.fixture
def client(path: str) -> Iterator[TestClient]:
    """A server over that store, which knows the bank."""
    with TestClient(application(AsyncStore(path), modules=["tests.server.bank"])) as found:
        yield found


def test_the_status_of_every_projection_is_listed(client: TestClient) -> None:
    """As `eventfold projections status` shows it."""
    found = client.get("/v1/projections").json()["projections"]
    assert [(each["name"], each["kind"], each["state"]) for each in found] == [
        ("bank_balance", "rows", "parked"),
        ("bank_review", "effects", "parked"),
    ]
    assert "thirteen" in found[0]["sentence"]


def test_one_projection_is_shown_with_checkpoints_parked_events_and_columns(client: TestClient) -> None:
    """The columns of a registered one."""
    found = client.get("/v1/projections/bank_balance").json()
    assert found["columns"] == {"account": "text", "balance": "decimal", "deposits": "int"}
    assert [(each["position"], each["state"]) for each in found["parked"]] == [(7, "parked")]
    assert (found["checkpoints"][0]["position"], found["record"]["live"]) == (7, 1)
    assert client.get("/v1/projections/bank_review").json()["columns"] is None


def test_a_status_quotes_no_data_to_a_caller_who_may_not_read_it(client: TestClient) -> None:
    """Its sentence names keys and errors of parked events."""
    with Store("memory:") as store:
        store.append(Deposited("a-1", Decimal(13)))
        store.project(Balance)
        (status,) = store.projections.status(Balance)
    assert "a-1" in status.sentence
    reader = Caller(name="r", scopes=frozenset({Scope.READ}))
    assert "a-1" not in visible_status(reader, status).sentence
    assert msgspec.structs.replace(visible_status(reader, status), sentence=status.sentence) == status


def test_rows_are_filtered_ordered_and_paged(client: TestClient) -> None:
    """By the filter language of `eventfold rows`."""
    rows = "/v1/projections/bank_balance/rows"
    assert client.get(f"{rows}?order=-balance&limit=2").json()["rows"] == [
        {"account": "a-2", "balance": "20", "deposits": 1},
        {"account": "a-1", "balance": "10", "deposits": 1},
    ]
    assert [each["account"] for each in client.get(f"{rows}?where=balance>5&where=account:a-1").json()["rows"]] == [
        "a-1"
    ]
    assert client.get(f"{rows}?where=balance>5&count=true").json() == {"count": 2}
    found, url = list[Any](), f"{rows}?limit=1"
    while True:
        page = client.get(url).json()
        found.extend(page["rows"])
        if "next" not in page:
            break
        url = f"{rows}?limit=1&after={page['next']}"
    assert found == client.get(rows).json()["rows"]
    assert len(found) == 3


def test_rows_are_asked_for_by_query_and_as_of_a_position(client: TestClient) -> None:
    """The body has the fields of the parameters; `at` folds the rows from the log."""
    rows = "/v1/projections/bank_balance/rows"
    asked = {"where": ["account:a-1"], "limit": 5}
    assert client.request("QUERY", rows, json=asked).json() == client.get(rows, params=asked).json()
    assert [each["account"] for each in client.get(f"{rows}?at=3").json()["rows"]] == ["a-0", "a-1"]
    assert client.get(f"{rows}?at=2000-01-01").json() == {"rows": []}


def test_rows_as_lines_are_all_rows(client: TestClient) -> None:
    """NDJSON: without a limit the whole table, in pages."""
    rows = "/v1/projections/bank_balance/rows"
    answer = client.get(rows, headers={"accept": "application/x-ndjson"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in answer.text.splitlines()] == client.get(rows).json()["rows"]
    limited = client.get(f"{rows}?limit=1", headers={"accept": "application/x-ndjson"})
    assert len(limited.text.splitlines()) == 1


def test_a_read_waits_for_the_position_of_a_write(client: TestClient, path: str) -> None:
    """The last position of a receipt, if a runner brings the read model there."""
    rows = "/v1/projections/bank_balance/rows"
    assert client.get(f"{rows}?wait=7").status_code == 200
    with Store(path) as store, store.run(Balance):
        last = store.append(Deposited("a-0", Decimal(1))).last
        found = client.get(f"{rows}?where=account:a-0&wait={last}").json()["rows"]
    assert found == [{"account": "a-0", "balance": "1", "deposits": 2}]


@pytest.mark.parametrize(
    ("url", "status", "what"),
    [
        ("/v1/projections/nothing", 404, "has no projection 'nothing'"),
        ("/v1/projections/nothing/rows", 404, "The code of a projection 'nothing' is not registered here."),
        ("/v1/projections/bank_balance/rows?where=balanc>1", 422, "balanc"),
        ("/v1/projections/bank_balance/rows?order=-nothing", 422, "which is no column of bank_balance"),
        ("/v1/projections/bank_balance/rows?after=x&limit=1", 422, ""),
        ("/v1/projections/bank_balance/rows?at=3&generation=1", 422, "folds the rows from the log"),
        ("/v1/projections/bank_balance/rows?generation=9", 404, ""),
        ("/v1/projections/bank_balance/rows?limit=0", 422, "The parameter limit is not valid"),
        ("/v1/processes/nothing", 404, "no process or effect 'nothing'"),
        ("/v1/processes/bank_review/instance?key=a-9", 404, "has no instance with this key"),
        ("/v1/processes/bank_review/instance", 422, "key"),
    ],
)
def test_what_is_not_there_and_what_is_wrong_is_said(client: TestClient, url: str, status: int, what: str) -> None:
    """As a problem, with what to do."""
    answer = client.get(url)
    assert answer.status_code == status, answer.text
    assert what in answer.json()["title"]
    assert answer.json()["detail"]
    assert "sqlite:" not in answer.text  # the address of the store is for its operator


def acted(client: TestClient, path: str, **body: Any) -> Any:
    """Carry out an act; its reason is `because`."""
    answer = client.post(path, json={"reason": "because", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_acts_are_carried_out_and_kept_in_the_log_with_reason_and_actor(client: TestClient, path: str) -> None:
    """The answer has the status of now."""
    model = "/v1/projections/bank_balance"
    assert acted(client, f"{model}/pause", actor="eve")["status"]["state"] == "paused"
    assert acted(client, f"{model}/resume")["status"]["state"] == "parked"
    assert acted(client, f"{model}/retry")["events"] == 1
    skipped = acted(client, f"{model}/skip", position=7)
    assert (skipped["events"], skipped["position"], skipped["status"]["skipped"]) == (1, 7, 1)
    assert acted(client, f"{model}/accept")["act"] == "accept"
    with Store(path) as store:
        facts = list(store.read(Query.of(tags="$projection:bank_balance")))
    assert [(each.event.act, each.metadata.get("reason"), each.metadata.actor) for each in facts] == [
        ("pause", "because", "eve"),
        ("resume", "because", None),
        ("retry", "because", None),
        ("skip", "because", None),
    ]


def test_generations_are_compared_switched_and_rolled_back(client: TestClient, path: str) -> None:
    """The generation that was built beside the live one."""
    model = "/v1/projections/bank_balance"
    with Store(path) as store:
        store.projections.skip(Balance, 7, "thirteen")
        assert store.projections.rebuild(Balance) == 2
    found = acted(client, f"{model}/compare")
    assert (found["live"], found["other"], found["different"]) == (1, 2, 0)
    assert acted(client, f"{model}/switch")["status"]["generation"] == 2
    assert acted(client, f"{model}/rollback")["status"]["generation"] == 1
    assert acted(client, f"{model}/remove")["position"] >= 7
    assert client.get(model).status_code == 404


@pytest.mark.parametrize(
    ("path_", "body", "status"),
    [
        ("/v1/projections/bank_balance/pause", {}, 422),
        ("/v1/projections/bank_balance/pause", {"reason": " "}, 422),
        ("/v1/projections/bank_balance/skip", {"reason": "x"}, 422),
        ("/v1/projections/bank_balance/skip", {"reason": "x", "position": 1}, 409),
        ("/v1/projections/bank_balance/retry", {"reason": "x", "position": 1}, 409),
        ("/v1/projections/bank_balance/begin", {"reason": "x", "at": 0}, 422),
        ("/v1/projections/bank_balance/rollback", {"reason": "x"}, 404),
        ("/v1/projections/nothing/pause", {"reason": "x"}, 404),
        ("/v1/projections/bank_balance/dance", {"reason": "x"}, 404),
        ("/v1/processes/bank_review/skip", {"reason": "x", "position": 1}, 409),
        ("/v1/processes/nothing/retry", {"reason": "x"}, 404),
    ],
)
def test_an_act_that_cannot_be_carried_out_changes_nothing(
    client: TestClient, path: str, path_: str, body: dict[str, Any], status: int
) -> None:
    """And is not written to the log."""
    answer = client.post(path_, json=body)
    assert answer.status_code == status, answer.text
    with Store(path) as store:
        assert store.count(Query.of(types="$projection-acted")) == 0


def test_instances_of_a_process_are_listed_retried_and_skipped(client: TestClient) -> None:
    """Of a registered process also the state."""
    assert client.get("/v1/processes").json() == {"processes": ["bank_review"]}
    found = client.get("/v1/processes/bank_review").json()["instances"]
    assert [(each["key"], each["state"]) for each in found] == [
        ("a-2", "stuck"),
        ("a-0", "waiting"),
        ("a-1", "waiting"),
    ]
    one = client.get("/v1/processes/bank_review/instance?key=a-0").json()
    assert (one["instance"]["state"], one["state"]) == ("waiting", {"account": "a-0", "reviewed": False})
    assert acted(client, "/v1/processes/bank_review/retry")["events"] == 1
    assert acted(client, "/v1/processes/bank_review/skip", position=found[0]["position"])["events"] == 1
    found = client.get("/v1/processes/bank_review").json()["instances"]
    assert [(each["key"], each["state"]) for each in found if each["key"] == "a-2"] == [("a-2", "running")]
