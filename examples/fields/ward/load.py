"""Reads the contacts of a ward, and plays four days of tests among them.

Knows: the columns of the source, the course that was chosen. Does not know: any rule.

- The source has a line for each 20 seconds in which two badges faced each other. The package that carries it has them
  11 hours early: it took 1 pm for 1 am. Put right, the contacts of the day are those of the paper that describes them
  (Vanhems et al., PLoS ONE 8(9): e73970).
- Lines of one pair that follow each other without a gap are one contact.
- **Generated**: the source has no tests. Ours are chosen: the people with most contacts are sampled, one result is
  positive, its contacts are traced, and one negative result of the third day turns out to be wrong on the fourth.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import eventfold as ef
from eventfold.demo.data import open_source
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.ward import app

SOURCE = "ward"
WARD = "geriatrics"
PATIENT = "PAT"
PARIS = ZoneInfo("Europe/Paris")
EARLY = 11 * 3600  # seconds by which the package's stamps are early
STEP = 20  # seconds between two readings
TRACED_SECONDS = 10 * 60  # together, in the 24 hours before: who was near for so long is to be tested
DAY = timedelta(days=1)
EVENING = datetime(2010, 12, 8, 20, tzinfo=PARIS)  # of the third day


class Contact(NamedTuple):
    """Two people near each other from `start` (seconds since 1970 UTC) for some seconds; `one` sorts before `other`."""

    start: int
    one: str
    other: str
    roles: tuple[str, str]
    seconds: int


def load(store: ef.Store, limit: int | None = None) -> LoadCount:
    """Write contacts and tests in order of time; a second run writes nothing. `limit`: only the first lines."""
    count = LoadCount()
    contacts = merged(readings(limit, count))
    written = 0
    for at, step in COURSE:
        if not contacts or contacts[-1].start <= at.timestamp():
            break
        before = bisect_left(contacts, at.timestamp(), key=lambda contact: contact.start)
        write(store, map(draft, contacts[written:before]), count)
        written = before
        if store.event(id_of(contacts[before])) is not None:
            continue  # what followed this step is in the log: it was made before
        made = step(Course(store, contacts[:before], at))
        count.made, count.events = count.made + made, count.events + made
    write(store, map(draft, contacts[written:]), count)
    return count


def readings(limit: int | None, count: LoadCount) -> Iterator[tuple[int, str, str, str, str]]:
    """Yield the lines of the source, as its authors stamped them: time, two people in order, their roles."""
    with open_source(SOURCE) as opened:
        for line in islice(opened, limit):
            count.read += 1
            time, one, other, role, other_role = line.decode().split()
            moment = int(time) + EARLY
            if one == other:
                count.reject("a badge that faced itself")
            elif one < other:
                yield moment, one, other, role, other_role
            else:
                yield moment, other, one, other_role, role


def merged(lines: Iterable[tuple[int, str, str, str, str]]) -> list[Contact]:
    """Merge the readings of each pair that follow each other without a gap, in order of their beginnings."""
    open_: dict[tuple[str, str], Contact] = {}
    done: list[Contact] = []
    for moment, one, other, role, other_role in lines:
        last = open_.get((one, other))
        if last is not None and last.start + last.seconds == moment:
            open_[one, other] = last._replace(seconds=last.seconds + STEP)
            continue
        if last is not None:
            done.append(last)
        open_[one, other] = Contact(moment, one, other, (role, other_role), STEP)
    return sorted([*done, *open_.values()])


def draft(contact: Contact) -> tuple[ef.Draft[app.ContactSensed], int]:
    """The event of a contact, and the number of lines it stands for."""
    at = datetime.fromtimestamp(contact.start, UTC)
    event = app.ContactSensed((contact.one, contact.other), contact.roles, contact.seconds)
    return ef.Draft(event, id=id_of(contact), occurred=at), contact.seconds // STEP


def id_of(contact: Contact) -> UUID:
    """The id of a contact: its beginning and its people."""
    return id_from(datetime.fromtimestamp(contact.start, UTC), contact.one, contact.other)


class Course:
    """The ward at one moment of the chosen course: decisions are made once, whatever is loaded again."""

    def __init__(self, store: ef.Store, contacts: list[Contact], at: datetime) -> None:
        self.store, self.at, self._contacts = store, at, contacts
        self.written = 0

    def decide(self, function: Callable[..., Any], *arguments: Any, command: str) -> None:
        """Make a decision once, and count its events. A refusal by the ward's rules is a part of the course."""
        try:
            decided = self.store.using(command_id=f"{self.at:%m%d%H%M}-{command}").decide(function, *arguments)
        except app.Refused:
            return
        self.written += 0 if decided.repeated else len(decided.events)

    def busiest(self) -> list[str]:
        """The patients by their seconds of contact so far, the most first."""
        seconds: Counter[str] = Counter()
        for contact in self._contacts:
            for person, role in zip((contact.one, contact.other), contact.roles, strict=True):
                if role == PATIENT:
                    seconds[person] += contact.seconds
        return [person for person, _ in seconds.most_common()]

    def test(self, person: str, test: str, because_of: str | None = None) -> None:
        """Order a test."""
        self.decide(app.order_test, app.Person(person), WARD, test, self.at, because_of, command=test)

    def report(self, test: str, positive: bool) -> None:
        """Report a result, and isolate a patient who is positive."""
        self.decide(app.report, app.Tests(WARD), test, positive, self.at, command=f"{test}-result")
        if positive:
            self.isolate(test)

    def isolate(self, test: str) -> None:
        """Isolate the person of a test."""
        person = self.store.state(app.Tests(WARD)).samples[test].person
        self.decide(app.isolate, app.Person(person), WARD, self.at, command=f"{test}-isolation")

    def trace(self, test: str) -> None:
        """Order a test for all who were near the person of a test for long."""
        sample = self.store.state(app.Tests(WARD)).samples[test]
        for number, other in enumerate(near(self.store, sample)):
            self.test(other, f"{test}.{number + 1}", test)

    def traced(self, test: str) -> list[str]:
        """The tests that were ordered because of one, in order."""
        samples = self.store.state(app.Tests(WARD)).samples
        return [name for name, sample in samples.items() if sample.because_of == test]


