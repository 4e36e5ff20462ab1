"""Delivery of alerts: messages to a log, a webhook, e-mail, an Alertmanager or a function, each at least once.

    from eventfold.alerts import delivery
    pager = delivery.webhook("https://hooks.example.com/on-call", secret=os.environ["PAGER_SECRET"], name="pager")
    store.run(CardTesting, pager)

Knows: the targets that there are, their arguments. Does not know: rules, which episodes are open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

from eventfold.alerts.delivery.delivery import Delivery, Options, deliver
from eventfold.alerts.delivery.message import Entry, Message

if TYPE_CHECKING:
    from eventfold.alerts.delivery.mail_target import Tls

__all__ = ["Delivery", "Entry", "Message", "Options", "alertmanager", "email", "function", "log", "webhook"]


def log(**options: Unpack[Options]) -> Delivery:
    """Return a delivery to the logger `eventfold.alerts`: one line for each message. `options`: see Options."""
    from eventfold.alerts.delivery.log_target import LogLine

    return deliver(LogLine(), "log", options)


def webhook(
    url: str,
    *,
    secret: str | Sequence[str] | None,
    timeout: float = 10.0,
    headers: Mapping[str, str] | None = None,
    **options: Unpack[Options],
) -> Delivery:
    """Return a delivery to a webhook: a POST of JSON, signed with `secret` (`whsec_…`; None: not signed).

    Give several secrets while one replaces another. The header `webhook-id` is the id of the message, the same at each
    attempt. `timeout` is in seconds. `options`: see Options. Raises InvalidProcess if an argument cannot be used.
    """
    from eventfold.alerts.delivery.webhook_target import Webhook

    return deliver(Webhook(url, secret, timeout, headers), "webhook", options)


def email(
    server: str,
    *,
    sender: str,
    to: str | Sequence[str],
    user: str | None = None,
    password: str | None = None,
    tls: Tls = "starttls",
    ca_file: str | None = None,
    timeout: float = 20.0,
    **options: Unpack[Options],
) -> Delivery:
    """Return a delivery by e-mail: `server` is HOST or HOST:PORT, `to` one address or several.

    `tls`: "starttls" (required: it is not sent otherwise), "implicit" (TLS from the first byte) or "none". `ca_file`: a
    PEM file of authorities, by default those of the system. `timeout` is in seconds. `options`: see Options. Raises
    InvalidProcess if an argument cannot be used.
    """
    from eventfold.alerts.delivery.mail_target import Mail

    return deliver(Mail(server, sender, to, user, password, tls, ca_file, timeout), "email", options)


def alertmanager(
    url: str,
    *,
    labels: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 10.0,
    resend: float = 60.0,
    **options: Unpack[Options],
) -> Delivery:
    """Return a delivery to Prometheus' Alertmanager at `url`, such as http://127.0.0.1:9093.

    Each episode is an alert with the labels `alertname`, `severity`, `key`, `store` and `labels`; open ones are posted
    again every `resend` seconds. Grouping, reminders and silences are Alertmanager's: of the options only `name`,
    `severities`, `only`, `store` and those of retries are used. Raises InvalidProcess if an argument cannot be used.
    """
    from eventfold.alerts.delivery.alertmanager_target import Alertmanager, AlertmanagerDelivery

    target = Alertmanager(url, labels, headers, timeout, resend, str(options.get("store", "")))
    return AlertmanagerDelivery(target, deliver(target, "alertmanager", options))


def function(send: Callable[[Message], object], **options: Unpack[Options]) -> Delivery:
    """Return a delivery by a function of yours, which sends one message, and raises an exception if that failed.

    It may be called again with the same message: `message.id` is the idempotency key. `options`: see Options.
    """
    from eventfold.alerts.delivery.function_target import Function

    return deliver(Function(send), getattr(send, "__name__", "function"), options)
