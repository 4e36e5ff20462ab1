"""The stream of a store: how it is created, and what must be true of it before anything is read or written.

Knows: configurations of streams. Does not know: events.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from eventfold.engines.jetstream.client import RawClient
from eventfold.engines.jetstream.connection import AGAIN_S, LEAVE_AFTER_S, ClusterConnection
from eventfold.engines.jetstream.failures import (
    ApiError,
    changed_stream,
    error_of_api,
    no_answer,
    not_a_store,
)
from eventfold.engines.jetstream.names import CREATED, EPOCH, FORMAT, FORMAT_NUMBER, STORE_ID, StoreNames
from eventfold.errors import StoreVersionMismatch

T = TypeVar("T")
# What every stream of a store has, and what a check demands: with any other value it may lose events, or refuse them.
REQUIRED: dict[str, Any] = {
    "retention": "limits",
    "storage": "file",
    "discard": "new",
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "max_msgs_per_subject": -1,
    "max_msg_size": -1,
    "deny_delete": True,
    "deny_purge": True,
    "allow_rollup_hdrs": False,
    "allow_direct": True,
    "allow_atomic": True,
    "sealed": False,
}
# A follower votes for another leader 4 s after it last heard from its own, or later; without load it hears from it
# every 1 to 2 s. So a leader that a majority answered within this time is the only one.
HEARD_WITHIN_NS = 3_000_000_000
NEVER = ("mirror", "sources", "subject_transform", "persist_mode", "allow_msg_ttl", "republish", "allow_msg_counter")


class StreamState(msgspec.Struct, frozen=True):
    """The messages of a stream."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0
    num_deleted: int = 0


class PeerInfo(msgspec.Struct, frozen=True):
    """A node with a copy that does not lead."""

    name: str = ""
    current: bool = False
    offline: bool = False
    lag: int = 0
    active: int = 0  # ns since the leader heard from it; 0: never


class ClusterInfo(msgspec.Struct, frozen=True):
    """Where a stream is."""

    name: str = ""
    leader: str = ""
    replicas: list[PeerInfo] = []


class StreamInfo(msgspec.Struct, frozen=True):
    """What the leader says of a stream."""

    config: dict[str, Any]
    created: str
    state: StreamState
    cluster: ClusterInfo | None = None

    @property
    def replicas(self) -> int:
        """How many nodes have a copy."""
        return int(self.config.get("num_replicas", 1))

    @property
    def has_majority(self) -> bool:
        """Whether the leader that gave the answer has heard from a majority so lately that there is no other leader.

        A leader that was cut from the others, or was paused, goes on answering with what it has.
        """
        if self.cluster is None or self.replicas == 1:
            return True
        heard = sum(0 < peer.active < HEARD_WITHIN_NS for peer in self.cluster.replicas)
        return bool(self.cluster.leader) and (1 + heard) * 2 > self.replicas


class Identity(msgspec.Struct, frozen=True):
    """Which store a stream is, and in which epoch."""

    store_id: str
    epoch: int


async def stream_info(
    connection: ClusterConnection, names: StoreNames, *, client: RawClient | None = None, deadline: float | None = None
) -> StreamInfo:
    """Ask the leader of the stream, until one with a majority answers: what it says includes all that was acknowledged.

    Raises StoreNotFound, StoreUnavailable errors.
    """
    return (await _ask_leader(connection, names, StreamInfo, client, deadline))[1]


async def raw_info(
    connection: ClusterConnection, names: StoreNames, *, client: RawClient | None = None, deadline: float | None = None
) -> dict[str, Any]:
    """Do the same, and return the whole answer."""
    return (await _ask_leader(connection, names, dict[str, Any], client, deadline))[0]


async def _ask_leader(
    connection: ClusterConnection, names: StoreNames, kind: type[T], client: RawClient | None, deadline: float | None
) -> tuple[T, StreamInfo]:
    loop = asyncio.get_running_loop()
    end = loop.time() + connection.options.timeout if deadline is None else deadline
    leave_at = loop.time() + LEAVE_AFTER_S
    while True:
        answer = await _ask_info(connection, names, kind, client, end)
        info = answer if isinstance(answer, StreamInfo) else msgspec.convert(answer, StreamInfo)
        if info.has_majority:
            return answer, info
        if loop.time() >= end:
            leader = info.cluster.leader if info.cluster and info.cluster.leader else "no node"
            raise no_answer(connection.where, f"{leader} leads the stream, and has no majority of the nodes")
        if loop.time() > leave_at:
            await connection.leave_node(end)
            leave_at = loop.time() + LEAVE_AFTER_S
        await asyncio.sleep(AGAIN_S)


