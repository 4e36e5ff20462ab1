"""A target that is Prometheus' Alertmanager: it groups, repeats and silences, and so gets each episode as it is.

Alertmanager keeps alerts in memory, and regards one as resolved that it does not get again. So facts are posted as they
come, at least once, and all open episodes again every minute.
Knows: its HTTP interface (POST /api/v2/alerts). Does not know: how progress and retries are kept.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from eventfold.alerts.delivery.delivery import PREFIX, Delivery
from eventfold.alerts.delivery.message import Message, iso
from eventfold.alerts.delivery.policy import Policy
from eventfold.alerts.delivery.target import guarded, without_secrets
from eventfold.alerts.delivery.webhook_target import check_address, check_headers, host_of, secret_parts, secret_words
from eventfold.alerts.facts import AlertCleared, AlertRaised, Episode, OpenEpisodes, episode_of
from eventfold.concurrency import run
from eventfold.core.event import Recorded
from eventfold.errors import EventfoldError, InvalidProcess
from eventfold.log.context import Log
from eventfold.log.read import event_of, load_cached
from eventfold.ports.target import Target as RowTarget
from eventfold.processes.parts import Clocked, Parts
from eventfold.processes.retries import live_checkpoints
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.leases import is_held_here
from eventfold.webhooks import accepted, post

MAX_POST = 500  # alerts in one request
Clock = Callable[[], float]


class Alertmanager:
    """The interface of one Alertmanager. `resend`: seconds between two posts of an open episode.

    Alertmanager regards an episode as resolved that it does not get again within five times as long.
    """

    def __init__(
        self,
        url: str,
        labels: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        timeout: float,
        resend: float,
        store: str,
        clock: Clock = time.time,
    ) -> None:
        check_address(url, "Alertmanager target")
        check_headers(headers or {})
        if not 0 < resend <= 3_600:
            raise InvalidProcess(f"The Alertmanager target has resend={resend:g} seconds.", "Give up to 3,600 seconds.")
        self._url = f"{url.rstrip('/')}/api/v2/alerts"
        self._labels, self._headers, self._timeout = dict(labels or {}), dict(headers or {}), timeout
        self.resend, self._store, self._clock = resend, store, clock
        self.secrets = (*secret_parts(url), *secret_words(self._headers))

    @property
    def description(self) -> str:
        """The host."""
        return f"Alertmanager at {host_of(self._url)}"

    def send(self, message: Message) -> None:
        """Post a test message, as an alert that ends after a minute."""
        now = self._clock()
        episode = Episode(message.alert, "", message.id, message.sentence, message.severity, int(now * 1e6))
        self.post([self.alert(episode, now + 60.0)], message.id)

    def alert(self, episode: Episode, until: float) -> dict[str, Any]:
        """Return an episode as an alert of Alertmanager. `until`: when it counts as resolved, in seconds since 1970."""
        labels = {
            **self._labels,
            "alertname": episode.alert,
            "severity": episode.severity,
            "key": episode.key,
            "store": self._store,
        }
        return {
            "labels": {name: value for name, value in labels.items() if value},
            "annotations": {"summary": episode.reason, "episode": episode.episode},
            "startsAt": iso(episode.at),
            "endsAt": iso(max(episode.at, int(until * 1e6))),
        }

    def open(self, episode: Episode) -> dict[str, Any]:
        """Return an open episode as an alert."""
        return self.alert(episode, self._clock() + 5 * self.resend)

    def post(self, alerts: Sequence[dict[str, Any]], identity: str) -> None:
        """Post alerts. Raises DeliveryFailed unless the answer is 2xx."""
        headers = {"content-type": "application/json", **self._headers}
        answer = post(self._url, msgspec.json.encode(alerts), headers, self._timeout, identity)
        accepted(self._url, answer._replace(said=without_secrets(answer.said, self.secrets)), identity)


class AlertmanagerDelivery(Delivery):
    """An Alertmanager with its policy, of which only `severities` and `only` are used."""

    def __init__(self, target: Alertmanager, plain: Delivery) -> None:
        super().__init__(target, plain.name, plain.policy, plain.retries, plain.store, plain.code)
        self._alertmanager = target

    def __eventfold_parts__(self) -> Parts:
        """Return the parts that the runner runs."""
        link = Link()
        effect = self.effect_of(lambda recorded: self._deliver_fact(recorded, link), (AlertRaised, AlertCleared))
        return Parts((effect,), (lambda admin: self._resender(admin, link),))

    def _resender(self, admin: ProjectionAdmin, link: Link) -> Clocked:
        link.log = admin.log
        return Resender(self._alertmanager, self.name, self.policy, admin.log, admin.catalog.target_at)

    def _deliver_fact(self, recorded: Recorded[Any], link: Link) -> None:
        target = self._alertmanager

        def send(message: Message) -> None:
            alert = self._alert_of(recorded, link)
            if alert is not None:
                target.post([alert], message.id)

        guarded(send, target, Message(str(recorded.id), recorded.event.alert, "raised", "none", 0, 1, 0, (), ""))

    def _alert_of(self, recorded: Recorded[Any], link: Link) -> dict[str, Any] | None:
        event = recorded.event
        raised = event if isinstance(event, AlertRaised) else link.raised(event.episode)
        if raised is None or not self.policy.includes(raised.alert, raised.severity):
            return None
        episode = episode_of(raised)
        if isinstance(event, AlertRaised):
            return self._alertmanager.open(episode)
        return self._alertmanager.alert(episode, event.at / 1e6)


class Link:
    """The log of the store that runs a delivery. It is known when the runner makes the parts that need it."""

    log: Log | None = None

    def raised(self, episode: str) -> AlertRaised | None:
        """Return the fact that raised an episode; None if the log has none."""
        found = None if self.log is None else run(event_of(self.log, episode, False))
        return found.event if found is not None and isinstance(found.event, AlertRaised) else None


class Resender:
    """Posts all open episodes again, every `resend` seconds, in the process that holds the lease of the delivery."""

    def __init__(
        self, target: Alertmanager, name: str, policy: Policy, log: Log, rows: Callable[[], RowTarget]
    ) -> None:
        self._target, self._name, self._policy, self._log, self._rows = target, name, policy, log, rows
        self._next = 0  # µs
        self._thread: threading.Thread | None = None
        self._failing = False

    def next_due(self) -> int | None:
        """See Clocked."""
        return self._next or None

    async def fire(self, now: int) -> int:
        """Start to post, in a thread of its own, if it is time. See Clocked."""
        resend = int(self._target.resend * 1e6)
        if now < self._next <= now + resend or (self._thread is not None and self._thread.is_alive()):
            return 0
        self._next = now + resend
        if not any(is_held_here(each.holder) for each in live_checkpoints(self._rows(), f"{PREFIX}{self._name}")):
            return 0
        state, _ = await load_cached(self._log, OpenEpisodes(""))
        found = [each for each in state.open.values() if self._policy.includes(each.alert, each.severity)]
        if found:
            alerts = [self._target.open(each) for each in found]
            self._thread = threading.Thread(
                target=self._post, args=(alerts,), name="eventfold-alertmanager", daemon=True
            )
            self._thread.start()
        return len(found)

    def _post(self, alerts: list[dict[str, Any]]) -> None:
        try:
            for batch in _batches(alerts):
                self._target.post(batch, "open episodes")
            self._failing = False
        except EventfoldError as error:
            if not self._failing:
                self._failing = True
                text = without_secrets(str(error), self._target.secrets)
                logging.getLogger("eventfold").warning("The target %s: %s", self._name, text)


def _batches(alerts: Sequence[dict[str, Any]]) -> Iterable[Sequence[dict[str, Any]]]:
    return (alerts[first : first + MAX_POST] for first in range(0, len(alerts), MAX_POST))
