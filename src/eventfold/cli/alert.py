"""`eventfold alert list`, `show`, `test`, `replay`, `ack`, `snooze` and `retire`: for the person on call.

Knows: flags, what is printed. Does not know: rules, facts, how messages are sent.
"""

from __future__ import annotations

import getpass
import inspect
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventfold.alerts.episode_view import episode_view, state_of
from eventfold.cli.command import Command, Group, help_text
from eventfold.cli.exit_codes import print_note
from eventfold.cli.formatting import escape_control
from eventfold.cli.options import Json, Target, Url, Wide, open_store, parse_since, split_store_argument
from eventfold.cli.output import Column, Output, progress_bar
from eventfold.cli.run import import_projections, stop_on_signals
from eventfold.cli.state import ImportPath
from eventfold.core.counted import count_of
from eventfold.core.envelope import from_micros
from eventfold.core.moments import AGO_PATTERN, AGO_UNITS, parse_time
from eventfold.core.store_address import StoreAddress
from eventfold.errors import EventfoldError, InvalidInput, NotSupported
from eventfold.store import Store

if TYPE_CHECKING:
    from eventfold.alerts.classes import Alert
    from eventfold.alerts.delivery import Delivery
    from eventfold.alerts.delivery.checks import Finding
    from eventfold.alerts.delivery.undelivered import TargetStatus
    from eventfold.alerts.facts import Episode, OpenEpisodes

RATE = re.compile(r"(\d+(?:\.\d+)?)/(\d{0,6}) ?(s|m|h|d|w)")
EPISODES = (
    Column("alert", style="bold", elastic=True, min_width=8),
    Column("key", style="green", elastic=True, min_width=6),
    Column("state"),
    Column("since"),
    Column("reason", elastic=True, min_width=16),
)
FINDINGS = (
    Column("name", style="bold", elastic=True, min_width=8),
    Column("kind"),
    Column("result", elastic=True, min_width=20),
)

alert = typer.Typer(name="alert", cls=Group, help="Alerts: what is wrong, who knows of it.", no_args_is_help=True)

Name = Annotated[
    str | None, typer.Argument(metavar="ALERT", help="The name of an alert, as `list` shows it.", show_default=False)
]
Key = Annotated[str | None, typer.Argument(metavar="KEY", help="A key, as `list` shows it.", show_default=False)]
Limit = Annotated[int, typer.Option("--limit", min=1, metavar="N", help="At most N episodes.")]
Lasts = Annotated[
    str,
    typer.Option("--for", metavar="TIME", help="How long: 30m, 4h, 2d; or a moment: 2030-01-31T10:15Z."),
]
Because = Annotated[str, typer.Option("--because", metavar="WHY", help="The reason, which the log keeps.")]
Actor = Annotated[
    str | None,
    typer.Option("--actor", metavar="WHO", help="Who. Default: the user of this login.", show_default=False),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="A TOML file with targets, in tables deliver.NAME.", show_default=False
    ),
]


