"""Calls of the server made from its OpenAPI document, by the hundred for each operation, and in long chains of links.

Knows: the calls of tests/server. Does not know: what is checked in an answer.
"""

from __future__ import annotations

from soak.rounds import Round
from tests.server.generated_calls import bank_server, call_each, follow_links

EXAMPLES = 60  # of each operation, in a round
CHAINS, STEPS = 60, 15


def generated_calls(turn: Round) -> None:
    """Serve a bank, and call it."""
    seed = turn.dice.getrandbits(31)
    with bank_server(turn.folder) as (url, key):
        calls, wrong = call_each(url, key, examples=EXAMPLES, seed=seed)
        turn.count("generated calls", calls)
        for each in wrong:
            turn.findings.add(each)
        try:
            turn.count("generated calls", follow_links(url, key, examples=CHAINS, steps=STEPS, seed=seed))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            turn.findings.add(f"in a chain of calls: {error}")
