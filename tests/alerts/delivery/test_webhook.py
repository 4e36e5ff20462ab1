"""Webhooks: signed, at least once with the same id, in order, through a time in which the receiver is away."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.alerts import delivery
from eventfold.alerts.delivery import Delivery
from eventfold.alerts.delivery.message import Message
from eventfold.errors import DeliveryFailed, InvalidProcess
from tests.alerts.delivery.facts import PATIENCE_S, cleared, micros, raised, record, until
from tests.alerts.delivery.receiving import SECRET, TOKEN, Receiver, receiving

QUICK: Any = {"group": 0, "group_page": 0, "first_delay": 0.05, "max_delay": 0.1}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ef.Store]:
    """An empty store in a file."""
    with ef.Store(str(tmp_path / "shop.db")) as store:
        yield store


def pager(receiver: Receiver, name: str = "pager", **options: Any) -> Delivery:
    """A delivery to a receiver, without waiting."""
    return delivery.webhook(receiver.url, secret=SECRET, name=name, **{**QUICK, **options})


def parked(store: ef.Store, name: str = "pager") -> list[str]:
    """The errors of the messages that were not delivered."""
    return [each.error for each in store.projections.parked(f"deliver_{name}")]


def test_each_state_is_posted_once_and_signed(store: ef.Store) -> None:
    """With the id of the message in the log, and its text."""
    with receiving() as receiver, store.run(pager(receiver, store="shop")):
        first = raised("c-1", micros())
        record(store, first)
        until(lambda: receiver.received)
        record(store, cleared(first, micros()))
        until(lambda: len(receiver.received) == 2)
    assert receiver.states() == ["raised c-1", "cleared c-1"] and receiver.unsigned == []
    (one, body), (two, end) = receiver.received
    assert body["type"] == "alert.raised" and body["data"]["summary"] == "CardTesting c-1: c-1 fails."
    assert body["data"]["store"] == "shop" and body["data"]["episodes"][0]["episode"] == first.episode
    assert one != two and end["data"]["root"] == one
    sent = [str(each.id) for each in store.read(ef.Query.of(tags=["alert:none"]))]
    assert sent == [] and store.event(one) is not None


def test_a_receiver_that_was_away_gets_everything_in_order(store: ef.Store) -> None:
    """The same id at each attempt; another target is not held up."""
    with receiving() as other, receiving() as receiver:
        receiver.answer = 503
        with store.run(pager(receiver), pager(other, "other")):
            first = raised("c-1", micros())
            record(store, first)
            until(lambda: parked(store))
            record(store, cleared(first, micros()))
            until(lambda: other.states() == ["raised c-1", "cleared c-1"])
            assert receiver.received == []
            until(lambda: len(parked(store)) == 2)  # its own messages only
            assert [(each.name, each.failed) for each in store.alerts.targets()] == [("pager", 2), ("other", 0)]
            receiver.answer = 204
            until(lambda: len(receiver.received) == 2)
            until(lambda: parked(store) == [])
    assert receiver.states() == ["raised c-1", "cleared c-1"]


def test_a_target_that_is_blocked_holds_up_no_other(store: ef.Store) -> None:
    """While one waits for an answer, the other gets its messages."""
    with receiving() as slow, receiving() as other:
        slow.blocked.set()
        with store.run(pager(slow, timeout=20.0), pager(other, "other")):
            first = raised("c-1", micros())
            record(store, first)
            until(slow.blocking.is_set)
            record(store, cleared(first, micros()), raised("c-2", micros()))
            until(lambda: len(other.received) >= 2)
            assert slow.received == []
            slow.blocked.clear()
            until(lambda: len(slow.received) >= 2)


def test_a_target_that_refuses_for_good_is_visible_and_can_be_retried(store: ef.Store) -> None:
    """After its attempts the message waits for an operator, with what the target said."""
    with receiving() as receiver:
        receiver.answer = 401
        with store.run(pager(receiver, attempts=2)):
            record(store, raised("c-1", micros()))
            until(lambda: [each.attempts for each in store.projections.parked("deliver_pager")] == [2])
            (entry,) = store.projections.parked("deliver_pager")
            assert "401" in entry.error and entry.state == "parked"
            (instance,) = store.processes.list("deliver_pager")
            assert instance.state == "stuck" and "127.0.0.1" in instance.error
            receiver.answer = 200
            store.processes.retry("deliver_pager")
            until(lambda: receiver.states() == ["raised c-1"])
            until(lambda: parked(store) == [])


def test_no_secret_is_shown(store: ef.Store, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in errors nor in the log, the status or the text of the object; even if the receiver quotes it."""
    with receiving() as receiver:
        receiver.answer = 404
        target = pager(receiver, attempts=1, headers={"authorization": "Bearer hidden-123"})
        with caplog.at_level(logging.DEBUG), store.run(target):
            record(store, raised("c-1", micros()))
            until(lambda: parked(store))
        with pytest.raises(DeliveryFailed) as failed:
            target.send_test()
        shown = [*parked(store), caplog.text, repr(target), target.description, str(failed.value), repr(failed.value)]
        shown += [str(failed.value.__context__), str(store.processes.list("deliver_pager"))]
        assert "404" in str(failed.value) and "no hook at …" in str(failed.value)
        for secret in (TOKEN, SECRET, "hidden-123"):
            assert [text for text in shown if secret in text] == []


@pytest.mark.parametrize(
    ("tail", "headers"),
    [
        ("?a=1&token=T0kenTok", {}),
        ("", {"authorization": "Bearer T0kenTok"}),
        (f"/{'a' * 100}/{'b' * 100}/T0kenTok{'c' * 200}", {}),
    ],
    ids=["a value of the query", "a word of a header", "a part that the limit of what is quoted would cut"],
)
def test_a_part_of_a_secret_that_the_receiver_quotes_is_hidden(tail: str, headers: dict[str, str]) -> None:
    """The receiver says which token it does not know."""
    with receiving() as receiver:
        receiver.answer, receiver.quote = 404, "" if "c" * 9 in tail else " T0kenTok"
        target = delivery.webhook(f"{receiver.url}{tail}", secret=SECRET, headers=headers)
        with pytest.raises(DeliveryFailed, match="404") as failed:
            target.send_test()
    assert "T0kenTok" not in str(failed.value)


def test_an_answer_that_never_ends_is_an_answer(store: ef.Store) -> None:
    """Its status says whether the message was accepted."""
    with receiving() as receiver:
        receiver.answer, receiver.announced = 200, 1_000_000
        pager(receiver, timeout=0.5).send_test()
        receiver.answer = 500
        with pytest.raises(DeliveryFailed, match="answered 500"):
            pager(receiver, timeout=0.5).send_test()


@contextlib.contextmanager
def dripping(line: bytes) -> Iterator[str]:
    """The address of a host that begins an answer with a line, and then sends a byte every twentieth of a second."""
    ended = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = listening.accept()
        with client, contextlib.suppress(OSError):
            client.sendall(line)
            while not ended.wait(0.05):
                client.sendall(b"x")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/hook"
    finally:
        ended.set()
        thread.join(PATIENCE_S)
        listening.close()


@pytest.mark.parametrize(
    ("line", "says"),
    [(b"HTTP/1.1 200 O", "has not answered within 0.5 s"), (b"HTTP/1.1 500 No\r\n\r\n", "answered 500 No")],
)
def test_a_host_that_answers_byte_by_byte_has_no_more_than_the_timeout(line: bytes, says: str) -> None:
    """Each byte comes in time, and the answer does not: `timeout` is for everything together. A status is an answer."""
    with dripping(line) as url, pytest.raises(DeliveryFailed, match=says):
        delivery.webhook(url, secret=SECRET, timeout=0.5).send_test()


def test_a_target_that_hangs_does_not_keep_a_runner_from_stopping(store: ef.Store) -> None:
    """The function never returns: the runner stops, and the next one sends the message again, under the same id."""
    hanging, sent = threading.Event(), list[str]()

    def send(message: Message) -> None:
        sent.append(message.id)
        if len(sent) == 1:
            hanging.wait()

    target = delivery.function(send, name="pager", **QUICK)
    with store.run(target):
        record(store, raised("c-1", micros()))
        until(lambda: sent)
    with store.run(target):
        until(lambda: len(sent) == 2)
    hanging.set()
    assert sent[0] == sent[1]
    assert store.alerts.targets()[0].failed == 0


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("ftp://example.com/x", {}, "no address"),
        ("https://", {}, "no address"),
        ("https://example.com/a b", {}, "no address"),
        ("https://example.com:99999/", {}, "no address"),
        ("https://me:pass@example.com/", {}, "user or a password"),
        ("https://example.com/", {"secret": "whsec_short"}, "not valid base64"),
        ("https://example.com/", {"name": "päger"}, "target"),
        ("https://example.com/", {"name": "p" * 33}, "target"),
        ("https://example.com/", {"severities": ["high"]}, "'high'"),
        ("https://example.com/", {"severities": []}, "for none"),
        ("https://example.com/", {"only": []}, "for no alert"),
        ("https://example.com/", {"budget": 0}, "budget=0"),
        ("https://example.com/", {"group": -1}, "group=-1"),
        ("https://example.com/", {"remind": float("nan")}, "remind=nan"),
        ("https://example.com/", {"headers": {"authorization": "Bearer whsec_short\n"}}, "cannot be sent"),
        ("https://example.com/", {"reminder": 5}, "no option 'reminder'"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(url: str, options: dict[str, Any], says: str) -> None:
    """When it is declared, in two sentences, which do not quote an address or a secret."""
    given: dict[str, Any] = {"secret": SECRET, **options}
    with pytest.raises(InvalidProcess, match=says) as refused:
        delivery.webhook(url, **given)
    assert "pass@" not in str(refused.value) and "whsec_short" not in str(refused.value) and refused.value.remedy


def test_two_targets_of_one_name_are_refused(store: ef.Store) -> None:
    """They would share one progress, and each would miss messages."""
    with pytest.raises(InvalidProcess, match="named deliver_log"):
        store.run(delivery.log(), delivery.log())
