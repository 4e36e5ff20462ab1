"""CloudEvents 1.0 in and out: structured, batch and binary mode, by the rules of the specification."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import unquote
from uuid import NAMESPACE_URL, uuid5

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from eventfold.core.cloud_events import parse_attributes, parse_structured, to_cloud_event
from eventfold.core.envelope import StoredEvent
from eventfold.core.wire import decode
from eventfold.server.route import CLOUD_EVENT, CLOUD_EVENTS

ID = "0192f3a0-0000-7000-8000-000000000001"
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": ID,
    "source": "https://shop.example/orders",
    "type": "com.example.ordered",
    "subject": "o-1",
    "time": "2026-11-23T10:15:00+01:00",
    "datacontenttype": "application/json",
    "data": {"order": "o-1", "name": "Ö"},
}


def send(client: TestClient, value: Any, media: str = CLOUD_EVENT, **headers: str) -> Any:
    """Post a CloudEvent, or a batch."""
    return client.post("/v1/cloudevents", content=json.dumps(value), headers={"content-type": media, **headers})


def read(client: TestClient, position: int = 1) -> Any:
    """The event at a position, as JSON of this server."""
    return client.get(f"/v1/events/{position}").json()


def test_a_structured_event_becomes_an_event_of_the_log(client: TestClient) -> None:
    """Its id and source stay, its subject becomes a tag, its time that of occurrence; sent again it writes nothing."""
    first, again = send(client, EVENT), send(client, EVENT)
    assert (first.status_code, again.status_code) == (201, 200)
    found = read(client)
    assert (found["type"], found["data"]) == (EVENT["type"], EVENT["data"])
    assert (found["tags"], found["occurred"]) == (["subject:o-1"], "2026-11-23T09:15:00.000000Z")
    assert found["metadata"] == {"ce-source": EVENT["source"], "ce-id": ID}
    assert client.get("/v1/head").json()["position"] == 1


@pytest.mark.parametrize("id", ["A-17", ID])
def test_an_id_is_the_same_event_for_the_same_source_only(client: TestClient, id: str) -> None:
    """The specification demands that source and id together are unique: two sources may use the same UUID."""
    event = EVENT | {"id": id}
    assert send(client, event).status_code == 201
    assert send(client, event).status_code == 200
    other = event | {"source": "https://other.example"}
    assert send(client, other).status_code == 201
    assert [read(client, position)["id"] for position in (1, 2)] == [
        str(uuid5(NAMESPACE_URL, f"{each['source']}\n{id}")) for each in (event, other)
    ]
    out = client.get("/v1/events/1", headers={"accept": CLOUD_EVENT}).json()
    assert (out["id"], out["source"]) == (id, EVENT["source"])
    assert send(client, out).status_code == 200


def test_an_event_of_another_eventfold_keeps_its_source_if_its_id_was_made_of_it(client: TestClient) -> None:
    """What goes out is found again when it is sent back, whatever the names of the two stores are."""
    assert send(client, EVENT | {"id": "A-17", "source": "/stores/foreign"}).status_code == 201
    out = client.get("/v1/events/1", headers={"accept": CLOUD_EVENT}).json()
    assert (out["id"], out["source"]) == ("A-17", "/stores/foreign")
    assert send(client, out).status_code == 200


def test_data_that_is_null_beside_the_other_member_is_no_data(client: TestClient) -> None:
    """Some senders write both members."""
    assert send(client, EVENT | {"id": "n-1", "data_base64": None}).status_code == 201
    bytes_only = EVENT | {"id": "n-2", "data": None, "data_base64": "AP8=", "datacontenttype": "image/png"}
    assert send(client, bytes_only).status_code == 201
    assert read(client, 1)["data"] == EVENT["data"]
    assert read(client, 2)["data"] == {"$bytes": "AP8=", "$codec": "image/png"}


def test_a_header_that_is_there_twice_is_refused(client: TestClient) -> None:
    """It is not known which one the sender means."""
    once = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t"), ("idempotency-key", "k")]
    for name in ("ce-id", "idempotency-key"):
        headers = [*once, (name, "2"), ("content-type", "application/json")]
        answer = client.post("/v1/cloudevents", content=b"{}", headers=headers)
        assert (answer.status_code, answer.json()["title"]) == (422, f"The header {name} is there 2 times.")


def test_a_batch_is_one_append(client: TestClient) -> None:
    """All or none; an invalid one is named by its index."""
    batch = [EVENT | {"id": f"b-{n}"} for n in range(3)]
    answer = send(client, batch, CLOUD_EVENTS)
    assert (answer.status_code, answer.json()["last"]) == (201, 3)
    assert send(client, batch, CLOUD_EVENTS).json()["repeated"]
    wrong = send(client, [*batch, EVENT | {"specversion": "0.3", "id": "x"}], CLOUD_EVENTS)
    assert (wrong.status_code, wrong.json()["title"].startswith("events[3]: ")) == (422, True)
    assert send(client, [], CLOUD_EVENTS).status_code == 422
    assert client.get("/v1/head").json()["position"] == 3


def test_binary_mode_has_attributes_as_headers(client: TestClient) -> None:
    """Percent-encoded UTF-8, quoted or not; the body is the data, of any media type."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "b-1",
        "ce-source": "/sensors/1",
        "ce-type": "measured",
        "ce-subject": "%C3%96l%20%22x%22",
        "ce-region": '"west \\"a\\""',
        "content-type": "application/json",
    }
    assert client.post("/v1/cloudevents", content=b'{"t": 20.5}', headers=headers).status_code == 201
    found = read(client)
    assert (found["data"], found["tags"]) == ({"t": 20.5}, ['subject:Öl "x"'])
    assert found["metadata"]["region"] == 'west "a"'
    raw = b"\x00\xff<x/>"
    xml = headers | {"ce-id": "b-2", "content-type": "text/xml"}
    assert client.post("/v1/cloudevents", content=raw, headers=xml).status_code == 201
    assert read(client, 2)["data"] == {"$bytes": base64.b64encode(raw).decode(), "$codec": "text/xml"}
    out = client.get("/v1/events/2?cloudevents=binary")
    assert (out.content, out.headers["content-type"]) == (raw, "text/xml")
    assert unquote(out.headers["ce-subject"]) == 'subject:Öl "x"'
    assert (out.headers["ce-id"], out.headers["ce-source"], out.headers["ce-position"]) == ("b-2", "/sensors/1", "2")
    assert client.get("/v1/events/2?cloudevents=other").status_code == 422


