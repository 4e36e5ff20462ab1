"""The ways to ask the nodes of a cluster: over a connection, over one of the system account, by their monitoring.

Knows: in which order they are tried, and which nodes they would have reached. Does not know: which answers are safe.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from eventfold.engines.jetstream.nodes import Node, ask_nodes, read_monitoring

FIRST_S = 1.0  # for the connection itself, where there is another way to ask; a server that refuses says nothing


class Answers(msgspec.Struct, frozen=True):
    """The nodes that answered, by name; and for each way that did not work, why.

    `unreachable`: how many further nodes could not be reached, though a node that runs would have been: any number, if
    a request reached a majority of the expected nodes, which passes it on to every other; otherwise as many as there
    are monitoring addresses that no program answers.
    """

    found: dict[str, Node]
    reasons: list[str]
    unreachable: int


async def ask_every_node(
    client: Client,
    expected: Collection[str],
    *,
    monitoring: Sequence[str] = (),
    connect_system: Callable[[], Awaitable[Client]] | None = None,
    timeout: float = 3.0,
    tls: ssl.SSLContext | None = None,
) -> Answers:
    """Ask by one way after the other until each of `expected` has answered, or any node if it is empty."""
    wanted = set(expected)
    reasons: list[str] = []
    found = await ask_nodes(client, wanted, FIRST_S if monitoring or connect_system else timeout)
    if connect_system is not None and not _is_majority(found, wanted):
        try:
            system = await connect_system()
            try:
                found |= await ask_nodes(system, wanted, timeout)
            finally:
                await system.close()
        except (NatsError, OSError) as error:
            reasons.append(f"the system account could not be used: {_said(error)}")
    if _is_majority(found, wanted):
        return Answers(found, reasons, len(wanted))
    down = 0
    for url in monitoring:
        if wanted and found.keys() >= wanted:
            break
        try:
            node = await read_monitoring(url, timeout, tls if url.startswith("https:") else None)
            found[node.name] = node
        except (OSError, ValueError, KeyError) as error:
            down += isinstance(error, OSError)
            reasons.append(f"{url} did not answer: {_said(error)}")
    return Answers(found, reasons, down)


def _is_majority(found: dict[str, Node], wanted: set[str]) -> bool:
    return len(found.keys() & wanted) > len(wanted) // 2 if wanted else bool(found)


def _said(error: BaseException) -> str:
    return str(error).removeprefix("nats: ").rstrip(".") or type(error).__name__
