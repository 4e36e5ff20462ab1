"""An email address belongs to one person, and the log does not contain it."""

from __future__ import annotations

from pathlib import Path

import pytest

import eventfold as ef
from eventfold.testing import given
from examples.recipes.erasable_email import (
    AddressInUse,
    Email,
    EmailReleased,
    EmailTaken,
    keyed_hash,
    release,
    take,
)
from tests.recipes.crowd import RACERS, Crowd, done, refused

SECRET = bytes(range(32))
ADA = keyed_hash(SECRET, "ada@example.org")


def test_one_of_many_gets_the_address(crowd: Crowd) -> None:
    """Of 32 who sign up with one address, in several spellings, one gets it."""
    spellings = ("ada@example.org", "Ada@Example.ORG", " ada@example.org")
    answers = crowd.race(
        *[
            lambda store, n=n: store.decide(take, Email(keyed_hash(SECRET, spellings[n % 3])), f"p-{n}")
            for n in range(RACERS)
        ]
    )
    (won,) = done(answers)
    assert len(refused(answers, AddressInUse)) == RACERS - 1
    assert crowd.store.state(Email(ADA)).holder == won.events[0].event.person


def test_an_erased_address_is_free_once(crowd: Crowd) -> None:
    """While it is released, 31 people ask for it: at every step it has one holder, or none."""
    crowd.store.append(EmailTaken("p-0", ADA))
    answers = crowd.race(
        lambda store: store.using(attempts=1_000).decide(release, Email(ADA), "p-0"),
        *[lambda store, n=n: store.decide(take, Email(ADA), f"p-{n}") for n in range(1, RACERS)],
    )
    refused(answers, AddressInUse)
    held = [step.state.holder for step in crowd.store.history(Email(ADA))]
    assert held[:2] == ["p-0", None]
    assert len(held) <= 3


def test_only_the_holder_releases_it() -> None:
    """A person without the address releases nothing; the holder claiming it again writes nothing."""
    past = given(EmailTaken("p-1", ADA))
    past.when(release, Email(ADA), "p-2").nothing()
    past.when(take, Email(ADA), "p-1").nothing()
    past.when(release, Email(ADA), "p-1").then(EmailReleased("p-1", ADA))
    past.when(take, Email(ADA), "p-2").then(EmailTaken("p-2", ADA))


@pytest.mark.parametrize("other", ["bob@example.org", "ada@example.com"])
def test_the_hash_tells_addresses_apart(other: str) -> None:
    """Another address, or another secret, gives another hash."""
    assert keyed_hash(SECRET, other) != ADA
    assert keyed_hash(SECRET[::-1], "ada@example.org") != ADA


def test_the_address_is_not_in_the_file(tmp_path: Path) -> None:
    """After closing, no file of the store holds the address in any spelling."""
    with ef.Store(str(tmp_path / "people.db")) as store:
        store.decide(take, Email(keyed_hash(SECRET, "Ada@Example.org")), "p-1")
        store.decide(release, Email(ADA), "p-1")
    for path in tmp_path.iterdir():
        assert b"example.org" not in path.read_bytes().lower(), path
