"""The JSON Schemas of a store, kept in its log: as `$schema-registered` events, which a copy or a backup contains too.

A version of a type is never changed, so what was read once stays valid. What another server registers is found when a
type or a version is not known here.
Knows: the log. Does not know: HTTP, classes.
"""

from __future__ import annotations

import math
import time

import msgspec

from eventfold.aio import AsyncStore, opened_log
from eventfold.core.envelope import NewEvent, check_new, new_id
from eventfold.core.query import ConditionClause, Query
from eventfold.core.tags import check_name
from eventfold.errors import AppendConflict, InvalidInput
from eventfold.log.append import write
from eventfold.log.context import Options
from eventfold.ports.engine import Engine
from eventfold.ports.messages import AppendRequest, Span
from eventfold.server.refusals import SchemaConflict
from eventfold.server.schemas.compatibility import check_compatible, is_same
from eventfold.server.schemas.declared import DeclaredType, SchemaDeclaration

TYPE, TAG_PREFIX = "$schema-registered", "$schema:"
REGISTERED = Query.of(types=TYPE)
ATTEMPTS = 10


class SchemaRegistered(msgspec.Struct, frozen=True):
    """The data of the event."""

    type: str
    version: int
    schema: dict[str, object]
    tags: dict[str, str] = {}


class StoreSchemas:
    """The types that are declared by a JSON Schema in one store."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._types = dict[str, dict[int, DeclaredType]]()
        self._position: int = 0
        self._epoch: int = -1
        self._catching_up = False
        self._read_at = -math.inf  # when the log was last read to its end, by the clock of this process

    async def find(self, type: str, version: int, max_age_s: float = 0.0) -> DeclaredType | None:
        """Return a version of a type; None if it is not registered, as far as was known `max_age_s` seconds ago."""
        return (await self.known(type, version, max_age_s)).get(version)

    def at_hand(self, type: str, version: int, max_age_s: float) -> dict[int, DeclaredType] | None:
        """Return the versions of a type as `known` does; None if the log has to be read for it. The store is open."""
        found = self._types.get(type, {})
        is_current = self._epoch == self._store.engine.epoch
        if is_current and (version in found or time.monotonic() - self._read_at < max_age_s / 2):
            return found
        return None

    async def known(self, type: str, version: int, max_age_s: float = 0.0) -> dict[int, DeclaredType]:
        """Return the versions of a type that are known; `version` of it is looked for as `find` does."""
        found = self._types.get(type, {})
        if version not in found or self._epoch != (await opened_log(self._store)).engine.epoch:
            await self._catch_up(max_age_s)
            found = self._types.get(type, {})
        return found

    async def versions(self, type: str, max_age_s: float = 0.0) -> dict[int, DeclaredType]:
        """Return the versions of a type, in order; {} if there are none. `max_age_s`: see find."""
        await self._catch_up(max_age_s)
        return dict(sorted(self._types.get(type, {}).items()))

    async def all(self) -> list[DeclaredType]:
        """Return all versions of all types, by type and version."""
        await self._catch_up()
        return [found for _, versions in sorted(self._types.items()) for _, found in sorted(versions.items())]

    async def register(self, type: str, version: int, declaration: SchemaDeclaration, actor: str) -> bool:
        """Register a version of a type; return whether it is new. An identical one may be registered again.

        Raises InvalidInput, SchemaConflict if this version has another schema, or a neighbouring version is not
        compatible with it.
        """
        check_name("event type", type, error=InvalidInput)
        declared = DeclaredType(type, version, declaration)
        for _ in range(ATTEMPTS):
            versions = await self.versions(type)
            if version in versions:
                if is_same(versions[version].declaration, declaration):
                    return False
                raise SchemaConflict(
                    f"Version {version} of {type} is registered with another schema.",
                    f"A version is not changed: register version {max(versions) + 1}.",
                    type=type,
                    version=version,
                )
            _check_neighbours(declared, versions)
            try:
                await self._append(declared, actor)
            except AppendConflict:
                continue  # another server registered a version of this type
            await self._catch_up()
            return True
        raise SchemaConflict(f"{type} was registered by others at the same time.", "Try again.", type=type)

    async def _append(self, declared: DeclaredType, actor: str) -> None:
        declaration, tag = declared.declaration, f"{TAG_PREFIX}{declared.type}"
        check_name("tag", tag, reserved=True, error=InvalidInput)
        data = SchemaRegistered(declared.type, declared.version, declaration.schema, declaration.tags)
        metadata = msgspec.json.encode({"actor": actor}) if actor else None
        event = check_new(NewEvent(new_id(), TYPE, 1, msgspec.json.encode(data), (tag,), None, metadata))
        condition = ConditionClause(Query.of(TYPE, tag), self._position)
        log = await opened_log(self._store)
        await write(log, Options(), AppendRequest((event,), (condition,), None, self._epoch))

    async def _catch_up(self, max_age_s: float = 0.0) -> None:
        engine = (await opened_log(self._store)).engine
        begun = time.monotonic()
        if engine.epoch == self._epoch:
            age = begun - self._read_at
            # One call reads the log before the others must: they would all read it at once.
            if age < max_age_s / 2 or (age < max_age_s and self._catching_up):
                return
        self._catching_up = True
        try:
            await self._read_to_the_end(engine, begun)
        finally:
            self._catching_up = False

    async def _read_to_the_end(self, engine: Engine, begun: float) -> None:
        while True:
            epoch, after = engine.epoch, self._position
            if epoch != self._epoch:  # history may have been lost
                self._types, self._position, self._epoch = {}, 0, epoch
                continue
            page = await engine.read(REGISTERED, Span(after=after))
            if engine.epoch != epoch or self._position != after:
                continue  # another call has caught up meanwhile
            for stored in page.events:
                given = msgspec.json.decode(stored.data, type=SchemaRegistered)
                declaration = SchemaDeclaration(schema=given.schema, tags=given.tags)
                found = DeclaredType(given.type, given.version, declaration)
                self._types.setdefault(given.type, {})[given.version] = found
            self._position = max(page.scanned, after)
            if not page.more:
                self._read_at = begun
                return


def _check_neighbours(declared: DeclaredType, versions: dict[int, DeclaredType]) -> None:
    new = (declared.version, declared.declaration)
    lower = [version for version in versions if version < declared.version]
    higher = [version for version in versions if version > declared.version]
    if lower:
        check_compatible(declared.type, (max(lower), versions[max(lower)].declaration), new)
    if higher:
        check_compatible(declared.type, new, (min(higher), versions[min(higher)].declaration))
