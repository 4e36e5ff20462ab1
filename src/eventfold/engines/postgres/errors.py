"""Errors of PostgreSQL and its driver, translated to eventfold's: two sentences and a code each.

Knows: SQLSTATEs, and the texts of failed connections. Does not know: which call failed, and so whether an append may
have been committed: the caller decides that.
"""

from __future__ import annotations

import errno
import json
import os
from typing import Any

import psycopg

from eventfold.errors import (
    AppendConflict,
    AppendUnconfirmed,
    EventfoldError,
    EventIdReused,
    InvalidInput,
    InvalidUrl,
    NotAStore,
    StoreBusy,
    StoreDamaged,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    StoreVersionMismatch,
)
from eventfold.ports.inline import import_refused, joined_append_refused
from eventfold.ports.refusals import beyond_head

ErrorTemplate = tuple[type[EventfoldError], str, str]

# Whole SQLSTATEs first, then their two-character classes. https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_SQLSTATE: dict[str, ErrorTemplate] = {
    "EF003": (InvalidInput, "", ""),
    "EF004": (StoreNotFound, "", ""),
    "EF005": (StoreReadOnly, "", ""),
    "EF010": (StoreBusy, "", ""),
    "EF020": (StoreVersionMismatch, "", ""),
    "EF021": (StoreDamaged, "", ""),
    "28P01": (
        StoreUnavailable,
        "The server refused the user name or password.",
        "Correct them in the URL, or in PGPASSWORD or ~/.pgpass.",
    ),
    "28000": (
        StoreUnavailable,
        "The server does not allow this user to connect from here.",
        "Have its pg_hba.conf allow the user, database and host.",
    ),
    "3D000": (
        StoreNotFound,
        "There is no such database on the server.",
        "Correct its name in the URL, or create it (createdb).",
    ),
    "42501": (
        StoreUnavailable,
        "This user does not have the rights that this needs.",
        "Grant it the writer or reader role of this store (eventfold.engines.postgres.roles_sql writes the SQL).",
    ),
    "25006": (StoreReadOnly, "The server takes no writes: it is a replica, or read-only.", "Write to the primary."),
    "55P03": (
        StoreBusy,
        "Another writer, or an upgrade, held the store for longer than the lock timeout; nothing was written.",
        "Try again, or allow more time (lock_timeout=).",
    ),
    "57014": (
        StoreBusy,
        "The server cancelled the statement (statement_timeout, or an operator); nothing was written.",
        "Try again, or allow more time.",
    ),
    "40001": (StoreBusy, "The server could not serialise the transaction; nothing was written.", "Try again."),
    "40P01": (StoreBusy, "The transaction was chosen to end a deadlock; nothing was written.", "Try again."),
    "53100": (StoreFull, "The server's disk is full; nothing was written.", "Free space on it and try again."),
    "53300": (
        StoreUnavailable,
        "The server has no connection left.",
        "Try again later, use fewer processes, raise max_connections, or put PgBouncer in between.",
    ),
    "57P01": (StoreUnavailable, "The server ended the connection.", "Try again: a new connection is made."),
    "57P02": (StoreUnavailable, "The server crashed and ended the connection.", "Try again: a new connection is made."),
    "57P03": (StoreUnavailable, "The server is starting up or shutting down.", "Try again in a moment."),
    "57P04": (StoreNotFound, "The database was dropped.", "Restore it, or open another."),
    "57P05": (
        StoreUnavailable,
        "The server ended the connection because it was idle.",
        "Try again: a new connection is made.",
    ),
    "42P01": (
        StoreNotFound,
        "The store's tables do not exist.",
        "Open it with create=True, or check the schema= option.",
    ),
    "3F000": (
        StoreNotFound,
        "The store's schema does not exist.",
        "Open it with create=True, or check the schema= option.",
    ),
    "42883": (
        NotAStore,
        "The store's functions do not exist, or are of another version.",
        "Open the store once with create=True, or upgrade it.",
    ),
    "42703": (NotAStore, "The tables there have other columns than a store's.", "Choose another schema (schema=)."),
    "42P07": (NotAStore, "Another object has this name already.", "Choose another schema (schema=)."),
    "22021": (
        StoreDamaged,
        "A text in the store is no longer valid UTF-8.",
        "Keep a copy of the database as it is, check the server's disk, and restore a backup.",
    ),
    "XX001": (
        StoreDamaged,
        "The server found damaged data.",
        "Check its disk and log; restore from a backup or promote a replica.",
    ),
    "XX002": (StoreDamaged, "The server found a damaged index.", "REINDEX it, and check the server's disk and log."),
    "55000": (
        NotAStore,
        "The server refused this because of the object's kind or state.",
        "Read its message, and check which objects the store's schema has.",
    ),
}
_BY_SQLSTATE_CLASS: dict[str, ErrorTemplate] = {
    "08": (StoreUnavailable, "The connection to the server failed.", "Try again: a new connection is made."),
    "53": (
        StoreUnavailable,
        "The server has run out of a resource.",
        "Read its message; free the resource and try again.",
    ),
    "58": (
        StoreUnavailable,
        "The server had an error of its operating system.",
        "Check its disk and log, then try again.",
    ),
    "57": (StoreUnavailable, "The server ended the statement.", "Try again."),
    "22": (InvalidInput, "The server cannot store a value.", "Read its message."),
}
_OTHER_ERROR: ErrorTemplate = (StoreUnavailable, "The server refused the statement.", "Read its message.")

