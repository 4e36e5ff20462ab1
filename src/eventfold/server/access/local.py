"""A server without authentication: it answers programs of this machine, not other machines, and not pages of others.

A page that a browser on this machine shows can send requests to loopback, and can read the answers if the name of its
own host is made to point there. So the names in the headers Host and Origin must be names of this machine; where a
browser sends no Origin, its header Sec-Fetch-Site must not say that the page is of another host.
Knows: these headers. Does not know: routes, credentials.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.requests import Request

from eventfold.server.access.errors import Forbidden
from eventfold.server.access.reachable import is_loopback
from eventfold.server.access.settings import AccessSettings


def check_local(request: Request, settings: AccessSettings) -> None:
    """Raise Forbidden unless the caller is a program of this machine: another ASGI server may listen anywhere.

    It is not if the address of the server or of the client is another machine's, or the request is addressed to, or
    comes from a page of, another host. A socket file is protected by its permissions.
    """
    server, client = request.scope.get("server"), request.scope.get("client")
    if settings.no_auth or (server is not None and server[1] is None):
        return
    if any(each is not None and _is_elsewhere(str(each[0])) for each in (server, client)):
        raise Forbidden(
            "The server has no authentication, and can be reached from other machines.",
            "Configure keys (access.keys), or set access.no_auth if something in front of it authenticates.",
        )
    if server is None or not _is_address(str(server[0])):  # called within a process, as tests do
        return
    if not _is_on_loopback("//" + request.headers.get("host", "")):
        raise Forbidden(
            "The server has no authentication, and the request names a host that is not this machine.",
            "Use http://127.0.0.1; behind a proxy, configure keys, or pass --no-auth if the proxy authenticates.",
        )
    origin = request.headers.get("origin")
    is_foreign = origin is not None and origin not in settings.origins and not _is_on_loopback(origin)
    # Without Origin browsers send links, images and the like, which could still start a backup or hold a stream open.
    if is_foreign or (origin is None and request.headers.get("sec-fetch-site") == "cross-site"):
        raise Forbidden(
            "The server has no authentication, and the request comes from a page of another host.",
            "Configure keys, or list the page's origin in access.origins.",
        )


def is_call_of_this_machine(request: Request) -> bool:
    """Whether a request comes from loopback or a Unix socket, and is addressed to a name of this machine."""
    if request.client is not None and not is_loopback(request.client.host):
        return False
    return _is_on_loopback("//" + request.headers.get("host", ""))


@lru_cache(maxsize=1_024)
def _is_elsewhere(host: str) -> bool:
    """Whether this is the address of another machine, or of this one as others see it; not if it is no address."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (address.is_unspecified or is_loopback(host))


@lru_cache(maxsize=1_024)
def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


@lru_cache(maxsize=1_024)
def _is_on_loopback(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False
