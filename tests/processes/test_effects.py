"""Effects: at least once with the event's id, retried, finally parked; webhooks are signed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import InvalidInput, InvalidProcess, InvalidSignature, ProcessError
from eventfold.processes import effect
from eventfold.processes.effects import Effect, RetryPolicy, webhook
from eventfold.webhooks import sign, verify
from tests.processes.shop import OrderPlaced, Paid, Reminded, mail

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Failing:
    """An effect that fails for the listed orders."""

    def __init__(self) -> None:
        self.bad: set[str] = set()
        self.tried: list[str] = []
        self.done: list[str] = []

    def effect(self, **keywords: Any) -> Effect:
        @effect(start="beginning", name="failing", **keywords)
        def failing(event: OrderPlaced | Paid) -> None:
            self.tried.append(event.order)
            if event.order in self.bad:
                raise ConnectionError(f"{event.order} is out of reach")
            self.done.append(f"{type(event).__name__} {event.order}")

        return failing


def until(condition: Any, patience: float = 60.0) -> None:
    """Wait for a condition."""
    ends = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < ends, "it did not come true"
        time.sleep(0.01)


def test_an_effect_is_given_each_event_with_its_id(store: ef.Store, mails: Path) -> None:
    """Each event comes once if no process is killed, with its id in the log."""
    store.append(Reminded("o-1"), Paid("o-1"), Reminded("o-2"))
    store.run_until_idle(mail)
    store.run_until_idle(mail)
    ids = [f"{r.id} {r.event.order}" for r in store.read(ef.Query.of(types=[Reminded]))]
    assert mails.read_text().splitlines() == ids


def test_a_failure_holds_up_its_own_key_only_and_is_tried_again(
    store: ef.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other keys go on; the failed event is retried after a pause, then the events that waited for it, in order."""
    monkeypatch.setattr("eventfold.processes.runner.CHECK_EVERY_S", 0.05)
    shop = Failing()
    shop.bad = {"o-1"}
    with store.run(shop.effect(first_delay=0.05, max_delay=0.1, attempts=50)):
        store.append(OrderPlaced("o-1"), OrderPlaced("o-2"), Paid("o-1"), Paid("o-2"))
        until(lambda: len(shop.done) == 2)
        assert shop.done == ["OrderPlaced o-2", "Paid o-2"]
        until(lambda: shop.tried.count("o-1") >= 2)
        shop.bad = set()
        until(lambda: len(shop.done) == 4)
    assert shop.done[2:] == ["OrderPlaced o-1", "Paid o-1"]


def test_an_event_that_fails_too_often_is_parked_until_an_operator_acts(memory: ef.Store) -> None:
    """After its attempts it is parked with its error; retry tries it once more, skip drops it."""
    shop = Failing()
    shop.bad = {"o-1", "o-2"}
    failing = shop.effect(attempts=2, first_delay=0.0)
    memory.append(OrderPlaced("o-1"), OrderPlaced("o-2"))
    for _ in range(4):
        with pytest.raises(ProcessError, match="o-1 is out of reach"):
            memory.run_until_idle(failing)
    assert (shop.tried.count("o-1"), shop.tried.count("o-2")) == (2, 2)
    assert [e.attempts for e in memory.projections.parked("failing")] == [2, 2]
    memory.projections.skip("failing", 1, "never mind")
    shop.bad = set()
    assert memory.projections.retry("failing") == 1
    memory.run_until_idle(failing)
    assert shop.done == ["OrderPlaced o-2"]


def test_pauses_grow_and_are_spread() -> None:
    """Each is four times as long as the one before, up to a limit, with random differences."""
    policy = RetryPolicy(attempts=9, first_delay=1.0, max_delay=100.0)
    for attempt, expected in ((1, 1), (2, 4), (3, 16), (4, 64), (5, 100), (500, 100)):
        pauses = {policy.pause(attempt) for _ in range(20)}
        assert len(pauses) > 1
        assert all(0.75 * expected <= pause <= 1.25 * expected for pause in pauses)


# ------------------------------------------------------------------------------------------ webhooks


class Receiver:
    """A server on loopback that checks signatures and answers with the configured status."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.received: list[tuple[str, Any]] = []
        self.refused: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                try:
                    message = verify(dict(self.headers), body, SECRET)
                    receiver.received.append((self.headers["webhook-id"], message))
                except InvalidSignature as error:
                    receiver.refused.append(str(error))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                self.end_headers()

            def log_message(self, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hooks?shop=1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of webhooks."""
    receiver = Receiver()
    yield receiver
    receiver.close()


