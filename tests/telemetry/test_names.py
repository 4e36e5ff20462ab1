"""How spans call a store: never by credentials or folders. And what a trace context is."""

from __future__ import annotations

import pytest

import eventfold as ef
from eventfold.core.codec import encode_metadata
from eventfold.core.trace_context import parsed, trace_metadata, trace_of
from eventfold.telemetry.names import name_of_address, name_of_engine, name_of_url
from tests.telemetry.collected import Collected

NAMES = {
    "shop.db": "shop",
    "/var/lib/secret/shop.db": "shop",
    "sqlite:////var/lib/secret/shop.sqlite3": "shop",
    "file:shop": "shop",
    "C:\\data\\shop.db": "shop",
    "memory:": "memory",
    "memory:orders": "orders",
    "postgresql://ann:secret@db.example/shop?schema=s": "shop",
    "postgresql://?host=db&password=secret&dbname=shop&schema=s": "shop",
    "postgres://db.example": "postgres",
    "host=db password=secret dbname=shop": "shop",
    "host=db password=secret": "postgres",
    "https://secret@shop.example/orders": "orders",
    "https://shop.example/v1/stores/orders": "orders",
    "http://127.0.0.1:8000/": "127.0.0.1",
    "other://ann:secret@somewhere/shop": "other",
}


@pytest.mark.parametrize(("address", "name"), NAMES.items())
def test_a_store_is_called_by_the_last_part_of_its_address(address: str, name: str) -> None:
    """Without what stands before it."""
    assert name_of_address(address) == name
    assert "secret" not in name


def test_a_store_is_called_alike_by_its_address_and_its_engine(tmp_path: object) -> None:
    """Sync stores have an engine, async ones may not have it yet."""
    path = f"{tmp_path}/shop.db"
    with ef.Store(path) as store:
        assert name_of_engine(store.engine) == name_of_url(path) == name_of_url(store.engine) == "shop"


def test_a_span_is_written_as_metadata_is_encoded(spans: Collected) -> None:
    """The bytes that are made at once are those that the encoder makes."""
    from eventfold.telemetry.context import context_of, trace_fields

    with spans.within() as caller:
        made = context_of(caller)
    assert made.encoded == encode_metadata(trace_fields(caller)) == encode_metadata(made.metadata)
    assert trace_of(made.encoded) == trace_fields(caller)


def test_a_state_that_is_not_valid_is_left_out() -> None:
    """The parent stays."""
    parent = f"00-{'1' * 32}-{'2' * 16}-01"
    assert parsed(parent) == ("1" * 32, "2" * 16, "01")
    assert trace_metadata(parent, "a=1") == {"traceparent": parent, "tracestate": "a=1"}
    for state in ("", "x" * 600, "é", "a\nb", 5, None):
        assert trace_metadata(parent, state) == {"traceparent": parent}
    assert trace_metadata(7) == trace_metadata(None) == {}
    assert trace_of(None) == trace_of(b'{"note":"\\"traceparent\\""}') == trace_of(b'{"traceparent":5}') == {}
