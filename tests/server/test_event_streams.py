"""Events as NDJSON and as Arrow: whole, in order, and recognisable if they break off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.engines.memory import MemoryEngine
from eventfold.errors import CorruptEvent
from eventfold.ports.messages import Page, Span
from eventfold.server import application
from eventfold.server.events import arrow
from tests.server.conftest import ANY_TYPE
from tests.server.test_read_events import fill, unpacked

NDJSON, ARROW = "application/x-ndjson", "application/vnd.apache.arrow.stream"
MANY = 2_500  # more than two pages


def fill_many(client: TestClient) -> None:
    """Append MANY events."""
    for start in range(0, MANY, 500):
        events = [{"type": "A", "tags": [f"n:{n % 5}"], "data": {"n": n}} for n in range(start + 1, start + 501)]
        assert client.post("/v1/events", json={"events": events}).status_code == 201


def lines(answer: Any) -> list[dict[str, Any]]:
    """The objects of an NDJSON answer."""
    assert answer.headers["content-type"] == NDJSON
    return [json.loads(line) for line in unpacked(answer).splitlines()]


def test_a_stream_has_every_event_as_a_page_has_it(client: TestClient) -> None:
    """All pages of the log in one answer."""
    events = fill(client)
    assert lines(client.get("/v1/events", headers={"accept": NDJSON})) == events


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
def test_a_long_stream_is_whole_and_in_order(client: TestClient, encoding: str) -> None:
    """Over several pages, compressed or not, in both directions, with a limit."""
    fill_many(client)
    headers = {"accept": NDJSON, "accept-encoding": encoding}
    whole = client.get("/v1/events", headers=headers)
    assert whole.headers.get("content-encoding", "identity") == encoding
    assert [event["data"]["n"] for event in lines(whole)] == list(range(1, MANY + 1))
    back = client.get("/v1/events?backwards=true&limit=1500", headers=headers)
    assert [event["data"]["n"] for event in lines(back)] == list(range(MANY, MANY - 1500, -1))
    asked = {"query": {"items": [{"tags": ["n:2"]}]}}
    some = client.request("QUERY", "/v1/events", json=asked, headers=headers)
    assert [event["data"]["n"] for event in lines(some)] == list(range(2, MANY + 1, 5))


@pytest.mark.parametrize("media", [NDJSON, ARROW])
def test_a_stream_is_kept_by_no_cache(client: TestClient, media: str) -> None:
    """One that ends with an error would be taken for the whole answer later: its entity tag is still the right one."""
    fill(client)
    answer = client.get("/v1/events", headers={"accept": media})
    assert answer.headers["cache-control"] == "no-store"
    again = client.get("/v1/events", headers={"accept": media, "if-none-match": answer.headers["etag"]})
    assert again.status_code == 304  # for a client that knows that it has everything
    head = client.head("/v1/events", headers={"accept": media})
    assert (head.headers["etag"], head.headers.get("content-length")) == (answer.headers["etag"], None)


def test_an_arrow_stream_has_the_same_events(client: TestClient) -> None:
    """With types for positions, ids, tags and moments."""
    events = fill(client)
    answer = client.get("/v1/events", headers={"accept": ARROW})
    assert (answer.status_code, answer.headers["content-type"]) == (200, ARROW)
    assert answer.content.endswith(arrow.END)
    with pa.ipc.open_stream(answer.content) as reader:
        table = reader.read_all()
    assert table.column("position").to_pylist() == [event["position"] for event in events]
    assert [each.hex() for each in table.column("id").to_pylist()] == [e["id"].replace("-", "") for e in events]
    assert table.column("tags").to_pylist() == [event["tags"] for event in events]
    assert [json.loads(each) for each in table.column("data").to_pylist()] == [event["data"] for event in events]
    moments = [each.isoformat(timespec="microseconds")[:-6] + "Z" for each in table.column("time").to_pylist()]
    assert moments == [event["time"] for event in events]


def test_an_empty_arrow_stream_has_its_schema(client: TestClient) -> None:
    """So a reader gets a table without rows."""
    answer = client.get("/v1/events", headers={"accept": ARROW})
    with pa.ipc.open_stream(answer.content) as reader:
        assert reader.read_all().num_rows == 0


def test_without_pyarrow_the_answer_names_the_extra(memory_client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """406: the client asked for nothing else."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    arrow.forget()
    try:
        answer = memory_client.get("/v1/events", headers={"accept": ARROW})
        assert (answer.status_code, answer.json()["code"]) == (406, "not-acceptable")
        assert "eventfold[arrow]" in answer.json()["detail"]
        either = memory_client.get("/v1/events", headers={"accept": f"{ARROW}, {NDJSON};q=0.5"})
        assert (either.status_code, either.headers["content-type"]) == (200, NDJSON)
    finally:
        monkeypatch.undo()
        arrow.forget()


class Failing(MemoryEngine):
    """An engine whose third page cannot be read."""

    failure: Exception = CorruptEvent("The event at position 2001 is damaged.", "Restore a backup.", position=2001)
    pages = 0

    async def read(self, query: ef.Query, span: Span) -> Page:
        """Return two pages, then fail."""
        if not query.items and span.limit > 1 and span.after >= 2_000:
            raise self.failure
        await asyncio.sleep(0)
        return await super().read(query, span)


@pytest.mark.parametrize(
    ("failure", "code"), [(Failing.failure, "corrupt-event"), (ZeroDivisionError(), "internal-error")]
)
def test_a_stream_that_fails_says_so_in_its_last_line(failure: Exception, code: str) -> None:
    """All events before are whole; the problem has the same fields as one that is answered with a status."""
    engine = Failing()
    engine.failure = failure
    with TestClient(application(ef.AsyncStore(engine), settings=ANY_TYPE)) as client:
        fill_many(client)
        found = lines(client.get("/v1/events", headers={"accept": NDJSON}))
        assert [each.get("position") for each in found] == [*range(1, 2_001), None]
        assert (found[-1]["error"]["code"], found[-1]["error"]["status"]) == (code, 500)
        answer = client.get("/v1/events", headers={"accept": ARROW})
        assert not answer.content.endswith(arrow.END)
        rows: Sequence[Any] = []
        with pytest.raises(pa.ArrowInvalid), pa.ipc.open_stream(answer.content) as reader:
            for batch in reader:
                rows = [*rows, *batch.column("position").to_pylist()]
        assert list(rows) == list(range(1, 2_001))


def test_a_read_that_fails_at_its_first_page_has_a_status(client: TestClient) -> None:
    """Not a stream with an error in it."""
    answer = client.get("/v1/events?after=7", headers={"accept": NDJSON})
    assert (answer.status_code, answer.json()["code"]) == (422, "position-beyond-head")
