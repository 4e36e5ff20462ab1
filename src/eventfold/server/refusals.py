"""Refusals of calls for reasons of HTTP: media types, sizes, things that are not there.

Knows: what was asked. Does not know: statuses (problems.py has them), stores, callers.
"""

from __future__ import annotations

from eventfold.errors import EventfoldError


class Refusal(EventfoldError):
    """A call that was refused before anything was done. Nothing was written."""

    code = "refused"


class NotFound(Refusal):
    """There is nothing of this name here."""

    code = "not-found"


class NotAcceptable(Refusal):
    """The client accepts none of the media types that the route returns. Fields: ``offered``."""

    code = "not-acceptable"


class UnsupportedMedia(Refusal):
    """The body is in a format or an encoding that the route does not read. Fields: ``given``."""

    code = "unsupported-media-type"


class BodyTooLarge(Refusal):
    """The body, or what it decompresses to, has more bytes than the server reads. Fields: ``limit``."""

    code = "body-too-large"


class SchemaConflict(Refusal):
    """The schema differs from one that is registered, or events would not be readable by it. Fields: ``version``."""

    code = "schema-conflict"


class StoreReopening(Refusal):
    """The file of the store was replaced or moved, and the server opens it again. Fields: ``retry_after`` (seconds)."""

    code = "store-reopening"


class RequestKeyReused(Refusal):
    """The request key is that of an earlier append of other events. Fields: ``first``, ``last`` (of that append)."""

    code = "request-key-reused"
