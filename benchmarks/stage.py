"""The stage: every contender with the same events stored, in a folder of its own, fresh for each group.

Knows: how stores are seeded once and copied. Does not know: what is measured on them.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.measure import Figure, Missing, Settings


class Stage:
    """Opens contenders over copies of seeded stores, and closes what it opened, by group.

    Seeding is done once for each kind of contender. A copy is flushed to disk before it is opened, so that
    writing it back does not slow a contender's turn.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.missing: dict[str, str] = {}
        self.kept: dict[str, Figure] = {}  # the group's figures so far, those of a resumed run too, by key
        self._opened = ExitStack()
        self._copies = 0

    def wanted(self, key: str) -> bool:
        """Return whether a figure has to be measured: a resumed run has those that were measured before."""
        return key not in self.kept

    def seeded(self, kind: Any) -> Path:
        """Return the folder with this kind's events stored; written on first use. Raises Missing."""
        seed = self.folder / f"seed-{kind.__module__.rpartition('.')[2]}-{kind.name.replace(' ', '-')}"
        if not seed.exists():
            seed.mkdir(parents=True)
            try:
                kind.seed(seed, self.settings.stored)
            except Missing:
                shutil.rmtree(seed)
                raise
        return seed

    def copy(self, kind: Any) -> Path:
        """Return a folder with a fresh copy of this kind's store."""
        source = self.seeded(kind)
        self._copies += 1
        target = self.folder / f"copy-{self._copies}"
        shutil.copytree(source, target)
        for path in [p for p in target.rglob("*") if p.is_file()]:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        self._opened.callback(shutil.rmtree, target, ignore_errors=True)
        return target

    def open(self, kind: Any, **options: Any) -> Any:
        """Open a contender over a fresh copy. Raises Missing, and remembers why."""
        try:
            folder = self.copy(kind) if hasattr(kind, "seed") else None
            contender = kind(folder, self.settings.stored, **options)
        except Missing as reason:
            self.missing[kind.name] = str(reason)
            raise
        self._opened.callback(contender.close)
        return contender

    def those(self, *kinds: Any) -> dict[str, Any]:
        """Open those of the contenders that can take part. Returns them by name."""
        found: dict[str, Any] = {}
        for kind in kinds:
            try:
                found[kind.name] = self.open(kind)
            except Missing:
                continue
        return found

    def strike(self) -> None:
        """Close and remove everything opened so far; the seeds stay."""
        self._opened.close()

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.strike()
        shutil.rmtree(self.folder, ignore_errors=True)