def near(store: ef.Store, sample: app.Sample) -> list[str]:
    """Who was near a person for at least ten minutes in the 24 hours before the person's test."""
    contacts = store.state(app.Contacts(sample.person))
    return contacts.longest(sample.ordered - DAY, sample.ordered, TRACED_SECONDS)


def _first_samples(course: Course) -> int:
    course.test(course.busiest()[0], "t-1")
    course.test(course.busiest()[1], "t-2")
    return course.written


def _first_results(course: Course) -> int:
    course.report("t-1", positive=False)
    course.report("t-2", positive=True)
    course.trace("t-2")
    return course.written


def _third_morning(course: Course) -> int:
    for number, test in enumerate(course.traced("t-2")):
        course.report(test, positive=number == 0)
    course.decide(app.declare_outbreak, app.Ward(WARD), course.at, command="outbreak")
    course.decide(app.admit, app.Ward(WARD), "new", course.at, command="admission")
    for test in course.traced("t-2")[:1]:
        course.trace(test)
    tested = {sample.person for sample in course.store.state(app.Tests(WARD)).samples.values()}
    for person in course.busiest():
        others = near(course.store, app.Sample(person, course.at, None))
        if person not in tested and not tested.issuperset(others):
            course.test(person, "t-3")
            break
    return course.written


def _third_afternoon(course: Course) -> int:
    course.report("t-3", positive=False)
    return course.written


def _fourth_morning(course: Course) -> int:
    for first in course.traced("t-2")[:1]:
        for test in course.traced(first):
            course.report(test, positive=False)
    course.decide(
        app.correct, app.Tests(WARD), "t-3", True, "the samples were mixed up", course.at, command="t-3-wrong"
    )
    course.isolate("t-3")
    return course.written


def _fifth_morning(course: Course) -> int:
    course.decide(app.end_outbreak, app.Ward(WARD), course.at, command="outbreak-end")
    person = course.store.state(app.Tests(WARD)).samples["t-2"].person
    course.decide(app.lift, app.Person(person), WARD, course.at, command="t-2-lifted")
    return course.written


COURSE: tuple[tuple[datetime, Callable[[Course], int]], ...] = (
    (datetime(2010, 12, 7, 9, tzinfo=PARIS), _first_samples),
    (datetime(2010, 12, 7, 15, tzinfo=PARIS), _first_results),
    (datetime(2010, 12, 8, 9, tzinfo=PARIS), _third_morning),
    (datetime(2010, 12, 8, 15, tzinfo=PARIS), _third_afternoon),
    (datetime(2010, 12, 9, 10, tzinfo=PARIS), _fourth_morning),
    (datetime(2010, 12, 10, 8, tzinfo=PARIS), _fifth_morning),
)
