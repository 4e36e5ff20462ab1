"""The alerts of a store for the people on call: what is open, its history, acknowledge, snooze, replay.

Knows: facts, who asks. Does not know: rules, except to replay one; how facts are written by runners.
"""

from __future__ import annotations

import builtins
import difflib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from eventfold.alerts.classes import Alert
from eventfold.alerts.delivery.undelivered import TargetStatus, target_statuses
from eventfold.alerts.facts import (
    ACKNOWLEDGED,
    CLEARED,
    RAISED,
    WATCHING,
    AlertAcknowledged,
    AlertCleared,
    AlertSnoozed,
    Episode,
    EpisodeHistory,
    Note,
    OpenEpisodes,
    actor_of,
    episode_of,
    facts_query,
    new_event_of,
)
from eventfold.alerts.replay import Progress, Replay, plan_of
from eventfold.alerts.retirement import end_episodes
from eventfold.concurrency import run
from eventfold.core.codec import encode_metadata
from eventfold.core.envelope import Receipt, to_micros, to_moment
from eventfold.core.event import Recorded
from eventfold.core.query import Query
from eventfold.errors import InvalidInput, UnknownAlert
from eventfold.log.append import write
from eventfold.log.context import Options, metadata_now
from eventfold.log.read import Bounds, Reader, load
from eventfold.ports.messages import AppendRequest, Span
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.definition import projection_definition

LISTED = 1_000  # episodes that are returned by default
Named = str | type[Alert]


