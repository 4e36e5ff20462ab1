"""Who calls: the one credential of a request, checked against keys and tokens, rates, and the scope of the route.

Knows: the header Authorization, the address of the client. Does not know: what a route does, which store it is about.
"""

from __future__ import annotations

import ipaddress
import math
from functools import lru_cache

from starlette.requests import Request

from eventfold.core.counted import count_of
from eventfold.server.access.errors import AccessError, Forbidden, TooManyCalls, Unauthenticated
from eventfold.server.access.key_files import open_keyring
from eventfold.server.access.key_text import PREFIX
from eventfold.server.access.keyring import Keyring
from eventfold.server.access.local import check_local
from eventfold.server.access.rates import Rate
from eventfold.server.access.refusal_log import RefusalLog, Refused, now
from eventfold.server.access.settings import AccessSettings
from eventfold.server.access.tokens import Tokens
from eventfold.server.logs import REQUEST_ID
from eventfold.server.route import Route
from eventfold.server.scopes import ANYONE, Caller

NOT_NAMED = Caller(name="", scopes=frozenset())
"""The caller of a route that needs no credential: it has no right, whatever credential it sent."""
COUNTED = "eventfold.counted"  # key in the scope of a request
MAX_CREDENTIAL_BYTES = 8_192
IPV6_PREFIX = 64  # addresses of one network count together: one client has all of them


class Authentication:
    """Finds the caller of each request. Opened before the first one, and closed after the last."""

    def __init__(self, settings: AccessSettings) -> None:
        self._settings, self._is_configured = settings, settings.is_configured
        self.keyring: Keyring | None = None
        self.refusals = RefusalLog()
        self._tokens = Tokens(settings.tokens) if settings.tokens else None
        self._per_key = Rate(settings.rate_per_key) if settings.rate_per_key else None
        self._per_address = Rate(settings.rate_per_address) if settings.rate_per_address else None
        self._invalid = Rate(settings.refusals_per_address)

    async def open(self) -> None:
        """Open the log of keys. Raises InvalidInput without its secret, and what opening a store raises."""
        if self._settings.keys is not None:
            keyring = open_keyring(self._settings)
            await keyring.open()
            self.keyring = keyring

    async def close(self) -> None:
        """Close the log of keys."""
        if self.keyring is not None:
            await self.keyring.close()

    async def caller_of(self, request: Request, route: Route) -> Caller:
        """Return who calls. The first time, the request is counted against its rates; a stream asks again and again.

        Raises Unauthenticated without a valid credential, Forbidden without the route's scope, TooManyCalls.
        """
        if route.scope is None:
            return NOT_NAMED
        caller, counts = NOT_NAMED, COUNTED not in request.scope
        request.scope[COUNTED] = True
        try:
            if counts and self._per_address is not None:
                _within(self._per_address, address_of(request), "from this address")
            if not self._is_configured:
                check_local(request, self._settings)
                return ANYONE
            caller = await self._authenticated(request, address_of(request))
            if counts:
                _within(self._per_key, caller.identity, "of this credential")
            if route.scope not in caller.scopes:
                raise Forbidden(
                    f"This credential does not have the scope {route.scope.value}, which this call needs.",
                    "Use a credential that has it.",
                    scope=route.scope.value,
                )
            return caller
        except AccessError as error:
            self.refuse(request, route, caller, error)
            raise

    def refuse(self, request: Request, route: Route, caller: Caller, error: AccessError) -> None:
        """Record that a call was refused."""
        self.refusals.add(
            Refused(
                time=now(),
                reason=error.code,
                method=route.method,
                route=route.path,
                address=address_of(request),
                identity=caller.identity,
                scope=str(error.fields.get("scope", "")),
                request_id=REQUEST_ID.get() or "",
            )
        )

    async def _authenticated(self, request: Request, address: str) -> Caller:
        text = credential_of(request.headers.getlist("authorization"))
        caller = self._recall(text)
        if caller is None:
            if (wait := self._invalid.is_spent(address)) > 0:
                raise _too_many("Too many credentials from this address were not valid.", wait)
            caller = await self._recognise(text)
        if caller is None:
            self._invalid.add(address)
            raise Unauthenticated(
                "The credential is not valid.", "Send a key or a token that is valid on this server, as Bearer."
            )
        return caller

    def _recall(self, text: str) -> Caller | None:
        if text.startswith(PREFIX):
            return None if self.keyring is None else self.keyring.recall(text)
        return None if self._tokens is None else self._tokens.recall(text)

    async def _recognise(self, text: str) -> Caller | None:
        if text.startswith(PREFIX):
            return None if self.keyring is None else await self.keyring.recognise(text)
        return None if self._tokens is None else await self._tokens.recognise(text)


def credential_of(headers: list[str]) -> str:
    """Return the credential in the values of the header Authorization. Raises Unauthenticated unless there is one."""
    if not headers:
        raise Unauthenticated("The request has no credential.", "Send one: Authorization: Bearer efk_….")
    scheme, _, text = headers[0].partition(" ")
    if len(headers) > 1 or scheme.lower() != "bearer" or not text or len(text) > MAX_CREDENTIAL_BYTES:
        raise Unauthenticated(
            "The header Authorization cannot be used.", "Send exactly one, as Authorization: Bearer efk_…."
        )
    return text


def address_of(request: Request) -> str:
    """Return the address of the client for counting: that of an IPv6 client without the part that it can choose."""
    client: tuple[str, int] | None = request.scope.get("client")
    return _counted_address(client[0] if client is not None else "")


@lru_cache(maxsize=4_096)
def _counted_address(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a Unix socket
        return "local"
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


def _within(rate: Rate | None, who: str, whose: str) -> None:
    if rate is not None and (wait := rate.add(who)) > 0:
        raise _too_many(f"There are more calls {whose} than its limit.", wait)


def _too_many(what: str, wait: float) -> TooManyCalls:
    seconds = math.ceil(wait)
    return TooManyCalls(what, f"Repeat the call in {count_of(seconds, 'second')}.", retry_after=seconds)
