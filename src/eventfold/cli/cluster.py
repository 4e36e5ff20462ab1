"""`eventfold cluster …`: configuration of NATS servers, their status, leaders and copies.

Knows: flags, what is printed. Does not know: how a cluster is asked or changed.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventfold.cli.cluster_snapshot import snapshot
from eventfold.cli.command import Command, Group, help_text
from eventfold.cli.exit_codes import DONE, FAILED, print_note
from eventfold.cli.formatting import format_size
from eventfold.cli.options import STORE_VARIABLE, Json
from eventfold.cli.output import Column, Output
from eventfold.core.counted import count_of

if TYPE_CHECKING:
    from eventfold.cluster.status import ClusterStatus, NodeStatus

cluster = typer.Typer(
    name="cluster", cls=Group, help="NATS clusters: configuration, status, maintenance.", no_args_is_help=True
)
POLL_S = 0.5
NODE_COLUMNS = (
    Column("node", style="bold"),
    Column("state"),
    Column("version"),
    Column("syncs"),
    Column("leads", align_right=True),
    Column("stored", align_right=True),
    Column("free", align_right=True),
    Column("clock", align_right=True),
)
STREAM_COLUMNS = (
    Column("stream", style="bold", elastic=True, min_width=20),
    Column("leader"),
    Column("copies", elastic=True, min_width=16),
    Column("messages", align_right=True),
    Column("size", align_right=True),
)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the configuration is written.")]
Address = Annotated[
    str | None,
    typer.Argument(
        metavar="CLUSTER",
        envvar=STORE_VARIABLE,
        help="nats://USER:PASSWORD@HOST,HOST,HOST, with /STORE for one store only.",
        show_default=False,
    ),
]
WAIT_HELP = "Seconds to wait until it is so."


def accounts(
    folder: Folder,
    stores: Annotated[
        list[str], typer.Option("--store", metavar="NAME", help="A store that applications use. Repeated: several.")
    ],
    as_json: Json = None,
) -> None:
    """Write the accounts of a cluster's servers, and print their passwords once.

    Applications append to and read their stores, but can neither change nor delete a stream; operators can; the user of
    the system account administers servers. If the file exists, applications may use further stores, and passwords stay.
    The file has hashes only. Copy it to every node, where it is included by the node's own file.
    """
    from eventfold.cluster.files import ACCOUNTS_FILE, create_or_extend_accounts

    output = Output(as_json)
    issued, allowed = create_or_extend_accounts(folder, stores)
    path = folder / ACCOUNTS_FILE
    if output.is_json:
        output.write_value({"file": str(path), "stores": allowed, "passwords": {e.user: e.password for e in issued}})
        return
    for each in issued:
        output.write_text(f"{each.user:<12} {each.password}")
    if issued:
        print_note(f"These are the passwords of {path}. Store them now: they are not shown again.")
    else:
        print_note(f"Applications may use {', '.join(allowed)}. Copy {path} to every node, and let it reload.")


def nodes(
    folder: Folder,
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME=HOST…", help="The nodes. Ports: NAME=HOST:CLIENTS:NODES:MONITORING."),
    ],
    data: Annotated[
        str, typer.Option("--data", metavar="PATH", help="The folder of streams on each node.")
    ] = "/var/lib/nats",
    name: Annotated[str, typer.Option("--cluster", metavar="NAME", help="The name of the cluster.")] = "eventfold",
    disk_limit: Annotated[
        str | None,
        typer.Option("--disk-limit", metavar="SIZE", help="What streams may use, as 50GB. Default: 3/4 of the disk."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST", help="Listen here instead, as at 0.0.0.0 in a container.")
    ] = None,
    certificate: Annotated[
        str | None,
        typer.Option("--tls-certificate", metavar="PATH", help="On the node, as PEM. {node} is the node's name."),
    ] = None,
    key: Annotated[str | None, typer.Option("--tls-key", metavar="PATH", help="Its private key, as PEM.")] = None,
    authority: Annotated[
        str | None, typer.Option("--tls-ca", metavar="PATH", help="The authority that signed all nodes' certificates.")
    ] = None,
    as_json: Json = None,
) -> None:
    """Write the configuration of each node, beside the accounts.

    Name 3 nodes, or 5, each on a machine of its own. The settings are those that stores need: nodes write to disk
    before they confirm. With TLS, clients and nodes are encrypted, and a node needs a certificate to join the others.
    """
    from eventfold.cluster.configuration import Certificates, parse_node
    from eventfold.cluster.files import write_nodes
    from eventfold.errors import InvalidInput

    output = Output(as_json)
    certificates = None
    if certificate or key or authority:
        if not (certificate and key and authority):
            raise InvalidInput(
                "TLS needs a certificate, its key and the authority.", "Give --tls-certificate, --tls-key and --tls-ca."
            )
        certificates = Certificates(certificate, key, authority)
    written = write_nodes(
        folder,
        [parse_node(each) for each in names],
        cluster=name,
        data=data,
        disk_limit=disk_limit,
        certificates=certificates,
        listen=listen,
    )
    if output.is_json:
        output.write_value({"files": [str(path) for path in written]})
        return
    for path in written:
        output.print(f"Wrote {path}. Start it on its machine: nats-server -c {path.name}")
    if certificates is None:
        output.print_hint("Without TLS, the ports of clients and nodes must be reachable in a private network only.")


def rotate(
    folder: Folder,
    user: Annotated[str, typer.Argument(metavar="USER", help="As in the file of accounts: application.")],
    as_json: Json = None,
) -> None:
    """Add a user that may do what USER may, with a new password, which is shown once.

    The old one works until `eventfold cluster revoke`. Copy the file to every node, and let it reload: kill -HUP.
    """
    from eventfold.cluster.files import read_accounts, save_accounts

    output = Output(as_json)
    found = read_accounts(folder)
    issued = found.rotate(user)
    save_accounts(folder, found)
    if output.is_json:
        output.write_value({"user": issued.user, "password": issued.password})
    else:
        output.write_text(f"{issued.user} {issued.password}")
        print_note("Copy the file to every node, let it reload, give it to the processes, then revoke the old user.")


def revoke(
    folder: Folder,
    user: Annotated[str, typer.Argument(metavar="USER", help="The user to remove.")],
    as_json: Json = None,
) -> None:
    """Remove a user from the accounts.

    Its connections are closed when the nodes have the file and reload it. The last user of an account stays.
    """
    from eventfold.cluster.files import read_accounts, save_accounts

    output = Output(as_json)
    found = read_accounts(folder)
    found.revoke(user)
    save_accounts(folder, found)
    if output.is_json:
        output.write_value({"users": found.names()})
    else:
        output.print(f"Removed {user}. Copy the file to every node, and let it reload.")


def status(
    url: Address = None,
    wait: Annotated[float, typer.Option("--wait", metavar="S", min=0.0, help=WAIT_HELP)] = 0.0,
    as_json: Json = None,
) -> None:
    """Print the nodes and streams of a cluster, and what is wrong.

    Nodes: whether they answer, write to disk before they confirm, what they store and may store, their clocks. Streams:
    leaders, copies that are behind. What cannot be seen is listed with the reason. Exit code 1 if something is wrong.
    """
    from eventfold.cluster.control import open_cluster
    from eventfold.cluster.status import read_status

    output = Output(as_json)

    async def reading() -> ClusterStatus:
        ends = time.monotonic() + wait
        async with open_cluster(_given(url)) as control:
            while True:
                found = await read_status(control)
                if not found.problems or time.monotonic() >= ends:
                    return found
                await asyncio.sleep(POLL_S)

    found = asyncio.run(reading())
    if output.is_json:
        output.write_value(_as_json(found))
    else:
        _print_status(found, output)
    raise typer.Exit(FAILED if found.problems else DONE)


def balance(url: Address = None, as_json: Json = None) -> None:
    """Spread the leaders of the streams over the nodes.

    A stream costs most on the node that leads it, and after a failure one node may lead all. Each change takes some
    hundredths of a second, in which appends wait. Needs an operator.
    """
    from eventfold.cluster.control import open_cluster
    from eventfold.cluster.placement import balance as spread

    output = Output(as_json)

    async def spreading() -> list[Any]:
        async with open_cluster(_given(url)) as control:
            return await spread(control)

    moves = asyncio.run(spreading())
    if output.is_json:
        output.write_value({"moved": [{"stream": m.stream, "from": m.source, "to": m.target} for m in moves]})
        return
    for move in moves:
        output.print(f"{move.stream}: {move.source} → {move.target}")
    output.print(f"Moved {count_of(len(moves), 'leader')}.")


def replicas(
    number: Annotated[int, typer.Argument(metavar="N", help="3, or 5; 1 for development.")],
    url: Address = None,
    wait: Annotated[float, typer.Option("--wait", metavar="S", min=0.0, help=WAIT_HELP)] = 300.0,
    as_json: Json = None,
) -> None:
    """Change how many nodes have a copy of each stream, while stores are in use.

    Ends when every copy is current. Needs an operator.
    """
    from eventfold.cluster.control import open_cluster
    from eventfold.cluster.placement import set_replicas

    output = Output(as_json)

    async def changing() -> list[str]:
        async with open_cluster(_given(url)) as control:
            return await set_replicas(control, number, wait)

    changed = asyncio.run(changing())
    if output.is_json:
        output.write_value({"replicas": number, "changed": changed})
    else:
        names = f": {', '.join(changed)}" if changed else ""
        output.print(f"Changed {count_of(len(changed), 'stream')} so that {number} nodes have it{names}.")


def _given(url: str | None) -> str:
    if not url:
        raise typer.BadParameter(f"name the cluster, or set {STORE_VARIABLE}.", param_hint="CLUSTER")
    return url


def _as_json(found: ClusterStatus) -> dict[str, Any]:
    streams = [
        {
            "name": each.name,
            "wanted": each.wanted,
            "leader": each.leader or None,
            "replicas": each.replicas,
            "messages": each.messages,
            "bytes": each.stored_bytes,
        }
        for each in found.streams
    ]
    return {"nodes": found.nodes, "streams": streams, "problems": found.problems, "unseen": found.unseen}


def _print_status(found: ClusterStatus, output: Output) -> None:
    output.print_table(NODE_COLUMNS, [_node_row(each) for each in found.nodes])
    if found.streams:
        output.print("")
        rows = [
            (
                each.name,
                each.leader or "none",
                ", ".join(f"{r.name}{_behind(r.offline, r.current, r.lag)}" for r in each.replicas) or "-",
                f"{each.messages:,}",
                format_size(each.stored_bytes),
            )
            for each in found.streams
        ]
        output.print_table(STREAM_COLUMNS, rows)
    output.print("")
    for problem in found.problems:
        output.print(problem, style="bold red")
    if not found.problems:
        output.print("Nothing is wrong with what can be seen.")
    for each in found.unseen:
        output.print_hint(f"Not seen: {each}.")


def _behind(is_offline: bool, is_current: bool, lag: int) -> str:
    return " offline" if is_offline else "" if is_current else f" behind {lag:,}"


def _node_row(node: NodeStatus) -> tuple[str, ...]:
    if not node.answers:
        return (node.name, "no answer", "?", "?", str(node.leads), "?", "?", "?")
    state = "leads metadata" if node.leads_metadata else "answers"
    if not node.stores:
        return (
            node.name,
            "disabled",
            node.version or "?",
            "-",
            str(node.leads),
            "-",
            "-",
            f"{node.clock_ahead or 0.0:+.3f} s",
        )
    stored, limit = node.stored_bytes or 0, node.limit_bytes or 0
    return (
        node.name,
        state,
        node.version or "?",
        "always" if node.syncs_always else "LATER",
        str(node.leads),
        format_size(stored),
        format_size(max(0, limit - stored)),
        f"{node.clock_ahead or 0.0:+.3f} s",
    )


for command in (accounts, nodes, rotate, revoke, status, balance, replicas, snapshot):
    cluster.command(command.__name__, cls=Command, help=help_text(command.__doc__))(command)
