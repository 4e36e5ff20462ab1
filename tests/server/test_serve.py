"""`eventfold serve`: its addresses, its end, its log, and what it refuses at the start."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from eventfold import Store
from tests.cli.commands import process, run
from tests.server.serving import Served, read_all, read_answer, wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an empty store bank.db."""
    Store(str(tmp_path / "bank.db")).close()
    return tmp_path


def test_it_prints_the_address_of_a_free_port_and_ends_in_order_at_a_signal(folder: Path) -> None:
    """The port is the real one, and the exit code is 0."""
    with Served(folder, "bank.db") as server:
        assert server.port > 0
        assert server.announced["docs"] == f"{server.url}/v1/docs"
        assert server.ask("GET /healthz").json == {"status": "ok"}
        assert server.ask("GET /v1/head").json["position"] == 0
        assert server.stop() == 0
        assert "The server has ended." in server.log()


def test_stores_are_named_by_flags_and_files(folder: Path) -> None:
    """Each is served under its name; none without a name, as there are two."""
    Store(str(folder / "shop.db")).close()
    (folder / "server.toml").write_text("[stores]\nshop = 'shop.db'\n")
    with Served(folder, "--store", "bank=bank.db", "--config", "server.toml") as server:
        assert server.ask("GET /v1/stores/bank/head").status == 200
        assert server.ask("GET /v1/stores/shop/head").status == 200
        assert server.ask("GET /v1/head").json["code"] == "store-not-found"
        assert server.ask("GET /v1/stores/none/head").json["code"] == "store-not-found"
        assert server.stop(signal.SIGINT) == 0


def test_it_listens_on_a_socket_file_and_replaces_one_that_was_left(folder: Path) -> None:
    """After kill -9 the file is still there; while a server listens, a second one is refused."""
    for number in (signal.SIGKILL, signal.SIGTERM):
        with Served(folder, "bank.db", "--unix-socket", "s.sock") as server:
            assert server.ask("GET /healthz").status == 200
            if number == signal.SIGTERM:
                again = process("serve", "bank.db", "--unix-socket", "s.sock", folder=folder)
                assert again.code == 2
                assert "already in use" in again.err
            server.stop(number)
    assert not (folder / "s.sock").exists()


