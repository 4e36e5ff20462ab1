"""Acknowledgements of a named follower whose reply is lost: they are stored once, and the follower goes on."""

from __future__ import annotations

import pytest

import eventfold as ef
from eventfold.testing.conformance.events import deposit
from tests.engines.postgres.test_lost import through
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.proxy import Proxy


@pytest.mark.parametrize("lose", ["lose_answer", "lose_request"])
def test_an_acknowledgement_is_repeated_until_its_outcome_is_known(
    server: PostgresServer, schema: str, lose: str
) -> None:
    """The connection is lost at each COMMIT: every event is accounted for once, and none is returned again."""
    proxy = Proxy(server.port)
    with ef.Store(server.url(), schema=schema) as writer, ef.Store(through(server, proxy), schema=schema) as store:
        with store.follow(name="mails") as follower:
            pages = follower.pages(timeout=0)
            for number in range(4):
                writer.append(deposit("a-1", number), deposit("a-2", number))
                page = next(pages)
                assert [recorded.position for recorded in page] == [2 * number + 1, 2 * number + 2]
                getattr(proxy, lose)(b"COMMIT")
                follower.acknowledge(page[0])
                assert proxy.lost.is_set()
                follower.acknowledge()
        (proof,) = store.projections.verify("mails")
        assert (proof.proved, proof.handled, proof.position) == (True, 8, 8)
    proxy.close()


def test_events_are_acknowledged_after_an_acknowledgement_that_failed(server: PostgresServer, schema: str) -> None:
    """No server answers: the error reaches the caller, and what was stored before it is not counted twice."""
    proxy = Proxy(server.port)
    with ef.Store(server.url(), schema=schema) as writer:
        store = ef.Store(through(server, proxy), schema=schema, patience=0.1)
        writer.append(deposit("a-1", 1))
        follower = store.follow(name="mails")
        pages = follower.pages(timeout=0)
        page = next(pages)
        proxy.lose_answer(b"COMMIT")
        proxy.is_refusing = True
        with pytest.raises(ef.EventfoldError) as refused:
            follower.acknowledge(page[0])
        assert refused.value.code in ("store-unavailable", "target-unavailable")
        proxy.is_refusing = False
        writer.append(deposit("a-1", 2))
        assert [recorded.position for recorded in next(pages)] == [2]
        follower.acknowledge()
        follower.close()
        store.close()
        (proof,) = writer.projections.verify("mails")
        assert (proof.proved, proof.handled, proof.position) == (True, 2, 2)
    proxy.close()
