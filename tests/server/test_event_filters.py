"""`filter` in a URL and in a body: the same events as the filter language finds, in pages and in streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.server import application
from eventfold.server.scopes import Scope
from tests.server.conftest import ANY_TYPE
from tests.server.keys import bearer, issue, with_keys

COUNT = 60


def fill(client: TestClient) -> None:
    """Append COUNT events of three types, of ten accounts, with an amount and a time of occurrence."""
    events = [
        {
            "type": ("Opened", "Paid", "Closed")[n % 3],
            "tags": [f"account:a-{n % 10}"],
            "data": {"amount": n},
            "occurred": f"2026-11-{n % 28 + 1:02}T10:00:00Z",
        }
        for n in range(1, COUNT + 1)
    ]
    for start in range(0, COUNT, 7):
        assert client.post("/v1/events", json={"events": events[start : start + 7]}).status_code == 201


@pytest.fixture
def filled(client: TestClient) -> TestClient:
    """A client of a store with events."""
    fill(client)
    return client


def find(client: TestClient, **parameters: Any) -> Any:
    """A page of events, by the URL."""
    answer = client.get("/v1/events", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def amounts(page: Any) -> list[int]:
    """Which events a page has."""
    return [event["data"]["amount"] for event in page["events"]]


FILTERS = {
    "type:Paid": lambda n: n % 3 == 1,
    "type:Paid account:a-4": lambda n: n % 3 == 1 and n % 10 == 4,
    "account:a-1,a-2": lambda n: n % 10 in (1, 2),
    "data.amount>50": lambda n: n > 50,
    "type:Closed data.amount<10": lambda n: n % 3 == 2 and n < 10,
    "-type:Paid pos>40": lambda n: n % 3 != 1 and n > 40,
    "": lambda n: True,
}


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_finds_what_it_says(filled: TestClient, text: str) -> None:
    """By GET, by QUERY, as a page, as NDJSON and backwards."""
    expected = [n for n in range(1, COUNT + 1) if FILTERS[text](n)]
    page = find(filled, filter=text, limit=1000)
    assert amounts(page) == expected
    assert (page["more"], page["head"]) == (False, COUNT)
    assert amounts(find(filled, filter=text, limit=1000, backwards=True)) == expected[::-1]
    asked = {"filter": text, "limit": 1000}
    assert filled.request("QUERY", "/v1/events", json=asked).json()["events"] == page["events"]
    stream = filled.get("/v1/events", params={"filter": text}, headers={"accept": "application/x-ndjson"})
    assert [json.loads(line) for line in stream.text.splitlines()] == page["events"]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("text", ["type:Paid", "data.amount>20"])
def test_pages_of_a_filter_together_are_the_whole(filled: TestClient, text: str, backwards: bool) -> None:
    """Each continues where the one before ended."""
    expected = [n for n in range(1, COUNT + 1) if FILTERS.get(text, lambda n: n > 20)(n)]
    found, bounds = list[int](), dict[str, Any]()
    while True:
        page = find(filled, filter=text, limit=4, backwards=backwards, **bounds)
        found += amounts(page)
        assert len(page["events"]) <= 4
        if not page["more"]:
            break
        bounds = {"before" if backwards else "after": page["next"]}
    assert found == (expected[::-1] if backwards else expected)


def test_a_filter_is_combined_with_a_query_and_bounds(filled: TestClient) -> None:
    """All of them must hold."""
    asked = {
        "filter": "data.amount>10",
        "query": {"items": [{"types": ["Paid"]}]},
        "after": 15,
        "before": 50,
        "occurred_since": "2026-11-05",
        "occurred_until": "2026-11-20",
    }
    expected = [n for n in range(16, 50) if n % 3 == 1 and 5 <= n % 28 + 1 <= 20]
    page = filled.request("QUERY", "/v1/events", json=asked).json()
    assert (amounts(page), page["next"]) == (expected, 49)
    assert find(filled, filter="type:Paid", limit=0)["events"] == []


def test_a_filter_that_is_wrong_is_refused_with_its_place(filled: TestClient) -> None:
    """And with the key that was meant."""
    answer = filled.get("/v1/events", params={"filter": "acount:a-1"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-filter")
    assert "account" in answer.json()["title"] + answer.json()["detail"]
    assert filled.get("/v1/events", params={"filter": "type:Paid ("}).status_code == 422


def test_only_an_answer_that_would_be_the_same_again_has_an_entity_tag(filled: TestClient) -> None:
    """A filter that is scanned ends after some time, and `since:2h` moves."""
    indexed = filled.get("/v1/events", params={"filter": "type:Paid"})
    known = {"if-none-match": indexed.headers["etag"]}
    assert filled.get("/v1/events", params={"filter": "type:Paid"}, headers=known).status_code == 304
    assert filled.get("/v1/events", params={"filter": "type:Opened"}, headers=known).status_code == 200
    for text in ("data.amount>1", "type:Paid since:2h"):
        answer = filled.get("/v1/events", params={"filter": text})
        assert "etag" not in answer.headers
        assert answer.headers["cache-control"] == "no-store"


def test_a_narrowed_caller_finds_only_what_it_may_see(tmp_path: Path) -> None:
    """Whatever the filter says; it learns of no type or tag of others, and tests payloads only with that scope."""
    whole = issue(tmp_path, "all")
    one = issue(tmp_path, "one", tags=("account:a-1",))
    typed = issue(tmp_path, "typed", types=("Paid",))
    blind = issue(tmp_path, "blind", scopes=(Scope.READ,))
    app = application(ef.AsyncStore("memory:"), settings=with_keys(tmp_path, ANY_TYPE))
    with TestClient(app) as client:
        client.headers.update(bearer(whole))
        fill(client)
        assert len(amounts(find(client, filter="account:a-*", limit=1000))) == COUNT
        client.headers.update(bearer(one))
        mine = [n for n in range(1, COUNT + 1) if n % 10 == 1]
        for text in (
            "account:a-*",
            "account:a-1,a-2",
            "data.amount>0",
            "-type:Nothing",
            "type:P* OR type:O* OR type:C*",
        ):
            assert amounts(find(client, filter=text)) == mine, text
        assert amounts(find(client, filter="account:a-2")) == []
        assert find(client, filter="account:a-2")["head"] == mine[-1]
        assert amounts(find(client, filter="acount:a-1")) == []  # it does not learn which keys there are
        client.headers.update(bearer(typed))
        assert amounts(find(client, filter="account:a-4", limit=1000)) == [
            n for n in range(1, COUNT + 1) if n % 10 == 4 and n % 3 == 1
        ]
        assert "Opened" not in client.get("/v1/events", params={"filter": "type:Openen"}).text
        client.headers.update(bearer(blind))
        assert client.get("/v1/events", params={"filter": "type:Paid"}).status_code == 200
        refused = client.get("/v1/events", params={"filter": "data.amount>1"})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
