"""Messages about alerts: the fact that one is to be sent to a target, and its text for people.

    $alert-message   tagged $alert:NAME and $deliver:TARGET   what a target is to be sent
    $alert-target    tagged $deliver:TARGET                   from here on, episodes are announced to a target

The id of a message is that of its fact, and is derived from the episodes and from what it says of them: it is the same
at each attempt, and serves as idempotency key.
Knows: the words of a message. Does not know: when a message is due, how it is sent.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from eventfold.alerts.facts import Severity, alert_tag
from eventfold.core.counted import count_of
from eventfold.core.envelope import NewEvent, from_micros
from eventfold.core.event import Event, Recorded
from eventfold.processes.timer_events import derived_id

MESSAGE, TARGET = "$alert-message", "$alert-target"
LISTED = 10  # keys that a message names; it counts them all
Kind = Literal["raised", "cleared", "reminder", "limit", "test"]


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One episode in a message. Times are µs since 1970 UTC."""

    key: str
    episode: str
    reason: str
    since: int
    until: int | None = None


class AlertMessage(Event, type="$alert-message"):
    """A message that a target is to be sent.

    It is about `count` episodes, of which `entries` are the first ten: those of `kind` up to the position `through` of
    the log, but not those in `without`. `open`: how many episodes of the alert are open after it. `root`: the id of the
    message that announced the first of them. `until`: of a message of the kind "limit", when the next may follow.
    """

    target: str
    alert: str
    kind: Kind
    severity: Severity
    at: int
    count: int
    open: int
    entries: tuple[Entry, ...]
    through: int
    without: tuple[str, ...] = ()
    subject: str = ""
    root: str = ""
    until: int = 0


class AlertTarget(Event, type="$alert-target"):
    """The first start of a target: what was raised and cleared before is not announced to it."""

    target: str
    at: int


def target_tag(target: str) -> str:
    """Return the tag of all messages to a target."""
    return f"$deliver:{target}"


def event_of(fact: AlertMessage | AlertTarget) -> NewEvent:
    """Return a fact as an event to append. Its id is derived from what it says."""
    if isinstance(fact, AlertTarget):
        identity, tags, kind = derived_id(0, TARGET, fact.target), (target_tag(fact.target),), TARGET
    else:
        what = [entry.episode for entry in fact.entries] if fact.kind in ("raised", "cleared") else [str(fact.at)]
        identity = derived_id(fact.at, fact.target, fact.alert, fact.kind, fact.count, *what)
        tags, kind = (alert_tag(fact.alert), target_tag(fact.target)), MESSAGE
    return NewEvent(identity.bytes, kind, 1, msgspec.json.encode(fact), tuple(sorted(tags)), None, None)


