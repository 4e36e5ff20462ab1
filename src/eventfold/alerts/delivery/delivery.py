"""A delivery: a target with its policy, which `store.run` runs beside the alerts as it runs an effect.

Knows: the parts of a delivery, its options. Does not know: technologies, which messages are due (plan.py).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection
from typing import Any, TypedDict

import msgspec

from eventfold.alerts.delivery.message import AlertMessage, Message, message_of
from eventfold.alerts.delivery.notifier import Notifier
from eventfold.alerts.delivery.policy import Duration, Hours, Policy, policy_of
from eventfold.alerts.delivery.target import RETRIED, Target, guarded
from eventfold.concurrency.deadlines import Stopped, run_within
from eventfold.core.annotations import check_component_name
from eventfold.core.envelope import new_id
from eventfold.core.event import Recorded
from eventfold.errors import DeliveryFailed, InvalidProcess
from eventfold.processes.effects import Effect, RetryPolicy
from eventfold.processes.parts import Clocked, Parts
from eventfold.projections.admin import ProjectionAdmin

PREFIX = "deliver_"  # of the names of progress
MAX_NAME_BYTES = 40 - len(PREFIX)
ATTEMPTS, FIRST_DELAY_S, MAX_DELAY_S = 1_500, 1.0, 60.0  # about a day


class Options(TypedDict, total=False):
    """Options of every target. Durations are seconds or timedeltas.

    `name`: of the target, and of its progress; it stays the same as long as the target is the same. `severities`: of
    the alerts that are sent, ("page", "ticket") by default. `only`: names of alerts, by default all. `group` (30 s) and
    `group_page` (2 s): how long a message waits for others of its alert; the second is for the severity "page".
    `remind` (4 h): after which time what is still raised is sent again; 0: never. `budget` (20): messages an hour for
    each alert. `hours`: when alerts other than "page" may be sent, ef.office_hours(…); by default always. `store`: how
    messages name the store. `attempts` (1,500), `first_delay` (1 s), `max_delay` (60 s): how often a message is tried
    until it waits for an operator, and the pauses: each is four times as long as the one before.
    """

    name: str
    severities: Collection[str]
    only: Collection[str] | None
    group: Duration
    group_page: Duration
    remind: Duration
    budget: int
    hours: Hours | None
    store: str
    attempts: int
    first_delay: float
    max_delay: float


class Retries(msgspec.Struct, frozen=True):
    """How often a message is tried. See Options."""

    attempts: int = ATTEMPTS
    first_delay: float = FIRST_DELAY_S
    max_delay: float = MAX_DELAY_S


class Delivery:
    """A target with its policy: `store.run(CardTesting, pager, mail)` sends it messages about alerts, at least once.

    Several runners share the work as they share that of an effect; a target that is down has retries of its own.
    """

    def __init__(self, target: Target, name: str, policy: Policy, retries: Retries, store: str, code: str) -> None:
        check_component_name(name, "a target", InvalidProcess, max_bytes=MAX_NAME_BYTES, ascii_only=True)
        self.target, self.name, self.policy, self.retries, self.store, self.code = (
            target,
            name,
            policy,
            retries,
            store,
            code,
        )

    @property
    def progress(self) -> str:
        """The name of its progress: of its effect."""
        return f"{PREFIX}{self.name}"

    @property
    def description(self) -> str:
        """What the target is and where, without secrets."""
        return self.target.description

    def deliver(self, recorded: Recorded[AlertMessage]) -> None:
        """Send the message of a fact, if it is for this target. Raises DeliveryFailed.

        A target that hangs does not keep the runner from being stopped: the message is then sent again later.
        """
        if recorded.event.target != self.name:
            return
        message = message_of(recorded, self.store)
        try:
            run_within(None, lambda: guarded(self.target.send, self.target, message))
        except Stopped:
            what = f"{self.description} had not taken the message when the runner was stopped."
            raise DeliveryFailed(what, RETRIED, event_id=message.id) from None

    def send_test(self) -> None:
        """Send a test message, once. Raises DeliveryFailed."""
        guarded(self.target.send, self.target, test_message(self.name, self.store))

    def effect_of(self, deliver: Callable[[Recorded[Any]], None], events: tuple[type, ...]) -> Effect:
        """Return the effect that delivers events of some classes, under the name of the progress."""
        policy = RetryPolicy(self.retries.attempts, self.retries.first_delay, self.retries.max_delay)
        code = f"{__name__}:{self.name}"
        return AlertEffect(deliver, self.progress, events, True, "now", policy, None, 1, code)

    def clocked(self, admin: ProjectionAdmin) -> Clocked:
        """Return what writes the messages that are due."""
        return Notifier(self.name, self.policy, admin.log)

    def __eventfold_parts__(self) -> Parts:
        """Return the parts that the runner runs."""
        return Parts((self.effect_of(self.deliver, (AlertMessage,)),), (self.clocked,))

    def __repr__(self) -> str:
        return f"<delivery {self.name}: {self.description}>"


class AlertEffect(Effect, frozen=True):
    """An effect in which events of one alert, and of one key of it if they have one, wait for each other."""

    def keys_of(self, event: Any) -> list[tuple[Any, ...]]:
        """Return the alert, with its key if the event has one. Messages to other targets wait for no other event."""
        target = getattr(event, "target", None)
        if target is not None and f"{PREFIX}{target}" != self.name:
            return [("messages to other targets",)]
        return [(f"{event.alert} {getattr(event, 'key', '')}".strip(),)]


def deliver(target: Target, kind: str, options: Options, depth: int = 2) -> Delivery:
    """Return a delivery to a target. Raises InvalidProcess if an option cannot be used.

    `kind` is its name if the options have none; `depth`: how many calls lie between the user's module and this one.
    """
    name, policy, retries, store = settled(kind, options)
    module = sys._getframe(depth).f_globals.get("__name__", "")  # pyright: ignore[reportPrivateUsage]
    return Delivery(target, name, policy, retries, store, f"{module}:{name}")


def settled(kind: str, options: Options) -> tuple[str, Policy, Retries, str]:
    """Return the name, the policy, the retries and the name of the store of some options. Raises InvalidProcess."""
    unknown = sorted(set(options) - set(Options.__annotations__))
    if unknown:
        raise InvalidProcess(
            f"A target has no option {unknown[0]!r}.", f"The options are {', '.join(Options.__annotations__)}."
        )
    given = dict(options)
    name, store = str(given.pop("name", kind)), str(given.pop("store", ""))
    retries = msgspec.convert(
        {key: given.pop(key) for key in Retries.__struct_fields__ if key in given}, Retries, strict=False
    )
    return name, policy_of(name, **given), retries, store  # type: ignore[arg-type]


def test_message(target: str, store: str = "") -> Message:
    """Return a message that says that it is a test."""
    from uuid import UUID

    identity = str(UUID(bytes=new_id()))
    return Message(identity, target, "test", "none", time.time_ns() // 1000, 0, 0, (), identity, "", store)
