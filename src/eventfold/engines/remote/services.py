"""The services of a remote store: look-ups, snapshots, copying. See ports/services.py for what each method does.

Knows: messages. Does not know: HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from eventfold.core.snapshot import Snapshot
from eventfold.engines.remote.failures import ServerRefused
from eventfold.errors import EventfoldError, StoreUnavailable
from eventfold.ports import engine_messages as messages
from eventfold.ports.engine_messages import Nothing

T = TypeVar("T")
E = TypeVar("E")


class Ask(Protocol):
    """Sends a message to the server and returns its answer. See Connection.ask."""

    async def __call__(
        self, call: str, message: Any, kind: type[T], *, writes: bool = False, may_change: bool = False
    ) -> T:
        """See Connection.ask."""
        ...


class NamesAnswer(Protocol[E]):
    """An answer with names."""

    value: list[E]


async def all_names(
    ask: Ask, call: str, message: messages.Names, kind: type[NamesAnswer[E]], name_of: Callable[[E], str]
) -> list[E]:
    """Return names in order, by as many calls as it takes: an answer has MAX_NAMES at most."""
    found, after = list[E](), message.after
    while True:
        asked = min(message.limit - len(found), messages.MAX_NAMES)
        page = (await ask(call, messages.Names(message.prefix, asked, after), kind)).value
        found += page
        if len(page) < asked or len(found) >= message.limit:
            return found
        after = name_of(page[-1])


class RemoteLookups:
    """See services.Lookups."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def position_of(self, id: bytes) -> int | None:
        """See services.Lookups."""
        return (await self._ask("position-of", messages.EventId(id), messages.Number)).value

    async def tag_keys(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[str]:
        """See services.Lookups."""
        return await all_names(self._ask, "tag-keys", messages.Names(prefix, limit, after), messages.Texts, str)

    async def tag_names(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[str]:
        """See services.Lookups."""
        return await all_names(self._ask, "tag-names", messages.Names(prefix, limit, after), messages.Texts, str)

    async def counts(self, query: Query, bounds: Sequence[int]) -> list[int]:
        """See services.Lookups."""
        return (await self._ask("counts", messages.Counts(query, list(bounds)), messages.Numbers)).value


class RemoteSnapshots:
    """See services.Snapshots."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def get(self, key: str) -> Snapshot | None:
        """See services.Snapshots."""
        return (await self._ask("snapshot", messages.Key(key), messages.SnapshotMessage)).value

    async def put(self, key: str, snapshot: Snapshot) -> None:
        """See services.Snapshots. A snapshot that the server refuses is one that cannot be stored."""
        try:
            await self._ask("put-snapshot", messages.SnapshotMessage(key, snapshot), Nothing)
        except StoreUnavailable:
            raise
        except EventfoldError as error:
            raise ServerRefused(error.what, error.remedy) from error

    async def delete_prefix(self, prefix: str = "") -> int:
        """See services.Snapshots."""
        return (await self._ask("drop-snapshots", messages.Key(prefix), messages.Number)).value or 0


class RemoteReplication:
    """See services.Replication."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def keys(self, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """See services.Replication."""
        return (await self._ask("request-keys", messages.Names("", limit, after), messages.RequestKeys)).value

    async def import_events(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()) -> None:
        """See services.Replication. Raises AppendUnconfirmed if the answer is lost: a copy then continues."""
        await self._ask("import", messages.ImportEvents(list(events), list(keys)), Nothing, writes=True)

    async def take_identity(self, store_id: str, epoch: int) -> None:
        """See services.Replication. Raises AppendUnconfirmed if the answer is lost."""
        message = messages.TakeIdentity(store_id, epoch)
        await self._ask("take-identity", message, Nothing, writes=True, may_change=True)