def test_what_goes_out_comes_in_again_as_the_same_event(client: TestClient) -> None:
    """With tags, metadata, version and times; in every mode, so a copy by CloudEvents repeats nothing."""
    events = [
        {
            "type": "Öpened/x",
            "version": 3,
            "tags": ["account:a-1", "owner:Ö"],
            "data": {"a": [1, None]},
            "metadata": {
                "actor": "teller",
                "correlation_id": "c",
                "causation_id": "d",
                "traceparent": "00-1-2-01",
                "n": 1,
            },
            "occurred": "2026-11-23T09:15:00Z",
        },
        {"type": "Plain"},
        {"type": "Bytes", "data": {"$bytes": "gQGi", "$codec": "msgpack", "$key": "k1"}},
    ]
    assert client.post("/v1/events", json={"events": events}).status_code == 201
    batch = client.get("/v1/events", headers={"accept": CLOUD_EVENTS})
    assert batch.headers["content-type"] == CLOUD_EVENTS
    first = batch.json()[0]
    assert first["source"] == "/stores/default"
    assert first["dataschema"] == "http://testserver/v1/stores/default/schemas/%C3%96pened%2Fx/3"
    assert (first["subject"], first["tags"]) == ("account:a-1", '["account:a-1","owner:Ö"]')
    assert (first["time"], first["recordedtime"] > first["time"]) == ("2026-11-23T09:15:00.000000Z", True)
    assert (first["actor"], first["correlationid"], first["position"], first["n"]) == ("teller", "c", 1, 1)
    assert batch.json()[2]["data_base64"] == "gQGi"
    again = client.post("/v1/cloudevents", content=batch.content, headers={"content-type": CLOUD_EVENTS})
    assert (again.status_code, again.json()["repeated"]) == (200, True)
    for position in (1, 2):
        one = client.get(f"/v1/events/{position}", headers={"accept": CLOUD_EVENT})
        answer = client.post("/v1/cloudevents", content=one.content, headers={"content-type": CLOUD_EVENT})
        # The append had three events, so one of them alone is no repetition: but it is the same event, not another one.
        assert answer.json()["code"] == "event-id-reused"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": ""}, "id"),
        ({"id": None}, "no id"),
        ({"source": 1}, "source"),
        ({"type": ""}, "type"),
        ({"Upper": "x"}, "'Upper'"),
        ({"an_extension": "x"}, "'an_extension'"),
        ({"extension": {"a": 1}}, "neither text"),
        ({"extension": 2**40}, "neither text"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-11-23T10:15:00"}, "time"),
        ({"tags": "a,b"}, "tags"),
        ({"data_base64": "AA=="}, "both"),
        ({"data": ..., "data_base64": "%%"}, "base64"),
        ({"data": ..., "data_base64": "äö"}, "base64"),
        ({"data": ..., "data_base64": 1}, "base64"),
        ({"subject": "a\nb"}, "tag"),
        ({"type": "$own"}, "reserved"),
    ],
)
def test_a_cloud_event_that_is_not_valid_is_refused(memory_client: TestClient, change: Any, text: str) -> None:
    """With what is wrong, and nothing is written."""
    event = {name: value for name, value in (EVENT | change).items() if value is not ...}
    answer = send(memory_client, event)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-event")
    assert text in answer.json()["title"]
    assert memory_client.get("/v1/head").json()["position"] == 0


