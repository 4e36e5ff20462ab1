"""What a cluster, its driver or a lost connection says, as errors of the library.

Knows: error codes of JetStream, exceptions of nats-py. Does not know: what was asked for.
"""

from __future__ import annotations

import asyncio
import ssl

import msgspec
from nats import errors as driver

from eventfold.errors import (
    AppendUnconfirmed,
    EventfoldError,
    InvalidEvent,
    NotAStore,
    StoreBusy,
    StoreDamaged,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
)

WRONG_LAST_SEQUENCE = frozenset({10071, 10164})  # the second: while another message is on its way
INCOMPLETE_BATCH = 10176  # as when the leader changes between its messages
STORE_FAILED = 10077  # at the leader; the other nodes may have stored it
NOT_FOUND_MESSAGE, NOT_FOUND_STREAM = 10037, 10059
FULL = frozenset({10002, 10023, 10028, 10047})
TOO_LARGE = frozenset({10054, 10097})
NOT_ENABLED = frozenset({10039, 10076, 10035})
REFUSED_LOGIN = ("authorization", "authentication")


class ApiFailure(msgspec.Struct, frozen=True):
    """The error in an answer of JetStream."""

    code: int
    err_code: int = 0
    description: str = ""

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later: an election, a server that starts."""
        return (self.code in (408, 429, 503) and self.err_code not in FULL | NOT_ENABLED) or (
            self.err_code in (INCOMPLETE_BATCH, STORE_FAILED)
        )


class ApiError(Exception):
    """JetStream answered with an error."""

    def __init__(self, failure: ApiFailure) -> None:
        super().__init__(failure.description)
        self.failure = failure


def error_of_api(failure: ApiFailure, where: str) -> EventfoldError:
    """The error that a caller gets for an answer of JetStream."""
    why = f"{failure.description.rstrip('.')}, {failure.err_code}"
    if failure.err_code == NOT_FOUND_STREAM:
        return not_found(where)
    if failure.err_code in FULL:
        return StoreFull(
            f"The cluster of {where} has no space for this ({why}).",
            "Nothing was written: free disk space on its nodes, or raise max_file_store, then append again.",
            where=where,
        )
    if failure.err_code in TOO_LARGE:
        return InvalidEvent(
            f"An event is larger than the cluster of {where} accepts ({why}).",
            "Keep large files elsewhere and put their address and digest in the event.",
        )
    if failure.err_code in NOT_ENABLED:
        return NotAStore(
            f"The account at {where} has no JetStream ({why}).",
            "Enable JetStream on the servers and for this account, or open the store with another account.",
            where=where,
        )
    return StoreUnavailable(
        f"The cluster of {where} refused the call ({why}).",
        "Check its nodes by eventfold cluster status, and its log.",
        where=where,
        err_code=failure.err_code,
    )


def is_refused_login(error: BaseException | None) -> bool:
    """Whether a server refused the credentials."""
    return isinstance(error, driver.AuthorizationError) or any(word in str(error).lower() for word in REFUSED_LOGIN)


def connect_error(error: BaseException | None, where: str) -> StoreUnavailable:
    """The error of a cluster to which no connection could be made."""
    if is_refused_login(error):
        return StoreUnavailable(
            f"The cluster of {where} refused the credentials ({_text(error)}).",
            "Check the user and the password in the address, or the credentials file, and whether they have expired.",
            where=where,
        )
    if isinstance(error, ssl.SSLError):
        return StoreUnavailable(
            f"No encrypted connection to {where} could be made ({_text(error)}).",
            "Check tls_ca=, tls_cert= and tls_key=, and that the certificate names the host.",
            where=where,
        )
    return StoreUnavailable(
        f"No server of {where} can be reached ({_text(error)}).",
        "Nothing was sent: check the address and whether the servers run.",
        where=where,
    )


def _text(error: BaseException | None) -> str:
    if error is None or isinstance(error, TimeoutError | asyncio.TimeoutError | driver.TimeoutError):
        return "no connection within the timeout"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__).removeprefix("nats: ").rstrip(".")


def no_answer(where: str, why: str) -> StoreUnavailable:
    """The error of a call for which the cluster gave no answer in time, and which wrote nothing."""
    return StoreUnavailable(
        f"The cluster of {where} gave no answer: {why}.",
        "Nothing was written: check that a majority of its nodes run and reach each other, then try again.",
        where=where,
    )


def not_permitted(where: str, what: str) -> StoreReadOnly:
    """The error of a call that the account may not make."""
    return StoreReadOnly(
        f"The account at {where} may not do this ({what}).",
        "Nothing was written: use an account with this right; eventfold cluster accounts writes the rights.",
        where=where,
    )


def unconfirmed(where: str, why: str) -> AppendUnconfirmed:
    """The error of an append whose outcome could not be found out in time."""
    return AppendUnconfirmed(
        f"It is unknown whether the cluster of {where} wrote this: {why}.",
        "Repeat the identical append: with the same event ids it is written once.",
        where=where,
    )


def contended(where: str, seconds: float) -> StoreBusy:
    """The error of an append that other writers were always faster than."""
    return StoreBusy(
        f"Other writers appended to {where} before this append in every attempt of {seconds:.0f} s.",
        "Nothing was written: try again, or append from fewer processes.",
        where=where,
    )


def too_large(type: str, size: int, limit: int) -> InvalidEvent:
    """The error of an event that does not fit into a message."""
    return InvalidEvent(
        f"The event {type} has {size:,} bytes as a message with its headers, and the cluster accepts {limit:,}.",
        "Keep large files elsewhere and put their address and digest in the event, or raise max_payload of the nodes.",
        type=type,
        size=size,
    )


def not_found(where: str) -> StoreNotFound:
    """The error of an address without a store."""
    return StoreNotFound(
        f"There is no store at {where}.",
        "Check the name, or create the store once: eventfold init and its address.",
        where=where,
        creatable=True,
    )


def not_a_store(where: str, why: str) -> NotAStore:
    """The error of a stream that is no store of eventfold."""
    return NotAStore(
        f"The stream at {where} is not a store of eventfold: {why}.",
        "Check the name, or create a store under another one: eventfold init.",
        where=where,
    )


def changed_stream(where: str, why: str) -> StoreDamaged:
    """The error of a stream whose configuration or messages were changed, so that it loses events."""
    return StoreDamaged(
        f"The stream of {where} was changed: {why}.",
        "Nothing is read or written: restore a copy with every event (eventfold copy), and take the right to update "
        "streams from the accounts of applications (eventfold cluster accounts).",
        where=where,
    )


def missing_message(where: str, node: str, stream: str, sequence: int, why: str) -> StoreDamaged:
    """The error of an event that no node returns."""
    return StoreDamaged(
        f"The stream {stream} of {where} does not return the event at sequence {sequence} as it was written, neither "
        f"from the node {node}, which leads it, nor from another one: {why}.",
        "Nothing was skipped. Let another node lead it, wipe the store of this one and let it resync, then read again.",
        where=where,
        node=node,
        stream=stream,
        sequence=sequence,
    )


def stale_index(path: str, where: str, indexed: int, last: int) -> StoreDamaged:
    """The error of a local index with events that the stream does not have."""
    return StoreDamaged(
        f"The local index {path} has events up to {indexed} that are not in the stream of {where}: it ends at {last}.",
        "Nothing was changed: find out whether the stream lost events or is another one; if that is right, begin a new "
        "epoch (eventfold restored), which builds a new index and keeps this file, or move the file away.",
        path=path,
        position=indexed,
        last=last,
    )