# A connection that could not be made has no SQLSTATE, only a text of the server or of libpq. In another language than
# English the text matches nothing here, and is shown as it is.
_SQLSTATE_BY_TEXT: tuple[tuple[str, str], ...] = (
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("authentication failed", "28000"),
    ("no pg_hba.conf entry", "28000"),
    ("role ", "28P01"),
    ("too many clients", "53300"),
    ("remaining connection slots", "53300"),
    ("starting up", "57P03"),
    ("shutting down", "57P03"),
    ("not yet accepting", "57P03"),
    ("permission denied for database", "42501"),
)
_TRANSIENT_SQLSTATES = ("57P03", "57P01", "57P02", "53300", "08")


def is_connection_lost(error: psycopg.Error, closed: bool) -> bool:
    """Whether the connection is lost, so that the outcome of the last statement is unknown."""
    state = error.sqlstate or ""
    if error.diag.severity_nonlocalized in ("FATAL", "PANIC"):  # the server closes the connection after it
        return True
    if not state:
        return closed or isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return closed or state[:2] == "08" or state in ("57P01", "57P02", "57P03", "57P05")


def translate_error(error: psycopg.Error, where: str) -> EventfoldError:
    """The eventfold error for an error of the server."""
    state = error.sqlstate or ("22000" if isinstance(error, psycopg.DataError) else "08000")
    if state.startswith("EF"):
        return _from_store_function(error, state)
    kind, what, remedy = _BY_SQLSTATE.get(state) or _BY_SQLSTATE_CLASS.get(state[:2]) or _OTHER_ERROR
    return kind(
        f"{what[:-1]} ({where}: {server_message(error)}).",
        remedy,
        sqlstate=state,
        server=where,
        said=server_message(error),
    )


def append_unconfirmed(error: psycopg.Error, where: str) -> AppendUnconfirmed:
    """The error for an append whose reply was lost."""
    return AppendUnconfirmed(
        f"The connection was lost before the server confirmed the append ({where}: {server_message(error)}).",
        "It may have been written: repeat the identical append, which is safe.",
        sqlstate=error.sqlstate,
        server=where,
    )


def receipt_unavailable(error: StoreUnavailable, where: str) -> AppendUnconfirmed:
    """The error for an append that is in the log, but whose receipt could not be read."""
    return AppendUnconfirmed(
        f"The append is in the log, and its receipt could not be read back ({where}: {error.what.rstrip('.')}).",
        "Repeat the identical append, or ask again: it will not be written twice.",
        cause=error.code,
        server=where,
    )


