"""A consistent copy of a store in a temporary file, which is gone when it was sent, also after a kill.

The copy is made in a folder of its own beside the store, which is locked meanwhile. As soon as the copy is complete, it
is opened and the folder removed, so that only a kill while it is being made leaves a folder: the next start of a server
finds that no process has it locked, and removes it.
Knows: files, locks. Does not know: HTTP, how an engine makes a copy.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from eventfold.aio import AsyncStore
from eventfold.concurrency import in_thread
from eventfold.errors import NotSupported, StoreUnavailable
from eventfold.server.store_files import file_of

try:
    import fcntl
except ImportError:  # Windows: a folder that was left is removed by hand
    fcntl = None  # type: ignore[assignment]


async def backup_copy(store: AsyncStore, folder: str | None) -> BinaryIO:
    """A copy of a store, as a file open for reading that has no name any more: it is gone when it is closed.

    `folder`: where it is made; None: beside the store. Raises NotSupported if the engine makes no copies, StoreFull if
    the disk has no space for one, StoreUnavailable if the folder cannot be used.
    """
    file = file_of(store)
    if file is None:
        raise NotSupported(
            f"The {store.engine.name} engine makes no copies in a file.",
            "Use the backups of its database (PostgreSQL: pg_dump or pg_basebackup), or eventfold copy into a file.",
            capability="backup",
        )
    try:
        copying = await in_thread(_Copying, _folder(file, folder), _prefix(file))
    except OSError as error:
        raise StoreUnavailable(
            f"The folder for the copy cannot be used: {(error.strerror or str(error)).lower()}.",
            "Let the server write beside the store, or set backup.folder to a folder that it may write.",
        ) from error
    try:
        await store.backup(str(copying.path))
        return await in_thread(copying.path.open, "rb")
    finally:
        await in_thread(copying.remove)


class _Copying:
    """A new folder, locked until it is removed."""

    def __init__(self, place: Path, prefix: str) -> None:
        while True:
            self._folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
            self._lock = os.open(self._folder, os.O_RDONLY)
            with suppress(OSError):  # another server was removing what it took for a left folder
                _lock(self._lock)
                if os.stat(self._folder).st_ino == os.fstat(self._lock).st_ino:
                    break
            os.close(self._lock)
        self.path = self._folder / "copy"

    def remove(self) -> None:
        """Remove the folder. A file in it that is open stays readable."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)


def remove_left_copies(store: AsyncStore, folder: str | None) -> None:
    """Remove the folders of copies that a killed server left; not those of a server that still runs."""
    file = file_of(store)
    if file is None or fcntl is None:
        return
    for left in _folder(file, folder).glob(_prefix(file) + "*"):
        with suppress(OSError), _locked(left):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Generator[None, None, None]:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(lock)
        yield
    finally:
        os.close(lock)


def _lock(folder: int) -> None:
    if fcntl is not None:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _folder(file: Path, folder: str | None) -> Path:
    return file.absolute().parent if folder is None else Path(folder)


def _prefix(file: Path) -> str:
    return f".{file.name}.backup-"
