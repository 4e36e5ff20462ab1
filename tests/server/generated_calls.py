"""Calls made by schemathesis from the OpenAPI document: of each operation by itself, and along its links.

Each answer is checked: its status and media type are described, its body fits its schema, data that the document
forbids is refused, and a call without a valid credential is refused. No answer has the status 500.
Knows: schemathesis, the bank. Does not know: pytest, how many calls are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
    response_schema_conformance,
)

from eventfold import Store
from eventfold.errors import ProcessError
from eventfold.ports.engine_messages import MEDIA_TYPE
from eventfold.server import Settings, application
from eventfold.server.settings import EventSettings
from tests.server.bank import Balance, Deposited, Opened, Review
from tests.server.connections import ServedProtocol
from tests.server.keys import bearer, issue, with_keys
from tests.support.servers.http import serving

# Not checked: what the document allows and the server refuses with 422, since a time, a filter or a name is text.
# 5xx is judged here: 501 is the answer where an engine does not have a function.
ENDLESS = ("/v1/follow",)  # streams that end with the connection, which have tests of their own
WITH_TUPLES = ("/v1/engine/read", "/v1/engine/request-keys")  # schemathesis 4.32 misreads prefixItems of an answer
BOUNDED = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.generate],
    "print_blob": False,
}


@schemathesis.serializer(MEDIA_TYPE)
def as_message(_context: Any, value: Any) -> bytes:
    """A generated body as MessagePack, which has no integers of more than 64 bits."""
    return msgspec.msgpack.encode(_within_64_bits(value))


def _within_64_bits(value: Any) -> Any:
    if isinstance(value, int):
        return max(-(2**63), min(value, 2**64 - 1)) if not isinstance(value, bool) else value
    if isinstance(value, list):
        return [_within_64_bits(each) for each in value]
    return {key: _within_64_bits(each) for key, each in value.items()} if isinstance(value, dict) else value


@schemathesis.deserializer(MEDIA_TYPE)
def from_message(_context: Any, answer: Any) -> Any:
    """An answer in MessagePack as JSON values: bytes as base64."""
    return msgspec.to_builtins(msgspec.msgpack.decode(answer.content))


def fill(path: str) -> None:
    """Write events, a read model with a parked event, and a process that is stuck."""
    with Store(path) as store:
        for number, owner in enumerate(("ann", "bob", "")):
            store.append(Opened(f"a-{number}", owner), Deposited(f"a-{number}", Decimal(10 * number)))
        store.append(Deposited("a-1", Decimal(13)))
        store.project(Balance)
        try:
            store.run_until_idle(Review)
        except ProcessError:
            return
    raise AssertionError("the process was expected to fail at an account without an owner")


@contextmanager
def bank_server(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve a bank to callers with a key. Yields the address, and the header that sends the key."""
    path = str(folder / "bank.db")
    fill(path)
    key = bearer(issue(folder))
    accepting: Settings = msgspec.structs.replace(Settings(), events=EventSettings(accept_unknown=True))
    app = application(
        path,
        modules=["tests.server.bank"],
        settings=with_keys(folder, accepting, refusals_per_address="1000000/minute"),
    )
    with serving(app, http=ServedProtocol) as url:
        yield url, key


def schema_of(url: str, key: dict[str, str]) -> Any:
    """The document of a server, as schemathesis reads it, without the streams that do not end."""
    found = schemathesis.openapi.from_url(f"{url}/v1/openapi.json", headers=dict(key))
    for path in ENDLESS:
        found = found.exclude(path=path)
    return found


def check(case: Any, answer: Any, *unchecked: Any) -> None:
    """Check one answer, except by `unchecked`. Raises failures of schemathesis, or AssertionError for status 500."""
    assert answer.status_code not in (500, 502, 504), f"{case.as_curl_command()}\n{answer.status_code} {answer.text}"
    excluded = [positive_data_acceptance, schemathesis.checks.not_a_server_error, *unchecked]
    if case.path.startswith(WITH_TUPLES):
        excluded.append(response_schema_conformance)
    case.validate_response(answer, excluded_checks=excluded)


def call_each(url: str, key: dict[str, str], *, examples: int, seed: int) -> tuple[int, list[str]]:
    """Call each operation with this many generated requests; return the number of calls, and what was wrong."""
    calls, wrong = 0, list[str]()
    for operation in schema_of(url, key).get_all_operations():

        @seeded(seed)
        @settings(max_examples=examples, **BOUNDED)
        @given(case=operation.ok().as_strategy())
        def run(case: Any) -> None:
            nonlocal calls
            calls += 1
            check(case, case.call(headers=dict(key), timeout=60))

        try:
            run()
        except BaseExceptionGroup as group:
            wrong.extend(f"{operation.ok().label}: {each}" for each in group.exceptions)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported with the operation
            wrong.append(f"{operation.ok().label}: {error}")
    return calls, wrong


def follow_links(url: str, key: dict[str, str], *, examples: int, steps: int, seed: int) -> int:
    """Follow links of the document in random chains of calls; return the number of calls. Raises what is wrong."""
    calls = 0

    class Links(schema_of(url, key).as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": dict(key), "timeout": 60}

        def validate_response(self, response: Any, case: Any, *_: Any, **__: Any) -> None:
            nonlocal calls
            calls += 1
            check(case, response, negative_data_rejection)  # the key that is sent replaces generated headers

    seeded(seed)(Links)
    Links.run(settings=settings(max_examples=examples, stateful_step_count=steps, **BOUNDED))
    return calls
