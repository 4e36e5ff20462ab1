"""What a lost connection, a proxy or the server itself says, as errors of the library.

Knows: exceptions of aiohttp, problem details. Does not know: what was asked for.
"""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec

from eventfold.errors import (
    AppendUnconfirmed,
    EventfoldError,
    InvalidInput,
    NotAStore,
    StoreBusy,
    StoreUnavailable,
)
from eventfold.ports.engine_messages import ErrorMessage, errors_by_code

BUSY_CODES = {"too-many-calls", "server-busy", "too-many-connections", "store-reopening"}  # nothing was done
_CLASSES = errors_by_code()


class ServerRefused(StoreUnavailable):
    """The server refused the call: the key, its rights, or a rule that this version does not know.

    ``code`` is the server's, as in the field ``code``. Field: ``status``, that of HTTP.
    """

    code = "server-refused"

    def __init__(self, what: str, remedy: str, **fields: Any) -> None:
        super().__init__(what, remedy, **fields)
        self.code = fields.get("code", type(self).code)  # pyright: ignore[reportAttributeAccessIssue] (of this object)


class NotSent(Exception):
    """No connection could be made: the server has received nothing. `error` says why."""

    def __init__(self, error: StoreUnavailable) -> None:
        super().__init__(str(error))
        self.error = error


class Lost(Exception):
    """The call was sent, perhaps in part, and its answer did not come. `why` is the end of a sentence."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Busy(Exception):
    """The server did nothing, and says when to ask again."""

    def __init__(self, error: StoreBusy, after_s: float) -> None:
        super().__init__(str(error))
        self.error, self.after_s = error, after_s


class _Problem(msgspec.Struct):
    """Problem details, as far as they are used. See server/problems.py."""

    code: str
    title: str
    detail: str
    fields: dict[str, object] = {}


def failure_of(error: Exception, where: str) -> NotSent | Lost:
    """What an exception of the HTTP client means for a call."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return NotSent(
            StoreUnavailable(
                f"The certificate of {where} is not trusted ({error.certificate_error}).",
                "Nothing was sent: check the name of the host, or name the file of its authority: ca_file=…, or the "
                "variable SSL_CERT_FILE.",
                where=where,
            )
        )
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        reason = getattr(error, "os_error", None)
        why = getattr(reason, "strerror", None) or str(reason or "no connection within the timeout")
        return NotSent(
            StoreUnavailable(
                f"The server at {where} cannot be reached ({why}).",
                "Nothing was sent: check the address and whether eventfold serve runs there.",
                where=where,
            )
        )
    if isinstance(error, TimeoutError):
        return Lost("no answer came within the timeout")
    return Lost(f"the connection was lost ({type(error).__name__})")


def error_of(status: int, media_type: str, body: bytes, where: str, retry_after: str | None) -> EventfoldError | Busy:
    """The error of an answer that is not a success, or Busy. Raises Lost if it does not say what was done."""
    problem = _problem_of(body) if media_type == "application/problem+json" else None
    if problem is None:
        return _error_of_status(status, where)
    if problem.code in BUSY_CODES:
        return Busy(StoreBusy(problem.title, problem.detail, status=status), _seconds(retry_after))
    kind = _CLASSES.get(problem.code)
    if kind is not None:
        return kind(problem.title, problem.detail, **problem.fields)
    if status == 413:
        remedy = "Nothing was written: append fewer events at a time, or raise limits.body_bytes of the server."
        return InvalidInput(problem.title, remedy, **problem.fields)
    if status >= 500:
        raise Lost(f"the server answered with an error of its own, {status}: {problem.title}")
    fields = {**problem.fields, "status": status, "code": problem.code}
    return ServerRefused(problem.title, problem.detail, **fields)


def _problem_of(body: bytes) -> _Problem | None:
    try:
        return msgspec.json.decode(body, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _error_of_status(status: int, where: str) -> EventfoldError:
    """The error of an answer that eventfold did not write. Raises Lost if it may have acted before."""
    if status in (404, 405, 501):
        return NotAStore(
            f"There is no eventfold server at {where} (HTTP {status}).",
            "Check the address: the name of the store is the last part of its path.",
            where=where,
        )
    if status == 413:
        return InvalidInput(
            "The append is larger than the server, or a proxy in front of it, accepts (HTTP 413).",
            "Nothing was written: append fewer events at a time, or raise the limit there.",
        )
    if status in (401, 403, 407):
        return ServerRefused(
            f"A proxy in front of {where} refused the call (HTTP {status}).", "Check its rules.", status=status
        )
    if 300 <= status < 400:
        return StoreUnavailable(
            f"{where} redirects to another address (HTTP {status}).", "Open the store at that address.", where=where
        )
    raise Lost(f"a proxy answered with HTTP {status}")


def _seconds(retry_after: str | None) -> float:
    try:
        return max(0.05, float(retry_after or ""))
    except ValueError:  # a date, or nothing
        return 1.0


def error_of_message(message: ErrorMessage) -> EventfoldError:
    """The error of an outcome."""
    kind = _CLASSES.get(message.code)
    if kind is not None:
        return kind(message.what, message.remedy, **message.fields)
    return ServerRefused(message.what, message.remedy, **{**message.fields, "code": message.code})


def unconfirmed(why: str, where: str) -> AppendUnconfirmed:
    """The error of an append whose answer was lost."""
    return AppendUnconfirmed(
        f"It is unknown whether the server at {where} wrote this: {why}.",
        "Repeat the identical append: with the same event ids it is written once.",
        where=where,
    )


def unreachable(why: str, where: str) -> StoreUnavailable:
    """The error of a call that only reads, and that was repeated in vain."""
    return StoreUnavailable(
        f"The server at {where} gave no answer: {why}.", "Nothing was written: try again later.", where=where
    )
