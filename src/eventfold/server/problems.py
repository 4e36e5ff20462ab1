"""Errors as responses: the status of each error code, in problem details (RFC 9457).

Knows: error codes, statuses. Does not know: routes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from eventfold.errors import (
    AppendConflict,
    AppendUnconfirmed,
    CursorMismatch,
    EventfoldError,
    EventIdReused,
    EventNotParked,
    InvalidInput,
    LeaseHeld,
    LeaseLost,
    MissingExtra,
    NotSupported,
    ProgressUnknown,
    ProjectionBehind,
    ProjectionChanged,
    ProjectionStopped,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
    TargetUnavailable,
    UnknownProjection,
)
from eventfold.server.access.errors import (
    EventNotFound,
    Forbidden,
    IssuerUnavailable,
    KeyNotFound,
    ServerBusy,
    TooManyCalls,
    Unauthenticated,
)
from eventfold.server.consumers.errors import ConsumerElsewhere
from eventfold.server.logs import REQUEST_ID
from eventfold.server.places import Asked, without_places
from eventfold.server.refusals import (
    BodyTooLarge,
    NotAcceptable,
    NotFound,
    RequestKeyReused,
    SchemaConflict,
    StoreReopening,
    UnsupportedMedia,
)

PROBLEM = "application/problem+json"


# The first class that matches decides; all others are 500.
STATUSES: tuple[tuple[type[EventfoldError], int], ...] = (
    (Unauthenticated, 401),
    (Forbidden, 403),
    (EventNotFound, 404),
    (KeyNotFound, 404),
    (TooManyCalls, 429),
    (ServerBusy, 503),
    (IssuerUnavailable, 503),
    (NotFound, 404),
    (SchemaConflict, 409),
    (NotAcceptable, 406),
    (BodyTooLarge, 413),
    (UnsupportedMedia, 415),
    (RequestKeyReused, 422),
    (StoreReopening, 503),
    (InvalidInput, 422),
    (AppendConflict, 409),
    (EventIdReused, 409),
    (CursorMismatch, 409),
    (EventNotParked, 409),
    (UnknownProjection, 404),
    (ProjectionChanged, 409),
    (ProjectionStopped, 409),
    (ProgressUnknown, 409),
    (LeaseLost, 409),
    (LeaseHeld, 409),
    (ProjectionBehind, 503),
    (ConsumerElsewhere, 503),
    (TargetUnavailable, 503),
    (AppendUnconfirmed, 503),
    (StoreReadOnly, 403),
    (StoreFull, 507),
    (StoreUnavailable, 503),
    (NotSupported, 501),
    (MissingExtra, 501),
)
TITLES = {404: "Not found", 405: "Method not allowed", 413: "Too large", 500: "The server failed"}


class Problem(msgspec.Struct, omit_defaults=True):
    """Problem details: `title` is what happened, `detail` what to do now, `code` is stable, `fields` are its facts."""

    status: int
    code: str
    title: str
    detail: str
    type: str = "about:blank"
    request_id: str | None = None
    fields: dict[str, Any] = {}


def status_of(error: EventfoldError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def problem_of(error: EventfoldError, asked: Asked = Asked()) -> Problem:  # noqa: B008 - it is frozen
    """An error as problem details, without the places of stores."""
    shown = without_places(error, asked)
    fields = {key: value for key, value in shown.fields.items() if isinstance(value, str | int | float | bool | None)}
    return Problem(status=status_of(error), code=error.code, title=shown.what, detail=shown.remedy, fields=fields)


def error_response(error: EventfoldError, asked: Asked = Asked()) -> Response:  # noqa: B008 - it is frozen
    """An error as a response, with the headers that belong to its status. `asked`: what it may quote."""
    problem, headers = problem_of(error, asked), dict[str, str]()
    if problem.status in (429, 503):
        headers["Retry-After"] = str(error.fields.get("retry_after", 1))
    elif problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return problem_response(problem, headers)


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """Problem details as a response, with the id of the request."""
    if problem.request_id is None:
        problem = msgspec.structs.replace(problem, request_id=REQUEST_ID.get())
    return Response(msgspec.json.encode(problem), problem.status, headers, media_type=PROBLEM)
