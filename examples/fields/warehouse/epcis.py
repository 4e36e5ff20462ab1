"""A lot as a document of EPCIS 2.0 (ISO/IEC 19987), by which trading partners tell each other where goods went.

    document = epcis(store, "85123A-091214")

Knows: the shape of EPCIS documents. Does not know: rules. Lots have no number of GS1 here, so they are named by URIs.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import eventfold as ef
from examples.fields.warehouse.app import LineShipped, LotRecalled, LotReceived, StockWrittenOff

CONTEXT = "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"
NAMES = "https://warehouse.example"
STEPS = {
    LotReceived: ("receiving", "in_progress"),
    LineShipped: ("shipping", "in_transit"),
    StockWrittenOff: ("removing", "damaged"),
    LotRecalled: ("holding", "recalled"),
}


def epcis(store: ef.Store, lot: str, created: datetime) -> dict[str, Any]:
    """All events of a lot, in the order in which they were recorded, as one document that was `created` then."""
    events = store.read(ef.Query.of(types=list(STEPS), tags=[f"lot:{lot}"]))
    return {
        "@context": [CONTEXT],
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "creationDate": created.isoformat(),
        "epcisBody": {"eventList": [_object_event(recorded) for recorded in events]},
    }


def _object_event(recorded: ef.Recorded[Any]) -> dict[str, Any]:
    event, (step, disposition) = recorded.event, STEPS[type(recorded.event)]
    goods: dict[str, Any] = {"epcClass": f"{NAMES}/lot/{event.lot}"}
    found: dict[str, Any] = {
        "type": "ObjectEvent",
        "eventID": f"urn:uuid:{recorded.id}",
        "eventTime": (recorded.occurred or recorded.time).isoformat(),
        "eventTimeZoneOffset": "+00:00",
        "action": "OBSERVE",
        "bizStep": step,
        "disposition": disposition,
        "quantityList": [goods],
    }
    if not isinstance(event, LotRecalled):
        goods["quantity"] = event.units
    if isinstance(event, LineShipped):
        found["bizTransactionList"] = [{"type": "po", "bizTransaction": f"{NAMES}/order/{event.order}"}]
        if event.customer:
            party = f"{NAMES}/customer/{event.customer}"
            found["destinationList"] = [{"type": "owning_party", "destination": party}]
    return found
