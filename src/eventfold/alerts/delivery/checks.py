"""What `eventfold alert test` finds: a rule that can never fire, a field that no event has, a target that refuses.

Knows: classes of alerts, their source, the events of the log. Does not know: terminals, how a rule is folded.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import msgspec

from eventfold.alerts.classes import Alert
from eventfold.alerts.delivery.delivery import Delivery
from eventfold.alerts.delivery.target import RETRIED
from eventfold.concurrency import run
from eventfold.core.event import declaration_of, stored_names_of
from eventfold.core.query import Item, Query
from eventfold.errors import DeliveryFailed, EventfoldError
from eventfold.log.context import Log
from eventfold.ports.messages import Span
from eventfold.projections.definition import projection_definition

SAMPLE = 100  # newest events of a type that are looked at


class Finding(msgspec.Struct, frozen=True):
    """The result of one check. `problem`: what is wrong and what to do, "" if nothing is."""

    name: str
    kind: Literal["alert", "target", "all"]
    about: str
    problem: str = ""

    @property
    def is_fine(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problem


def check(log: Log, alerts: Sequence[type[Alert]], deliveries: Sequence[Delivery]) -> list[Finding]:
    """Check rules and send a test message to each target. Returns what was found, rules first."""
    found = [each for alert in alerts for each in check_rule(log, alert)]
    found += _same_names("alert", [_name_of(each) for each in alerts])
    found += _same_names("target", [each.name for each in deliveries])
    found += [check_target(each) for each in deliveries]
    for delivery in deliveries:
        found += _unknown_alerts(delivery, [_name_of(each) for each in alerts])
    if not deliveries:
        problem = "No target is configured: no person hears of an alert. Name a module with deliveries, or --config."
        found.append(Finding("targets", "all", "", problem))
    return found


def check_target(delivery: Delivery) -> Finding:
    """Send a test message to a target."""
    try:
        delivery.send_test()
    except DeliveryFailed as error:
        remedy = "" if error.remedy == RETRIED else f" {error.remedy}"
        return Finding(delivery.name, "target", delivery.description, f"{error.what}{remedy}")
    return Finding(delivery.name, "target", delivery.description)


def check_rule(log: Log, alert: type[Alert]) -> list[Finding]:
    """Check one rule: whether it can fire, and whether the log has the events and the fields that it reads."""
    name = _name_of(alert)
    try:
        definition = projection_definition(alert)
    except EventfoldError as error:
        return [Finding(name, "alert", "", str(error))]
    about = ", ".join(declaration_of(each).type for each in definition.events)
    problems = [*_fields_of_no_class(alert, definition.events), *_what_the_log_lacks(log, alert, definition.events)]
    return [Finding(name, "alert", about, problem) for problem in problems] or [Finding(name, "alert", about)]


def _name_of(alert: type[Alert]) -> str:
    try:
        return projection_definition(alert).name
    except EventfoldError:
        return alert.__name__


def _same_names(kind: Literal["alert", "target"], names: Iterable[str]) -> list[Finding]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    problem = "Two have this name, so that one would take the progress of the other. Give one another: name=…."
    return [Finding(name, kind, "", problem) for name in twice]


def _unknown_alerts(delivery: Delivery, names: Sequence[str]) -> list[Finding]:
    unknown = sorted((delivery.policy.only or frozenset()) - frozenset(names)) if names else []
    problem = "It is for the alert {0!r}, which is none of those checked.{1}"
    return [Finding(delivery.name, "target", "", problem.format(each, _meant(each, names))) for each in unknown]


def _fields_of_no_class(alert: type[Alert], events: Sequence[type]) -> list[str]:
    """Return a problem for each attribute of the event that `evolve` reads and no event class has."""
    problems: list[str] = []
    for name in fields_read(alert):
        if not any(hasattr(each, name) for each in events):
            known = [field for each in events for field in msgspec.structs.fields(each)]
            meant = _meant(name, [field.name for field in known])
            problems.append(f"evolve reads event.{name}, which no event class of it has.{meant}")
    return problems


def fields_read(alert: type[Alert]) -> list[str]:
    """Return the attributes of the event that the rule's `evolve` reads, in order; [] if its source is not known."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(alert.evolve)))
    except (OSError, TypeError, SyntaxError):
        return []
    function = tree.body[0]
    if not isinstance(function, ast.FunctionDef) or len(function.args.args) < 2:
        return []
    event = function.args.args[1].arg
    nodes = [
        each.attr
        for each in ast.walk(function)
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == event
    ]
    return list(dict.fromkeys(nodes))


def _what_the_log_lacks(log: Log, alert: type[Alert], events: Sequence[type]) -> list[str]:
    """Return a problem for each type that no event has, and for each field that is in no recent event."""
    problems: list[str] = []
    for event in events:
        names = stored_names_of(event)
        page = run(log.engine.read(Query((Item(names, ()),)), Span(limit=SAMPLE, backwards=True)))
        if not page.events:
            types = [each.type for each in run(log.engine.types()) if not each.type.startswith("$")]
            problems.append(f"The log has no event of the type {names[0]}, which it watches.{_meant(names[0], types)}")
            continue
        stored = [payload for each in page.events if (payload := _payload(each.data)) is not None]
        for name in fields_read(alert):
            field = next((each for each in msgspec.structs.fields(event) if each.name == name), None)
            if field is not None and stored and all(payload.get(field.encode_name) is None for payload in stored):
                known = sorted({key for payload in stored for key, value in payload.items() if value is not None})
                problems.append(
                    f"None of the last {len(stored)} events of {names[0]} has a value of {field.encode_name}."
                    f"{_meant(name, known)}"
                )
    return problems


def _payload(data: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError:  # encrypted, or not JSON: nothing can be said about it
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _meant(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f" Did you mean {near[0]}?" if near else ""
