"""The definition of an alert as a read model, compiled once from its class: its query, key, columns and fingerprint.

Knows: annotations, fields, what makes a rule impossible. Does not know: positions, targets, how rows are folded.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

import msgspec

from eventfold.alerts.classes import Alert, alert_options, own_detectors, refuse_silent_rule
from eventfold.alerts.rows import ALERT_FIELD, OWN_FIELDS, RulePlan, makers_of, row_class_of
from eventfold.alerts.watcher import AlertWatcher
from eventfold.core.annotations import (
    check_component_name,
    class_options,
    component_name,
    event_classes,
    resolving_annotations,
)
from eventfold.core.class_data import visible_names
from eventfold.core.event import stored_names_of
from eventfold.core.fingerprint import fingerprint_of_rules, report_unknown
from eventfold.core.parameters import takes_envelope
from eventfold.core.table import Table, row_codec_of
from eventfold.errors import InvalidProjection
from eventfold.ports.sink import Sink
from eventfold.projections.classes import ClassOptions, Projection
from eventfold.projections.definition import (
    MAX_NAME_BYTES,
    KeyOf,
    ProjectionDefinition,
    class_fingerprint,
    key_by_name,
    key_takes_envelope,
    query_of_events,
    refuse_row_events,
)

OWN_COLUMNS = dict.fromkeys(OWN_FIELDS, int | None) | {"opened_by": str | None, "reason": str | None, "clock": int}


def compile_alert(cls: type[Alert]) -> ProjectionDefinition:
    """Return the definition of an alert. Raises InvalidProjection."""
    terms, options = class_options(cls, ClassOptions), alert_options(cls)
    name = terms.name or component_name(cls)
    check_component_name(name, "an alert", InvalidProjection, max_bytes=MAX_NAME_BYTES)
    _refuse_impossible(cls, terms)
    with resolving_annotations(cls.__name__, InvalidProjection):
        hints = typing.get_type_hints(cls, None, visible_names(cls), include_extras=True)
    defaults = cls.__struct_defaults__
    key_fields = cls.__struct_fields__[: len(cls.__struct_fields__) - len(defaults)]
    events, takes_recorded = _events_of(cls)
    detectors = own_detectors(cls)
    plan = RulePlan(
        cls,
        name,
        bool(key_fields),
        len(key_fields) or 1,
        options.by == "occurred",
        options.clear_after,
        takes_recorded,
        tuple(map(attrgetter, detectors)),
        cls.judge is not Alert.judge,
        makers_of(cls),
        attrgetter(*detectors) if len(detectors) == 1 and cls.judge is Alert.judge else None,
    )
    row_class = row_class_of(plan)
    columns = {ALERT_FIELD: str} | {field: _without_variable(hint) for field, hint in hints.items()} | OWN_COLUMNS
    codec = row_codec_of(row_class, name, columns, key_fields or (ALERT_FIELD,), (*terms.indexes, ("due",)))
    _refuse_mixed_keys(cls, codec.table, key_fields, hints)
    key, by_name = _key_of(cls, name, key_fields, events)
    query = query_of_events(events)
    rule = {field: msgspec.json.encode(each).decode() for field, each in detectors.items()}
    plain = [repr(value) for value in defaults if getattr(value, "factory", None) is None]
    meaning = f"{rule} {plain} {options.clear_after} {options.by} {query!r} {terms.partitions}"
    shape = f"{codec.table.columns} {codec.table.key} {codec.table.indexes}"
    return ProjectionDefinition(
        row_class,
        "rows",
        name,
        f"{cls.__module__}:{cls.__qualname__}",
        events,
        query,
        shape,
        meaning,
        terms.target,
        terms.on_error,
        terms.attempts,
        terms.partitions if key_fields else 1,
        terms.start or "beginning",
        key,
        codec,
        recorded=True,
        keeps=cls.keep is not Projection.keep,
        without_key=terms.without_key,
        version=terms.version,
        key_fields=by_name,
        key_recorded=bool(key_fields) and not by_name and key_takes_envelope(cls),
        prints=[_fingerprint_of(cls, name, events, key, shape, meaning, terms)],
        watch=partial(AlertWatcher, plan, options.severity),
    )


def _refuse_mixed_keys(cls: type[Alert], table: Table, fields: Collection[str], hints: Mapping[str, Any]) -> None:
    """Raise InvalidProjection where a field of the key may have values of several types: 1 and "1" are one text."""
    for field in [column.name for column in table.columns if column.kind == "json" and column.name in fields]:
        hint = _without_variable(hints[field])
        members = [each for each in typing.get_args(hint) if each is not types.NoneType]
        if typing.get_origin(hint) in (typing.Union, types.UnionType) and len(members) > 1:
            raise InvalidProjection(
                f"The key {field} of {cls.__name__} has several types, and values of two types may have one text, "
                "by which episodes are named.",
                "Give it one type.",
                field=field,
            )


def _refuse_impossible(cls: type[Alert], terms: ClassOptions) -> None:
    """Raise InvalidProjection where the rule can never fire, or its rows cannot be stored or asked."""
    refuse_silent_rule(cls)
    if isinstance(terms.target, Sink):
        raise InvalidProjection(
            f"The target of {cls.__name__} is a sink, which cannot be asked for the rows that are due.",
            "Give the address of a database, or leave out target=.",
        )
    taken = [each for each in cls.__struct_fields__ if each in (*OWN_COLUMNS, ALERT_FIELD)]
    if taken:
        raise InvalidProjection(
            f"{cls.__name__} has a field {taken[0]}, which the rows of every alert have.",
            f"Name the field otherwise: {taken[0]}_ for example.",
        )


def _events_of(cls: type[Alert]) -> tuple[tuple[type, ...], bool]:
    """Return the event classes that the rule watches, and whether `evolve` takes the Recorded as well."""
    with resolving_annotations(f"{cls.__name__}.evolve", InvalidProjection):
        evolve = typing.get_type_hints(cls.evolve, None, visible_names(cls))
    parameters = [p for p in inspect.signature(cls.evolve).parameters if p != "self"]
    hint = evolve.get(parameters[0]) if parameters else None
    recorded = takes_envelope(cls.evolve, f"{cls.__name__}.evolve", InvalidProjection) or len(parameters) > 1
    events = event_classes(hint, partial(refuse_row_events, cls)).classes
    _refuse_own_facts(cls, events)
    return events, recorded


def _fingerprint_of(
    cls: type[Alert], name: str, events: tuple[type, ...], key: KeyOf, shape: str, meaning: str, terms: ClassOptions
) -> str:
    """Return the fingerprint of the rule and its tables. See ProjectionDefinition.fingerprint."""
    rules = fingerprint_of_rules(cls, events, (key, meaning), terms.version)
    report_unknown(name, rules, "Changes to these are not detected.")
    return f"{class_fingerprint(cls, shape, meaning).partition('-')[0]}-{rules.digest}"


def _without_variable(hint: Any) -> Any:
    """Return a hint in which a plain `ef.Tag` is the type of its values, which is text."""
    inner = getattr(hint, "__origin__", None)
    return (
        inner.__bound__ if typing.get_origin(hint) is typing.Annotated and isinstance(inner, typing.TypeVar) else hint
    )


def _key_of(
    cls: type[Alert], name: str, key_fields: tuple[str, ...], events: tuple[type, ...]
) -> tuple[KeyOf, tuple[str, ...]]:
    """Return the function for an event's key, and the fields that it reads; none where the class has a function."""
    if not key_fields:
        return _constant(name), ()
    own: Any = None if "key" in cls.__struct_fields__ else getattr(cls, "key", None)
    if own is not None:
        return own, ()
    return key_by_name(cls, key_fields, events), key_fields


def _constant(name: str) -> Callable[[Any], tuple[str]]:
    return lambda _event: (name,)


def _refuse_own_facts(cls: type[Alert], events: tuple[type, ...]) -> None:
    """Raise InvalidProjection where a rule watches what alerts write: it would raise itself without end."""
    for event in events:
        names = stored_names_of(event)
        own = [each for each in names if each.startswith("$alert-")]
        if own or not names:
            raise InvalidProjection(
                f"{cls.__name__}.evolve takes {own[0] if own else 'every event'}, and alerts write $alert-… events.",
                "Annotate it with the event classes of your own that it watches.",
            )