def test_a_port_in_use_and_an_unknown_host_are_refused_in_a_sentence(folder: Path) -> None:
    """With what to do, and without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = process("serve", "bank.db", "--port", port, folder=folder)
    assert done.code == 2
    assert f"cannot listen at 127.0.0.1, port {port}: address already in use" in done.err
    assert "--port (0: a free one)" in done.err
    assert "Traceback" not in done.err
    done = process("serve", "bank.db", "--no-auth", "--host", "256.1.1.1", folder=folder)
    assert done.code == 2
    assert "The host '256.1.1.1'" in done.err


def test_a_store_that_does_not_exist_is_refused_unless_it_is_to_be_created(folder: Path) -> None:
    """A wrong path must not become a new store."""
    done = process("serve", "none.db", "--port", "0", folder=folder)
    assert done.code == 4
    assert "--create" in done.err
    assert not (folder / "none.db").exists()
    with Served(folder, "none.db", "--create") as server:
        assert server.ask("GET /v1/head").status == 200


def test_the_settings_are_printed_with_their_sources_and_without_secrets(folder: Path) -> None:
    """And a setting that cannot be used is refused by the same command."""
    (folder / "server.toml").write_text(
        "[logs]\nformat = 'json'\n[deliver.pager]\nto = 'webhook'\nurl = 'https://h.example/hunter2'\n"
        "headers = {authorization = 'Bearer hunter2'}\n"
    )
    done = run(
        "serve", "postgresql://eve:hunter2@db/bank", "--config", str(folder / "server.toml"), "--print-config",
        EVENTFOLD_SERVER__PORT="81",
    )  # fmt: skip
    assert done.code == 0
    assert "hunter2" not in done.out
    assert "port = 81  # EVENTFOLD_SERVER__PORT" in done.out
    assert f'authorization = "(set, not shown)"  # {folder / "server.toml"}' in done.out
    assert f'format = "json"  # {folder / "server.toml"}' in done.out
    wrong = run("serve", "bank.db", "--print-config", EVENTFOLD_SERVER__PROT="81")
    assert wrong.code == 2
    assert "Did you mean EVENTFOLD_SERVER__PORT?" in wrong.err


def test_the_variable_of_the_commands_names_the_store_only_if_no_other_is_named() -> None:
    """A server with stores of its own does not serve another one by accident."""
    assert 'default = "own.db"  # EVENTFOLD_URL' in run("serve", "--print-config", EVENTFOLD_URL="own.db").out
    named = run("serve", "--store", "bank=bank.db", "--print-config", EVENTFOLD_URL="own.db")
    assert "own.db" not in named.out
    assert run("serve").code == 2


def test_a_request_in_progress_is_finished_before_the_end_and_a_second_signal_ends_at_once(folder: Path) -> None:
    """The rest of a request may come after the signal; no new connection is accepted meanwhile."""
    with Served(folder, "bank.db") as server:
        with server.connect() as connection:
            connection.sendall(
                b"GET /v1/head HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 5\r\nConnection: close\r\n\r\n12"
            )
            assert read_answer(connection).status == 200
        with server.connect() as connection:
            connection.sendall(b"POST /v1/none HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\n12")
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "The server ends" in server.log(), "the log line of the first signal")
            connection.sendall(b"345")
            assert read_answer(connection).status == 404
        assert server.process.wait(timeout=90) == 0


def test_log_lines_name_routes_and_never_values(folder: Path) -> None:
    """Neither a path, a query nor a header is logged; JSON lines have the same facts as texts."""
    with Served(folder, "bank.db", EVENTFOLD_LOGS__FORMAT="json") as server:
        server.ask("GET /v1/head?filter=hunter2\nAuthorization: Bearer hunter2")
        server.ask("GET /v1/stores/hunter2/head")
        server.ask("GET /hunter2")
        assert server.stop() == 0
        assert "hunter2" not in server.log()
        lines = [json.loads(line) for line in server.log().splitlines()]
    requests = [line for line in lines if line["message"] == "request"]
    assert [(line["route"], line["status"]) for line in requests] == [("/head", 200), ("/head", 404), (None, 404)]
    assert len({line["request_id"] for line in requests}) == 3
    assert all(line["time"].endswith("Z") for line in lines)
    assert {line["level"] for line in requests} == {"info"}  # others may warn, as of a store in memory


def test_followers_are_asked_to_connect_again_and_an_append_is_finished(folder: Path) -> None:
    """A stream ends with `bye`; an append whose body is complete is answered; the process does not wait for readers."""
    body = b'{"events": [{"type": "Opened", "data": {}}]}'
    head = f"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    with Served(folder, "bank.db", "--accept-unknown") as server, server.connect() as follower:
        follower.sendall(b"GET /v1/follow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stream = b""
        while b"caught-up" not in stream:
            stream += follower.recv(65536)
        with server.connect() as writer:
            writer.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body[:10])
            wait_until(lambda: server.ask("GET /healthz").status == 200, "the server has read the head")
            server.process.send_signal(signal.SIGTERM)
            assert b"event: bye" in read_all(follower)
            writer.sendall(body[10:])
            assert read_answer(writer).status == 201
        assert server.process.wait(timeout=90) == 0
    with Store(str(folder / "bank.db"), create=False) as store:
        assert store.head() == 1


def test_clients_that_wait_for_commits_do_not_delay_the_end(folder: Path) -> None:
    """A follower of a remote store always has such a request in progress."""
    with Served(folder, "bank.db", "--accept-unknown") as server, Store(server.url) as store:
        follower = store.follow()
        reader = threading.Thread(target=lambda: next(iter(follower), None), daemon=True)
        reader.start()
        wait_until(lambda: server.ask("GET /healthz").status == 200, "the server answers")
        time.sleep(0.3)  # the follower has read the log and waits
        assert server.stop() == 0
        assert "timeout" not in server.log()
        assert "CancelledError" not in server.log()
        follower.close()
        reader.join(60)


def test_a_second_signal_ends_the_process_at_once(folder: Path) -> None:
    """Also while a request in progress would be waited for."""
    with Served(folder, "bank.db") as server, server.connect() as connection:
        connection.sendall(
            b"POST /v1/none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n12"
        )
        wait_until(lambda: server.ask("GET /healthz").status == 200, "the server has read the head")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "The server ends" in server.log(), "the log line of the first signal")
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM


def test_the_time_for_requests_in_progress_is_bounded(folder: Path) -> None:
    """A request that never ends is cut off, and the exit code is 0."""
    with Served(folder, "bank.db", EVENTFOLD_SERVER__SHUTDOWN_SECONDS="1") as server, server.connect() as connection:
        connection.sendall(b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{")
        wait_until(lambda: server.ask("GET /healthz").status == 200, "the server has read the head")
        assert server.stop() == 0
