"""Metrics as text: the format of Prometheus, or OpenMetrics if the scraper asks for it.

Knows: prometheus_client's writers. Does not know: what is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family


class Collecting(Protocol):
    """Something whose families can be written."""

    def collect(self) -> Iterable[Family]:
        """Return the families."""
        ...


class Families:
    """Families as a registry, which is what the writers take."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        """Yield the families."""
        yield from self._families


def encode(collecting: Collecting, accept: str = "") -> tuple[bytes, str]:
    """Return the text and its media type. `accept`: the header Accept of the scraper."""
    from prometheus_client.exposition import choose_encoder

    writer, media = choose_encoder(accept)
    return writer(collecting), media  # pyright: ignore[reportArgumentType] (it needs `collect` only)
