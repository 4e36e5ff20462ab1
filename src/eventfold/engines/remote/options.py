"""The address and the options of a remote store, parsed and checked.

Knows: addresses. Does not know: connections.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Annotated, Any
from urllib.parse import quote, unquote, urlsplit

import msgspec
from msgspec import Meta

from eventfold.errors import InvalidUrl

KEY_VARIABLE = "EVENTFOLD_KEY"
Seconds = Annotated[float, Meta(gt=0)]


class RemoteOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a client behaves towards its server.

    `api_key`      the credential; by default the one in the address, or the environment variable EVENTFOLD_KEY
    `timeout`      seconds until an answer must have come
    `patience`     seconds for which a server that does not accept connections, or is busy, is tried again; and calls
                   that only read, whose answer was lost
    `connections`  the maximum of connections to the server
    `ca_file`      a file with the certificates that are trusted, instead of the system's
    `compression`  whether answers may be compressed: for slow networks
    `plain_key`    send the credential without encryption to a server that is not on this machine
    """

    api_key: str | None = None
    timeout: Seconds = 30.0
    patience: Annotated[float, Meta(ge=0)] = 10.0
    connections: Annotated[int, Meta(ge=1)] = 16
    ca_file: str | None = None
    compression: bool = False
    plain_key: bool = False


class RemoteAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a store is: `base`, the URL of its routes, and `key`, the credential. `where` names it in messages."""

    base: str
    where: str
    key: str | None


def parse_address(url: str, given: dict[str, Any]) -> tuple[RemoteAddress, RemoteOptions]:
    """The address and the options. Raises InvalidUrl on an address that is not valid, or on an unknown option.

    The last part of the path is the name of the store; without one (`https://host/` or `https://host/prefix/`) the
    only store of the server is meant.
    """
    try:
        options = msgspec.convert(given, RemoteOptions)
    except msgspec.ValidationError as error:
        known = ", ".join(RemoteOptions.__struct_fields__)
        raise InvalidUrl(
            f"The options of the remote engine are not valid: {str(error).rstrip('.')}.",
            f"It has these options: {known}.",
        ) from None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _invalid(str(error)) from None
    if not host:
        raise _invalid("it names no host")
    if parts.query or parts.fragment:
        raise _invalid("it has parameters, and options are given as keywords")
    if parts.password is not None:
        raise _invalid("it has a user and a password, and a store is opened by a key")
    origin = f"{parts.scheme.lower()}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"
    prefix, _, name = parts.path.rpartition("/")
    prefix = prefix.removesuffix("/v1/stores") if name else prefix.removesuffix("/v1")
    base = f"{origin}{prefix}/v1/" + (f"stores/{quote(unquote(name), safe='')}/" if name else "")
    key = options.api_key or (unquote(parts.username) if parts.username else os.environ.get(KEY_VARIABLE)) or None
    if key is not None:
        _check_key(key, parts.scheme.lower(), host, options)
    return RemoteAddress(base=base, where=f"{origin}{parts.path}", key=key), options


def _check_key(key: str, scheme: str, host: str, options: RemoteOptions) -> None:
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidUrl("The API key has characters that no key has.", "Copy it as `eventfold key create` shows it.")
    if scheme == "http" and not is_loopback(host) and not options.plain_key:
        raise InvalidUrl(
            f"The API key would be sent to {host} without encryption.",
            "Use an address with https://; or say plain_key=True if the network between is encrypted.",
            host=host,
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name alone."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _invalid(why: str) -> InvalidUrl:
    return InvalidUrl(
        f"The address of the remote store is not valid: {why}.",
        "Write http://HOST:PORT for the only store of a server, http://HOST:PORT/NAME for one of several, and the key "
        "as https://KEY@HOST, api_key=… or the environment variable EVENTFOLD_KEY.",
    )
