"""The provider's webhooks in, the shipper's out: signed, verified, each applied once.

Knows: signatures, decisions. Does not know: a web framework; a handler passes headers and body.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

import eventfold as ef
from eventfold import webhooks
from eventfold.demo.shop.app import Order
from eventfold.demo.shop.events import PaymentAuthorised, PaymentCaptured, PaymentRefused
from eventfold.demo.shop.payment import answer
from eventfold.errors import InvalidInput
from eventfold.processes import Effect, webhook


class Answer(msgspec.Struct, frozen=True):
    """What the provider says about an order."""

    order: str
    result: Literal["authorised", "refused"]
    reference: str = ""
    why: str = ""


def receive(store: ef.Store, headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Take a message of the payment provider; return whether it changed anything.

    The message's id is the command's id, so a message that is delivered twice is applied once. Raises InvalidSignature,
    and InvalidInput if it is not about a payment.
    """
    message: Any = webhooks.verify(headers, body, secret)
    identity = next(value for name, value in headers.items() if name.lower() == "webhook-id")
    try:
        said = msgspec.convert(message, Answer)
    except msgspec.ValidationError as error:
        remedy = "Check the provider's format."
        raise InvalidInput(f"The message is no answer about a payment: {error}.", remedy) from None
    event = (
        PaymentAuthorised(said.order, said.reference)
        if said.result == "authorised"
        else PaymentRefused(said.order, said.why)
    )
    done = store.using(command_id=f"provider:{identity}").decide(answer, Order(said.order), event)
    return bool(done.events) and not done.repeated


def shipper(url: str, secret: str) -> Effect:
    """An effect that tells the shipper about each order that was paid; the event's id is the message's id."""
    return webhook(url, PaymentCaptured, secret=secret, start="beginning", name="shop_shipper")