class AlertAdmin:
    """The alerts of a store: `store.alerts`. An alert is named, or given as its class; a key is its text.

    Who acknowledges and snoozes is the actor of the store, `store.using(actor="ann").alerts`, of `store.context(…)`, or
    the argument `actor`.
    """

    def __init__(self, admin: ProjectionAdmin, options: Options) -> None:
        self._admin, self.log, self._options = admin, admin.log, options

    # Looking

    def names(self) -> builtins.list[str]:
        """Return the names of all alerts that have ever been run on this store, sorted."""
        return sorted({fact.event.alert for fact in self._read(facts_query(types=(WATCHING,)))})

    def list(
        self, alert: Named | None = None, *, open_only: bool = True, limit: int = LISTED
    ) -> builtins.list[Episode]:
        """Return episodes of an alert, or of all, newest first: those that are open, or also those that have ended.

        At most `limit`. Raises UnknownAlert for a name that the store does not know.
        """
        name = "" if alert is None else self._require(alert)
        if open_only:
            found = list(self._state(OpenEpisodes(name)).open.values())[::-1]
            return found[:limit]
        return self._latest(facts_query(name, None, (RAISED, CLEARED, ACKNOWLEDGED)), limit)

    def show(self, alert: Named, key: str | None = None, *, limit: int = LISTED) -> builtins.list[Episode]:
        """Return the episodes of one key of an alert, or of all its keys (None), newest first. Raises UnknownAlert.

        The key of an alert without a key is "".
        """
        name = self._require(alert)
        if key is None:
            return self.list(name, open_only=False, limit=limit)
        _check_text(key, "key")
        return self._state(EpisodeHistory(name, key)).episodes[::-1][:limit]

    def open(self) -> OpenEpisodes:
        """Return the open episodes of all alerts, with the snoozes in force."""
        return self._state(OpenEpisodes(""))

    def targets(self) -> builtins.list[TargetStatus]:
        """Return the targets to which messages are delivered: what was not delivered, since when, the last error."""
        return target_statuses(self._admin)

    # Acting

    def acknowledge(
        self,
        alert: Named,
        key: str = "",
        *,
        until: datetime | timedelta,
        because: str,
        actor: str | None = None,
    ) -> Receipt:
        """Note that a person works on the open episode of a key: no reminders until then. Returns the receipt.

        `until`: an aware datetime, exclusive, or a duration from now. Raises UnknownAlert if no episode of the key is
        open, InvalidInput without an actor, a reason or an end in the future.
        """
        name, end, metadata = self._require(alert), self._end_of(until), self._metadata(actor, because)
        _check_text(key, "key")
        episode = next((each for each in self._state(OpenEpisodes(name)).open.values() if each.key == key), None)
        if episode is None:
            known = [each.key for each in self._state(OpenEpisodes(name)).open.values()]
            raise UnknownAlert(
                f"{name} has no open episode" + (f" of {key!r}." if key else "."),
                f"Open ones: {', '.join(known[:5]) or 'none'}{' and others' if len(known) > 5 else ''}. "
                "See eventfold alert list.",
                alert=name,
                key=key,
            )
        return self._append(AlertAcknowledged(name, key, episode.episode, end, because), metadata)

    def snooze(
        self,
        alert: Named,
        key: str | None = None,
        *,
        until: datetime | timedelta,
        because: str,
        actor: str | None = None,
    ) -> Receipt:
        """Send no messages about a key, or about the whole alert (None), until then. Returns the receipt.

        The episodes go on and stay in the log. Arguments and errors as in `acknowledge`.
        """
        name, end, metadata = self._require(alert), self._end_of(until), self._metadata(actor, because)
        if key is not None:
            _check_text(key, "key")
        return self._append(AlertSnoozed(name, key, end, because), metadata)

    def retire(self, alert: Named, *, because: str, actor: str | None = None) -> builtins.list[str]:
        """End the open episodes of an alert that is run no more. Returns their keys; none if none was open.

        Targets send that they ended, and no reminder any more. The log keeps who retired it, and why. Raises
        UnknownAlert, InvalidInput without an actor or a reason, or while the rule's rows are not removed.
        """
        name, metadata = self._require(alert), self._metadata(actor, because)
        target = self._admin.catalog.own_target()
        if target is not None and target.record(name) is not None:
            raise InvalidInput(
                f"{name} still has its rows, so it may be run, and its runner would raise the episodes again.",
                f"Stop running it, remove its rows (eventfold projections remove STORE {name}), then retire it.",
                alert=name,
            )
        return run(end_episodes(self.log, self._options, name, because, metadata))

    def replay(
        self,
        alert: type[Alert],
        *,
        since: date | timedelta | None = None,
        until: date | None = None,
        progress: Progress = lambda _position, _head: None,
    ) -> builtins.list[Episode]:
        """Return the episodes that a rule would have had over the past, in order, and write nothing.

        `since`: a moment, a day in UTC, or a duration before now; earlier events are folded, and episodes that began
        earlier are left out. `until`: a moment or a day, inclusive; by default now, or the last event where the rule
        goes by the time of occurrence. `progress(position, head)` is called after every page. Raises what the rule
        raises.
        """
        now = datetime.now(UTC)
        begin = _moved(now, -since, "since") if isinstance(since, timedelta) else since
        by_occurred = plan_of(projection_definition(alert)).by_occurred
        end = to_micros(to_moment(until, late=True)) if until is not None else None if by_occurred else to_micros(now)
        first = None if begin is None else to_micros(to_moment(begin))
        return run(Replay(self.log, alert, since=first, until=end, began=first).run(progress))

    # Steps

    def _state(self, question: Any) -> Any:
        return run(load(self.log, question))[0]

    def _read(self, query: Query, *, backwards: bool = False) -> Iterator[Recorded[Any]]:
        reader = Reader(self.log, query, Bounds(backwards=backwards))
        while (page := run(reader.next_page())) is not None:
            yield from page

    def _latest(self, query: Query, limit: int) -> builtins.list[Episode]:
        """Return episodes of some facts, newest first."""
        found: list[Episode] = []
        ended: dict[str, AlertCleared] = {}
        notes: dict[str, Note] = {}
        if limit < 1:
            return found
        for each in self._read(query, backwards=True):
            fact = each.event
            if isinstance(fact, AlertCleared):
                ended[fact.episode] = fact
            elif isinstance(fact, AlertAcknowledged):
                notes.setdefault(fact.episode, Note(actor_of(each), fact.because, fact.until))
            else:
                episode = episode_of(fact, each)
                if (end := ended.get(fact.episode)) is not None:
                    episode.cleared_at, episode.cleared_because = end.at, end.reason
                episode.acknowledged = notes.get(fact.episode)
                found.append(episode)
                if len(found) == limit:
                    break
        return found

    def _require(self, alert: Named) -> str:
        if not isinstance(alert, str):
            return projection_definition(alert).name
        if alert not in (known := self.names()):
            near = difflib.get_close_matches(alert, known, 1)
            hint = f"Did you mean {near[0]}?" if near else f"It has {', '.join(known)}." if known else "Run one first."
            raise UnknownAlert(f"The store has no alert {alert!r}.", hint, alert=alert)
        return alert

    def _end_of(self, until: datetime | timedelta) -> int:
        """Return the end in µs since 1970 UTC. It is later than the last event of the log."""
        now = datetime.now(UTC)
        if isinstance(until, timedelta):
            if until <= timedelta():
                raise InvalidInput(
                    f"until is {until!r}, which is not after now.", "Give a duration, such as ef.hours(2)."
                )
            return to_micros(_moved(now, until, "until"))
        end = to_micros(until)
        last = run(self.log.engine.head())
        reached = run(self._time_of(last.position)) if last.position else to_micros(now)
        if end <= reached:
            raise InvalidInput(
                f"until is {until.isoformat()}, which has passed.",
                "Give a moment in the future.",
                until=until.isoformat(),
            )
        return end

    async def _time_of(self, position: int) -> int:
        page = await self.log.engine.read(Query(), Span(after=position - 1, until=position))
        return page.events[-1].time if page.events else 0

    def _metadata(self, actor: str | None, because: str) -> bytes:
        if not isinstance(because, str) or not because.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput("No reason was given.", 'Say why: because="the bank is down".')
        _check_text(because, "because")
        metadata = metadata_now(self._options) | ({} if actor is None else {"actor": actor})
        if not metadata.get("actor"):
            raise InvalidInput(
                "Acknowledging and snoozing need an actor, who is asked later why it was quiet.",
                'Give actor="ann", or use store.using(actor="ann").alerts.',
            )
        encoded = encode_metadata(metadata)
        assert encoded is not None
        return encoded

    def _append(self, fact: AlertAcknowledged | AlertSnoozed, metadata: bytes) -> Receipt:
        return run(write(self.log, self._options, AppendRequest((new_event_of(fact, metadata),))))


def _check_text(value: Any, name: str) -> None:
    """Raise InvalidInput unless a value is text that the log can store."""
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError):
        raise InvalidInput(f"{name} is {value!r:.80}, which is no text that can be stored.", "Give text.") from None


def _moved(now: datetime, by: timedelta, name: str) -> datetime:
    try:
        return now + by
    except OverflowError:
        raise InvalidInput(
            f"{name} is a duration that ends outside the years 1 to 9999.", "Give a shorter one, such as ef.days(90)."
        ) from None
