"""Examples and links of the OpenAPI document, by the name of the operation.

A link says how a value of one answer is used in the next call: an append, then the event by its id. Programs that test
the server follow them. Knows: names of operations. Does not know: types; a test checks that each example fits its type.
"""

from __future__ import annotations

from typing import Any

import msgspec

ID = "019f5fd1-98a0-7c40-b0c7-8f3a55b2d2a1"
TIME = "2026-11-29T10:15:00.000000Z"
EVENT: dict[str, Any] = {
    "position": 7,
    "id": ID,
    "type": "MoneyWithdrawn",
    "tags": ["account:a-1"],
    "data": {"account": "a-1", "amount": "50.00"},
    "metadata": {"actor": "teller-7"},
    "time": TIME,
}
QUERY: dict[str, Any] = {"items": [{"types": ["MoneyWithdrawn"], "tags": ["account:a-1"]}]}
UNTIL = "2030-01-31T18:00:00Z"
REASON: dict[str, Any] = {"reason": "The handler was repaired."}


class Example(msgspec.Struct, frozen=True):
    """The body of a call, and of its answer."""

    request: Any = None
    response: Any = None


EXAMPLES: dict[str, Example] = {
    "post-events": Example(
        {
            "events": [
                {"type": "MoneyWithdrawn", "tags": ["account:a-1"], "data": {"account": "a-1", "amount": "50.00"}}
            ],
            "unless": QUERY,
            "after": 6,
        },
        {
            "store": "2b0f9c1d3e4a5b6c7d8e9f0a1b2c3d4e",
            "epoch": 1,
            "first": 7,
            "last": 7,
            "time": TIME,
            "ids": [ID],
            "digest": "5f2c9a",
            "repeated": False,
        },
    ),
    "query-events": Example({"query": QUERY, "limit": 50, "backwards": True}),
    "post-events-query": Example({"query": QUERY, "limit": 50}),
    "get-events-position": Example(response=EVENT),
    "get-events-by-id-id": Example(response=EVENT),
    "query-counts": Example({"query": QUERY, "bounds": [0, 100, 200]}, {"counts": [12, 3], "total": 15}),
    "post-counts": Example({"query": QUERY, "bounds": ["2026-11-01", "2026-11-29"]}, {"counts": [15], "total": 15}),
    "get-types": Example(response={"types": [{"type": "MoneyWithdrawn", "count": 15, "first": 7, "last": 310}]}),
    "get-tags": Example(response={"tags": [{"tag": "account:a-1", "count": 15, "first": 2, "last": 310}]}),
    "get-tag-keys": Example(response={"keys": ["account:", "customer:"]}),
    "get-states-name": Example(
        response={
            "state": "Account",
            "question": {"account": "a-1"},
            "position": 310,
            "answer": {"owner": "ann", "balance": "30.00"},
        }
    ),
    "query-projections-name-rows": Example(
        {"where": ["total>5 owner:ann,bob"], "order": ["-total"], "limit": 20},
        {"rows": [{"account": "a-1", "owner": "ann", "total": "30.00"}]},
    ),
    "post-projections-name-pause": Example(REASON),
    "post-projections-name-resume": Example(REASON),
    "post-projections-name-retry": Example(REASON),
    "post-projections-name-skip": Example({**REASON, "position": 812}),
    "post-projections-name-begin": Example({**REASON, "at": 812}),
    "post-processes-name-retry": Example(REASON),
    "post-processes-name-skip": Example({**REASON, "position": 812}),
    "post-alerts-name-acknowledge": Example({"key": "c-1", "until": UNTIL, "reason": "The bank calls back."}),
    "post-alerts-name-snooze": Example({"key": None, "until": UNTIL, "reason": "A load test."}),
}

Link = tuple[str, str, dict[str, str]]  # its name, the operation, and where each parameter comes from
LINKS: dict[str, tuple[Link, ...]] = {
    "post-events": (
        ("EventById", "get-events-by-id-id", {"id": "$response.body#/ids/0"}),
        ("EventAtPosition", "get-events-position", {"position": "$response.body#/first"}),
        ("EventsAfter", "get-events", {"after": "$response.body#/first"}),
    ),
    "get-events": (("EventAtPosition", "get-events-position", {"position": "$response.body#/events/0/position"}),),
    "get-tags": (("TagsAfter", "get-tags", {"after": "$response.body#/tags/0/tag"}),),
    "get-types": (("TypesAfter", "get-types", {"after": "$response.body#/types/0/type"}),),
    "get-states": (
        ("State", "get-states-name", {"name": "$response.body#/states/0/name"}),
        ("History", "get-states-name-history", {"name": "$response.body#/states/0/name"}),
    ),
    "get-projections": (
        ("Projection", "get-projections-name", {"name": "$response.body#/projections/0/name"}),
        ("Rows", "get-projections-name-rows", {"name": "$response.body#/projections/0/name"}),
        ("Pause", "post-projections-name-pause", {"name": "$response.body#/projections/0/name"}),
        ("Resume", "post-projections-name-resume", {"name": "$response.body#/projections/0/name"}),
        ("Retry", "post-projections-name-retry", {"name": "$response.body#/projections/0/name"}),
    ),
    "get-jobs": (("Job", "get-jobs-id", {"id": "$response.body#/jobs/0/id"}),),
    "post-jobs": (
        ("Job", "get-jobs-id", {"id": "$response.body#/id"}),
        ("Stop", "post-jobs-id-stop", {"id": "$response.body#/id"}),
    ),
    "put-consumers-name": tuple(
        (link, operation, {"name": "$response.body#/name"})
        for link, operation in (
            ("Consumer", "get-consumers-name"),
            ("Receive", "post-consumers-name-receive"),
            ("Parked", "get-consumers-name-parked"),
            ("Retry", "post-consumers-name-retry"),
            ("Delete", "delete-consumers-name"),
        )
    ),
    "get-consumers": (("Consumer", "get-consumers-name", {"name": "$response.body#/consumers/0/name"}),),
    "put-schemas-type-version": (
        ("Schema", "get-schemas-type-version", {"type": "$response.body#/type", "version": "$response.body#/version"}),
        ("Schemas", "get-schemas-type", {"type": "$response.body#/type"}),
    ),
    "get-schemas": (("Schemas", "get-schemas-type", {"type": "$response.body#/schemas/0/type"}),),
    "get-processes": (("Instances", "get-processes-name", {"name": "$response.body#/processes/0"}),),
    "get-processes-name": (
        (
            "Instance",
            "get-processes-name-instance",
            {"name": "$response.body#/process", "key": "$response.body#/instances/0/key"},
        ),
    ),
    "post-keys": (("Rotate", "post-keys-id-rotate", {"id": "$response.body#/id"}),),
}
