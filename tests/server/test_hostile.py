"""Hostile clients: what is slow, huge, malformed or never read ends in bounded time and memory, others are served.

One server with small limits serves all tests of this file.
"""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventfold import NewEvent, Store
from tests.server.serving import Served, parse_answer, read_all, read_answer, wait_until

LIMITS = {
    "EVENTFOLD_LIMITS__HEADER_SECONDS": "1.5",
    "EVENTFOLD_LIMITS__BODY_GRACE_SECONDS": "2",
    "EVENTFOLD_LIMITS__BODY_BYTES_PER_SECOND": "1000",
    "EVENTFOLD_LIMITS__BODY_BYTES": "1000000",
    "EVENTFOLD_LIMITS__STALL_SECONDS": "1.5",
    "EVENTFOLD_LIMITS__CONNECTIONS": "300",
}
EVENTS, EVENT_BYTES = 400, 100_000  # 40 MB: more than the buffers of a connection
GROWTH_KIB = 200_000  # by how much the memory of the server may grow, with whatever is sent to it


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of a store with large events."""
    folder = tmp_path_factory.mktemp("hostile")
    with Store(str(folder / "bank.db")) as store:
        for _ in range(EVENTS):
            store.append_encoded(NewEvent.of("Large", b'"' + b"x" * EVENT_BYTES + b'"', tags=["large:1"]))
    with Served(folder, "bank.db", "--accept-unknown", **LIMITS) as found:
        found.ask("GET /v1/head")
        yield found


@pytest.fixture(autouse=True)
def still_served(server: Served) -> Iterator[None]:
    """After each test the server answers others, has written nothing, and its memory is bounded."""
    before = server.memory_kib()
    yield
    assert server.ask("GET /v1/head").json["position"] == EVENTS
    assert server.memory_kib() - before < GROWTH_KIB
    assert "Traceback" not in server.log()
    assert not [line for line in server.log().splitlines() if "Invalid HTTP" in line or "upgrade" in line]


def request(head: str, body: bytes = b"", *, length: int | None = None) -> bytes:
    """The bytes of a request with the headers that a client must send, and others on further lines of `head`."""
    first, *more = head.split("\n")
    size = len(body) if length is None else length
    more += [f"Content-Length: {size}"] if size else []
    return "\r\n".join([f"{first} HTTP/1.1", "Host: localhost", *more, "", ""]).encode() + body


APPEND = "POST /v1/events\nContent-Type: application/json"


def test_headers_that_come_byte_by_byte_are_ended_in_bounded_time(server: Served) -> None:
    """The time runs from the first byte, however many follow."""
    started = time.monotonic()
    with server.connect() as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for byte in request("GET /v1/head\nX-Slow: " + "x" * 10_000):
            connection.sendall(bytes([byte]))
            connection.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(65536)
                break
    assert parse_answer(answer).status == 408
    assert parse_answer(answer).json["code"] == "request-too-slow"
    assert time.monotonic() - started < 60


def test_a_connection_without_a_request_is_closed(server: Served) -> None:
    """Also one that was used before, and one that sent nothing at all."""
    with server.connect() as silent:
        assert read_all(silent) == b""
    answers = list[bytes]()

    def is_answered() -> bool:
        with server.connect() as used, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            used.sendall(request("GET /healthz"))
            found = b""
            while not found.endswith(b'{"status":"ok"}'):
                more = used.recv(65536)
                assert more, found
                found += more
            used.sendall(b"GET /healthz HTTP/1.1\r\n")  # and no more
            answers.append(read_all(used))
        return bool(answers and answers[-1])

    # A test process that a loaded machine stops between the two requests sends the second one too late: once more.
    wait_until(is_answered, "the beginning of a second request is read")
    assert parse_answer(answers[-1]).status == 408


def test_a_body_that_comes_too_slowly_is_refused(server: Served) -> None:
    """A rate in bytes a second, after a grace period."""
    body = json.dumps({"events": [{"type": "A", "data": 1}]}).encode()
    with server.connect() as connection:
        connection.sendall(request(APPEND, b"", length=len(body)))
        connection.settimeout(0.2)
        for byte in body:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(bytes([byte]))
            try:
                answer = connection.recv(65536)
                break
            except TimeoutError:
                continue
        else:
            raise AssertionError("the body was read to its end")
    assert (parse_answer(answer).status, parse_answer(answer).json["code"]) == (408, "request-too-slow")


def test_a_body_that_comes_at_the_required_rate_is_read(server: Served) -> None:
    """Longer than the grace period."""
    body = json.dumps({"query": {"items": [{"tags": ["none:1"]}]}}).encode()
    body += b" " * (8_000 - len(body))
    with server.connect() as connection:
        connection.sendall(
            request("POST /v1/events/query\nContent-Type: application/json\nConnection: close", b"", length=len(body))
        )
        for start in range(0, len(body), 500):
            connection.sendall(body[start : start + 500])
            time.sleep(0.2)  # 2,500 bytes a second for over 3 s
        assert read_answer(connection).status == 200


def test_no_call_waits_for_bodies_that_come_slowly(tmp_path: Path) -> None:
    """Many more of them than calls are handled at once; each is answered when it is complete."""
    Store(str(tmp_path / "bank.db")).close()
    few = {"CALLS": "2", "WAITING_CALLS": "2", "WAIT_SECONDS": "0.5"}
    few = {f"EVENTFOLD_LIMITS__{name}": value for name, value in few.items()}
    body = b'{"events": [{"type": "A", "data": 1}]}'
    with Served(tmp_path, "bank.db", "--accept-unknown", **few) as server, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.connect()) for _ in range(12)]
        for each in slow:
            each.sendall(request(APPEND + "\nConnection: close", body[:5], length=len(body)))
        for position in range(1, 6):
            assert server.ask("GET /v1/head").status == 200
            assert server.ask("POST /v1/events", body).json["first"] == position
        for each in slow[:2]:
            each.sendall(body[5:])
            assert read_answer(each).status == 201


def test_the_bodies_of_one_caller_are_bounded_together(tmp_path: Path) -> None:
    """The bytes that wait for their last one; with those that are ended others of this caller fit again."""
    Store(str(tmp_path / "bank.db")).close()
    small = {"EVENTFOLD_LIMITS__BODY_BYTES": "1000000", "EVENTFOLD_LIMITS__BODIES_BYTES": "2000000"}
    body = b'{"events": [{"type": "A", "data": 1}]}'
    with Served(tmp_path, "bank.db", "--accept-unknown", **small) as server, contextlib.ExitStack() as stack:
        answers = list[int]()
        for _ in range(4):
            connection = stack.enter_context(server.connect())
            connection.sendall(request(APPEND, b" " * 900_000, length=950_000))
            connection.settimeout(1)
            with contextlib.suppress(TimeoutError):
                answers.append(parse_answer(connection.recv(65536)).status)
        assert answers == [429] * 3
        assert server.ask("POST /v1/events", body).status == 201
        stack.close()
        wait_until(lambda: _large_append(server) == 201, "a large body is read again")


def _large_append(server: Served) -> int:
    body = b'{"events": [{"type": "A", "data": 1}]}' + b" " * 900_000
    return server.ask("POST /v1/events", body).status


@pytest.mark.parametrize(
    "sent",
    [
        request("GET /" + "x" * 70_000),
        request("GET /v1/head\nX-Large: " + "x" * 70_000),
        request("GET /v1/head\n" + "\n".join(f"X-{number}: 1" for number in range(300))),
        request("GET /v1/head\n" + "\n".join(f"X-{number}: {'x' * 300}" for number in range(120))),
    ],
    ids=["path", "value", "number", "sum"],
)
def test_large_heads_are_refused(server: Served, sent: bytes) -> None:
    """The path, one header, their number, and all of them together."""
    with server.connect() as connection:
        connection.sendall(sent)
        answer = read_answer(connection)
    assert (answer.status, answer.json["code"]) == (431, "headers-too-large")
    assert answer.headers["connection"] == "close"


def test_headers_without_an_end_are_refused_before_they_fill_the_memory(server: Served) -> None:
    """A client sends a header value of up to 200 MB and never ends it."""
    with server.connect() as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(b"GET /v1/head HTTP/1.1\r\nHost: localhost\r\nX-Endless: ")
        for _ in range(200):
            connection.sendall(b"x" * 1_000_000)
        raise AssertionError("the server read everything")


@pytest.mark.parametrize("length", [2_000_000, 10**12, 2**63 - 1])
def test_a_body_whose_declared_length_is_too_large_is_refused_before_it_is_read(server: Served, length: int) -> None:
    """413, and the connection ends, since what follows is not a request."""
    with server.connect() as connection:
        connection.sendall(request(APPEND, b'{"events": [', length=length))
        answer = read_answer(connection)
    assert (answer.status, answer.json["code"]) == (413, "body-too-large")


def test_a_chunked_body_without_an_end_is_refused(server: Served) -> None:
    """Its length is not declared, so it is counted."""
    with server.connect() as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(request(APPEND + "\nTransfer-Encoding: chunked"))
        for _ in range(200):
            connection.sendall(b"f4240\r\n" + b" " * 1_000_000 + b"\r\n")
        raise AssertionError("the server read everything")


BAD_BODIES = {
    "no JSON": b"no JSON",
    "half JSON": b'{"events": [{"type": "A"',
    "invalid UTF-8": b'{"events": [{"type": "\xff\xfe", "data": 1}]}',
    "half a surrogate": b'{"events": [{"type": "\\ud800", "data": 1}]}',
    "null": b"null",
    "array": b"[]",
    "no events": b'{"events": []}',
    "NUL": b'{"events": [{"type": "A\\u0000", "data": 1}]}',
    "nested": b'{"events": [{"type": "A", "data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
    "huge number": b'{"events": [{"type": "A", "data": 1}], "after": 1' + b"0" * 5_000 + b"}",
    "NaN": b'{"events": [{"type": "A", "data": NaN}]}',
    "unknown field": b'{"events": [{"type": "A", "data": 1}], "unles": {}}',
    "many events": b'{"events": [' + b",".join([b'{"type":"A","data":1}'] * 1_001) + b"]}",
    "wrong gzip": b"\x1f\x8b\x08\x00not gzip",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_body_that_is_not_an_append_is_refused_as_a_problem(server: Served, body: bytes) -> None:
    """Always 4xx with a code and what to do, and nothing is written."""
    encoding = "\nContent-Encoding: gzip" if body.startswith(b"\x1f") else ""
    answer = server.ask(APPEND + encoding, body)
    assert 400 <= answer.status < 500, answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["code"]
    assert answer.json["title"]
    assert answer.json["detail"]


PATHS = [
    "/v1/stores/..%2f..%2fetc%2fpasswd/head", "/v1/stores/../../etc/passwd/head", "/v1/stores/%00/head", "//v1/head",
    "/v1//head", "/v1/stores//head", "/v1/stores/%252e%252e/head", "/V1/HEAD",
    "/v1/head/", "/v1/head;x=1", "/v1/head%0d%0aX-Injected:1", "/v1/events/99999999999999999999999999", "/v1/events/-1",
    "/v1/events/1.5", "/v1/events/%F0%28", "/v1/events/by-id/..", "/v1/stores/%ff%fe/head", "/\\..\\..\\etc",
    "/v1/stores/default/../default/head", "/%2e%2e/%2e%2e/etc/passwd",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_paths_lead_nowhere_else(server: Served, path: str) -> None:
    """Each is refused, and what it contains is not in a header of the response."""
    answer = server.ask(f"GET {path}")
    assert 400 <= answer.status < 500, answer
    assert "x-injected" not in answer.headers
    assert "root:" not in answer.body.decode()


SMUGGLED = b"GET /v1/stats HTTP/1.1\r\nHost: localhost\r\n\r\n"
SHAPES = {
    "length and chunked": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked and length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": b"Content-Length: 0\r\nContent-Length: 36\r\n\r\n" + SMUGGLED,
    "length list": b"Content-Length: 0, 36\r\n\r\n" + SMUGGLED,
    "negative length": b"Content-Length: -1\r\n\r\n" + SMUGGLED,
    "length with a plus": b"Content-Length: +0\r\n\r\n" + SMUGGLED,
    "hexadecimal length": b"Content-Length: 0x0\r\n\r\n" + SMUGGLED,
    "length beyond 64 bits": b"Content-Length: 18446744073709551616\r\n\r\n" + SMUGGLED,
    "chunked not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "space before the colon": b"Content-Length : 0\r\n\r\n" + SMUGGLED,
    "folded header": b"X: 1\r\n Content-Length: 36\r\n\r\n" + SMUGGLED,
    "bare line feed": b"Content-Length: 0\nX: 1\n\n" + SMUGGLED,
    "bare carriage return": b"X: 1\rContent-Length: 36\r\n\r\n" + SMUGGLED,
    "NUL in a value": b"X: \x00\r\n\r\n" + SMUGGLED,
    "chunk size beyond 64 bits": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + SMUGGLED,
    "chunk size without a number": b"Transfer-Encoding: chunked\r\n\r\n\r\n" + SMUGGLED,
    "two hosts": b"Host: b\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_request_with_two_readings_is_refused_and_nothing_after_it_is_read(server: Served, shape: bytes) -> None:
    """The request hidden in it is never answered."""
    with server.connect() as connection:
        connection.sendall(b"POST /v1/none HTTP/1.1\r\nHost: localhost\r\n" + shape)
        found = read_all(connection)
    assert found.startswith(b"HTTP/1.1 400 "), found[:200]
    assert found.count(b"\r\ncontent-length: ") == 1
    assert b"application/problem+json" in found


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v1/head HTTP/1.1\r\n\r\n", b"GET /v1/head\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500, b"\x00" * 100,
        b"get /v1/head HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/head HTTP/9.9\r\nHost: localhost\r\n\r\n", "GET /v1/é HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
        b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_not_a_request_is_refused(server: Served, sent: bytes) -> None:
    """With a problem where that is possible; never with 5xx."""
    with server.connect() as connection:
        connection.sendall(sent)
        found = read_all(connection)
    assert found.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 ", b"HTTP/1.1 405 ")), found[:200]


def test_a_response_that_is_not_read_ends_and_does_not_fill_the_memory(server: Served) -> None:
    """Four clients ask for 40 MB each and read nothing; the server holds little more than a page for each."""
    before = server.memory_kib()
    with contextlib.ExitStack() as stack:
        clients = list[socket.socket]()
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.settimeout(90)
            client.connect(("127.0.0.1", server.port))
            clients.append(client)
            client.sendall(request("GET /v1/events?limit=400\nAccept: application/x-ndjson"))
        for client in clients:
            assert client.recv(12) == b"HTTP/1.1 200"
        grown = 0
        while _open_connections(server):
            grown = max(grown, server.memory_kib() - before)
            time.sleep(0.02)
        assert grown < 4 * 22_000, f"{grown} KiB"


def _open_connections(server: Served) -> int:
    """How many TCP connections the server has open."""
    entries = Path(f"/proc/{server.process.pid}/fd").iterdir()
    sockets = set[str]()
    for each in entries:
        with contextlib.suppress(FileNotFoundError):
            sockets.add(str(each.readlink()))
    lines = Path(f"/proc/{server.process.pid}/net/tcp").read_text().splitlines()[1:]
    port = f":{server.port:04X}"
    return sum(
        columns[1].endswith(port) and columns[3] != "0A" and f"socket:[{columns[9]}]" in sockets
        for columns in map(str.split, lines)
    )


def test_connections_beyond_the_limit_are_refused_and_idle_ones_give_way(server: Served) -> None:
    """503 with Retry-After; when idle connections have been ended, others are served."""
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(server.connect())
        wait_until(lambda: _open_connections(server) >= 300, "the connections are open")
        with server.connect() as other:
            answer = read_answer(other)
        assert (answer.status, answer.json["code"]) == (503, "too-many-connections")
        assert answer.headers["retry-after"] == "1"
        wait_until(lambda: _open_connections(server) == 0, "the idle connections are ended")
        assert server.ask("GET /healthz").status == 200


def test_pipelined_requests_are_answered_in_order_up_to_a_number(server: Served) -> None:
    """More than that end the connection; they would be held in memory."""
    with server.connect() as connection:
        connection.sendall(request("GET /v1/head") * 4 + request("GET /healthz\nConnection: close"))
        found = read_all(connection)
    assert found.count(b"HTTP/1.1 200") == 5
    assert found.rindex(b'"status":"ok"') > found.rindex(b'"position"')
    with server.connect() as connection, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(request("GET /v1/head") * 5_000)
        assert read_all(connection).count(b"HTTP/1.1 200") < 5_000


def test_an_upgrade_is_not_made_and_ends_the_connection(server: Served) -> None:
    """The request is answered as HTTP/1.1; nothing after it is read as a request."""
    with server.connect() as connection:
        connection.sendall(request("GET /healthz\nConnection: Upgrade\nUpgrade: websocket") + SMUGGLED)
        found = read_all(connection)
    assert found.count(b"\r\ncontent-length: ") == 1
    assert found.startswith(b"HTTP/1.1 200 ")


def test_health_is_answered_while_many_connections_are_idle(tmp_path: Path) -> None:
    """2,000, or as many as the limit of open files allows to both processes."""
    Store(str(tmp_path / "bank.db")).close()
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = min(2_000, soft - 600)
    with Served(tmp_path, "bank.db", EVENTFOLD_LIMITS__HEADER_SECONDS="60") as server, contextlib.ExitStack() as stack:
        before = server.memory_kib()
        for _ in range(number):
            stack.enter_context(server.connect())
        wait_until(lambda: _open_connections(server) >= number, "all connections are accepted")
        answers = [server.ask("GET /healthz").status for _ in range(50)]
        assert answers == [200] * 50
        assert server.memory_kib() - before < GROWTH_KIB
        assert server.stop() == 0
