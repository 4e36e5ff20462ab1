"""The checker of histories: what must hold for a log and for everything that its clients were answered.

Every problem is one sentence. Knows: the promises of the log. Does not know: what was done to the cluster.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise, takewhile

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Matcher
from soak.cluster.operations import Observed, Operation, observe
from soak.cluster.record import Answered, Call, Clause, Line, content

SHOWN = 3  # problems of one kind; the others are counted
# A store repeats a call by itself if its answer is lost, and its receipt does not say so: such a call takes longer.
REPEATED_WITHIN_NS = 1_000_000_000


def check_history(log: Sequence[StoredEvent], lines: Iterable[Line]) -> list[str]:
    """Return the problems of a log, as it was read, and of the records of its clients. Empty: none."""
    seen = observe(log, lines)
    kinds = (
        _foreign(seen), _positions(log), _boundaries(log), _inventions(seen), _parts(seen), _receipts(seen),
        _repeats(seen), _refusals(seen), _order(seen), _conditions(seen), _conflicts(seen), _looks(seen),
        _reads(seen), _followers(seen),
    )  # fmt: skip
    problems = list[str]()
    for kind in kinds:
        found = list(kind)
        problems += found[:SHOWN]
        if len(found) > SHOWN:
            problems.append(f"… and {len(found) - SHOWN} more of this kind")
    return problems


def _foreign(seen: Observed) -> Iterator[str]:
    for what in seen.foreign:
        yield f"an error that must not be reached the caller: {what}"


def _positions(log: Sequence[StoredEvent]) -> Iterator[str]:
    """Positions are 1, 2, 3 …; no id is there twice; time does not go back."""
    before = 0
    for event in log:
        if event.position != before + 1:
            yield f"position {event.position} follows position {before}"
        before = event.position
    for identity, count in Counter(event.id for event in log).items():
        if count > 1:
            yield f"the event {identity.hex()} is in the log {count} times"
    for one, next_one in pairwise(log):
        if next_one.time < one.time:
            yield f"the time goes back at position {next_one.position}"


def _boundaries(log: Sequence[StoredEvent]) -> Iterator[str]:
    """Each event follows its predecessor in the same append, or begins one after a whole append."""
    left, size = 0, 0
    for event in log:
        if left and (event.size != size or event.offset != size - left):
            yield f"the append before position {event.position} has {size - left} of its {size} events"
            left = 0
        if not left:
            left = size = event.size
            if event.offset:
                yield f"the append of position {event.position} begins with event {event.offset + 1} of {size}"
                left = size - event.offset
        left -= 1
    if left:
        yield f"the last append has {size - left} of its {size} events"


def _inventions(seen: Observed) -> Iterator[str]:
    """Every event in the log is one that a client tried to append, unchanged."""
    for event in seen.log:
        known = seen.contents.get(event.id.hex())
        if known is None:
            yield f"no client tried to append the event {event.id.hex()} at position {event.position}"
        elif known[1] != content(event):
            yield f"the event at position {event.position} is not what {known[0].name} appended"


def _parts(seen: Observed) -> Iterator[str]:
    """Of each operation the events of one call are in the log, whole, in order, adjacent, as one append; or none."""
    by_position = {event.position: event for event in seen.log}
    for each in seen.written:
        events = [by_position[position] for position in each.positions]
        ids = [event.id.hex() for event in events]
        if all(ids != call.ids for call, _ in each.calls):
            sizes = sorted({len(call.ids) for call, _ in each.calls})
            yield f"{each.name}: the log has {len(ids)} events of it, which are not those of a call (of {sizes})"
        elif each.positions != list(range(each.first, each.first + len(ids))):
            yield f"{each.name}: its events are not adjacent: {each.positions[:5]}"
        elif [(event.offset, event.size) for event in events] != [(i, len(ids)) for i in range(len(ids))]:
            yield f"{each.name}: its {len(ids)} events are not marked as one append"


def _receipts(seen: Observed) -> Iterator[str]:
    """Every acknowledged event is in the log, at the position in its receipt."""
    ids = {event.position: event.id.hex() for event in seen.log}
    for each in seen.operations.values():
        for call, answer in each.acknowledgements:
            there = [ids.get(answer.first + offset) for offset in range(len(answer.ids))]
            if there != answer.ids:
                what = "elsewhere" if each.positions else "not there"
                yield f"{call.op} was acknowledged at position {answer.first}, and is {what} in the log"
            if all(answer.ids != other.ids for other, _ in each.calls):
                yield f"{call.op} was acknowledged with the ids of other events"


def _repeats(seen: Observed) -> Iterator[str]:
    """All receipts of an operation are the first one, and each says correctly whether it repeats an earlier one."""
    for each in seen.operations.values():
        answers = sorted((answer for _, answer in each.acknowledgements), key=lambda answer: answer.ended)
        if len({(answer.first, *answer.ids) for answer in answers}) > 1:
            yield f"{each.name} was acknowledged at several positions: {[answer.first for answer in answers]}"
        for call, answer in each.acknowledgements:
            if answer.repeated and call is each.calls[0][0] and len(each.calls) == 1:
                yield f"{each.name} was called once, and its receipt says that it is a repeat"
            is_quick = answer.ended - call.began < REPEATED_WITHIN_NS
            if is_quick and not answer.repeated and answers[0].ended < call.began:
                yield f"{each.name} was acknowledged before, and the receipt of its repeat does not say so"


def _refusals(seen: Observed) -> Iterator[str]:
    """What was refused is not in the log: by a conflict, or by other errors of all its calls."""
    for each in seen.written:
        answers = [answer for _, answer in each.calls]
        conflict = next((answer for answer in answers if answer and answer.answer == "conflict"), None)
        refused = all(answer and answer.answer == "refused" for answer in answers)
        if conflict or refused:
            error = conflict.error if conflict else next(answer.error for answer in answers if answer)
            yield f"{each.name} was refused ({error[:120]}), and it is in the log at position {each.first}"


def _order(seen: Observed) -> Iterator[str]:
    """An append that began after another one was acknowledged has the higher position."""
    ends = sorted((each.ended, each.first, each) for each in seen.written if each.ended is not None)
    highest: Operation | None = None
    at = 0
    for each in sorted(seen.written, key=lambda each: each.began):
        while at < len(ends) and ends[at][0] < each.began:
            if highest is None or ends[at][1] > highest.first:
                highest = ends[at][2]
            at += 1
        if highest is not None and highest.first > each.first:
            yield (
                f"{each.name} began after {highest.name} was acknowledged, and is at position {each.first}, before "
                f"position {highest.first}"
            )


def _conditions(seen: Observed) -> Iterator[str]:
    """No event that matches a condition lies between the position given with it and the append."""
    for each in seen.written:
        broken = [_broken(call.unless, seen.log, each.first) for call, _ in each.calls]
        if all(found is not None for found in broken):
            yield (
                f"the condition of {each.name} was broken: it is at position {each.first}, and position {broken[0]}, "
                f"after {[clause.after for clause in each.calls[0][0].unless]}, matches"
            )


def _broken(unless: Sequence[Clause], log: Sequence[StoredEvent], before: int) -> int | None:
    """Return the first position that breaks the condition of an append at position `before`; None if it holds."""
    for clause in unless:
        matches = Matcher(clause.query).matches
        for event in _after(log, clause.after):
            if event.position >= before:
                break
            if matches(event.type, event.tag_set):
                return event.position
    return None


def _after(log: Sequence[StoredEvent], position: int) -> Iterator[StoredEvent]:
    """Iterate over the events after a position, in a log that may have gaps."""
    return islice(log, bisect_right(log, position, key=lambda event: event.position), None)


def _conflicts(seen: Observed) -> Iterator[str]:
    """A conflict is reported only where a matching event was appended, or was being appended."""
    for each in seen.operations.values():
        for call, answer in each.calls:
            if answer and answer.answer == "conflict" and not _has_reason(seen, call, answer):
                yield f"{each.name} was refused without a reason: {answer.error[:160]}"


def _has_reason(seen: Observed, call: Call, answer: Answered) -> bool:
    for clause in call.unless:
        matches = Matcher(clause.query).matches
        for event in _after(seen.log, clause.after):
            owner = seen.owner.get(event.position)
            if owner is not None and owner.began < answer.ended and matches(event.type, event.tag_set):
                return True
    return False


def _looks(seen: Observed) -> Iterator[str]:
    """A head includes what was acknowledged and what was seen before it was read, and nothing of the future."""
    known = [(each.ended, each.positions[-1], each.name) for each in seen.written if each.ended is not None]
    known += [(look.ended, look.head, "an earlier read") for look in seen.looks]
    known.sort()
    at, highest = 0, (0, "")
    for look in sorted(seen.looks, key=lambda look: look.began):
        while at < len(known) and known[at][0] < look.began:
            highest = max(highest, known[at][1:])
            at += 1
        if look.head < highest[0]:
            yield f"a head of {look.head} was read after {highest[1]} had reached position {highest[0]}"
        owner = seen.owner.get(look.head)
        if owner is not None and owner.began > look.ended:
            yield f"a head of {look.head} was read before {owner.name} began, which is there"


def _reads(seen: Observed) -> Iterator[str]:
    """A read returns exactly the events that match in its span."""
    for read in seen.reads:
        matches = Matcher(read.query).matches
        span = takewhile(lambda event, until=read.until: event.position <= until, _after(seen.log, read.after))
        right = [event.id.hex() for event in span if matches(event.type, event.tag_set)]
        if read.ids != right:
            yield (
                f"a read of {read.query!r} after {read.after} until {read.until} returned {len(read.ids)} events, and "
                f"the log has {len(right)}, or others"
            )


def _followers(seen: Observed) -> Iterator[str]:
    """A follower sees the log: no gap, no repeat, no other event."""
    ids = {event.position: event.id.hex() for event in seen.log}
    reached = dict[str, int]()
    for page in seen.pages:
        before = reached.get(page.follower, 0)
        if page.first > before + 1 or (not page.fresh and page.first <= before):
            yield f"{page.follower} saw position {page.first} after position {before}"
        wrong = [n for n, identity in enumerate(page.ids, page.first) if ids.get(n) != identity]
        if wrong:
            yield f"{page.follower} saw another event at position {wrong[0]} than the log has"
        reached[page.follower] = page.first + len(page.ids) - 1
