"""Who calls: the one credential of a request, checked against keys, and against the scope that a route needs.

Knows: the header Authorization, the keyring. Does not know: what a route does, which store it is about.
"""

from __future__ import annotations

from starlette.requests import Request

from eventfold.server.access.errors import Forbidden, Unauthenticated
from eventfold.server.access.key_files import open_keyring
from eventfold.server.access.key_text import PREFIX
from eventfold.server.access.keyring import Keyring
from eventfold.server.access.settings import AccessSettings
from eventfold.server.route import Route
from eventfold.server.scopes import ANYONE, Caller

NOT_NAMED = Caller(name="", scopes=frozenset())
"""The caller of a route that needs no credential: it has no right, whatever credential it sent."""
MAX_CREDENTIAL_BYTES = 8_192


class Authentication:
    """Finds the caller of each request. Opened before the first one, and closed after the last."""

    def __init__(self, settings: AccessSettings) -> None:
        self._settings = settings
        self.keyring: Keyring | None = None

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
        """Return who calls. Raises Unauthenticated without a valid credential, Forbidden without the route's scope."""
        if route.scope is None:
            return NOT_NAMED
        if not self._settings.is_configured:
            return ANYONE
        caller = await self._recognise(credential_of(request.headers.getlist("authorization")))
        if caller is None:
            raise Unauthenticated(
                "The credential is not valid.", "Send a key that is active on this server: Authorization: Bearer efk_…."
            )
        if route.scope not in caller.scopes:
            raise Forbidden(
                f"This credential does not have the scope {route.scope.value}, which this call needs.",
                "Use a credential that has it.",
                scope=route.scope.value,
            )
        return caller

    async def _recognise(self, text: str) -> Caller | None:
        if self.keyring is not None and text.startswith(PREFIX):
            return await self.keyring.recognise(text)
        return None


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
