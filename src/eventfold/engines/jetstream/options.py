"""The address and the options of a store in a NATS cluster, parsed and checked.

Knows: addresses. Does not know: connections.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote

import msgspec
from msgspec import Meta

from eventfold.engines.jetstream.names import StoreNames, check_store_name
from eventfold.errors import InvalidUrl

DEFAULT_PORT = 4222
Seconds = Annotated[float, Meta(gt=0)]


class JetStreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a process uses a store in a cluster. In the query of the address, or as keywords.

    `index`        the file with the local index; by default in the user's cache folder, by the store's id
    `copies`       where a host without an index looks for a published copy of it, besides the bucket of the store: a
                   folder, or a URL where it is served; "none": nowhere
    `consistency`  "leader": a read has everything that was committed anywhere before it began; "local": what this
                   process wrote, and what the index has
    `durability`   "checked": a server that acknowledges before its disk has the events is refused; "unchecked"
    `monitoring`   addresses of the monitoring ports of all nodes, with commas: to verify the durability
    `system`       user:password of the system account, or the path of its credentials file, for the same
    `credentials`  the path of a credentials file of the application's account
    `tls_ca`, `tls_cert`, `tls_key`
                   files in the PEM format: the authority of the servers, this client's certificate and key
    `timeout`      seconds until a call fails if the cluster does not answer
    `replicas`     how many nodes have a copy: of a store that is created; None: 3 where there are three nodes
    """

    index: str | None = None
    copies: str | None = None
    consistency: Literal["leader", "local"] = "leader"
    durability: Literal["checked", "unchecked"] = "checked"
    monitoring: str | None = None
    system: str | None = None
    credentials: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    timeout: Seconds = 20.0
    replicas: Annotated[int, Meta(ge=1, le=5)] | None = None


class ClusterAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a store is: the hosts of the cluster, and who opens it. `where` names it in messages, without secrets."""

    hosts: tuple[str, ...]
    user: str | None
    password: str | None
    tls: bool
    names: StoreNames
    where: str

    @property
    def servers(self) -> list[str]:
        """The addresses for the driver."""
        return [f"{'tls' if self.tls else 'nats'}://{host}" for host in self.hosts]


def parse_address(url: str, given: dict[str, Any]) -> tuple[ClusterAddress, JetStreamOptions]:
    """Return the address and the options: those of the query, then keywords. Raises InvalidUrl."""
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    rest, _, fragment = rest.partition("#")
    login, at, place = rest.rpartition("@")
    hosts, _, store = place.partition("/")
    if fragment or not hosts or not store or "/" in store:
        raise _invalid("it is not of this form")
    user, colon, password = login.partition(":") if at else ("", "", "")
    address = ClusterAddress(
        hosts=tuple(_host(each) for each in hosts.split(",")),
        user=unquote(user) or None,
        password=unquote(password) if colon else None,
        tls=scheme.lower() == "tls",
        names=StoreNames(check_store_name(unquote(store))),
        where=f"nats://{hosts}/{store}",
    )
    options = _options({**dict(parse_qsl(query, keep_blank_values=True)), **given})
    for name in ("credentials", "tls_ca", "tls_cert", "tls_key"):
        path = getattr(options, name)
        if path is not None and not os.access(path, os.R_OK):
            raise InvalidUrl(
                f"The file {path!r} of the option {name} cannot be read.", "Give the path of a file that exists."
            )
    return address, options


def _options(given: dict[str, Any]) -> JetStreamOptions:
    try:
        return msgspec.convert(given, JetStreamOptions, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(JetStreamOptions.__struct_fields__)
        raise InvalidUrl(
            f"The options of the jetstream engine are not valid: {str(error).rstrip('.')}.",
            f"It has these options: {known}.",
        ) from None


def _host(text: str) -> str:
    name, colon, port = text.rpartition(":")
    if (text.startswith("[") and text.endswith("]")) or not colon:
        name, port = text, str(DEFAULT_PORT)
    if not name or not port.isdecimal() or not 0 < int(port) < 65_536 or not name.isprintable() or " " in name:
        raise _invalid(f"{text!r} is not a host with a port")
    return f"{name}:{port}"


def _invalid(why: str) -> InvalidUrl:
    return InvalidUrl(
        f"The address of the store in a NATS cluster is not valid: {why}.",
        "Write nats://[USER:PASSWORD@]HOST[:PORT],HOST,HOST/STORE, and options as ?NAME=VALUE.",
    )


def default_index(store_id: str, epoch: int) -> str:
    """Return the path of the local index of a store, in the user's cache folder, which is created."""
    cache = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(cache) if cache else Path.home() / ".cache") / "eventfold" / "jetstream"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return str(folder / f"{store_id}-{epoch}.db")


def index_of_epoch(path: str, epoch: int) -> str:
    """Return the path of the index of a later epoch, beside that of an earlier one."""
    stem, dot, ending = path.rpartition(".")
    return f"{stem}-{epoch}.{ending}" if dot and "/" not in ending else f"{path}-{epoch}"
