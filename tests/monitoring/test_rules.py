"""The alert rules: promtool accepts them, each fires on a made series, and does not on one that is in order."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from eventfold.cli import app
from eventfold.monitoring.dashboard import PANELS, ROWS, dashboard
from eventfold.monitoring.rules import Rule, rule_file, rules
from eventfold.monitoring.table import BY_NAME, METRICS
from tests.cli.commands import run
from tests.support.programs import find_program, needs_program

needs_promtool = needs_program("promtool", "prometheus")
BANK, MODEL, PROCESS = 'store="bank"', 'store="bank", projection="Balance"', 'store="bank", process="Payment"'
Series = dict[str, str]


class Case(NamedTuple):
    """Series after which a rule fires at `at`, with these labels; and series with which it does not."""

    fires: Series
    quiet: Series
    at: str
    labels: dict[str, str]


def one(name: str, labels: str, fires: str, quiet: str, at: str, **others: str) -> Case:
    """A rule over one series."""
    series = f"eventfold_{name}{{{labels}}}"
    found = dict(re.findall(r'(\w+)="([^"]*)"', labels)) | others
    return Case({series: fires}, {series: quiet}, at, {key: value for key, value in found.items() if value})


DURATION = "eventfold_append_duration_seconds_bucket"


def durations(slow: int) -> Series:
    """A minute with 100 appends, `slow` of which took longer than 0.25 s."""
    return {
        f'{DURATION}{{{BANK}, le="0.25"}}': f"0+{100 - slow}x20",
        f'{DURATION}{{{BANK}, le="0.5"}}': "0+100x20",
        f'{DURATION}{{{BANK}, le="+Inf"}}': "0+100x20",
    }


def outcomes(conflict: int) -> Series:
    """A minute with 100 appends, `conflict` of which met a conflict."""
    return {
        f'eventfold_appends_total{{{BANK}, outcome="written"}}': f"0+{100 - conflict}x30",
        f'eventfold_appends_total{{{BANK}, outcome="conflict"}}': f"0+{conflict}x30",
    }


def behind(lag: str, state: str) -> Series:
    """A read model that gave its last sign of life at 0, in a state."""
    return {
        f"eventfold_projection_lag_events{{{MODEL}}}": lag,
        f"eventfold_projection_beat_timestamp_seconds{{{MODEL}}}": "0+0x20",
        f'eventfold_projection_state{{{MODEL}, state="{state}"}}': "1+0x20",
    }


OF_BANK, OF_MODEL = {"store": "bank"}, {"store": "bank", "projection": "Balance"}
STOPPED = f'{MODEL}, state="stopped"'
CASES: dict[str, Case] = {
    "Down": Case(
        {'up{job="eventfold", instance="a:1"}': "0+0x5"},
        {'up{job="eventfold", instance="a:1"}': "1 0 1 0 1 0", 'up{job="other", instance="b:1"}': "0+0x5"},
        "5m",
        {"job": "eventfold", "instance": "a:1"},
    ),
    "NoScrape": one("scrape_error", f'{BANK}, instance="a:1"', "1+0x5", "1 0 1 0 1 0", "5m"),
    "ProjectionStopped": one("projection_state", STOPPED, "0 1", "1 0", "1m", state=""),
    "ProjectionLosing": one("projection_lag_seconds", MODEL, "0+30x30", "900-30x30", "25m"),
    "ProjectionIdle": Case(behind("5+0x20", "idle"), behind("5+0x20", "paused"), "10m", OF_MODEL),
    "Parked": one("projection_parked", MODEL, "1+0x20", "1+0x10 0+0x10", "16m"),
    "ProcessStuck": one("process_stuck", PROCESS, "1+0x6", "0+0x6", "6m"),
    "TimersOverdue": one("process_timer_delay_seconds", PROCESS, "61+60x6", "59+0x6", "6m"),
    "EffectsUndelivered": one("effects_undelivered", f'{BANK}, effect="mail"', "2+0x6", "2 0 2 0 2 0 2", "6m"),
    "Unconfirmed": one("appends_total", f'{BANK}, outcome="unconfirmed"', "0+0x5 1+0x5", "3+0x10", "10m", outcome=""),
    "Conflicts": Case(outcomes(30), outcomes(10), "25m", OF_BANK),
    "AppendSlow": Case(durations(2), durations(0), "18m", OF_BANK),
    "DiskFull": one("disk_free_bytes", BANK, "1000000-2000x400", "1000000-1x400", "390m"),
    "WalGrows": one("store_bytes", f'{BANK}, part="wal"', "2e9+0x70", "0.5e9+0x70", "65m", part=""),
    "ClockAhead": one("head_timestamp_seconds", BANK, "70+60x5", "4+60x5", "1m"),
    "VerifyOld": one("verify_timestamp_seconds", f'{BANK}, what="log"', "0+0x3000", "0+60x3000", "2910m"),
    "VerifyFailed": one("verify_ok", f'{BANK}, what="log"', "1 0", "0 1", "1m"),
    "EpochChanged": one("epoch", BANK, "1 1 2", "2 2 2", "2m"),
    "Watchdog": Case({}, {}, "0m", {}),
}


def promtool(*words: str, input: str | None = None, folder: Path | None = None) -> str:
    """Run promtool, which must succeed. Returns what it prints."""
    program = find_program("promtool")
    assert program is not None
    done = subprocess.run([program, *words], input=input, capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def alerts_test(name: str, series: Series, at: str, labels: dict[str, str] | None, severity: str) -> dict[str, Any]:
    """A test of promtool: whether the alert fires at a time, with these labels; None: it does not."""
    alert = f"Eventfold{name}"
    expected = {"alertname": alert, "alertstate": "firing", "severity": severity} | (labels or {})
    text = ", ".join(f"{key}={json.dumps(value)}" for key, value in expected.items())
    samples = [] if labels is None else [{"labels": f"ALERTS{{{text}}}", "value": 1}]
    return {
        "interval": "1m",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [
            {"expr": f'ALERTS{{alertname="{alert}", alertstate="firing"}}', "eval_time": at, "exp_samples": samples}
        ],
    }


def test_every_rule_has_a_case() -> None:
    """A new rule is tested."""
    assert [each.name for each in rules()] == list(CASES)


@needs_promtool
def test_promtool_accepts_the_file_of_rules(tmp_path: Path) -> None:
    """The file that the command prints is valid, templates of its annotations included."""
    (tmp_path / "rules.yml").write_text(run("alert-rules", "--job", 'a "job"').out)
    assert f"{len(CASES)} rules found" in promtool("check", "rules", "rules.yml", folder=tmp_path)


@needs_promtool
def test_each_rule_fires_when_it_should_and_not_before(tmp_path: Path) -> None:
    """Made series for each rule: one after which it fires, and one that is in order."""
    for long in (False, True):
        tests: list[dict[str, Any]] = []
        for rule in rules():
            case = CASES[rule.name]
            if (len(case.at) > 3) is long:
                tests += cases_of(rule, case)
        check_rules(tmp_path, tests, "30m" if long else "1m")  # to evaluate two days each minute would take long


def cases_of(rule: Rule, case: Case) -> list[dict[str, Any]]:
    """The tests of one rule: it fires, not before its time, and not on the other series."""
    found = [alerts_test(rule.name, case.fires, case.at, case.labels, rule.severity)]
    if rule.name != "Watchdog":
        found.append(alerts_test(rule.name, case.quiet, case.at, None, rule.severity))
    if rule.wait != "0s":
        found.append(alerts_test(rule.name, case.fires, "0m", None, rule.severity))
    return found


def check_rules(folder: Path, tests: list[dict[str, Any]], every: str = "1m") -> None:
    """Let promtool run tests over the rules that the command prints."""
    (folder / "rules.yml").write_text(run("alert-rules").out)
    settings = {"rule_files": ["rules.yml"], "evaluation_interval": every, "tests": tests}
    (folder / "tests.yml").write_text(json.dumps(settings))
    assert "SUCCESS" in promtool("test", "rules", "tests.yml", folder=folder)


@needs_promtool
def test_stopped_and_paused_models_do_not_also_count_as_losing_or_idle(tmp_path: Path) -> None:
    """One cause is one alert: a read model that has stopped falls behind, of course."""
    series = behind("0+9x30", "stopped") | {f"eventfold_projection_lag_seconds{{{MODEL}}}": "0+60x30"}
    tests = [alerts_test(name, series, "25m", None, "page") for name in ("ProjectionLosing", "ProjectionIdle")]
    check_rules(tmp_path, tests)


def names_in(text: str) -> set[str]:
    """The names of metrics in a query, without the suffixes of a histogram's series."""
    found: set[str] = set()
    for name in re.findall(r"\beventfold_(\w+)", text):
        histogram = re.sub(r"_(bucket|sum|count)$", "", name)
        found.add(histogram if BY_NAME.get(histogram) and BY_NAME[histogram].kind == "histogram" else name)
    return found


