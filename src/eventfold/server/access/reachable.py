"""Whether others could reach a server that has no authentication: then it does not start, unless that is wanted.

Knows: addresses. Does not know: sockets, callers.
"""

from __future__ import annotations

import ipaddress
import logging
from functools import lru_cache

from eventfold.errors import InvalidInput
from eventfold.server.access.settings import AccessSettings

log = logging.getLogger("eventfold.server")


def check_reachable(access: AccessSettings, host: str | None) -> None:
    """Raise InvalidInput if a server without authentication would listen where other machines can reach it.

    `host` None: a socket file, which permissions protect. With `access.no_auth` a warning is logged instead.
    """
    if access.is_configured or host is None or is_loopback(host):
        return
    if not access.no_auth:
        raise InvalidInput(
            f"The server would listen on {host} without authentication: all who can connect could read and write.",
            "Create a key (eventfold key create NAME --scope SCOPE) and pass --keys keys.db, or pass --no-auth if a "
            "proxy authenticates.",
            host=host,
        )
    log.warning("There is no authentication: all who can connect to this address have every right.")


@lru_cache(maxsize=1_024)
def is_loopback(host: str) -> bool:
    """Whether a host is this machine, seen from itself."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
