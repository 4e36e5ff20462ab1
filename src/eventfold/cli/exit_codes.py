"""How a command ends: the exit code of each error, error messages, and signals.

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
DIFFERENT = 8
INTERRUPTED = 130
TERMINATED = 143

# The first class that matches decides. Errors that scripts must distinguish have their own code; all others are 1.
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
    (DONE, "done; also if the reader of a pipe closes it early (`eventfold read bank.db | head`)"),
    (FAILED, "any other error: an unreadable event, a missing extra, an operation the engine does not support"),
    (UNUSABLE, "invalid arguments or input; nothing was written"),
    (3, "conflict: another writer was first, or an event id was reused with other content"),
    (4, "there is no store at the address"),
    (5, "the store exists and cannot be used now: busy, full, read-only, damaged, of another version"),
    (6, "the append is unconfirmed; it is safe to repeat it with the same ids"),
    (7, "the cursor belongs to another store, or to history this store no longer has"),
    (DIFFERENT, "`reconcile` or `migrate compare` found differences"),
    (
        INTERRUPTED,
        "interrupted by Ctrl-C, also `tail`; `run` exits with 0, and with this code at a second Ctrl-C",
    ),
    (
        TERMINATED,
        "`tail` was terminated (SIGTERM); `run` exits with 0, and with this code at a second SIGTERM",
    ),
)

JSON_REQUESTED = "eventfold.json"  # key in the context's meta: whether --json was given


def exit_code_of(error: EventfoldError) -> int:
    """The exit code of an error."""
    return next((code for kind, code in ERROR_EXIT_CODES if isinstance(error, kind)), FAILED)


def run_command(run: Callable[[], Any], json_requested: Callable[[], bool]) -> Any:
    """Run a command; print an EventfoldError or a system error as a message, and exit with its code."""
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
        "Check the free disk space and your permissions.",
        errno=error.errno,
    )


def print_error(error: EventfoldError, as_json: bool = False) -> None:
    """Print an error on standard error: two sentences, red on a terminal; or one JSON object with its fields."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()  # output that was printed before the error comes first
    if as_json:
        facts: dict[str, Any] = {"error": error.code, "what": error.what, "remedy": error.remedy}
        facts |= {name: value for name, value in error.fields.items() if name not in facts}
        sys.stderr.write(msgspec.json.encode(facts, enc_hook=str).decode() + "\n")
        return
    what, remedy = _escape_control_characters(error.what), _escape_control_characters(error.remedy)
    if not sys.stderr.isatty():
        sys.stderr.write(f"{what}\n{remedy}\n")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    console.print(Text(what, style="bold red"))
    console.print(Text(remedy))


def print_note(text: str) -> None:
    """Print a remark on standard error."""
    sys.stderr.write(_escape_control_characters(text) + "\n")
    sys.stderr.flush()


def _escape_control_characters(text: str) -> str:
    """Escape control characters: an error may quote text of unknown origin."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def silence_stdout() -> None:
    """Redirect standard output to the null device: its reader is gone, and the interpreter's last flush would fail."""
    with contextlib.suppress(OSError, ValueError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)


class Signals:
    """Handler of Ctrl-C and SIGTERM: ends the command cleanly, but not within a `deferred` block."""

    def __init__(self) -> None:
        self._deferring = False
        self._deferred: BaseException | None = None

    def __call__(self, number: int, frame: object) -> None:
        end = SystemExit(TERMINATED) if number == signal.SIGTERM else KeyboardInterrupt()
        if not self._deferring or self._deferred is not None:  # a second signal ends it at once
            raise end
        self._deferred = end

    @contextlib.contextmanager
    def deferred(self) -> Generator[None, None, None]:
        """Run the block to its end; a signal received meanwhile ends the command afterwards."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self._deferred is not None:
            raise self._deferred

    @contextlib.contextmanager
    def installed(self) -> Generator[None, None, None]:
        """Install the handler for both signals, and restore the earlier ones afterwards."""
        try:
            earlier = {number: signal.signal(number, self) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread: the caller of this process handles signals
            earlier = {}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
