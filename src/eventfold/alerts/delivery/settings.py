"""Targets from settings: a TOML file with tables `deliver.NAME`, and environment variables.

    [deliver.pager]                                EVENTFOLD_DELIVER__PAGER__SECRET=whsec_…
    to = "webhook"
    url = "https://hooks.example.com/on-call"

Knows: the names of settings, and which belong to which kind of target. Does not know: how a target sends.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from eventfold.alerts.delivery.delivery import Delivery, Options
from eventfold.errors import InvalidInput, InvalidProcess

Secret = Annotated[str, Meta(extra={"secret": True})]
Kind = Literal["log", "webhook", "email", "alertmanager"]
PREFIX = "EVENTFOLD_DELIVER__"
HOURS = re.compile(r"(\S+) (?:(\S+) )?(\d\d?:\d\d)-(\d\d?:\d\d)")
HOURS_SYNTAX = 'Write hours = "Europe/Berlin mon-fri 08:00-18:00".'


class TargetSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one target. `to` names its kind; a setting of another kind is refused. Durations are seconds."""

    to: Kind | None = None
    url: Secret | None = None  # of a webhook, whose path may be a token, or of an Alertmanager
    secret: Secret | None = None  # of a webhook: whsec_…; without it messages are not signed
    headers: dict[str, Secret] | None = None  # of a webhook or an Alertmanager
    labels: dict[str, str] | None = None  # of an Alertmanager
    resend: float | None = None  # of an Alertmanager: seconds between two posts of an open episode
    server: str | None = None  # of e-mail: HOST:PORT
    sender: str | None = None
    recipients: tuple[str, ...] | None = None
    user: str | None = None
    password: Secret | None = None
    tls: Literal["starttls", "implicit", "none"] | None = None
    ca_file: str | None = None
    timeout: float | None = None
    severities: tuple[str, ...] | None = None
    only: tuple[str, ...] | None = None
    group: float | None = None
    group_page: float | None = None
    remind: float | None = None
    budget: int | None = None
    hours: str | None = None  # when alerts other than "page" may be sent: "Europe/Berlin mon-fri 08:00-18:00"
    store: str | None = None  # how messages name the store


COMMON = frozenset(("severities", "only", "group", "group_page", "remind", "budget", "hours", "store"))
OF_KIND: dict[Kind, frozenset[str]] = {
    "log": frozenset(),
    "webhook": frozenset(("url", "secret", "headers", "timeout")),
    "email": frozenset(("server", "sender", "recipients", "user", "password", "tls", "ca_file", "timeout")),
    "alertmanager": frozenset(("url", "headers", "labels", "resend", "timeout")),
}
REQUIRED: dict[Kind, tuple[str, ...]] = {
    "log": (),
    "webhook": ("url",),
    "email": ("server", "sender", "recipients"),
    "alertmanager": ("url",),
}


def deliveries_of(file: Path | None, environment: Mapping[str, str] | None = None) -> list[Delivery]:
    """Return the deliveries of a TOML file and of environment variables, which override it. Raises InvalidInput.

    Only tables `deliver.NAME` of the file are read. The variable of `secret` in `deliver.pager` is
    EVENTFOLD_DELIVER__PAGER__SECRET. `environment`: that of the process by default.
    """
    tables = {} if file is None else _tables_of(file)
    place = "the environment" if file is None else str(file)
    for name, text in sorted((os.environ if environment is None else environment).items()):
        if name.startswith(PREFIX):
            target, _, key = name.removeprefix(PREFIX).lower().partition("__")
            tables.setdefault(target, {})[key] = text
    return [delivery_of(name, _settings_of(name, table, place)) for name, table in tables.items()]