class Message(msgspec.Struct, frozen=True):
    """A message as a target sends it. `id` is the same at each attempt: use it as idempotency key.

    `kind`: "raised", "cleared", "reminder" (still raised), "limit" (the alert sent as many messages in an hour as it
    may) or "test". `count`: the number of episodes; `entries`: the first ten. `root`: the id of the message that
    announced them, its own id if it does so. `store`: the name of the store, if it was given one.
    """

    id: str
    alert: str
    kind: Kind
    severity: Severity
    at: int
    count: int
    open: int
    entries: tuple[Entry, ...]
    root: str
    subject: str = ""
    store: str = ""
    until: int = 0

    @property
    def time(self) -> str:
        """When it was written, as ISO 8601 in UTC."""
        return iso(self.at)

    @property
    def title(self) -> str:
        """One line: what is wrong."""
        return f"[{self.severity}] {self.sentence}" if self.kind in ("raised", "reminder") else self.sentence

    @property
    def sentence(self) -> str:
        """The title without the severity: `CardTesting c-1: 23 declines in 5 minutes.`"""
        return one_line(self._sentence)

    @property
    def _sentence(self) -> str:
        what = self._what
        match self.kind:
            case "raised":
                return f"{what}: {self.entries[0].reason}" if self.count == 1 else what
            case "cleared":
                return f"{what} {'is' if self.count == 1 else 'are'} cleared"
            case "reminder":
                return f"{what} {'is' if self.count == 1 else 'are'} still raised after {span(self._longest)}"
            case "limit":
                sent = count_of(self.count, "message")
                return f"{self.alert} sent {sent} within an hour; the next may come at {iso(self.until)}"
            case "test":
                return f"{self.alert}: a test message; nothing is wrong"

    @property
    def body(self) -> str:
        """The whole text, in lines."""
        lines = [self.sentence, ""]
        for entry in self.entries:
            key = f"{entry.key}: " if entry.key else ""
            lines.append(f"- {one_line(key + entry.reason)} (since {iso(entry.since)}{_until(entry)})")
        if self.count > len(self.entries) and self.kind != "limit":
            lines.append(f"- and {self.count - len(self.entries):,} more")
        if self.kind == "limit":
            lines.append("What happens until then is reported in one message afterwards.")
        if self.kind in ("raised", "cleared") and (self.open or self.kind == "cleared"):
            lines += [
                "",
                f"{self.open:,} of this alert raised now." if self.open else "None of this alert is raised now.",
            ]
        where = f" in {self.store}" if self.store else ""
        lines += ["", f"Alert {self.alert}, severity {self.severity}{where}."]
        if self.kind != "test":
            lines.append(f"Show it: eventfold alert show {self.alert}")
        return "\n".join(lines)

    @property
    def _what(self) -> str:
        if self.count != 1:
            return f"{self.alert}: {self.count:,} {plural(self.subject)}"
        key = self.entries[0].key if self.entries else ""
        return f"{self.alert} {key}".rstrip()

    @property
    def _longest(self) -> int:
        return max((self.at - entry.since for entry in self.entries), default=0)

    def as_data(self) -> dict[str, Any]:
        """Return the message as JSON values, for programs that receive it. Times are ISO 8601 in UTC."""
        return {
            "alert": self.alert,
            "state": self.kind,
            "severity": self.severity,
            "summary": self.sentence,
            "count": self.count,
            "open": self.open,
            "store": self.store or None,
            "at": self.time,
            "root": self.root,
            "episodes": [
                {
                    "episode": entry.episode,
                    "key": entry.key,
                    "reason": entry.reason,
                    "since": iso(entry.since),
                    "until": None if entry.until is None else iso(entry.until),
                }
                for entry in self.entries
            ],
        }


def message_of(recorded: Recorded[AlertMessage], store: str = "") -> Message:
    """Return the message of a recorded fact."""
    event, identity = recorded.event, str(recorded.id)
    return Message(
        identity,
        event.alert,
        event.kind,
        event.severity,
        event.at,
        event.count,
        event.open,
        event.entries,
        event.root or identity,
        event.subject,
        store,
        event.until,
    )


def iso(micros: int) -> str:
    """Return a time as `2026-11-29T03:12:05Z`."""
    return f"{from_micros(micros):%Y-%m-%dT%H:%M:%SZ}"


def span(micros: int) -> str:
    """Return a length of time for people: `45 s`, `12 min`, `4 h`, `3 days`."""
    seconds = max(0, micros) // 1_000_000
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7_200:
        return f"{seconds // 60} min"
    return f"{seconds // 3_600} h" if seconds < 172_800 else f"{seconds // 86_400} days"


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters, which would change what follows it."""
    return text if text.isprintable() else "".join(each if each.isprintable() else " " for each in text)


def plural(subject: str) -> str:
    """Return the plural of the name of a key's field; "keys" if it has none."""
    noun = subject.replace("_", " ") or "key"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return noun if noun.endswith("s") else f"{noun}s"


def _until(entry: Entry) -> str:
    return "" if entry.until is None else f" until {iso(entry.until)}"
