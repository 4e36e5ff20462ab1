"""Episodes as JSON for people and programs: what `eventfold alert list` and the server's `/alerts` answer.

Knows: facts of alerts. Does not know: terminals, HTTP.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from eventfold.alerts.facts import Episode, OpenEpisodes
from eventfold.core.envelope import from_micros

EpisodeState = Literal["raised", "acknowledged", "snoozed", "cleared"]


class NoteView(msgspec.Struct, frozen=True):
    """Who acknowledged an episode, why, and until when (exclusive)."""

    actor: str
    because: str
    until: datetime


class EpisodeView(msgspec.Struct, frozen=True):
    """An episode of one key of an alert. `key`: "" if it has none. `until`: when it was cleared; None: it is open."""

    alert: str
    key: str
    state: EpisodeState
    severity: str
    since: datetime
    until: datetime | None
    reason: str
    cleared_because: str | None
    acknowledged: NoteView | None
    episode: str
    position: int


def state_of(each: Episode, states: OpenEpisodes, now: int) -> EpisodeState:
    """Return the state of an episode at `now` (µs since 1970 UTC)."""
    return states.state_of(each, now) if each.is_open else "cleared"


def episode_view(each: Episode, state: EpisodeState) -> EpisodeView:
    """Return an episode with its state."""
    note = each.acknowledged
    return EpisodeView(
        each.alert,
        each.key,
        state,
        each.severity,
        from_micros(each.at),
        None if each.cleared_at is None else from_micros(each.cleared_at),
        each.reason,
        each.cleared_because or None,
        None if note is None else NoteView(note.actor, note.because, from_micros(note.until)),
        each.episode,
        each.position,
    )