async def _ask_info(
    connection: ClusterConnection, names: StoreNames, kind: type[T], client: RawClient | None, deadline: float
) -> T:
    try:
        return await connection.ask(f"STREAM.INFO.{names.stream}", None, kind, client=client, deadline=deadline)
    except ApiError as error:
        raise error_of_api(error.failure, connection.where) from None


def identity_of(info: StreamInfo, where: str) -> Identity:
    """Check what a stream is, and return its identity.

    The epoch in the metadata is that of the stream with the creation time that is there too. A stream with another
    creation time was recreated or restored, and has a later epoch: by the seconds between them, so that every process
    finds the same one. Raises NotAStore, StoreVersionMismatch, StoreDamaged.
    """
    metadata: dict[str, str] = info.config.get("metadata") or {}
    store_id, epoch, created = metadata.get(STORE_ID, ""), metadata.get(EPOCH, ""), metadata.get(CREATED, "")
    if len(store_id) != 32 or not epoch.isdecimal():
        raise not_a_store(where, "its metadata name no store")
    if metadata.get(FORMAT) != str(FORMAT_NUMBER):
        raise StoreVersionMismatch(
            f"The messages of {where} have the format {metadata.get(FORMAT)}, and this version knows {FORMAT_NUMBER}.",
            "Use a version of eventfold that knows it.",
        )
    for name, wanted in REQUIRED.items():
        found = info.config.get(name, _absent(wanted))
        if found != wanted:
            raise changed_stream(where, f"{name} is {found}, not {wanted}")
    for name in NEVER:
        if info.config.get(name):
            raise changed_stream(where, f"it has {name}")
    state = info.state
    if state.last_seq and (state.first_seq != 1 or state.messages != state.last_seq):
        raise changed_stream(
            where, f"it has {state.messages} of {state.last_seq} events, and the first one is {state.first_seq}"
        )
    if not created or created == info.created:
        return Identity(store_id, int(epoch))
    later = datetime.fromisoformat(info.created) - datetime.fromisoformat(created)
    return Identity(store_id, int(epoch) + max(1, int(later.total_seconds())))


def _absent(wanted: Any) -> Any:
    """What a value that is not in an answer means."""
    return False if isinstance(wanted, bool) else wanted if wanted == 0 else None


def configuration(names: StoreNames, replicas: int, store_id: str, epoch: int, created: str) -> dict[str, Any]:
    """The configuration of the stream of a store."""
    return {
        **REQUIRED,
        "name": names.stream,
        "subjects": [names.subjects],
        "num_replicas": replicas,
        "max_consumers": -1,
        "metadata": {
            STORE_ID: store_id,
            EPOCH: str(epoch),
            FORMAT: str(FORMAT_NUMBER),
            **({CREATED: created} if created else {}),
        },
    }


async def create_stream(connection: ClusterConnection, names: StoreNames, client: RawClient) -> None:
    """Create the stream of a store, with three copies where there are three nodes. Needs an operator's account.

    The time at which it was created is written into its metadata at once. Raises StoreReadOnly, StoreUnavailable.
    """
    wanted = connection.options.replicas
    end = asyncio.get_running_loop().time() + connection.options.timeout
    for replicas in (wanted,) if wanted else (3, 1):
        given = configuration(names, replicas, secrets.token_hex(16), 1, "")
        try:
            made = await connection.ask(f"STREAM.CREATE.{names.stream}", given, StreamInfo, client=client, deadline=end)
        except ApiError as error:
            if not wanted and replicas > 1 and error.failure.err_code in (10005, 10074):  # fewer nodes than copies
                continue
            raise error_of_api(error.failure, connection.where) from None
        await update_identity(connection, names, made, client=client, deadline=end)
        return


async def update_identity(
    connection: ClusterConnection,
    names: StoreNames,
    info: StreamInfo,
    identity: Identity | None = None,
    *,
    client: RawClient | None = None,
    deadline: float | None = None,
) -> None:
    """Write the identity of a store, and when its stream was created, into the metadata. Needs an operator's account.

    `identity` None: the one that is there.
    """
    metadata = dict(info.config["metadata"])
    metadata[CREATED] = info.created
    if identity is not None:
        metadata |= {STORE_ID: identity.store_id, EPOCH: str(identity.epoch)}
    config = {**info.config, "metadata": {key: value for key, value in metadata.items() if not key.startswith("_nats")}}
    try:
        await connection.ask(f"STREAM.UPDATE.{names.stream}", config, StreamInfo, client=client, deadline=deadline)
    except ApiError as error:
        raise error_of_api(error.failure, connection.where) from None
