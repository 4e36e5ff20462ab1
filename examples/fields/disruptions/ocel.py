"""Events as an object-centric event log, OCEL 2.0 in JSON, which tools for process mining read.

Knows: the shape of OCEL 2.0. Does not know: any event class: a tag is an object, its key is the type of the object.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import eventfold as ef


def ocel(events: Iterable[ef.Recorded[Any]]) -> dict[str, Any]:
    """The events, and the objects that their tags name, as one document. `events` are read with `raw=True` or not."""
    objects: dict[str, str] = {}
    kinds: set[str] = set()
    found: list[dict[str, Any]] = []
    for recorded in events:
        kinds.add(recorded.type)
        objects.update((tag, tag.partition(":")[0]) for tag in recorded.tags)
        data = json.loads(recorded.stored.data)
        found.append(
            {
                "id": str(recorded.id),
                "type": recorded.type,
                "time": (recorded.occurred or recorded.time).isoformat(),
                "attributes": [{"name": name, "value": str(value)} for name, value in data.items()],
                "relationships": [{"objectId": tag, "qualifier": tag.partition(":")[0]} for tag in recorded.tags],
            }
        )
    names = {
        kind: sorted({each["name"] for event in found if event["type"] == kind for each in event["attributes"]})
        for kind in kinds
    }
    return {
        "objectTypes": [{"name": name, "attributes": []} for name in sorted(set(objects.values()))],
        "eventTypes": [
            {"name": kind, "attributes": [{"name": name, "type": "string"} for name in names[kind]]}
            for kind in sorted(kinds)
        ],
        "objects": [{"id": tag, "type": kind} for tag, kind in objects.items()],
        "events": found,
    }
