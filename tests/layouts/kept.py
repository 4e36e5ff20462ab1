"""The stored examples of older layouts, copied to where a test uses them.

Knows: the files next to it, written by make.py with the older version. Does not know: what an upgrade does.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
# Of development versions: 1a has no inline read models. 2a has no checksum of the store's row and of request keys, and
# its event checksums do not include positions. 2b has no `staged.seen`.
LAYOUTS: dict[str, tuple[int | str, ...]] = {"sqlite": (1, 2, 3, 4), "postgres": ("1a", 1, "2a", "2b", 2)}


def sqlite_store(layout: int | str, path: str) -> str:
    """Create a store file of that layout at a path. Returns the path."""
    Path(path).write_bytes(gzip.decompress((FOLDER / f"sqlite-{layout}.store.gz").read_bytes()))
    return path


def postgres_store(layout: int | str, schema: str) -> str:
    """Return the SQL that creates a store of that layout in a schema."""
    dump = gzip.decompress((FOLDER / f"postgres-{layout}.sql.gz").read_bytes())
    return dump.decode().replace("eventfold_kept", schema)


def described(engine: str, layout: int | str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the store's identity, and its events as the older version read them."""
    identity, *events = map(json.loads, (FOLDER / f"{engine}-{layout}.jsonl").read_text("utf-8").splitlines())
    return identity, events


def as_described(stored: Any) -> dict[str, Any]:
    """Return an event as make.py describes it."""
    plain = {name: getattr(stored, name) for name in stored.__struct_fields__}
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in plain.items()}
