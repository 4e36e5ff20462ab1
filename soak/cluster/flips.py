"""A bit of a stored message that is flipped in one node's files.

Knows: that messages are in .blk files, payloads as they were sent. Does not know: who reads them, what finds it.
"""

from __future__ import annotations

import random
from pathlib import Path

from tests.support.servers.nats import Cluster, Node


def flip(cluster: Cluster, node: Node, stream: str, payload: bytes, dice: random.Random) -> Path:
    """Flip one bit within the first copy of a payload in the files of a node. Raises LookupError if it is not there."""
    for path in cluster.blocks(node, stream):
        content = path.read_bytes()
        at = content.find(payload)
        if at >= 0:
            place, bit = at + dice.randrange(len(payload)), 1 << dice.randrange(8)
            with path.open("r+b") as file:
                file.seek(place)
                file.write(bytes([content[place] ^ bit]))
            return path
    raise LookupError(f"{node.name} has no file of {stream} with the payload {payload[:40]!r}")
