"""The example of a browser page: it deposits, and shows the balance live, also after the server was away."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import eventfold as ef
from eventfold.core.envelope import NewEvent
from eventfold.core.event_json import build_event
from tests.support.servers.command import served

EXAMPLES = Path(__file__).parents[2] / "examples" / "browser"


def deposit(account: str, amount: str) -> NewEvent:
    """An event as the page writes it."""
    data = f'{{"account": "{account}", "amount": "{amount}"}}'.encode()
    return build_event("MoneyDeposited", data, tags=[f"account:{account}"])


class Handler(SimpleHTTPRequestHandler):
    """A server of files that writes no log."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    """The address at which the examples are served, from another origin than the store."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(EXAMPLES))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_page_deposits_and_shows_the_balance_live(page: Page, site: str, tmp_path: Path) -> None:
    """What the page appends and what another program appends are both shown, without a reload."""
    path = tmp_path / "bank.db"
    origin = {"EVENTFOLD_ACCESS__ORIGINS": site}
    with served(tmp_path, "bank.db", "--create", "--accept-unknown", **origin) as url:
        page.goto(f"{site}/balance.html?server={url}")
        page.get_by_label("Amount").fill("80.00")
        page.get_by_role("button", name="Deposit").click()
        expect(page.locator("output")).to_have_text("80.00", timeout=20_000)
        with ef.Store(str(path), create=False) as store:
            store.append_encoded(deposit("a-1", "5.50"), deposit("a-2", "1.00"))
            expect(page.locator("output")).to_have_text("85.50", timeout=20_000)
            expect(page.locator("li")).to_have_text(["#1: 80.00", "#2: 5.50"])
            page.get_by_label("Amount").fill("0.50")
            page.get_by_role("button", name="Deposit").click()
            expect(page.locator("output")).to_have_text("86.00", timeout=20_000)
            assert store.head() == 4
        page.goto("about:blank")  # or the page would report that its server ends
