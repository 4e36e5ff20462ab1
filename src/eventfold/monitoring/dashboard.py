"""The dashboard for Grafana: four rows of panels over metrics of the table, as the JSON that Grafana imports.

Knows: queries, and which panel is where. Does not know: Grafana's API, which Prometheus is asked.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from eventfold.monitoring.table import full_name as m

Row = Literal["Log", "Read models", "Processes", "Server"]
ROWS: tuple[Row, ...] = ("Log", "Read models", "Processes", "Server")
WIDTH, HEIGHT, COLUMNS = 8, 7, 3
OF_STORE = 'job="$job", store=~"$store"'
OF_MODEL = f'{OF_STORE}, projection=~"$projection"'
OF_SERVER = 'job="$job"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One panel: its title, and queries, each with the legend of its lines. `unit`: a unit of Grafana."""

    row: Row
    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    help: str = ""


def _rate(name: str, by: str, where: str = OF_STORE) -> str:
    return f"sum by ({by}) (rate({m(name)}{{{where}}}[$__rate_interval]))"


def _quantile(q: float, name: str, by: str = "store", where: str = OF_STORE) -> str:
    rate = f"rate({m(name)}_bucket{{{where}}}[$__rate_interval])"
    return f"histogram_quantile({q}, sum by ({by}, le) ({rate}))"


def _mean(name: str, by: str = "store", where: str = OF_STORE) -> str:
    rates = [f"sum by ({by}) (rate({m(name)}_{part}{{{where}}}[$__rate_interval]))" for part in ("sum", "count")]
    return " / ".join(rates)


def _max(name: str, by: str, where: str = OF_STORE) -> str:
    """The state of a store is the same in every process that shows it."""
    return f"max by ({by}) ({m(name)}{{{where}}})"


