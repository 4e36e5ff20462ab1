"""What is unwise in the declaration of an event class: names, tags, types of fields, and events that no code takes.

A finding is a warning: every event class that can be declared can also be stored. It is allowed by a comment in the
class, `# eventfold: allow CODE`, which may go on with the reason: on the line of a field for that field, on any other
line of the class for the class.
Knows: declared classes, their source. Does not know: logs, commands; whether a change is breaking (compare.py does).
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

import msgspec

from eventfold.core.event import declaration_of
from eventfold.core.json_values import fields_of_class
from eventfold.core.tags import tag_fields
from eventfold.core.upcast import upcaster_from
from eventfold.schema.describe import event_classes
from eventfold.schema.usage import EventUsage, find_usage

MOST_OPTIONAL = 4  # fields that may be absent: more of them, and most fields, look like the columns of a row


class LintWarning(msgspec.Struct, frozen=True, kw_only=True):
    """One finding about the current version of an event type.

    `code`: the rule, a key of RULES. `field`: None if it concerns the class. `what`: what was found, `why`: what goes
    wrong with it and what to do. `allow`: the comment that allows it.
    """

    type: str
    field: str | None
    code: str
    what: str
    why: str
    allow: str
    source: str


# Each rule and why it is one.
RULES: dict[str, str] = {
    "column-shaped": "An event says what happened, in the words of the trade; a name like this says that a row was "
    "saved. Name the facts that change the row, each as an event of its own.",
    "not-past-tense": "An event is a fact that has happened, and a command may still be refused. Name it in the past "
    "tense.",
    "no-tags": "Events are found by their tags, and a condition over events without tags covers all of them. Mark the "
    "fields that identify what the event is about: ef.Tag.",
    "many-optional": "So many fields that may be absent look like the columns of a row. Split it into events for what "
    "happens, with fields that are always there.",
    "float-money": "A float cannot hold most amounts exactly: sums differ by cents. Use Decimal, or an int of the "
    "smallest unit.",
    "time-without-zone": "A datetime without a zone is another moment on another machine. Declare the zone as "
    "required: Annotated[datetime, msgspec.Meta(tz=True)].",
    "personal": "An event is never changed, so personal data in it cannot be erased. Keep it beside the log and store "
    "a reference.",
    "secret": "An event is kept forever and read by every follower. Store no secret in it: store a hash or a "
    "reference, or nothing.",
    "unused": "No state, read model or process of these modules takes it. Delete it if it was never written, or name "
    "the module that folds it.",
}

_COLUMN_SHAPED = re.compile(r"(Updated|Modified|Saved|Upserted|Inserted|Edited|Synced|Set|StatusChanged|StateChanged)$")
_IMPERATIVE = re.compile(
    r"^(Accept|Add|Approve|Assign|Book|Cancel|Change|Close|Complete|Confirm|Create|Delete|Deliver|Deposit|Do|Edit|"
    r"Finish|Grant|Import|Insert|Make|Move|Open|Order|Pay|Place|Publish|Put|Register|Reject|Remove|Rename|Request|"
    r"Save|Sell|Send|Set|Ship|Start|Stop|Submit|Transfer|Update|Upload|Withdraw)(?=[A-Z]|$)"
)
# The last word, or the one before it, of most names in the past tense.
_PAST = re.compile(
    r"(ed|ught|old|aid|ade|ent|ost|ound|iven|aken|oken|osen|ritten|ithdrawn|awn|own|un|eft|et|it|ept|eld|elt|uilt|one|gun)$"
)
_MONEY = re.compile(
    r"(?:^|_)(amount|price|total|subtotal|balance|fee|cost|tax|vat|salary|wage|rent|refund|deposit|discount|money|"
    r"payment|revenue|turnover|credit|debit|interest|premium|usd|eur|gbp|chf)s?(?:_|$)"
)
_PERSONAL = re.compile(
    r"(?:^|_)(e?mail|email_address|phone|mobile|fax|first_?name|last_?name|full_?name|surname|maiden_name|birth_?day|"
    r"birth_?date|date_of_birth|dob|ssn|passport|iban|address|street|postcode|zip_?code|ip_address|license_plate|"
    r"diagnosis|religion|gender|nationality)(?:_|$)"
)
_SECRET = re.compile(
    r"(?:^|_)(password|passwd|pwd|secret|api_?key|private_?key|access_token|refresh_token|session_token|pin|cvv|cvc|"
    r"card_number|pan)(?:_|$)"
)
_ALLOWED = re.compile(r"#\s*eventfold:\s*allow\s+([a-z-]+(?:\s*,\s*[a-z-]+)*)")


class _Subject(NamedTuple):
    """An event class with what the rules look at."""

    cls: type
    name: str
    hints: Mapping[str, Any]
    tags: Mapping[str, str]
    usage: EventUsage | None


Found = Iterator[tuple[str | None, str]]  # the field, or None for the class, and what was found


def lint(modules: Iterable[str]) -> list[LintWarning]:
    """Return what is unwise in the current event classes of these modules and packages, which are imported.

    Older versions of a type, which are upcast, are as they are and not judged. Ordered by class, then by rule.
    """
    names = list(modules)
    usage = find_usage(names)
    found: list[LintWarning] = []
    for cls in event_classes(names):
        if upcaster_from(cls) is not None:
            continue
        known = typing.get_type_hints(cls, include_extras=True)
        hints = {name: known[name] for name in fields_of_class(cls) if name in known}
        subject = _Subject(cls, declaration_of(cls).type, hints, tag_fields(hints), usage.get(cls))
        found += _warnings(subject)
    return found


def _warnings(subject: _Subject) -> Iterator[LintWarning]:
    of_class, of_fields = _allowances(subject.cls)
    for code, rule in _CHECKS.items():
        for field, what in rule(subject):
            if code in of_class or code in of_fields.get(field or "", ()):
                continue
            yield LintWarning(
                type=subject.name,
                field=field,
                code=code,
                what=what,
                why=RULES[code],
                allow=f"# eventfold: allow {code}",
                source=f"{subject.cls.__module__}.{subject.cls.__qualname__}",
            )


def _allowances(cls: type) -> tuple[set[str], dict[str, set[str]]]:
    """The rules that comments in the source of a class allow: for the class, and by field."""
    try:
        lines = inspect.getsource(cls).splitlines()
    except (OSError, TypeError):  # declared at a prompt
        return set(), {}
    of_class: set[str] = set()
    of_fields: dict[str, set[str]] = {}
    for line in lines:
        allowed = _ALLOWED.search(line)
        if allowed is None:
            continue
        codes = {each.strip() for each in allowed[1].split(",")}
        field = re.match(r"\s+(\w+)\s*:", line)
        if field is None or line.lstrip().startswith(("#", "class ")):
            of_class |= codes
        else:
            of_fields.setdefault(field[1], set()).update(codes)
    return of_class, of_fields


def _last_part(name: str) -> str:
    """The class-like part of a stored name: `OrderPaid` of `shop.OrderPaid`, `OrderPaid` of `order-paid`."""
    last = re.split(r"[./]", name)[-1]
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[-_ ]", last))


def _column_shaped(subject: _Subject) -> Found:
    shape = _COLUMN_SHAPED.search(_last_part(subject.name))
    if shape:
        yield None, f"Its name ends with {shape[0]!r}"


def _not_past_tense(subject: _Subject) -> Found:
    name = _last_part(subject.name)
    verb = _IMPERATIVE.match(name)
    if verb and not _PAST.search(name):
        yield None, f"Its name begins with {verb[1]!r}, as a command does"


def _no_tags(subject: _Subject) -> Found:
    if not subject.tags:
        yield None, "It has no tags"


def _many_optional(subject: _Subject) -> Found:
    optional = [name for name, hint in subject.hints.items() if _is_optional(hint)]
    if len(optional) > MOST_OPTIONAL and 2 * len(optional) > len(subject.hints):
        yield None, f"{len(optional)} of its {len(subject.hints)} fields may be None"


def _float_money(subject: _Subject) -> Found:
    for name, hint in subject.hints.items():
        if float in _kinds(hint) and Decimal not in _kinds(hint) and _MONEY.search(name.lower()):
            yield name, "It is a float, and its name is that of an amount of money"


def _time_without_zone(subject: _Subject) -> Found:
    for name, hint in subject.hints.items():
        kind = next((kind for kind in (datetime, time) if kind in _kinds(hint)), None)
        if kind is not None and not _requires_zone(hint):
            yield name, f"It is a {kind.__name__} whose zone may be absent"


def _personal(subject: _Subject) -> Found:
    for name, hint in subject.hints.items():
        found = _PERSONAL.search(name.lower())
        if found and _kinds(hint) & {str, date, datetime, bytes}:
            yield name, f"Its name ({found[1]}) is that of personal data"


def _secret(subject: _Subject) -> Found:
    for name, hint in subject.hints.items():
        found = _SECRET.search(name.lower())
        if found and _kinds(hint) & {str, bytes, int}:
            yield name, f"Its name ({found[1]}) is that of a secret"


def _unused(subject: _Subject) -> Found:
    usage = subject.usage
    if usage is not None and not (usage.fold or usage.project or usage.react):
        yield None, "No code takes it"


_CHECKS: dict[str, Callable[[_Subject], Found]] = {
    "column-shaped": _column_shaped,
    "not-past-tense": _not_past_tense,
    "no-tags": _no_tags,
    "many-optional": _many_optional,
    "float-money": _float_money,
    "time-without-zone": _time_without_zone,
    "personal": _personal,
    "secret": _secret,
    "unused": _unused,
}


def _is_optional(hint: Any) -> bool:
    return type(None) in _arguments(hint)


def _arguments(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union; the hint itself if it is none."""
    if typing.get_origin(hint) is Annotated:
        return _arguments(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _kinds(hint: Any) -> set[Any]:
    """The classes that a hint names, at any depth: {list, float, NoneType} of list[float] | None."""
    if typing.get_origin(hint) is Annotated:
        return _kinds(typing.get_args(hint)[0])
    arguments = typing.get_args(hint)
    if not arguments:
        return {hint} if isinstance(hint, type) else set()
    found = {kind for each in arguments for kind in _kinds(each)}
    origin = typing.get_origin(hint)
    return found | {origin} if isinstance(origin, type) else found


def _requires_zone(hint: Any) -> bool:
    """Whether a zone is required by msgspec's Meta(tz=True), or by a type of pydantic that says so."""
    if typing.get_origin(hint) is Annotated:
        inner, *marks = typing.get_args(hint)
        return any(getattr(mark, "tz", None) is True for mark in marks) or _requires_zone(inner)
    if getattr(hint, "__name__", "") == "AwareDatetime":
        return True
    arguments = [each for each in typing.get_args(hint) if _kinds(each) & {datetime, time}]
    return bool(arguments) and all(map(_requires_zone, arguments))
