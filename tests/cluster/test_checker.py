"""The checker of histories finds each kind of broken promise in a history that was right before it was changed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

import eventfold as ef
from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from soak.cluster import workload
from soak.cluster.checker import check_history
from soak.cluster.record import Answered, Call, Clause, Line, Look, Read, Recorder, Seen, read_records
from soak.cluster.stores import SyncLog, whole_log

History = tuple[list[StoredEvent], list[Line]]
STEPS = 40  # of each of four writers


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A log in memory that four writers and a follower used at the same time, and their records."""
    folder, url = tmp_path_factory.mktemp("records"), f"memory:{uuid4().hex}"

    async def write(name: str) -> None:
        steps, recorder = iter(range(STEPS)), Recorder(folder, name)
        await workload.work(SyncLog(store), recorder, name, name, lambda: next(steps, None) is None)
        recorder.close()

    async def write_all() -> None:
        await asyncio.gather(*(write(f"w{number}") for number in range(4)))

    with ef.Store(url) as store:
        asyncio.run(write_all())
        recorder = Recorder(folder, "follower")
        with store.follow(after=0) as follower:
            for page in follower.pages(timeout=0):
                if not page:
                    break
                recorder.seen("follower", page, fresh=False)
        recorder.close()
        return whole_log(store), list(read_records(folder))


def test_a_right_history_has_no_problem(right: History) -> None:
    """Writers that met many times, and nothing to report."""
    log, lines = right
    answers = [line.answer for line in lines if isinstance(line, Answered)]
    assert answers.count("acknowledged") > 2 * STEPS
    assert answers.count("conflict") > 5
    assert any(isinstance(line, Read) for line in lines)
    assert any(isinstance(line, Seen) for line in lines)
    assert check_history(log, lines) == []


Change = Callable[[list[StoredEvent], list[Line]], None]


def _first(lines: list[Line], kind: type, wanted: Callable[[Any], bool] = lambda _: True) -> int:
    return next(at for at, line in enumerate(lines) if isinstance(line, kind) and wanted(line))


def _replace(lines: list[Line], kind: type, wanted: Callable[[Any], bool] = lambda _: True, **values: Any) -> None:
    at = _first(lines, kind, wanted)
    lines[at] = msgspec.structs.replace(lines[at], **values)


def _acknowledged(line: Answered) -> bool:
    return line.answer == "acknowledged"


