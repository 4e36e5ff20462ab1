"""The JSON of consumers over HTTP: what is sent to them, and what they answer.

Knows: the fields. Does not know: routes, deliveries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from eventfold.core.event_json import EventLine
from eventfold.core.wire import QueryJson

MAX_EVENTS = 1_000  # in one call
MAX_WAIT_S = 60.0
Tokens = Annotated[list[str], Meta(min_length=1, max_length=MAX_EVENTS)]


class ConsumerJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A consumer, to be created or changed. See ConsumerDefinition.

    `begin`: for a new one, where it starts: "now", a position (exclusive; 0: the first event), or a cursor.
    """

    query: QueryJson | None = None
    filter: str = ""
    key: Annotated[str, Meta(max_length=200)] = ""
    max_in_flight: Annotated[int, Meta(ge=1, le=1_000)] = 100
    lease_seconds: Annotated[float, Meta(ge=0.1, le=43_200)] = 30.0
    attempts: Annotated[int, Meta(ge=1, le=1_000)] = 5
    begin: Annotated[int, Meta(ge=0)] | str = msgspec.field(name="from", default=0)


class ConsumerStatus(msgspec.Struct, kw_only=True):
    """A consumer and how far it is.

    `position`: every event of it up to there, inclusive, is finished or parked. `head`: the last position of the log.
    `lag`: events after `position` that it has not finished, at least; `lag_seconds`: since the first of them was
    recorded. `in_flight`, `waiting`: known to the server that delivers them only; null elsewhere. `state` and
    `sentence`: as the status of every projection says.
    """

    name: str
    query: QueryJson | None
    filter: str
    key: str
    max_in_flight: int
    lease_seconds: float
    attempts: int
    position: int
    head: int
    lag: int
    lag_seconds: float
    parked: int
    skipped: int
    in_flight: int | None
    state: str
    sentence: str


class Consumers(msgspec.Struct):
    """All consumers of a store that the caller sees, by name."""

    consumers: Sequence[ConsumerStatus]


class ReceiveJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A request for events: up to `max` of them; `wait`: seconds to wait for the first if there is none."""

    max: Annotated[int, Meta(ge=1, le=MAX_EVENTS)] = 1
    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT_S)] = 0.0


class DeliveryJson(msgspec.Struct):
    """A delivered event. `token`: to acknowledge or reject it. `attempt`: 1 for its first delivery."""

    token: str
    attempt: int
    event: EventLine


class DeliveriesJson(msgspec.Struct):
    """Delivered events, in the order of the log. `lease_seconds`: for which each of them is this worker's."""

    deliveries: Sequence[DeliveryJson]
    lease_seconds: float


class AcknowledgeJson(msgspec.Struct, forbid_unknown_fields=True):
    """Deliveries whose events were handled."""

    tokens: Tokens


class RejectJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Deliveries whose events were not handled.

    They are delivered again after `delay` seconds, or parked, if `park` is true or the attempts are used up. `reason`
    is shown with a parked event.
    """

    tokens: Tokens
    delay: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    park: bool = False
    reason: Annotated[str, Meta(max_length=500)] = "rejected by its worker"


class Outcome(msgspec.Struct):
    """What became of deliveries. `stale`: tokens without effect: their events were delivered again, or parked."""

    done: int
    stale: list[str]


class ParkedJson(msgspec.Struct):
    """A parked event, or one that an operator skipped (`state`), with the reason."""

    position: int
    type: str
    key: str
    state: str
    attempts: int
    reason: str


class ParkedEvents(msgspec.Struct):
    """The parked and skipped events of a consumer, in the order of the log."""

    events: Sequence[ParkedJson]


class RetryJson(msgspec.Struct, forbid_unknown_fields=True):
    """Which parked event to deliver again, with those that wait behind it; null: all."""

    position: int | None = None


class Retried(msgspec.Struct):
    """How many events are due for another delivery."""

    due: int


class Removed(msgspec.Struct):
    """A consumer that was removed, and the position up to which it had finished."""

    name: str
    position: int
