"""How a command ends: which exit code an error means, and how errors are told.

Knows: error codes, the streams of a process. Does not know: any command, any engine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Generator
from typing import Any

import msgspec
import typer

from eventfold.errors import (
    AppendConflict,
    AppendUnconfirmed,
    CursorMismatch,
    EventfoldError,
    EventIdReused,
    InvalidInput,
    NotAStore,
    StoreNotFound,
    StoreUnavailable,
)

DONE = 0
FAILED = 1
UNUSABLE = 2
INTERRUPTED = 130
TERMINATED = 143

# The first class that fits decides. What scripts must tell apart has a code of its own, the rest is 1.
ERROR_EXIT_CODES: tuple[tuple[type[EventfoldError], int], ...] = (
    (InvalidInput, UNUSABLE),
    (AppendConflict, 3),
    (EventIdReused, 3),
    (StoreNotFound, 4),
    (NotAStore, 4),
    (StoreUnavailable, 5),
    (AppendUnconfirmed, 6),
    (CursorMismatch, 7),
)

EXIT_CODE_MEANINGS: tuple[tuple[int, str], ...] = (
    (DONE, "done; also when the reader of a pipe has had enough (`eventfold read bank.db | head`)"),
    (FAILED, "any other error: an unreadable event, a missing extra, something the engine cannot do"),
    (UNUSABLE, "the command line or its input cannot be used; nothing was written"),
    (3, "conflict: someone else wrote first, or an event id came back with other content"),
    (4, "no store is there"),
    (5, "the store is there and cannot be used now: busy, full, read-only, damaged, of another version"),
    (6, "the append is unconfirmed; repeating it with the same ids is safe"),
    (7, "the cursor belongs to another store, or to history this store no longer has"),
    (
        INTERRUPTED,
        "interrupted by Ctrl-C, `tail` included; `run` ends with 0, and with this at a second one",
    ),
    (
        TERMINATED,
        "`tail` was asked to end (SIGTERM); `run` ends with 0, and with this when asked twice",
    ),
)

JSON_REQUESTED = "eventfold.json"  # in the context's meta: whether --json was given


def exit_code_of(error: EventfoldError) -> int:
    """The exit code that an error means."""
    return next((code for kind, code in ERROR_EXIT_CODES if isinstance(error, kind)), FAILED)


def run_command(run: Callable[[], Any], json_requested: Callable[[], bool]) -> Any:
    """Run a command; whatever goes wrong that is not our own fault becomes words and an exit code."""
    try:
        result = run()
        sys.stdout.flush()
        return result
    except EventfoldError as error:
        print_error(error, json_requested())
        raise typer.Exit(exit_code_of(error)) from None
    except KeyboardInterrupt:
        silence_stdout()
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        silence_stdout()
        raise typer.Exit(DONE) from None
    except OSError as error:
        print_error(_system_error(error), json_requested())
        silence_stdout()
        raise typer.Exit(FAILED) from None


def _system_error(error: OSError) -> EventfoldError:
    where = f" ({error.filename})" if error.filename else ""
    return EventfoldError(
        f"The system refused to read or write{where}: {error.strerror or error}.",
        "Check that there is room, and that you may use it.",
        errno=error.errno,
    )


def print_error(error: EventfoldError, as_json: bool = False) -> None:
    """An error on standard error: two sentences, red on a terminal; or one JSON object, with its facts."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()  # what was shown before it comes first
    if as_json:
        facts: dict[str, Any] = {"error": error.code, "what": error.what, "now": error.now}
        facts |= {name: value for name, value in error.fields.items() if name not in facts}
        sys.stderr.write(msgspec.json.encode(facts, enc_hook=str).decode() + "\n")
        return
    what, now = _escape_control_characters(error.what), _escape_control_characters(error.now)
    if not sys.stderr.isatty():
        sys.stderr.write(f"{what}\n{now}\n")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    console.print(Text(what, style="bold red"))
    console.print(Text(now))


def print_note(text: str) -> None:
    """A remark beside the output, on standard error."""
    sys.stderr.write(_escape_control_characters(text) + "\n")
    sys.stderr.flush()


def _escape_control_characters(text: str) -> str:
    """Text that cannot drive a terminal: an error may quote what someone else wrote."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def silence_stdout() -> None:
    """Nobody reads any more: let the interpreter's last flush go nowhere instead of complaining."""
    with contextlib.suppress(OSError, ValueError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)


class Signals:
    """Ctrl-C and SIGTERM, which end a command cleanly, but not in the middle of what is `held` together."""

    def __init__(self) -> None:
        self._deferring = False
        self._deferred: BaseException | None = None

    def __call__(self, number: int, frame: object) -> None:
        end = SystemExit(TERMINATED) if number == signal.SIGTERM else KeyboardInterrupt()
        if not self._deferring or self._deferred is not None:  # who asks twice means at once
            raise end
        self._deferred = end

    @contextlib.contextmanager
    def deferred(self) -> Generator[None, None, None]:
        """What is done inside is done to its end; a signal that came meanwhile ends the command after it."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self._deferred is not None:
            raise self._deferred

    @contextlib.contextmanager
    def installed(self) -> Generator[None, None, None]:
        """Take over both signals, and give them back afterwards."""
        try:
            earlier = {number: signal.signal(number, self) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: then the process's owner decides
            earlier = {}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