def test_a_body_that_is_no_cloud_event_is_refused(memory_client: TestClient) -> None:
    """By its media type, or by its JSON."""
    assert send(memory_client, EVENT, "application/json").status_code == 415
    assert send(memory_client, [EVENT], CLOUD_EVENT).status_code == 422
    assert send(memory_client, EVENT, CLOUD_EVENTS).status_code == 422


def test_a_key_makes_a_batch_repeatable(memory_client: TestClient) -> None:
    """As for any append; a batch of other events with this key is refused."""
    first, again = (send(memory_client, [EVENT], CLOUD_EVENTS, **{"idempotency-key": "k"}) for _ in range(2))
    assert (first.status_code, again.status_code, again.json()["first"]) == (201, 200, 1)
    other = send(memory_client, [EVENT | {"id": "other"}], CLOUD_EVENTS, **{"idempotency-key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "request-key-reused")


def test_pages_of_cloud_events_continue(memory_client: TestClient) -> None:
    """A header names the position, since the body has events only."""
    send(memory_client, [EVENT | {"id": f"p-{n}"} for n in range(5)], CLOUD_EVENTS)
    found, after = list[str](), "0"
    while after:
        page = memory_client.get(f"/v1/events?limit=2&after={after}", headers={"accept": CLOUD_EVENTS})
        found += [event["id"] for event in page.json()]
        after = page.headers.get("eventfold-next", "")
    assert found == [f"p-{n}" for n in range(5)]


texts = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=10).filter(lambda text: text[0] != "$")


@given(
    st.builds(
        StoredEvent,
        st.integers(1, 2**40),
        st.binary(min_size=16, max_size=16),
        texts,
        st.integers(1, 99),
        st.sampled_from([b"{}", b"null", b"[1]", b'"x"']),
        st.lists(texts, unique=True, max_size=3).map(lambda found: "\n".join(sorted(found))),
        st.integers(0, 2**50),
        st.none() | st.integers(0, 2**50),
        st.sampled_from([None, b'{"actor":"a"}', b'{"correlation_id":"c","x1":true}']),
    )
)
def test_an_event_is_the_same_after_it_was_a_cloud_event(stored: StoredEvent) -> None:
    """Its id, type, version, data, tags, metadata and time of occurrence."""
    text = msgspec.json.encode(to_cloud_event(stored, "/stores/a", "http://x/v1/schemas"))
    new = parse_structured(decode(text, dict[str, msgspec.Raw]))
    if stored.occurred == stored.time:
        new = msgspec.structs.replace(new, occurred=stored.time)
    assert stored.is_same_as(new)


def test_attributes_that_are_left_out_have_their_defaults() -> None:
    """Only four are required."""
    event = parse_attributes({"specversion": "1.0", "id": ID, "source": "/stores/a", "type": "A"}, b"{}")
    assert (event.type, event.tags, event.version, event.metadata, event.occurred) == ("A", (), 1, None, None)


@pytest.mark.parametrize("name", ["extension", "id", "data", "time"])
def test_a_number_that_no_float_can_be_is_refused_as_the_senders_mistake(memory_client: TestClient, name: str) -> None:
    """1e400 is JSON, and is read only when its attribute is."""
    members = {**EVENT, "datacontenttype": "text/plain", name: 0}
    body = json.dumps(members).replace(f'"{name}": 0', f'"{name}": 1e400')
    answer = memory_client.post("/v1/cloudevents", content=body, headers={"content-type": CLOUD_EVENT})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-event")
    assert name in answer.json()["title"]
