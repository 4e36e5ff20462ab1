"""The checker: what must hold for a log, its followers, read models, processes and copies after any faults.

Knows: the promises. Does not know: what was done to the store. Every problem is one sentence.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import eventfold as ef
from eventfold.errors import CursorMismatch, EventfoldError, ProcessError, ProjectionError, UnknownProjection
from soak.clients import Place
from soak.facts import EVERY, Fragile, Greeted, Greeting, Noted, PerSeat, PerWriter, SeatTaken, elsewhere, letter
from soak.history import Outcomes, Written, lines, read_outcomes

SHOWN = 4  # problems of a list of similar ones


@dataclass
class Allowed:
    """What may be lost in a round, by promises.md.

    `epoch`: acknowledgements of epochs before it may be lost, but only a tail; `tail`: as if every acknowledgement
    were of such an epoch; `progress`: acknowledged progress of named followers may be lost (power cuts on SQLite).
    """

    epoch: int = 0
    tail: bool = False
    progress: bool = False


@dataclass
class Findings:
    """The problems of one round."""

    problems: list[str] = field(default_factory=list[str])

    def add(self, problem: str) -> None:
        """Add a problem."""
        self.problems.append(problem)

    @contextlib.contextmanager
    def within(self, step: str) -> Iterator[None]:
        """Run a step of checking that must not fail."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - it becomes a problem of the round
            self.add(f"{step} failed: {type(error).__name__}: {error}")


def check(place: Place, findings: Findings, allowed: Allowed | None = None, *, models: bool = True) -> list[Any]:
    """Check everything. Returns the events of the log."""
    allowed = allowed or Allowed()
    events: list[ef.Recorded[Any]] = []
    with findings.within("opening the store"), place.open() as store:
        with findings.within("reading the log"):
            events = list(store.read())
            outcomes = read_outcomes(place.folder)
            findings.problems += [
                f"an error of another library reached the caller: {each}" for each in outcomes.foreign
            ]
            check_log(events, outcomes, findings, allowed)
            for path in sorted(place.folder.glob("follow-*.history")):
                check_follower(path, events, findings, lost=allowed)
        with findings.within("verifying the log"):
            proof = store.projections.verify_log()
            if not proof.proved:
                findings.add(f"the log is not proved: {[flaw.what for flaw in proof.flaws[:SHOWN]]}")
        if models:
            if allowed.epoch and place.other:
                _rebuild(store, place, findings)
            check_models(store, place, findings)
        if findings.problems:
            with contextlib.suppress(EventfoldError):
                (place.folder / "log.txt").write_text("".join(_line(recorded) for recorded in store.read()))
    return events


def _line(recorded: ef.Recorded[Any]) -> str:
    return f"{recorded.position} {recorded.id.hex} {recorded.time.isoformat()} {recorded.event} {recorded.metadata}\n"


def check_log(events: list[Any], outcomes: Outcomes, findings: Findings, allowed: Allowed) -> None:
    """Check positions, times, ids, whole appends, decisions, and every answer that a client got."""
    written, seats = _look(events, findings)
    for op, positions in written.items():
        if op not in outcomes.asked:
            findings.add(f"{op} is in the log, and no client asked for it")
            continue
        if len(positions) != outcomes.asked[op]:
            findings.add(f"{op}: {len(positions)} of {outcomes.asked[op]} events are in the log")
        if positions != list(range(positions[0], positions[0] + len(positions))):
            findings.add(f"{op}: its events are not adjacent: {positions[:SHOWN]}")
        if op in outcomes.refused:
            findings.add(f"{op} was refused ({outcomes.refused[op]}), and it is in the log at {positions[0]}")
    for seat, numbers in seats.items():
        if numbers != list(range(1, len(numbers) + 1)):
            at = next(place for place, number in enumerate(numbers, 1) if number != place)
            findings.add(
                f"the condition of a decision was broken: {seat} has holder {numbers[at - 1]} in place of {at}"
            )
    _acknowledged(events, outcomes, findings, allowed)
    repeated = [each.op for each in outcomes.written.values() if each.repeated]
    if repeated:
        findings.add(f"a first append was reported as repeated: {repeated[:SHOWN]}")


