"""Names of lease holders, and whether the process of one has ended for certain, so that nobody waits for its lease.

A process id says nothing outside the PID namespace that gave it, and nothing for long: it is given again. So a name
holds where the id was given (this boot of this machine, this namespace) and when the process began.
Knows: Linux's /proc, process ids. Does not know: leases. Where any of this cannot be known, no process has ended.
"""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import suppress
from hashlib import sha256

UNKNOWN = "-"  # of a system without /proc: its leases are waited for until they expire
START = 19  # the field of /proc/PID/stat behind the program's name: when it began, in clock ticks since the boot


def new_holder_id() -> str:
    """A name unlike any other: machine, process id, where that id was given, when the process began, chance."""
    return f"{_own_prefix()}{secrets.token_hex(3)}"


def is_held_here(holder: str) -> bool:
    """Whether a holder is of this very process."""
    return holder.startswith(_own_prefix())


def is_dead_holder(holder: str) -> bool:
    """Whether a holder was a process that has certainly ended: one of this namespace that is no more.

    A name of another form, as older releases gave it, or of another place tells nothing: its lease is waited for.
    """
    parts = holder.rsplit(":", 4)
    if len(parts) != 5 or not parts[1].isdecimal():
        return False
    _, process, place, began, _ = parts
    here = _namespace_id()
    if here == UNKNOWN or place != here:
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    now = _start_time(process)
    return UNKNOWN not in (began, now) and began != now  # another process has its id


def _own_prefix() -> str:
    place = _namespace_id()
    began = UNKNOWN if place == UNKNOWN else _start_time("self")
    return f"{socket.gethostname()}:{os.getpid()}:{place}:{began}:"


def _namespace_id() -> str:
    """Where this process's id was given: 12 hex digits of the boot's and the namespaces' identity; or UNKNOWN."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return UNKNOWN  # /proc is another namespace's: its numbers are not ours
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except (OSError, ValueError):
        return UNKNOWN
    clock = ""  # a time namespace shifts when processes seem to have begun
    with suppress(OSError):
        clock = os.readlink("/proc/self/ns/time")
    return sha256(f"{boot}\n{namespace}\n{clock}".encode()).hexdigest()[:12] if boot else UNKNOWN


def _start_time(process: str) -> str:
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[START].decode("ascii")
    except (OSError, IndexError, ValueError):
        return UNKNOWN
