"""The target that logs, and the one that calls a function of the user."""

from __future__ import annotations

import logging

import pytest

import eventfold as ef
from eventfold.alerts import delivery
from eventfold.alerts.delivery import Message
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


def test_a_function_of_the_user_is_called_and_its_errors_are_reported() -> None:
    """Its error is named in the message; the error itself is not kept, since it may show a secret."""

    def send(message: Message) -> None:
        raise ValueError(f"cannot send {message.kind}")

    target = delivery.function(send)
    with pytest.raises(DeliveryFailed, match=r"function .*send failed: ValueError: cannot send test") as failed:
        target.send_test()
    assert failed.value.__cause__ is None and target.name == "send"
