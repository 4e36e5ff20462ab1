"""Alertmanager: a real one shows an episode while it is open, also after a restart; a stub sees the posts."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.alerts import delivery
from eventfold.errors import DeliveryFailed
from tests.alerts.delivery.facts import cleared, micros, raised, record, until
from tests.support.servers.http import bound_socket

PROGRAM = shutil.which("prometheus-alertmanager")


class Posts:
    """A server on loopback that records what is posted to it."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        posts = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                posts.alerts += [{**each, "path": self.path} for each in body]
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def posts() -> Iterator[Posts]:
    """A stub of Alertmanager."""
    posts = Posts()
    yield posts
    posts.close()


def test_an_episode_is_an_alert_with_labels_that_is_posted_again_while_it_is_open(posts: Posts) -> None:
    """Its end is posted with the same labels; an episode that is cleared is not posted again."""
    with ef.Store("memory:") as store:
        target = delivery.alertmanager(posts.url, store="shop", labels={"team": "cards"}, resend=0.2)
        with store.run(target):
            first = raised("c-1", micros())
            record(store, first)
            until(lambda: len(posts.alerts) >= 3)
            record(store, cleared(first, micros()))
            until(lambda: posts.alerts[-1]["endsAt"] <= posts.alerts[0]["endsAt"])
            record(store, raised("c-2", micros(), severity="none"), raised("c-3", micros(), severity="ticket"))
            until(lambda: posts.alerts[-1]["labels"]["key"] == "c-3")
    labels = {"alertname": "CardTesting", "severity": "page", "key": "c-1", "store": "shop", "team": "cards"}
    assert posts.alerts[0]["labels"] == labels and posts.alerts[0]["path"] == "/api/v2/alerts"
    assert posts.alerts[0]["annotations"] == {"summary": "c-1 fails.", "episode": first.episode}
    assert {each["startsAt"] for each in posts.alerts if each["labels"]["key"] == "c-1"} == {
        posts.alerts[0]["startsAt"]
    }
    assert {each["labels"]["key"] for each in posts.alerts} == {"c-1", "c-3"}
    assert all(each["endsAt"] > each["startsAt"] for each in posts.alerts[:2])


def test_a_test_message_names_the_alertmanager_that_is_away() -> None:
    """With its host; the path of the address is not shown."""
    with bound_socket() as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/alerts-T0KEN"
    with pytest.raises(DeliveryFailed, match=r"127\.0\.0\.1") as failed:
        delivery.alertmanager(url, timeout=1.0).send_test()
    assert "T0KEN" not in str(failed.value)


@contextmanager
def alertmanager(folder: Path, port: int) -> Generator[str]:
    """Run a real Alertmanager; yields its address."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    assert PROGRAM is not None
    arguments = [f"--config.file={folder}/config.yml", f"--storage.path={folder}/data", "--cluster.listen-address="]
    process = subprocess.Popen(
        [PROGRAM, *arguments, f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: shown(url) is not None)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def shown(url: str) -> list[dict[str, Any]] | None:
    """The alerts that an Alertmanager shows as active; None if it does not answer."""
    try:
        with urllib.request.urlopen(f"{url}/api/v2/alerts?active=true", timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


@pytest.mark.skipif(
    PROGRAM is None, reason="prometheus-alertmanager is not installed (Debian: prometheus-alertmanager)"
)
def test_a_real_alertmanager_shows_what_is_open_also_after_it_was_restarted(tmp_path: Path) -> None:
    """It is away for a while, and gets everything afterwards; then the episode is cleared."""
    with bound_socket() as free:
        port = free.getsockname()[1]
    with ef.Store(str(tmp_path / "shop.db")) as store:
        target = delivery.alertmanager(f"http://127.0.0.1:{port}", first_delay=0.1, max_delay=0.2, resend=0.5)
        first, second = raised("c-1", micros()), raised("c-2", micros())
        with store.run(target):
            record(store, first)
            until(lambda: store.projections.parked("deliver_alertmanager"))
            with alertmanager(tmp_path / "one", port) as url:
                until(lambda: [each["labels"]["key"] for each in shown(url) or ()] == ["c-1"])
            record(store, second)
            with alertmanager(tmp_path / "two", port) as url:
                until(lambda: sorted(each["labels"]["key"] for each in shown(url) or ()) == ["c-1", "c-2"])
                record(store, cleared(first, micros()))
                until(lambda: [each["labels"]["key"] for each in shown(url) or ()] == ["c-2"])
                alert = (shown(url) or [{}])[0]
                assert alert["labels"]["alertname"] == "CardTesting" and alert["labels"]["severity"] == "page"
                assert alert["annotations"]["summary"] == "c-2 fails."
                until(lambda: store.projections.parked("deliver_alertmanager") == [])
