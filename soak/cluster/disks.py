"""A cluster whose nodes have an ext4 file system each, and the power cut of all of them at once.

Knows: loop mounts, the ioctl that shuts ext4 down without a flush; it needs root. Does not know: streams, clients.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from soak.machine import LoopDisk, command
from tests.support.servers.nats import Cluster, Node

MEGABYTES = 192  # of each disk


class ClusterOnDisks(Cluster):
    """Three nodes on disks that can lose what was not synced. The processes and the mounts are of this process."""

    def __init__(self, folder: Path, *, sync_interval: str = "always", megabytes: int = MEGABYTES) -> None:
        super().__init__(3, folder=folder, sync_interval=sync_interval)
        self.disks = [LoopDisk(node.folder, megabytes) for node in self.nodes]
        for node, disk in zip(self.nodes, self.disks, strict=True):
            node.store = disk.folder / "store"

    def cut_power(self, *nodes: Node) -> None:
        """Stop these nodes, or all, in the middle of what they do, and lose what they had not synced.

        The processes are paused first: a process without power answers nothing more. The nodes are not started again.
        """
        chosen = nodes or tuple(node for node in self.nodes if node.is_running)
        for node in chosen:
            node.pause()
        disks = [self.disks[self.nodes.index(node)] for node in chosen]
        for disk in disks:
            disk.cut()
        for node in chosen:
            node.kill()
        for disk in disks:
            disk.unmount()
            disk.mount()

    def sync(self) -> None:
        """Have all disks write what they have, as after a long time without a fault."""
        for disk in self.disks:
            command("sync", "-f", str(disk.folder))

    def remove(self) -> None:
        """Kill the nodes, unmount, and delete the files."""
        self.kill()
        for disk in self.disks:
            disk.unmount()
        super().remove()


@contextmanager
def on_disks(folder: Path, *, sync_interval: str = "always") -> Generator[ClusterOnDisks]:
    """Yield a running cluster on disks of its own."""
    with ClusterOnDisks(folder, sync_interval=sync_interval) as cluster:
        cluster.start()
        yield cluster


@contextmanager
def paused(nodes: Sequence[Node]) -> Generator[None]:
    """Pause these nodes (SIGSTOP) within the block."""
    with ExitStack() as ending:
        for node in nodes:
            node.pause()
            ending.callback(node.resume)
        yield
