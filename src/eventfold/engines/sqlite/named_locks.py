"""Named locks for exclusive decisions: a file per name, locked by flock, in a directory beside the store.

If a process dies, its locks are released.
Knows: files. Does not know: the meaning of a name, SQL.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from io import FileIO

from eventfold.core.mutex import Mutex
from eventfold.engines.sqlite.errors import PERMISSION_ERRNOS, translate_errno
from eventfold.errors import StoreReadOnly

try:
    import fcntl
except ImportError:  # Windows: locks hold within the process only
    fcntl = None  # type: ignore[assignment]

MAX_OWNER_BYTES = 400


class NamedLocks:
    """The locks that one engine holds. flock excludes other engines, in this process and in others."""

    def __init__(self, path: str) -> None:
        self._directory = path + ".locks"
        self._held: dict[str, tuple[str, FileIO | None]] = {}
        self._mutex = Mutex()

    def try_acquire(self, name: str, owner: str) -> str | None:
        """Acquire a lock if it is free. Returns None, or the owner of the held lock. Raises StoreReadOnly."""
        return self._mutex.run(self._try_acquire, name, owner)

    def _try_acquire(self, name: str, owner: str) -> str | None:
        if name in self._held:
            return self._held[name][0]
        if fcntl is None:
            self._held[name] = (owner, None)
            return None
        file = self._open(name)
        self._held[name] = (owner, file)  # recorded first: an exception cannot leave an unknown lock
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file.fileno(), MAX_OWNER_BYTES, 0).decode("utf-8", "replace").partition("\n")[0]
            self._release(name)
            return holder
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), f"{owner}\n".encode()[:MAX_OWNER_BYTES], 0)
        return None

    def release(self, name: str) -> None:
        """Release a lock, if it is held."""
        self._mutex.run(self._release, name)

    def _release(self, name: str) -> None:
        _, file = self._held.get(name, ("", None))
        if file is not None and fcntl is not None and not file.closed:
            fcntl.flock(file, fcntl.LOCK_UN)  # a forked child may have the descriptor too
            file.close()
        self._held.pop(name, None)

    def close(self) -> None:
        """Release all locks."""
        for name in list(self._held):
            self.release(name)

    def _open(self, name: str) -> FileIO:
        path = os.path.join(self._directory, hashlib.sha256(name.encode()).hexdigest()[:32])
        try:
            os.makedirs(self._directory, exist_ok=True)
            while True:  # an object, not a descriptor: it is closed automatically after an exception
                try:
                    return FileIO(path, "r+")
                except FileNotFoundError:
                    with suppress(FileExistsError):
                        return FileIO(path, "x+")
        except OSError as error:
            if error.errno not in PERMISSION_ERRNOS:
                raise translate_errno(error.errno or 0, path) from error
            raise StoreReadOnly(
                f"The directory of locks {self._directory} cannot be written to ({error.strerror}).",
                "Check the permissions of the store's directory, or decide without a lock.",
                path=self._directory,
            ) from error
