"""The keys of the filter language over events, other than the keys of tags: what each means, for help and completion.

Knows: names, sentences. Does not know: how a clause is answered.
"""

from __future__ import annotations

import msgspec


class Key(msgspec.Struct, frozen=True):
    """A key: what it means, with an example; whether an index answers it; the operators that it takes."""

    name: str
    meaning: str
    example: str
    is_indexed: bool
    operators: tuple[str, ...]


EQUAL = (":", "=", "!=", "~")
ORDERED = (":", "=", "!=", ">", ">=", "<", "<=")
ALL = (*EQUAL, ">", ">=", "<", "<=")

KEYS = {
    each.name: each
    for each in (
        Key("type", "the type of the event, or its beginning", "type:OrderPaid,Refund*", True, EQUAL),
        Key("tag", "a whole tag, or its beginning", "tag:customer:42", True, EQUAL),
        Key("id", "the event's id", "id:0192f3a0-0000-7000-8000-000000000000", True, (":", "=", "!=")),
        Key("pos", "the position in the log", "pos:1000..2000", True, ORDERED),
        Key("append", "the events of the append that wrote a position", "append:1000", True, (":", "=")),
        Key("since", "recorded at this moment or later", "since:7d", True, (":", "=")),
        Key("until", "recorded by this moment, inclusive", "until:2026-06-01", True, (":", "=")),
        Key("occurred", "when it occurred, or else was recorded", "occurred:2026-06-01..2026-06-30", False, ORDERED),
        Key("actor", "who caused it (metadata)", "actor:ann", False, ALL),
        Key(
            "correlation",
            "the request it belongs to (metadata correlation_id)",
            "correlation:req-42",
            False,
            ALL,
        ),
        Key("cause", "the id of the event that caused it (metadata causation_id)", "cause:0192f3a0-…", False, ALL),
        Key("version", "the version of the event's type", "version>1", False, ORDERED),
        Key("has", "a field, metadata or tag key that the event has", "has:data.refund", False, (":", "=", "!=")),
        Key("is", "undecodable, encrypted or internal", "is:undecodable", False, (":", "=", "!=")),
        Key("data", "a field of the payload, by its path", "data.items[].price>100", False, ALL),
        Key("meta", "a field of the metadata, by its path", "meta.process:payment", False, ALL),
    )
}
METADATA = {"actor": "actor", "correlation": "correlation_id", "cause": "causation_id"}
STATES = ("undecodable", "encrypted", "internal")
PATHS = ("data", "meta")
