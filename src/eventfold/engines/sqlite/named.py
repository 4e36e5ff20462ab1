"""Room: locks by name, for whoever wants to decide alone: a file for each name, locked by flock, in a folder
beside the store. A process that dies lets go of its locks.

Knows: files. Does not know: what a name stands for, SQL.
"""

from __future__ import annotations

import hashlib
import os
import threading

from eventfold.engines.sqlite.system import NO_RIGHT, refused_by_system
from eventfold.errors import StoreReadOnly

try:
    import fcntl
except ImportError:  # Windows: locks hold within the process only
    fcntl = None  # type: ignore[assignment]

OWNER_BYTES = 400


class NamedLocks:
    """The locks that one engine holds. Others, in this process or another, are kept out by the file."""

    def __init__(self, path: str) -> None:
        self._folder = path + ".locks"
        self._held: dict[str, tuple[str, int | None]] = {}
        self._mutex = threading.Lock()

    def take(self, name: str, owner: str) -> str | None:
        """Take a lock if it is free: None; otherwise who has it. Raises StoreReadOnly."""
        with self._mutex:
            if name in self._held:
                return self._held[name][0]
            if fcntl is None:
                self._held[name] = (owner, None)
                return None
            file = self._open(name)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(file, OWNER_BYTES, 0).decode("utf-8", "replace").partition("\n")[0]
                os.close(file)
                return holder
            os.ftruncate(file, 0)
            os.pwrite(file, f"{owner}\n".encode()[:OWNER_BYTES], 0)
            self._held[name] = (owner, file)
            return None

    def give_back(self, name: str) -> None:
        """Let go of a lock. Harmless where it is not held."""
        with self._mutex:
            _, file = self._held.pop(name, ("", None))
            if file is not None and fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_UN)  # for a forked child as well, which has the descriptor too
                os.close(file)

    def close(self) -> None:
        """Let go of all of them."""
        for name in list(self._held):
            self.give_back(name)

    def _open(self, name: str) -> int:
        path = os.path.join(self._folder, hashlib.sha256(name.encode()).hexdigest()[:32])
        try:
            os.makedirs(self._folder, exist_ok=True)
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno not in NO_RIGHT:
                raise refused_by_system(error.errno or 0, path) from error
            raise StoreReadOnly(
                f"The folder of locks {self._folder} cannot be written ({error.strerror}).",
                "Check the rights of the store's folder, or decide without a lock.",
                path=self._folder,
            ) from error
