"""QUERY /events, POST /events/query, GET /events and the look-ups: pages, bounds, entity tags."""

from __future__ import annotations

import json
from typing import Any

import pytest
import zstandard
from starlette.testclient import TestClient

COUNT = 25


def fill(client: TestClient, count: int = COUNT) -> list[dict[str, Any]]:
    """Append events in appends of 1, 2, 3 … events, every third with the tag `k:1`; returns them as read."""
    done, size = 0, 1
    while done < count:
        size = min(size, count - done)
        events = [
            {"type": "ABC"[n % 3], "tags": [f"n:{n}"] + ["k:1"] * (n % 3 == 0), "data": n}
            for n in range(done + 1, done + size + 1)
        ]
        assert client.post("/v1/events", json={"events": events}).status_code == 201
        done, size = done + size, size + 1
    return client.get("/v1/events?limit=1000").json()["events"]


def query(client: TestClient, body: dict[str, Any], **headers: str) -> Any:
    """The answer to a read by the method QUERY."""
    return client.request("QUERY", "/v1/events", json=body, headers=headers)


def unpacked(answer: Any) -> bytes:
    """The body of an answer. The client of the tests unpacks gzip, but not zstd."""
    if answer.headers.get("content-encoding") != "zstd":
        return answer.content
    return zstandard.ZstdDecompressor().decompressobj().decompress(answer.content)


def numbers(answer: Any) -> list[int]:
    """The positions of the events of a page."""
    return [event["position"] for event in answer.json()["events"]]


def test_the_three_ways_to_read_answer_the_same(client: TestClient) -> None:
    """QUERY and POST take a body, GET takes parameters."""
    events = fill(client)
    assert [event["position"] for event in events] == list(range(1, COUNT + 1))
    assert events[6]["data"] == 7
    whole = query(client, {}).json()
    assert whole == client.post("/v1/events/query", json={}).json() == client.get("/v1/events").json()
    assert whole == {"events": events, "more": False, "next": COUNT, "head": COUNT, "cursor": whole["cursor"]}


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 24, 25, 26])
@pytest.mark.parametrize("tags", [[], ["k:1"]])
def test_pages_together_are_the_whole_in_both_directions(client: TestClient, limit: int, tags: list[str]) -> None:
    """`next` continues after the last event, also within an append; nothing is left out or repeated."""
    fill(client)
    asked: dict[str, Any] = {"query": {"items": [{"tags": tags}]}} if tags else {}
    expected = [n for n in range(1, COUNT + 1) if not tags or n % 3 == 0]
    for backwards, bound in ((False, "after"), (True, "before")):
        found, body = list[int](), asked | {"limit": limit, "backwards": backwards}
        while True:
            answer = query(client, body)
            found += numbers(answer)
            assert len(numbers(answer)) <= limit
            if not answer.json()["more"]:
                break
            body |= {bound: answer.json()["next"]}
            if not backwards:
                assert query(client, body | {"after": answer.json()["cursor"]}).json() == query(client, body).json()
        assert found == (expected[::-1] if backwards else expected)


def test_bounds_of_position_and_time_are_used(client: TestClient) -> None:
    """In a body and in a URL."""
    events = fill(client)
    assert numbers(query(client, {"after": 20, "until": 21})) == [21]
    assert numbers(query(client, {"after": 15, "until": 17})) == [16, 17, 18, 19, 20, 21]  # the whole append
    assert numbers(client.get("/v1/events?after=20&before=23")) == [21, 22]
    assert numbers(client.get("/v1/events?after=22&backwards=true&limit=2")) == [25, 24]
    assert numbers(client.get(f"/v1/events?since={events[24]['time']}"))[-1] == 25
    assert numbers(client.get("/v1/events?since=2100-01-01")) == []
    assert numbers(client.get("/v1/events?occurred_until=2000-01-01")) == []
    assert len(numbers(client.get("/v1/events?occurred_since=2000-01-01T00:00:00Z"))) == COUNT
    assert numbers(client.get("/v1/events?limit=0")) == []


