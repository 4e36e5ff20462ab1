"""The engines that must keep the promises, and their modes. A new engine is one more entry here.

Knows: addresses of new stores. Does not know: pytest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.support.servers import nats
from tests.support.servers.postgres import shared
from tests.support.stores import new_stream

# Each engine: given a folder of its own, the options of its EngineUnderTest.
ENGINES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "jetstream": lambda folder: {"url": new_stream(nats.shared()), "index": str(folder / "index.db")},
    "memory": lambda folder: {"url": f"memory:{uuid4().hex}", "clock": True},
    "postgres": lambda folder: {"url": shared().url(), "schema": f"t{uuid4().hex}"},
    "sqlite": lambda folder: {"url": f"sqlite:{folder / 'log.db'}", "clock": True},
}
MODES = ("sync", "async")

MEMORY = Path("/dev/shm")  # where the system has a file system in memory, if it has one
