"""Refusals of calls: no valid credential, no right, too many calls.

Knows: what a caller may learn, which must not depend on what it may not see. Does not know: HTTP
(problems.py gives each error its status).
"""

from __future__ import annotations

from eventfold.errors import EventfoldError


class AccessError(EventfoldError):
    """A call that was refused before anything was done."""

    code = "access"


class Unauthenticated(AccessError):
    """No credential, or one that is not valid. The message does not say why: a log of the server does."""

    code = "unauthenticated"


class Forbidden(AccessError):
    """The credential is valid and does not grant this. Fields: ``scope``."""

    code = "forbidden"


class OutsideScope(Forbidden):
    """The query, the condition or the event is not within the tags and types of the credential."""

    code = "outside-scope"


class EventNotFound(AccessError):
    """There is no such event for this caller: it does not exist, or is not within the caller's scope."""

    code = "event-not-found"


class KeyNotFound(AccessError):
    """No key has this id, or name. Fields: ``key``."""

    code = "key-not-found"


class TooManyCalls(AccessError):
    """More calls than the limit of this key or address. Fields: ``retry_after`` (seconds)."""

    code = "too-many-calls"


class ServerBusy(AccessError):
    """The server has as many calls as it handles at once. Fields: ``retry_after`` (seconds)."""

    code = "server-busy"


class IssuerUnavailable(AccessError):
    """The keys of the issuer of a token cannot be fetched. Fields: ``retry_after`` (seconds)."""

    code = "issuer-unavailable"
