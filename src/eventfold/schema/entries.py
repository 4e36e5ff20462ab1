"""The event catalogue as data: each version of each event type, and the code that decides, folds or reacts to it.

Knows: descriptions of classes, who uses them. Does not know: pages (catalogue.py), files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from eventfold.core.upcast import current_classes, version_chain
from eventfold.schema.describe import describe, event_classes
from eventfold.schema.usage import EventUsage, find_usage


class CatalogueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one event type. `schema`: JSON Schema of its fields; `tags`: stored field -> tag key.

    `read_as`: the versions that it is upcast to, in order; empty for one that is used as it is. Of these, `decided_by`,
    `folded_by`, `projected_by` and `reacted_by` are the names of the code that makes and takes it. `unknown`: what
    becomes of stored fields that the class does not have: "ignored", "kept" or "refused". `source`: MODULE.CLASS.
    """

    type: str
    version: int
    aliases: tuple[str, ...]
    doc: str
    schema: dict[str, Any]
    tags: dict[str, str]
    unknown: str
    read_as: tuple[str, ...]
    decided_by: tuple[str, ...]
    folded_by: tuple[str, ...]
    projected_by: tuple[str, ...]
    reacted_by: tuple[str, ...]
    source: str

    @property
    def is_current(self) -> bool:
        """Whether its class is used as it is, not upcast to another one."""
        return not self.read_as


def entries(modules: Iterable[str]) -> list[CatalogueEntry]:
    """Return the entries of the event classes that these modules and packages declare, by name and version.

    Raises InvalidInput if the fields of a class have no JSON Schema.
    """
    wanted = list(modules)
    who = find_usage(wanted)
    return [_entry(cls, who[cls]) for cls in event_classes(wanted)]


def _entry(cls: type, who: EventUsage) -> CatalogueEntry:
    one = describe(cls)
    is_current = current_classes(cls) == (cls,)  # an upcast event is used as the class it is read as
    used = who if is_current else EventUsage()
    return CatalogueEntry(
        type=one.type,
        version=one.version,
        aliases=one.aliases,
        doc=one.doc,
        schema=one.schema,
        tags=one.tags,
        unknown=one.unknown,
        read_as=() if is_current else tuple(version_chain(cls)[1:]),
        decided_by=tuple(sorted(used.decide)),
        folded_by=tuple(sorted(used.fold)),
        projected_by=tuple(sorted(used.project)),
        reacted_by=tuple(sorted(used.react)),
        source=one.source,
    )
