"""Unique user names.

Explained in docs/how-to/recipes/unique-names.md, which shows the same code.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated

import eventfold as ef

Name = Annotated[str, ef.tag("username")]  # a field of this type has a tag username:…


class PersonJoined(ef.Event):
    person: ef.Tag
    username: ef.Tag


class PersonRenamed(ef.Event):
    person: ef.Tag
    old: Name
    new: Name


class PersonLeft(ef.Event):
    person: ef.Tag
    username: ef.Tag


class Username(ef.State):
    username: ef.Tag
    holder: str | None = None

    def __post_init__(self) -> None:  # all spellings of a name are one state
        self.username = canonical(self.username)

    def evolve(self, event: PersonJoined | PersonRenamed | PersonLeft) -> None:
        match event:
            case PersonJoined():
                self.holder = event.person
            case PersonRenamed():
                self.holder = event.person if event.new == self.username else None
            case PersonLeft():
                self.holder = None


class Person(ef.State):
    person: ef.Tag
    username: str | None = None

    def evolve(self, event: PersonJoined | PersonRenamed | PersonLeft) -> None:
        match event:
            case PersonJoined():
                self.username = event.username
            case PersonRenamed():
                self.username = event.new
            case PersonLeft():
                self.username = None


def canonical(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


class NameTaken(Exception):
    pass


class NotAllowed(Exception):
    pass


def join(person: Person, wanted: Username) -> PersonJoined:
    if person.username is not None:
        raise NotAllowed(f"{person.person} has joined already")
    if wanted.holder is not None:
        raise NameTaken(wanted.username)
    return PersonJoined(person.person, wanted.username)


def rename(person: Person, wanted: Username) -> list[PersonRenamed]:
    if person.username is None:
        raise NotAllowed(f"{person.person} is not here")
    if wanted.holder == person.person:
        return []  # the person has this name already
    if wanted.holder is not None:
        raise NameTaken(wanted.username)
    return [PersonRenamed(person.person, person.username, wanted.username)]


def leave(person: Person) -> list[PersonLeft]:
    return [] if person.username is None else [PersonLeft(person.person, person.username)]
