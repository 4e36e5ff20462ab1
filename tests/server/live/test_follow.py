"""GET /follow over a socket: where a stream begins, what it sends, how it is resumed and how it ends."""

from __future__ import annotations

import http.client
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.requests import Request

import eventfold as ef
from eventfold.concurrency import run
from eventfold.core.query import Cursor
from eventfold.server import Settings, application
from eventfold.server.access.errors import Unauthenticated
from eventfold.server.live import view
from eventfold.server.live.hub import Hub
from eventfold.server.protocol import LimitedProtocol
from eventfold.server.scopes import ANYONE, Caller, Scope
from eventfold.server.settings import LimitSettings, LiveSettings
from tests.server.serving import Served
from tests.support.servers.http import serving
from tests.support.sse import Stream

WAIT_S = 60.0


def noted(number: int, *tags: str, type: str = "Noted", size: int = 0) -> ef.NewEvent:
    """An event with a number, and with so many bytes more."""
    return ef.NewEvent.of(type, b'{"n":%d,"pad":"%s"}' % (number, b"x" * size), tags=tags or ("all",))


@contextmanager
def store_served(path: Path, **options: Any) -> Iterator[tuple[str, ef.Store, Hub]]:
    """A store in a file, a server of it and the server's live streams. `options`: `live`, `limits`, and uvicorn's."""
    sections = {name: options.pop(name) for name in ("live", "limits") if name in options}
    with ef.Store(str(path)) as store:
        app = application(str(path), settings=Settings(**sections))
        with serving(app, **options) as url:
            yield url, store, app.server.hub


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    ends = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends, "the condition did not come to hold"
        time.sleep(0.01)


def stop(hub: Hub) -> None:
    """Have the server begin to end, as it does after SIGTERM."""
    sweep = hub._sweep
    assert sweep is not None
    sweep.get_loop().call_soon_threadsafe(hub._running.stopping.set)


def test_a_stream_sends_what_the_log_has_then_what_is_appended(tmp_path: Path) -> None:
    """Between the two comes caught-up; ids are cursors; the headers forbid caches and buffering proxies."""
    with store_served(tmp_path / "a.db") as (url, store, _):
        store.append_encoded(*(noted(n) for n in range(1, 251)))
        with Stream(url, from_=0) as stream:
            assert stream.status == 200
            headers = stream.response.headers
            assert headers["Content-Type"].startswith("text/event-stream")
            assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-store", "no")
            assert "Content-Encoding" not in headers
            old = stream.until("caught-up")
            assert [message.data["position"] for message in old] == [*range(1, 251), 250]
            assert 1_500 <= stream.retry <= 2_500
            store.append_encoded(noted(251))
            new = stream.next()
            assert (new.event, new.data["position"], new.data["data"]["n"]) == ("event", 251, 251)
            assert Cursor.parse(new.id).position == 251
            assert store.verify(new.id) == 251


def test_a_stream_begins_now_by_default_or_at_a_position_or_a_cursor(tmp_path: Path) -> None:
    """Last-Event-ID goes before after=, which goes before from=; all are exclusive."""
    with store_served(tmp_path / "a.db") as (url, store, _):
        store.append_encoded(*(noted(n) for n in range(1, 6)))
        cursor = {position: str(store.cursor(position)) for position in (2, 4)}
        for expected, headers, query in (
            ([], {}, {}),
            ([], {}, {"from_": "now"}),
            ([4, 5], {}, {"from_": 3}),
            ([3, 4, 5], {}, {"from_": "0", "after": cursor[2]}),
            ([2, 3, 4, 5], {}, {"after": 1}),
            ([5], {"Last-Event-ID": cursor[4]}, {"from_": "0", "after": cursor[2]}),
        ):
            with Stream(url, headers=headers, **query) as stream:
                seen = [message.data["position"] for message in stream.until("caught-up")]
                assert seen == [*expected, 5]


