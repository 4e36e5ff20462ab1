"""What clients requested and what they were answered, in files that survive kill -9.

Knows: one line for each step, written by one system call. Does not know: stores.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

SUFFIX = ".history"


class History:
    """The file of one client. A line is complete, or it is the last one and has no newline."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = os.open(folder / f"{name}{SUFFIX}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, *words: object) -> None:
        """Write one line; the last word may contain spaces."""
        os.write(self._file, (" ".join(str(word).replace("\n", " ") for word in words) + "\n").encode())

    def asked(self, op: str, size: int) -> None:
        """Note that an append or a decision of so many events follows."""
        self.write("asked", op, size)

    def written(self, op: str, epoch: int, first: int, ids: Sequence[UUID], *, repeated: bool) -> None:
        """Note that it was acknowledged."""
        self.write("written", op, epoch, first, int(repeated), ",".join(each.hex for each in ids))

    def unknown(self, op: str, error: BaseException) -> None:
        """Note that its outcome is not known, or that no answer came."""
        self.write("unknown", op, describe(error))

    def refused(self, op: str, error: BaseException) -> None:
        """Note that nothing was written, by the answer."""
        self.write("refused", op, describe(error))

    def foreign(self, what: str, error: BaseException) -> None:
        """Note an error that is not the library's and reached the caller: always a violation."""
        self.write("foreign", what, describe(error))
        traceback.print_exception(error)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def describe(error: BaseException) -> str:
    """Return an error as one line of at most 400 characters."""
    return f"{type(error).__name__}: {error}"[:400]


@dataclass
class Written:
    """An acknowledged append."""

    op: str
    epoch: int
    first: int
    repeated: bool
    ids: list[str]


@dataclass
class Outcomes:
    """Everything that the clients of one round requested and were answered."""

    asked: dict[str, int] = field(default_factory=dict[str, int])
    written: dict[str, Written] = field(default_factory=dict[str, Written])
    unknown: dict[str, str] = field(default_factory=dict[str, str])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    foreign: list[str] = field(default_factory=list[str])


def lines(path: Path) -> Iterator[list[str]]:
    """Yield the complete lines of a file, as words; none where there is no file."""
    if not path.exists():
        return
    *complete, _half = path.read_text(errors="replace").split("\n")
    yield from (line.split(" ") for line in complete)


def read_outcomes(folder: Path) -> Outcomes:
    """Read all histories of a folder."""
    outcomes = Outcomes()
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        for words in lines(path):
            match words:
                case ["asked", op, size]:
                    outcomes.asked[op] = int(size)
                case ["written", op, epoch, first, repeated, ids]:
                    outcomes.written[op] = Written(op, int(epoch), int(first), repeated == "1", ids.split(","))
                case ["unknown", op, *rest]:
                    outcomes.unknown[op] = " ".join(rest)
                case ["refused", op, *rest]:
                    outcomes.refused[op] = " ".join(rest)
                case ["foreign", *rest]:
                    outcomes.foreign.append(f"{path.stem}: {' '.join(rest)}")
                case _:
                    continue
    for op in outcomes.written:  # an append repeated with the same ids has one outcome: the last
        outcomes.unknown.pop(op, None)
        outcomes.refused.pop(op, None)
    return outcomes


@dataclass
class Moment:
    """The length of every history, and the saved cursors, at one time."""

    sizes: dict[Path, int]
    cursors: dict[Path, bytes]


def now(folder: Path) -> Moment:
    """Return what clients have noted so far."""
    cursors = {path: path.read_bytes() for path in folder.glob("cursor-*") if not path.suffix}
    return Moment({path: path.stat().st_size for path in folder.glob(f"*{SUFFIX}")}, cursors)


def forget_answers(folder: Path, moment: Moment) -> None:
    """Keep the requests made after a moment, and remove their answers and cursors: their outcomes are not known."""
    for path in folder.glob(f"*{SUFFIX}"):
        text, size = path.read_bytes(), moment.sizes.get(path, 0)
        asked = [line for line in text[size:].splitlines(keepends=True) if _is_question(line)]
        path.write_bytes(text[:size] + b"".join(asked))
    for path in folder.glob("cursor-*"):
        path.unlink()
    for path, content in moment.cursors.items():
        path.write_bytes(content)


def _is_question(line: bytes) -> bool:
    return line.startswith(b"asked ") and line.endswith(b"\n")
