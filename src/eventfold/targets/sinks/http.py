"""Rows sent to an HTTP endpoint: a signed POST for each batch, with an idempotency key.

    {"type": "carrier_month.rows", "timestamp": …, "data": {"puts": […], "deletes": […], "number": 12, "after": 11, …}}
    {"type": "carrier_month.shown", …: readers see generation 2}      {"type": "carrier_month.dropped", …}

2xx means accepted. 409 means that the previous batch is missing (`after` is not the last number that the endpoint has):
then all rows are sent, in chunks. Requests are signed like webhooks (webhooks.py). Knows: the content of requests. Does
not know: signatures, when a failed batch is sent again after the retries here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec

from eventfold.errors import DeliveryFailed, InvalidProcess, InvalidUrl, TargetUnavailable
from eventfold.ports.sink import Batch, SinkState
from eventfold.webhooks import Answer, accepted, is_address, key_of, post, sign

SECRET_VARIABLE = "EVENTFOLD_SINK_SECRET"  # noqa: S105 (the name of an environment variable, which has the secret)
RETRY_PAUSES_S = (0.2, 1.0)  # before each retry; later retries are the runner's, with its own back-off
STATUS_MISSING = 409


class HttpSink:
    """The sink that sends rows to the HTTP endpoint at `url`.

    `secret` is as for webhooks (several while one replaces another); without it, the environment variable
    EVENTFOLD_SINK_SECRET has it. `timeout` is in seconds. Raises InvalidUrl.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str | Sequence[str] = (),
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        secrets = [secret] if isinstance(secret, str) else list(secret)
        secrets = secrets or os.environ.get(SECRET_VARIABLE, "").split()
        parts = urlsplit(url)
        if not is_address(url) or not secrets:
            raise InvalidUrl(
                f"{parts.hostname or url} is no address to post rows to, or there is no secret to sign requests with.",
                f"Give https://HOST/PATH, and a secret: {SECRET_VARIABLE}=whsec_… in the environment, or "
                "target=HttpSink(url, secret=…).",
            )
        try:
            self._keys = [key_of(each) for each in secrets]
        except InvalidProcess as error:
            raise InvalidUrl(error.what, error.remedy) from None
        self._url, self._timeout, self._headers, self._clock = url, timeout, dict(headers or {}), clock
        self.address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def held(self, projection: str, generation: int, partition: int) -> SinkState | None:
        """Return None: an HTTP endpoint cannot be asked what it has."""
        return None

    def write(self, batch: Batch) -> bool:
        """See the port."""
        data = msgspec.to_builtins(batch, builtin_types=(datetime,))
        del data["time"]
        return self._post(batch.id, f"{batch.projection}.rows", batch.time, data).status != STATUS_MISSING

    def show(self, projection: str, generation: int, store: str) -> None:
        """See the port."""
        self._post_now(f"{projection}.shown", {"store": store, "projection": projection, "generation": generation})

    def drop(self, projection: str, generation: int | None, store: str) -> None:
        """See the port."""
        self._post_now(f"{projection}.dropped", {"store": store, "projection": projection, "generation": generation})

    def close(self) -> None:
        """Do nothing: no connection stays open."""

    def _post_now(self, kind: str, data: dict[str, Any]) -> None:
        self._post(uuid4().hex, kind, datetime.fromtimestamp(self._clock(), UTC), data)

    def _post(self, identity: str, kind: str, moment: datetime, data: dict[str, Any]) -> Answer:
        body = msgspec.json.encode({"type": kind, "timestamp": moment, "data": data})
        for pause in (*RETRY_PAUSES_S, None):
            try:
                signed = sign(identity, int(self._clock()), body, self._keys)
                headers = {"content-type": "application/json", "idempotency-key": identity, **self._headers, **signed}
                answer = post(self._url, body, headers, self._timeout, identity)
                if answer.status != STATUS_MISSING:
                    accepted(self._url, answer, identity)
                return answer
            except DeliveryFailed as error:
                if pause is None:
                    raise TargetUnavailable(error.what, error.remedy, address=self.address) from error
                time.sleep(pause)
        raise AssertionError("there is always a last attempt")
