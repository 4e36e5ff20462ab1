"""Built-in alerts: what can be wrong with a store itself, and with what reads it.

    with store.run(Lagging(), Parked(), Stuck(), Undelivered(), VerifyOld(), Silent(OrderPlaced, expect=ef.hours(1))):

They are run like effects, best in another process than what they watch. Each checks once a second, and raises and
clears episodes as alerts over events do. In a module, `eventfold run STORE MODULE` runs those that it declares.
Knows: statuses, parked events, verifications, the last event of a type. Does not know: how a fact is appended.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, ClassVar

from eventfold.alerts.calendars import Calendar
from eventfold.alerts.detectors.absence import Absence
from eventfold.alerts.detectors.wording import duration, times
from eventfold.alerts.facts import Severity
from eventfold.alerts.store_watch import StoreView, StoreWatch
from eventfold.concurrency import run
from eventfold.core.durations import hours, minutes, positive_micros, seconds
from eventfold.core.event import Event, declaration_of, stored_names_of
from eventfold.core.json_values import decode
from eventfold.core.query import Query
from eventfold.errors import EventfoldError, InvalidInput
from eventfold.ports.messages import Span
from eventfold.processes.classes import Process
from eventfold.processes.definition import process_definition
from eventfold.processes.effects import Effect
from eventfold.processes.parts import Parts
from eventfold.processes.retries import first_parked_by_key
from eventfold.projections.catalog import Named
from eventfold.projections.definition import projection_definition
from eventfold.projections.status import Status
from eventfold.projections.statuses import Observed
from eventfold.projections.verified import LOG, TYPE, Verified

LAG, WAIT, AGE = seconds(60), minutes(5), hours(48)  # the default limits
FOLLOWING = ("follower", "consumer")
PROOFS = 1_000  # the newest results of verifications that are read


class BuiltIn:
    """An alert about a store: what all of them have. `name`: its name in facts, commands and metrics."""

    kind: ClassVar[str] = ""
    severity: Severity

    def __init__(self, name: str | None, severity: Severity, of: str | None = None) -> None:
        self.name = name or (self.kind if of is None else f"{self.kind}_{of}")
        self.severity = severity
        self.code = f"{_module_of_caller()}:{self.name}"

    def problems(self, view: StoreView) -> Mapping[str, str]:
        """Return what is wrong now: a reason for each key."""
        raise NotImplementedError

    def __eventfold_parts__(self) -> Parts:
        """Return itself as a step that is due once a second: see processes/parts.py."""
        return Parts(clocked=(lambda admin: StoreWatch(self, admin),))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class Lagging(BuiltIn):
    """A read model, process, effect or follower is behind by more than `limit` seconds, or it has stopped.

    `projection`: its class or name; None: all but followers and what an operator paused. The key is its name.
    One that is not in the store is reported after `limit` as well, since nothing has ever run it.
    """

    kind = "lagging"

    def __init__(
        self,
        projection: Named | None = None,
        *,
        limit: timedelta = LAG,
        name: str | None = None,
        severity: Severity = "page",
    ) -> None:
        self._projection = None if projection is None else _name_of(projection)
        self._limit = positive_micros(limit, "limit")
        super().__init__(name, severity, self._projection)

    def problems(self, view: StoreView) -> Mapping[str, str]:
        """See BuiltIn."""
        found = {each.status.name: each.status for each in view.observed()}
        wanted = self._projection
        if wanted is None:
            watched = [each for each in found.values() if each.kind not in FOLLOWING and each.state != "paused"]
        elif wanted in found:
            watched = [found[wanted]]
        elif view.now - view.since < self._limit:
            return {}
        else:
            return {wanted: f"The store knows no {wanted}, so nothing has ever run it."}
        return {each.name: self._reason(each) for each in watched if self._is_late(each)}

    def _is_late(self, status: Status) -> bool:
        return status.state in ("stopped", "away") or status.seconds * 1_000_000 > self._limit

    @staticmethod
    def _reason(status: Status) -> str:
        if status.state == "away" or not status.behind:
            return f"{status.name}: {status.sentence}"
        late = duration(round(status.seconds) * 1_000_000)
        return f"{status.name} is {late} behind, {times(status.behind, 'event')}: {status.sentence}"


class Parked(BuiltIn):
    """Events of a read model, process or effect failed and are parked. The key is its name."""

    kind = "parked"

    def __init__(
        self,
        projection: Named | None = None,
        *,
        more_than: int = 0,
        name: str | None = None,
        severity: Severity = "ticket",
    ) -> None:
        self._projection = None if projection is None else _name_of(projection)
        self._limit = more_than
        super().__init__(name, severity, self._projection)

    def problems(self, view: StoreView) -> Mapping[str, str]:
        """See BuiltIn."""
        return {
            each.status.name: f"{times(each.status.parked, 'event')} of {each.status.name} failed and "
            f"{'is' if each.status.parked == 1 else 'are'} parked; the first is at position "
            f"{min((entry.position for entry in each.entries if entry.state != 'skipped'), default=0):,}."
            for each in view.observed()
            if each.status.parked > self._limit and self._projection in (None, each.status.name)
        }


class Stuck(BuiltIn):
    """Instances of a process are stuck: an event of theirs failed, and later ones wait. The key is the process's name.

    `process`: its class or name; None: all whose classes this program has imported.
    """

    kind = "stuck"

    def __init__(self, process: Named | None = None, *, name: str | None = None, severity: Severity = "page") -> None:
        self._process = None if process is None else _name_of(process)
        super().__init__(name, severity, self._process)

    def problems(self, view: StoreView) -> Mapping[str, str]:
        """See BuiltIn."""
        codes = {each.name: each.code for each in view.admin.list()}
        found: dict[str, str] = {}
        for each in _reacting(view):
            name = each.status.name
            if name != self._process and (self._process is not None or not _is_process(codes.get(name, ""))):
                continue
            stuck = len(first_parked_by_key(each.entries)) + sum(bool(one.stopped) for one in each.checkpoints)
            if stuck:
                found[name] = f"{times(stuck, 'instance')} of the process {name} {'is' if stuck == 1 else 'are'} stuck."
        return found


class Undelivered(BuiltIn):
    """An effect has not delivered: events wait for longer than `limit`, or failed that long ago. The key is its name.

    `effect`: the effect or its name; None: all effects, those that deliver alerts too.
    """

    kind = "undelivered"

    def __init__(
        self,
        effect: Named | None = None,
        *,
        limit: timedelta = WAIT,
        name: str | None = None,
        severity: Severity = "page",
    ) -> None:
        self._effect = None if effect is None else _name_of(effect)
        self._limit = positive_micros(limit, "limit")
        super().__init__(name, severity, self._effect)

    def problems(self, view: StoreView) -> Mapping[str, str]:
        """See BuiltIn."""
        codes = {each.name: each.code for each in view.admin.list()}
        found: dict[str, str] = {}
        for each in _reacting(view):
            status = each.status
            if status.name != self._effect and (self._effect is not None or _is_process(codes.get(status.name, ""))):
                continue
            late = max(round(status.seconds * 1_000_000), view.now - self._first_failed_at(view, each))
            if late > self._limit:
                count = status.behind + status.parked
                found[status.name] = (
                    f"{times(count, 'event')} of the effect {status.name} {'is' if count == 1 else 'are'} not "
                    f"delivered, the first for {duration(late // 1_000_000 * 1_000_000)}; {status.parked} failed."
                )
        return found

    @staticmethod
    def _first_failed_at(view: StoreView, observed: Observed) -> int:
        """Return when the first event was recorded that failed and was not skipped; now if there is none."""
        first = min((each.position for each in observed.entries if each.state != "skipped"), default=None)
        if first is None:
            return view.now
        page = run(view.admin.log.engine.read(Query(), Span(after=first - 1, until=first)))
        return page.events[0].time if page.events else view.now


class VerifyOld(BuiltIn):
    """The last verification is older than `limit`, or found a fault. The key is what was verified, and still exists.

    Counted are the results that `eventfold verify STORE --record` writes. A store that was never verified is reported
    once the alert has been run on it for `limit`.
    """

    kind = "verify_old"

    def __init__(self, *, limit: timedelta = AGE, name: str | None = None, severity: Severity = "ticket") -> None:
        self._limit = positive_micros(limit, "limit")
        super().__init__(name, severity)

    def problems(self, view: StoreView) -> Mapping[str, str]:
        """See BuiltIn."""
        found: dict[str, str] = {}
        last = _last_verifications(view)
        if any(result.kind != LOG for _, result in last.values()):
            kept = {each.name for each in view.admin.list()}  # one that was removed will not be verified again
            last = {what: each for what, each in last.items() if each[1].kind == LOG or each[1].subject in kept}
        if not last and view.now - view.since > self._limit:
            return {LOG: f"Nothing was verified for {duration(view.now - view.since)}."}
        for what, (at, result) in last.items():
            if not result.proved:
                found[what] = f"The last verification of {what} found a fault: {result.verdict}"
            elif view.now - at > self._limit:
                found[what] = f"The last verification of {what} is {duration(view.now - at)} old."
        return found


class Silent(BuiltIn):
    """Events of types that are expected do not come: none of a type for longer than `expect`. The key is the type.

    With a calendar only opening hours count. It asks for the last event of each type, so it needs no history; a rule
    over usual gaps, or one for each customer, is an `ef.Alert` with an `ef.Absence`.
    """

    kind = "silent"

    def __init__(
        self,
        *events: type[Event],
        expect: timedelta,
        calendar: Calendar | None = None,
        name: str | None = None,
        severity: Severity = "page",
    ) -> None:
        if not events:
            raise InvalidInput("Silent was given no event class.", "Name those that are expected: Silent(OrderPlaced).")
        self._events = events
        self._expect, self._calendar = positive_micros(expect, "expect"), calendar
        super().__init__(name, severity)

    def problems(self, view: StoreView) -> Mapping[str, str]:
        """See BuiltIn."""
        found: dict[str, str] = {}
        for event in self._events:
            query = Query.of(types=list(stored_names_of(event)))
            page = run(view.admin.log.engine.read(query, Span(until=_head(view), backwards=True, limit=1)))
            absence = Absence(expect=self._expect, calendar=self._calendar, since=view.since)
            if page.events:
                absence.last = page.events[0].time
            reason = absence.fires(view.now)
            if reason is not None:
                found[declaration_of(event).type] = reason
        return found


def _head(view: StoreView) -> int:
    return run(view.admin.log.engine.head()).position


def _last_verifications(view: StoreView) -> dict[str, tuple[int, Verified]]:
    """Return the last result for each subject and kind, with its time, among the newest thousand."""
    query = Query.of(types=[TYPE])
    page = run(view.admin.log.engine.read(query, Span(until=_head(view), backwards=True, limit=PROOFS)))
    found: dict[str, tuple[int, Verified]] = {}
    for stored in page.events:
        try:
            result = decode(stored.data, Verified)
        except (EventfoldError, ValueError):  # of a later release
            continue
        found.setdefault(LOG if result.kind == LOG else f"{result.kind} of {result.subject}", (stored.time, result))
    return found


def _reacting(view: StoreView) -> Iterator[Observed]:
    return (each for each in view.observed() if each.status.kind == "effects")


def _is_process(code: str) -> bool:
    """Whether the code at MODULE:NAME is a process, as far as this program has it: an effect or unknown code is not."""
    module, _, name = code.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return isinstance(found, type)


def _name_of(work: Named) -> str:
    """Return the name of a read model, process, subscription or effect. Raises InvalidProjection, InvalidProcess."""
    if isinstance(work, str):
        return work
    if isinstance(work, Effect):
        return work.name
    if isinstance(work, type) and issubclass(work, Process):
        return process_definition(work).name
    projection: Any = work
    return projection_definition(projection).name


def _module_of_caller() -> str:
    """Return the module that makes a built-in alert: the first caller outside this one."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", ""))


__all__ = ["BuiltIn", "Lagging", "Parked", "Silent", "Stuck", "Undelivered", "VerifyOld"]