def delivery_of(name: str, settings: TargetSettings) -> Delivery:
    """Return the delivery of some settings. Raises InvalidInput, which names it."""
    given = {key: value for key in settings.__struct_fields__ if (value := getattr(settings, key)) is not None}
    kind: Kind | None = given.pop("to", None)
    if kind is None:
        raise InvalidInput(
            f"deliver.{name} does not say to what.", f"Give to, one of {', '.join(OF_KIND)}.", key=f"deliver.{name}.to"
        )
    wrong = sorted(given.keys() - COMMON - OF_KIND[kind])
    if wrong:
        raise InvalidInput(
            f"deliver.{name}.{wrong[0]} is no setting of a target of the kind {kind}.",
            f"It has {', '.join(sorted(OF_KIND[kind] | COMMON))}.",
            key=f"deliver.{name}.{wrong[0]}",
        )
    missing = [key for key in REQUIRED[kind] if key not in given]
    if missing:
        raise InvalidInput(
            f"deliver.{name} is {kind}, and has no {missing[0]}.",
            f"Give {', '.join(REQUIRED[kind])}.",
            key=f"deliver.{name}.{missing[0]}",
        )
    key = f"deliver.{name}"
    try:
        if "hours" in given:
            key = f"deliver.{name}.hours"
            given["hours"] = _hours(name, given["hours"])
            key = f"deliver.{name}"
        return _made(kind, {**given, "name": name})
    except (InvalidInput, InvalidProcess) as error:
        if error.what.startswith(key):
            raise
        raise InvalidInput(f"{key} cannot be used: {error.what}", error.remedy, key=key) from None


def _made(kind: Kind, given: dict[str, Any]) -> Delivery:
    from eventfold.alerts import delivery

    if kind == "webhook":
        return delivery.webhook(given.pop("url"), secret=given.pop("secret", None), **given)
    if kind == "email":
        return delivery.email(given.pop("server"), to=given.pop("recipients"), **given)
    if kind == "alertmanager":
        return delivery.alertmanager(given.pop("url"), **given)
    return delivery.log(**cast("Options", given))


def _hours(name: str, text: str) -> Any:
    from eventfold.alerts.calendars import office_hours

    found = HOURS.fullmatch(text.strip())
    if found is None:
        raise InvalidInput(f"deliver.{name}.hours is {text[:80]!r}.", HOURS_SYNTAX, key=f"deliver.{name}.hours")
    return office_hours(found[1], days=found[2] or "mon-fri", opens=found[3], closes=found[4])


def _tables_of(file: Path) -> dict[str, dict[str, Any]]:
    try:
        found: Any = tomllib.loads(file.read_text("utf-8")).get("deliver", {})
    except OSError as error:
        raise InvalidInput(
            f"The settings {file} cannot be read: {(error.strerror or str(error)).lower()}.",
            "Name a TOML file that this user may read.",
            source=str(file),
        ) from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise InvalidInput(
            f"The settings {file} are not TOML: {error}.", "Correct the file.", source=str(file)
        ) from error
    if not isinstance(found, dict) or not all(
        isinstance(each, dict) for each in cast("dict[str, Any]", found).values()
    ):
        raise InvalidInput(f"deliver in {file} is no table of targets.", "Write [deliver.NAME].", source=str(file))
    return cast("dict[str, dict[str, Any]]", found)


def _settings_of(name: str, table: Mapping[str, Any], place: str) -> TargetSettings:
    fields = TargetSettings.__struct_fields__
    for key in table:
        if key not in fields:
            near = get_close_matches(key, fields, 1)
            hint = f"Did you mean {near[0]}?" if near else f"It has {', '.join(fields)}."
            raise InvalidInput(f"deliver.{name}.{key} in {place} is no setting.", hint, key=f"deliver.{name}.{key}")
    texts = {
        key: [each.strip() for each in value.split(",") if each.strip()]
        for key, value in table.items()
        if key in ("severities", "only", "recipients") and isinstance(value, str)
    }
    try:
        return msgspec.convert({**table, **texts}, TargetSettings, strict=False)
    except msgspec.ValidationError as error:
        what = str(error).replace("`", "")
        raise InvalidInput(
            f"deliver.{name} in {place} cannot be used: {what[:1].lower()}{what[1:]}.",
            "Correct it; see eventfold alert test --help.",
            key=f"deliver.{name}",
        ) from None
