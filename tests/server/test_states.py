"""Registered States over HTTP: now, at a moment, and step by step."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold import Store
from eventfold.aio import AsyncStore
from eventfold.server import application
from eventfold.server.registered import Registered
from tests.server import bank
from tests.server.bank import Account, Balance, Deposited, Opened, Review, Several


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server over a store with two accounts, which knows the bank."""
    path = str(tmp_path_factory.mktemp("states") / "bank.db")
    with Store(path) as store:
        store.append(Opened("a-1", "ann"))
        store.append(Deposited("a-1", Decimal("5.50")))
        store.append(Opened("a-2", "bob"))
        store.append(Deposited("a-1", Decimal(2)))
        store.append(Deposited("a-2", Decimal(1)))
    with TestClient(application(AsyncStore(path), modules=["tests.server.bank"])) as found:
        yield found


def test_registered_states_are_listed_with_their_fields(client: TestClient) -> None:
    """Each with its schema, and whether the question gives it."""
    found = {each["name"]: each for each in client.get("/v1/states").json()["states"]}
    assert sorted(found) == ["Account", "Review", "Several"]
    assert found["Account"]["types"] == ["bank.opened", "bank.paid-in"]
    assert [(each["name"], each["is_key"]) for each in found["Account"]["fields"]] == [
        ("account", True),
        ("owner", False),
        ("balance", False),
    ]
    assert found["Account"]["fields"][1]["schema"] == {"type": "string"}


def test_a_state_is_answered_with_its_position(client: TestClient) -> None:
    """The fields of its question are parameters."""
    assert client.get("/v1/states/Account?account=a-1").json() == {
        "state": "Account",
        "question": {"account": "a-1"},
        "position": 5,
        "answer": {"owner": "ann", "balance": "7.50"},
    }


def test_a_state_is_answered_as_of_a_position_and_of_a_time(client: TestClient) -> None:
    """A time is the position of the last event that was recorded by then."""
    at = client.get("/v1/states/Account?account=a-1&at=2").json()
    assert (at["position"], at["answer"]["balance"]) == (2, "5.50")
    before = client.get("/v1/states/Account?account=a-1&at=2000-01-01").json()
    assert (before["position"], before["answer"]) == (0, {"owner": "", "balance": "0"})
    occurred = client.get("/v1/states/Account?account=a-1&occurred_until=2000-01-01").json()
    assert (occurred["position"], occurred["answer"]["owner"]) == (5, "")


def test_a_state_is_not_sent_again_while_the_log_is_the_same(client: TestClient) -> None:
    """Its tag names the position; the state of another account, or as of another moment, is another answer."""
    url = "/v1/states/Account?account=a-1"
    tag = client.get(url).headers["etag"]
    again = client.get(url, headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"{url}&at=5", headers={"if-none-match": tag}).status_code == 304
    for other in (f"{url}&at=2", f"{url}&occurred_until=2000-01-01", "/v1/states/Account?account=a-2"):
        assert client.get(other, headers={"if-none-match": tag}).status_code == 200


def test_a_question_with_several_values_repeats_the_parameter(client: TestClient) -> None:
    """A field with the name of a parameter is given in a JSON object."""
    question = json.dumps({"account": ["a-1", "a-2"], "limit": 2})
    found = client.get("/v1/states/Several", params={"question": question}).json()
    assert found["answer"] == {"moved": {"a-1": "7.50"}}
    found = client.get("/v1/states/Several?account=a-1&account=a-2&limit=1").json()
    assert found["answer"] == {"moved": {"a-1": "7.50", "a-2": "1"}}


def test_the_history_has_the_changes_of_each_event(client: TestClient) -> None:
    """Before and after, by field."""
    found = client.get("/v1/states/Account/history?account=a-1").json()
    assert [(each["position"], each["type"]) for each in found["steps"]] == [
        (1, "bank.opened"),
        (2, "bank.paid-in"),
        (4, "bank.paid-in"),
    ]
    assert found["steps"][1]["changes"] == {"balance": {"before": "0", "after": "5.50"}}
    assert "next" not in found


def test_the_pages_of_a_history_are_the_whole_history(client: TestClient) -> None:
    """A page begins with the state that the earlier one ended with."""
    url, steps, after = "/v1/states/Account/history?account=a-1&limit=1", list[object](), 0
    while after is not None:
        page = client.get(f"{url}&after={after}").json()
        steps.extend(page["steps"])
        after = page.get("next")
    assert steps == client.get("/v1/states/Account/history?account=a-1").json()["steps"]


