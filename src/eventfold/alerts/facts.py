"""The facts of alerts in the log: an episode was raised, cleared, acknowledged; an alert was snoozed; a rule watches.

    $alert-raised        opens an episode of one key of one alert; the event's id is the episode's id
    $alert-cleared       ends it
    $alert-acknowledged  a person works on it, until a moment
    $alert-snoozed       no messages about a key, or about the whole alert, until a moment
    $alert-watching      from this position on, what a version of a rule finds becomes a fact

Each has the tag `$alert:NAME`; those of one key have `$alert:NAME:HASH` as well. Who acknowledged is the metadata
`actor`. The ids of raised and cleared facts are derived from what they say, so that a repeat writes nothing.
Knows: the envelope, how facts fold into open episodes. Does not know: rules, clocks, who writes or reads the facts.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any, Literal
from uuid import UUID

import msgspec

from eventfold.core.envelope import NewEvent, new_id
from eventfold.core.event import Event, Recorded, declaration_of
from eventfold.core.query import Item, Query
from eventfold.core.state import State
from eventfold.core.value_order import key_text
from eventfold.processes.timer_events import derived_id

Severity = Literal["page", "ticket", "none"]
RAISED, CLEARED, ACKNOWLEDGED = "$alert-raised", "$alert-cleared", "$alert-acknowledged"
SNOOZED, WATCHING = "$alert-snoozed", "$alert-watching"
EPISODE_TYPES = (RAISED, CLEARED, ACKNOWLEDGED, SNOOZED)
MAX_REASON = 1_000  # characters
KEPT_EPISODES = 100  # of one key, in EpisodeHistory


class AlertRaised(Event, type="$alert-raised"):
    """An episode began. `key`: the key as text, "" if the alert has none. `at`: when, in µs since 1970 UTC.

    `at` is the moment that the rule gives: of the event that opened the episode, or at which silence had lasted.
    `subject`: the name of the key's field, so that people read of "14 cards"; "" if there are none or several.
    """

    alert: str
    key: str
    episode: str
    reason: str
    severity: Severity
    at: int
    subject: str = ""


class AlertCleared(Event, type="$alert-cleared"):
    """An episode ended. `reason`: why, one sentence. `at`: since when the rule was satisfied, as in AlertRaised."""

    alert: str
    key: str
    episode: str
    reason: str
    at: int


class AlertAcknowledged(Event, type="$alert-acknowledged"):
    """A person (metadata `actor`) works on an episode: no reminders until `until` (exclusive, µs since 1970 UTC)."""

    alert: str
    key: str
    episode: str
    until: int
    because: str


class AlertSnoozed(Event, type="$alert-snoozed"):
    """No messages about a key (None: about the whole alert) until `until` (exclusive, µs since 1970 UTC)."""

    alert: str
    key: str | None
    until: int
    because: str


class AlertWatching(Event, type="$alert-watching"):
    """What a version of a rule finds after the position `after` becomes a fact; what it had found before did not.

    `rule`: the fingerprint of the rule and of its rows: `generation` and `partition` are those of the rows.
    """

    alert: str
    rule: str
    generation: int
    partition: int
    after: int
    at: int


AlertFact = AlertRaised | AlertCleared | AlertAcknowledged | AlertSnoozed
AnyFact = AlertFact | AlertWatching


# Tags and ids


def episode_key(key: tuple[Any, ...]) -> str:
    """Return a key as the text that facts have. Of several values, commas within one are escaped by a backslash."""
    if len(key) == 1:
        return key_text(key)
    return ", ".join(re.sub(r"([\\,])", r"\\\1", key_text((value,))) for value in key)


def key_text_of(episode_key: str) -> str:
    """Return the text by which the key of an episode, of several values, is assigned to a partition."""
    return re.sub(r"\\(.)", r"\1", episode_key, flags=re.DOTALL)


def alert_tag(alert: str) -> str:
    """Return the tag of all facts of an alert."""
    return f"$alert:{alert}"


def key_tag(alert: str, key: str) -> str:
    """Return the tag of the facts of one key. `key`: its text."""
    return f"$alert:{alert}:{sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def episode_id(alert: str, key: str, opening: str, at: int) -> UUID:
    """Return the id of an episode, and of the fact that raises it. Every runner derives the same.

    `opening`: what opened it: the position of an event, or the moment at which silence had lasted. `at`: µs.
    """
    return derived_id(at, "alert raised", alert, key, opening)


def cleared_id(episode: UUID) -> UUID:
    """Return the id of the fact that ends an episode."""
    return UUID(int=derived_id(0, "alert cleared", episode).int | episode.int >> 80 << 80)


def tags_of(fact: AnyFact) -> tuple[str, ...]:
    """Return the tags of a fact, sorted."""
    key: str | None = getattr(fact, "key", None)
    return (alert_tag(fact.alert),) if key is None else (alert_tag(fact.alert), key_tag(fact.alert, key))


def fact_id(fact: AnyFact) -> UUID:
    """Return the id of a fact: derived, where a runner writes it; else new."""
    if isinstance(fact, AlertRaised):
        return UUID(fact.episode)
    return cleared_id(UUID(fact.episode)) if isinstance(fact, AlertCleared) else UUID(bytes=new_id())


def new_event_of(fact: AnyFact, metadata: bytes | None = None) -> NewEvent:
    """Return a fact as an event to append. `metadata`: encoded, see `metadata_of` of the log."""
    kind = declaration_of(type(fact)).type
    return NewEvent(fact_id(fact).bytes, kind, 1, msgspec.json.encode(fact), tags_of(fact), None, metadata)


def facts_query(alert: str = "", key: str | None = None, types: tuple[str, ...] = EPISODE_TYPES) -> Query:
    """Return the query for the facts of one key, of an alert, or of all alerts (alert "")."""
    tags = () if not alert else (alert_tag(alert),) if key is None else (key_tag(alert, key),)
    return Query((Item(types, tags),))


# What the facts say


class Note(msgspec.Struct):
    """An acknowledgement or a snooze: who, why, until when (exclusive, µs since 1970 UTC)."""

    actor: str
    because: str
    until: int


class Episode(msgspec.Struct):
    """An episode of one key: raised, perhaps acknowledged, perhaps cleared. Times are µs since 1970 UTC.

    `position`: of the fact that raised it, 0 in a replay. `recorded_at`: when that fact was recorded.
    """

    alert: str
    key: str
    episode: str
    reason: str
    severity: Severity
    at: int
    position: int = 0
    recorded_at: int = 0
    cleared_at: int | None = None
    cleared_because: str = ""
    acknowledged: Note | None = None

    @property
    def is_open(self) -> bool:
        """Whether it was raised and not cleared."""
        return self.cleared_at is None

    def is_acknowledged(self, now: int) -> bool:
        """Whether a person works on it at `now` (µs since 1970 UTC)."""
        return self.acknowledged is not None and now < self.acknowledged.until


def actor_of(recorded: Recorded[Any]) -> str:
    """Return who wrote a fact; "" if it does not say."""
    return str(recorded.metadata.get("actor") or "")


class OpenEpisodes(State):
    """The open episodes of one alert, or of all (`alert` ""), by episode id, in the order in which they were raised.

    `snoozes`: by alert for a whole alert, by `ALERT:HASH` (the key's tag without `$alert:`) for a key.
    """

    alert: str
    open: dict[str, Episode] = {}
    snoozes: dict[str, Note] = {}

    def query(self) -> Query:
        """Return the query for the facts of the alert, or of all alerts."""
        return facts_query(self.alert)

    def evolve(self, event: AlertFact, recorded: Recorded[Any]) -> None:
        """Apply a fact."""
        match event:
            case AlertRaised():
                self.open[event.episode] = episode_of(event, recorded)
            case AlertCleared():
                self.open.pop(event.episode, None)
            case AlertAcknowledged():
                if event.episode in self.open:
                    self.open[event.episode].acknowledged = Note(actor_of(recorded), event.because, event.until)
            case AlertSnoozed():
                self.snoozes[_snooze_key(event.alert, event.key)] = Note(actor_of(recorded), event.because, event.until)

    def snooze_of(self, alert: str, key: str, now: int) -> Note | None:
        """Return the snooze of a key, or of its whole alert, in force at `now` (µs since 1970 UTC), else None."""
        for each in (self.snoozes.get(_snooze_key(alert, key)), self.snoozes.get(alert)):
            if each is not None and now < each.until:
                return each
        return None

    def state_of(self, episode: Episode, now: int) -> Literal["raised", "acknowledged", "snoozed"]:
        """Return whether people are to hear of an open episode at `now` (µs since 1970 UTC)."""
        if self.snooze_of(episode.alert, episode.key, now) is not None:
            return "snoozed"
        return "acknowledged" if episode.is_acknowledged(now) else "raised"


class EpisodeHistory(State):
    """The last 100 episodes of one key of an alert, oldest first. `key`: its text, "" if the alert has none."""

    alert: str
    key: str
    episodes: list[Episode] = []

    def query(self) -> Query:
        """Return the query for the facts of the key."""
        return facts_query(self.alert, self.key, (RAISED, CLEARED, ACKNOWLEDGED))

    def evolve(self, event: AlertRaised | AlertCleared | AlertAcknowledged, recorded: Recorded[Any]) -> None:
        """Apply a fact."""
        if isinstance(event, AlertRaised):
            self.episodes = [*self.episodes[1 - KEPT_EPISODES :], episode_of(event, recorded)]
            return
        of_it = next((each for each in self.episodes if each.episode == event.episode), None)
        if of_it is None:
            return
        if isinstance(event, AlertCleared):
            of_it.cleared_at, of_it.cleared_because = event.at, event.reason
        else:
            of_it.acknowledged = Note(actor_of(recorded), event.because, event.until)


def episode_of(event: AlertRaised, recorded: Recorded[Any] | None = None) -> Episode:
    """Return the episode that a fact opens."""
    stored = None if recorded is None else recorded.stored
    return Episode(
        event.alert,
        event.key,
        event.episode,
        event.reason,
        event.severity,
        event.at,
        0 if stored is None else stored.position,
        0 if stored is None else stored.time,
    )


def _snooze_key(alert: str, key: str | None) -> str:
    return alert if key is None else key_tag(alert, key).removeprefix("$alert:")
