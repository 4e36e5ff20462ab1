"""Faults that Linux can cause: mounts, file systems that are shut down, namespaces.

Knows: system calls and the programs that mount; all but the scratch folder needs root. Does not know: stores.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

NEW_MOUNTS, NEW_NAMES, NEW_PROCESSES = 0x00020000, 0x04000000, 0x20000000  # CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID
PRIVATE = (1 << 18) | (1 << 14)  # MS_PRIVATE | MS_REC
SHUT_DOWN, WITHOUT_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
END_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_LIBC = ctypes.CDLL(None, use_errno=True)
_SCRATCH: list[Path] = []


def scratch() -> Path:
    """Return the folder of all rounds of this run, on a disk."""
    if not _SCRATCH:
        _SCRATCH.append(Path(tempfile.mkdtemp(prefix="eventfold-soak-")))
        _SCRATCH[0].chmod(0o755)
    return _SCRATCH[0]


def clean() -> None:
    """Remove that folder."""
    for folder in _SCRATCH:
        shutil.rmtree(folder, ignore_errors=True)


def root() -> bool:
    """Return whether this process may make mounts and namespaces, by trying it in a child."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        return False
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            own_mounts()
            unshare(NEW_NAMES | NEW_PROCESSES)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def end_with_parent() -> None:
    """Let the kernel end this process when its parent ends."""
    _LIBC.prctl(END_WITH_PARENT, int(signal.SIGKILL))


def unshare(what: int) -> None:
    """Leave the namespaces of the parent. Raises OSError."""
    if _LIBC.unshare(what):
        raise OSError(ctypes.get_errno(), "unshare")


def own_mounts() -> None:
    """Make later mounts visible to this process and its children only; they disappear with these."""
    unshare(NEW_MOUNTS)
    if _LIBC.mount(b"none", b"/", None, PRIVATE, None):
        raise OSError(ctypes.get_errno(), "mount --make-rprivate /")


def container(host: str, function: Callable[[], None]) -> None:
    """Run the function as the first process of a new process namespace, with this host name, and wait for its end."""
    unshare(NEW_PROCESSES | NEW_NAMES)
    name = host.encode()
    if _LIBC.sethostname(name, len(name)):
        raise OSError(ctypes.get_errno(), "sethostname")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            end_with_parent()
            own_mounts()
            command("mount", "-t", "proc", "proc", "/proc")
            function()
            code = 0
        finally:
            os._exit(code)
    os._exit(1 if os.waitpid(pid, 0)[1] else 0)


def command(*words: str) -> None:
    """Run a program, also one of the system's administrator. Raises OSError with its error output if it fails."""
    settings = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=settings)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


class LoopDisk:
    """An ext4 file system in a file, mounted on a folder."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.image, self.folder = folder / "disk.image", folder / "disk"
        self.folder.mkdir()
        with self.image.open("wb") as file:
            file.truncate(megabytes << 20)
        command("mkfs.ext4", "-q", "-b", "1024", "-m", "0", "-O", "^metadata_csum", str(self.image))
        self.mount()

    def mount(self) -> None:
        """Mount it; after a power cut the journal is replayed."""
        command("mount", "-o", "loop", str(self.image), str(self.folder))

    def unmount(self) -> None:
        """Unmount it; a file system that was shut down writes nothing more."""
        command("umount", str(self.folder))

    def cut(self) -> None:
        """Cut the power: from now on nothing reaches the disk, and what was not synced is lost."""
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(handle, SHUT_DOWN, struct.pack("I", WITHOUT_FLUSH))
        finally:
            os.close(handle)


class MemoryDisk:
    """A tmpfs whose size can be changed."""

    def __init__(self, folder: Path, kilobytes: int) -> None:
        self.folder, self.kilobytes = folder / "disk", kilobytes
        self.folder.mkdir()
        command("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(self.folder))

    def grow(self, kilobytes: int) -> None:
        """Add free space."""
        self.kilobytes += kilobytes
        command("mount", "-o", f"remount,size={self.kilobytes}k", str(self.folder))

    def unmount(self) -> None:
        """Unmount it."""
        command("umount", str(self.folder))
