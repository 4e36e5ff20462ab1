"""POST /events: receipts, repetition, conditions, and what is refused."""

from __future__ import annotations

import gzip
import json
from typing import Any
from uuid import uuid4

import pytest
import zstandard
from starlette.testclient import TestClient

from tests.server.conftest import LIMITED

OPENED: dict[str, Any] = {"type": "Opened", "tags": ["account:a-1"], "data": {"owner": "Ö"}}
BY_ACCOUNT = {"items": [{"tags": ["account:a-1"]}]}
JSON_HEADERS = {"content-type": "application/json"}


def test_an_append_answers_with_its_receipt_and_the_address_of_its_first_event(client: TestClient) -> None:
    """What was appended is read back with exactly its data, tags and metadata."""
    event = OPENED | {"metadata": {"actor": "teller-7"}, "occurred": "2026-11-23T10:15:00+01:00", "version": 2}
    answer = client.post("/v1/events", json={"events": [OPENED, event]})
    assert answer.status_code == 201
    receipt = answer.json()
    assert (receipt["first"], receipt["last"], receipt["repeated"]) == (1, 2, False)
    read = client.get(answer.headers["location"]).json()
    assert (read["type"], read["data"], read["tags"]) == ("Opened", {"owner": "Ö"}, ["account:a-1"])
    second = client.get("/v1/events/2").json()
    assert (second["occurred"], second["version"]) == ("2026-11-23T09:15:00.000000Z", 2)
    assert second["metadata"] == {"actor": "teller-7"}
    assert client.get(f"/v1/events/by-id/{receipt['ids'][1]}").json() == second


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_that_no_answer_could_show_is_refused(client: TestClient, moment: str) -> None:
    """In UTC it is outside the years 1 to 9999; if it were written, every read of its page would fail."""
    refused = client.post("/v1/events", json={"events": [OPENED, OPENED | {"occurred": moment}]})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid-input")
    assert "years 1 to 9999" in refused.json()["title"]
    edges = [OPENED | {"occurred": each} for each in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z")]
    assert client.post("/v1/events", json={"events": edges}).status_code == 201
    shown = [each["occurred"] for each in client.get("/v1/events").json()["events"]]
    assert shown == ["0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"]


def test_an_append_repeated_with_its_ids_writes_nothing(client: TestClient) -> None:
    """So a client whose answer was lost sends the same again."""
    body = {"events": [OPENED | {"id": str(uuid4())}, OPENED | {"id": str(uuid4())}]}
    first, second = (client.post("/v1/events", json=body) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == first.json() | {"repeated": True}
    assert client.get("/v1/head").json()["position"] == 2


def test_an_append_repeated_with_its_key_writes_nothing(client: TestClient) -> None:
    """The key is in the body or in the header; its receipt can be asked for."""
    first = client.post("/v1/events", json={"events": [OPENED], "key": "req/1 é"})
    other = client.post("/v1/events", json={"events": [OPENED]}, headers={"idempotency-key": "req-2"})
    again = client.post("/v1/events", json={"events": [OPENED]}, headers={"idempotency-key": "req-2"})
    assert [each.status_code for each in (first, other, again)] == [201, 201, 200]
    assert client.get("/v1/receipts/req/1%20%C3%A9").json()["first"] == 1
    assert client.get("/v1/receipts/req-2").json()["ids"] == again.json()["ids"]
    missing = client.get("/v1/receipts/other")
    assert (missing.status_code, missing.json()["code"]) == (404, "not-found")
    both = client.post("/v1/events", json={"events": [OPENED], "key": "a"}, headers={"idempotency-key": "b"})
    assert (both.status_code, both.json()["fields"]["field"]) == (422, "key")


OTHER_EVENTS = {
    "type": [OPENED | {"type": "AccountClosed"}],
    "data": [OPENED | {"data": {"account": "a-2"}}],
    "tags": [OPENED | {"tags": []}],
    "version": [OPENED | {"version": 2}],
    "metadata": [OPENED | {"metadata": {"reason": "other"}}],
    "time": [OPENED | {"occurred": "2026-11-23T10:15:00Z"}],
    "number": [OPENED, OPENED],
}


@pytest.mark.parametrize("events", OTHER_EVENTS.values(), ids=OTHER_EVENTS)
def test_a_key_of_other_events_is_refused(memory_client: TestClient, events: Any) -> None:
    """422: the answer of the first append would say that these events were written."""
    first = memory_client.post("/v1/events", json={"events": [OPENED], "key": "req-1"})
    answer = memory_client.post("/v1/events", json={"events": events}, headers={"idempotency-key": "req-1"})
    assert (answer.status_code, answer.json()["code"]) == (422, "request-key-reused")
    assert answer.json()["fields"] == {"first": first.json()["first"], "last": first.json()["last"]}
    assert memory_client.get("/v1/head").json()["position"] == 1
    assert memory_client.post("/v1/events", json={"events": [OPENED], "key": "req-1"}).status_code == 200


def test_a_repeated_append_may_have_another_spelling_and_many_large_events(client: TestClient) -> None:
    """The order of names does not matter, nor do ids; all pages of the append are compared."""
    large = [
        {"type": "Large", "data": {"a": number, "b": "x" * 500_000}, "tags": ["b:1", "a:1"]} for number in range(9)
    ]
    again = [
        {
            "tags": ["a:1", "b:1"],
            "data": {"b": each["data"]["b"], "a": each["data"]["a"]},
            "type": "Large",
            "id": str(uuid4()),
        }
        for each in large
    ]  # type: ignore[index]
    statuses = [
        client.post("/v1/events", json={"events": events, "key": "k"}).status_code
        for events in (large, again, [*again[:-1], again[0]])
    ]
    assert statuses == [201, 200, 422]


def test_an_id_with_other_content_is_a_conflict(client: TestClient) -> None:
    """It is not a repetition."""
    event = OPENED | {"id": str(uuid4())}
    client.post("/v1/events", json={"events": [event]})
    answer = client.post("/v1/events", json={"events": [event | {"data": {}}]})
    assert (answer.status_code, answer.json()["code"]) == (409, "event-id-reused")


@pytest.mark.parametrize("unless", [BY_ACCOUNT, [{"query": BY_ACCOUNT, "after": 0}]])
def test_a_condition_that_does_not_hold_says_what_conflicted(client: TestClient, unless: Any) -> None:
    """409 names the clause, the position that the client knew of and that of the first event after it."""
    body = {"events": [OPENED], "unless": unless}
    assert client.post("/v1/events", json=body).status_code == 201
    answer = client.post("/v1/events", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    problem = answer.json()
    assert problem["code"] == "append-conflict"
    fields = {name: problem["fields"][name] for name in ("clause", "after", "found")}
    assert fields == {"clause": 0, "after": 0, "found": 1}
    assert client.get("/v1/head").json()["position"] == 1


def test_a_condition_counts_from_a_position_or_a_cursor(client: TestClient) -> None:
    """The cursor of a page stands for the position up to which it was read."""
    client.post("/v1/events", json={"events": [OPENED]})
    cursor = client.get("/v1/events").json()["cursor"]
    for after in (1, "1", cursor):
        body = {"events": [OPENED | {"tags": []}], "unless": BY_ACCOUNT, "after": after}
        assert client.post("/v1/events", json=body).status_code == 201
    foreign = cursor[:-6] + "AAAAAA"
    refused = client.post("/v1/events", json={"events": [OPENED], "unless": BY_ACCOUNT, "after": foreign})
    assert (refused.status_code, refused.json()["code"]) == (409, "cursor-mismatch")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"events": []}, "0 events"),
        ({"events": [{"type": "A"}] * 1_001}, "1001 events"),
        ({"events": [{"type": "A"}, {"type": ""}]}, "events[1]: The event type"),
        ({"events": [{"type": "$reserved"}]}, "reserved"),
        ({"events": [{"type": "A", "tags": ["x"] * 3 + ["\n"]}]}, "The tag"),
        ({"events": [{"type": "A", "occurred": "2026-11-23T10:15:00"}]}, "$.events[0].occurred"),
        ({"events": [{"type": "A", "metadata": []}]}, "metadata"),
        ({"events": [{"type": "A", "data": {"x": "y" * 1_000_001}}]}, "bytes"),
        ({"events": [{"type": "A", "data": {"$bytes": "é", "$codec": "x"}}]}, "$bytes"),
        ({"events": [{"type": "A", "data": {"$bytes": "AA==", "$codec": "\n"}}]}, "codec"),
        ({"events": [{"type": "A", "data": {"$bytes": "AA==", "$codec": "x", "$key": ""}}]}, "key"),
        ({"events": [{"type": "A", "data": {"$bytes": "e30=eA==", "$codec": "json"}}]}, "$bytes"),
        ({"events": [{"type": "A", "data": {"$bytes": "eyI=", "$codec": "json"}}]}, "not JSON"),
        ({"events": [{"type": "A"}], "unles": {}}, "unles"),
        ({"events": [{"type": "A"}], "unless": {"items": []}}, "unless.items is empty"),
        ({"events": [{"type": "A"}], "unless": {}, "after": 2**63 + 1}, ""),
        ({"events": [{"type": "A"}], "key": "\x00"}, "request key"),
        ([], "expected `object`"),
    ],
)
def test_what_cannot_be_appended_is_refused_with_the_place_and_nothing_is_written(
    memory_client: TestClient, body: Any, text: str
) -> None:
    """Problem details, with a sentence about what to do."""
    answer = memory_client.post("/v1/events", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert text in answer.json()["title"]
    assert answer.json()["detail"]
    assert memory_client.get("/v1/head").json()["position"] == 0


@pytest.mark.parametrize("body", [b"", b"{", b'{"events": [{"type": "\xff"}]}', b"[" * 100_000, b"\x00" * 10])
def test_bytes_that_are_not_json_are_refused(memory_client: TestClient, body: bytes) -> None:
    """Also deeply nested ones."""
    answer = memory_client.post("/v1/events", content=body, headers=JSON_HEADERS)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-input")


@pytest.mark.parametrize("media", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_body_must_say_that_it_is_json(memory_client: TestClient, media: str | None) -> None:
    """Any web page can make a browser send these, but not application/json."""
    headers = {} if media is None else {"content-type": media}
    answer = memory_client.post("/v1/events", content=b'{"events": [{"type": "A"}]}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")
    assert "application/json" in answer.json()["detail"]


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_a_compressed_body_is_read(memory_client: TestClient, encoding: str, compress: Any) -> None:
    """A small one and a large one."""
    headers = JSON_HEADERS | {"content-encoding": encoding}
    for count in (1, 1_000):
        body = json.dumps({"events": [OPENED] * count}).encode()
        assert memory_client.post("/v1/events", content=compress(body), headers=headers).status_code == 201
    whole = compress(b'{"events": [{"type": "A"}]}')
    for wrong in (whole[:-3], whole + b"x", b"", b"{}", whole + whole):
        answer = memory_client.post("/v1/events", content=wrong, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-input"), wrong
    assert memory_client.get("/v1/head").json()["position"] == 1_001


def test_an_unknown_encoding_is_refused(memory_client: TestClient) -> None:
    """As 415, which names those that are read."""
    headers = JSON_HEADERS | {"content-encoding": "br"}
    answer = memory_client.post("/v1/events", content=b"{}", headers=headers)
    assert (answer.status_code, "gzip or zstd" in answer.json()["detail"]) == (415, True)


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_a_body_that_decompresses_to_more_than_the_limit_is_refused(
    limited_client: TestClient, encoding: str, compress: Any
) -> None:
    """A few kilobytes may stand for gigabytes; they are not unpacked."""
    bomb = compress(b" " * (LIMITED * 50))
    assert len(bomb) < LIMITED
    answer = limited_client.post("/v1/events", content=bomb, headers=JSON_HEADERS | {"content-encoding": encoding})
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


def test_a_large_body_is_refused_before_all_of_it_has_arrived(limited_client: TestClient) -> None:
    """With a Content-Length at once, without one as soon as the limit is reached."""
    sent = 0

    def chunks() -> Any:
        nonlocal sent
        for _ in range(1_000):
            sent += 10_000
            yield b" " * 10_000

    answer = limited_client.post("/v1/events", content=chunks(), headers=JSON_HEADERS)
    assert (answer.status_code, answer.json()["fields"]["limit"]) == (413, LIMITED)
    answer = limited_client.post("/v1/events", content=b" " * (LIMITED + 1), headers=JSON_HEADERS)
    assert answer.status_code == 413


def test_a_server_that_does_not_know_a_type_refuses_it(strict_client: TestClient) -> None:
    """It says how to make the type known."""
    answer = strict_client.post("/v1/events", json={"events": [OPENED]})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-event")
    assert "--accept-unknown" in answer.json()["detail"]
