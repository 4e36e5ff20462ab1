"""How tests run commands: in this process, in a process of its own, on a terminal of 80 columns.

Knows: pipes and pseudo-terminals. Does not know: any command.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import typer.testing
from typer.testing import CliRunner

from eventfold.cli import app

# The tree of all commands is made of their signatures, which takes longer than most commands: once for all runs.
typer.testing._get_command = functools.cache(typer.testing._get_command)  # pyright: ignore[reportPrivateUsage]

APPS = Path(__file__).parent / "apps"
PATIENCE = 90.0  # seconds any command may take
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Ran(NamedTuple):
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """The output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The error as JSON: the last line."""
        return json.loads(self.err.splitlines()[-1])


def run(*words: str, input: str | bytes | None = None, **env: str | None) -> Ran:
    """Run a command in this process, its output in a pipe."""
    settings: dict[str, str | None] = {"EVENTFOLD_URL": None, "COLUMNS": "80", **env}
    result = CliRunner().invoke(app, words, input=input, env=settings, prog_name="eventfold")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a new process, which can import what is tested, and the tests."""
    root = Path(__file__).parents[2]
    keep = {k: v for k, v in os.environ.items() if k not in ("EVENTFOLD_URL", "COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    there = f"{root / 'src'}{os.pathsep}{root}"
    return keep | {"TERM": "xterm-256color", "PYTHONUNBUFFERED": "", "PYTHONPATH": there} | dict(more or {})


COMMAND = (sys.executable, "-m", "eventfold")


def process(*words: str, folder: Path, input: str = "", **env: str) -> Ran:
    """Run a command in a process of its own."""
    done = subprocess.run(
        [*COMMAND, *words],
        cwd=folder,
        input=input,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment(env),
    )
    return Ran(done.returncode, done.stdout, done.stderr)


class Running:
    """A command that is running: its lines as they come."""

    def __init__(self, words: tuple[str, ...], folder: Path, source: Running | None = None) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=folder,
            stdin=subprocess.DEVNULL if source is None else source._process.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment(),
        )
        self._rest = b""
        self.error_output = ""

    def line(self) -> str:
        """The next line it shows; fails if none comes."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(self._process.stdout.fileno(), 65536) if ready else b""
            assert more, "the command shows nothing more"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop_reading(self) -> None:
        """Close the pipe it writes to."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.stdout = None

    def end(self) -> tuple[int, str, str]:
        """Wait for its end. Returns the exit code, the remaining standard output, and standard error."""
        out, error = self._process.communicate(timeout=PATIENCE)
        self.error_output = error.decode()
        return self._process.returncode, (self._rest + (out or b"")).decode(), self.error_output

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._process.wait(timeout=PATIENCE)


def started(*words: str, folder: Path, source: Running | None = None) -> Running:
    """Start a command, its input the output of another if `source`; killed at the end of the with block."""
    return Running(words, folder, source)


def on_terminal(
    *words: str, folder: Path, columns: int = 80, interrupt_after: str | None = None, **env: str
) -> tuple[int, str]:
    """Run a command on a terminal; returns its code and what was shown, colours included.

    `interrupt_after`: press Ctrl-C once this text has been shown.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    running = subprocess.Popen(
        [*COMMAND, *words],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(env),
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 0.2)[0]:
                continue
            try:
                more = os.read(ours, 65536)
            except OSError:  # Linux: the other side was closed
                break
            if not more:
                break
            shown += more
            if interrupt_after is not None and interrupt_after.encode() in shown:
                running.send_signal(signal.SIGINT)
                interrupt_after = None
        code = running.wait(timeout=PATIENCE)
    finally:
        os.close(ours)
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        running.wait()
    return code, shown.decode("utf-8", errors="replace").replace("\r\n", "\n")


def plain(shown: str) -> str:
    """What is read on a terminal: without colours, and without blanks at the ends of lines."""
    return "\n".join(line.rstrip() for line in ANSI.sub("", shown).split("\n")).strip("\n")


def too_wide(shown: str, columns: int = 80) -> list[str]:
    """The lines that do not fit."""
    from rich.cells import cell_len

    return [line for line in plain(shown).split("\n") if cell_len(line) > columns]
