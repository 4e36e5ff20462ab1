"""The stored examples of older layouts, copied to where a test uses them.

Knows: the files next to it, written by make.py with the older version. Does not know: what an upgrade does.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
LAYOUTS = {"sqlite": (1, 2), "postgres": (1,)}


def sqlite_store(layout: int, path: str) -> str:
    """Create a store file of that layout at a path. Returns the path."""
    Path(path).write_bytes(gzip.decompress((FOLDER / f"sqlite-{layout}.store.gz").read_bytes()))
    return path


def postgres_store(layout: int, schema: str) -> str:
    """Return the SQL that creates a store of that layout in a schema."""
    return (FOLDER / f"postgres-{layout}.sql").read_text("utf-8").replace("eventfold_kept", schema)


def described(engine: str, layout: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the store's identity, and its events as the older version read them."""
    identity, *events = map(json.loads, (FOLDER / f"{engine}-{layout}.jsonl").read_text("utf-8").splitlines())
    return identity, events


def as_described(stored: Any) -> dict[str, Any]:
    """Return an event as make.py describes it."""
    plain = {name: getattr(stored, name) for name in stored.__struct_fields__}
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in plain.items()}
