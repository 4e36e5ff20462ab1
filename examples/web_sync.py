"""The bank behind HTTP on plain WSGI, as in Django and Flask: `gunicorn --threads 8 examples.web_sync:app`.

    POST /transfers       {"source": "a-1", "target": "a-2", "amount": "50"}, with the headers
                          X-User and Idempotency-Key
    GET  /accounts/a-1    its balance

Explained in docs/how-to/web-applications.md.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec

import eventfold as ef
from eventfold.errors import InvalidInput
from examples.bank import Account, InsufficientFunds, transfer

Answer = tuple[int, dict[str, Any]]


class Transfer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The command in the body of a request. Decoding validates it."""

    source: str
    target: str
    amount: Decimal

    def __post_init__(self) -> None:
        if not self.amount.is_finite():
            raise ValueError(f"{self.amount} is not an amount")


@cache
def store() -> ef.Store:
    """Return the store of this process. The first request opens it, after any fork; all threads share it."""
    opened = ef.Store(os.environ.get("BANK", "bank.db"))
    atexit.register(opened.close)
    return opened


def post_transfer(key: str, user: str, command: Transfer) -> Answer:
    """Move money, once for each key of a user."""
    once = store().using(command_id=f"transfer:{user}:{key}")
    try:
        done = once.decide(transfer, Account(command.source), Account(command.target), amount=command.amount)
    except InsufficientFunds as refused:
        return 422, {"error": str(refused)}
    except InvalidInput as mistaken:
        return 400, {"error": str(mistaken)}
    except ef.EventfoldError as error:  # busy, or the outcome is unknown: the request may be sent again
        return 503, {"error": str(error), "code": error.code}
    return 200, {"positions": list(done.positions), "balance": str(done.state(Account(command.source)).balance)}


def get_account(account: str) -> Answer:
    """Return the balance of an account."""
    return 200, {"balance": str(store().state(Account(account)).balance)}


# ------------------------------------------------------------------ the work of a framework


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A minimal WSGI application. Its `with` does what a middleware does: it covers the whole request."""
    user = environ.get("HTTP_X_USER", "")
    with store().context(actor=user or None, correlation_id=environ.get("HTTP_X_REQUEST_ID")):
        status, answer = route(environ, user)
    start_response(f"{status} {HTTPStatus(status).phrase}", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


def route(environ: dict[str, Any], user: str) -> Answer:
    """Decode a request and call its handler."""
    match [environ["REQUEST_METHOD"], *environ["PATH_INFO"].strip("/").split("/")]:
        case ["POST", "transfers"]:
            try:
                body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                key, command = environ["HTTP_IDEMPOTENCY_KEY"], msgspec.json.decode(body, type=Transfer)
            except (KeyError, ValueError) as error:  # msgspec's errors are ValueErrors
                return 400, {"error": f"invalid transfer: {error}"}
            return post_transfer(key, user, command)
        case ["GET", "accounts", account]:
            return get_account(account)
        case _:
            return 404, {"error": "not found"}
