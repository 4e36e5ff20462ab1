"""The alert rules for Prometheus: which figures mean that the store, or what reads it, does not work.

Knows: expressions over metrics of the table. Does not know: how a file of rules is written (yaml.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from eventfold.monitoring.table import full_name as m

Severity = Literal["page", "ticket", "none"]
PREFIX = "Eventfold"
WAL_BYTES, SLOW_S, CONFLICT_SHARE, AHEAD_S = 1_000_000_000, 0.25, 0.2, 5
SILENT_S, LAG_S, OVERDUE_S, VERIFY_HOURS, FORECAST_DAYS = 60, 60, 60, 48, 4


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule: `wait` is how long the expression must hold. `what`: one sentence; `act`: what to type or to look at.

    Both may name labels of the series that fired: `{{ $labels.projection }}`.
    """

    name: str
    expression: str
    wait: str = "0s"
    severity: Severity
    what: str
    act: str

    @property
    def alert(self) -> str:
        """The name of the alert."""
        return PREFIX + self.name


ONE = "by (store, projection)"
HALTED = f'max {ONE} ({m("projection_state")}{{state=~"stopped|paused"}}) == 1'


def rules(job: str = "eventfold") -> tuple[Rule, ...]:
    """Return all rules, in the order of the reference. `job`: the name of the job in the settings of Prometheus."""
    return (*_of_scraping(job), *_of_models(), *_of_processes(), *_of_appends(), *_of_files(), *_of_proofs(), WATCHDOG)


def _of_scraping(job: str) -> Iterator[Rule]:
    yield Rule(
        name="Down",
        expression=f'up{{job="{_quoted(job)}"}} == 0',
        wait="2m",
        severity="page",
        what="Prometheus gets no metrics from {{ $labels.instance }}.",
        act="Look whether the server runs and answers: curl http://{{ $labels.instance }}/healthz",
    )
    yield Rule(
        name="NoScrape",
        expression=f"max by (store, instance) ({m('scrape_error')}) == 1",
        wait="2m",
        severity="page",
        what="The state of the store {{ $labels.store }} could not be read in 250 ms.",
        act="See the log of the server, and whether the store answers: eventfold stats STORE",
    )


def _of_models() -> Iterator[Rule]:
    yield Rule(
        name="ProjectionStopped",
        expression=f'max {ONE} ({m("projection_state")}{{state="stopped"}}) == 1',
        severity="page",
        what="The read model {{ $labels.projection }} of {{ $labels.store }} has stopped at an event.",
        act="See why: eventfold projections status STORE {{ $labels.projection }}; then correct the handler, and "
        "eventfold projections resume STORE {{ $labels.projection }}",
    )
    yield Rule(
        name="ProjectionLosing",
        expression=f"max {ONE} ({m('projection_lag_seconds')}) > {LAG_S} "
        f"and max {ONE} (delta({m('projection_lag_seconds')}[10m])) > 0 unless {HALTED}",
        wait="10m",
        severity="page",
        what="The read model {{ $labels.projection }} of {{ $labels.store }} is {{ $value | humanizeDuration }} "
        "behind, and falls further behind.",
        act="See which handler is slow: eventfold projections status STORE {{ $labels.projection }}",
    )
    yield Rule(
        name="ProjectionIdle",
        expression=f"max {ONE} ({m('projection_lag_events')}) > 0 "
        f"and time() - max {ONE} ({m('projection_beat_timestamp_seconds')}) > {SILENT_S} "
        f"unless {HALTED}",
        wait="5m",
        severity="page",
        what="No runner works on {{ $labels.projection }} of {{ $labels.store }}, and {{ $value }} events wait.",
        act="Start its runner: eventfold run STORE MODULE",
    )
    yield Rule(
        name="Parked",
        expression=f"max {ONE} ({m('projection_parked')}) > 0",
        wait="15m",
        severity="ticket",
        what="{{ $value }} events of {{ $labels.projection }} of {{ $labels.store }} failed and are parked.",
        act="See why: eventfold projections parked STORE {{ $labels.projection }}; then correct the handler, and "
        "eventfold projections retry STORE {{ $labels.projection }}",
    )


def _of_processes() -> Iterator[Rule]:
    yield Rule(
        name="ProcessStuck",
        expression=f"max by (store, process) ({m('process_stuck')}) > 0",
        wait="5m",
        severity="page",
        what="{{ $value }} instances of the process {{ $labels.process }} of {{ $labels.store }} are stuck.",
        act="See why: eventfold processes STORE",
    )
    yield Rule(
        name="TimersOverdue",
        expression=f"max by (store, process) ({m('process_timer_delay_seconds')}) > {OVERDUE_S}",
        wait="5m",
        severity="page",
        what="A timer of the process {{ $labels.process }} of {{ $labels.store }} was due "
        "{{ $value | humanizeDuration }} ago.",
        act="Look whether the process runs: eventfold run STORE MODULE",
    )
    yield Rule(
        name="EffectsUndelivered",
        expression=f"max by (store, effect) ({m('effects_undelivered')}) > 0",
        wait="5m",
        severity="page",
        what="{{ $value }} events wait for the effect {{ $labels.effect }} of {{ $labels.store }}.",
        act="See why: eventfold processes STORE",
    )


def _of_appends() -> Iterator[Rule]:
    appends, durations = m("appends_total"), m("append_duration_seconds")
    conflicts = f'sum by (store) (rate({appends}{{outcome="conflict"}}[5m]))'
    asked = f"sum by (store) (rate({appends}[5m]))"
    yield Rule(
        name="Unconfirmed",
        expression=f'sum by (store) (increase({appends}{{outcome="unconfirmed"}}[10m])) > 0',
        severity="ticket",
        what="Appends to {{ $labels.store }} ended without a confirmation in the last 10 minutes.",
        act="See the log of the server and of the database: connections were cut, or a disk failed.",
    )
    yield Rule(
        name="Conflicts",
        expression=f"{conflicts} / {asked} > {CONFLICT_SHARE}",
        wait="15m",
        severity="ticket",
        what="{{ $value | humanizePercentage }} of the appends to {{ $labels.store }} meet a conflict.",
        act="Find the decision in the panel of attempts; decide over fewer events, or lock what is decided over.",
    )
    yield Rule(
        name="AppendSlow",
        expression=f"histogram_quantile(0.99, sum by (store, le) (rate({durations}_bucket[5m]))) > {SLOW_S}",
        wait="10m",
        severity="ticket",
        what="1 % of the appends to {{ $labels.store }} take longer than {{ $value | humanizeDuration }}.",
        act="Compare with the time of commits: if that is long, the disk is slow; if not, too many callers wait.",
    )


def _of_files() -> Iterator[Rule]:
    yield Rule(
        name="DiskFull",
        expression=f"predict_linear({m('disk_free_bytes')}[6h], {FORECAST_DAYS} * 86400) < 0",
        wait="1h",
        severity="page",
        what=f"The disk of {{{{ $labels.store }}}} will be full within {FORECAST_DAYS} days.",
        act="Free space, or move the store to a larger disk: eventfold backup STORE PATH",
    )
    yield Rule(
        name="WalGrows",
        expression=f'max by (store) ({m("store_bytes")}{{part="wal"}}) > {WAL_BYTES}',
        wait="1h",
        severity="page",
        what="The write-ahead log of {{ $labels.store }} has {{ $value | humanize1024 }}B and does not shrink.",
        act="Find the process that keeps a read open: fuser STORE",
    )
    yield Rule(
        name="ClockAhead",
        expression=f"max by (store) ({m('head_timestamp_seconds')}) > time() + {AHEAD_S}",
        severity="ticket",
        what="The last event of {{ $labels.store }} was recorded in the future.",
        act="Compare the clocks of the machines that append; new events get this time until it has passed.",
    )


def _of_proofs() -> Iterator[Rule]:
    yield Rule(
        name="VerifyOld",
        expression=f"time() - max by (store, what) ({m('verify_timestamp_seconds')}) > {VERIFY_HOURS} * 3600",
        severity="ticket",
        what="The last verification of {{ $labels.what }} of {{ $labels.store }} is "
        "{{ $value | humanizeDuration }} old.",
        act="Run it, and see why its schedule does not: eventfold verify STORE --record",
    )
    yield Rule(
        name="VerifyFailed",
        expression=f"min by (store, what) ({m('verify_ok')}) == 0",
        severity="page",
        what="The last verification of {{ $labels.what }} of {{ $labels.store }} failed.",
        act="Keep a copy of the files as they are; see what differs: eventfold verify STORE",
    )
    yield Rule(
        name="EpochChanged",
        expression=f"changes({m('epoch')}[10m]) > 0",
        severity="ticket",
        what="The epoch of {{ $labels.store }} has changed: a backup was restored, or a failover took place.",
        act="Look what the last events are: eventfold read STORE --backwards --limit 10",
    )


WATCHDOG = Rule(
    name="Watchdog",
    expression="vector(1)",
    severity="none",
    what="This alert always fires. If its message stops, the alerting itself has failed.",
    act="Route it to a service that reports when it has not heard for a while.",
)


def rule_file(job: str = "eventfold") -> dict[str, Any]:
    """Return the content of a file of rules."""
    return {
        "groups": [
            {
                "name": "eventfold",
                "rules": [
                    {
                        "alert": each.alert,
                        "expr": each.expression,
                        **({} if each.wait == "0s" else {"for": each.wait}),
                        "labels": {"severity": each.severity},
                        "annotations": {"summary": each.what, "action": each.act},
                    }
                    for each in rules(job)
                ],
            }
        ]
    }


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