def test_types_and_tags_select_events_old_and_new(tmp_path: Path) -> None:
    """Any of the types, all of the tags."""
    with store_served(tmp_path / "a.db") as (url, store, _):
        events = [
            noted(1, "a:1", "b:1"),
            noted(2, "a:1", type="Other"),
            noted(3, "a:1", "b:1", type="Third"),
            noted(4, "b:1"),
        ]
        store.append_encoded(*events)
        with Stream(url, from_=0, types=["Noted", "Other"], tags=["a:1"]) as stream:
            assert [message.data["position"] for message in stream.until("caught-up")] == [1, 2, 4]
            store.append_encoded(*[ef.NewEvent.of(e.type, e.data, tags=e.tags) for e in events])
            assert [message.data["position"] for message in stream.events(2)] == [5, 6]


def test_a_filter_selects_events_by_their_data(tmp_path: Path) -> None:
    """Old and new ones, beside types and tags; readers of the same filter share one feed, however it is written."""
    with store_served(tmp_path / "a.db") as (url, store, hub):
        store.append_encoded(*(noted(n) for n in range(1, 8)), noted(9, type="Other"))
        streams = [Stream(url, from_=0, types="Noted", filter=text) for text in ("data.n>4", "(data.n > 4)")]
        streams.append(Stream(url, from_=0, types="Other", filter="data.n>4"))
        for stream, expected in zip(streams, ([5, 6, 7], [5, 6, 7], [8]), strict=True):
            assert [message.data["position"] for message in stream.until("caught-up")[:-1]] == expected
        assert len({reader.view for reader in hub.readers}) == 2
        store.append_encoded(noted(1), noted(10), noted(11, type="Other"))
        assert [stream.next().data["position"] for stream in streams] == [10, 10, 11]
        for stream in streams:
            stream.close()


@pytest.mark.parametrize(
    "query",
    [
        {"filter": "data.n>"},
        {"filter": "nokey:7"},
        {"type": "A"},
        {"from_": "later"},
        {"from_": "-1"},
        {"after": "9"},
        {"types": "with\nbreak"},
    ],
)
def test_an_invalid_parameter_is_refused(tmp_path: Path, query: dict[str, str]) -> None:
    """With status 422, which stops an EventSource, and with what to do."""
    with store_served(tmp_path / "a.db") as (url, _, _), Stream(url, **query) as stream:
        assert stream.status == 422
        assert stream.problem()["detail"]


def test_a_cursor_of_another_store_is_refused(tmp_path: Path) -> None:
    """With status 409, which stops an EventSource, and two sentences. So is a text that is no cursor."""
    with ef.Store(str(tmp_path / "b.db")) as other:
        other.append_encoded(noted(1))
        foreign = str(other.cursor())
    with store_served(tmp_path / "a.db") as (url, store, _):
        store.append_encoded(noted(1))
        for text in (foreign, "efc1_nonsense"):
            with Stream(url, headers={"Last-Event-ID": text}) as stream:
                assert stream.status == 409
                problem = stream.problem()
                assert (problem["code"], bool(problem["title"]), bool(problem["detail"])) == (
                    "cursor-mismatch",
                    True,
                    True,
                )


def test_a_restored_backup_is_noticed_by_a_reader_that_resumes(tmp_path: Path) -> None:
    """Its cursor is of history that the store does not have any more, although other events are at its position."""
    path = tmp_path / "a.db"
    with store_served(path) as (url, store, _):
        store.append_encoded(noted(1), noted(2))
        store.backup(str(tmp_path / "copy.db"))
        store.append_encoded(noted(3))
        with Stream(url, from_=0) as stream:
            kept, lost = (message.id for message in stream.events(3)[1:])
    path.unlink()
    shutil.copy(tmp_path / "copy.db", path)
    with store_served(path) as (url, store, _):
        store.append_encoded(noted(4))
        with Stream(url, headers={"Last-Event-ID": lost}) as stream:
            assert (stream.status, stream.problem()["code"]) == (409, "cursor-mismatch")
        with Stream(url, headers={"Last-Event-ID": kept}) as stream:
            assert stream.next().data["data"]["n"] == 4


