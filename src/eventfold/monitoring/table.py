"""The table of metrics: the name, kind, labels, unit and meaning of each.

Recording, reading the state of a store, `/metrics`, the dashboard, the alert rules and the page of the reference are
made from it. A label is a name in code (a type, a read model, a route), never data: no tag, id, actor or path.
Knows: which metrics there are. Does not know: how a value is found.
"""

from __future__ import annotations

from typing import Literal

import msgspec

PREFIX = "eventfold_"
Kind = Literal["counter", "gauge", "histogram"]
Group = Literal["writing", "reading", "log", "read models", "processes", "proof", "alerts", "server", "scrape"]
Source = Literal["recorded", "state", "server"]

LATENCY_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
WAIT_S = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0)
REQUESTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0)
ATTEMPTS = (1.0, 2.0, 3.0, 5.0, 10.0)


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. `name` is without the prefix; a metric of a store has the label `store` before `labels`.

    `source`: recorded while this process uses the store; read from the state of the store at a scrape; or of a server.
    `buckets`: the upper bounds of a histogram, inclusive. `unit`: of its values; empty for a number of something.
    `known`: values of its labels that are shown as 0 from the beginning, since Prometheus sees no increase in the first
    value of a series.
    """

    name: str
    kind: Kind
    group: Group
    source: Source
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()
    known: tuple[tuple[str, ...], ...] = ()
    of_store: bool = True

    @property
    def full_name(self) -> str:
        """The name as Prometheus knows it."""
        return PREFIX + self.name

    @property
    def all_labels(self) -> tuple[str, ...]:
        """The names of its labels, with that of the store."""
        return ("store", *self.labels) if self.of_store else self.labels


def _recorded(
    name: str,
    group: Group,
    help: str,
    labels: tuple[str, ...] = (),
    *,
    buckets: tuple[float, ...] = (),
    unit: str = "",
    kind: Kind | None = None,
    known: tuple[tuple[str, ...], ...] = (),
) -> Metric:
    return Metric(
        name=name,
        kind=kind or ("histogram" if buckets else "counter"),
        group=group,
        source="recorded",
        help=help,
        labels=labels,
        unit=unit,
        buckets=buckets,
        known=known,
    )


def _state(name: str, group: Group, help: str, labels: tuple[str, ...] = (), unit: str = "") -> Metric:
    return Metric(name=name, kind="gauge", group=group, source="state", help=help, labels=labels, unit=unit)


def _server(
    name: str,
    help: str,
    labels: tuple[str, ...] = (),
    *,
    kind: Kind = "counter",
    buckets: tuple[float, ...] = (),
    unit: str = "",
    known: tuple[tuple[str, ...], ...] = (),
) -> Metric:
    return Metric(
        name=name,
        kind=kind,
        group="server",
        source="server",
        help=help,
        labels=labels,
        buckets=buckets,
        unit=unit,
        known=known,
        of_store=False,
    )


MODEL, PROCESS = ("projection",), ("process",)

METRICS: tuple[Metric, ...] = (
    _recorded(
        "appends_total",
        "writing",
        "Append requests by outcome: written, repeated (it was in the log already), conflict, refused, unconfirmed "
        "(whether it was written is unknown), failed (the store was unavailable).",
        ("outcome",),
        known=(("written",), ("repeated",), ("conflict",), ("refused",), ("unconfirmed",), ("failed",)),
    ),
    _recorded(
        "events_appended_total", "writing", "Events written, by type (the first 200 types, then other).", ("type",)
    ),
    _recorded(
        "append_duration_seconds",
        "writing",
        "Time from queueing an append to its outcome, waiting for other appends of the same commit included.",
        buckets=LATENCY_S,
        unit="seconds",
    ),
    _recorded("commit_requests", "writing", "Append requests that one commit combined.", buckets=REQUESTS),
    _recorded(
        "commit_duration_seconds", "writing", "Time of one commit in the engine.", buckets=LATENCY_S, unit="seconds"
    ),
    _recorded(
        "decide_attempts",
        "writing",
        "Attempts of one decision: more than 1 after a conflict; 0 if its command was decided before.",
        ("decision",),
        buckets=ATTEMPTS,
    ),
    _recorded(
        "decide_duration_seconds",
        "writing",
        "Time of one decision with all its attempts.",
        ("decision",),
        buckets=LATENCY_S,
        unit="seconds",
    ),
    _recorded(
        "lock_wait_seconds",
        "writing",
        "Time that a caller of store.lock waited for it.",
        buckets=WAIT_S,
        unit="seconds",
    ),
    _recorded(
        "read_events_total",
        "reading",
        "Events read from the log: page (reads), state (folds of states), follow (followers), scan (read models, "
        "processes, verification).",
        ("kind",),
    ),
    _recorded(
        "read_duration_seconds",
        "reading",
        "Time to read one page of events from the log.",
        ("kind",),
        buckets=LATENCY_S,
        unit="seconds",
    ),
    _recorded(
        "state_cache_total",
        "reading",
        "Look-ups of states in the cache: hit (used without reading the log), caught_up (cached, newer events were "
        "read), miss.",
        ("result",),
        known=(("hit",), ("caught_up",), ("miss",)),
    ),
    _recorded("followers", "reading", "Followers of this process that are open.", kind="gauge", known=((),)),
    _state(
        "follower_lag_events", "reading", "Events that wait for a follower with a name, or for a consumer.", ("name",)
    ),
    _state("head_position", "log", "Position of the last event; 0 if there is none."),
    _state("head_timestamp_seconds", "log", "When the last event was recorded.", unit="seconds since 1970"),
    _state(
        "store_bytes",
        "log",
        "Size of the store: data and wal of a file; tables and indexes on PostgreSQL.",
        ("part",),
        "bytes",
    ),
    _state("disk_free_bytes", "log", "Free space of the disk that a store in a file is on.", unit="bytes"),
    _state("epoch", "log", "Epoch of the store: it grows when a backup was restored, or after a failover."),
    _state(
        "build_info",
        "log",
        "Always 1, with the version, the engine and its durability.",
        ("version", "engine", "durability"),
    ),
    _state("projection_position", "read models", "Position up to which the read model has read the log.", MODEL),
    _state("projection_lag_events", "read models", "Events that wait for the read model.", MODEL),
    _state(
        "projection_lag_seconds", "read models", "Age of the first event that waits; 0 if none does.", MODEL, "seconds"
    ),
    _state(
        "projection_rate", "read models", "Events per second at which it was folded last.", MODEL, "events per second"
    ),
    _state("projection_parked", "read models", "Events that failed and are parked.", MODEL),
    _state(
        "projection_oldest_parked_seconds",
        "read models",
        "Age of the oldest parked event; 0 if none is.",
        MODEL,
        "seconds",
    ),
    _state("projection_skipped", "read models", "Events that an operator skipped for good.", MODEL),
    _state(
        "projection_state",
        "read models",
        "1 for the state that it is in: current, behind, parked, paused, stopped, idle, away. Others have no series.",
        ("projection", "state"),
    ),
    _state(
        "projection_beat_timestamp_seconds",
        "read models",
        "When its runner last sent a sign of life; 0 if never.",
        MODEL,
        "seconds since 1970",
    ),
    _state(
        "projection_handler_seconds",
        "read models",
        "Time per event of its slowest handler.",
        ("projection", "handler"),
        "seconds",
    ),
    _state(
        "projection_generation",
        "read models",
        "Number of the generation that is live, and of one being built.",
        ("projection", "role"),
    ),
    _state("process_stuck", "processes", "Instances that wait for a parked event.", PROCESS),
    _state("process_timers", "processes", "Timers that have not fired.", PROCESS),
    _state("process_timers_overdue", "processes", "Timers that were due and have not fired.", PROCESS),
    _state(
        "process_timer_delay_seconds",
        "processes",
        "How long the oldest of them has been due; 0 if none is.",
        PROCESS,
        "seconds",
    ),
    _state(
        "effects_undelivered", "processes", "Events that wait for the effect, and those that are parked.", ("effect",)
    ),
    _recorded(
        "effect_attempts_total",
        "processes",
        "Calls of effects by this process: delivered, or failed.",
        ("effect", "outcome"),
    ),
    _state(
        "verify_timestamp_seconds",
        "proof",
        "When the log, or a read model, was last verified and the result recorded; there is none if it never was.",
        ("what",),
        "seconds since 1970",
    ),
    _state(
        "backup_timestamp_seconds",
        "proof",
        "When the last backup was recorded (eventfold backup --record); there is none if it never was.",
        (),
        "seconds since 1970",
    ),
    _state("verify_ok", "proof", "1 if that verification found nothing wrong, else 0.", ("what",)),
    _state(
        "alerts",
        "alerts",
        "Open episodes of alerts on events; state: raised, acknowledged, snoozed.",
        ("alert", "severity", "state"),
    ),
    _server("http_requests_total", "Requests that were answered.", ("route", "method", "status")),
    _server(
        "http_request_duration_seconds",
        "Time until a response was made; of a stream, until it began.",
        ("route",),
        kind="histogram",
        buckets=LATENCY_S,
        unit="seconds",
    ),
    _server("streams", "Live streams that are open.", kind="gauge"),
    _server("streams_dropped_total", "Live streams that the server ended early.", ("reason",)),
    _server("auth_refused_total", "Calls that were refused for who made them.", ("reason",)),
    _server("rate_limited_total", "Calls that were refused because there were too many.", known=((),)),
    _state(
        "scrape_error",
        "scrape",
        "1 if the state of the store could not be read, or not in 250 ms: older values are shown, or none.",
    ),
    _state("scrape_duration_seconds", "scrape", "How long the state was read for the values shown.", unit="seconds"),
)
BY_NAME = {each.name: each for each in METRICS}


def full_name(name: str) -> str:
    """Return the name of a metric with the prefix. Raises KeyError if the table does not have it."""
    return BY_NAME[name].full_name
