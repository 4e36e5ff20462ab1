"""The contacts of a ward as GraphML, which Gephi, yEd, igraph and networkx read: people, and how long they were near.

Knows: the shape of GraphML. Does not know: the source, rules.
"""

from __future__ import annotations

from datetime import datetime
from xml.sax.saxutils import quoteattr

import eventfold as ef
from examples.fields.ward.app import ContactSensed

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<key id="role" for="node" attr.name="role" attr.type="string"/>
<key id="seconds" for="edge" attr.name="seconds" attr.type="int"/>
<graph edgedefault="undirected">"""


def graphml(store: ef.Store, occurred_until: datetime | None = None) -> str:
    """The network of all contacts that began by a moment."""
    roles: dict[str, str] = {}
    together: dict[tuple[str, ...], int] = {}
    for recorded in store.read(ef.Query.of(types=[ContactSensed]), occurred_until=occurred_until):
        event = recorded.event
        roles.update(zip(event.people, event.roles, strict=True))
        together[event.people] = together.get(event.people, 0) + event.seconds
    nodes = [f'<node id={quoteattr(person)}><data key="role">{role}</data></node>' for person, role in roles.items()]
    edges = [
        f'<edge source={quoteattr(one)} target={quoteattr(other)}><data key="seconds">{seconds}</data></edge>'
        for (one, other), seconds in together.items()
    ]
    return "\n".join([HEAD, *nodes, *edges, "</graph>\n</graphml>\n"])