def test_a_webhook_is_signed_and_repeated_under_one_id(store: ef.Store, receiver: Receiver) -> None:
    """A refused or redirected message is posted again with the same id, until it is answered by 2xx."""
    receiver.answers = [503, 302]
    hook = webhook(receiver.url, Paid, secret=SECRET, start="beginning", name="hook", first_delay=0.0)
    store.append(Paid("o-1"), OrderPlaced("o-1"))
    for status in ("503", "302"):
        with pytest.raises(ProcessError, match=f"127.0.0.1 answered {status}"):
            store.run_until_idle(hook)
    store.run_until_idle(hook)
    (paid,) = store.read(ef.Query.of(types=[Paid]))
    assert not receiver.refused
    assert {identity for identity, _ in receiver.received} == {str(paid.id)} and len(receiver.received) == 3
    message = receiver.received[-1][1]
    assert message["type"] == "shop-paid" and message["data"] == {"order": "o-1"}
    assert message["timestamp"].startswith(paid.time.strftime("%Y-%m-%dT%H:%M:%S"))


def test_a_receiver_that_is_not_there_is_an_error_in_words(memory: ef.Store, receiver: Receiver) -> None:
    """The error has no traceback of a socket, but the address and the reason."""
    receiver.close()
    receiver.close = lambda: None  # type: ignore[method-assign]
    hook = webhook(receiver.url, Paid, secret=SECRET, start="beginning", name="hook", first_delay=0.0)
    memory.append(Paid("o-1"))
    with pytest.raises(ProcessError, match="could not be reached"):
        memory.run_until_idle(hook)


def test_the_signature_is_the_one_of_the_specification() -> None:
    """The example that the reference libraries of Standard Webhooks are tested with."""
    from eventfold.webhooks import key_of

    body = b'{"test": 2432232314}'
    headers = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body, [key_of(SECRET)])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert verify(headers, body, SECRET, now=1614265330) == {"test": 2432232314}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, b: ({**h, "webhook-id": "other"}, b), "not signed with this secret"),
        (lambda h, b: (h, b + b" "), "not signed with this secret"),
        (lambda h, b: ({**h, "webhook-signature": "v1,é v2,x"}, b), "not signed with this secret"),
        (lambda h, b: ({**h, "webhook-timestamp": "100"}, b), "too far from now"),
        (lambda h, b: ({**h, "webhook-timestamp": "soon"}, b), "no valid webhook-id"),
        (lambda h, b: ({}, b), "no valid webhook-id"),
    ],
)
def test_a_changed_or_old_webhook_is_refused(change: Any, message: str) -> None:
    """Another id, body, signature or time than what was signed."""
    from eventfold.webhooks import key_of

    headers, body = change(sign("a", 1_000_000, b"{}", [key_of(SECRET)]), b"{}")
    with pytest.raises(InvalidSignature, match=message):
        verify(headers, body, SECRET, now=1_000_000)


def test_two_secrets_sign_while_one_replaces_the_other() -> None:
    """A receiver that has either of them accepts the message."""
    from eventfold.webhooks import key_of

    other = "whsec_" + "QUJD" * 8
    headers = sign("a", 1_000, b"{}", [key_of(SECRET), key_of(other)])
    for secret in (SECRET, other):
        assert verify(headers, b"{}", secret, now=1_000) == {}


class Nothing:
    """No event."""


def plain(event: Nothing) -> None:
    """Takes no event."""


def two(event: Paid, other: int) -> None:
    """Takes too much."""


def silent(event) -> None:  # type: ignore[no-untyped-def]
    """Does not say."""


async def waiting(event: Paid) -> None:
    """Waits."""


def fine(event: Paid) -> None:
    """Is as it should be."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: effect(start="now")(plain), "which is not an event class"),
        (lambda: effect(start="now")(two), "no plain function of one event"),
        (lambda: effect(start="now")(silent), "does not name the event classes"),
        (lambda: effect(start="now")(waiting), "no plain function"),
        (lambda: effect(start="soon")(fine), "starts at 'soon'"),  # type: ignore[arg-type]
        (lambda: effect(start="now", name="No!")(fine), "cannot be the name"),
        (lambda: effect(start="now", attempts=0)(fine), "no attempt"),
        (lambda: webhook("ftp://x", Paid, secret=SECRET, start="now", name="h"), "no address"),
        (lambda: webhook("https://x", Paid, secret="short", start="now", name="h"), "not valid base64"),
        (lambda: webhook("https://x", secret=SECRET, start="now", name="h"), "takes no events"),
    ],
)
def test_an_effect_that_cannot_work_is_refused_when_it_is_declared(make: Any, message: str) -> None:
    """Each mistake is an error when the effect is declared."""
    with pytest.raises(InvalidInput, match=message) as caught:
        make()
    assert isinstance(caught.value, InvalidProcess) and SECRET not in str(caught.value)
