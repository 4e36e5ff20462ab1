"""Requests to a cluster about its streams: which there are, where they are, how many copies they have, who leads them.

Knows: the requests of JetStream for operators. Does not know: what the streams contain, what is printed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from eventfold.cluster.accounts import BUCKETS, OBJECTS
from eventfold.engines.jetstream.connection import ClusterConnection
from eventfold.engines.jetstream.failures import NOT_ENABLED, NOT_FOUND_STREAM, ApiError, error_of_api
from eventfold.engines.jetstream.names import StoreNames
from eventfold.engines.jetstream.options import ClusterAddress, JetStreamOptions, parse_address
from eventfold.errors import InvalidUrl, StoreReadOnly, StoreUnavailable

ANY_STORE = "-"  # stands for the store in an address that names none
POLL_S = 0.2
STEP_DOWN_TIMEOUT_S = 20.0
OWN_STREAM = re.compile(r"(?:KV_|OBJ_)?EF_")


class Replica(msgspec.Struct, frozen=True):
    """A node with a copy of a stream that does not lead it. `lag`: operations it has not confirmed."""

    name: str
    current: bool = False
    offline: bool = False
    lag: int = 0


class StreamPlace(msgspec.Struct, frozen=True):
    """A stream of a store: how many copies it shall have, who leads it, where the others are, and its size."""

    name: str
    wanted: int
    leader: str
    replicas: list[Replica]
    messages: int
    stored_bytes: int
    info: dict[str, Any]

    @property
    def nodes(self) -> set[str]:
        """The nodes that have a copy."""
        return {each.name for each in self.replicas} | ({self.leader} if self.leader else set())

    @property
    def is_whole(self) -> bool:
        """Whether every copy that there shall be is there, and none is behind."""
        return len(self.nodes) >= self.wanted and bool(self.leader) and all(
            each.current and not each.offline for each in self.replicas
        )  # fmt: skip


class ClusterControl:
    """The cluster of an address, which may name one store, or none: then every store is meant."""

    def __init__(self, connection: ClusterConnection, store: str | None) -> None:
        self.connection, self.store = connection, store

    @property
    def options(self) -> JetStreamOptions:
        """The options of the address."""
        return self.connection.options

    async def streams(self) -> list[StreamPlace]:
        """The streams of the store and its buckets, or of all stores. Raises StoreReadOnly if it may not list them."""
        if self.store is not None:
            names = _streams_of(StoreNames(self.store))
            found = [await self.stream(name) for name in names]
            return [each for each in found if each is not None]
        infos: list[dict[str, Any]] = []
        while True:
            page = await self.ask("STREAM.LIST", {"offset": len(infos)})
            infos += page.get("streams") or []
            if not page.get("streams") or len(infos) >= int(page.get("total", 0)):
                return sorted((_place(each) for each in infos if _is_own(each)), key=lambda each: each.name)

    async def stream(self, name: str) -> StreamPlace | None:
        """One stream, or None if there is none of this name."""
        try:
            return _place(await self.connection.ask(f"STREAM.INFO.{name}", None, dict[str, Any]))
        except ApiError as error:
            if error.failure.err_code == NOT_FOUND_STREAM:
                return None
            raise self._error(error) from None

    async def set_replicas(self, name: str, replicas: int) -> None:
        """Change how many nodes have a copy of a stream, while it is in use. The new copies are filled afterwards."""
        found = await self._stream(name)
        await self.ask(f"STREAM.UPDATE.{name}", found.info["config"] | {"num_replicas": replicas})

    async def move_leader(self, name: str, node: str) -> str:
        """Let a node that has a copy lead a stream. Returns which node leads it when that has changed."""
        before = (await self._stream(name)).leader
        await self.ask(f"STREAM.LEADER.STEPDOWN.{name}", {"placement": {"preferred": node}})
        ends = asyncio.get_running_loop().time() + STEP_DOWN_TIMEOUT_S
        while asyncio.get_running_loop().time() < ends:
            found = await self._stream(name)
            if found.leader and found.leader != before:
                return found.leader
            await asyncio.sleep(POLL_S)
        raise StoreUnavailable(
            f"The stream {name} still has the leader {before}, {STEP_DOWN_TIMEOUT_S:.0f} s after the request.",
            "See which nodes are behind by `eventfold cluster status`, and try again.",
            stream=name,
        )

    async def ask(self, subject: str, message: Any) -> dict[str, Any]:
        """Send a request to JetStream. Raises StoreReadOnly if the user may not, StoreUnavailable."""
        try:
            return await self.connection.ask(subject, message, dict[str, Any])
        except ApiError as error:
            raise self._error(error) from None

    async def _stream(self, name: str) -> StreamPlace:
        found = await self.stream(name)
        if found is None:
            raise StoreUnavailable(f"There is no stream {name} any more.", "List them by `eventfold cluster status`.")
        return found

    def _error(self, error: ApiError) -> Exception:
        if error.failure.err_code in NOT_ENABLED:
            return StoreReadOnly(
                f"The user in the address may not do this with the streams of {self.connection.where}.",
                "Give the user operator, whose password `eventfold cluster accounts` has printed.",
            )
        return error_of_api(error.failure, self.connection.where)


@asynccontextmanager
async def open_cluster(url: str, **given: Any) -> AsyncGenerator[ClusterControl]:
    """Connect to a cluster: `nats://[USER:PASSWORD@]HOST,HOST,HOST[/STORE]`. Raises InvalidUrl, StoreUnavailable."""
    address, options, store = cluster_address(url, given)
    connection = ClusterConnection(address, options, _check_nothing)
    try:
        await connection.ready(asyncio.get_running_loop().time() + options.timeout)
        yield ClusterControl(connection, store)
    finally:
        await connection.close()


def cluster_address(url: str, given: dict[str, Any]) -> tuple[ClusterAddress, JetStreamOptions, str | None]:
    """The parts of an address whose store may be left out. Raises InvalidUrl."""
    scheme, separator, rest = url.partition("://")
    if scheme.lower() not in ("nats", "tls") or not separator:
        raise InvalidUrl("This is no address of a cluster.", "Write nats://USER:PASSWORD@HOST,HOST,HOST.")
    place, question, query = rest.partition("?")
    login, at, hosts = place.rpartition("@")
    hosts, _, store = hosts.partition("/")
    whole = f"{scheme}://{login}{at}{hosts}/{store or ANY_STORE}{question}{query}"
    address, options = parse_address(whole, given)
    return address, options, store or None


async def _check_nothing() -> None:
    """A cluster is examined in whatever state it is."""


def _streams_of(store: StoreNames) -> list[str]:
    buckets = [f"KV_{store.bucket(name)}" for name in BUCKETS]
    return [store.stream, *buckets, *(f"OBJ_{store.bucket(name)}" for name in OBJECTS)]


def _is_own(info: dict[str, Any]) -> bool:
    return OWN_STREAM.match(info["config"]["name"]) is not None


def _place(info: dict[str, Any]) -> StreamPlace:
    cluster: dict[str, Any] = info.get("cluster") or {}
    return StreamPlace(
        name=info["config"]["name"],
        wanted=int(info["config"].get("num_replicas", 1)),
        leader=str(cluster.get("leader") or ""),
        replicas=msgspec.convert(cluster.get("replicas") or [], list[Replica]),
        messages=int(info["state"].get("messages", 0)),
        stored_bytes=int(info["state"].get("bytes", 0)),
        info=info,
    )