@pytest.mark.parametrize(
    ("url", "code", "text"),
    [
        ("/v1/events?limt=1", "invalid-input", "limt"),
        ("/v1/events?limit=1&limit=2", "invalid-input", "twice"),
        ("/v1/events?limit=x", "invalid-input", "limit"),
        ("/v1/events?limit=1001", "invalid-query", "1,001"),
        ("/v1/events?limit=-1", "invalid-input", "limit"),
        ("/v1/events?after=99", "position-beyond-head", "99"),
        ("/v1/events?until=99", "position-beyond-head", "99"),
        ("/v1/events?after=-1", "invalid-input", "after"),
        ("/v1/events?since=2026-01-01T00:00:00", "invalid-input", "since"),
        ("/v1/events/0", "invalid-input", "'0'"),
        ("/v1/events/abc", "invalid-input", "'abc'"),
        ("/v1/events/by-id/abc", "invalid-input", "'abc'"),
        ("/v1/positions", "invalid-input", "time"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_field(
    memory_client: TestClient, url: str, code: str, text: str
) -> None:
    """Problem details, never an empty page that looks like an answer."""
    answer = memory_client.get(url)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert text in answer.json()["title"]


def test_a_cursor_of_another_store_is_refused(client: TestClient) -> None:
    """A reader that would continue from it would miss events."""
    fill(client, 3)
    cursor = client.get("/v1/events").json()["cursor"]
    assert numbers(client.get(f"/v1/events?after={cursor}")) == []
    answer = client.get(f"/v1/events?after={cursor[:30]}")
    assert (answer.status_code, answer.json()["code"]) == (409, "cursor-mismatch")


def test_an_event_that_is_not_there_is_404(client: TestClient) -> None:
    """By position and by id."""
    for url in ("/v1/events/1", "/v1/events/by-id/00000000-0000-0000-0000-000000000000"):
        assert (client.get(url).status_code, client.get(url).json()["code"]) == (404, "event-not-found")


def test_the_position_at_a_time(client: TestClient) -> None:
    """The last one recorded by then; 0 before the first."""
    assert client.get("/v1/positions?time=2100-01-01").json()["position"] == 0
    events = fill(client, 3)
    at = client.get("/v1/positions", params={"time": events[-1]["time"]}).json()
    assert (at["position"], numbers(client.get(f"/v1/events?after={at['cursor']}"))) == (3, [])
    assert client.get("/v1/positions?time=2000-01-01").json()["position"] == 0


def test_an_answer_that_the_client_has_is_not_sent_again(client: TestClient) -> None:
    """Until the log grows; a tag is of one question, one media type and one position."""
    fill(client, 3)
    first = client.get("/v1/events?limit=2")
    tag = first.headers["etag"]
    assert tag.startswith('"')
    assert tag.endswith('"')
    known = {"if-none-match": f'"other", {tag}'}
    again = client.get("/v1/events?limit=2", headers=known)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert query(client, {"limit": 2}, **known).status_code == 304
    assert client.get("/v1/events?limit=2", headers={"if-none-match": "*"}).status_code == 304
    assert client.get("/v1/events?limit=1", headers=known).status_code == 200
    assert client.get("/v1/events?limit=2", headers=known | {"accept": "application/x-ndjson"}).status_code == 200
    assert client.post("/v1/events/query", json={"limit": 2}, headers=known).status_code == 200
    client.post("/v1/events", json={"events": [{"type": "A"}]})
    changed = client.get("/v1/events?limit=2", headers=known)
    assert (changed.status_code, changed.headers["etag"] == tag) == (200, False)


def test_the_tag_of_one_event_does_not_change_with_the_log(client: TestClient) -> None:
    """An event is never changed."""
    fill(client, 2)
    tag = client.get("/v1/events/1").headers["etag"]
    client.post("/v1/events", json={"events": [{"type": "A"}]})
    assert client.get("/v1/events/1", headers={"if-none-match": tag}).status_code == 304
    assert client.get("/v1/events/2", headers={"if-none-match": tag}).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_page_is_compressed_if_the_client_accepts_it_and_the_page_is_not_small(
    memory_client: TestClient, encoding: str
) -> None:
    """It has an entity tag of its own, with which 304 is answered too."""
    fill(memory_client)
    plain = memory_client.get("/v1/events", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    for accepted in (encoding, f"{encoding};q=0.5, identity;q=0.1", f"*;q=0, {encoding}"):
        packed = memory_client.get("/v1/events", headers={"accept-encoding": accepted})
        assert packed.headers["content-encoding"] == encoding
        assert unpacked(packed) == plain.content
        assert packed.headers.get_list("vary") == ["Accept, Accept-Encoding, Authorization"]
        assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert packed.headers["etag"] != plain.headers["etag"]
    known = {"accept-encoding": encoding, "if-none-match": packed.headers["etag"]}
    assert memory_client.get("/v1/events", headers=known).status_code == 304
    for refused in (f"{encoding};q=0", "br", ""):
        answer = memory_client.get("/v1/events", headers={"accept-encoding": refused})
        assert "content-encoding" not in answer.headers
    assert "content-encoding" not in memory_client.get("/v1/events/1").headers  # too small


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "image/*, text/*"])
def test_a_client_that_accepts_none_of_the_media_types_is_refused(memory_client: TestClient, accept: str) -> None:
    """The answer lists them."""
    answer = memory_client.get("/v1/events", headers={"accept": accept})
    assert (answer.status_code, answer.json()["code"]) == (406, "not-acceptable")
    assert "application/x-ndjson" in answer.json()["detail"]


@pytest.mark.parametrize("accept", ["", "*/*", "application/*", "text/html, application/json;q=0.9, */*;q=0.8"])
def test_json_is_the_default(memory_client: TestClient, accept: str) -> None:
    """Also for a browser."""
    assert memory_client.get("/v1/events", headers={"accept": accept}).headers["content-type"] == "application/json"


def test_a_head_request_has_the_headers_and_no_body(client: TestClient) -> None:
    """Of a page and of a stream."""
    fill(client, 2)
    for accept in ("application/json", "application/x-ndjson"):
        answer = client.head("/v1/events", headers={"accept": accept})
        assert (answer.status_code, answer.content, answer.headers["eventfold-head"]) == (200, b"", "2")
        assert answer.headers["content-type"] == accept


def test_a_payload_that_is_not_json_is_readable_as_base64(client: TestClient) -> None:
    """As in every other JSON of an event; and it can be appended in this form."""
    data = {"$bytes": "gQGi", "$codec": "msgpack"}
    client.post("/v1/events", json={"events": [{"type": "A", "data": data}]})
    assert client.get("/v1/events").json()["events"][0]["data"] == data
    assert json.loads(client.get("/v1/events/1").content)["data"] == data
