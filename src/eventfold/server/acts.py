"""Acts of an operator over HTTP: each has a reason, which is kept in the log with the actor.

Knows: how a caller is named. Does not know: what is done.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from eventfold.aio import AsyncStore
from eventfold.projections.async_admin import AsyncProjectionAdmin
from eventfold.server.access.errors import Forbidden
from eventfold.server.call import Call
from eventfold.server.scopes import Scope

Reason = Annotated[str, Meta(min_length=1, max_length=1_000, pattern=r"\S", description="Why; kept in the log.")]


class Act(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An act. `reason` is kept in the log. `actor`: another than the owner of the credential (scope impersonate)."""

    reason: Reason
    actor: Annotated[str, Meta(min_length=1, max_length=255)] | None = None


def actor_of(call: Call, given: str | None) -> str | None:
    """Return who acts; None without a name. Raises Forbidden if the caller may not name another one."""
    own = call.caller.name or None
    if given is None or given == own:
        return own
    if own is not None and Scope.IMPERSONATE not in call.caller.scopes:
        raise Forbidden(
            "The act names another actor than the owner of this credential.",
            "Leave the actor out: the server sets it. A credential with the scope impersonate may name another.",
            scope=Scope.IMPERSONATE.value,
        )
    return given


def facts_of(call: Call, act: Act) -> dict[str, str]:
    """Return the metadata of what an act writes to the log."""
    actor = actor_of(call, act.actor)
    return {"reason": act.reason} | ({} if actor is None else {"actor": actor})


def as_caller(call: Call) -> AsyncStore:
    """Return the store of a call, which writes with the name of the caller as actor: for acts without a reason."""
    return call.store.using(actor=call.caller.name) if call.caller.name else call.store


def administration(call: Call, act: Act) -> AsyncProjectionAdmin:
    """Return the administration of projections that records its operations with the actor and the reason."""
    facts: dict[str, Any] = {**facts_of(call, act)}
    return call.store.using(**facts).projections
