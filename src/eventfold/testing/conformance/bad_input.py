"""Each mistake raises its own error, with a class, a stable code and two sentences, and nothing is written."""

# Mistakes are made here on purpose.
# pyright: basic

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, cast
from uuid import UUID

import pytest

import eventfold as ef
from eventfold.core.query import Item, Query
from eventfold.errors import (
    CursorMismatch,
    EventIdReused,
    InvalidDecision,
    InvalidEvent,
    InvalidInput,
    InvalidQuery,
    InvalidState,
    PositionBeyondHead,
)
from eventfold.store import Store
from eventfold.testing.conformance.events import Account, Deposited, Noted, about, deposit, deposits, draft

NAIVE = datetime(2020, 1, 1)


class Held(ef.Event, type="conformance.held"):
    """An event with fields for wrong values."""

    tag: ef.Tag = "x"
    text: str = ""
    number: int = 0
    real: float = 0.0
    amount: Decimal = Decimal(0)
    maybe: float | None = None
    pair: tuple[int, int] = (0, 0)
    anything: Any = None


class Kind(Enum):
    """Not a type of any field above."""

    A = "a"


class Mistake(NamedTuple):
    """A wrong call, and the error that it must raise."""

    do: Callable[[Store], Any]
    error: type[ef.EventfoldError]
    words: str  # a part of the message


def held(**fields: Any) -> Callable[[Store], Any]:
    """Append an event with these fields, after a valid one."""
    return lambda store: store.append(Noted(), Held(**fields))


def tagged(*tags: Any) -> Callable[[Store], Any]:
    """Append an event with these tags."""
    return lambda store: store.append(ef.Draft(Noted(), tags=tags))


def drafted(**more: Any) -> Callable[[Store], Any]:
    """Append a draft with these options."""
    return lambda store: store.append(ef.Draft(Noted(), **more))


def read(**bounds: Any) -> Callable[[Store], Any]:
    """Read with these bounds."""
    return lambda store: list(store.read(**bounds))


MISTAKES: dict[str, Mistake] = {
    "no events": Mistake(lambda s: s.append(), InvalidInput, "1 to 1,000"),
    "too many events": Mistake(lambda s: s.append(*deposits(1_001)), InvalidInput, "1 to 1,000"),
    "a list where events are meant": Mistake(lambda s: s.append([deposit()]), InvalidEvent, "not an event class"),
    "text": Mistake(lambda s: s.append("deposited"), InvalidEvent, "not an event class"),
    "nothing": Mistake(lambda s: s.append(None), InvalidEvent, "not an event class"),
    "a class instead of an event": Mistake(lambda s: s.append(Deposited), InvalidEvent, "not an event class"),
    "a draft of a draft": Mistake(lambda s: s.append(ef.Draft(ef.Draft(Noted()))), InvalidEvent, "not an event class"),
    "a value without JSON form": Mistake(held(anything=object()), InvalidEvent, "cannot be stored"),
    "a complex number": Mistake(held(anything=1j), InvalidEvent, "cannot be stored"),
    "a function": Mistake(held(anything=len), InvalidEvent, "cannot be stored"),
    "an integer that is too large": Mistake(held(number=10**5_000), InvalidEvent, "cannot be stored"),
    "half a character": Mistake(held(text="\ud800"), InvalidEvent, "cannot be stored"),
    "not a number": Mistake(held(real=float("nan")), InvalidEvent, "conformance.held"),
    "infinity": Mistake(held(real=float("inf")), InvalidEvent, "conformance.held"),
    "not a number where None may be": Mistake(held(maybe=float("nan")), InvalidEvent, "with another value"),
    "not a decimal number": Mistake(held(amount=Decimal("NaN")), InvalidEvent, "with another value"),
    "a signalling decimal": Mistake(held(amount=Decimal("sNaN")), InvalidEvent, "conformance.held"),
    "text for a number": Mistake(held(number="5"), InvalidEvent, "$.number"),
    "a number for text": Mistake(held(text=5), InvalidEvent, "$.text"),
    "a truth value for a number": Mistake(held(number=True), InvalidEvent, "$.number"),
    "None for text": Mistake(held(text=None), InvalidEvent, "$.text"),
    "a float for a decimal": Mistake(held(amount=0.1), InvalidEvent, "amount is 0.1"),
    "a float for a decimal that is its equal": Mistake(held(amount=1.5), InvalidEvent, "amount is 1.5"),
    "a list for a tuple": Mistake(held(pair=[1, 2]), InvalidEvent, "with another value"),
    "a tuple of another length": Mistake(held(pair=(1, 2, 3)), InvalidEvent, "$.pair"),
    "an enum for anything": Mistake(held(anything=Kind.A), InvalidEvent, "with another value"),
    "an over-large event": Mistake(held(text="x" * 1_000_001), InvalidEvent, "1,000,000"),
    "over-large metadata": Mistake(drafted(metadata={"a": "x" * 1_000_001}), InvalidEvent, "1,000,000"),
    "a tag with a line break": Mistake(held(tag="a\nb"), InvalidEvent, "control character"),
    "a tag with a null": Mistake(held(tag="a\x00"), InvalidEvent, "control character"),
    "a tag with half a character": Mistake(held(tag="\ud800"), InvalidEvent, "cannot be stored"),
    "a tag that is too long": Mistake(held(tag="x" * 252), InvalidEvent, "255"),
    "a tag that is too long in bytes": Mistake(held(tag="ä" * 126), InvalidEvent, "255"),
    "a tag of a wrong type": Mistake(held(tag=5.5), InvalidEvent, "$.tag"),
    "an empty tag": Mistake(tagged(""), InvalidEvent, "is empty"),
    "a reserved tag": Mistake(tagged("$own"), InvalidEvent, "$"),
    "a tag that is no text": Mistake(tagged(5), InvalidEvent, "5"),
    "a tag that is bytes": Mistake(tagged(b"x"), InvalidEvent, "x"),
    "sixty-five tags": Mistake(tagged(*[f"n:{n}" for n in range(65)]), InvalidEvent, "64"),
    "tags given as one text": Mistake(drafted(tags="account:a-1"), InvalidEvent, "account:a-1"),
    "an id that is text": Mistake(drafted(id="not-an-id"), InvalidEvent, "not-an-id"),
    "a naive time of occurrence": Mistake(drafted(occurred=NAIVE), InvalidInput, "time zone"),
    "a time of occurrence that is text": Mistake(drafted(occurred="2020-01-01"), InvalidInput, "2020-01-01"),
    "a key that is empty": Mistake(lambda s: s.append(Noted(), key=""), InvalidInput, "request key"),
    "a key that is too long": Mistake(lambda s: s.append(Noted(), key="k" * 256), InvalidInput, "255"),
    "a key with a line break": Mistake(lambda s: s.append(Noted(), key="a\nb"), InvalidInput, "request key"),
    "a key that is no text": Mistake(lambda s: s.append(Noted(), key=17), InvalidInput, "17"),
    "an id used twice": Mistake(lambda s: s.append(*[draft(Noted(), 1)] * 2), EventIdReused, "same id"),
    "a condition that is text": Mistake(lambda s: s.append(Noted(), unless="account:a-1"), InvalidQuery, "account:a-1"),
    "a condition in the future": Mistake(lambda s: s.append(Noted(), unless=Query(), after=9), PositionBeyondHead, "9"),
    "a condition at a negative position": Mistake(
        lambda s: s.append(Noted(), unless=about("a"), after=-1), InvalidQuery, "-1"
    ),
    "a query with an empty tag": Mistake(lambda s: Query.of(tags=""), InvalidQuery, "empty"),
    "a query with a tag too long": Mistake(lambda s: Query.of(tags="x" * 256), InvalidQuery, "255"),
    "a query with a tag that is no text": Mistake(lambda s: Query.of(tags=cast(Any, [5])), InvalidQuery, "5"),
    "a query with a class that is no event": Mistake(lambda s: Query.of(types=int), InvalidQuery, "int"),
    "a query with an item that is empty": Mistake(lambda s: Query((Item(), Item(("a",)))), InvalidQuery, "no type"),
    "a read by a text": Mistake(lambda s: list(s.read("account:a-1")), InvalidQuery, "account:a-1"),
    "a read after a negative position": Mistake(read(after=-1), InvalidQuery, "-1"),
    "a read after the future": Mistake(read(after=7), PositionBeyondHead, "7"),
    "a read with a negative limit": Mistake(read(limit=-1), InvalidQuery, "-1"),
    "a read since a naive time": Mistake(read(since=NAIVE), InvalidInput, "time zone"),
    "a read until a naive time": Mistake(read(until=NAIVE), InvalidInput, "time zone"),
    "a count until a naive time": Mistake(lambda s: s.count(until=NAIVE), InvalidInput, "time zone"),
    "a count until a negative position": Mistake(lambda s: s.count(until=-1), InvalidQuery, "-1"),
    "a state at a naive time": Mistake(lambda s: s.state(Account("a"), at=NAIVE), InvalidInput, "time zone"),
    "a state in the future": Mistake(lambda s: s.state(Account("a"), at=3), PositionBeyondHead, "3"),
    "a state before the beginning": Mistake(lambda s: s.state(Account("a"), at=-1), InvalidQuery, "-1"),
    "a state at a truth value": Mistake(lambda s: s.state(Account("a"), at=True), InvalidQuery, "True is no position"),
    "a state at a text": Mistake(lambda s: s.state(Account("a"), at="yesterday"), InvalidInput, "yesterday"),
    "a state of a class": Mistake(lambda s: s.state(Account), InvalidState, "question"),
    "a cursor in the future": Mistake(lambda s: s.cursor(5), PositionBeyondHead, "5"),
    "a cursor that is none": Mistake(lambda s: s.verify("efc1_x"), CursorMismatch, "efc1_x"),
    "a decision that returns nothing": Mistake(lambda s: s.decide(lambda: None), InvalidDecision, "None"),
    "no attempts": Mistake(lambda s: s.using(attempts=0).append(Noted()), InvalidInput, "attempts"),
    "no attempts to decide": Mistake(lambda s: s.using(attempts=0).decide(lambda: Noted()), InvalidInput, "attempts"),
}


