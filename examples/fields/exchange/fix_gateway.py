# pyright: basic, reportMissingTypeStubs=false
# simplefix has no types.
"""FIX 4.4 for the exchange: new orders (35=D) and cancellations (35=F) in, execution reports (35=8) out.

    pip install simplefix
    python -m examples.fields.exchange.fix_gateway exchange.db < orders.fix

Knows: tags of FIX, the package simplefix. Does not know: sessions, logons and sequence numbers, which a FIX engine
has. A client's order id (tag 11) is the request key of the decision: an order that is sent twice trades once, and the
second answer is the first one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import simplefix

import eventfold as ef
from eventfold.demo.exchange.app import Account, Book, cancel, submit
from eventfold.demo.exchange.events import OrderCancelled, OrderRejected, OrderSubmitted, OrderTraded

TICKS = 4  # in an index point
IMMEDIATE_OR_CANCEL = b"3"  # tag 59
STATUS = {"new": "0", "part": "1", "filled": "2", "cancelled": "4", "rejected": "8"}  # tag 39
REJECTED_CANCEL = "9"  # 35=9


def parse(text: bytes) -> Iterator[simplefix.FixMessage]:
    """Yield the messages of a stream."""
    parser = simplefix.FixParser()
    parser.append_buffer(text)
    while (message := parser.get_message()) is not None:
        yield message


def execute(store: ef.Store, message: simplefix.FixMessage) -> list[simplefix.FixMessage]:
    """Carry out one message and return its answers. Raises ValueError on a type of message other than D and F."""
    order, account, instrument = (_text(message, tag) for tag in (11, 1, 55))
    at = datetime.strptime(_text(message, 60), "%Y%m%d-%H:%M:%S.%f").replace(tzinfo=UTC)
    session = store.using(command_id=f"fix/{account}/{order}")
    match message.message_type:
        case b"D":
            side = "buy" if message.get(54) == b"1" else "sell"
            price, size = round(float(_text(message, 44)) * TICKS), int(_text(message, 38))
            now = message.get(59) == IMMEDIATE_OR_CANCEL
            given = (order, side, price, size, at, now)
            decided = session.decide(submit, Book(instrument), Account(account), *given)
        case b"F":
            original = _text(message, 41)
            decided = session.decide(cancel, Book(instrument), Account(account), original, at)
            if not decided.events:
                return [_answer("9", order, (41, original), (39, STATUS["filled"]), (434, "1"), (102, "0"))]
        case other:
            raise ValueError(f"message type {other!r} is neither a new order (D) nor a cancellation (F)")
    return list(_reports(order, [each.event for each in decided.events]))


def _reports(order: str, events: list[object]) -> Iterator[simplefix.FixMessage]:
    """An execution report for each event that concerns the order."""
    size = traded = 0
    for event in events:
        match event:
            case OrderSubmitted():
                size = event.size
                yield _report(order, "0", "new", size, 0)
            case OrderRejected():
                yield _report(order, "8", "rejected", 0, 0, (58, event.reason))
            case OrderTraded():
                traded += event.size
                status = "filled" if traded == size else "part"
                fill = ((31, f"{event.price / TICKS:.2f}"), (32, event.size), (1003, event.trade))
                yield _report(order, "F", status, size - traded, traded, *fill)
            case OrderCancelled():
                yield _report(event.order, "4", "cancelled", 0, traded, (58, event.reason))
            case _:
                pass


def _report(
    order: str, kind: str, status: str, left: int, traded: int, *more: tuple[int, object]
) -> simplefix.FixMessage:
    return _answer("8", order, (150, kind), (39, STATUS[status]), (151, left), (14, traded), *more)


def _answer(kind: str, order: str, *pairs: tuple[int, object]) -> simplefix.FixMessage:
    answer = simplefix.FixMessage()
    answer.append_pair(8, "FIX.4.4")
    answer.append_pair(35, kind)
    answer.append_pair(11, order)
    for tag, value in pairs:
        answer.append_pair(tag, value)
    return answer


def _text(message: simplefix.FixMessage, tag: int) -> str:
    value = message.get(tag)
    if value is None:
        raise ValueError(f"tag {tag} is missing in {message}")
    return value.decode()


if __name__ == "__main__":
    with ef.Store(sys.argv[1]) as opened:
        for received in parse(sys.stdin.buffer.read()):
            for reply in execute(opened, received):
                sys.stdout.write(str(reply) + "\n")
