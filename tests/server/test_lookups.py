"""Types, tags, keys and figures over HTTP, paged."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
from starlette.testclient import TestClient

from eventfold import Store
from eventfold.aio import AsyncStore
from eventfold.server import application
from tests.server.bank import Deposited, Opened


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server over a store with three accounts."""
    path = str(tmp_path_factory.mktemp("lookups") / "bank.db")
    with Store(path) as store:
        store.append(*[Opened(f"a-{number}") for number in range(3)])
        store.append(Deposited("a-1", Decimal(5)))
    with TestClient(application(AsyncStore(path))) as found:
        yield found


def test_types_have_their_numbers_of_events(client: TestClient) -> None:
    """With the first and the last position of each."""
    assert client.get("/v1/types").json() == {
        "types": [
            {"type": "bank.opened", "count": 3, "first": 1, "last": 3},
            {"type": "bank.paid-in", "count": 1, "first": 4, "last": 4},
        ]
    }
    assert [each["type"] for each in client.get("/v1/types?prefix=bank.o").json()["types"]] == ["bank.opened"]


@pytest.mark.parametrize(("path", "key"), [("/v1/types", "types"), ("/v1/tags", "tags"), ("/v1/tag-keys", "keys")])
def test_the_pages_of_names_are_the_whole_list(client: TestClient, path: str, key: str) -> None:
    """`next` is the `after` of the next page, and is absent on the last one."""
    whole, paged, after = client.get(path).json()[key], list[object](), ""
    while True:
        page = client.get(path, params={"limit": 1, "after": after}).json()
        paged.extend(page[key])
        if "next" not in page:
            break
        after = page["next"]
    assert whole
    assert paged == whole


def test_tags_are_counted_only_if_asked(client: TestClient) -> None:
    """Counting takes time in proportion to the events."""
    assert client.get("/v1/tags?prefix=account:a-1").json()["tags"] == [
        {"tag": "account:a-1", "count": 2, "first": 2, "last": 4}
    ]
    assert client.get("/v1/tags?prefix=account:a-1&counts=false").json()["tags"] == [{"tag": "account:a-1"}]


def test_stats_have_the_number_of_events_but_no_place_on_the_server(client: TestClient) -> None:
    """A path or an address of a database helps only an attacker."""
    stats = client.get("/v1/stats").json()["stats"]
    assert stats["events"] == 4
    assert not {"path", "server", "replica"} & stats.keys()


@pytest.mark.parametrize("method", ["QUERY", "POST"])
def test_events_are_counted_by_query_and_range(client: TestClient, method: str) -> None:
    """The whole log without bounds; else between them, exclusive at the lower one."""
    query = {"items": [{"types": ["bank.opened"]}, {"tags": ["account:a-1"]}]}
    assert client.request(method, "/v1/counts", json={}).json() == {"counts": [4], "total": 4}
    found = client.request(method, "/v1/counts", json={"query": query, "bounds": [0, 1, 3, 4, 900]}).json()
    assert found == {"counts": [1, 2, 1, 0], "total": 4}
    found = client.request(method, "/v1/counts", json={"bounds": ["2000-01-01", "2100-01-01"]}).json()
    assert found == {"counts": [4], "total": 4}


def test_events_are_counted_by_a_filter_that_the_index_answers(client: TestClient) -> None:
    """With a query, both must hold; positions in the filter narrow every range."""
    asked = {"filter": "type:bank.opened OR account:a-1", "bounds": [0, 1, 3, 4]}
    assert client.post("/v1/counts", json=asked).json() == {"counts": [1, 2, 1], "total": 4}
    asked |= {"query": {"items": [{"tags": ["account:a-1"]}]}}
    assert client.post("/v1/counts", json=asked).json() == {"counts": [0, 1, 1], "total": 2}
    assert client.post("/v1/counts", json={"filter": "pos:2..3"}).json() == {"counts": [2], "total": 2}
    refused = client.post("/v1/counts", json={"filter": "data.amount>3"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid-filter")
    assert "data.amount>3" in refused.json()["title"]


@pytest.mark.parametrize("path", ["/v1/types", "/v1/tags", "/v1/tag-keys"])
def test_names_are_not_sent_again_while_the_log_is_the_same(client: TestClient, path: str) -> None:
    """The tag of the answer names the head; other parameters are another answer."""
    tag = client.get(path).headers["etag"]
    again = client.get(path, headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"{path}?limit=1", headers={"if-none-match": tag}).status_code == 200


@pytest.mark.parametrize(
    "body", [{"bounds": [3, 1]}, {"bounds": ["soon"]}, {"bounds": [-1]}, {"query": {"items": []}}, {"quer": {}}, []]
)
def test_wrong_bounds_and_queries_are_refused(client: TestClient, body: object) -> None:
    """With what is wrong, before anything is counted."""
    answer = client.post("/v1/counts", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize(
    ("url", "parameter"),
    [
        ("/v1/tags?limit=0", "limit"),
        ("/v1/tags?limit=many", "limit"),
        ("/v1/tags?limit=1&limit=2", "limit"),
        ("/v1/tags?prefx=a", "prefx"),
        ("/v1/tags?counts=perhaps", "counts"),
    ],
)
def test_a_wrong_parameter_is_named(client: TestClient, url: str, parameter: str) -> None:
    """A misspelt parameter is refused too: it would silently widen the answer."""
    answer = client.get(url)
    assert (answer.status_code, answer.json()["fields"]["parameter"]) == (422, parameter)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_misspelt_parameter_is_answered_with_the_nearest_name(client: TestClient) -> None:
    """So that the caller need not look it up."""
    assert client.get("/v1/tags?prefx=a").json()["detail"] == "Did you mean prefix?"