def _look(events: list[Any], findings: Findings) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    written, seats = dict[str, list[int]](), dict[str, list[int]]()
    ids, before = set[Any](), None
    for place, recorded in enumerate(events, 1):
        moment: datetime = recorded.time
        if recorded.position != place:
            findings.add(f"position {recorded.position} stands at place {place}")
            break
        if before is not None and moment < before:
            findings.add(f"the time goes back at position {place}")
        if recorded.id in ids:
            findings.add(f"the id of event {place} is there twice")
        ids.add(recorded.id)
        before = moment
        match recorded.event:
            case Noted(op=op):
                written.setdefault(op, []).append(place)
            case SeatTaken(op=op, seat=seat, number=number):
                written.setdefault(op, []).append(place)
                seats.setdefault(seat, []).append(number)
            case _:
                continue
    return written, seats


def _acknowledged(events: list[Any], outcomes: Outcomes, findings: Findings, allowed: Allowed) -> None:
    def there(each: Written) -> bool:
        found = events[each.first - 1 : each.first - 1 + len(each.ids)]
        return [recorded.id.hex for recorded in found] == each.ids

    lost = [each for each in outcomes.written.values() if not there(each)]
    may = [each for each in lost if allowed.tail or each.epoch < allowed.epoch]
    must = [each for each in lost if each not in may]
    if must:
        shown = [(each.op, each.epoch, each.first) for each in must[:SHOWN]]
        findings.add(f"{len(must)} acknowledged appends are not in the log: {shown}")
    for epoch in {each.epoch for each in may}:  # only a tail of an epoch may be lost
        first = min(each.first for each in may if each.epoch == epoch)
        kept = [e for e in outcomes.written.values() if e.epoch == epoch and e.first > first and there(e)]
        if kept:
            findings.add(f"of epoch {epoch} position {first} was lost and {kept[0].first} was kept: not a tail")


def check_follower(path: Path, events: list[Any], findings: Findings, lost: Allowed) -> None:
    """Check the runs of one follower: each has no gap; the next skips nothing, and repeats only what it may."""
    name, named = path.stem, path.stem.startswith("follow-named")
    seen = acknowledged = before = 0
    ids = {recorded.position: recorded.id.hex for recorded in events}
    fresh, strict = True, not lost.tail and not lost.epoch
    for words in lines(path):
        match words:
            case ["begin", *_]:
                fresh = True
            case ["mismatch", *rest]:
                if strict:
                    findings.add(f"{name}: its cursor was refused: {' '.join(rest)}")
                seen = acknowledged = before = 0
            case ["saw", position, identity]:
                at = int(position)
                if fresh and at > seen + 1:
                    findings.add(f"{name} skipped events: it begins at {at}, and had seen {seen}")
                elif fresh and named and at <= acknowledged and not lost.progress and strict:
                    findings.add(f"{name} was given {at} again, which was acknowledged up to {acknowledged}")
                elif not fresh and at != before + 1:
                    findings.add(f"{name} saw {at} after {before}")
                if strict and ids.get(at) != identity:
                    findings.add(f"{name} saw {identity} at {at}, where the log has {ids.get(at)}")
                fresh, before, seen = False, at, max(seen, at)
            case ["kept", position]:
                acknowledged = int(position)
            case _:
                continue


def check_models(store: ef.Store, place: Place, findings: Findings) -> None:
    """After everything was resumed and done, rows equal a fold, every greeting exists once, and `verify` succeeds."""
    Path(place.folder / "failing").unlink(missing_ok=True)
    models, admin = place.models(), store.projections
    with findings.within("resuming read models"):
        known = {each.name: each for each in admin.list()}
        for model in models:
            name = ef_name(model)
            if name not in known:
                continue
            with contextlib.suppress(
                UnknownProjection
            ):  # its database lost it in a power cut, before any row was synced
                admin.resume(model)
                if known[name].building is not None:
                    admin.discard(model)
    with findings.within("settling"):
        with contextlib.suppress(ProcessError):  # it was parked while the store was away
            store.run_until_idle(*models, Greeting, letter)
        for name in (Fragile, "soak_greeting", "soak_letter"):
            if any(entry.state == "parked" for entry in admin.parked(name)):
                admin.retry(name)
        store.run_until_idle(*models, Greeting, letter)
    with findings.within("comparing rows"):
        events = list(store.read())
        _compare(store, models, events, findings)
        _greetings(events, place, findings)
    with findings.within("verifying read models"):
        live = {each.name: each.live for each in admin.list()}
        for proof in admin.verify():  # a generation of before a failover is kept for some time, and has lost events
            if not proof.proved and (proof.name, proof.generation >= live[proof.name]) != ("soak_elsewhere", False):
                findings.add(f"{proof.name} (generation {proof.generation}) is not proved: {proof.verdict}")


