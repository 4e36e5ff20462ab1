"""Large events are in memory a few at a time, in imports, copies and the command line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import eventfold as ef
from eventfold.cli.jsonl import read_batches
from eventfold.cli.read import split_into_chunks
from eventfold.ports.messages import PAGE_BYTES

LARGE = 900_000  # ten of them reach PAGE_BYTES, nine do not


class Scanned(ef.Event, type="large-scanned"):
    """A page of paper, as text."""

    page: ef.Tag
    body: str = ""


def test_an_import_of_large_events_is_split_by_their_bytes(tmp_path: Path) -> None:
    """`extend` ends an append at the byte limit of a page, although a batch could hold a thousand events."""
    reported: list[int] = []
    drawn: list[int] = []

    def scans() -> object:
        for number in range(25):
            drawn.append(number)
            yield Scanned(str(number), "x" * LARGE)

    with ef.Store(tmp_path / "large.db") as store:
        assert store.extend(scans(), progress=reported.append) == 25  # pyright: ignore[reportArgumentType]
        assert reported == [10, 20, 25]
        assert [each.last for each in store.read(raw=True)][::10] == [10, 20, 25]
        assert drawn == list(range(25))
        other = ef.Store(tmp_path / "copy.db")
        assert store.copy_to(other).events == 25
        other.close()


def test_the_command_line_holds_large_events_a_few_at_a_time() -> None:
    """Chunks that are printed and batches that are appended end at the byte limit of a page."""
    stored = SimpleNamespace(stored=SimpleNamespace(data=b"x" * LARGE))
    small = SimpleNamespace(stored=SimpleNamespace(data=b"x"))
    assert [len(chunk) for chunk in split_into_chunks([stored] * 25, 500)] == [10, 10, 5]  # pyright: ignore[reportArgumentType]
    assert [len(chunk) for chunk in split_into_chunks([small] * 25, 10)] == [10, 10, 5]  # pyright: ignore[reportArgumentType]
    line = json.dumps({"type": "large-scanned", "data": "x" * LARGE}).encode() + b"\n"
    assert [len(batch) for batch in read_batches(io.BytesIO(line * 25), 1_000)] == [10, 10, 5]
    assert 9 * LARGE < PAGE_BYTES < 10 * LARGE
