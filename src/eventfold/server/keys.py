"""API keys over HTTP: create, list, rotate, revoke; and the calls that were refused.

The text of a key is in the answer that creates or rotates it only.
A caller creates no key that grants more than its own credential: it has all scopes of the new key, and is neither
narrowed nor bound to some stores.
Knows: the keyring of the server. Does not know: how keys are stored.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response

from eventfold.errors import NotSupported
from eventfold.server.access.errors import Forbidden
from eventfold.server.access.key_facts import Grant
from eventfold.server.access.key_info import KeyInfo, key_info
from eventfold.server.access.keyring import Issued, Keyring
from eventfold.server.access.refusal_log import Refused
from eventfold.server.call import Call, json_response
from eventfold.server.route import Parameter, Route
from eventfold.server.scopes import Scope

MAX_GRACE_S = 90 * 86_400
Names = Annotated[tuple[str, ...], Meta(max_length=1_000)]


class NewKey(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A key to create. `stores` null: all; `tags`, `tag_prefixes`, `types` empty: not narrowed by them.

    `expires`: a time in the future. `duplicate`: also if an active key has this name.
    """

    name: str
    scopes: tuple[Scope, ...]
    stores: Names | None = None
    tags: Names = ()
    tag_prefixes: Names = ()
    types: Names = ()
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    duplicate: bool = False


class Rotation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How long, in seconds, the secrets of the key from before stay valid."""

    grace_seconds: Annotated[float, Meta(ge=0, le=MAX_GRACE_S)] = 0.0


class KeyList(msgspec.Struct):
    """All keys, in the order of their creation."""

    keys: list[KeyInfo]


class NewKeyText(msgspec.Struct):
    """A key that was created or rotated. `key` is shown now, and never again."""

    id: str
    key: str


class Refusals(msgspec.Struct):
    """Calls that were refused since the server started: the last 1,000, oldest first, and how many for each reason."""

    last: list[Refused]
    counts: dict[str, int]


async def refusals(call: Call) -> Response:
    """Answer with the refused calls."""
    _check_whole_server(call)
    found = call.server.authentication.refusals
    return json_response(Refusals(list(found.last), dict(found.counts)))


async def list_keys(call: Call) -> Response:
    """Answer with all keys."""
    return json_response(KeyList([key_info(key) for key in await _keyring(call).list()]))


async def create(call: Call) -> Response:
    """Create a key."""
    keyring, new = _keyring(call), await call.body(NewKey)
    grant = Grant(scopes=new.scopes, stores=new.stores, tags=new.tags, tag_prefixes=new.tag_prefixes, types=new.types)
    _check_grants_no_more(call, grant)
    issued = await keyring.create(new.name, grant, actor=call.caller.name, expires=new.expires, duplicate=new.duplicate)
    return _answer(issued, 201)


async def rotate(call: Call) -> Response:
    """Give a key a new secret."""
    keyring, rotation, id = _keyring(call), await call.body(Rotation), call.request.path_params["id"]
    _check_grants_no_more(call, (await keyring.get(id)).grant)  # the caller receives its new text
    return _answer(await keyring.rotate(id, actor=call.caller.name, grace_s=rotation.grace_seconds), 200)


async def revoke(call: Call) -> Response:
    """Revoke a key."""
    keyring, id = _keyring(call), call.request.path_params["id"]
    await keyring.revoke(id, actor=call.caller.name)
    return json_response(key_info(await keyring.get(id)))


def _keyring(call: Call) -> Keyring:
    _check_whole_server(call)
    keyring = call.server.authentication.keyring
    if keyring is None:
        raise NotSupported("This server has no API keys.", "Set access.keys to the address of a log for them.")
    return keyring


def _check_whole_server(call: Call) -> None:
    caller = call.caller
    if caller.is_narrowed or caller.stores is not None:
        raise Forbidden(
            "Keys and refusals are of the whole server, and this credential is for a part of it.",
            "Use a credential with the scope admin that is not narrowed to stores, tags or types.",
            scope=Scope.ADMIN.value,
        )


def _check_grants_no_more(call: Call, grant: Grant) -> None:
    missing = [scope.value for scope in grant.scopes if scope not in call.caller.scopes]
    if missing:
        raise Forbidden(
            f"The key has scopes that this credential does not have: {', '.join(missing)}.",
            "Leave them out, or use a credential that has them.",
            scope=missing[0],
        )


def _answer(issued: Issued, status: int) -> Response:
    return json_response(NewKeyText(issued.id, issued.key), status, {"Cache-Control": "no-store"})


_ID = Parameter(name="id", type=str, summary="The id of the key: 8 characters", place="path", required=True)
_OF_ADMIN: dict[str, Any] = {"scope": Scope.ADMIN, "of_store": False}
ROUTES = (
    Route(method="GET", path="/v1/keys", handler=list_keys, summary="All API keys", response=KeyList, **_OF_ADMIN),
    Route(
        method="GET",
        path="/v1/refusals",
        handler=refusals,
        summary="The calls that were refused, and why",
        response=Refusals,
        **_OF_ADMIN,
    ),
    Route(
        method="POST",
        path="/v1/keys",
        handler=create,
        summary="Create an API key; its text is in this answer only",
        request=NewKey,
        response=NewKeyText,
        status=201,
        **_OF_ADMIN,
    ),
    Route(
        method="POST",
        path="/v1/keys/{id}/rotate",
        handler=rotate,
        summary="Give an API key a new secret",
        parameters=(_ID,),
        request=Rotation,
        response=NewKeyText,
        errors=(404,),
        **_OF_ADMIN,
    ),
    Route(
        method="DELETE",
        path="/v1/keys/{id}",
        handler=revoke,
        summary="Revoke an API key",
        parameters=(_ID,),
        response=KeyInfo,
        errors=(404,),
        **_OF_ADMIN,
    ),
)