def test_every_metric_of_the_dashboard_and_of_the_rules_exists() -> None:
    """And each label of a query is one of the metric, of the target, or of a histogram."""
    known = {"job", "instance", "le"} | {label for each in METRICS for label in each.all_labels}
    queries = [query for panel in PANELS for query, _ in panel.queries] + [each.expression for each in rules()]
    assert len(queries) > 50
    for query in queries:
        assert names_in(query) <= BY_NAME.keys(), query
        labels = re.findall(r"(\w+)\s*(?:=~|!=|=)\s*\"", query)
        for group in re.findall(r"by \(([^)]*)\)", query):
            labels += [each.strip() for each in group.split(",")]
        assert set(labels) <= known, query
        assert '"$job"' in query or not query.count("$")


def test_every_metric_is_in_the_dashboard() -> None:
    """A metric without a panel is of little use; build_info, position and generation are for queries."""
    shown = names_in(json.dumps(dashboard()))
    rest = {"build_info", "epoch", "head_timestamp_seconds", "projection_position", "projection_generation"}
    rest |= {"projection_oldest_parked_seconds", "read_duration_seconds", "followers", "verify_ok"}
    assert BY_NAME.keys() - shown == rest


def test_the_dashboard_has_four_rows_and_its_variables_and_no_panels_overlap() -> None:
    """What Grafana imports: rows, variables in their order, panels with ids of their own, side by side."""
    found = json.loads(run("grafana").out)
    assert [each["title"] for each in found["panels"] if each["type"] == "row"] == list(ROWS)
    assert [each["name"] for each in found["templating"]["list"]] == ["datasource", "job", "store", "projection"]
    assert len({each["id"] for each in found["panels"]}) == len(found["panels"]) == len(PANELS) + len(ROWS)
    taken: set[tuple[int, int]] = set()
    for each in found["panels"]:
        place = each["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, each["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("each", rules(), ids=lambda each: each.name)
def test_the_commands_that_an_alert_names_exist(each: Any) -> None:
    """An operator types them in a hurry."""
    import typer.main

    group = typer.main.get_command(app)
    for words in re.findall(r"eventfold ((?:[a-z-]+ )+)", each.act):
        command: Any = group
        for word in words.split():
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, each.act
            command = command.commands[word]
        assert not hasattr(command, "commands") or command.invoke_without_command, each.act
    for option in re.findall(r"--[a-z-]+", each.act):
        assert option in Path("docs/reference/cli.md").read_text()


def test_a_file_of_rules_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """The YAML is as strict as JSON: every text is quoted."""
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(run("alert-rules", "--job", "shop: x").out) == rule_file("shop: x")