def test_a_mistake_gets_its_own_error_and_writes_nothing(store: Store) -> None:
    """Each mistake raises its specific error, in two sentences, and nothing is written."""
    for name, mistake in MISTAKES.items():
        try:
            mistake.do(store)
        except ef.EventfoldError as refused:
            error = refused
        else:
            raise AssertionError(f"{name} is accepted")
        assert type(error) is mistake.error, name
        assert mistake.words in str(error), name
        assert two_sentences(error), name
        assert store.head() == 0, name
    assert store.append(Noted()).first == 1


def two_sentences(error: ef.EventfoldError) -> bool:
    """Assert that an error has two sentences, what happened and what to do, and can be pickled."""
    for sentence in (error.what, error.remedy):
        assert sentence[0].isupper() or not sentence[0].isalpha() or "." in sentence
        assert sentence.endswith((".", ")", "!")), sentence
        assert len(sentence) < 1_500
    assert str(error) == f"{error.what} {error.remedy}"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own)
    assert (type(again), str(again), again.code) == (type(error), str(error), error.code)
    return True


def test_a_cursor_of_another_store_is_a_mistake_of_its_own(store: Store) -> None:
    """A cursor of another store is CursorMismatch with the code `cursor-mismatch`, naming both stores."""
    with ef.Store("memory:") as other:
        other.append(Noted())
        with pytest.raises(CursorMismatch) as refused:
            list(store.read(after=other.cursor()))
        assert refused.value.fields == {"cursor_store": other.engine.store_id, "store": store.engine.store_id}
    assert refused.value.code == "cursor-mismatch"


def test_a_reused_id_is_a_mistake_of_its_own(store: Store) -> None:
    """A known id with other content is EventIdReused with the code `event-id-reused`."""
    store.append(draft(Noted("a"), 1))
    with pytest.raises(EventIdReused) as refused:
        store.append(draft(Noted("b"), 1))
    assert refused.value.code == "event-id-reused"
    assert isinstance(UUID(refused.value.fields["id"]), UUID)
    assert two_sentences(refused.value)


@pytest.mark.parametrize("text", ["nul \0", "lone \ud800"])
def test_text_that_cannot_be_stored_is_not_found_or_refused(store: Store, text: str) -> None:
    """Such text as a key, a tag or a state matches no other text, and damages no store."""
    store.append(deposit("a-1", 1), key="nul")
    asked: list[Callable[[], Any]] = [
        lambda: store.receipt(text),
        lambda: store.tags(text),
        lambda: store.state(Account(text)).balance,
        lambda: store.types() and store.tags("account:", after=f"account:{text}"),
    ]
    for ask in asked:
        try:
            assert not ask()
        except (InvalidInput, InvalidQuery):
            continue
    with pytest.raises(InvalidInput):
        store.using(command_id=text).decide(lambda account: [deposit("a-1", 1)], Account("a-1"))
    assert store.count() == 1