def test_a_history_as_lines_has_the_same_steps(client: TestClient) -> None:
    """NDJSON, a step in each line."""
    url = "/v1/states/Account/history?account=a-1&until=2"
    lines = client.get(url, headers={"accept": "application/x-ndjson"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in lines.text.splitlines()] == client.get(url).json()["steps"]


@pytest.mark.parametrize(
    ("url", "status", "what"),
    [
        ("/v1/states/Nothing?a=1", 404, "There is no registered State 'Nothing'."),
        ("/v1/states/Account", 422, "Account also needs account."),
        ("/v1/states/Account?account=a-1&owner=ann", 422, "Account has no key owner."),
        ("/v1/states/Account?account=a-1&account=a-2", 422, "The parameter account was given 2 times."),
        ("/v1/states/Account?account=a-1&at=soon", 422, "at: 'soon' is not a time."),
        ("/v1/states/Account?account=a-1&at=99", 422, "Position 99 is beyond the end of the log"),
        ("/v1/states/Several?account=a-1&limit=x", 422, "'x' is not a valid limit of Several"),
        ("/v1/states/Account?question=[]", 422, "question= is not a JSON object"),
        ('/v1/states/Account?question={"account":"a"}&account=a', 422, "The question is given twice"),
    ],
)
def test_a_wrong_question_is_answered_with_what_is_wrong(client: TestClient, url: str, status: int, what: str) -> None:
    """Two sentences, and the field at fault."""
    answer = client.get(url)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.json()["title"].startswith(what.rstrip("."))
    assert answer.json()["detail"]


def test_a_module_registers_all_that_it_declares() -> None:
    """By import path, and as a module object."""
    for source in ("tests.server.bank", bank):
        found = Registered([source])
        assert found.modules == ("tests.server.bank",)
        assert set(found.events) == {("bank.opened", 1), ("bank.paid-in", 1), ("bank.reviewed", 1)}
        assert found.states == {"Account": Account, "Several": Several, "Review": Review}
        assert found.projections == {"bank_balance": Balance}
        assert found.processes == {"bank_review": Review}
        assert found.event_class("bank.opened") is Opened
        assert found.event_class("Closed") is None


def test_an_address_registers_one_object_and_its_events() -> None:
    """And nothing else of its module."""
    found = Registered(["tests.server.bank:Balance"])
    assert (found.states, list(found.projections), set(found.events)) == ({}, ["bank_balance"], {("bank.paid-in", 1)})


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("no_such_module", "There is no module 'no_such_module'"),
        ("", "There is no module ''"),
        ("tests.server.bank:Nothing", "tests.server.bank has no Nothing."),
        ("tests.server.bank:Decimal", "is no event, State, projection, process or effect."),
    ],
)
def test_a_module_that_is_not_there_is_refused_at_the_start(source: str, what: str) -> None:
    """Not at the first request."""
    with pytest.raises(ef.InvalidInput) as raised:
        Registered([source])
    assert what in raised.value.what


def test_an_error_of_a_module_is_reported_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a traceback."""
    (tmp_path / "broken_bank.py").write_text("import math\nx = 1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ef.InvalidInput) as raised:
        Registered(["broken_bank"])
    assert "Importing broken_bank failed: ZeroDivisionError" in raised.value.what
    assert "broken_bank.py, line 2" in raised.value.remedy
    assert "broken_bank" not in sys.modules


def test_two_states_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them can be registered by its address."""
    (tmp_path / "other_bank.py").write_text(
        "import eventfold as ef\nfrom tests.server.bank import Opened\n\n"
        "class Account(ef.State):\n    account: ef.Tag\n    def evolve(self, event: Opened) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ef.InvalidInput) as raised:
        Registered([bank, "other_bank"])
    assert "Two registered classes are named Account" in raised.value.what


def test_the_catalogue_has_registered_events_and_the_types_without_a_class(tmp_path: Path) -> None:
    """With the code that folds, projects and reacts to them."""
    path = str(tmp_path / "bank.db")
    with Store(path) as store:
        store.append(Opened("a-1", "ann"))
        store.append_encoded(ef.NewEvent.of("elsewhere", b"{}"))
    with TestClient(application(AsyncStore(path), modules=["tests.server.bank"])) as client:
        found = client.get("/v1/catalogue").json()
    by_type = {each["type"]: each for each in found["events"]}
    assert set(by_type) == {"bank.opened", "bank.paid-in", "bank.reviewed"}
    opened = by_type["bank.opened"]
    assert (opened["folded_by"], opened["reacted_by"]) == (["Account", "Review"], ["Review"])
    assert by_type["bank.paid-in"]["projected_by"] == ["Balance"]
    assert by_type["bank.reviewed"]["decided_by"] == ["Review.react"]
    assert by_type["bank.opened"]["tags"] == {"account": "account"}
    assert found["unregistered"] == [{"type": "elsewhere", "count": 1, "first": 2, "last": 2}]
