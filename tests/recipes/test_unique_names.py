"""A name has one holder at any position of the log, in every race."""

from __future__ import annotations

import pytest

import eventfold as ef
from eventfold.testing import given
from examples.recipes.unique_names import (
    NameTaken,
    NotAllowed,
    Person,
    PersonJoined,
    PersonLeft,
    PersonRenamed,
    Username,
    canonical,
    join,
    leave,
    rename,
)
from tests.recipes.crowd import RACERS, Crowd, done, refused

SPELLINGS = ("ada", "Ada", " ADA ", "ａｄａ")


def holders(store: ef.Store, name: str) -> list[str | None]:
    """Return who held a name, step by step."""
    return [step.state.holder for step in store.history(Username(name))]


def test_one_of_many_gets_the_name(crowd: Crowd) -> None:
    """Of 32 people who claim one name, in four spellings, one gets it and the others are refused."""
    answers = crowd.race(
        *[
            lambda store, n=n: store.decide(join, Person(f"p-{n}"), Username(SPELLINGS[n % len(SPELLINGS)]))
            for n in range(RACERS)
        ]
    )
    (won,) = done(answers)
    assert len(refused(answers, NameTaken)) == RACERS - 1
    assert holders(crowd.store, "ada") == [won.events[0].event.person]


def test_other_names_are_in_nobodys_way(crowd: Crowd) -> None:
    """Thirty-two people take 32 names at once, each at the first attempt."""
    answers = crowd.race(
        *[lambda store, n=n: store.decide(join, Person(f"p-{n}"), Username(f"name-{n}")) for n in range(RACERS)]
    )
    assert [answer.attempts for answer in done(answers)] == [1] * RACERS


def test_a_rename_frees_the_old_name(crowd: Crowd) -> None:
    """While its holder changes to another name, 31 people ask for the old one: at no moment has it two holders."""
    crowd.store.decide(join, Person("p-0"), Username("ada"))
    answers = crowd.race(
        lambda store: store.using(attempts=100).decide(rename, Person("p-0"), Username("countess")),
        *[lambda store, n=n: store.decide(join, Person(f"p-{n}"), Username("ada")) for n in range(1, RACERS)],
    )
    refused(answers, NameTaken)
    held = holders(crowd.store, "ada")
    assert held[:2] == ["p-0", None]
    assert len(held) <= 3
    if len(held) == 2:  # no other claim came after the rename: now it is free
        crowd.store.decide(join, Person("p-99"), Username("ada"))
    assert crowd.store.state(Username("countess")).holder == "p-0"


def test_names_can_be_passed_round(crowd: Crowd) -> None:
    """Thirty-two people shift to the next one's name over and over; no name ever has two holders."""
    people = [Person(f"p-{n}") for n in range(RACERS)]
    for n, person in enumerate(people):
        crowd.store.decide(join, person, Username(f"n-{n}"))
    for shift in (1, 2):
        racers = [
            lambda store, n=n, shift=shift: store.decide(rename, people[n], Username(f"n-{(n + shift) % 40}"))
            for n in range(RACERS)
        ]
        refused(crowd.race(*racers), NameTaken)
    held: dict[str, str] = {}
    for recorded in crowd.store.read(ef.Query.of(types=[PersonJoined, PersonRenamed])):
        match recorded.event:
            case PersonJoined(person, username):
                held[username] = person
            case PersonRenamed(person, old, new):
                assert held.pop(old) == person
                assert new not in held
                held[new] = person
    assert sorted(held.values()) == sorted(person.person for person in people)


def test_the_rules() -> None:
    """Test joining, renaming and leaving, without a race."""
    ada = PersonJoined("p-1", "ada")
    given(ada).when(rename, Person("p-1"), Username("ADA")).nothing()
    given(ada).when(rename, Person("p-1"), Username("bob")).then(PersonRenamed("p-1", "ada", "bob"))
    given(ada).when(join, Person("p-1"), Username("bob")).raises(NotAllowed)
    given(ada).when(rename, Person("p-2"), Username("bob")).raises(NotAllowed)
    given(ada).when(leave, Person("p-1")).then(PersonLeft("p-1", "ada")).state(Username("ada")).has(holder=None)
    given(ada, PersonLeft("p-1", "ada")).when(leave, Person("p-1")).nothing()


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_are_one_name(name: str) -> None:
    """Case, width and surrounding space do not make another name."""
    assert canonical(name) == "ada"
    assert Username(name) == Username("ada")
