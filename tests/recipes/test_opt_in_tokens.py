"""A token works once, before it expires, and is not in the log."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

import pytest

import eventfold as ef
from eventfold.testing import given
from examples.recipes.opt_in_tokens import OptIn, OptInConfirmed, OptInRequested, TokenRefused, confirm, fingerprint
from tests.recipes.crowd import RACERS, Crowd, done, refused

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_a_token_works_once(crowd: Crowd) -> None:
    """Thirty-two follow one link at once; one is confirmed, the others get the error that it was used."""
    token = secrets.token_urlsafe(32)
    crowd.store.append(OptInRequested(fingerprint(token), "ada", NOW + HOUR))
    answers = crowd.race(*[lambda store: store.decide(confirm, OptIn(fingerprint(token)), now=NOW)] * RACERS)
    assert len(done(answers)) == 1
    assert {str(error) for error in refused(answers, TokenRefused)} == {"used"}
    assert crowd.store.count(ef.Query.of(types=OptInConfirmed)) == 1


def test_tokens_do_not_meet(crowd: Crowd) -> None:
    """Thirty-two links followed at once are all confirmed, each at the first attempt."""
    tokens = [secrets.token_urlsafe(32) for _ in range(RACERS)]
    crowd.store.append(*[OptInRequested(fingerprint(t), f"p-{n}", NOW + HOUR) for n, t in enumerate(tokens)])
    answers = crowd.race(*[lambda store, t=t: store.decide(confirm, OptIn(fingerprint(t)), now=NOW) for t in tokens])
    assert [answer.attempts for answer in done(answers)] == [1] * RACERS


@pytest.mark.parametrize(
    ("now", "answer"),
    [(NOW, None), (NOW + HOUR - timedelta(microseconds=1), None), (NOW + HOUR, "expired"), (NOW + 2 * HOUR, "expired")],
)
def test_a_token_expires(now: datetime, answer: str | None) -> None:
    """Before its expiry it works, from that moment on it does not."""
    outcome = given(OptInRequested("f00", "ada", NOW + HOUR)).when(confirm, OptIn("f00"), now=now)
    if answer is None:
        outcome.then(OptInConfirmed("f00", "ada"))
    else:
        outcome.raises(TokenRefused, answer)


def test_an_unknown_token_is_refused() -> None:
    """A token that was never requested is refused."""
    given().when(confirm, OptIn(fingerprint("guess")), now=NOW).raises(TokenRefused, "unknown")


def test_the_token_is_not_in_the_log() -> None:
    """Neither data nor tags hold the token, and its fingerprint is too long to guess."""
    token = secrets.token_urlsafe(32)
    scenario = given(OptInRequested(fingerprint(token), "ada", NOW + HOUR))
    scenario.when(confirm, OptIn(fingerprint(token)), now=NOW)
    stored = [recorded.stored for recorded in scenario.store.read()]
    assert not any(token.encode() in each.data or token in each.tags for each in stored)
    assert len(fingerprint(token)) == 64
