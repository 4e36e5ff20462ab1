"""A hospital ward: who was near whom, who was tested, and what was known when.

    store.decide(order_test, Person("1100"), ward="geriatrics", test="t-1", at=now)
    store.decide(admit, Ward("geriatrics"), person="p-9", at=now)

What a sensor saw is never refused; what people decide is. A person is tested once in 24 hours and not while isolated,
and no one is admitted while an outbreak is open. A wrong result is corrected, and never overwritten.
Knows: the trade's events, rules and read models. Does not know: where contacts come from, which tests were made.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

import eventfold as ef

BETWEEN_TESTS = timedelta(hours=24)


class ContactSensed(ef.Event):
    people: Annotated[tuple[str, ...], ef.tag("person")]
    roles: tuple[str, str]
    seconds: int


class TestOrdered(ef.Event):
    ward: ef.Tag
    person: ef.Tag
    test: ef.Tag
    because_of: str | None = None  # the test whose result led to this one


class TestResulted(ef.Event):
    ward: ef.Tag
    person: ef.Tag
    test: ef.Tag
    positive: bool


class TestCorrected(ef.Event):
    ward: ef.Tag
    person: ef.Tag
    test: ef.Tag
    positive: bool
    reason: str


class PatientAdmitted(ef.Event):
    ward: ef.Tag
    person: ef.Tag


class PatientIsolated(ef.Event):
    ward: ef.Tag
    person: ef.Tag


class IsolationLifted(ef.Event):
    ward: ef.Tag
    person: ef.Tag


class OutbreakDeclared(ef.Event):
    ward: ef.Tag


class OutbreakEnded(ef.Event):
    ward: ef.Tag


class Refused(Exception): ...


class Person(ef.State):
    person: ef.Tag
    ordered: datetime | None = None
    isolated: bool = False

    def evolve(self, event: TestOrdered | PatientIsolated | IsolationLifted, recorded: ef.Recorded) -> None:
        if isinstance(event, TestOrdered):
            self.ordered = recorded.occurred
        else:
            self.isolated = isinstance(event, PatientIsolated)


class Ward(ef.State):
    ward: ef.Tag
    outbreak: bool = False

    def evolve(self, event: OutbreakDeclared | OutbreakEnded) -> None:
        self.outbreak = isinstance(event, OutbreakDeclared)


class Sample(msgspec.Struct):
    person: str
    ordered: datetime
    because_of: str | None
    positive: bool | None = None


class Tests(ef.State):
    """All tests of a ward, as known."""

    ward: ef.Tag
    samples: dict[str, Sample] = {}

    def evolve(self, event: TestOrdered | TestResulted | TestCorrected, recorded: ef.Recorded) -> None:
        if isinstance(event, TestOrdered):
            self.samples[event.test] = Sample(event.person, recorded.occurred or recorded.time, event.because_of)
        else:
            self.samples[event.test].positive = event.positive


class Contacts(ef.State):
    """With whom a person was in contact: since when, the other, how many seconds."""

    person: ef.Tag
    sensed: list[tuple[datetime, str, int]] = []

    def evolve(self, event: ContactSensed, recorded: ef.Recorded) -> None:
        other = event.people[event.people[0] == self.person]
        self.sensed.append((recorded.occurred or recorded.time, other, event.seconds))

    def longest(self, since: datetime, until: datetime, seconds: int) -> list[str]:
        """Who was near for at least so many seconds together, the longest first."""
        near: Counter[str] = Counter()
        for at, other, lasted in self.sensed:
            if since <= at <= until:
                near[other] += lasted
        return [other for other, together in near.most_common() if together >= seconds]


def order_test(person: Person, ward: str, test: str, at: datetime, because_of: str | None = None) -> list[ef.Draft]:
    if person.isolated:
        raise Refused(f"{person.person} is isolated")
    if person.ordered is not None and at < person.ordered + BETWEEN_TESTS:
        raise Refused(f"{person.person} was tested at {person.ordered:%d %b %H:%M}")
    return [ef.Draft(TestOrdered(ward, person.person, test, because_of), occurred=at)]


def admit(ward: Ward, person: str, at: datetime) -> list[ef.Draft[PatientAdmitted]]:
    if ward.outbreak:
        raise Refused(f"{ward.ward} has an outbreak")
    return [ef.Draft(PatientAdmitted(ward.ward, person), occurred=at)]


def declare_outbreak(ward: Ward, at: datetime) -> list[ef.Draft[OutbreakDeclared]]:
    return [] if ward.outbreak else [ef.Draft(OutbreakDeclared(ward.ward), occurred=at)]


def end_outbreak(ward: Ward, at: datetime) -> list[ef.Draft[OutbreakEnded]]:
    return [ef.Draft(OutbreakEnded(ward.ward), occurred=at)] if ward.outbreak else []


def isolate(person: Person, ward: str, at: datetime) -> list[ef.Draft[PatientIsolated]]:
    return [] if person.isolated else [ef.Draft(PatientIsolated(ward, person.person), occurred=at)]


def lift(person: Person, ward: str, at: datetime) -> list[ef.Draft[IsolationLifted]]:
    return [ef.Draft(IsolationLifted(ward, person.person), occurred=at)] if person.isolated else []


def report(tests: Tests, test: str, positive: bool, at: datetime) -> list[ef.Draft[TestResulted]]:
    if (sample := tests.samples.get(test)) is None:
        raise Refused(f"{test} was never ordered")
    return [ef.Draft(TestResulted(tests.ward, sample.person, test, positive), occurred=at)]


def correct(tests: Tests, test: str, positive: bool, reason: str, at: datetime) -> list[ef.Draft[TestCorrected]]:
    if (sample := tests.samples.get(test)) is None or sample.positive is None:
        raise Refused(f"{test} has no result yet")
    if sample.positive == positive:
        return []
    return [ef.Draft(TestCorrected(tests.ward, sample.person, test, positive, reason), occurred=at)]


class Matrix(ef.Projection):
    """Contacts by the roles of the two people, and by the two people."""

    one: str
    other: str
    contacts: int = 0
    seconds: int = 0

    @staticmethod
    def key(event: ContactSensed) -> list[tuple[str, str]]:
        return [(min(event.roles), max(event.roles)), (event.people[0], event.people[1])]

    def evolve(self, event: ContactSensed) -> None:
        self.contacts += 1
        self.seconds += event.seconds