def _rebuild(store: ef.Store, place: Place, findings: Findings) -> None:
    """Rows in another database may include events that a failover lost: the read model raises, and is rebuilt."""
    model = elsewhere(place.other)
    with findings.within("rebuilding what is ahead of the log"):
        try:
            store.project(model)
        except (CursorMismatch, ProjectionError):
            store.projections.rebuild(model)
            store.projections.switch(model)


def ef_name(model: type[ef.Projection]) -> str:
    """Return the stored name of a read model."""
    from eventfold.projections.definition import projection_definition

    return projection_definition(model).name


def _compare(store: ef.Store, models: list[type[ef.Projection]], events: list[Any], findings: Findings) -> None:
    writers, seats = dict[str, tuple[int, int]](), Counter[str]()
    for recorded in events:
        match recorded.event:
            case Noted(writer=writer, index=index):
                count, total = writers.get(writer, (0, 0))
                writers[writer] = (count + 1, total + index)
            case SeatTaken(seat=seat):
                seats[seat] += 1
            case _:
                continue
    for model in models:
        rows: list[Any] = list(store.rows(model))
        if model is PerWriter:
            found, right = {row.writer: (row.events, row.total) for row in rows}, dict[str, Any](writers)
        elif model is PerSeat:
            found = {row.seat: (row.count, row.last) for row in rows}
            right = {seat: (count, count) for seat, count in seats.items()}
        elif model is Fragile:
            parked = {entry.position: entry.state for entry in store.projections.parked(Fragile)}
            if left := [position for position, state in parked.items() if state != "skipped"]:
                findings.add(f"soak_fragile still has parked events after a retry: {left[:SHOWN]}")
            out = Counter(events[position - 1].event.seat for position in parked)
            found = {row.seat: row.count for row in rows if row.count}
            right = {seat: count - out[seat] for seat, count in seats.items() if count > out[seat]}
        else:
            found, right = {row.seat: row.count for row in rows}, dict(seats)
        if found != right:
            wrong = [
                (key, found.get(key), right.get(key)) for key in {*found, *right} if found.get(key) != right.get(key)
            ]
            findings.add(f"rows of {ef_name(model)} are not the fold (key, found, right): {sorted(wrong)[:SHOWN]}")


def _greetings(events: list[Any], place: Place, findings: Findings) -> None:
    due = Counter((r.event.seat, r.event.number) for r in events if isinstance(r.event, SeatTaken))
    due = Counter({key: 1 for key in due if key[1] % EVERY == 0})
    made = Counter((r.event.seat, r.event.number) for r in events if isinstance(r.event, Greeted))
    if made != due:
        wrong = [(key, made[key], due[key]) for key in {*made, *due} if made[key] != due[key]]
        findings.add(f"a process did not decide exactly once (what, decided, right): {sorted(wrong)[:SHOWN]}")
    sent = {words[0].replace("-", "") for words in lines(place.folder / "letters")}
    missing = [r.position for r in events if isinstance(r.event, Greeted) and r.id.hex not in sent]
    if missing:
        findings.add(f"an effect was never done for positions {missing[:SHOWN]}")


def check_copies(place: Place, findings: Findings) -> None:
    """Check that every backup file is whole and of a later epoch, and that an interrupted copy can be finished."""
    with findings.within("reading the copies"), place.open() as store:
        epoch, ids = store.engine.epoch, [recorded.id for recorded in store.read()]
        complete = {
            words[1] for path in place.folder.glob("*.history") for words in lines(path) if words[0] == "copied"
        }
        for name in complete:
            if not (place.folder / name).exists():
                findings.add(f"{name} was reported as copied and is not there")
        for path in sorted(place.folder.glob("*.backup")):
            try:
                with ef.Store(str(path), create=False) as copy:
                    found = [recorded.id for recorded in copy.read()]
                    if copy.engine.epoch <= epoch:
                        findings.add(f"{path.name} has epoch {copy.engine.epoch}, the store has {epoch}")
                    if found != ids[: len(found)]:
                        findings.add(f"{path.name} is not a beginning of the log")
            except EventfoldError as error:
                findings.add(f"{path.name} was left unusable: {error}")
        if (place.folder / "copy.db").exists():
            with ef.Store(str(place.folder / "copy.db")) as target:
                store.copy_to(target)
                if [recorded.id for recorded in target.read()] != ids:
                    findings.add("a copy that was interrupted and finished is not the log")