def test_the_first_bytes_come_at_once_and_heartbeats_while_nothing_happens(tmp_path: Path) -> None:
    """Also where no event matches; a heartbeat moves the cursor past events of other types."""
    live = LiveSettings(heartbeat_seconds=0.2)
    with store_served(tmp_path / "a.db", live=live) as (url, store, hub), Stream(url, types="Rare") as stream:
        first = stream.next()
        assert (first.event, first.data) == ("caught-up", {"position": 0})
        for n in range(1, 4):
            store.append_encoded(noted(n))
        wait_for(lambda: all(reader.cursor != first.id for reader in hub.readers) and hub.readers)
        store.append_encoded(noted(4, type="Rare"))
        before = stream.next()
        assert (before.event, before.data["position"]) == ("event", 4)
        assert stream.comments >= 2


def test_readers_that_join_while_events_are_written_get_each_event_once(tmp_path: Path) -> None:
    """Sixteen readers begin at different positions while a thread appends: no event is skipped or repeated."""
    total = 1_200
    with store_served(tmp_path / "a.db") as (url, store, _):

        def write() -> None:
            for n in range(1, total, 3):
                store.append_encoded(*(noted(k, f"third:{k % 3}") for k in range(n, n + 3)))

        results: dict[int, list[int]] = {}

        def read(number: int, start: int) -> None:
            query: dict[str, Any] = {"tags": f"third:{number % 3}"} if number % 2 else {}
            with Stream(url, after=start, **query) as stream:
                expected = [p for p in range(start + 1, total + 1) if not query or p % 3 == number % 3]
                found = [message.data["position"] for message in stream.events(len(expected))]
                results[number] = [*found, -1] if found != expected else []

        writer = threading.Thread(target=write)
        writer.start()
        readers: list[threading.Thread] = []
        for number in range(16):
            wait_for(lambda number=number: store.head() >= number * total // 20)
            start = store.head() * (number % 4) // 4
            readers.append(threading.Thread(target=read, args=(number, start)))
            readers[-1].start()
        for thread in (writer, *readers):
            thread.join(WAIT_S)
        assert results == {number: [] for number in range(16)}


def test_readers_of_equal_filters_share_one_read_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve readers of two filters: each new event is read once, and encoded once."""
    encoded: list[int] = []
    to_line = view.to_line
    monkeypatch.setattr(view, "to_line", lambda stored: (encoded.append(stored.position), to_line(stored))[1])
    store = ef.AsyncStore("memory:")
    app = application(store)
    with serving(app) as url:
        streams = [Stream(url, **({"types": "Noted"} if n % 2 else {})) for n in range(12)]
        for stream in streams:
            stream.until("caught-up")
        engine: Any = store.engine
        reads: list[int] = []
        read = engine.read
        monkeypatch.setattr(engine, "read", lambda query, span: (reads.append(span.after), read(query, span))[1])
        with Stream(url) as last:
            last.until("caught-up")
            own_reads = len(reads)
            for n in range(1, 6):
                run(store.append_encoded(noted(n)))
                for stream in streams:
                    assert stream.next().data["position"] == n
        assert encoded == [1, 2, 3, 4, 5]
        assert len(reads) - own_reads <= 2 * 5 + 2  # each commit: one read with the event, one that finds the end
        for stream in streams:
            stream.close()
        wait_for(lambda: not app.server.hub.readers)


def test_a_reader_that_is_too_slow_is_dropped_and_resumes_without_a_gap(tmp_path: Path) -> None:
    """What waits for it is bounded; it gets `dropped` with the cursor of the last event it was sent."""
    live = LiveSettings(reader_bytes=65_536)
    with store_served(tmp_path / "a.db", live=live) as (url, store, hub):
        with Stream(url, receive_bytes=4_096) as slow:
            slow.until("caught-up")
            count = 0
            while not any(reader.is_ending for reader in hub.readers):
                store.append_encoded(*(noted(n, size=20_000) for n in range(count + 1, count + 11)))
                count += 10
                assert all(reader.pending_bytes < 65_536 + 300_000 for reader in hub.readers)
            *events, dropped = slow.until("dropped")
            assert list(slow) == []
        positions = [message.data["position"] for message in events]
        assert positions == [*range(1, len(positions) + 1)]
        assert dropped.data["code"] == "too-slow"
        assert Cursor.parse(dropped.data["cursor"]).position == len(positions) == Cursor.parse(dropped.id).position
        with Stream(url, headers={"Last-Event-ID": dropped.id}) as stream:
            rest = [message.data["position"] for message in stream.until("caught-up")[:-1]]
        assert positions + rest == [*range(1, count + 1)]


class ImpatientProtocol(LimitedProtocol):
    """The protocol of `eventfold serve`, which ends connections of clients that read nothing for half a second."""

    def __init__(self, config: Any, **rest: Any) -> None:
        config.limits, config.max_connections, config.short_path = LimitSettings(stall_seconds=0.5), 100, None
        super().__init__(config, **rest)


def test_a_reader_that_stops_reading_is_disconnected_and_leaves_no_task(tmp_path: Path) -> None:
    """Its connection is ended although bytes are buffered for it, which never could be sent."""
    live = LiveSettings(reader_bytes=65_536)
    with store_served(tmp_path / "a.db", live=live, http=ImpatientProtocol) as (url, store, hub):
        streams = [Stream(url, receive_bytes=4_096) for _ in range(3)]
        for stream in streams:
            stream.until("caught-up")
        wait_for(lambda: store.append_encoded(*(noted(n, size=50_000) for n in range(20))) and not hub.readers)
        for stream in streams:
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                list(stream)
            stream.close()


def test_a_client_that_goes_away_while_bytes_wait_leaves_nothing(tmp_path: Path) -> None:
    """A send that waits for a client returns when the client's connection is lost (Kludex/uvicorn#2754)."""
    with store_served(tmp_path / "a.db", live=LiveSettings(reader_bytes=65_536)) as (url, store, hub):
        streams = [Stream(url, receive_bytes=4_096) for _ in range(3)]
        for stream in streams:
            stream.until("caught-up")
        while not all(reader.sending_since for reader in hub.readers):
            store.append_encoded(*(noted(n, size=50_000) for n in range(4)))
        for stream in streams:
            stream.close()
        wait_for(lambda: not hub.readers)


def test_on_shutdown_every_reader_gets_bye_with_a_time_of_its_own(tmp_path: Path) -> None:
    """The times are spread over ten seconds; a reader that comes later gets bye at once, not an error."""
    with store_served(tmp_path / "a.db") as (url, store, hub):
        store.append_encoded(noted(1))
        streams = [Stream(url, from_=0) for _ in range(12)]
        for stream in streams:
            stream.until("caught-up")
        stop(hub)
        for stream in streams:
            assert stream.next().event == "bye"
            assert list(stream) == []
            stream.close()
        retries = {stream.retry for stream in streams}
        assert len(retries) > 3
        assert all(1_000 <= retry <= 10_000 for retry in retries)
        with Stream(url) as late:
            assert (late.status, [message.event for message in late]) == (200, ["bye"])


def test_a_new_epoch_ends_every_stream_so_that_each_cursor_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failover may have lost events: readers connect again, and those whose last event is still there go on."""
    store = ef.AsyncStore("memory:")
    app = application(store)
    with serving(app) as url, Stream(url) as stream:
        stream.until("caught-up")
        run(store.append_encoded(noted(1)))
        seen = stream.next()
        monkeypatch.setattr(store.engine, "epoch", 7)
        run(store.append_encoded(noted(2)))
        dropped = stream.until("dropped")[-1]
        assert (dropped.data["code"], dropped.id) == ("cursor-mismatch", seen.id)
        assert list(stream) == []
        with Stream(url, headers={"Last-Event-ID": dropped.id}) as again:
            assert [message.data["position"] for message in again.until("caught-up")] == [2, 2]
            run(store.append_encoded(noted(3)))
            later = Cursor.parse(again.next().id)
            assert (later.epoch, later.position) == (7, 3)


def test_the_command_serve_ends_its_streams_at_a_signal(tmp_path: Path) -> None:
    """It does not wait for them until its time for requests in progress is over."""
    ef.Store(str(tmp_path / "a.db")).close()
    with Served(tmp_path, "a.db") as server:
        streams = [Stream(server.url) for _ in range(3)]
        for stream in streams:
            stream.until("caught-up")
        assert server.stop() == 0
        for stream in streams:
            assert [message.event for message in stream] == ["bye"]
            stream.close()


def test_a_head_request_has_no_stream(tmp_path: Path) -> None:
    """It is answered with the headers of one."""
    with store_served(tmp_path / "a.db") as (url, _, hub):
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=WAIT_S)
        for _ in range(2):
            connection.request("HEAD", "/v1/follow")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
        connection.close()
        assert not hub.readers


def test_streams_are_limited_in_number(tmp_path: Path) -> None:
    """A further client is asked to come later by a stream that ends at once: a status would stop an EventSource."""
    with store_served(tmp_path / "a.db", live=LiveSettings(streams=2)) as (url, _, hub):
        with Stream(url) as first, Stream(url) as second:
            first.next(), second.next()
            with Stream(url) as third:
                assert [message.data["code"] for message in third] == ["too-many-streams"]
        wait_for(lambda: not hub.readers)
        with Stream(url) as fourth:
            assert fourth.next().event == "caught-up"


CALLERS = {
    "all": ANYONE,
    "acme": Caller(name="acme", scopes=frozenset(Scope), tags=("tenant:acme",)),
    "blue": Caller(name="blue", scopes=frozenset(Scope), tags=("tenant:blue",)),
    "envelopes": Caller(name="envelopes", scopes=frozenset({Scope.READ, Scope.FOLLOW})),
}


def test_readers_with_other_rights_share_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same filter: each tenant sees its own events, and a caller without read-payload sees no data."""
    revoked = set[str]()

    async def authenticate(_: object, request: Request, __: object) -> Caller:
        name = request.headers["authorization"]
        if name in revoked:
            raise Unauthenticated("This key was revoked.", "Use another one.")
        return CALLERS[name]

    monkeypatch.setattr("eventfold.server.asgi.Server.authenticate", authenticate)
    live = LiveSettings(heartbeat_seconds=0.2, check_seconds=0.1)
    with store_served(tmp_path / "a.db", live=live) as (url, store, _):
        store.append_encoded(noted(1, "tenant:acme"), noted(2, "tenant:blue"))
        streams = {name: Stream(url, from_=0, headers={"Authorization": name}) for name in CALLERS}
        first = {name: stream.until("caught-up") for name, stream in streams.items()}
        ends = {name: messages[-1].data["position"] for name, messages in first.items()}
        assert ends == {"all": 2, "acme": 1, "blue": 2, "envelopes": 2}  # of the last event that each sees
        assert Cursor.parse(streams["acme"].last_id).position == 1
        seen = {name: messages[:-1] for name, messages in first.items()}
        store.append_encoded(noted(3, "tenant:blue"), noted(4, "tenant:acme"), noted(5, "other"))
        for name, count in {"all": 3, "acme": 1, "blue": 1, "envelopes": 3}.items():
            seen[name] += streams[name].events(count)
        positions = {name: [message.data["position"] for message in messages] for name, messages in seen.items()}
        assert positions == {"all": [1, 2, 3, 4, 5], "acme": [1, 4], "blue": [2, 3], "envelopes": [1, 2, 3, 4, 5]}
        assert all("n" in message.data["data"] for message in seen["all"])
        assert all(message.data["data"] == {"$withheld": True} for message in seen["envelopes"])
        assert Cursor.parse(streams["acme"].last_id).position == 4
        with Stream(url, headers={"Authorization": "envelopes"}, filter="data.n>1") as refused:
            assert refused.status == 403  # which events match says what their data is
        revoked.add("blue")
        (bye,) = streams["blue"]
        assert (bye.event, bye.data["title"]) == ("bye", "This key was revoked.")
        with Stream(url, headers={"Authorization": "blue"}) as again:
            assert again.status in (401, 500)
        store.append_encoded(noted(6, "tenant:acme"))
        assert streams["acme"].events(1)[0].data["position"] == 6
        for stream in streams.values():
            stream.close()