def drop_an_event(log: list[StoredEvent], lines: list[Line]) -> None:
    """As a replica with a rotten block does."""
    del log[len(log) // 2]


def drop_and_close_the_gap(log: list[StoredEvent], lines: list[Line]) -> None:
    """As a log does that renumbers what is left."""
    del log[2]
    log[2:] = [msgspec.structs.replace(event, position=event.position - 1) for event in log[2:]]


def drop_the_tail(log: list[StoredEvent], lines: list[Line]) -> None:
    """As lazy fsync does at a power cut."""
    del log[-200:]


def store_twice(log: list[StoredEvent], lines: list[Line]) -> None:
    """As a repeat beyond the de-duplication window does."""
    log.append(msgspec.structs.replace(log[5], position=len(log) + 1, offset=0, size=1))


def invent(log: list[StoredEvent], lines: list[Line]) -> None:
    """Store what no client tried."""
    event = msgspec.structs.replace(log[5], id=uuid4().bytes, position=len(log) + 1, time=log[-1].time)
    log.append(msgspec.structs.replace(event, offset=0, size=1))


def change_data(log: list[StoredEvent], lines: list[Line]) -> None:
    """Change one byte of one event."""
    log[7] = msgspec.structs.replace(log[7], data=log[7].data.replace(b"x", b"y", 1) + b" ")


def halve_an_append(log: list[StoredEvent], lines: list[Line]) -> None:
    """Lose the second half of the last append of several events; what follows moves up."""
    at = max(index for index, event in enumerate(log) if event.size > 3 and event.offset == 1)
    count = log[at].size - 1
    del log[at : at + count]
    log[at:] = [msgspec.structs.replace(event, position=event.position - count) for event in log[at:]]


def exchange_two(log: list[StoredEvent], lines: list[Line]) -> None:
    """Exchange the positions of an early and a late append of one event each."""
    alone = [index for index, event in enumerate(log) if event.size == 1]
    first, last = alone[0], alone[-1]
    log[first], log[last] = (
        msgspec.structs.replace(log[last], position=first + 1, time=log[first].time),
        msgspec.structs.replace(log[first], position=last + 1, time=log[last].time),
    )


def turn_the_clock_back(log: list[StoredEvent], lines: list[Line]) -> None:
    """Record an event earlier than the one before it."""
    log[9] = msgspec.structs.replace(log[9], time=log[8].time - 1)


def break_a_condition(log: list[StoredEvent], lines: list[Line]) -> None:
    """Add a condition, over everything since the beginning, to an append that was accepted late."""
    late = log[-1].id.hex()
    _replace(lines, Call, lambda call: late in call.ids, unless=[Clause(Query(), 0)])


def refuse_what_is_there(log: list[StoredEvent], lines: list[Line]) -> None:
    """Report a conflict for an append that is in the log."""
    _replace(lines, Answered, _acknowledged, answer="conflict", ids=[])


def refuse_without_reason(log: list[StoredEvent], lines: list[Line]) -> None:
    """Report a conflict where nothing matches."""
    op = lines[_first(lines, Answered, lambda line: line.answer == "conflict")].op  # type: ignore[union-attr]
    _replace(lines, Call, lambda call: call.op == op, unless=[Clause(Query.of(tags="none:1"), 0)])


def acknowledge_elsewhere(log: list[StoredEvent], lines: list[Line]) -> None:
    """Give a receipt with another position."""
    _replace(lines, Answered, lambda line: _acknowledged(line) and line.first > 3, first=2)


def repeat_otherwise(log: list[StoredEvent], lines: list[Line]) -> None:
    """Give the repeat of an append another receipt than the first."""
    _replace(lines, Answered, lambda line: _acknowledged(line) and line.number == 2 and line.first > 3, first=1)


def hide_a_repeat(log: list[StoredEvent], lines: list[Line]) -> None:
    """Report the repeat of an acknowledged append as a first one."""
    _replace(lines, Answered, lambda line: line.repeated, repeated=False)


def report_a_repeat(log: list[StoredEvent], lines: list[Line]) -> None:
    """Report a first append as a repeat."""
    repeated = {line.op for line in lines if isinstance(line, Call) and line.number > 1}
    _replace(lines, Answered, lambda line: _acknowledged(line) and line.op not in repeated, repeated=True)


def look_at_the_past(log: list[StoredEvent], lines: list[Line]) -> None:
    """Read a head that is older than what was acknowledged before."""
    at = max((at for at, line in enumerate(lines) if isinstance(line, Look)), key=lambda at: lines[at].began)  # type: ignore[union-attr]
    lines[at] = msgspec.structs.replace(lines[at], head=1)


def read_too_little(log: list[StoredEvent], lines: list[Line]) -> None:
    """Leave the first event out of a read."""
    at = _first(lines, Read, lambda line: len(line.ids) > 1)
    lines[at] = msgspec.structs.replace(lines[at], ids=lines[at].ids[1:])  # type: ignore[union-attr]


def skip_in_a_follower(log: list[StoredEvent], lines: list[Line]) -> None:
    """Let a follower begin after the first event."""
    at = _first(lines, Seen)
    lines[at] = msgspec.structs.replace(lines[at], first=2, ids=lines[at].ids[1:])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (drop_an_event, "follows position"),
        (drop_and_close_the_gap, "was acknowledged at position"),
        (drop_the_tail, "not there in the log"),
        (store_twice, "is in the log 2 times"),
        (invent, "no client tried to append"),
        (change_data, "is not what"),
        (halve_an_append, "which are not those of a call"),
        (exchange_two, "began after"),
        (turn_the_clock_back, "the time goes back at position 10"),
        (break_a_condition, "the condition of"),
        (refuse_what_is_there, "was refused"),
        (refuse_without_reason, "was refused without a reason"),
        (acknowledge_elsewhere, "was acknowledged at position 2"),
        (repeat_otherwise, "was acknowledged at several positions"),
        (hide_a_repeat, "was acknowledged before"),
        (report_a_repeat, "its receipt says that it is a repeat"),
        (look_at_the_past, "a head of 1 was read after"),
        (read_too_little, "a read of"),
        (skip_in_a_follower, "saw position 2 after position 0"),
    ],
)
def test_each_change_to_a_right_history_is_found(right: History, change: Change, found: str) -> None:
    """Each of these is what some wrong use of a cluster, or some defect, would produce."""
    log, lines = list(right[0]), list(right[1])
    change(log, lines)
    problems = check_history(log, lines)
    assert any(found in problem for problem in problems), problems


def test_an_answer_that_is_missing_may_be_either(right: History) -> None:
    """Without answers, as of killed clients, nothing is promised but what the log itself shows."""
    log, lines = right
    without = [line for line in lines if not isinstance(line, Answered)]
    assert check_history(log, without) == []
    shorter = [line for line in without if isinstance(line, Call)]
    cut = next(at for at in range(len(log) - 20, 0, -1) if log[at].offset == 0)
    assert check_history(log[:cut], shorter) == []


def test_a_record_survives_a_kill_within_a_line(tmp_path: Path) -> None:
    """The last line of a client that was killed may be incomplete: it is left out."""
    recorder = Recorder(tmp_path, "w")
    step = workload.plan(random.Random(1), "w", 1)
    recorder.call(step.op, step.events)
    recorder.close()
    with (tmp_path / "w.record").open("ab") as file:
        file.write(b'{"type":"answered","op":')
    (line,) = read_records(tmp_path)
    assert isinstance(line, Call)
    assert line.op == "w.1"
