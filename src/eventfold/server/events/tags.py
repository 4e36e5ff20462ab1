"""The tags of an event as its type derives them, compared with those that a client sends.

Knows: tags. Does not know: how they are derived.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

import msgspec

from eventfold.core.envelope import NewEvent, check_new
from eventfold.core.tags import check_name, in_utc
from eventfold.errors import InvalidEvent


def with_derived(event: NewEvent, derived: Iterable[str], keys: Set[str]) -> NewEvent:
    """Return the event with the tags that are derived from its data, and with the client's of other keys.

    `keys`: the tag keys that the type declares. Raises InvalidEvent if the client sent another tag of such a key: with
    it, conditions and queries by tag would miss the event, or find it wrongly.
    """
    own = sorted({check_name("tag", tag) for tag in derived})
    known = set(map(in_utc, own))
    others = list[str]()
    for tag in event.tags:
        if tag.partition(":")[0] not in keys:
            others.append(tag)
        elif in_utc(tag) not in known:
            raise InvalidEvent(
                f"The tags of this {event.type} are {_listed(event.tags)}, and its data gives {_listed(own)}.",
                "Leave the tags out, the server derives them; or correct the data.",
                type=event.type,
                tags=_listed(event.tags),
                derived=_listed(own),
            )
    tags = tuple(sorted({*own, *others}))
    return event if tags == event.tags else check_new(msgspec.structs.replace(event, tags=tags))


def _listed(tags: Iterable[str]) -> str:
    return f"[{', '.join(tags)}]"
