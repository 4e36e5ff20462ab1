"""What the records of all clients say of each operation: its calls, their answers, and where its events are in the log.

Knows: records, and the log as a list. Does not know: which answers are right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from eventfold.core.envelope import StoredEvent
from soak.cluster.record import Answered, Call, Foreign, Line, Look, Read, Seen


@dataclass
class Operation:
    """The calls with one name, in the order in which they began, each with its answer if there is one.

    Repeats have the same ids, or the same request key; with a key, each call may have ids of its own, and the events of
    one of the calls may be in the log. `first`: where they are; 0: nowhere.
    """

    name: str
    calls: list[tuple[Call, Answered | None]] = field(default_factory=list[tuple[Call, Answered | None]])
    positions: list[int] = field(default_factory=list[int])  # of all its events that are in the log

    @property
    def first(self) -> int:
        """The lowest position of its events; 0 if none is in the log."""
        return self.positions[0] if self.positions else 0

    @property
    def began(self) -> int:
        """When it was first called."""
        return min(call.began for call, _ in self.calls)

    @property
    def acknowledgements(self) -> list[tuple[Call, Answered]]:
        """The calls that got a receipt."""
        return [(call, answer) for call, answer in self.calls if answer and answer.answer == "acknowledged"]

    @property
    def ended(self) -> int | None:
        """When it was first acknowledged."""
        return min((answer.ended for _, answer in self.acknowledgements), default=None)


@dataclass
class Observed:
    """Everything that was observed: the log, operations by name, heads, reads, followers, errors of other libraries."""

    log: Sequence[StoredEvent]
    operations: dict[str, Operation] = field(default_factory=dict[str, Operation])
    looks: list[Look] = field(default_factory=list[Look])
    reads: list[Read] = field(default_factory=list[Read])
    pages: list[Seen] = field(default_factory=list[Seen])
    foreign: list[str] = field(default_factory=list[str])
    contents: dict[str, tuple[Operation, str]] = field(default_factory=dict[str, tuple[Operation, str]])
    owner: dict[int, Operation] = field(default_factory=dict[int, Operation])  # by position

    @property
    def written(self) -> list[Operation]:
        """The operations whose events are in the log."""
        return [each for each in self.operations.values() if each.positions]


def observe(log: Sequence[StoredEvent], lines: Iterable[Line]) -> Observed:
    """Gather the lines by operation, and find the operations in the log."""
    found = Observed(log)
    calls = dict[tuple[str, int], Call]()
    answers = dict[tuple[str, int], Answered]()
    for line in lines:
        match line:
            case Call():
                calls[line.op, line.number] = line
            case Answered():
                answers[line.op, line.number] = line
            case Look():
                found.looks.append(line)
            case Read():
                found.reads.append(line)
            case Seen():
                found.pages.append(line)
            case Foreign():
                found.foreign.append(line.what)
    for key, call in sorted(calls.items(), key=lambda item: item[1].began):
        operation = found.operations.setdefault(call.op, Operation(call.op))
        operation.calls.append((call, answers.get(key)))
        for identity, content in zip(call.ids, call.contents, strict=True):
            found.contents[identity] = operation, content
    for event in log:
        if owner := found.contents.get(event.id.hex()):
            owner[0].positions.append(event.position)
            found.owner[event.position] = owner[0]
    return found