def list_alerts(
    url: Url = None,
    name: Name = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that are cleared.")] = False,
    limit: Limit = 100,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """List what is raised now, newest first, and what was not delivered to a target."""
    url, others = split_store_argument(url, [] if name is None else [name])
    output = Output(as_json, wide)
    with open_store(url) as store:
        found = store.alerts.list(others[0] if others else None, open_only=not every, limit=limit)
        states, targets = store.alerts.open(), _targets_known_here(store)
        address = store.projections.catalog.address
    _print_episodes(output, found, states, "Nothing is raised." if not every else "Nothing was ever raised.")
    if output.is_json:
        return
    if targets is None:
        output.print_hint("What was not delivered is not known here: ask on the machine of the runner or the server.")
    else:
        _print_undelivered(output, targets, address)


def show(
    url: Url = None,
    name: Name = None,
    key: Key = None,
    limit: Limit = 20,
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Show the episodes of an alert, or of one key of it, newest first: each in full."""
    url, others = split_store_argument(url, [each for each in (name, key) if each is not None], needed=1)
    if not others:
        raise typer.BadParameter("name an alert.", param_hint="ALERT")
    output = Output(as_json, wide)
    with open_store(url) as store:
        found = store.alerts.show(others[0], others[1] if len(others) > 1 else None, limit=limit)
        states = store.alerts.open()
    if output.is_json or not found:
        _print_episodes(output, found, states, f"{others[0]} was never raised.")
        return
    for each in found:
        _print_episode(output, each, states)


def targets(url: Url = None, target: Target = None, as_json: Json = None, wide: Wide = False) -> None:
    """List the targets to which messages are delivered, and what was not delivered."""
    output = Output(as_json, wide)
    with open_store(split_store_argument(url, [])[0], target=target) as store:
        found, address = store.alerts.targets(), store.projections.catalog.address
    if output.is_json:
        for each in found:
            output.write_value(_status_json(each))
        return
    if not found:
        output.print_hint("No target was run on this store: give one to `eventfold run`, or to store.run(…).")
        return
    columns = (
        Column("target", style="bold"),
        Column("failed", align_right=True),
        Column("waiting", align_right=True),
        Column("runs"),
        Column("error", elastic=True, min_width=20),
    )
    rows = [
        (each.name, f"{each.failed:,}", f"{each.waiting:,}", "yes" if each.runs else "no", escape_control(each.error))
        for each in found
    ]
    output.print_table(columns, rows)
    _print_undelivered(output, found, address)


def test(
    url: Url = None,
    codes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODULE:NAME…", help="Alerts and deliveries: names, lists or modules.", show_default=False
        ),
    ] = None,
    config: Config = None,
    import_path: ImportPath = ".",
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Check alerts against the log, and send a test message to each target.

    Finds a rule that can never fire, an event or a field that the log does not have, two of one name, and a target that
    refuses. The name of an alert that was run on the store may be given instead of MODULE:NAME. Exits with 1 if a check
    fails.
    """
    url, others = split_store_argument(url, codes or [], needed=1)
    output = Output(as_json, wide)
    import_projections([], import_path)
    from eventfold.alerts.delivery.checks import check

    with open_store(url) as store:
        alerts, deliveries = _load(store, others)
        if config is not None:
            from eventfold.alerts.delivery.settings import deliveries_of

            deliveries += deliveries_of(config)
        if not alerts and not deliveries:
            raise typer.BadParameter("name alerts or deliveries: MODULE:NAME, or --config.", param_hint="MODULE:NAME")
        found = check(store.projections.log, alerts, deliveries)
    _print_findings(output, found)
    failed = [each for each in found if not each.is_fine]
    if failed:
        raise EventfoldError(
            f"{count_of(len(failed), 'check')} of {len(found)} failed: {', '.join(each.name for each in failed[:5])}.",
            "Correct what the output names, and run it again.",
            failed=[each.name for each in failed],
        )


def replay(
    url: Url = None,
    code: Annotated[
        str | None, typer.Argument(metavar="MODULE:NAME", help="A class of an alert.", show_default=False)
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="From then on: 90d, or a time.", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Up to then, inclusive.", show_default=False)
    ] = None,
    import_path: ImportPath = ".",
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """List what an alert would have raised over the past, oldest first. Nothing is written, no message is sent."""
    url, others = split_store_argument(url, [] if code is None else [code], needed=1)
    output = Output(as_json, wide)
    import_projections([], import_path)
    begin, end = parse_since(since), None if until is None else parse_time(until, end_of_day=True)
    with open_store(url) as store:
        alerts, _ = _load(store, others)
        if len(alerts) != 1:
            raise typer.BadParameter("name one class of an alert.", param_hint="MODULE:NAME")
        with progress_bar(output, "replay") as report:
            found = store.alerts.replay(alerts[0], since=begin, until=end, progress=report)
    if output.is_json:
        for each in found:
            output.write_value(episode_view(each, "raised" if each.is_open else "cleared"))
        return
    if not found:
        output.print_hint("It would have raised nothing.")
        return
    rows = [_episode_row(each, _lasted(each)) for each in found]
    output.print_table(
        tuple(each._replace(title="lasted") if each.title == "state" else each for each in EPISODES), rows
    )
    keys = len({each.key for each in found})
    of_keys = f" of {count_of(keys, 'key')}" if keys > 1 else ""
    output.print_hint(f"{count_of(len(found), 'episode')}{of_keys} would have been raised.")


def ack(
    url: Url = None,
    name: Name = None,
    key: Key = None,
    lasts: Lasts = "4h",
    because: Because = "working on it",
    actor: Actor = None,
    as_json: Json = None,
) -> None:
    """Acknowledge an open episode: you work on it, and no reminder is sent until the time ends."""
    url, others = split_store_argument(url, [each for each in (name, key) if each is not None], needed=1)
    if not others:
        raise typer.BadParameter("name an alert.", param_hint="ALERT")
    who, end = actor or _login(), parse_end(lasts)
    with open_store(url) as store:
        text = others[1] if len(others) > 1 else _only_key(store, others[0])
        store.alerts.acknowledge(others[0], text, until=end, because=because, actor=who)
    _print_noted(Output(as_json), "acknowledged", others[0], text, who, end, because, actor is None)


def snooze(
    url: Url = None,
    name: Name = None,
    key: Key = None,
    lasts: Lasts = "4h",
    because: Because = "",
    actor: Actor = None,
    as_json: Json = None,
) -> None:
    """Send no messages about a key, or about a whole alert, until the time ends. --because is required."""
    url, others = split_store_argument(url, [each for each in (name, key) if each is not None], needed=1)
    if not others:
        raise typer.BadParameter("name an alert.", param_hint="ALERT")
    if not because.strip():
        raise typer.BadParameter('say why: --because "the bank is down".', param_hint="--because")
    who, end = actor or _login(), parse_end(lasts)
    text = others[1] if len(others) > 1 else None
    with open_store(url) as store:
        store.alerts.snooze(others[0], text, until=end, because=because, actor=who)
    _print_noted(Output(as_json), "snoozed", others[0], text, who, end, because, actor is None)


def retire(
    url: Url = None,
    name: Name = None,
    because: Because = "",
    actor: Actor = None,
    as_json: Json = None,
) -> None:
    """End the open episodes of an alert that is run no more, and its reminders. --because is required.

    Stop running it and remove its rows first: `eventfold projections remove`. Targets send that the episodes ended.
    """
    url, others = split_store_argument(url, [] if name is None else [name], needed=1)
    if not others:
        raise typer.BadParameter("name an alert.", param_hint="ALERT")
    if not because.strip():
        raise typer.BadParameter('say why: --because "replaced by busy_hours".', param_hint="--because")
    output = Output(as_json)
    with open_store(url) as store:
        ended = store.alerts.retire(others[0], because=because, actor=actor or _login())
    if output.is_json:
        output.write_value({"alert": others[0], "ended": ended})
    else:
        output.print(f"{escape_control(others[0])} is retired: {count_of(len(ended), 'open episode')} ended.")


def watch(
    url: Url = None,
    filter: Annotated[
        str | None,
        typer.Argument(metavar="FILTER", help="Such as 'type:PaymentDeclined data.amount>1000'.", show_default=False),
    ] = None,
    rate: Annotated[
        str, typer.Option("--rate", metavar="N/TIME", help="Raise it at more than N within a time: 20/5m.")
    ] = "",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The name of the alert.")] = "ad_hoc",
    severity: Annotated[str, typer.Option("--severity", metavar="SEVERITY", help="page or ticket.")] = "page",
    config: Config = None,
    target: Target = None,
) -> None:
    """Watch events by a filter, without a class, until Ctrl-C: an alert is raised at more than N within a time.

    It is listed, acknowledged and delivered as every alert is: to the targets of --config, else as lines of this
    terminal. It counts the events of the last window when it starts.
    """
    url, others = split_store_argument(url, [] if filter is None else [filter], needed=1)
    if not others:
        raise typer.BadParameter("say which events.", param_hint="FILTER")
    found = RATE.fullmatch(rate.strip())
    if found is None:
        raise typer.BadParameter("write --rate 20/5m: more than 20 within 5 minutes.", param_hint="--rate")
    if severity not in ("page", "ticket"):
        raise typer.BadParameter("write page or ticket.", param_hint="--severity")
    from eventfold.alerts import delivery
    from eventfold.alerts.delivery.settings import deliveries_of
    from eventfold.alerts.filter_alert import FilterAlert

    per = timedelta(**{AGO_UNITS[found[3]]: int(found[2] or 1)})
    watched = FilterAlert(name, others[0], float(found[1]), per, "page" if severity == "page" else "ticket")
    targets = deliveries_of(config) if config is not None else [delivery.log(name="terminal", group=1, group_page=0)]
    stop = stop_on_signals()
    with open_store(url, target=target, creates_target=True) as store:
        store.search(others[0]).explain()  # a filter that cannot be parsed is named before anything runs
        with store.run(watched, *targets) as running:
            print_note(
                f"{name} is watched: more than {found[1]} within {found[2] or 1}{found[3]}. Press Ctrl-C to stop."
            )
            while not stop.wait(0.2) and running.running:
                continue
        for error in running.failed.values():
            raise error


COMMANDS = (
    ("list", list_alerts),
    ("show", show),
    ("targets", targets),
    ("test", test),
    ("replay", replay),
    ("ack", ack),
    ("snooze", snooze),
    ("retire", retire),
    ("watch", watch),
)
for _name, _command in COMMANDS:
    alert.command(_name, cls=Command, help=help_text(_command.__doc__))(_command)


def parse_end(text: str) -> datetime:
    """A moment in the future: a duration from now, or a time. Raises InvalidInput."""
    now = datetime.now(UTC)
    if found := AGO_PATTERN.fullmatch(text.strip()):
        end = now + timedelta(**{AGO_UNITS[found[2]]: int(found[1])})
    else:
        end = parse_time(text, end_of_day=True)
    if end <= now:
        raise InvalidInput(
            f"{text[:60]!r} has passed already.", "Give a duration, such as 4h, or a time in the future."
        )
    return end


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user with a number only
        raise InvalidInput("The user of this login has no name.", "Say who acts: --actor NAME.") from None


def _only_key(store: Store, name: str) -> str:
    """The key of the only open episode of an alert. Raises InvalidInput where several are open."""
    keys = [each.key for each in store.alerts.list(name)]
    if len(keys) > 1:
        raise InvalidInput(
            f"{name} is raised for {len(keys)} keys.",
            f"Name one: {', '.join(escape_control(key) for key in keys[:5])}.",
        )
    return keys[0] if keys else ""


def _targets_known_here(store: Store) -> list[TargetStatus] | None:
    """The targets that were run on the store; None for one behind HTTP, whose progress is elsewhere."""
    try:
        return store.alerts.targets()
    except NotSupported:
        return None


def _load(store: Store, names: Sequence[str]) -> tuple[list[type[Alert]], list[Delivery]]:
    """The alerts and deliveries of addresses and names. Raises InvalidProjection, InvalidInput."""
    from eventfold.alerts.classes import Alert
    from eventfold.alerts.delivery import Delivery
    from eventfold.processes.work import load

    try:
        code_of = {each.name: each.code for each in store.projections.catalog.target_at().records()}
    except NotSupported:  # a store behind HTTP: which code runs on it is known where it runs
        code_of = {}
    found: list[Any] = [each for name in names for each in load(code_of.get(name, name))]
    alerts = [each for each in found if inspect.isclass(each) and issubclass(each, Alert)]
    return alerts, [each for each in found if isinstance(each, Delivery)]


def _print_episodes(output: Output, found: Sequence[Episode], states: OpenEpisodes, nothing: str) -> None:
    now = int(datetime.now(UTC).timestamp() * 1e6)
    if output.is_json:
        for each in found:
            output.write_value(episode_view(each, state_of(each, states, now)))
        return
    if not found:
        output.print_hint(nothing)
        return
    output.print_table(EPISODES, [_episode_row(each, state_of(each, states, now)) for each in found])


def _print_episode(output: Output, each: Episode, states: OpenEpisodes) -> None:
    now = int(datetime.now(UTC).timestamp() * 1e6)
    state = state_of(each, states, now)
    output.print(f"{escape_control(f'{each.alert} {each.key}'.rstrip())}: {state}", style="bold")
    lines = [f"{_second(each.at)} raised ({each.severity}): {each.reason}"]
    if each.acknowledged is not None:
        note = each.acknowledged
        lines.append(f"acknowledged by {note.actor} until {_second(note.until)}: {note.because}")
    if (note := states.snooze_of(each.alert, each.key, now)) is not None:
        lines.append(f"snoozed by {note.actor} until {_second(note.until)}: {note.because}")
    if each.cleared_at is not None:
        lines.append(f"{_second(each.cleared_at)} cleared: {each.cleared_because}")
    for line in [*lines, f"episode {each.episode}, position {each.position:,}"]:
        output.print(f"  {escape_control(line)}")


def _episode_row(each: Episode, state: str) -> tuple[str, str, str, str, str]:
    return each.alert, escape_control(each.key), state, _minute(each.at), escape_control(each.reason)


def _status_json(each: TargetStatus) -> dict[str, Any]:
    return {
        "target": each.name,
        "failed": each.failed,
        "waiting": each.waiting,
        "runs": each.runs,
        "since": _iso(each.since) if each.since else None,
        "error": each.error or None,
        "attempts": each.attempts,
    }


def _print_undelivered(output: Output, found: Sequence[TargetStatus], address: StoreAddress) -> None:
    for each in found:
        if not each.failed:
            continue
        output.print(
            f"\n{each.name}: {count_of(each.failed, 'message')} not delivered since {_minute(each.since)}, tried "
            f"{count_of(each.attempts, 'time')}: {escape_control(each.error)}",
            style="red",
        )
        retry = address.in_text(f"eventfold processes STORE --retry {each.progress}")
        output.print_hint(f"It is tried again. At once: {retry}")


def _print_findings(output: Output, found: Sequence[Finding]) -> None:
    if output.is_json:
        for each in found:
            output.write_value(
                {"name": each.name, "kind": each.kind, "ok": each.is_fine, "about": each.about, "problem": each.problem}
            )
        return
    from rich.padding import Padding
    from rich.text import Text

    for each in found:
        mark, style = ("ok   ", "green") if each.is_fine else ("FAILS", "red")
        about = f"watches {each.about}" if each.kind == "alert" and each.about else each.about
        output.print(
            f"{mark} {each.kind if each.kind != 'all' else ''} {escape_control(each.name)}".rstrip(), style=style
        )
        if text := each.problem or about:
            output.print(Padding(Text(escape_control(text)), (0, 0, 0, 6)))


def _print_noted(
    output: Output, state: str, name: str, key: str | None, who: str, end: datetime, because: str, is_login: bool
) -> None:
    until = end.isoformat(timespec="seconds").replace("+00:00", "Z")
    if output.is_json:
        output.write_value(
            {"alert": name, "key": key, "state": state, "actor": who, "until": until, "because": because}
        )
        return
    what = f"{name} {key}".rstrip() if key else name
    by = f"{who} (the user of this login; --actor names another)" if is_login else who
    output.print(f"{escape_control(what)} is {state} until {until} by {escape_control(by)}.")


def _lasted(each: Episode) -> str:
    from eventfold.alerts.delivery.message import span

    return "to the end" if each.cleared_at is None else span(each.cleared_at - each.at)


def _minute(micros: int) -> str:
    return f"{from_micros(micros):%Y-%m-%d %H:%M}Z"


def _second(micros: int) -> str:
    return f"{from_micros(micros):%Y-%m-%d %H:%M:%S}Z"


def _iso(micros: int) -> str:
    return from_micros(micros).isoformat().replace("+00:00", "Z")