MODEL = "store, projection"
PANELS: tuple[Panel, ...] = (
    Panel(
        row="Log",
        title="Appends by outcome",
        queries=((_rate("appends_total", "store, outcome"), "{{store}} {{outcome}}"),),
        unit="reqps",
    ),
    Panel(
        row="Log",
        title="Events by type",
        queries=((_rate("events_appended_total", "type"), "{{type}}"),),
        unit="eps",
        help="The first 200 types, then other.",
    ),
    Panel(
        row="Log",
        title="Time of an append",
        queries=(
            (_quantile(0.5, "append_duration_seconds"), "{{store}} p50"),
            (_quantile(0.99, "append_duration_seconds"), "{{store}} p99"),
            (_quantile(0.99, "commit_duration_seconds"), "{{store}} commit p99"),
        ),
        unit="s",
    ),
    Panel(
        row="Log",
        title="Appends in a commit",
        queries=(
            (
                _mean("commit_requests"),
                "{{store}}",
            ),
        ),
    ),
    Panel(
        row="Log",
        title="Head",
        queries=((_max("head_position", "store"), "{{store}}"),),
        kind="stat",
    ),
    Panel(
        row="Log",
        title="Size and free space",
        queries=(
            (_max("store_bytes", "store, part"), "{{store}} {{part}}"),
            (_max("disk_free_bytes", "store"), "{{store}} free"),
        ),
        unit="bytes",
    ),
    Panel(
        row="Log",
        title="Attempts of a decision",
        queries=((_quantile(0.99, "decide_attempts", "decision"), "{{decision}} p99"),),
    ),
    Panel(
        row="Log",
        title="Time of a decision, and of a lock",
        queries=(
            (_quantile(0.99, "decide_duration_seconds", "decision"), "{{decision}} p99"),
            (_quantile(0.99, "lock_wait_seconds"), "{{store}} lock p99"),
        ),
        unit="s",
    ),
    Panel(
        row="Log",
        title="Events read",
        queries=((_rate("read_events_total", "store, kind"), "{{store}} {{kind}}"),),
        unit="eps",
    ),
    Panel(
        row="Log",
        title="Cache of states",
        queries=((_rate("state_cache_total", "store, result"), "{{store}} {{result}}"),),
        unit="ops",
    ),
    Panel(
        row="Log",
        title="Last verification, last backup",
        queries=(
            (f"time() - {_max('verify_timestamp_seconds', 'store, what')}", "{{store}} {{what}}"),
            (f"time() - {_max('backup_timestamp_seconds', 'store')}", "{{store}} backup"),
        ),
        unit="s",
    ),
    Panel(
        row="Log",
        title="Reading the state for these figures",
        queries=(
            (_max("scrape_duration_seconds", "store, instance"), "{{store}} {{instance}}"),
            (_max("scrape_error", "store, instance"), "{{store}} {{instance}} failed"),
        ),
        unit="s",
    ),
    Panel(
        row="Read models",
        title="State",
        queries=((_max("projection_state", f"{MODEL}, state", OF_MODEL), "{{projection}} {{state}}"),),
        kind="table",
    ),
    Panel(
        row="Read models",
        title="Events that wait",
        queries=((_max("projection_lag_events", MODEL, OF_MODEL), "{{projection}}"),),
    ),
    Panel(
        row="Read models",
        title="Age of the first event that waits",
        queries=((_max("projection_lag_seconds", MODEL, OF_MODEL), "{{projection}}"),),
        unit="s",
    ),
    Panel(
        row="Read models",
        title="Events per second",
        queries=((_max("projection_rate", MODEL, OF_MODEL), "{{projection}}"),),
        unit="eps",
    ),
    Panel(
        row="Read models",
        title="Parked and skipped events",
        queries=(
            (_max("projection_parked", MODEL, OF_MODEL), "{{projection}} parked"),
            (_max("projection_skipped", MODEL, OF_MODEL), "{{projection}} skipped"),
        ),
    ),
    Panel(
        row="Read models",
        title="Since the last sign of life",
        queries=((f"time() - {_max('projection_beat_timestamp_seconds', MODEL, OF_MODEL)}", "{{projection}}"),),
        unit="s",
    ),
    Panel(
        row="Read models",
        title="Time per event of the slowest handler",
        queries=((_max("projection_handler_seconds", f"{MODEL}, handler", OF_MODEL), "{{projection}} {{handler}}"),),
        unit="s",
    ),
    Panel(
        row="Read models",
        title="Events that wait for followers",
        queries=((_max("follower_lag_events", "store, name"), "{{name}}"),),
    ),
    Panel(
        row="Read models",
        title="Alerts on events",
        queries=((_max("alerts", "store, alert, severity, state"), "{{alert}} {{state}}"),),
    ),
    Panel(
        row="Processes",
        title="Stuck instances",
        queries=((_max("process_stuck", "store, process"), "{{process}}"),),
    ),
    Panel(
        row="Processes",
        title="Timers",
        queries=(
            (_max("process_timers", "store, process"), "{{process}}"),
            (_max("process_timers_overdue", "store, process"), "{{process}} overdue"),
        ),
    ),
    Panel(
        row="Processes",
        title="Delay of the oldest timer that is due",
        queries=((_max("process_timer_delay_seconds", "store, process"), "{{process}}"),),
        unit="s",
    ),
    Panel(
        row="Processes",
        title="Events that wait for effects",
        queries=((_max("effects_undelivered", "store, effect"), "{{effect}}"),),
    ),
    Panel(
        row="Processes",
        title="Calls of effects",
        queries=((_rate("effect_attempts_total", "effect, outcome"), "{{effect}} {{outcome}}"),),
        unit="ops",
    ),
    Panel(
        row="Server",
        title="Requests by status",
        queries=((_rate("http_requests_total", "status", OF_SERVER), "{{status}}"),),
        unit="reqps",
    ),
    Panel(
        row="Server",
        title="Time of a request",
        queries=((_quantile(0.99, "http_request_duration_seconds", "route", OF_SERVER), "{{route}} p99"),),
        unit="s",
    ),
    Panel(
        row="Server",
        title="Live streams",
        queries=(
            (f"sum by (instance) ({m('streams')}{{{OF_SERVER}}})", "{{instance}}"),
            (_rate("streams_dropped_total", "reason", OF_SERVER), "dropped: {{reason}}"),
        ),
    ),
    Panel(
        row="Server",
        title="Refused calls",
        queries=(
            (_rate("auth_refused_total", "reason", OF_SERVER), "{{reason}}"),
            (_rate("rate_limited_total", "instance", OF_SERVER), "too many calls"),
        ),
        unit="reqps",
    ),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it (Dashboards, New, Import), for Grafana 10 and later."""
    return {
        "title": "eventfold",
        "uid": "eventfold",
        "tags": ["eventfold"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": list(_panels()),
    }


def _variables() -> list[dict[str, Any]]:
    head, lag = m("head_position"), m("projection_lag_events")
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        _variable("job", "Job", f"label_values({head}, job)"),
        _variable("store", "Store", f'label_values({head}{{job="$job"}}, store)', several=True),
        _variable(
            "projection", "Read model", f'label_values({lag}{{job="$job", store=~"$store"}}, projection)', several=True
        ),
    ]


def _variable(name: str, label: str, query: str, *, several: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        **({"allValue": ".*", "current": {"text": "All", "value": "$__all"}} if several else {}),
    }


def _panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    top = 0
    for row in ROWS:
        of_row = [panel for panel in PANELS if panel.row == row]
        place = {"x": 0, "y": top, "w": WIDTH * COLUMNS, "h": 1}
        found.append(
            {"id": len(found) + 1, "type": "row", "title": row, "collapsed": False, "panels": [], "gridPos": place}
        )
        top += 1
        for index, panel in enumerate(of_row):
            line, column = divmod(index, COLUMNS)
            place = {"x": column * WIDTH, "y": top + line * HEIGHT, "w": WIDTH, "h": HEIGHT}
            found.append({"id": len(found) + 1, "gridPos": place, **_panel(panel)})
        top += -(-len(of_row) // COLUMNS) * HEIGHT
    return found


def _panel(panel: Panel) -> dict[str, Any]:
    instant = panel.kind == "table"
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": instant,
                "range": not instant,
                **({"format": "table"} if instant else {}),
            }
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }
