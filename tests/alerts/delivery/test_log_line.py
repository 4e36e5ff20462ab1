"""The target that logs, and the one that calls a function of the user."""

from __future__ import annotations

import logging

import pytest

import eventfold as ef
from eventfold.alerts import delivery
from eventfold.alerts.delivery import Entry, Message
from eventfold.errors import DeliveryFailed
from tests.alerts.delivery.facts import micros, raised, record


def test_a_message_is_one_line_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    """A page is an error, else it is a warning; a key cannot begin a line of its own."""
    with ef.Store("memory:") as store, caplog.at_level(logging.WARNING):
        target = delivery.log(group=0, group_page=0)
        record(store, raised("c\n1", micros()), raised("", micros(), "NoOrders", "ticket"))
        record(store, raised("c-1", micros(), "Many", "ticket"), raised("c-2", micros(), "Many", "ticket"))
        store.run_until_idle(target, clock=lambda: micros() + 1_000_000)
    found = [each for each in caplog.records if each.name == "eventfold.alerts"]
    assert [(each.levelname, each.getMessage()) for each in found] == [
        ("ERROR", "[page] CardTesting c 1: c 1 fails."),
        ("WARNING", "[ticket] NoOrders: NoOrders fails."),
        ("WARNING", "[ticket] Many: 2 keys (first c-1: c-1 fails.)"),
    ]
    assert {"alert": "NoOrders", "alert_state": "raised", "alert_count": 1}.items() <= vars(found[1]).items()


def test_the_title_is_one_line_and_a_reason_begins_no_line_of_the_body() -> None:
    """A value of an event with line breaks would otherwise write headers of a mail, or lines of the message."""
    entry = Entry("k\nBcc: a@b.example", "e", "x\r\n\r\nNone of this alert is raised now.\x1b[2J", 0)
    message = Message("m", "rule", "raised", "page", 0, 1, 1, (entry,), "m")
    assert message.title == "[page] rule k Bcc: a@b.example: x    None of this alert is raised now. [2J"
    assert "None of this alert is raised now." not in message.body.splitlines()
    assert message.as_data()["episodes"][0]["key"] == entry.key


def test_a_function_of_the_user_is_called_and_its_errors_are_reported() -> None:
    """Its error is named in the message; the error itself is not kept, since it may show a secret."""

    def send(message: Message) -> None:
        raise ValueError(f"cannot send {message.kind}")

    target = delivery.function(send)
    with pytest.raises(DeliveryFailed, match=r"function .*send failed: ValueError: cannot send test") as failed:
        target.send_test()
    assert failed.value.__cause__ is None and target.name == "send"