def translate_connection_error(error: psycopg.Error, where: str) -> EventfoldError:
    """The error for a connection that could not be made, with the reason."""
    words = server_message(error)
    if "database" in words and "does not exist" in words:
        state = "3D000"
    elif any(part in words for part in ("invalid URI", "invalid connection option", "invalid port", "invalid integer")):
        return InvalidUrl(
            f"PostgreSQL's client does not understand the address: {words}.",
            "Write postgresql://user@host:port/database.",
        )
    else:
        state = error.sqlstate or next((state for part, state in _SQLSTATE_BY_TEXT if part in words), "08006")
    kind, what, remedy = _BY_SQLSTATE.get(state) or _BY_SQLSTATE_CLASS.get(state[:2]) or _OTHER_ERROR
    if state == "08006":
        what, remedy = (
            "The server could not be reached.",
            "Check that it runs and that host and port are right, then try again.",
        )
        if _is_out_of_descriptors():
            what, remedy = (
                "This process, or the system, has no file descriptor left for a connection.",
                "Close files or connections, or raise the limit (ulimit -n), then try again.",
            )
    return kind(f"{what[:-1]} ({where}: {words}).", remedy, sqlstate=state, server=where, said=words)


def _is_out_of_descriptors() -> bool:
    """Whether no file descriptor is left. The driver reports that only as a bad connection."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def unencodable_text(error: UnicodeEncodeError) -> InvalidInput:
    """The error for a text with lone surrogates."""
    return InvalidInput(f"{error.object!r} is not a text that can be stored.", "Use text without lone surrogates.")


def undecodable_text(error: UnicodeDecodeError) -> StoreDamaged:
    """The error for a stored text that is not UTF-8: the server does not check what it reads from its disk."""
    return StoreDamaged(
        f"A text in the store is no longer valid UTF-8 ({error.reason}): its bytes have changed on the server's disk.",
        "Keep a copy of the database as it is, check the server's disk, and restore a backup.",
        detail=error.reason,
    )


def is_transient(error: EventfoldError) -> bool:
    """Whether another attempt may succeed soon: the server is restarting, unreachable or has no connection left."""
    state = str(error.fields.get("sqlstate") or "")
    return isinstance(error, StoreUnavailable) and (state in _TRANSIENT_SQLSTATES or state[:2] == "08")


def server_message(error: BaseException) -> str:
    """The first line of the server's message, without what the driver adds to it."""
    diagnosis = getattr(error, "diag", None)
    primary = getattr(diagnosis, "message_primary", None)
    lines = [line.strip() for line in str(primary or error).splitlines() if line.strip()]
    line = lines[0] if lines else type(error).__name__
    if primary is None and "FATAL:" in str(error):
        line = next(line for line in lines if "FATAL:" in line)
    return line.rpartition("FATAL:")[2].strip().rstrip(".")[:300]


def refusal(error: BaseException) -> EventfoldError | None:
    """The eventfold error behind an exception that a joined transaction's COMMIT raised, if there is one.

    `error` is what the driver or the framework raised: psycopg's error, or SQLAlchemy's or Django's that wraps it.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, psycopg.Error) and (seen.sqlstate or "").startswith("EF"):
            return _from_store_function(seen, seen.sqlstate or "")
        inner: Any = getattr(seen, "orig", None) or seen.__cause__ or seen.__context__
        seen = inner if isinstance(inner, BaseException) else None
    return None


def _from_store_function(error: psycopg.Error, state: str) -> EventfoldError:
    """An error that the store's own SQL functions raised: its two sentences, and its fields in DETAIL."""
    what, _, remedy = (error.diag.message_primary or "").rpartition(". ")
    what += "."
    facts: Any = json.loads(error.diag.message_detail) if error.diag.message_detail else {}
    if state == "EF001":
        return AppendConflict(
            what,
            remedy,
            clause=facts.get("clause"),
            after=facts.get("after"),
            found=facts.get("place"),
            query=facts.get("query"),
        )
    if state == "EF002":
        return EventIdReused(what, remedy, position=facts.get("place"))
    if state == "EF006":
        return beyond_head(facts["after"], facts["place"])
    if state == "EF008":
        return joined_append_refused(facts["name"], facts["type"], "postgres")
    if state == "EF009":
        return import_refused(str(facts).split("\n"), "postgres")
    return _BY_SQLSTATE[state][0](what, remedy, sqlstate=state)
